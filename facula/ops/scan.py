"""Cumulative scans and sorting, each a primitive with a kernel of its own."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ShapeError, fail, wrap_dim
from facula.ir.program import Value
from facula.ops import results
from facula.ops.movement import flip_
from facula.ops.promote import to
from facula.ops.registry import F, Primitive, op


def _cumsum_gradient(g, y, x, *, dim):
    return (flip_(cumsum_(flip_(g, dims=(dim,)), dim=dim), dims=(dim,)),)


def _scan(name, meaning, gradient):
    return Primitive(name, "opaque", lambda x, *, dim: [(x.dtype, x.shape)], meaning, gradient)


cumsum_ = _scan(
    "cumsum", lambda np, x, *, dim: np.cumsum(x, axis=dim, dtype=x.dtype), _cumsum_gradient
)


def _cumprod_gradient(g, y, x, *, dim):
    """``reverse_cumsum(g * y) / x``; where zeros occur, the products that skip them."""
    zero = x.eq(0)
    first = zero & cumsum_(to(zero, D.int64), dim=dim).eq(1)
    after = cumsum_(to(first, D.int64), dim=dim).gt(0)
    safe = F.where(first, 1.0, x)
    without = cumprod_(safe, dim=dim)

    def back(t):
        return flip_(cumsum_(flip_(t, dims=(dim,)), dim=dim), dims=(dim,))

    before = back(F.where(after, 0.0, g * y)) / F.where(zero, 1.0, x)
    at_zero = back(F.where(after, g * without, 0.0))
    return (F.where(first, at_zero, F.where(zero, 0.0, F.where(after, 0.0, before))),)


cumprod_ = _scan(
    "cumprod", lambda np, x, *, dim: np.cumprod(x, axis=dim, dtype=x.dtype), _cumprod_gradient
)


def _running_meaning(name):
    def meaning(np, x, *, dim):
        values = getattr(np, name).accumulate(x, axis=dim)
        n = x.shape[dim]
        positions = np.arange(n).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
        hits = np.where((x == values) | ((x != x) & (values != values)), positions, -1)
        return values, np.maximum.accumulate(hits, axis=dim).astype("int64")

    return meaning


def _picked_gradient(g, y, x, *, dim, **_):
    zero = F.zeros_of(x.shape, x.dtype)
    return (F.scatter_add(zero, dim, y[1], g[0]),)


def _running(name, numpy_name):
    return Primitive(
        name,
        "opaque",
        lambda x, *, dim: [(x.dtype, x.shape), (D.int64, x.shape)],
        _running_meaning(numpy_name),
        _picked_gradient,
    )


cummax_, cummin_ = _running("cummax", "maximum"), _running("cummin", "minimum")


def _sort_meaning(np, x, *, dim, descending):
    key = np.flip(x, dim) if descending else x
    order = np.argsort(key, axis=dim, kind="stable")
    if descending:
        order = np.flip(x.shape[dim] - 1 - order, dim)
    return np.take_along_axis(x, order, dim), order.astype("int64")


#: Stable sort along ``dim``: values and their former positions; NaN counts as the largest.
sort_ = Primitive(
    "sort",
    "opaque",
    lambda x, *, dim, descending: [(x.dtype, x.shape), (D.int64, x.shape)],
    _sort_meaning,
    _picked_gradient,
)


def _topk_infer(x, *, dim, k, largest):
    shape = (*x.shape[:dim], k, *x.shape[dim + 1 :])
    return [(x.dtype, shape), (D.int64, shape)]


def _topk_meaning(np, x, *, dim, k, largest):
    values, order = _sort_meaning(np, x, dim=dim, descending=largest)
    return np.take(values, range(k), dim), np.take(order, range(k), dim)


#: The first ``k`` of a stable sort, k at least 1.
topk_ = Primitive("topk", "opaque", _topk_infer, _topk_meaning, _picked_gradient)
#: Up to so many, or to an eighth of a row, the elements are picked in one walk over it.
_FEW = 64


def _along(name, primitive, input, dim):
    dim = wrap_dim(name, dim, input.ndim)
    if input.ndim:
        return primitive(input, dim=dim)
    y = primitive(F.reshape(input, (1,)), dim=0)
    return tuple(F.reshape(v, ()) for v in y) if isinstance(y, tuple) else F.reshape(y, ())


def _wide(input, dtype):
    if dtype is not None:
        return to(input, dtype)
    return input if input.dtype.is_floating_point else to(input, D.int64)


@op(inplace=True, out=True, samples=lambda make: [((make(4, 5), 1), {}), ((make(4, 5), 0), {})])
def cumsum(input: Value, dim, *, dtype=None):
    """Running sums along ``dim``; integers are summed as int64."""
    return _along("cumsum", cumsum_, _wide(input, dtype), dim)


@op(inplace=True, out=True, samples=lambda make: [((make(4, 5), 1), {}), ((make(4, 5), 0), {})])
def cumprod(input: Value, dim, *, dtype=None):
    """Running products along ``dim``; integers are multiplied as int64."""
    return _along("cumprod", cumprod_, _wide(input, dtype), dim)


@op(out="exact", samples=lambda make: [((make(4, 5), 1), {})])
def cummax(input: Value, dim):
    """Running maxima along ``dim`` and their positions: (values, indices)."""
    return results.cummax(*_along("cummax", cummax_, input, dim))


@op(out="exact", samples=lambda make: [((make(4, 5), 1), {})])
def cummin(input: Value, dim):
    """Running minima along ``dim`` and their positions: (values, indices)."""
    return results.cummin(*_along("cummin", cummin_, input, dim))


@op(out="exact", samples=lambda make: [((make(4, 5), 1), {}), ((make(4, 5), 0, True), {})])
def sort(input: Value, dim=-1, descending=False, stable=False):
    """Sorted along ``dim``: (values, indices). Always stable; NaN counts as the largest."""
    dim = wrap_dim("sort", dim, input.ndim)
    if input.ndim == 0:
        v, i = sort_(F.reshape(input, (1,)), dim=0, descending=bool(descending))
        return results.sort(F.reshape(v, ()), F.reshape(i, ()))
    return results.sort(*sort_(input, dim=dim, descending=bool(descending)))


@op(out="exact apart", samples=lambda make: [((make(4, 5), 2), {})])
def topk(input: Value, k, dim=-1, largest=True, sorted=True):  # noqa: A002
    """The ``k`` largest (or smallest) along ``dim``, in order: (values, indices)."""
    dim = wrap_dim("topk", dim, input.ndim)
    n = input.shape[dim] if input.ndim else 1
    if k < 0 or k > n:
        fail(ShapeError, "topk", f"selected index k out of range: {k} of {n} elements along {dim}")
    if input.ndim and k >= 1 and (k <= _FEW or 8 * k <= n):
        return results.topk(*topk_(input, dim=dim, k=int(k), largest=bool(largest)))
    values, indices = F.sort(input, dim, largest)
    if input.ndim == 0:
        return results.topk(values, indices)
    return results.topk(F.narrow(values, dim, 0, k), F.narrow(indices, dim, 0, k))
