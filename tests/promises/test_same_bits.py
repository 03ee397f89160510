"""Promise 4: the same bits, however a model is run.

Nothing is compared within a tolerance here. What may change bits is said in
``docs/design/decisions.md``; the tests at the end hold those exceptions.
"""

from __future__ import annotations

import pytest

import facula
from tests.promises.models import MODELS, made, step

every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def _threads():
    before = facula.get_num_threads()
    yield
    facula.set_num_threads(before)


def differing(model, a, b):
    names = ["loss", *(name for name, _ in model.named_parameters())]
    return [n for n, x, y in zip(names, a, b) if x != y]


@every_model
def test_run_again(name):
    model, x, y = made(name)
    first = step(model, x, y)
    again = made(name)
    assert not differing(model, first, step(*again))


@every_model
@pytest.mark.parametrize("threads", (2, 3))
def test_any_number_of_threads(name, threads):
    facula.set_num_threads(1)
    model, x, y = made(name)
    alone = step(model, x, y)
    facula.set_num_threads(threads)
    assert not differing(model, alone, step(*made(name)))


@every_model
def test_captured_is_eager(name):
    model, x, y = made(name)
    eager = step(model, x, y)
    model, x, y = made(name)
    captured = facula.compile(model, fullgraph=True)
    assert not differing(model, eager, step(model, x, y, captured))


@every_model
def test_a_row_of_a_batch_is_the_row_alone(name):
    model, x, _ = made(name)
    model.eval()
    with facula.no_grad():
        whole = model(x)
        for i in range(len(x)):
            assert model(x[i : i + 1]).tolist() == whole[i : i + 1].tolist(), f"row {i}"


@every_model
def test_a_training_run_is_the_same_again(name):
    def weights():
        model, x, y = made(name)
        optimizer = facula.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            step(model, x, y)
            optimizer.step()
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    assert weights() == weights()
