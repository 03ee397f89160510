"""The routes, over a client that calls the application directly."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest

from facula.serve import Limits, ModelRegistry
from facula.serve.errors import UnknownModel
from facula.serve.http import HEADER_LENGTH, create_app
from tests.serve.fakes import Double, Gate

X = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}


def message(count=0, **more):
    count_entry = {"name": "count", "datatype": "INT64", "shape": [], "data": [count]}
    return {"inputs": [X, count_entry], **more}


@pytest.fixture
def registry():
    registry = ModelRegistry()
    registry.add(Double("2"))
    registry.add(Double("10"))
    return registry


class Client:
    """Calls the application directly, each request in an event loop of its own."""

    def __init__(self, app):
        self.app = app

    def request(self, method, path, **more):
        async def send():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, **more):
        return self.request("POST", path, **more)


@pytest.fixture
def client(registry):
    return Client(create_app(registry, Limits(body_bytes=2000, pending=2), "0.1"))


async def in_pieces(size, count):
    for _ in range(count):
        yield b" " * size


def test_metadata_and_health(client, registry):
    server = client.get("/v2").json()
    assert server == {"name": "facula", "version": "0.1", "extensions": ["binary_tensor_data"]}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    model = client.get("/v2/models/double").json()
    assert model["versions"] == ["2", "10"] and model["platform"] == "test"
    assert model["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    assert client.get("/v2/models/double/ready").json() == {"name": "double", "ready": True}
    assert client.get("/v2/models/double/versions/2/ready").status_code == 200
    registry.remove("double")
    answer = client.get("/v2/health/ready")
    assert answer.status_code == 503 and answer.json() == {"ready": False}


def test_infer_runs_the_newest_version_in_a_worker_thread(client, registry):
    answer = client.post("/v2/models/double/infer", json=message(1, id="q"))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "model_name": "double",
        "model_version": "10",
        "id": "q",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [3, 5, 7, 9, 11, 13]},
            {"name": "rows", "datatype": "INT64", "shape": [], "data": [2]},
        ],
    }
    assert all(n.startswith("facula-serve") for n in registry.get("double").threads)
    older = client.post("/v2/models/double/versions/2/infer", json=message())
    assert older.json()["model_version"] == "2"


def test_binary_both_ways(client):
    x = np.arange(6, dtype="<f4").reshape(2, 3)
    entry = {k: v for k, v in X.items() if k != "data"}
    entry["parameters"] = {"binary_data_size": x.nbytes}
    asked = {"inputs": [entry, message()["inputs"][1]]}
    asked["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    head = json.dumps(asked).encode()
    answer = client.post(
        "/v2/models/double/infer",
        content=head + x.tobytes(),
        headers={HEADER_LENGTH: str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[HEADER_LENGTH])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [2, 3]
    np.testing.assert_array_equal(np.frombuffer(answer.content[length:], "<f4"), 2 * x.ravel())


@pytest.mark.parametrize(
    "method, path, body, status, code",
    [
        ("GET", "/", None, 404, "not_found"),
        ("GET", "/v2/models/none", None, 404, "unknown_model"),
        ("GET", "/v2/models/double/versions/3", None, 404, "unknown_model"),
        ("POST", "/v2/models/none/infer", b"{}", 404, "unknown_model"),
        ("GET", "/v2/models/double/infer", None, 405, "method_not_allowed"),
        ("POST", "/v2/models/double/infer", b"no", 400, "invalid_request"),
        ("POST", "/v2/models/double/infer", b'{"inputs": []}', 400, "invalid_input"),
        ("POST", "/v2/models/double/infer", b" " * 2001, 413, "body_too_large"),
        ("POST", "/v2/models/double/infer", in_pieces(1500, 2), 413, "body_too_large"),
    ],
)
def test_errors_have_a_status_a_code_and_words(client, method, path, body, status, code):
    answer = client.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["code"] == code and answer.json()["error"]


def test_a_body_that_does_not_come_is_given_up(registry):
    async def slowly():
        yield b"{"
        await asyncio.sleep(5)

    client = Client(create_app(registry, Limits(body_seconds=0.05)))
    answer = client.post("/v2/models/double/infer", content=slowly())
    assert answer.status_code == 408 and answer.headers["connection"] == "close"


def test_a_header_length_that_is_no_number(client):
    answer = client.post("/v2/models/double/infer", headers={HEADER_LENGTH: "-1"}, content=b"{}")
    assert answer.status_code == 400


def test_a_failing_model_tells_the_client_nothing_of_its_insides(client, caplog):
    answer = client.post("/v2/models/double/infer", json=message(13))
    assert answer.status_code == 500 and answer.json()["code"] == "model_failed"
    assert "secret" not in answer.text and "secret" in caplog.text
    answer = client.post("/v2/models/double/infer", json=message(-1))
    assert answer.status_code == 400 and "must not be negative" in answer.json()["error"]
    answer = client.post("/v2/models/double/infer", json=message(17))
    assert answer.status_code == 500 and "NaN or infinity" in answer.json()["error"]


def test_the_event_loop_stays_free_and_too_many_are_turned_away():
    gate = Gate()
    registry = ModelRegistry()
    registry.add(gate)
    app = create_app(registry, Limits(pending=2, workers=1))
    body = {"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1], "data": [True]}]}

    async def scenario():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first = [
                asyncio.create_task(client.post("/v2/models/gate/infer", json=body))
                for _ in range(2)
            ]
            await asyncio.to_thread(gate.entered.wait, 20)
            live = await client.get("/v2/health/live")
            third = await client.post("/v2/models/gate/infer", json=body)
            gate.opened.set()
            return live, third, await asyncio.gather(*first)

    live, third, first = asyncio.run(scenario())
    assert live.status_code == 200
    assert third.status_code == 503 and third.headers["retry-after"] == "1"
    assert [a.status_code for a in first] == [200, 200]


def test_models_are_closed_with_the_server(registry):
    app = create_app(registry)

    async def scenario():
        async with app.router.lifespan_context(app):
            assert not any(model.closed for model in registry.models())

    asyncio.run(scenario())
    assert all(model.closed for model in registry.models())


def test_registry_errors(registry):
    with pytest.raises(UnknownModel, match="no version '3'"):
        registry.get("double", "3")
    with pytest.raises(UnknownModel, match="this server has"):
        registry.versions("other")
    registry.remove("double", "10")
    assert registry.get("double").version == "2"
