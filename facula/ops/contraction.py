"""Contractions: matrix products and convolutions, each a primitive with a kernel of its own."""

from __future__ import annotations

from facula.base.dtypes import int8, int16, int32, uint8
from facula.base.errors import DtypeError, ShapeError, fail
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.movement import permute_
from facula.ops.promote import broadcast_shapes, expand_to, to, wide
from facula.ops.registry import F, Primitive, op


def _matmul_infer(a, b, wide=False):
    if not (a.ndim == b.ndim and a.ndim in (3, 4)):
        fail(
            ShapeError,
            "matmul",
            f"expected [*batch, m, k] and [*batch, k, n], got {a.shape}, {b.shape}",
        )
    if a.dtype is not b.dtype:
        fail(
            DtypeError,
            "matmul",
            f"expected m1 and m2 to have the same dtype, but got: {a.dtype.name} != {b.dtype.name}",
        )
    return [(int32 if wide else a.dtype, (*a.shape[:-1], b.shape[-1]))]


def swapped(x: Value) -> Value:
    """The last two dimensions swapped."""
    order = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return permute_(x, order=order)


def _matmul_meaning(np, a, b, wide=False):
    return np.matmul(a, b, dtype=np.int32) if wide else np.matmul(a, b)


#: ``[*batch, m, k] @ [*batch, k, n]`` with one or two batch dimensions; sums run in the order of
#: k, in blocks of 512. ``wide``: of narrow integers, the sums as int32.
matmul_ = Primitive(
    "matmul",
    "opaque",
    _matmul_infer,
    _matmul_meaning,
    lambda g, y, a, b: (matmul_(g, swapped(b)), matmul_(swapped(a), g)),
    flops=lambda y, a, b, **p: 2 * sizes.product((*y.shape, a.shape[-1])),
)

#: The same for b packed before, ``[panel, k, column]``: the compiler alone writes it.
matmul_ready_ = Primitive(
    "matmul",
    "opaque",
    lambda a, panels, *, columns: [(a.dtype, (*a.shape[:-1], columns))],
    lambda np, a, panels, *, columns: (
        a @ panels.transpose(1, 0, 2).reshape(a.shape[-1], -1)[:, :columns]
    ).astype(a.dtype),
    inner=True,
    flops=lambda y, a, panels, **p: 2 * sizes.product((*y.shape, a.shape[-1])),
)


def _shapes(a, b):
    return f"{tuple(a.shape)} and {tuple(b.shape)}"


@op(
    out="exact",
    samples=lambda make: [
        ((make(4, 5), make(5, 3)), {}),
        ((make(5), make(5)), {}),
        ((make(2, 4, 5), make(5, 3)), {}),
        ((make(2, 4, 5), make(2, 5, 3)), {}),
        ((make(5), make(2, 5, 3)), {}),
        ((make(2, 4, 5), make(5)), {}),
    ],
)
def matmul(input: Value, other: Value):
    """Matrix product: of vectors, matrices, and batches of matrices (which broadcast).

    Shapes: ``[..., m, k] @ [..., k, n] -> [..., m, n]``; a 1-D operand loses its dimension.

    Raises:
        RuntimeError: inner dimensions or dtypes that differ.
    """
    a, b = input, other
    if a.ndim == 0 or b.ndim == 0:
        fail(
            ShapeError,
            "matmul",
            "both arguments to matmul need to be at least 1D, but they are "
            f"{a.ndim}D and {b.ndim}D",
        )
    a2 = F.unsqueeze(a, 0) if a.ndim == 1 else a
    b2 = F.unsqueeze(b, 1) if b.ndim == 1 else b
    if not a2.shape[-1] == b2.shape[-2]:
        fail(
            ShapeError,
            "matmul",
            f"inner dimensions differ: {_shapes(a, b)}",
            "the last size of the first must equal the last but one of the second",
        )
    if a.ndim == b.ndim == 1 and a.dtype is b.dtype and a.dtype.is_floating_point:
        # One number: a sum in lanes, by all threads, where a product would be one long chain.
        return to(F.sum(wide(a) * wide(b)), a.dtype)
    y = _batched(a2, b2)
    if a.ndim == 1:
        y = F.squeeze(y, -2)
    return F.squeeze(y, -1) if b.ndim == 1 else y


def _batched(a, b):
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if b.ndim == 2:
        # The batch of the left operand is more rows of one product.
        batch = a.shape[:-2]
        rows = F.reshape(a, (1, sizes.product(batch) * m, k))
        y = matmul_(rows, F.reshape(b, (1, k, n)))
        return F.reshape(y, (*batch, m, n))
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2], name="matmul")
    # The kernel takes two batch dimensions by strides: heads split off and swapped need no copy.
    joined = batch if len(batch) <= 2 else (sizes.product(batch[:-1]), batch[-1])
    a = F.reshape(expand_to(a, (*batch, m, k)), (*joined, m, k))
    b = F.reshape(expand_to(b, (*batch, k, n)), (*joined, k, n))
    return F.reshape(matmul_(a, b), (*batch, m, n))


@op(
    spaces=("torch",),
    out="exact",
    samples=lambda make: [
        ((make(17, 24, dtype=int8), make(24, 8, dtype=int8)), {}),
        ((make(3, 5, dtype=uint8), make(5, 40, dtype=int8)), {}),
    ],
)
def _int_mm(input: Value, mat2: Value):
    """The exact product, int32, of two matrices of int8 or uint8.

    Shapes: ``[m, k] @ [k, n] -> [m, n]``.

    Raises:
        RuntimeError: other ranks or dtypes, or inner dimensions that differ.
    """
    for x in (input, mat2):
        if x.ndim != 2:
            fail(ShapeError, "_int_mm", f"expected matrices, got {x.ndim} dimensions")
        if x.dtype not in (int8, uint8):
            fail(DtypeError, "_int_mm", f"expected int8 or uint8, got {x.dtype.name}")
    if not input.shape[1] == mat2.shape[0]:
        fail(ShapeError, "_int_mm", f"inner dimensions differ: {_shapes(input, mat2)}")
    if input.dtype is not mat2.dtype:
        input, mat2 = to(input, int16), to(mat2, int16)
    a, b = F.unsqueeze(input, 0), F.unsqueeze(mat2, 0)
    return F.squeeze(matmul_(a, b, wide=True), 0)


# Convolution -----------------------------------------------------------------------------------


def conv_size(n, k, stride, padding, dilation):
    """The output size along one dimension."""
    return (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1


def _conv_infer(x, w, *, stride, padding, dilation, groups):
    spatial = tuple(
        conv_size(n, k, s, p, d)
        for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation)
    )
    return [(x.dtype, (x.shape[0], w.shape[0], *spatial))]


def _patches(np, x, kernel, stride, padding, dilation):
    """[n, c, *out, *kernel] of a padded input, for the meanings below."""
    rank = len(kernel)
    x = np.pad(x, [(0, 0), (0, 0)] + [(p, p) for p in padding])
    out = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)
    ]
    steps = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (*x.shape[:2], *out, *kernel),
        (
            *steps[:2],
            *(st * s for st, s in zip(steps[2:], stride)),
            *(st * d for st, d in zip(steps[2:], dilation)),
        ),
    ), rank


def _conv_meaning(np, x, w, *, stride, padding, dilation, groups):
    p, rank = _patches(np, x, w.shape[2:], stride, padding, dilation)
    n, c, out = x.shape[0], x.shape[1] // groups, p.shape[2 : 2 + rank]
    p = p.reshape(n, groups, c, *p.shape[2:])
    wg = w.reshape(groups, -1, *w.shape[1:])
    axes = "defhij"[:rank], "uvw"[:rank]
    y = np.einsum(f"ngc{axes[0]}{axes[1]},goc{axes[1]}->ngo{axes[0]}", p, wg)
    return y.reshape(n, w.shape[0], *out).astype(x.dtype)


def _conv_input_meaning(np, g, w, *, spatial, stride, padding, dilation, groups):
    n, rank = g.shape[0], w.ndim - 2
    c = w.shape[1]
    y = np.zeros((n, c * groups, *(s + 2 * p for s, p in zip(spatial, padding))), g.dtype)
    gg = g.reshape(n, groups, -1, *g.shape[2:])
    wg = w.reshape(groups, -1, *w.shape[1:])
    for tap in np.ndindex(*w.shape[2:]):
        part = np.einsum("ngo...,goc->ngc...", gg, wg[(Ellipsis, *tap)])
        place = tuple(
            slice(t * d, t * d + (m - 1) * s + 1, s)
            for t, d, s, m in zip(tap, dilation, stride, g.shape[2:])
        )
        y[(slice(None), slice(None), *place)] += part.reshape(n, c * groups, *g.shape[2:])
    inner = tuple(slice(p, p + s) for s, p in zip(spatial, padding))
    assert rank == len(inner)
    return y[(slice(None), slice(None), *inner)]


def _conv_weight_meaning(np, x, g, *, kernel, stride, padding, dilation, groups):
    p, rank = _patches(np, x, kernel, stride, padding, dilation)
    n = x.shape[0]
    out = tuple(slice(0, m) for m in g.shape[2:])
    p = p[(slice(None), slice(None), *out)]
    p = p.reshape(n, groups, -1, *p.shape[2:])
    gg = g.reshape(n, groups, -1, *g.shape[2:])
    axes = "defhij"[:rank], "uvw"[:rank]
    y = np.einsum(f"ngc{axes[0]}{axes[1]},ngo{axes[0]}->goc{axes[1]}", p, gg)
    return y.reshape(-1, *y.shape[2:]).astype(x.dtype)


def _conv_flops(y, w):
    """Of a direct convolution with result y and weight w, whatever the algorithm."""
    return 2 * sizes.product((*y.shape, *w.shape[1:]))


def _at(p):
    return {k: p[k] for k in ("stride", "padding", "dilation", "groups")}


#: x [n, c, *spatial], w [o, c / groups, *kernel] -> [n, o, *out]; symmetric zero padding.
conv_ = Primitive(
    "conv",
    "opaque",
    _conv_infer,
    _conv_meaning,
    lambda g, y, x, w, **p: (
        conv_input_(g, w, spatial=tuple(x.shape[2:]), **_at(p)),
        conv_weight_(x, g, kernel=tuple(w.shape[2:]), **_at(p)),
    ),
    flops=lambda y, x, w, **p: _conv_flops(y, w),
)


def _conv_input_infer(g, w, *, spatial, stride, groups, **p):
    for k, s in zip(w.shape[2:], stride):
        if s > 1:
            # Which taps reach a place depends on the kernel's very size: specialise on it.
            int(k)
    return [(g.dtype, (g.shape[0], w.shape[1] * groups, *spatial))]


def _conv_input_gradient(gg, y, g, w, **p):
    back = conv_(gg, w, **_at(p))
    for d in range(2, g.ndim):
        # With an output padding of a stride or more there would be room for more places.
        if not sizes.same(back.shape[d], g.shape[d]):
            back = F.narrow(back, d, 0, g.shape[d])
    return back, conv_weight_(gg, g, kernel=tuple(w.shape[2:]), **_at(p))


#: The transpose of ``conv`` in x: g [n, o, *out], w -> [n, c, *spatial].
conv_input_ = Primitive(
    "conv_input",
    "opaque",
    _conv_input_infer,
    _conv_input_meaning,
    _conv_input_gradient,
    flops=lambda y, g, w, **p: _conv_flops(g, w),
)
#: The transpose of ``conv`` in w: x, g [n, o, *out] -> [o, c / groups, *kernel].
conv_weight_ = Primitive(
    "conv_weight",
    "opaque",
    lambda x, g, *, kernel, groups, **p: [(x.dtype, (g.shape[1], x.shape[1] // groups, *kernel))],
    _conv_weight_meaning,
    lambda gw, y, x, g, **p: (
        conv_input_(g, gw, spatial=tuple(x.shape[2:]), **_at(p)),
        conv_(x, gw, **_at(p)),
    ),
    flops=lambda y, x, g, **p: _conv_flops(g, y),
)
