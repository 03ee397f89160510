"""Gradients of eager code: against finite differences, by hand, of higher order."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import facula.tensor as ft
from facula.eager import dispatch, engine, meta
from facula.library import F
from facula.runtime.storage import memory_stats


def test_the_first_example():
    a = ft.tensor([1.0, 2.0], requires_grad=True)
    b = ft.tensor([3.0, 4.0], requires_grad=True)
    ((a * b) + a).sum().backward()
    assert a.grad.tolist() == [4.0, 5.0]
    assert b.grad.tolist() == [1.0, 2.0]


FUNCTIONS = {
    "mul": lambda x, y: x * y,
    "sub_div": lambda x, y: (x - y) / (y * y + 1.0),
    "matmul": lambda x, y: x @ y.transpose(0, 1),
    "exp_sum": lambda x, y: (x.exp() * y).sum(1),
    "mean": lambda x, y: (x * y).mean(),
    "tanh": lambda x, y: x.tanh() * y.sigmoid(),
    "broadcast": lambda x, y: x.sum(0) * y,
    "number": lambda x, y: 2.0 - x * 3 + y / 2,
    "amax": lambda x, y: x.amax(1) * y.amin(1),
    "reshape": lambda x, y: x.reshape(2, 6).transpose(0, 1).reshape(3, 4) * y,
    "expand": lambda x, y: x.sum(0, keepdim=True).expand(3, 4) * y,
    "narrow": lambda x, y: x.narrow(1, 1, 2) * y.narrow(1, 2, 2),
    "select": lambda x, y: x.select(0, 1) * y.select(0, 2),
    "used_twice": lambda x, y: x * x + x * y + y,
    "pow": lambda x, y: (x * x + 1.0) ** y,
    "where": lambda x, y: F.where(x > y, x * 2.0, y * 3.0),
    "softmax": lambda x, y: F.softmax(x, 1) * y,
    "cat": lambda x, y: F.cat([x, y * 2.0, x], 1),
    "logsumexp": lambda x, y: (x - x.amax(1, keepdim=True)).exp().sum(1).log() * y.sum(1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_match_finite_differences(make, check_gradients, name):
    check_gradients(FUNCTIONS[name], make(3, 4), make(3, 4))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_match_finite_differences(make, check_gradients, name):
    f = FUNCTIONS[name]
    x, y = make(3, 4), make(3, 4)

    def slope(x, y):
        out = f(x, y)
        gx, gy = ft.grad((out * out).sum(), (x, y), create_graph=True)
        return gx * 2.0 + gy * gx

    check_gradients(slope, x, y)


def test_third_derivative():
    x = ft.tensor(2.0, dtype=ft.tensor(0.5).double().dtype, requires_grad=True)
    y = x * x * x * x
    for expected in (32.0, 48.0, 48.0, 24.0):
        (y,) = ft.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_leaf_gradients_accumulate_and_are_owned():
    x = ft.tensor([1.0, 2.0], requires_grad=True)
    seed = ft.tensor([1.0, 1.0])
    (x + 0.0).backward(seed)
    assert x.grad is not seed
    x.grad.zero_()
    assert seed.tolist() == [1.0, 1.0]
    (x * 2.0).backward(seed)
    (x * 2.0).backward(seed)
    assert x.grad.tolist() == [4.0, 4.0]


def test_grad_of_subgraphs_and_intermediates():
    x = ft.tensor([1.0, 2.0], requires_grad=True)
    z = ft.tensor([5.0, 5.0], requires_grad=True)
    h = x * 3.0
    y = (h * h).sum()
    gh, gx = ft.grad(y, (h, x))
    assert gh.tolist() == [6.0, 12.0]
    assert gx.tolist() == [18.0, 36.0]
    assert x.grad is None
    with pytest.raises(RuntimeError, match="not have been used"):
        ft.grad((x * x).sum(), z)
    assert ft.grad((x * x).sum(), z, allow_unused=True) == (None,)
    (g,) = ft.grad((x * x).sum(), z, materialize_grads=True)
    assert g.tolist() == [0.0, 0.0]
    (g,) = ft.grad(x.sum(), x, grad_outputs=ft.tensor(2.0))
    assert g.tolist() == [2.0, 2.0]


def test_backward_into_chosen_inputs_only():
    x = ft.tensor([1.0], requires_grad=True)
    y = ft.tensor([2.0], requires_grad=True)
    (x * y).sum().backward(inputs=[x])
    assert x.grad.tolist() == [2.0]
    assert y.grad is None


def test_errors_of_backward():
    x = ft.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="scalar outputs"):
        (x * 2.0).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        ft.tensor(1.0).backward()
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (x * 2.0).backward(ft.tensor([1.0]))


def test_no_grad_and_detach():
    x = ft.tensor([1.0], requires_grad=True)
    with ft.no_grad():
        y = x * 2.0
        assert not y.requires_grad
        with ft.enable_grad():
            assert (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad
    assert not (x.detach() * 2.0).requires_grad
    assert not (x > 0.0).requires_grad

    @ft.no_grad()
    def f():
        return x * 2.0

    assert not f().requires_grad
    with ft.set_grad_enabled(False):
        assert not ft.is_grad_enabled()
    assert ft.is_grad_enabled()


def test_hooks_on_tensors_and_nodes():
    x = ft.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    h = x * 3.0
    handle = h.register_hook(lambda g: seen.append(g.tolist()))
    h.register_hook(lambda g: g * 2.0)
    h.retain_grad()
    leaf = x.register_hook(lambda g: g + 1.0)
    after = []
    x.register_post_accumulate_grad_hook(lambda t: after.append(t.grad.tolist()))
    (h * h).sum().backward()
    assert seen == [[6.0, 12.0]]
    assert h.grad.tolist() == [12.0, 24.0]
    assert x.grad.tolist() == [37.0, 73.0]
    assert after == [[37.0, 73.0]]
    handle.remove()
    leaf.remove()
    h = x * 3.0
    h.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 0.0,))
    x.grad = None
    h.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0]


def test_leaf_hook_sees_the_whole_gradient_once():
    x = ft.tensor([1.0], requires_grad=True)
    calls = []
    x.register_hook(lambda g: calls.append(g.item()))
    (x * 2.0 + x * 3.0).sum().backward()
    assert calls == [5.0]


def test_graph_can_be_walked():
    x = ft.tensor([1.0], requires_grad=True)
    y = (x * 2.0).exp()
    assert y.grad_fn.name() == "ExpBackward0"
    assert y.grad_fn.next_functions[0][0].name() == "MulBackward0"
    last = y.grad_fn.next_functions[0][0].next_functions[0][0]
    assert last.name() == "AccumulateGrad" and last.variable is x


def test_deep_chains_are_released_and_run_without_recursion():
    x = ft.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(300_000):
        y = y + x
    del y
    y = x
    for _ in range(20_000):
        y = y * 1.0
    y.backward()
    assert x.grad.tolist() == [1.0]
    v = x
    for _ in range(100_000):
        v = v.unsqueeze(0).squeeze(0)
    del v


def test_counting_references_frees_a_graph():
    x = ft.tensor([0.5, 0.25], requires_grad=True)
    gc.disable()
    try:
        y = x.exp().tanh()
        node = weakref.ref(y.grad_fn)
        y.sum().backward()
        del y
        assert node() is None
    finally:
        gc.enable()


def test_steps_leave_nothing_behind():
    x = ft.tensor([0.5] * 4, requires_grad=True)

    def step():
        x.grad = None
        (x.exp() * x).sum().backward()

    for _ in range(50):
        step()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(3000):
        step()
    gc.collect()
    assert len(gc.get_objects()) - before < 20


def test_ragged_shapes_leave_nothing_behind():
    for n in range(1, 400):
        (ft.from_numpy(np.ones(n)) + 1.0).sum()
    dispatch.forget()
    gc.collect()
    assert len(meta._table) < 200


def test_plans_do_not_hold_the_tensors_they_were_made_for():
    gc.collect()
    before = memory_stats()["allocated_bytes.all.current"]
    for n in range(1000, 1060):
        x = ft.from_numpy(np.ones(n)).clone().requires_grad_()
        (x.exp() * x).mean().backward()
        x.detach().mul_(2.0)
        x.reshape(1, n).expand(2, n).sum()
    del x
    gc.collect()
    assert memory_stats()["allocated_bytes.all.current"] - before < 1000


def test_threads_have_modes_of_their_own_and_share_leaves():
    x = ft.tensor([1.0], requires_grad=True)
    states, errors = [], []

    def work():
        try:
            states.append(ft.is_grad_enabled())
            for _ in range(200):
                ft.grad((x * 2.0).sum(), x)
        except Exception as error:
            errors.append(error)

    with ft.no_grad():
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not errors
    assert states == [True] * 4


def test_a_number_given_changes_without_compiling():
    x = ft.tensor([1.0, 2.0])
    x * 2.5
    before = engine.compiled_kernels
    for k in range(20):
        assert (x * (k + 0.5)).tolist() == [k + 0.5, 2 * (k + 0.5)]
    assert engine.compiled_kernels == before


def test_new_sizes_do_not_compile():
    def f(n):
        x = ft.from_numpy(np.ones((n, 3), np.float32)).requires_grad_()
        (x.exp() * x).sum().backward()
        return x.grad

    f(4), f(5)
    before = engine.compiled_kernels
    for n in range(6, 30):
        f(n)
    assert engine.compiled_kernels == before


def test_too_many_plans_are_forgotten_but_not_their_kernels(monkeypatch):
    monkeypatch.setattr(dispatch, "MAX_PLANS", 50)
    x = ft.from_numpy(np.arange(300.0))
    x.narrow(0, 0, 5).exp()
    x.narrow(0, 0, 6).exp()
    before = engine.compiled_kernels
    for k in range(2, 200):
        assert x.narrow(0, k, 3)[0].item() == k
        x.narrow(0, 0, k).exp()
    assert engine.compiled_kernels == before
    assert dispatch._counts["plans"] <= 51


def test_gradients_of_two_leaves_never_share_memory():
    a, b = ft.tensor([3.0], requires_grad=True), ft.tensor([4.0], requires_grad=True)
    for f in (lambda: a + b, lambda: (a * 2.0) + (b * 2.0), lambda: F.maximum(a, b) + F.fmax(a, b)):
        a.grad = b.grad = None
        f().sum().backward()
        assert a.grad.data_ptr() != b.grad.data_ptr()
        a.grad.zero_()
        assert b.grad.item() != 0.0


def test_threads_add_to_one_gradient():
    x = ft.tensor([1.0] * 8, requires_grad=True)

    def work():
        for _ in range(200):
            (x * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert x.grad.tolist() == [800.0] * 8


def test_generators_keep_the_mode_to_themselves():
    @ft.no_grad()
    def numbers():
        for _ in range(2):
            yield ft.is_grad_enabled()

    for inside in numbers():
        assert not inside and ft.is_grad_enabled()


def test_results_that_are_flat_have_zero_gradients():
    x = ft.tensor([1.0, 0.0, 2.0], requires_grad=True)
    y = F.norm(x, 0)
    assert y.requires_grad and y.item() == 2.0
    y.backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    with ft.no_grad():
        assert not F.norm(x, 0).requires_grad
    assert not F.argmax(x).requires_grad
    assert not F.stop(x).requires_grad


def test_several_cotangents_at_once():
    x = ft.tensor([1.0, 2.0], requires_grad=True)
    (g,) = ft.grad(x * x, x, ft.tensor([[1.0, 0.0], [0.0, 1.0]]), is_grads_batched=True)
    assert g.tolist() == [[2.0, 0.0], [0.0, 4.0]]
