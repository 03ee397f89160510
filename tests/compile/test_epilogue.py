"""Pointwise work after a matrix product is done at its last store, and gives the same bits."""

from __future__ import annotations

import pytest

import facula as fc
import facula.nn.functional as F


def apart(a, w):
    """The product alone, so that what follows is computed by other kernels."""
    return fc.matmul(a, w.t())


FUNCTIONS = {
    "bias": lambda c, b, r: c + b,
    "gelu": lambda c, b, r: F.gelu(c + b),
    "residual": lambda c, b, r: r + fc.relu(c + b),
    "kept": lambda c, b, r: (c, fc.tanh(c)),
    "two": lambda c, b, r: (fc.relu(c) + b, c * r),
    "rows": lambda c, b, r: c * r[:, :, :1],
    "matrices": lambda c, b, r: fc.sigmoid(c) * r[:, :1],
    "wider": lambda c, b, r: c.double() * 2,
    "narrower": lambda c, b, r: (c + b).half(),
    "flat": lambda c, b, r: c.reshape(-1) * 3,
    "compared": lambda c, b, r: c > r,
    "number": lambda c, b, r: c * 0.3 + 1,
}


def same(got, want):
    got, want = (x if isinstance(x, tuple) else (x,) for x in (got, want))
    return all(g.numpy().tobytes() == w.numpy().tobytes() for g, w in zip(got, want))


def operands(batch, m, k, n, dtype=fc.float32):
    shapes = (batch, m, k), (n, k), (n,), (batch, m, n)
    return [fc.randn(*shape).to(dtype) for shape in shapes]


SHAPES = [(2, 3, 8, 5), (1, 1, 600, 40), (3, 7, 600, 33), (4, 64, 64, 256), (2, 9, 30, 1)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bits_are_those_of_separate_kernels(name):
    fc.manual_seed(1)
    f = FUNCTIONS[name]
    whole = fc.compile(lambda a, w, b, r: f(apart(a, w), b, r))
    for sizes in SHAPES:
        a, w, b, r = operands(*sizes)
        assert same(whole(a, w, b, r), f(apart(a, w), b, r)), sizes


@pytest.mark.parametrize("dtype", [fc.float64, fc.float16, fc.bfloat16], ids=str)
def test_of_other_dtypes(dtype):
    fc.manual_seed(2)
    a, w, b, r = operands(2, 9, 600, 20, dtype)
    whole = fc.compile(lambda a, w, b, r: F.silu(apart(a, w) + b) + r)
    want = F.silu(apart(a, w) + b) + r
    assert fc.equal(whole(a, w, b, r), want)


def test_one_kernel_is_all():
    a, w, b, _ = operands(2, 9, 20, 20)
    (kernel,) = fc.explain(lambda a, w, b: F.gelu(F.linear(a, w, b)), a, w, b).kernels
    assert kernel.name.startswith("matmul")
    assert len(fc.explain(F.linear, a, w, b).kernels) == 1
    assert len(fc.explain(fc.addmm, b, a[0], w).kernels) == 1


@pytest.mark.parametrize(
    "follow",
    [
        lambda c: c + c.transpose(1, 2),
        lambda c: c + c.flip(1),
        lambda c: c + c[:, :1],
        lambda c: fc.softmax(c, -1),
        lambda c: fc.cumsum(c * 2, 1),
        lambda c: fc.matmul(c, c * 2),
    ],
)
def test_other_elements_of_the_product_are_read_from_memory(follow):
    fc.manual_seed(3)
    a, w, _, _ = operands(2, 9, 30, 9)
    got = fc.compile(lambda a, w: follow(apart(a, w)))(a, w)
    assert same(got, follow(apart(a, w)))


@pytest.mark.parametrize("dim", [0, 1])
def test_what_is_summed_up_is_written_by_the_product(dim):
    fc.manual_seed(7)
    a, w, _, r = operands(1, 70, 30, 150)

    def f(c, r):
        d = c[0] * fc.exp(r[0])
        return d, d.sum(dim)

    kernels = fc.explain(lambda a, w, r: f(apart(a, w), r), a, w, r).kernels
    assert [k.name.split("_")[0] for k in kernels] == ["matmul", "sum"]
    got = fc.compile(lambda a, w, r: f(apart(a, w), r))(a, w, r)
    assert same(got, f(apart(a, w), r))


def test_scores_of_heads_with_a_mask():
    fc.manual_seed(4)
    q, k, mask = fc.randn(2, 4, 20, 16), fc.randn(2, 4, 20, 16), fc.randn(2, 1, 1, 20)
    scores = fc.matmul(q, k.transpose(-1, -2))
    got = fc.compile(lambda q, k, m: fc.matmul(q, k.transpose(-1, -2)) * 0.25 + m)(q, k, mask)
    assert same(got, scores * 0.25 + mask)


def test_results_written_over_operands():
    fc.manual_seed(5)
    a, w, b, r = operands(1, 20, 600, 30)

    def update(p, a, w):
        p.add_(fc.matmul(a, w.t())[0] * 0.5)

    p, q = r[0].clone(), r[0].clone()
    fc.compile(update)(p, a, w)
    q.add_(apart(a, w)[0] * 0.5)
    assert same(p, q)


def test_gradients_and_threads():
    fc.manual_seed(6)
    a, w, b, r = operands(1, 70, 300, 90)
    before, seen = fc.get_num_threads(), []
    try:
        for threads in (1, 2):
            fc.set_num_threads(threads)
            leaves = [x.clone().requires_grad_() for x in (a, w, b)]
            y = fc.compile(lambda a, w, b: F.gelu(F.linear(a, w, b)) * 2)(*leaves)
            y.backward(r)
            seen.append([y.detach(), *(x.grad for x in leaves)])
    finally:
        fc.set_num_threads(before)
    leaves = [x.clone().requires_grad_() for x in (a, w, b)]
    y = F.gelu(apart(leaves[0], leaves[1]) + leaves[2]) * 2
    y.backward(r)
    seen.append([y.detach(), *(x.grad for x in leaves)])
    for results in zip(*seen):
        assert len({x.numpy().tobytes() for x in results}) == 1


# Convolutions -----------------------------------------------------------------------------------

AFTER_CONV = {
    "bias and relu": lambda c, b, r: fc.relu(c + b[:, None, None]),
    "normalised": lambda c, b, r: (c - b[:, None, None]) * fc.rsqrt(b * b + 1)[:, None, None],
    "residual": lambda c, b, r: fc.relu(c * b[:, None, None] + r),
    "turned": lambda c, b, r: c + r.transpose(2, 3).contiguous().transpose(2, 3),
    "kept": lambda c, b, r: (c, fc.tanh(c)),
    "flat": lambda c, b, r: fc.relu(c).flatten(1) * 3,
    "narrower": lambda c, b, r: (c + r).half(),
    "wider": lambda c, b, r: c.double() * r,
    "compared": lambda c, b, r: c > r,
}
#: Channels, output channels, input, kernel, keywords: Winograd's, direct, 1 x 1, few, narrow ones.
CONVS = [
    (20, 18, (9, 7), (3, 3), {"padding": 1}),
    (6, 34, (9, 11), (3, 3), {"stride": 2, "padding": 1}),
    (20, 33, (5, 6), (1, 1), {}),
    (20, 5, (6, 1), (1, 1), {}),
    (6, 3, (6, 20), (3, 2), {}),
    (16, 16, (3, 3), (3, 3), {"padding": 1, "groups": 2}),
    (70, 20, (4, 4), (4, 4), {"padding": 2}),
]


@pytest.mark.parametrize("number", range(0, len(AFTER_CONV) * len(CONVS), 2))
def test_the_bits_after_a_convolution_are_those_of_separate_kernels(number):
    fc.manual_seed(7)
    c, o, size, kernel, how = CONVS[number // len(AFTER_CONV)]
    f = list(AFTER_CONV.values())[number % len(AFTER_CONV)]
    x, w, b = fc.randn(5, c, *size), fc.randn(o, c // how.get("groups", 1), *kernel), fc.randn(o)
    y = F.conv2d(x, w, **how)
    r = fc.randn(*y.shape)
    got = fc.compile(lambda x, w, b, r: f(F.conv2d(x, w, **how), b, r))(x, w, b, r)
    assert same(got, f(y, b, r))


@pytest.mark.parametrize("stride", [1, 2])
def test_what_follows_a_transposed_convolution(stride):
    fc.manual_seed(8)
    x, w, b = fc.randn(3, 20, 5, 4), fc.randn(20, 17, 3, 3), fc.randn(17)

    def whole(x, w, b):
        return fc.tanh(F.conv_transpose2d(x, w, b, stride=stride, padding=1))

    y = F.conv_transpose2d(x, w, stride=stride, padding=1)
    assert same(fc.compile(whole)(x, w, b), fc.tanh(y + b[:, None, None]))


def test_other_ranks_of_convolutions():
    fc.manual_seed(9)
    x, w, b = fc.randn(2, 3, 5, 6, 7), fc.randn(6, 3, 2, 3, 3), fc.randn(6)
    assert len(fc.explain(lambda *a: fc.relu(F.conv3d(*a)), x, w, b).kernels) == 1
    assert same(fc.compile(lambda *a: fc.relu(F.conv3d(*a)))(x, w, b), fc.relu(F.conv3d(x, w, b)))
    x, w = x[:, :, 0, 0], w[:, :, 0, 0]
    assert len(fc.explain(lambda *a: fc.relu(F.conv1d(*a)), x, w, b).kernels) == 1
    assert same(fc.compile(lambda *a: fc.relu(F.conv1d(*a)))(x, w, b), fc.relu(F.conv1d(x, w, b)))
