"""Ops over gather and scatter: subscripts with tensors, searching, counting into bins."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.indexing import (
    COUNTED,
    compact_,
    gather_,
    index_get_,
    index_put_,
    need_index,
    scatter_,
    take_,
)
from facula.ops.movement import pad_, slice_
from facula.ops.promote import broadcast_shapes, expand_to, promoted, to
from facula.ops.random import positions
from facula.ops.reduce import sum_
from facula.ops.registry import F, Scalar, Tensors, composite, op


def wrapped(index: Value, x: Value, dim) -> Value:
    """Negative positions counted from the end of a dimension of ``x``."""
    index = to(index, D.int64)
    return F.where(F.lt(index, 0), index + F.size_of(x, dim), index)


def _rows(x, indices):
    """(index [rows, k], the shape that the indices broadcast to) for the first k dims of ``x``."""
    shape = broadcast_shapes(*(i.shape for i in indices), name="index")
    columns = [
        F.reshape(expand_to(wrapped(i, x, d), shape), (-1, 1)) if sizes.product(shape) != 0
        else F.reshape(expand_to(wrapped(i, x, d), shape), (0, 1))
        for d, i in enumerate(indices)
    ]  # fmt: skip
    return (columns[0] if len(columns) == 1 else F.cat(columns, 1)), shape


@op(spaces=())
def pick_along(input: Value, index: Value, dim):
    """``input[..., index, ...]`` with the subscript at ``dim``."""
    return take_(input, wrapped(index, input, dim), dim=dim)


@op(spaces=())
def pick(input: Value, indices: Tensors):
    """``input[i, j, ...]``: subscripts, broadcast together, of the first dimensions."""
    rows, shape = _rows(input, indices)
    y = index_get_(input, rows)
    return F.reshape(y, (*shape, *input.shape[len(indices) :]))


@op(spaces=(), inplace=True)
def place(input: Value, indices: Tensors, values: Value, accumulate=False):
    """A copy of ``input`` with ``input[i, j, ...] = values`` (or ``+=``) for the first dims."""
    rows, shape = _rows(input, indices)
    rest = input.shape[len(indices) :]
    values = _fitting(to(values, input.dtype), (*shape, *rest))
    src = F.reshape(values, (rows.shape[0], *rest))
    return index_put_(input, rows, src, accumulate=bool(accumulate))


def _fitting(values, shape):
    """``values`` broadcast to the shape of the places; further leading sizes of 1 are dropped."""
    extra = values.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in values.shape[:extra]):
        values = F.reshape(values, values.shape[extra:])
    whole = broadcast_shapes(values.shape, shape, name="index_put")
    if len(whole) != len(shape) or not all(a == b for a, b in zip(whole, shape)):
        fail(ShapeError, "index_put", f"shape mismatch: value tensor of shape "
             f"{list(values.shape)} cannot be broadcast to indexing result of shape "
             f"{list(shape)}")  # fmt: skip
    return expand_to(values, shape)


def _index_sample(make, *shape, n):
    return make(*shape, dtype=D.int64, low=0, high=n)


@op(out="exact apart", samples=lambda make: [((make(4, 5), _index_sample(make, 3, n=20)), {})])
def take(input: Value, index: Value):
    """The elements of ``input``, seen as 1-D, at the positions ``index``."""
    if index.dtype is not D.int64:
        fail(DtypeError, "take", f"Expected a long tensor for index, but got {index.dtype.name}")
    flat = F.reshape(input, (-1,)) if sizes.product(input.shape) != 0 else F.reshape(input, (0,))
    return take_(flat, wrapped(index, flat, 0), dim=0)


def _put_samples(make):
    index = make(3, dtype=D.int64, low=0, high=20, distinct=True)
    return [((make(4, 5), index, make(3)), {})]


@op(inplace=True, samples=_put_samples)
def put(input: Value, index: Value, source: Value, accumulate=False):
    """A copy of ``input`` with ``source`` written (or added) at positions of it seen as 1-D."""
    if index.dtype is not D.int64:
        fail(DtypeError, "put", f"Expected a long tensor for index, but got {index.dtype.name}")
    if source.dtype is not input.dtype:
        fail(DtypeError, "put", "Expected source and self to have the same dtype")
    if not sizes.product(index.shape) == sizes.product(source.shape):
        fail(ShapeError, "put", "Expected source and index to have the same number of elements")
    count = sizes.product(index.shape)
    flat = F.reshape(input, (sizes.product(input.shape),))
    rows = F.reshape(wrapped(index, flat, 0), (count, 1))
    y = index_put_(flat, rows, F.reshape(source, (count,)), accumulate=bool(accumulate))
    return F.reshape(y, input.shape)


@op(out="exact apart", samples=lambda make: [((make(4, 5), _index_sample(make, 4, 2, n=5), 1), {})])
def take_along_dim(input: Value, indices: Value, dim=None):
    """As ``gather``, with sizes broadcast; without ``dim``, of ``input`` seen as 1-D."""
    if indices.dtype is not D.int64:
        fail(DtypeError, "take_along_dim", f"dtype of indices should be Long, got {indices.dtype}")
    if dim is None:
        return F.gather(F.reshape(input, (-1,)), 0, F.reshape(indices, (-1,)))
    if input.ndim != indices.ndim:
        fail(ShapeError, "take_along_dim", "input and indices should have the same number of "
             f"dimensions, but got {input.ndim} and {indices.ndim}")  # fmt: skip
    dim = wrap_dim("take_along_dim", dim, input.ndim)
    others = broadcast_shapes(
        *(tuple(1 if d == dim else n for d, n in enumerate(x.shape)) for x in (input, indices)),
        name="take_along_dim",
    )
    shape = [(*others[:dim], x.shape[dim], *others[dim + 1 :]) for x in (input, indices)]
    x, index = expand_to(input, shape[0]), expand_to(indices, shape[1])
    return gather_(x, wrapped(index, x, dim), dim=dim)


def _along(input, dim):
    """``input`` with ``dim`` first, and how to put it back."""
    if input.ndim == 0:
        return F.reshape(input, (1,)), lambda y: F.reshape(y, ())
    return F.movedim(input, dim, 0), lambda y: F.movedim(y, 0, dim)


@op(inplace=True, samples=lambda make: [((make(4, 5), 0, _index_sample(make, 2, n=4), 1.5), {})])
def index_fill(input: Value, dim, index: Value, value: Value):
    """A copy of ``input`` with ``value`` at the slices ``index`` along ``dim``."""
    dim = wrap_dim("index_fill", dim, input.ndim)
    index = need_index("index_fill", index)
    if index.ndim > 1:
        fail(ShapeError, "index_fill", "Index has to be a vector/scalar")
    if isinstance(value, Value) and value.ndim:
        fail(ShapeError, "index_fill", "only supports a 0-dimensional value tensor, but got tensor "
             f"with {value.ndim} dimension(s)")  # fmt: skip
    x = F.reshape(input, (1,)) if input.ndim == 0 else input
    index = F.reshape(index, (sizes.product(index.shape),))
    rows = F.reshape(wrapped(index, x, dim), (index.shape[0], 1))
    # A mask of the slices: where an index occurs twice, the value still counts once.
    ones = F.eq(F.zeros_of((index.shape[0],), D.uint8), 0)
    mask = index_put_(F.zeros_of((x.shape[dim],), D.bool_), rows, ones, accumulate=False)
    mask = F.reshape(mask, tuple(n if d == dim else 1 for d, n in enumerate(x.shape)))
    y = F.where(expand_to(mask, x.shape), to(value, input.dtype), x)
    return F.reshape(y, ()) if input.ndim == 0 else y


@op(
    inplace=True,
    out="exact",
    samples=lambda make: [((make(4, 5), 0, _index_sample(make, 1, n=4), make(1, 5)), {})],
)
def index_copy(input: Value, dim, index: Value, source: Value):
    """A copy of ``input`` with slices along ``dim`` replaced by those of ``source``."""
    dim = wrap_dim("index_copy", dim, input.ndim)
    index = need_index("index_copy", index)
    if index.ndim > 1:
        fail(ShapeError, "index_copy", "Index should have dimension 1 or 0")
    if source.dtype is not input.dtype:
        fail(DtypeError, "index_copy", f"self and source expected to have the same dtype, but got "
             f"(self) {input.dtype.name} and (source) {source.dtype.name}")  # fmt: skip
    if source.ndim != input.ndim and source.ndim and input.ndim:
        fail(ShapeError, "index_copy", "When source and destination are not scalars, their "
             f"dimensionality must match. Source dimensionality ({source.ndim}), destination "
             f"dimensionality ({input.ndim})")  # fmt: skip
    index = F.reshape(index, (sizes.product(index.shape),))
    moved, back = _along(input, dim)
    parts, _ = _along(source, dim)
    expected = (index.shape[0], *moved.shape[1:])
    if len(parts.shape) != len(expected) or not all(a == b for a, b in zip(parts.shape, expected)):
        fail(ShapeError, "index_copy", f"source has slices {list(parts.shape)}, expected "
             f"{list(expected)}")  # fmt: skip
    rows = F.reshape(wrapped(index, moved, 0), (index.shape[0], 1))
    return back(index_put_(moved, rows, parts, accumulate=False))


_REDUCTIONS = {"sum": "add", "prod": "mul", "mean": "add", "amax": "max", "amin": "min"}


def _identity(reduce, dtype):
    """What leaves every number of a dtype as it is."""
    if reduce in ("sum", "mean"):
        return 0
    if reduce == "prod":
        return 1
    sign = -1 if reduce == "amax" else 1
    if dtype.is_floating_point:
        return sign * float("inf")
    if dtype is D.bool_:
        return sign > 0
    bits = 8 * dtype.itemsize - (1 if dtype.is_signed else 0)
    return (1 << bits) - 1 if sign > 0 else -(1 << bits) if dtype.is_signed else 0


@op(
    inplace=True,
    out="exact",
    samples=lambda make: [
        ((make(4, 5), 1, _index_sample(make, 4, 3, n=5), make(4, 3), "sum"), {}),
        ((make(4, 5), 1, _index_sample(make, 4, 3, n=5), make(4, 3), "amax"), {}),
        (
            (make(4, 5), 1, _index_sample(make, 4, 3, n=5), make(4, 3), "mean"),
            {"include_self": False},
        ),
    ],
)
def scatter_reduce(input: Value, dim, index: Value, src: Value, reduce, *, include_self=True):
    """A copy of ``input`` with elements of ``src`` combined into places along ``dim``.

    Args:
        reduce: "sum", "prod", "mean", "amax" or "amin".
        include_self: False leaves out the former elements of the places that are written.
    """
    if reduce not in _REDUCTIONS:
        fail(ShapeError, "scatter_reduce", "reduce argument must be either sum, prod, mean, amax "
             f"or amin, got {reduce}")  # fmt: skip
    x = input
    if not include_self:
        identity = expand_to(to(_identity(reduce, x.dtype), x.dtype), index.shape)
        x = F.scatter(x, dim, index, identity)
    y = _scattered_into(x, dim, index, src, reduce)
    if reduce == "mean":
        ones = F.zeros_of(index.shape, D.int64) + 1
        counts = F.scatter_add(F.zeros_of(x.shape, D.int64), dim, index, ones)
        counts = to(F.maximum(counts + (1 if include_self else 0), 1), x.dtype)
        y = F.div(y, counts) if x.dtype.is_floating_point else F.floor_divide(y, counts)
    return y


def _scattered_into(x, dim, index, src, reduce):
    if src.dtype is not x.dtype:
        fail(DtypeError, "scatter_reduce", "Expected self.dtype to be equal to src.dtype")
    if index.dtype is not D.int64:
        fail(
            DtypeError, "scatter_reduce", f"Expected dtype int64 for index, got {index.dtype.name}"
        )
    dim = wrap_dim("scatter_reduce", dim, x.ndim)
    if x.ndim == 0:
        one = _combined(*(F.reshape(v, (1,)) for v in (x, index, src)), dim=0, reduce=reduce)
        return F.reshape(one, ())
    for d, n in enumerate(index.shape):
        if not sizes.same(src.shape[d], n):
            src = F.narrow(src, d, 0, n)
    return _combined(x, index, src, dim=dim, reduce=reduce)


def _scatter_body(x, index, src, *, dim, reduce):
    return scatter_(x, index, src, dim=dim, reduce=_REDUCTIONS[reduce])


def _scatter_gradient(g, y, x, index, src, *, dim, reduce):
    """Extrema share the cotangent equally; of a product, the others' product times it."""
    if reduce in ("sum", "mean"):
        return g, None, gather_(g, index, dim=dim)
    if reduce == "prod":
        # The product without one factor: of those that are no zeros, if there is no other zero.
        ones_x, ones_src = F.where(x.eq(0), 1.0, x), F.where(src.eq(0), 1.0, src)
        rest = scatter_(ones_x, index, ones_src, dim=dim, reduce="mul")
        zeros = scatter_(to(x.eq(0), x.dtype), index, to(src.eq(0), x.dtype), dim=dim, reduce="add")

        def of(v, whole, count, cotangent):
            nothing = F.where(count.eq(0), whole / F.where(v.eq(0), 1.0, v), 0.0)
            return cotangent * F.where(v.eq(0), F.where(count.eq(1), whole, 0.0), nothing)

        picked = [gather_(t, index, dim=dim) for t in (rest, zeros, g)]
        return of(x, rest, zeros, g), None, of(src, *picked)
    hit_x, hit_src = to(x.eq(y), x.dtype), to(src.eq(gather_(y, index, dim=dim)), x.dtype)
    share = g / scatter_(hit_x, index, hit_src, dim=dim, reduce="add")
    return hit_x * share, None, hit_src * gather_(share, index, dim=dim)


#: ``scatter_`` with a gradient for every reduction.
_combined = composite("scatter_combined", _scatter_body, _scatter_gradient)


# Searching and counting --------------------------------------------------------------------------


def _search(sequence, values, right):
    """Positions in rows of ``sequence`` [b, n] for rows of ``values`` [b, m], by halving.

    The number of steps is that of the bits of n, so a trace holds for all n up to a power of two.
    """
    n = sequence.shape[1]
    size = F.size_of(sequence, 1)
    low = F.zeros_of(values.shape, D.int64)
    step = 1
    while step <= n:
        step *= 2
    while step > 1:
        step //= 2
        probe = low + (step - 1)
        inside = F.lt(probe, size)
        at = gather_(sequence, F.where(inside, probe, 0), dim=1)
        before = F.le(at, values) if right else F.lt(at, values)
        if sequence.dtype.is_floating_point:
            # NaN counts as the largest number, on either side.
            nan = F.isnan(values)
            before = before | (nan if right else nan & F.logical_not(F.isnan(at)))
        low = F.where(inside & before, low + step, low)
    return low


@op(
    spaces=("torch",),
    out=True,
    samples=lambda make: [((make(3, 7, ordered=True), make(3, 4)), {})],
)
def searchsorted(
    sorted_sequence: Value,
    input: Value,
    *,
    out_int32=False,
    right=False,
    side=None,
    sorter: Value = None,
):
    """Where each value would be inserted into its (last-dimension) sorted sequence.

    Args:
        right: after equal elements instead of before them; as ``side="right"``.
        out_int32: int32 positions instead of int64.
    """
    if sorter is not None:
        sorted_sequence = F.gather(sorted_sequence, -1, sorter)
    if side not in (None, "left", "right"):
        fail(ShapeError, "searchsorted", f"side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        fail(ShapeError, "searchsorted", "side and right can't be set to opposites, got side of "
             "left while right was True")  # fmt: skip
    scalar = not isinstance(input, Value) or input.weak
    sequence, values = promoted(sorted_sequence, input)
    if sequence.dtype is D.bool_ or sequence.ndim == 0:
        fail(
            ShapeError, "searchsorted", "boundaries tensor must be numbers of at least 1 dimension"
        )
    shape = () if scalar else values.shape
    if sequence.ndim == 1:
        b, rows = 1, F.reshape(values, (1, sizes.product(shape)))
    else:
        if len(shape) != sequence.ndim or not all(
            p == q for p, q in zip(shape[:-1], sequence.shape[:-1])
        ):
            fail(ShapeError, "searchsorted", "boundaries tensor should be 1 dimension or the first "
                 f"N-1 dimensions of boundaries tensor and input value tensor must match, but we "
                 f"got boundaries tensor {list(sequence.shape)} and input value tensor "
                 f"{list(shape)}")  # fmt: skip
        b = sizes.product(shape[:-1])
        rows = F.reshape(values, (b, shape[-1]))
    sequence = F.reshape(sequence, (b, sequence.shape[-1]))
    found = F.reshape(_search(sequence, rows, right or side == "right"), shape)
    return to(found, D.int32) if out_int32 else found


@op(
    spaces=("torch",),
    out=True,
    samples=lambda make: [((make(3, 4), make(7, ordered=True)), {}), ((make(5), make(0)), {})],
)
def bucketize(input: Value, boundaries: Value, *, out_int32=False, right=False):
    """The number of the bucket between sorted 1-D ``boundaries`` that each element falls into."""
    if boundaries.ndim != 1:
        fail(
            ShapeError,
            "bucketize",
            f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})",
        )
    return F.searchsorted(boundaries, input, out_int32=out_int32, right=right)


@op(out="exact", samples=lambda make: [((make(20), 5, -2.0, 2.0), {})])
def histc(input: Value, bins=100, min: Scalar = 0, max: Scalar = 0):  # noqa: A002
    """How many elements fall into each of ``bins`` equal intervals; 0, 0 takes the extremes."""
    if bins <= 0:
        fail(ShapeError, "histc", f"bins must be > 0, but got {bins}")
    if not input.dtype.is_floating_point:
        fail(DtypeError, "histc", f"expected a floating-point tensor, got {input.dtype.name}")
    flat = F.reshape(input, (sizes.product(input.shape),))
    zero = F.zeros_of((bins,), input.dtype)
    if flat.shape[0] == 0:
        return zero
    low, high = to(min, input.dtype), to(max, input.dtype)
    same = F.eq(low, high)
    low, high = F.where(same, F.amin(flat), low), F.where(same, F.amax(flat), high)
    flatness = F.eq(low, high)
    low, high = F.where(flatness, low - 1, low), F.where(flatness, high + 1, high)
    place = to(F.floor((flat - low) / (high - low) * bins), D.int64)
    place = F.minimum(F.maximum(place, 0), bins - 1)
    inside = to(F.ge(flat, low) & F.le(flat, high), input.dtype)
    return F.index_add(zero, 0, place, inside)


@op(spaces=())
def true_counts(input: Value):
    """How many elements of a 1-D mask are true up to the end of each block of ``COUNTED``."""
    n = input.shape[0]
    blocks = (n + (COUNTED - 1)) // COUNTED
    mask = pad_(input, dim=0, before=0, after=blocks * COUNTED - n, between=0, value=False)
    rows = F.reshape(to(mask, D.int32), (blocks, COUNTED))
    return F.cumsum(sum_(rows, dims=(1,)), 0)


@op(spaces=(), inplace=True)
def compact(input: Value, mask: Value, ends: Value):
    """The positions of the true elements of ``mask``, of which ``input`` has the number."""
    return compact_(input, mask, ends)


@op(spaces=())
def unravel(input: Value, like: Value):
    """[n, k]: the subscripts of flat positions ``input`` [n] in the shape of ``like``."""
    columns, rest = [], input
    for d in range(like.ndim - 1, -1, -1):
        size = F.size_of(like, d)
        columns.append(F.reshape(F.remainder(rest, size), (input.shape[0], 1)))
        rest = F.floor_divide(rest, size)
    columns.reverse()
    return columns[0] if len(columns) == 1 else F.cat(columns, 1)


@op(inplace=True, samples=lambda make: [((make(3, 5), make(5, dtype=D.bool_), make(20)), {})])
def masked_scatter(input: Value, mask: Value, source: Value):
    """``input`` with the elements of ``source``, in order, where ``mask`` is true."""
    if mask.dtype is not D.bool_:
        fail(DtypeError, "masked_scatter", f"expected a bool mask, got {mask.dtype.name}")
    if source.dtype is not input.dtype:
        fail(DtypeError, "masked_scatter", f"expected self and source to have same dtypes but got "
             f"{input.dtype.name} and {source.dtype.name}")  # fmt: skip
    shape = broadcast_shapes(input.shape, mask.shape, name="masked_scatter")
    x, m = expand_to(input, shape), expand_to(mask, shape)
    count = sizes.product(shape)
    if count == 0:
        return F.clone(x)
    order = F.cumsum(F.reshape(to(m, D.int64), (count,)), 0) - 1
    flat = F.reshape(source, (sizes.product(source.shape),))
    picked = take_(flat, F.maximum(F.reshape(order, shape), 0), dim=0)
    return F.where(m, picked, x)


# Basic subscripts, as ops of a trace --------------------------------------------------------------


@op(view=True, spaces=(), samples=lambda make: [((make(4, 5), (1, ("slice", 1, None, 2))), {})])
def subscript(input: Value, parts):
    """``input[parts]``: ints, ("slice", start, stop, step), None and "..." (for an Ellipsis)."""
    x, dim = input, 0
    consumed = len([p for p in parts if p is not None and p != "..."])
    for p in parts:
        if p is None:
            x = F.unsqueeze(x, dim)
            dim += 1
        elif p == "...":
            dim += input.ndim - consumed
        elif isinstance(p, tuple):
            x = _sliced(x, dim, *p[1:])
            dim += 1
        else:
            x = F.select(x, dim, p)
    return x


def _sliced(x, dim, start, stop, step):
    n = x.shape[dim]

    def bound(i, default):
        if i is None:
            return default
        i = i + n if i < 0 else i
        return 0 if i < 0 else n if i > n else i

    start, stop = bound(start, 0), bound(stop, n)
    step = 1 if step is None else step
    length = (stop - start + step - 1) // step if stop > start else 0
    return slice_(x, dim=dim, start=start if start < n else 0, length=length, step=step)


@op(spaces=(), inplace=True, samples=lambda make: [((make(4, 5), (1,), make(5)), {})])
def assign_subscript(input: Value, parts, value: Value):
    """A copy of ``input`` with ``input[parts] = value``."""
    count = sizes.product(input.shape)
    place = F.subscript(positions(shape=tuple(input.shape)), parts)
    rows = sizes.product(place.shape)
    src = _fitting(to(value, input.dtype), place.shape)
    flat = F.reshape(input, (count,))
    index = F.reshape(place, (rows, 1))
    y = index_put_(flat, index, F.reshape(src, (rows,)), accumulate=False)
    return F.reshape(y, input.shape)
