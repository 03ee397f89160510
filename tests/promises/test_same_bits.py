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


def _bits(x):
    return x.numpy().tobytes()


@pytest.mark.parametrize("shape", [(3, 5, 33, 17), (2, 1, 130, 140), (4, 7, 9, 1)])
@pytest.mark.parametrize("dims", [(2, 3), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3), (0, 3)])
@pytest.mark.parametrize("order", [(0, 1, 3, 2), (3, 2, 1, 0)])
def test_strides_do_not_change_a_sum(shape, dims, order):
    x = facula.randn(*shape)
    turned = x.permute(order).contiguous().permute([order.index(d) for d in range(4)])
    assert _bits(turned) == _bits(x)
    for f in (facula.sum, facula.var):
        assert _bits(f(turned, dims)) == _bits(f(x, dims))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, i: x.gather(1, i).sum(1),
        lambda x, i: (x * i).sum(1),
        lambda x, i: (x.double() * 2).float().sum(1),
        lambda x, i: (x.half() * 2).float().sum(),
        lambda x, i: facula.where(i > 500, x, 0.0).sum(),
        lambda x, i: x.sum(1).double() + x.double().sum(1),
        lambda x, i: (x.view(7, 40, 25) * x.view(7, 40, 25)[:, :, :1]).sum((1, 2)),
        lambda x, i: (x.view(7, 40, 25) * x.view(7, 25, 40).transpose(1, 2)).sum(),
    ],
)
def test_what_else_is_read_does_not_change_a_sum(f):
    x, i = facula.randn(7, 1000), facula.randint(0, 1000, (7, 1000))
    assert _bits(facula.compile(f, fullgraph=True)(x, i)) == _bits(f(x, i))
