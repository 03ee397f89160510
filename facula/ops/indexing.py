"""Reading and writing at positions that are data: gather, scatter, one-hot positions."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.promote import expand_to, to
from facula.ops.registry import F, Primitive, Scalar, op


def _index_shape(shape, dim, index):
    return shape[:dim] + tuple(index) + shape[dim + 1 :]


def _take_infer(x, index, *, dim):
    return [(x.dtype, _index_shape(x.shape, dim, index.shape))]


def _take_gradient(g, y, x, index, *, dim):
    zero = F.zeros_of(x.shape, x.dtype)
    return (index_add_(zero, index, g, dim=dim), None)


#: ``x`` along ``dim`` at the positions ``index`` (int64, any shape, already non-negative).
take_ = Primitive(
    "take",
    "gather",
    _take_infer,
    lambda np, x, index, *, dim: np.take(x, index, axis=dim),
    _take_gradient,
)


def _gather_meaning(np, x, index, *, dim):
    place = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    place[dim] = index
    return x[tuple(place)]


#: torch.gather: ``y[i,j,k] = x[i, index[i,j,k], k]`` for dim 1; index no larger than x elsewhere.
gather_ = Primitive(
    "gather",
    "gather",
    lambda x, index, *, dim: [(x.dtype, index.shape)],
    _gather_meaning,
    lambda g, y, x, index, *, dim: (
        scatter_(F.zeros_of(x.shape, x.dtype), index, g, dim=dim, reduce="add"),
        None,
    ),
)


def _scatter_meaning(np, x, index, src, *, dim, reduce):
    y = x.copy()
    for place in np.ndindex(*index.shape):
        to_ = list(place)
        to_[dim] = index[place]
        to_ = tuple(to_)
        combine = {
            "set": lambda old, value: value,
            "add": np.add,
            "mul": np.multiply,
            "min": np.minimum,
            "max": np.maximum,
        }[reduce]
        y[to_] = combine(y[to_], src[place])
    return y


def _scatter_gradient(g, y, x, index, src, *, dim, reduce):
    if reduce == "add":
        return (g, None, gather_(g, index, dim=dim))
    if reduce == "set":
        kept = scatter_(g, index, F.zeros_of(index.shape, g.dtype), dim=dim, reduce="set")
        return (kept, None, gather_(g, index, dim=dim))
    fail(DtypeError, "scatter", f"no derivative for reduce={reduce!r}")


#: A copy of ``x`` with ``src`` written (or combined) at ``index`` along ``dim``, in index order.
scatter_ = Primitive(
    "scatter",
    "opaque",
    lambda x, index, src, *, dim, reduce: [(x.dtype, x.shape)],
    _scatter_meaning,
    _scatter_gradient,
    onto=True,
)


def _index_add_meaning(np, x, index, src, *, dim):
    y = x.copy()
    y_, s_ = np.moveaxis(y, dim, 0), src.reshape(x.shape[:dim] + (-1,) + x.shape[dim + 1 :])
    np.add.at(y_, index.reshape(-1), np.moveaxis(s_, dim, 0))
    return y


#: A copy of ``x`` with slices of ``src`` added at the positions ``index`` along ``dim``.
index_add_ = Primitive(
    "index_add",
    "opaque",
    lambda x, index, src, *, dim: [(x.dtype, x.shape)],
    _index_add_meaning,
    lambda g, y, x, index, src, *, dim: (g, None, take_(g, index, dim=dim)),
    onto=True,
)


def _index_put_meaning(np, x, index, src, *, accumulate):
    y = x.copy()
    rows = tuple(index[:, k] for k in range(index.shape[1]))
    (np.add.at(y, rows, src) if accumulate else y.__setitem__(rows, src))
    return y


def _index_put_gradient(g, y, x, index, src, *, accumulate):
    picked = index_get_(g, index)
    if accumulate:
        return (g, None, picked)
    return (index_put_(g, index, F.zeros_of(src.shape, src.dtype), accumulate=False), None, picked)


#: ``y[r] = x[index[r, 0], ..., index[r, k-1], ...]``: index is int64 [rows, k], non-negative.
index_get_ = Primitive(
    "index_get",
    "gather",
    lambda x, index: [(x.dtype, (index.shape[0], *x.shape[int(index.shape[1]) :]))],
    lambda np, x, index: x[tuple(index[:, k] for k in range(index.shape[1]))],
    lambda g, y, x, index: (
        index_put_(F.zeros_of(x.shape, x.dtype), index, g, accumulate=True),
        None,
    ),
)
#: A copy of ``x`` with rows of ``src`` written or added at ``index`` (see ``index_get``).
index_put_ = Primitive(
    "index_put",
    "opaque",
    lambda x, index, src, *, accumulate: [(x.dtype, x.shape)],
    _index_put_meaning,
    _index_put_gradient,
    onto=True,
)


def _bags_meaning(np, x, starts, index, *, mean, ends):
    bounds = [*starts] if ends else [*starts, len(index)]
    bags = [x[index[lo:hi]] for lo, hi in zip(bounds, bounds[1:])]
    sums = [rows.sum(0) / (max(len(rows), 1) if mean else 1) for rows in bags]
    return np.array(sums, x.dtype).reshape(len(bags), x.shape[1])


def _bags_gradient(g, y, x, starts, index, *, mean, ends):
    n = index.shape[0]
    one = to(1, D.int64)
    begun = index_add_(F.zeros_of((n + 1,), D.int64), starts, expand_to(one, starts.shape), dim=0)
    bag = F.narrow(F.cumsum(begun, 0), 0, 0, n) - 1
    if mean:
        count = index_add_(F.zeros_of(g.shape[:1], D.int64), bag, expand_to(one, bag.shape), dim=0)
        g = g / F.unsqueeze(to(F.maximum(count, 1), g.dtype), 1)
    return index_add_(F.zeros_of(x.shape, x.dtype), index, take_(g, bag, dim=0), dim=0), None, None


#: Sums or means of bags of rows of ``x``: those that ``index`` [n] names from each of ``starts`` to
#: the next (the last to n; with ``ends``, the last start is n).
bags_ = Primitive(
    "bags",
    "opaque",
    lambda x, starts, index, *, mean, ends: [(x.dtype, (starts.shape[0] - ends, x.shape[1]))],
    _bags_meaning,
    _bags_gradient,
)


#: Elements of a block whose true ones are counted.
COUNTED = 4096
#: ``x`` with the positions of the true elements of ``mask`` at its front; ``ends`` are how many
#: are true up to the end of each block of ``COUNTED``.
compact_ = Primitive(
    "compact",
    "opaque",
    lambda x, mask, ends: [(x.dtype, x.shape)],
    lambda np, x, mask, ends: np.concatenate([np.flatnonzero(mask), x])[: len(x)],
    onto=True,
)


@op(spaces=())
def zeros_of(shape, dtype):
    """Zeros of a shape that may be symbolic, inside of a trace."""
    return expand_to(to(0, dtype), shape)


def need_index(name, index):
    """Refuse index tensors that are not integers."""
    if index.dtype not in (D.int64, D.int32):
        fail(
            DtypeError,
            name,
            f"Expected dtype int64 for index, got {index.dtype.name}",
            "convert with .long()",
        )
    return to(index, D.int64)


@op(
    out="exact apart",
    samples=lambda make: [((make(5, 4), 0, make(3, dtype=D.int64, low=0, high=5)), {})],
)
def index_select(input: Value, dim, index: Value):
    """The slices of ``input`` at the positions ``index`` (1-D int64) along ``dim``."""
    dim = wrap_dim("index_select", dim, input.ndim)
    index = need_index("index_select", index)
    if index.ndim > 1:
        fail(ShapeError, "index_select", "Index is supposed to be a vector")
    if input.ndim == 0:
        return F.reshape(take_(F.reshape(input, (1,)), F.reshape(index, (-1,)), dim=0), ())
    return take_(input, F.reshape(index, (-1,)), dim=dim)


@op(
    out="exact apart",
    samples=lambda make: [((make(5, 4), 1, make(5, 3, dtype=D.int64, low=0, high=4)), {})],
)
def gather(input: Value, dim, index: Value, *, sparse_grad=False):
    """``out[i][j] = input[i][index[i][j]]`` for ``dim`` 1, and alike for others.

    Raises:
        IndexError: an index out of range.
    """
    dim = wrap_dim("gather", dim, input.ndim)
    index = to(index, D.int64) if index.dtype is D.uint8 else need_index("gather", index)
    if index.ndim == 0 or input.ndim == 0:
        y = gather_(F.reshape(input, (-1,)), F.reshape(index, (-1,)), dim=0)
        return F.reshape(y, index.shape)
    if input.ndim != index.ndim and sizes.product(index.shape) == 0:
        return expand_to(to(0, input.dtype), index.shape)
    _fits("gather", input.shape, index.shape, dim)
    return gather_(input, index, dim=dim)


def _fits(name, shape, index_shape, dim):
    if len(shape) != len(index_shape):
        fail(
            ShapeError,
            name,
            "Index tensor must have the same number of dimensions as input "
            f"tensor, got {len(index_shape)} and {len(shape)}",
        )
    for d, (n, m) in enumerate(zip(shape, index_shape)):
        if d != dim and m > n:
            fail(
                ShapeError,
                name,
                f"Size does not match at dimension {d} expected index "
                f"{list(index_shape)} to be no larger than self {list(shape)} apart from "
                f"dimension {dim}",
            )


def _scattered(name, input, dim, index, src, reduce):
    dim = wrap_dim(name, dim, input.ndim)
    index = need_index(name, index)
    if isinstance(src, Value) and not src.weak:
        if src.dtype is not input.dtype:
            fail(DtypeError, name, "Expected self.dtype to be equal to src.dtype")
        if sizes.product(index.shape) == 0:
            return F.clone(input)
        if index.ndim and input.ndim:
            _fits(name, src.shape, index.shape, -1)
            for d, n in enumerate(index.shape):
                if not dims_same(src.shape[d], n):
                    src = F.narrow(src, d, 0, n)
    else:
        src = expand_to(to(src, input.dtype), index.shape)
    if index.ndim == 0 or input.ndim == 0:
        one = scatter_(
            F.reshape(input, (-1,)),
            F.reshape(index, (-1,)),
            F.reshape(src, (-1,)),
            dim=0,
            reduce=reduce,
        )
        return F.reshape(one, input.shape)
    _fits(name, input.shape, index.shape, dim)
    return scatter_(input, index, src, dim=dim, reduce=reduce)


def dims_same(a, b):
    return a is b or a == b


_SCATTER_SAMPLES = {
    "samples": lambda make: [
        ((make(5, 4), 1, make(5, 3, dtype=D.int64, low=0, high=4, distinct=True), make(5, 3)), {})
    ]
}


@op(inplace=True, out="exact", **_SCATTER_SAMPLES)
def scatter(input: Value, dim, index: Value, src: Value, *, reduce=None):
    """A copy of ``input`` with ``src`` written at ``index`` along ``dim``."""
    names = {None: "set", "add": "add", "multiply": "mul"}
    if reduce not in names:
        raise RuntimeError(
            f"scatter: reduce argument must be either add or multiply, got {reduce!r}"
        )
    return _scattered("scatter", input, dim, index, src, names[reduce])


@op(inplace=True, out="exact", **_SCATTER_SAMPLES)
def scatter_add(input: Value, dim, index: Value, src: Value):
    """A copy of ``input`` with ``src`` added at ``index`` along ``dim``."""
    return _scattered("scatter_add", input, dim, index, src, "add")


@op(
    inplace=True,
    out="exact",
    samples=lambda make: [((make(5, 4), 0, make(3, dtype=D.int64, low=0, high=5), make(3, 4)), {})],
)
def index_add(input: Value, dim, index: Value, source: Value, *, alpha: Scalar = 1):
    """A copy of ``input`` with ``alpha * source`` added at the slices ``index`` along ``dim``."""
    dim = wrap_dim("index_add", dim, input.ndim)
    index = F.reshape(need_index("index_add", index), (-1,))
    if source.dtype is not input.dtype:
        fail(
            DtypeError,
            "index_add",
            "self and source expected to have the same dtype, got "
            f"{input.dtype.name} and {source.dtype.name}",
        )
    if input.ndim == 0:
        one = F.index_add(F.reshape(input, (1,)), 0, index, F.reshape(source, (-1,)), alpha=alpha)
        return F.reshape(one, ())
    if source.ndim == 0 and input.ndim == 1:
        source = F.reshape(source, (1,))
    expected = _index_shape(input.shape, dim, index.shape)
    if tuple(source.shape) != tuple(expected):
        fail(ShapeError, "index_add", f"source has shape {source.shape}, expected {expected}")
    if isinstance(alpha, Value) or alpha != 1:
        source = to(F.mul(source, alpha), input.dtype)
    return index_add_(input, index, source, dim=dim)
