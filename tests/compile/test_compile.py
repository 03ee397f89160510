"""Captured functions and modules against the same run eagerly, to the bit; guards; fallbacks."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import nn
from facula.eager import engine
from facula.eager.capture import CaptureError
from facula.ir import dims
from facula.ir.dims import Dim, evaluate


def same(a, b):
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def both(fn, *args):
    """The function's result, eager and captured."""
    return fn(*args), facula.compile(fn, fullgraph=True)(*args)


def test_pointwise_chain_is_one_kernel_with_the_same_bits():
    def fn(x, y):
        return (facula.sigmoid(x * y + 1.0) * facula.tanh(x) - 0.5 * x.pow(2)).exp().sum(1)

    x, y = facula.randn(33, 17), facula.randn(33, 1)
    compiled = facula.compile(fn, fullgraph=True)
    before = engine.compiled_kernels
    result = compiled(x, y)
    assert engine.compiled_kernels - before <= 1
    same(result, fn(x, y))


def test_new_sizes_compile_nothing():
    """Once a matmul of few rows and one of many have been met (they have kernels of their own)."""
    compiled = facula.compile(lambda x, w: F.gelu(x @ w).softmax(-1), fullgraph=True)
    w = facula.randn(16, 24)
    compiled(facula.randn(5, 16), w), compiled(facula.randn(40, 16), w)
    before = engine.compiled_kernels
    inputs = [facula.randn(n, 16) for n in (6, 8, 33, 65)]
    results = [compiled(x, w) for x in inputs]
    assert engine.compiled_kernels == before
    for x, y in zip(inputs, results):
        same(y, F.gelu(x @ w).softmax(-1))


def network():
    facula.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(36, 5),
    )  # fmt: skip


def step(model, forward):
    facula.manual_seed(7)
    x, t = facula.randn(6, 1, 8, 8), facula.randint(0, 5, (6,))
    facula.manual_seed(11)
    loss = F.cross_entropy(forward(x), t)
    loss.backward()
    return loss, [p.grad for p in model.parameters()], [b.clone() for b in model.buffers()]


def test_module_with_buffers_and_dropout_trains_as_eager_does():
    a, b = network(), network()
    for eager, captured in zip(step(a, a), step(b, facula.compile(b, fullgraph=True))):
        if isinstance(eager, list):
            for x, y in zip(eager, captured):
                same(x, y)
        else:
            same(eager, captured)


def test_train_and_eval_are_different_captures():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9))
    compiled = facula.compile(model, fullgraph=True)
    x = facula.ones(50, 4)
    assert (compiled(x) == 0).any().item()
    model.eval()
    same(compiled(x), model(x))


def test_plain_attributes_and_closures_are_guarded():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = 2.0

        def forward(self, x):
            return x * self.factor

    model = Scale()
    compiled = facula.compile(model, fullgraph=True)
    x = facula.ones(3)
    assert compiled(x).tolist() == [2.0] * 3
    model.factor = 5.0
    assert compiled(x).tolist() == [5.0] * 3

    offset = 1

    def shifted(x):
        return x + offset

    fn = facula.compile(shifted, fullgraph=True)
    assert fn(x).tolist() == [2.0] * 3
    offset = 10
    assert fn(x).tolist() == [11.0] * 3


def test_a_float_argument_is_read_at_each_call():
    fn = facula.compile(lambda x, rate: x * rate, fullgraph=True)
    x = facula.ones(2)
    fn(x, 0.5)
    before = engine.compiled_kernels
    assert fn(x, 0.25).tolist() == [0.25, 0.25]
    assert engine.compiled_kernels == before


def test_a_replaced_parameter_is_seen():
    model = nn.Linear(3, 3, bias=False)
    compiled = facula.compile(model, fullgraph=True)
    x = facula.randn(2, 3)
    compiled(x)
    model.weight = nn.Parameter(facula.zeros(3, 3))
    assert compiled(x).tolist() == [[0.0] * 3] * 2


def test_nested_results_and_arguments():
    def fn(pair, table):
        a, b = pair
        return {"sum": a + b, "parts": [a * 2, (b, table["k"])]}

    a, b = facula.randn(3), facula.randn(3)
    eager, captured = both(fn, (a, b), {"k": 4})
    same(eager["sum"], captured["sum"])
    same(eager["parts"][0], captured["parts"][0])
    assert captured["parts"][1][0] is b and captured["parts"][1][1] == 4


def test_in_place_changes_of_local_tensors():
    def fn(x):
        y = x * 2
        y += 1
        y.relu_()
        return y, y.sum()

    for eager, captured in zip(*both(fn, facula.randn(4, 5))):
        same(eager, captured)


def test_second_derivatives_flow_through_a_capture():
    fn = facula.compile(lambda x: (x.sin() * x).sum(), fullgraph=True)
    x = facula.randn(5, dtype=facula.float64).requires_grad_()
    (g,) = facula.autograd.grad(fn(x), x, create_graph=True)
    (h,) = facula.autograd.grad(g.sum(), x)
    want = 2 * x.detach().cos() - x.detach() * x.detach().sin()
    np.testing.assert_allclose(h.numpy(), want.numpy(), rtol=1e-9)


def test_what_cannot_be_captured_runs_uncaptured_and_says_why():
    def fn(x):
        return x * 2 if x.sum() > 0 else x

    compiled = facula.compile(fn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert compiled(facula.ones(3)).tolist() == [2.0] * 3
    assert any("elements of a tensor" in str(w.message) for w in caught)
    assert compiled(-facula.ones(3)).tolist() == [-1.0] * 3
    with pytest.raises(CaptureError, match="elements of a tensor"):
        facula.compile(fn, fullgraph=True)(facula.ones(3))


def test_random_numbers_are_the_eager_ones_and_new_at_each_call():
    fn = facula.compile(lambda x: x + facula.randn_like(x) * facula.rand(3), fullgraph=True)
    x = facula.zeros(4, 3)
    facula.manual_seed(5)
    first, second = fn(x), fn(x)
    facula.manual_seed(5)
    want = x + facula.randn_like(x) * facula.rand(3)
    same(first, want)
    assert not facula.equal(first, second)


SIZES = {
    "mean by hand": lambda x: x.sum() / x.shape[0],
    "times": lambda x: x.shape[0] * x + x.size(0),
    "root": lambda x: x / x.shape[-1] ** 0.5,
    "float": lambda x: x * (1.0 / x.shape[-1]) - math.sqrt(x.size(-1)),
    "compared": lambda x: (x > x.shape[0]) & (x.numel() // 2 > x),
    "filled": lambda x: x + facula.full((x.shape[0], 1), x.shape[0]),
    "clamped": lambda x: x.clamp(max=x.shape[0]),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_numbers(name):
    fn = SIZES[name]
    captured = facula.compile(fn, fullgraph=True)
    for n in (5, 9):
        x = facula.randn(n, 7) * 5
        same(captured(x), fn(x))


def test_an_error_of_the_users_is_the_users():
    def fn(x, y):
        return x @ y

    captured = facula.compile(fn)
    with pytest.raises(RuntimeError, match="inner dimensions|mat1|matmul"):
        captured(facula.ones(2, 3), facula.ones(4, 5))
    same(captured(facula.ones(2, 3), facula.ones(3, 2)), facula.full((2, 2), 3.0))
    assert captured.captured.given_up is None


shared_name = 0


def test_a_global_called_like_an_attribute_is_no_assumption(monkeypatch):
    class Holder:
        shared_name = 3.0

    def fn(x, h):
        return x * h.shared_name

    holder = Holder()
    f = facula.compile(lambda x: fn(x, holder))
    for k in range(3):
        monkeypatch.setitem(globals(), "shared_name", k)
        assert f(facula.ones(2)).tolist() == [3.0, 3.0]
    assert f.captured.count == 1


def test_what_is_detached_stays_so():
    w = facula.randn(4, requires_grad=True)
    facula.compile(lambda: (w * w.detach() + w.data).sum())().backward()
    assert w.grad.tolist() == w.tolist()


def test_a_view_made_under_no_grad_is_a_view():
    @facula.compile
    def f(x):
        with facula.no_grad():
            x.view(-1).add_(1)
        return x * 1

    x = facula.zeros(2, 2)
    assert f(x).tolist() == x.tolist() == [[1, 1], [1, 1]]


def test_an_int_that_changes_becomes_an_input():
    def step(cache, k, pos):
        cache[:, :, pos] = k
        seen = cache[:, :, : pos + 1]
        return (seen * k[:, :, None]).sum(2) + pos, seen[0, 0, pos]

    captured = facula.compile(step, fullgraph=True)
    a, b = facula.zeros(1, 2, 16, 3), facula.zeros(1, 2, 16, 3)
    for pos in range(12):
        k = facula.randn(1, 2, 3)
        for x, y in zip(step(a, k, pos), captured(b, k, pos)):
            assert x.tolist() == y.tolist()
        assert a.tolist() == b.tolist()
    assert captured.captured.count == 2


def test_an_int_that_python_needs_stays_a_constant():
    names = [1.0, 2.0, 3.0]

    def f(x, times, which):
        for _ in range(times):
            x = x + 1
        return x * names[which % 3]

    captured = facula.compile(f, fullgraph=True)
    for k in range(20):
        x = facula.randn(3)
        assert captured(x, k % 3, k).tolist() == f(x, k % 3, k).tolist()
    assert captured.captured.count <= 12


def test_a_variable_that_changes_at_each_call_is_read_by_python():
    class Counted(nn.Module):
        at = 0

        def forward(self, x):
            return x[: self.at + 1] * 2

    model = Counted()
    captured = facula.compile(model)
    for k in range(20):
        model.at = k
        assert captured(facula.arange(30.0)).tolist() == model(facula.arange(30.0)).tolist()


def test_a_long_chain_is_cut_where_recursion_would_end():
    def chain(x):
        for _ in range(700):
            x = (x * 1.01).relu()
        return x

    same(*both(chain, facula.ones(5)))


def test_pieces_of_a_dimension_are_views():
    linear, heads = facula.nn.Linear(16, 48), 4

    def attend(x):
        q, k, v = linear(x).chunk(3, dim=-1)
        q, k, v = (z.reshape(*x.shape[:2], heads, 4).transpose(1, 2) for z in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    def gated(x):
        a, b = x.chunk(2, dim=-1)
        return a * b.sigmoid()

    with facula.no_grad():
        assert len(facula.explain(attend, facula.randn(2, 5, 16)).kernels) == 2
    for function, sizes in ((attend, [(2, 5, 16), (3, 7, 16)]), (gated, [(5, 14), (4, 18)])):
        captured = facula.compile(function, fullgraph=True)
        for shape in sizes:
            x = facula.randn(*shape)
            assert captured(x).tolist() == function(x).tolist()
        assert captured.captured.count == 1


def test_quotients_and_remainders_of_sums():
    a, b = Dim.symbol("a", 7), Dim.symbol("b", 3)
    for size in (6 * a + 3 * b + 5, 3 * a - 4, 9 * a * b + 1, a + 2, 3 * b):
        for n in (1, 2, 3, 6):
            for values in ({"a": 2, "b": 5}, {"a": 9, "b": 4}):
                here = evaluate(size, values)
                assert evaluate(size // n, values) == here // n
                assert evaluate(size % n, values) == here % n
    assert dims.same((3 * a + 2) // 3, a) and (3 * a + 5) % 3 == 2
