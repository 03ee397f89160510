"""Autocast, and scaled gradients."""

from __future__ import annotations

import math
import threading

import pytest

import facula
import facula.nn.functional as F
from facula import amp, nn


def parameter(value=1.0):
    p = facula.nn.Parameter(facula.tensor([value]))
    return p, facula.optim.SGD([p], lr=0.1)


def test_scaled_steps_are_those_without_a_scale():
    p, optimizer = parameter()
    scaler = amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for _ in range(2):
        optimizer.zero_grad()
        loss = (p * p).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        with pytest.raises(RuntimeError, match="already"):
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert p.item() == pytest.approx(0.64) and scaler.get_scale() == 2048.0


def test_an_infinity_leaves_the_step_out_and_cuts_the_scale():
    p, optimizer = parameter()
    scaler = amp.GradScaler("cpu", init_scale=8.0)
    p.grad = facula.tensor([math.inf])
    scaler.step(optimizer)
    scaler.update()
    assert p.item() == 1.0 and scaler.get_scale() == 4.0
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.get_scale() == 4.0


def test_off_where_there_is_no_gpu():
    with pytest.warns(UserWarning, match="CUDA"):
        scaler = amp.GradScaler()
    p, optimizer = parameter()
    assert not scaler.is_enabled() and scaler.scale(p) is p and scaler.state_dict() == {}
    with pytest.warns(UserWarning, match="CUDA"), facula.autocast("cuda"):
        pass


BF16, F32 = facula.bfloat16, facula.float32


def low():
    """Ops that run in lower precision."""
    a, v = facula.randn(4, 4), facula.randn(4)
    x = facula.randn(2, 3, 4)
    yield from (a @ a, a @ v, v @ v, facula.mm(a, a), facula.addmm(v, a, a), facula.bmm(x, x.mT))
    yield from (F.linear(a, a, v), F.conv1d(x, facula.randn(5, 3, 2)), facula.einsum("ij,jk", a, a))
    yield from (nn.Linear(4, 2)(a), nn.MultiheadAttention(4, 2)(x, x, x)[0])
    yield F.scaled_dot_product_attention(x, x, x)
    yield from (nn.LayerNorm(4)(a @ a), (a @ a).softmax(-1), F.prelu(a, facula.tensor([0.1])))


def full():
    """Ops that run in float32 or as their operands are."""
    a, v = facula.randn(4, 4), facula.randn(4)
    y, n = a @ a, facula.zeros(4, dtype=facula.int64)
    yield from (F.cross_entropy(y, n), F.nll_loss(y, n), F.mse_loss(y, a), y.prod(), y.trace())
    yield from (facula.cat([y, a]), y + a, a + a, facula.mv(a, v), facula.cdist(y, y))
    yield from (F.binary_cross_entropy_with_logits(y, a.sigmoid()), facula.outer(v, v))


def test_ops_run_in_the_dtype_that_suits_them():
    with facula.autocast("cpu"):
        assert {y.dtype for y in low()} == {BF16} and {y.dtype for y in full()} == {F32}
        assert (facula.ones(2, 2).double() @ facula.ones(2, 2).double()).dtype is facula.float64
        with facula.autocast("cpu", enabled=False):
            assert {y.dtype for y in low()} == {F32} and not facula.is_autocast_enabled("cpu")
        with facula.autocast("cpu", dtype=facula.float16):
            assert (facula.ones(2, 2) @ facula.ones(2, 2)).dtype is facula.float16
        assert facula.is_autocast_enabled("cpu") and facula.get_autocast_dtype("cpu") is BF16
    assert {y.dtype for y in low()} == {F32} and not facula.is_autocast_enabled("cpu")


def test_it_is_a_decorator_and_belongs_to_the_thread():
    seen = []

    @facula.autocast("cpu")
    def f(depth):
        thread = threading.Thread(target=lambda: seen.append(facula.is_autocast_enabled("cpu")))
        thread.start(), thread.join()
        return f(depth - 1) if depth else (facula.ones(2, 2) @ facula.ones(2, 2)).dtype

    assert f(2) is BF16 and seen == [False] * 3 and not facula.is_autocast_enabled("cpu")
    with pytest.warns(UserWarning, match="not supported"), facula.autocast("cpu", facula.float64):
        assert not facula.is_autocast_enabled("cpu")


def train(model, run, steps=3):
    optimizer = facula.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for k in range(steps):
        x, y = facula.linspace(-1, 1, 24 + 8 * k).reshape(-1, 8), facula.arange(3 + k) % 3
        optimizer.zero_grad()
        with facula.autocast("cpu"):
            loss = F.cross_entropy(run(model, x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def models():
    for _ in range(2):
        facula.manual_seed(1)
        yield nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))


def test_training_and_captures():
    (a, b), (c, _) = models(), models()
    eager = train(a, lambda m, x: m(x))
    assert {p.grad.dtype for p in a.parameters()} == {F32}
    compiled = facula.compile(b)
    assert train(b, lambda m, x: compiled(x)) == eager
    assert compiled(facula.ones(2, 8)).dtype is F32  # outside, it is another capture
    full = facula.compile(lambda x: facula.autocast("cpu")(c)(x), fullgraph=True)
    with facula.autocast("cpu"):
        assert full(facula.ones(2, 8)).tolist() == c(facula.ones(2, 8)).tolist()


def test_weights_are_converted_once():
    w = facula.randn(4, 4, requires_grad=True)
    with facula.autocast("cpu"):
        y = facula.ones(2, 4) @ w
        assert (facula.ones(2, 4) @ w).grad_fn.next_functions == y.grad_fn.next_functions
        with facula.no_grad():
            assert not (facula.ones(2, 4) @ w).requires_grad
            w.mul_(2)
        z = facula.ones(2, 4) @ w
    assert z.tolist() == (y * 2).tolist()
    (y + z).sum().backward()
    assert w.grad.dtype is F32
    with facula.autocast("cpu", cache_enabled=False):
        assert not facula.is_autocast_cache_enabled()


def test_functions_of_the_users():
    class Product(facula.autograd.Function):
        @staticmethod
        @amp.custom_fwd(device_type="cpu", cast_inputs=facula.float32)
        def forward(ctx, x):
            assert not facula.is_autocast_enabled("cpu")
            ctx.save_for_backward(x)
            return x @ x

        @staticmethod
        @amp.custom_bwd(device_type="cpu")
        def backward(ctx, g):
            assert not facula.is_autocast_enabled("cpu")
            return g @ ctx.saved_tensors[0]

    with facula.autocast("cpu"):
        y = Product.apply(facula.ones(2, 2, dtype=BF16, requires_grad=True))
        y.sum().backward()
    assert y.dtype is F32
