"""Messages: what is taken, what is refused and with which words."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facula.serve import datatypes, protocol
from facula.serve.errors import (
    InvalidInput,
    InvalidRequest,
    LimitExceeded,
    ModelFailed,
    ServeError,
)
from facula.serve.limits import Limits
from facula.serve.model import TensorSpec
from tests.serve.fakes import Double

LIMITS = Limits(batch=4, elements=100)
COUNT = {"name": "count", "datatype": "INT64", "shape": [], "data": [1]}


def tensor(**changes):
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6.5]}
    entry.update(changes)
    return {k: v for k, v in entry.items() if v is not None}


def parse(*inputs, tail=b"", **message):
    head = json.dumps({"inputs": inputs, **message}).encode()
    return protocol.parse_request(head + tail, Double(), LIMITS, len(head) if tail else None)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6.5], [[1, 2, 3], [4, 5, 6.5]]])
def test_flat_and_nested_data_mean_the_same(data):
    request = parse(tensor(data=data), COUNT, id="a")
    assert request.id == "a"
    assert request.inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(request.inputs["x"], [[1, 2, 3], [4, 5, 6.5]])
    assert request.inputs["count"].shape == () and request.inputs["count"] == 1
    assert request.outputs == {"y": False, "rows": False}


def test_a_scalar_may_be_given_without_a_list():
    assert parse(tensor(), {**COUNT, "data": 7}).inputs["count"] == 7


@pytest.mark.parametrize(
    "changes, kind, words",
    [
        ({"datatype": "FP64"}, InvalidInput, "expected FP32, got 'FP64'"),
        ({"datatype": None}, InvalidInput, "got None"),
        ({"shape": [2, 4]}, InvalidInput, r"expected shape \[-1, 3\], got \[2, 4\]"),
        ({"shape": [6]}, InvalidInput, "expected shape"),
        ({"shape": [0, 3], "data": []}, InvalidInput, "no elements"),
        ({"shape": [-1, 3]}, InvalidRequest, "list of sizes"),
        ({"shape": [True, 3]}, InvalidRequest, "list of sizes"),
        ({"shape": "23"}, InvalidRequest, "list of sizes"),
        ({"shape": [5, 3]}, LimitExceeded, "a batch of 5; at most 4"),
        ({"data": [1, 2]}, InvalidInput, "needs 6 elements, got 2"),
        ({"data": [[1, 2], [3, 4], [5, 6]]}, InvalidInput, "not nested as the shape"),
        ({"data": [[1, 2, 3], 4]}, InvalidInput, "not nested"),
        ({"data": [[[1, 2, 3]], [[4, 5, 6]]]}, InvalidInput, "not nested"),
        ({"data": "abc"}, InvalidRequest, "expected a list"),
        ({"data": None}, InvalidRequest, "expected a list"),
        ({"data": [1, 2, 3, 4, 5, "6"]}, InvalidInput, "cannot be of type str"),
        ({"data": [1, 2, 3, 4, 5, True]}, InvalidInput, "cannot be of type bool"),
        ({"data": [1, 2, 3, 4, 5, None]}, InvalidInput, "NoneType"),
        ({"data": [1, 2, 3, 4, 5, 1e39]}, InvalidInput, "finite"),
        ({"data": [1, 2, 3, 4, 5, 10**400]}, InvalidInput, "out of the range"),
        ({"parameters": {"binary_data_size": 24}}, InvalidRequest, "24 bytes announced, 0 left"),
        ({"parameters": {"binary_data_size": 20}}, InvalidInput, "expected 24, got 20"),
        ({"parameters": 3}, InvalidRequest, "parameters"),
        ({"name": "z"}, InvalidInput, r"no input named \['z'\]"),
        ({"name": 3}, InvalidRequest, "a string as name"),
    ],
)
def test_bad_tensors_are_refused(changes, kind, words):
    with pytest.raises(kind, match=words):
        parse(tensor(**changes), COUNT)


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "JSON object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs": 3}', "inputs: expected a list"),
        (b'{"inputs": [3]}', "expected objects"),
        (b'{"inputs": [], "id": 3}', "id: expected a string"),
        (b'{"inputs": [{"name": "x", "data": [NaN]}]}', "NaN is no JSON number"),
        (b'{"inputs": [{"name": "x", "data": [-Infinity]}]}', "Infinity is no JSON number"),
    ],
)
def test_bodies_that_are_no_message_are_refused(body, words):
    with pytest.raises(InvalidRequest, match=words):
        protocol.parse_request(body, Double(), LIMITS)


def test_inputs_must_be_complete_and_distinct():
    with pytest.raises(InvalidInput, match=r"missing inputs: \['count'\]"):
        parse(tensor())
    with pytest.raises(InvalidRequest, match="given twice"):
        parse(tensor(), tensor(), COUNT)


def test_the_element_limit_counts_all_inputs_together():
    limits = Limits(elements=6)
    body = json.dumps({"inputs": [tensor(), COUNT]}).encode()
    with pytest.raises(LimitExceeded, match="1 elements; at most 0"):
        protocol.parse_request(body, Double(), limits)


def test_integers_must_lie_in_the_range():
    with pytest.raises(InvalidInput, match="out of the range of int64"):
        parse(tensor(), {**COUNT, "data": [2**63]})
    with pytest.raises(InvalidInput, match="cannot be of type float"):
        parse(tensor(), {**COUNT, "data": [1.0]})


def test_binary_tensors():
    x = np.arange(6, dtype="<f4").reshape(2, 3)
    entry = tensor(data=None, parameters={"binary_data_size": 24})
    request = parse(entry, COUNT, tail=x.tobytes(), parameters={"binary_data_output": True})
    np.testing.assert_array_equal(request.inputs["x"], x)
    assert request.outputs == {"y": True, "rows": True}
    with pytest.raises(InvalidRequest, match="3 bytes follow"):
        parse(entry, COUNT, tail=x.tobytes() + b"abc")
    with pytest.raises(InvalidInput, match="finite"):
        parse(entry, COUNT, tail=np.full(6, np.nan, "<f4").tobytes())
    with pytest.raises(InvalidRequest, match="exceeds the body"):
        protocol.parse_request(b"{}", Double(), LIMITS, 3)


def test_outputs_are_chosen_and_written():
    request = parse(tensor(), COUNT, outputs=[{"name": "y", "parameters": {"binary_data": True}}])
    y = np.float32([[1, 2, 3]])
    body, length = protocol.build_response(Double(), request, {"y": y, "rows": np.int64(1)})
    head = json.loads(body[:length])
    assert [o["name"] for o in head["outputs"]] == ["y"]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert body[length:] == y.tobytes()
    with pytest.raises(InvalidRequest, match="no output named 'q'"):
        parse(tensor(), COUNT, outputs=[{"name": "q"}])


def test_json_output_is_finite_or_an_error():
    request = parse(tensor(), COUNT)
    outputs = {"y": np.float32([[1, 2, np.nan]]), "rows": np.int64(1)}
    with pytest.raises(ModelFailed, match="NaN or infinity"):
        protocol.build_response(Double(), request, outputs)


@pytest.mark.parametrize("name", sorted(datatypes.NUMPY))
def test_every_datatype_goes_both_ways(name):
    spec = TensorSpec("x", name, (-1,))
    model = Double()
    model.inputs = model.outputs = (spec,)
    values = [True, False] if name == "BOOL" else [0, 1, 100]
    entry = {"name": "x", "datatype": name, "shape": [len(values)], "data": values}
    body = json.dumps({"inputs": [entry]}).encode()
    request = protocol.parse_request(body, model, LIMITS)
    assert request.inputs["x"].dtype == spec.dtype
    answer, length = protocol.build_response(model, request, request.inputs)
    assert length is None
    assert json.loads(answer)["outputs"] == [entry]


def test_specs_are_checked():
    with pytest.raises(ValueError, match="unknown datatype"):
        TensorSpec("x", "FLOAT", (1,))
    with pytest.raises(ValueError, match="at least -1"):
        TensorSpec("x", "FP32", (-2,))
    with pytest.raises(ValueError, match="batch must be positive"):
        Limits(batch=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_is_taken_or_refused_with_a_typed_error(data):
    """A good message with any one part of it, at any depth, replaced by anything."""
    good = {"inputs": [tensor(), COUNT], "outputs": [{"name": "y"}], "parameters": {}}
    message = copy.deepcopy(good)
    place = message
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0, -1]))
        if not (isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    try:
        request = protocol.parse_request(json.dumps(message).encode(), Double(), LIMITS)
    except ServeError as error:
        assert error.status == 400 and str(error)
    else:
        assert request.inputs["x"].shape[1] == 3 and request.inputs["x"].dtype == np.float32
        assert np.isfinite(request.inputs["x"]).all()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_any_bytes_are_refused_with_a_typed_error(body, header_length):
    with pytest.raises(ServeError):
        protocol.parse_request(body, Double(), LIMITS, header_length)
