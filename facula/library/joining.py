"""Joining and splitting by other names, changes of rank, parts written back, small odds."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.library.shape import index_along
from facula.ops import results
from facula.ops.movement import slice_
from facula.ops.promote import expand_to, promoted, to, together, unbroadcast
from facula.ops.reduce import size_value
from facula.ops.registry import F, Tensors, op

# Ranks -------------------------------------------------------------------------------------------


def _at_least(x, n):
    """Dimensions of size 1 added up to the rank ``n``, as NumPy places them."""
    if x.ndim >= n:
        return x
    if n == 3:
        shape = {0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}[x.ndim]
    else:
        shape = (1,) * (n - x.ndim) + tuple(x.shape)
    return F.reshape(x, shape)


@op(view=True)
def ravel(input: Value):
    """All elements in one dimension; a view where possible."""
    return F.reshape(input, (sizes.product(input.shape),))


@op(view=True, spaces=("torch", "method"))
def broadcast_to(input: Value, size):
    """``input`` expanded to a shape."""
    return F.expand(input, tuple(size))


@op(spaces=("method",), samples=lambda make: [((make(3, 4), (3, 1)), {}), ((make(3, 4), (4,)), {})])
def sum_to_size(input: Value, *size):
    """Summed over the dimensions that a tensor of that size would be repeated along."""
    size = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    extra = input.ndim - len(size)
    fits = extra >= 0 and all(m == 1 or m == n for n, m in zip(input.shape[max(extra, 0) :], size))
    if not fits:
        fail(ShapeError, "sum_to_size", f"size {{{list(size)}}} is not expandable to size "
             f"{{{list(input.shape)}}}.")  # fmt: skip
    wide = input if input.dtype.is_floating_point else to(input, D.int64)
    same = len(size) == input.ndim and all(a == b for a, b in zip(input.shape, size))
    return input if same else F.reshape(unbroadcast(wide, size), size)


# Joining -----------------------------------------------------------------------------------------


def _pair(make):
    return [(([make(3, 4), make(3, 4)],), {}), (([make(3), make(3)],), {})]


@op(spaces=("torch",), out="apart", samples=_pair)
def hstack(tensors: Tensors):
    """Joined along the second dimension (vectors: the first)."""
    xs = [_at_least(x, 1) for x in tensors]
    return F.cat(xs, 0 if xs and xs[0].ndim == 1 else 1)


@op(spaces=("torch",), out="apart", aliases=("row_stack",), samples=_pair)
def vstack(tensors: Tensors):
    """Joined along the first dimension, vectors as rows."""
    return F.cat([_at_least(x, 2) for x in tensors], 0)


@op(spaces=("torch",), out="apart", samples=_pair)
def dstack(tensors: Tensors):
    """Joined along the third dimension."""
    return F.cat([_at_least(x, 3) for x in tensors], 2)


@op(spaces=("torch",), out="apart", samples=_pair)
def column_stack(tensors: Tensors):
    """Joined along the second dimension, vectors as columns."""
    return F.hstack(
        [F.reshape(x, (sizes.product(x.shape), 1)) if x.ndim < 2 else x for x in tensors]
    )


#: A split into more parts than this is a mistake, and would take all memory.
_MOST_PARTS = 1 << 20

# Splitting ---------------------------------------------------------------------------------------


@op(view=True, samples=lambda make: [((make(7, 4), 3), {}), ((make(7, 4), (1, 3), 1), {})])
def tensor_split(input: Value, indices_or_sections, dim=0):
    """Views along ``dim``: so many of nearly equal size, or cut at the indices."""
    if input.ndim == 0:
        fail(ShapeError, "tensor_split", "expected at least a 1-dimensional tensor, but got a "
             "tensor with 0 dims")  # fmt: skip
    dim = wrap_dim("tensor_split", dim, input.ndim)
    n = input.shape[dim]
    if isinstance(indices_or_sections, int):
        k = indices_or_sections
        if k <= 0:
            fail(ShapeError, "tensor_split", f"number of sections must be larger than 0, got {k}")
        if k > _MOST_PARTS:
            fail(
                ShapeError, "tensor_split", f"{k} sections are more than the {_MOST_PARTS} allowed"
            )
        size, longer = n // k, n % k
        at = [i * size + (i if i < longer else longer) for i in range(k + 1)]
    else:
        inside = [i if i >= 0 else i + n for i in indices_or_sections]
        at = [0, *(0 if i < 0 else n if i > n else i for i in inside), n]
    return tuple(
        slice_(input, dim=dim, start=a if a < n else n, length=b - a if b > a else 0, step=1)
        for a, b in zip(at, at[1:])
    )


def _split(name, input, parts, dim):
    if isinstance(parts, int) and parts > 0 and not input.shape[dim] % parts == 0:
        fail(ShapeError, name, f"attempted to split along dimension {dim}, but the size of the "
             f"dimension {input.shape[dim]} is not divisible by the split_size {parts}!"
             )  # fmt: skip
    return F.tensor_split(input, parts, dim)


@op(view=True, samples=lambda make: [((make(4, 6), 3), {})])
def hsplit(input: Value, indices_or_sections):
    """Split along the second dimension (vectors: the first)."""
    if input.ndim < 1:
        fail(ShapeError, "hsplit", "requires a tensor with at least 1 dimension, but got a tensor "
             "with 0 dimensions!")  # fmt: skip
    return _split("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1)


@op(view=True, samples=lambda make: [((make(4, 6), 2), {})])
def vsplit(input: Value, indices_or_sections):
    """Split along the first dimension."""
    if input.ndim < 2:
        fail(ShapeError, "vsplit", "requires a tensor with at least 2 dimension, but got a tensor "
             f"with {input.ndim} dimensions!")  # fmt: skip
    return _split("vsplit", input, indices_or_sections, 0)


@op(view=True, samples=lambda make: [((make(2, 3, 4), 2), {})])
def dsplit(input: Value, indices_or_sections):
    """Split along the third dimension."""
    if input.ndim < 3:
        fail(ShapeError, "dsplit", "requires a tensor with at least 3 dimension, but got a tensor "
             f"with {input.ndim} dimensions!")  # fmt: skip
    return _split("dsplit", input, indices_or_sections, 2)


# Turning -----------------------------------------------------------------------------------------


@op(samples=lambda make: [((make(3, 4),), {})])
def fliplr(input: Value):
    """Columns in reverse order."""
    if input.ndim < 2:
        fail(ShapeError, "fliplr", "Input must be >= 2-d.")
    return F.flip(input, 1)


@op(samples=lambda make: [((make(3, 4),), {})])
def flipud(input: Value):
    """Rows in reverse order."""
    if input.ndim < 1:
        fail(ShapeError, "flipud", "Input must be >= 1-d.")
    return F.flip(input, 0)


@op(samples=lambda make: [((make(3, 4),), {}), ((make(3, 4, 2), 3, (0, 2)), {})])
def rot90(input: Value, k=1, dims=(0, 1)):
    """Turned ``k`` times by 90 degrees in a plane, from the first towards the second dimension."""
    if len(dims) != 2:
        fail(ShapeError, "rot90", f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        fail(ShapeError, "rot90", f"expected total dims >= 2, but got total dims = {input.ndim}")
    a, b = (wrap_dim("rot90", d, input.ndim) for d in dims)
    if a == b:
        fail(ShapeError, "rot90", f"expected rotation dims to be different, but got {dims}")
    turns = k % 4
    if turns == 1:
        return F.clone(F.transpose(F.flip(input, b), a, b))
    if turns == 2:
        return F.flip(input, a, b)
    if turns == 3:
        return F.clone(F.transpose(F.flip(input, a), a, b))
    return F.clone(input)


# Parts written back ------------------------------------------------------------------------------


def _span_mask(x, dim, start, end, step):
    place = index_along(x, dim)
    first, last = size_value(start, D.int64), size_value(end, D.int64)
    inside = F.ge(place, first) & F.lt(place, last)
    return inside if step == 1 else inside & F.eq(F.remainder(place - first, step), 0)


@op(samples=lambda make: [((make(4, 5), make(4), 1, 2), {})])
def select_scatter(input: Value, src: Value, dim, index):
    """A copy of ``input`` with ``src`` at ``index`` along ``dim``."""
    dim = wrap_dim("select_scatter", dim, input.ndim)
    n = input.shape[dim]
    if not -n <= index < n:
        raise IndexError(f"select_scatter: index {index} is out of range for size {n}")
    index = index + n if index < 0 else index
    shape = input.shape[:dim] + input.shape[dim + 1 :]
    if len(shape) != src.ndim or not all(a == b for a, b in zip(shape, src.shape)):
        fail(ShapeError, "select_scatter", "expected src to have a size equal to the slice of "
             f"self. src size = {list(src.shape)}, slice size = {list(shape)}")  # fmt: skip
    mask = F.eq(index_along(input, dim), size_value(index, D.int64))
    return F.where(mask, to(F.unsqueeze(src, dim), input.dtype), input)


@op(out=True, samples=lambda make: [((make(6, 4), make(2, 4), 0, 1, 5, 2), {})])
def slice_scatter(input: Value, src: Value, dim=0, start=None, end=None, step=1):
    """A copy of ``input`` with ``src`` in the place of a slice along ``dim``."""
    dim = wrap_dim("slice_scatter", dim, input.ndim)
    n = input.shape[dim]

    def bound(i, default):
        i = default if i is None else i + n if i < 0 else i
        return 0 if i < 0 else n if i > n else i

    start, end = bound(start, 0), bound(end, n)
    length = (end - start + step - 1) // step if end > start else 0
    if not src.shape[dim] == length:
        fail(ShapeError, "slice_scatter", f"expected src to have size {length} at dimension {dim}, "
             f"got {src.shape[dim]}")  # fmt: skip
    if length == 0:
        return F.clone(input)
    place = F.maximum(F.floor_divide(index_along(input, dim) - size_value(start, D.int64), step), 0)
    place = F.minimum(place, F.size_of(src, dim) - 1)
    return F.where(_span_mask(input, dim, start, end, step), F.gather(src, dim, place), input)


@op(samples=lambda make: [((make(4, 4), make(4)), {}), ((make(4, 5), make(4), 1), {})])
def diagonal_scatter(input: Value, src: Value, offset=0, dim1=0, dim2=1):
    """A copy of ``input`` with ``src`` on a diagonal."""
    a = wrap_dim("diagonal_scatter", dim1, input.ndim)
    b = wrap_dim("diagonal_scatter", dim2, input.ndim)
    expected = F.diagonal(input, offset, a, b).shape
    if src.ndim != len(expected) or not all(m == n for m, n in zip(src.shape, expected)):
        fail(ShapeError, "diagonal_scatter", "expected src to have a size equal to the slice of "
             f"self. src size = {list(src.shape)}, slice size = {list(expected)}")  # fmt: skip
    row, column = index_along(input, a), index_along(input, b)
    mask = F.eq(column - row, offset)
    # The place on the diagonal is the row, or the column for diagonals below the main one.
    place = row if offset >= 0 else column
    last = F.unsqueeze(F.unsqueeze(src, -1), -1)
    rest = [d for d in range(input.ndim) if d not in (a, b)]
    lined = F.permute(place, (*rest, a, b))
    wide = expand_to(F.squeeze(last, -1), (*src.shape, input.shape[b]))
    at = F.minimum(F.maximum(lined, 0), F.size_of(src, src.ndim - 1) - 1)
    picked = F.gather(wide, -2, at)
    order = [0] * input.ndim
    for i, d in enumerate((*rest, a, b)):
        order[d] = i
    return F.where(mask, F.permute(picked, tuple(order)), input)


@op(out=True, samples=lambda make: [((make(3, 4), 1, 1, 2), {})])
def narrow_copy(input: Value, dim, start, length):
    """As ``narrow``, copied."""
    return F.clone(F.narrow(input, dim, start, length))


@op(samples=lambda make: [((make(2, 3),), {}), ((make(2, 3), 1), {})])
def diagflat(input: Value, offset=0):
    """All elements on the diagonal of a matrix."""
    return F.diag_embed(F.ravel(input), offset)


# Elementwise odds --------------------------------------------------------------------------------


def _integers(name, *xs):
    for x in xs:
        if x.dtype.is_floating_point or x.dtype is D.bool_:
            fail(DtypeError, name, f"expected integers, got {x.dtype.name}")


def _int_pair(make):
    return [
        ((make(5, dtype=D.int64, low=-20, high=20), make(5, dtype=D.int64, low=-20, high=20)), {})
    ]


@op(numbers=False, inplace=True, out=True, samples=_int_pair)
def gcd(input: Value, other: Value):
    """The greatest common divisor, at least 0: Euclid's algorithm, in as many steps as may be
    needed for 64 bits.
    """
    a, b = together(input, other, name="gcd")
    _integers("gcd", a, b)
    a, b = F.abs(a), F.abs(b)
    steps = {1: 12, 2: 24, 4: 46, 8: 92}[a.dtype.itemsize]
    for _ in range(steps):
        done = F.eq(b, 0)
        rest = F.remainder(a, F.where(done, to(1, b.dtype), b))
        a, b = F.where(done, a, b), F.where(done, b, rest)
    return a


@op(numbers=False, inplace=True, out=True, samples=_int_pair)
def lcm(input: Value, other: Value):
    """The least common multiple, at least 0."""
    a, b = together(input, other, name="lcm")
    _integers("lcm", a, b)
    divisor = F.gcd(a, b)
    safe = F.where(F.eq(divisor, 0), to(1, a.dtype), divisor)
    return F.abs(F.floor_divide(a, safe) * b)


@op(
    numbers=False,
    inplace=True,
    out=True,
    samples=lambda make: [((make(5), make(5, dtype=D.int64, low=-3, high=3)), {})],
)
def ldexp(input: Value, other: Value):
    """``input * 2**other``."""
    return F.mul(input, F.pow(2.0, other))


@op(numbers=False, out=True, samples=lambda make: [((make(5), make(5)), {})])
def logaddexp2(input: Value, other: Value):
    """``log2(2**input + 2**other)``, without overflow."""
    log2 = 0.6931471805599453
    return F.logaddexp(F.mul(input, log2), F.mul(other, log2)) / log2


@op()
def positive(input: Value):
    """The tensor itself; numbers only."""
    if input.dtype is D.bool_:
        fail(DtypeError, "positive", "The `+` operator, on a bool tensor is not supported.")
    return input


@op(out=True)
def isposinf(input: Value):
    """Where elements are positive infinity."""
    if not input.dtype.is_floating_point:
        return F.zeros_of(input.shape, D.bool_)
    return F.eq(input, float("inf"))


@op(out=True)
def isneginf(input: Value):
    """Where elements are negative infinity."""
    if not input.dtype.is_floating_point:
        return F.zeros_of(input.shape, D.bool_)
    return F.eq(input, float("-inf"))


@op()
def isreal(input: Value):
    """True everywhere: there are no complex numbers."""
    return F.eq(F.zeros_of(input.shape, D.uint8), 0)


@op(view=True, aliases=("conj", "resolve_conj", "resolve_neg"))
def real(input: Value):
    """The tensor itself: there are no complex numbers."""
    return input


@op(out=True)
def angle(input: Value):
    """0 for positive numbers, pi for negative ones."""
    x = input if input.dtype.is_floating_point else to(input, D.get_default_dtype())
    y = F.where(F.lt(x, 0), to(3.141592653589793, x.dtype), to(0.0, x.dtype))
    return F.where(F.isnan(x), x, y)


@op(
    spaces=("torch",),
    out=True,
    samples=lambda make: [((make(3, 4, dtype=D.int64), make(5, dtype=D.int64)), {})],
)
def isin(elements: Value, test_elements: Value, *, assume_unique=False, invert=False):
    """Where elements are among ``test_elements``."""
    a, b = promoted(elements, test_elements)
    found = F.any(F.eq(F.unsqueeze(a, -1), F.ravel(b)), -1)
    return F.logical_not(found) if invert else found


@op(out=True, samples=lambda make: [((make(6, low=0.1, high=50.0),), {})])
def frexp(input: Value):
    """Mantissas from [0.5, 1) and exponents: ``input = mantissa * 2**exponent``."""
    if not input.dtype.is_floating_point:
        fail(DtypeError, "frexp", "only supports floating-point dtypes")
    x = to(input, D.float64)
    size = F.abs(x)
    usual = F.ne(x, 0) & F.isfinite(x)
    safe = F.where(usual, size, 1.0)
    exponent = F.floor(F.log2(safe)) + 1
    # The logarithm may be off by one next to a power of two.
    mantissa = safe * F.pow(2.0, -exponent)
    exponent = F.where(
        F.ge(mantissa, 1.0), exponent + 1, F.where(F.lt(mantissa, 0.5), exponent - 1, exponent)
    )
    mantissa = F.where(usual, x * F.pow(2.0, -exponent), x)
    exponent = F.where(usual, exponent, 0.0)
    return results.frexp(to(mantissa, input.dtype), to(exponent, D.int32))


def _index_reduce_samples(make):
    index = make(2, dtype=D.int64, low=0, high=4)
    return [((make(4, 3), 0, index, make(2, 3), "amax"), {})]


@op(inplace=True, out="exact", samples=_index_reduce_samples)
def index_reduce(input: Value, dim, index: Value, source: Value, reduce, *, include_self=True):
    """A copy of ``input`` with slices of ``source`` combined into the places ``index`` of ``dim``.

    Args:
        reduce: "prod", "mean", "amax" or "amin".
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        fail(
            ArgumentError, "index_reduce", f"reduce must be prod, mean, amax or amin, got {reduce}"
        )
    dim = wrap_dim("index_reduce", dim, input.ndim)
    shape = tuple(n if d == dim else 1 for d, n in enumerate(source.shape))
    wide = expand_to(F.reshape(to(index, D.int64), shape), source.shape)
    return F.scatter_reduce(input, dim, wide, source, reduce, include_self=include_self)
