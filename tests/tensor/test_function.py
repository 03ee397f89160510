"""``autograd.Function``, saved-tensor hooks, checkpoints, anomaly mode, gradcheck, functional."""

from __future__ import annotations

import gc
import weakref

import pytest

import facula.tensor as ft
from facula.autograd import functional
from facula.autograd.function import Function, once_differentiable
from facula.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from facula.autograd.recording import (
    checkpoint,
    checkpoint_sequential,
    detect_anomaly,
    saved_tensors_hooks,
)
from facula.base import dtypes as D
from facula.library import OPS
from facula.runtime import random
from facula.tensor.functions import function_of


def leaf(*values):
    return ft.tensor(list(values), requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        y = x * x * x
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * 3 * y / x


class Pair(Function):
    @staticmethod
    def forward(a, b, k):
        return a * b, (a + b) * k

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, b, ctx.k = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx, g, h):
        a, b = ctx.saved_tensors
        assert ctx.needs_input_grad[2] is False
        return g * b + h * ctx.k, g * a + h * ctx.k, None


def test_a_function_and_its_second_derivative():
    x = leaf(2.0, 3.0)
    (g,) = ft.grad(Cube.apply(x).sum(), x, create_graph=True)
    assert g.tolist() == [12.0, 27.0]
    assert ft.grad(g.sum(), x)[0].tolist() == [12.0, 18.0]
    assert not Cube.apply(x.detach()).requires_grad


def test_several_results_and_missing_gradients():
    a, b = leaf(2.0), leaf(5.0)
    p, q = Pair.apply(a, b, 3.0)
    assert q.output_nr == 1 and p.grad_fn.name() == "PairBackward"
    q.sum().backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([3.0], [3.0])


def test_dirty_inputs_and_constants():
    class Inc(Function):
        @staticmethod
        def forward(ctx, x):
            x.add_(1.0)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 10

    class Where(Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2.0
            n = x + 1.0
            ctx.mark_non_differentiable(n)
            return y, n

        @staticmethod
        def backward(ctx, g, _):
            return g * 2.0

    a = leaf(1.0)
    h = a * 2.0
    assert Inc.apply(h) is h
    h.sum().backward()
    assert a.grad.tolist() == [20.0] and h.tolist() == [3.0]
    y, n = Where.apply(a)
    assert y.requires_grad and not n.requires_grad


def test_wrong_gradients_are_refused():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x, how):
            ctx.how = how
            return x * 1.0

        @staticmethod
        def backward(ctx, g):
            return {"few": g, "shape": (ft.tensor([1.0, 2.0, 3.0]), None), "type": (1.0, None)}[
                ctx.how
            ]

    x = leaf(1.0, 2.0)
    for how, message in (
        ("few", "incorrect number of gradients"),
        ("shape", "invalid gradient"),
        ("type", "float"),
    ):
        with pytest.raises(RuntimeError, match=message):
            Bad.apply(x, how).sum().backward()


def test_once_differentiable():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return g * ctx.saved_tensors[0] * 2

    x = leaf(3.0)
    (g,) = ft.grad((Square.apply(x) * x).sum(), x, create_graph=True)
    assert g.tolist() == [27.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_a_function_that_saves_its_result_is_freed():
    gc.disable()
    try:
        y = Cube.apply(leaf(2.0))
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_saved_tensors_hooks():
    x = leaf(3.0)
    packed = []
    with saved_tensors_hooks(
        lambda t: packed.append(t) or len(packed) - 1, lambda i: packed[i] * 2.0
    ):
        y = (x * x).sum()
    y.backward()
    assert x.grad.tolist() == [12.0]
    assert len(packed) == 2


def test_checkpoints_recompute_instead_of_keeping():
    runs = []

    def f(x, w):
        runs.append(1)
        return ((x * w).exp().tanh() * w).sigmoid()

    x, w = leaf(0.1, 0.2), leaf(0.3, 0.4)
    f(x, w).sum().backward()
    expected = x.grad.tolist(), w.grad.tolist()
    x.grad = w.grad = None
    runs.clear()
    y = checkpoint(f, x, w, use_reentrant=False).sum()
    assert len(runs) == 1
    y.backward()
    assert len(runs) == 2
    assert (x.grad.tolist(), w.grad.tolist()) == expected
    y = checkpoint(lambda x: f(x, w), x).sum()
    assert ft.grad(y, w)[0].tolist() == expected[1]
    (g,) = ft.grad(checkpoint(f, x, w).sum(), x, create_graph=True)
    g.sum().backward()
    assert w.grad is not None
    y = checkpoint_sequential([lambda t: f(t, w)] * 4, 2, x)
    y.sum().backward()


def test_checkpoints_draw_the_same_numbers_again():
    drop = function_of(OPS["dropout_train"])
    x = ft.tensor([1.0] * 64, requires_grad=True)
    random.default_generator.manual_seed(3)
    y = checkpoint(lambda x: (drop(x, 0.5) * x).exp(), x)
    after = repr(random.default_generator)
    y.sum().backward()
    assert repr(random.default_generator) == after
    random.default_generator.manual_seed(3)
    z = ft.tensor([1.0] * 64, requires_grad=True)
    (drop(z, 0.5) * z).exp().sum().backward()
    assert x.grad.tolist() == z.grad.tolist()


def test_anomaly_mode_names_the_forward_call():
    with detect_anomaly():
        z = leaf(0.0)
        y = z.sqrt() * 0.0
        with pytest.raises(RuntimeError, match="returned nan values") as caught:
            y.sum().backward()
    assert "test_function.py" in "".join(caught.value.__notes__)
    (z.sqrt() * 0.0).sum().backward()


def test_gradcheck_finds_wrong_gradients():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2.0

        @staticmethod
        def backward(ctx, g):
            return g * 2.1

    x = ft.tensor([0.3, 0.7], dtype=D.float64, requires_grad=True)
    assert gradcheck(lambda x: x.exp() * x, (x,))
    assert gradgradcheck(lambda x: x.exp() * x, (x,))
    with pytest.raises(GradcheckError, match="element"):
        gradcheck(Wrong.apply, (x,))
    assert not gradcheck(Wrong.apply, (x,), raise_exception=False)


def test_functional():
    a, b = ft.tensor([1.0, 2.0]), ft.tensor([3.0, 4.0])
    j = functional.jacobian(lambda a, b: a * a * b, (a, b))
    assert [x.tolist() for x in j] == [[[6.0, 0.0], [0.0, 16.0]], [[1.0, 0.0], [0.0, 4.0]]]
    h = functional.hessian(lambda a: (a * a * a).sum(), a)
    assert h.tolist() == [[6.0, 0.0], [0.0, 12.0]]
    _, g = functional.vjp(lambda a: a * a, a, b)
    assert g.tolist() == [6.0, 16.0]
    y, t = functional.jvp(lambda a: a * a * b, a, b)
    assert (y.tolist(), t.tolist()) == ([3.0, 16.0], [18.0, 64.0])
    _, v = functional.hvp(lambda a: (a * a * a).sum(), a, b)
    assert v.tolist() == [18.0, 48.0]


def test_backward_may_run_backward():
    class Again(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x * x * x).detach()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with ft.enable_grad():
                inner = x.detach().requires_grad_()
                (inner * inner * inner).backward(g)
            return inner.grad

    x = leaf(1.0, 2.0)
    (Again.apply(x * 2.0) * 0.5).sum().backward()
    assert x.grad.tolist() == [12.0, 48.0]


def test_gradients_through_steps_of_gradient_descent():
    start = leaf(0.5, 0.5)
    x = start
    for _ in range(3):
        loss = ((x * ft.tensor([1.0, 2.0]) - 1.0) ** 2.0).sum()
        (g,) = ft.grad(loss, x, create_graph=True)
        x = x - 0.1 * g
    x.sum().backward()
    # Each step scales the distance to the minimum by 1 - 0.2 k^2.
    assert start.grad.tolist() == pytest.approx([0.8**3, 0.2**3])


def test_random_ops_record_and_do_not_alike():
    drop = function_of(OPS["dropout_train"])
    x = ft.tensor([1.0] * 32, requires_grad=True)
    y = drop(x, 0.5)
    assert y.requires_grad
    with ft.no_grad():
        z = drop(x, 0.5)
        assert drop(x, 0.5).tolist() != z.tolist()
    assert not z.requires_grad and set(z.tolist()) == {0.0, 2.0}
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()
