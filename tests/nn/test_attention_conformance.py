"""scaled_dot_product_attention against PyTorch's, and what it promises beyond."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import nn
from facula.autograd import gradcheck, gradgradcheck
from facula.runtime import jit

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance

RNG = np.random.default_rng(5)


def heads(*shape, dtype="float32"):
    """An array in the memory order (batch, position, heads, size), heads first."""
    b, h, n, c = shape
    return RNG.standard_normal((b, n, h, c)).astype(dtype)


def both(arrays, masks=(), **options):
    """Results and gradients of both libraries; arrays are given positions first."""
    results = []
    cotangent = None
    for library in (facula, torch):
        xs = [library.tensor(a).requires_grad_() for a in arrays]
        given = [x.transpose(1, 2) if x.ndim == 4 else x for x in xs]
        ms = [library.tensor(m) for m in masks]
        for m in ms:
            if m.is_floating_point():
                m.requires_grad_()
        y = library.nn.functional.scaled_dot_product_attention(*given, *ms, **options)
        if cotangent is None:
            cotangent = RNG.standard_normal(tuple(y.shape)).astype(arrays[0].dtype)
        y.backward(library.tensor(cotangent))
        wanted = [y, *(x.grad for x in xs), *(m.grad for m in ms if m.is_floating_point())]
        results.append([x.detach().numpy() for x in wanted])
    return results


def assert_same(arrays, masks=(), tolerance=2e-5, **options):
    ours, theirs = both(arrays, masks, **options)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("masks", "options"),
    [
        ((), {}),
        ((), {"is_causal": True}),
        ((), {"scale": 0.3}),
        (((40, 70),), {}),
        (((2, 1, 1, 70),), {}),
        (((2, 4, 40, 1),), {}),
        (("bool",), {}),
    ],
    ids=str,
)
def test_masks(masks, options):
    masks = [
        RNG.random((40, 70)) > 0.3 if m == "bool" else RNG.standard_normal(m).astype("float32")
        for m in masks
    ]
    assert_same([heads(2, 4, n, 16) for n in (40, 70, 70)], masks, **options)


@pytest.mark.parametrize("shapes", [
    ((5, 8), (7, 8), (7, 6)),
    ((3, 5, 8), (3, 7, 8), (3, 7, 6)),
    ((2, 3, 2, 5, 8), (2, 3, 2, 7, 8), (2, 3, 2, 7, 6)),
], ids=str)  # fmt: skip
def test_other_ranks(shapes):
    assert_same([RNG.standard_normal(s).astype("float32") for s in shapes])


@pytest.mark.parametrize("queries", [1, 20])
def test_grouped_heads(queries):
    arrays = [heads(2, 6, queries, 16), heads(2, 2, 33, 16), heads(2, 2, 33, 8)]
    assert_same(arrays, is_causal=queries > 1, enable_gqa=True)


def test_double_precision():
    assert_same([heads(2, 2, 9, 5, dtype="float64") for _ in range(3)], tolerance=1e-13)


def test_attending_to_nothing_gives_zeros():
    q = facula.randn(1, 2, 3, 8, requires_grad=True)
    mask = facula.tensor([[True] * 3, [False] * 3, [True] * 3])
    y = F.scaled_dot_product_attention(q, q, q, mask)
    y.sum().backward()
    assert (y[:, :, 1] == 0).all() and q.grad.isfinite().all()
    assert (F.scaled_dot_product_attention(q, q[:, :, :0], q[:, :, :0]) == 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"masked": True}, {"enable_gqa": True}], ids=str
)
def test_gradients_of_any_order(options):
    options = dict(options)

    def made(*shape):
        return facula.tensor(RNG.standard_normal(shape), requires_grad=True)

    grouped = options.get("enable_gqa", False)
    h = 1 if grouped else 2
    arguments = [made(1, 2, 3, 2), made(1, h, 3, 2), made(1, h, 3, 2)]
    if options.pop("masked", False):
        arguments.append(made(3, 3))

    def run(*xs):
        return F.scaled_dot_product_attention(*xs, **options)

    assert gradcheck(run, arguments)
    assert gradgradcheck(run, arguments)


def test_half_precision_is_summed_in_single():
    q, k, v = (facula.randn(2, 2, 50, 16) for _ in range(3))
    want = F.scaled_dot_product_attention(*(x.bfloat16().float() for x in (q, k, v)))
    got = F.scaled_dot_product_attention(*(x.bfloat16() for x in (q, k, v)))
    assert got.dtype is facula.bfloat16
    assert (got == want.bfloat16()).all()


def test_views_are_read_and_made_in_place():
    qkv = facula.randn(2, 10, 3 * 32, requires_grad=True)
    q, k, v = (x.view(2, 10, 4, 8).transpose(1, 2) for x in qkv.split(32, dim=2))
    y = F.scaled_dot_product_attention(q, k, v)
    assert y.stride() == (320, 8, 32, 1)
    assert y.transpose(1, 2).reshape(2, 10, 32)._base is not None
    apart = F.scaled_dot_product_attention(*(x.contiguous() for x in (q, k, v)))
    assert (y == apart).all()


def test_a_query_alone_is_the_query_in_a_batch():
    q, k, v = facula.randn(3, 2, 40, 24), facula.randn(3, 2, 90, 24), facula.randn(3, 2, 90, 24)
    whole = F.scaled_dot_product_attention(q, k, v)
    for row in (0, 17, 39):
        alone = F.scaled_dot_product_attention(*(x[1:2] for x in (q[:, :, row : row + 1], k, v)))
        assert (alone == whole[1:2, :, row : row + 1]).all()


def test_new_lengths_compile_nothing():
    def step(batch, n):
        x = facula.randn(batch, 2, n, 16, requires_grad=True)
        F.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()

    # Forms of one and of two vectors of queries; then nothing is left to be compiled.
    for n in (12, 20):
        step(2, n)
    before = len(jit._loaded)
    for n in (9, 33, 50, 64):
        step(3, n)
    assert len(jit._loaded) == before


# Dropout ------------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean():
    facula.manual_seed(0)
    n = 128
    q = facula.zeros(2, 4, n, 8)
    v = facula.eye(n).expand(2, 4, n, n)
    weights = F.scaled_dot_product_attention(q, facula.zeros(2, 4, n, 8), v, dropout_p=0.25)
    zero = float((weights == 0).float().mean())
    assert abs(zero - 0.25) < 0.01
    assert abs(float(weights.sum(-1).mean()) - 1.0) < 0.02
    kept = weights[weights != 0]
    assert facula.allclose(kept, facula.full_like(kept, 1 / (n * 0.75)))


def test_dropout_is_the_same_captured_and_its_gradient_that_of_what_was_kept():
    x = facula.randn(2, 3, 20, 8, requires_grad=True)

    def run(x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5, is_causal=True)

    facula.manual_seed(1)
    eager = run(x)
    facula.manual_seed(1)
    captured = facula.compile(run, fullgraph=True)(x)
    assert (eager == captured).all()
    eager.sum().backward()
    facula.manual_seed(1)
    scores = (x @ x.transpose(-1, -2)) / 8**0.5
    causal = facula.ones(20, 20, dtype=facula.bool).tril()
    weights = F.dropout(scores.masked_fill(~causal, float("-inf")).softmax(-1), 0.5)
    y = weights @ x
    assert facula.allclose(y, eager, atol=1e-5)
    (grad,) = facula.autograd.grad(y.sum(), x)
    assert facula.allclose(grad, x.grad, atol=1e-4)


def test_draws_do_not_repeat():
    facula.manual_seed(2)
    q = facula.zeros(1, 1, 64, 4)
    v = facula.eye(64)[None, None]
    first, second = (F.scaled_dot_product_attention(q, q, v, dropout_p=0.5) for _ in range(2))
    agreement = float(((first == 0) == (second == 0)).float().mean())
    assert 0.45 < agreement < 0.55


# Errors -------------------------------------------------------------------------------------------


def test_errors():
    x = facula.randn(1, 2, 3, 4)
    for arguments, options in [
        ((x, facula.randn(1, 2, 3, 5), x), {}),
        ((x, facula.randn(1, 3, 3, 4), facula.randn(1, 3, 3, 4)), {"enable_gqa": True}),
        ((x, x, facula.randn(1, 2, 4, 4)), {}),
        ((x, x.double(), x), {}),
        ((x, x, x, facula.ones(3, 3)), {"is_causal": True}),
        ((x, x, x, facula.ones(4, 3)), {}),
        ((x, x, x, facula.ones(3, 3, dtype=facula.int64)), {}),
        ((x, x[:, :1], x[:, :1], facula.ones(2, 1, 3, 3)), {}),
        ((facula.randn(3), x, x), {}),
    ]:
        with pytest.raises((RuntimeError, ValueError), match="attention|expand"):
            F.scaled_dot_product_attention(*arguments, **options)


def test_module_in_place_of_weights():
    """Without weights the fused kernel gives what the matrix of weights gives."""
    module = nn.MultiheadAttention(32, 4, batch_first=True)
    x = facula.randn(3, 17, 32)
    mask = facula.ones(17, 17, dtype=facula.bool).triu(1)
    padding = facula.zeros(3, 17, dtype=facula.bool)
    padding[1, 12:] = True
    options = {"key_padding_mask": padding, "attn_mask": mask}
    with_weights, _ = module(x, x, x, **options)
    without, none = module(x, x, x, need_weights=False, **options)
    assert none is None and facula.allclose(with_weights, without, atol=1e-5)


def test_heads_of_one_projection_are_copied_neither_way():
    """Heads that are written as a quotient of a width, split from one product, joined after."""
    qkv = nn.Linear(32, 96)

    def run(x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, 4, c // 4).transpose(1, 2) for y in qkv(x).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).contiguous().view(b, t, c) * x

    explained = facula.explain(run, facula.randn(2, 6, 32, requires_grad=True))
    moved = {"slice", "reshape", "permute", "copy", "expand", "pad"}
    for stage in (explained, explained.backward):
        for group in stage.groups:
            assert not {node.op.name for node in group.nodes} <= moved, group
    names = [node.op.name for group in explained.backward.groups for node in group.nodes]
    assert "cat" in names and "pad" not in names
