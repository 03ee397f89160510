"""Pooling over windows of one to three spatial dimensions, and channels rearranged as space."""

from __future__ import annotations

from operator import index

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, ShapeError, fail
from facula.ir.dims import Dim, product, same
from facula.ir.program import Value
from facula.ops.movement import constant_pad, slice_, windows_
from facula.ops.random import positions
from facula.ops.reduce import argmax_, max_, size_value
from facula.ops.registry import F, Primitive, composite, op


def whole(name, what, value):
    """``value`` if it is a whole number, which may be a size that is a symbol."""
    if isinstance(value, Dim) or type(value) is int:
        return value
    if not hasattr(value, "__index__"):
        kind = type(value).__name__
        fail(ArgumentTypeError, name, f"expected {what} to be an int or ints, got {kind}: {value}")
    return index(value)


def tuple_of(name, what, value, rank, optional=False):
    """An int or a sequence as one value a spatial dimension; ``optional``: or None."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    if len(values) == 1:
        values = tuple(values) * rank
    if len(values) != rank:
        fail(
            ShapeError,
            name,
            f"expected {what} to be a single integer value or a list of "
            f"{rank} values, but got {what}={list(value)}",
        )
    return tuple(v if v is None and optional else whole(name, what, v) for v in values)


class Pool:
    """The geometry of a pooling: window, stride, padding, dilation, and outputs per dimension."""

    def __init__(self, name, x, rank, kernel, stride, padding, dilation, ceil_mode):
        self.rank = rank
        self.kernel = tuple_of(name, "kernel_size", kernel, rank)
        empty = stride is None or isinstance(stride, (tuple, list)) and len(stride) == 0
        self.stride = self.kernel if empty else tuple_of(name, "stride", stride, rank)
        self.padding = tuple_of(name, "padding", padding, rank)
        self.dilation = tuple_of(name, "dilation", dilation, rank)
        if min(self.kernel) <= 0 or min(self.stride) <= 0 or min(self.dilation) <= 0:
            fail(ShapeError, name, "kernel size, stride and dilation should be greater than zero")
        if any(p < 0 or p > k // 2 for p, k in zip(self.padding, self.kernel)):
            fail(
                ShapeError,
                name,
                "pad should be at most half of effective kernel size, got "
                f"padding={list(self.padding)}, kernel_size={list(self.kernel)}",
            )
        self.ceil, self.after, self.out = ceil_mode, [], []
        for d, n in enumerate(x.shape[x.ndim - rank :]):
            self._dimension(name, d, n)

    def _dimension(self, name, d, n):
        k, s = self.kernel[d], self.stride[d]
        p, span = self.padding[d], self.dilation[d] * (self.kernel[d] - 1) + 1
        out = (n + 2 * p - span + (s - 1 if self.ceil else 0)) // s + 1
        if out < 1:
            fail(ShapeError, name, f"Given input size: {n}, kernel {k}: output size is too small")
        if self.ceil and (out - 1) * s >= n + p:
            out = out - 1
        need = (out - 1) * s + span - (n + p)
        self.after.append(need if need > 0 else 0)
        self.out.append(out)

    def windows(self, x, value):
        """[..., *out, *kernel]: the padded input's windows."""
        lead = x.ndim - self.rank
        pads = [(0, 0)] * lead + list(zip(self.padding, self.after))
        x = constant_pad(x, pads, value)
        for d in range(self.rank):
            at = lead + 2 * d
            need = (self.out[d] - 1) * self.stride[d] + self.dilation[d] * (self.kernel[d] - 1) + 1
            if not same(x.shape[at], need):
                x = slice_(x, dim=at, start=0, length=need, step=1)
            x = windows_(
                x, dim=at, size=self.kernel[d], step=self.stride[d], dilation=self.dilation[d]
            )
        order = [
            *range(lead),
            *(lead + 2 * d for d in range(self.rank)),
            *(lead + 2 * d + 1 for d in range(self.rank)),
        ]
        return F.permute(x, tuple(order))


def _lowest(dtype):
    if dtype.is_floating_point:
        return float("-inf")
    return 0 if dtype.kind in "bu" else -(1 << (8 * dtype.itemsize - 1))


def _pool(x, p):
    return Pool(
        "max_pool",
        x,
        p["rank"],
        p["kernel"],
        p["stride"],
        p["padding"],
        p["dilation"],
        p["ceil_mode"],
    )


def window_dims(x, rank):
    return tuple(range(x.ndim, x.ndim + rank))


def max_pool_indices(x, p, pool):
    """For each window, the flat spatial index of its first largest element."""
    rank, lead = p["rank"], x.ndim - p["rank"]
    w = pool.windows(x, _lowest(x.dtype))
    flat = F.flatten(w, x.ndim, -1) if rank > 1 else w
    at = argmax_(flat, dims=(x.ndim,))
    result = None
    for d in reversed(range(rank)):
        k = pool.kernel[d]
        within = F.remainder(at, k) if d else at
        at = F.floor_divide(at, k) if d else at
        ones = tuple(n if i == lead + d else 1 for i, n in enumerate(within.shape))
        start = F.reshape(positions(shape=(within.shape[lead + d],)), ones) * pool.stride[d]
        place = start + within * pool.dilation[d] - pool.padding[d]
        place = place if result is None else place * F.span(x, lead + d + 1, x.ndim)
        result = place if result is None else result + place
    return result


@op(spaces=())
def span(input: Value, first, last):
    """The product of sizes ``first`` to ``last`` (exclusive), as an int64 value."""
    return size_value(product(input.shape[first:last]), D.int64)


def _max_pool(x, **p):
    return max_(_pool(x, p).windows(x, _lowest(x.dtype)), dims=window_dims(x, p["rank"]))


def _max_pool_gradient_meaning(np, g, x, *, rank, kernel, stride, padding, dilation, ceil_mode):
    """Windows in order, elements of each in order: the first largest takes the gradient."""
    y = np.zeros_like(x)
    lead = x.ndim - rank
    for place in np.ndindex(*g.shape):
        best, at = None, None
        for taps in np.ndindex(*kernel):
            where = tuple(
                q * s - p + t * d
                for q, s, p, t, d in zip(place[lead:], stride, padding, taps, dilation)
            )
            if not all(0 <= w < n for w, n in zip(where, x.shape[lead:])):
                continue
            value = x[(*place[:lead], *where)]
            if at is None or value > best or (value != value and best == best):
                best, at = value, (*place[:lead], *where)
        y[at] += g[place]
    return y


def _max_pool_gradient_gradient(gg, y, g, x, **p):
    lead = x.ndim - p["rank"]
    index = max_pool_indices(x, p, _pool(x, p))
    planes = (*x.shape[:lead], -1)
    picked = F.gather(F.reshape(gg, planes), lead, F.reshape(index, planes))
    return (F.reshape(picked, tuple(g.shape)), None)


#: (g, x) -> the gradient of ``max_pool`` in x; g is that of its result.
max_pool_gradient_ = Primitive(
    "max_pool_gradient", "opaque", lambda g, x, **p: [(x.dtype, x.shape)],
    _max_pool_gradient_meaning, _max_pool_gradient_gradient,
)  # fmt: skip


def _max_pool_gradient(g, y, x, **p):
    return (max_pool_gradient_(g, x, **p),)


max_pool_ = composite("max_pool", _max_pool, _max_pool_gradient)
