"""Functions whose arguments decide what they do, and those whose result's size is data."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, ShapeError, fail, wrap_dim
from facula.eager.grad_mode import no_grad
from facula.eager.meta import Size
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.ops import promote, results
from facula.tensor.creation import arange, linspace
from facula.tensor.functions import function_of
from facula.tensor.positions import into, nonzero


def _op(name):
    return function_of(OPS[name])


# Extrema and medians: of all, along a dimension, of two ------------------------------------------


def _extremum(word, of_two):
    def function(input, dim=None, keepdim=False, *, other=None, out=None):  # noqa: A002
        need_tensor(word, input)
        if isinstance(dim, Tensor):
            dim, other = None, dim
        if other is not None:
            return _op(of_two)(input, other) if out is None else _op(of_two)(input, other, out=out)
        if dim is None:
            if input.numel() == 0:
                fail(ShapeError, word, f"{word}(): Expected reduction dim to be specified "
                     "for input.numel() == 0. Specify the reduction dim with the 'dim' "
                     "argument.")  # fmt: skip
            return _op("a" + word)(input) if out is None else _op("a" + word)(input, out=out)
        along = _op(word + "_along")
        return along(input, dim, keepdim) if out is None else along(input, dim, keepdim, out=out)

    function.__name__ = function.__qualname__ = word
    function.__doc__ = (
        f"The {word}imum: ``{word}(x)`` of all elements, ``{word}(x, dim)`` along a dimension as "
        f"(values, indices), ``{word}(x, y)`` of two tensors elementwise."
    )
    return function


max, min = _extremum("max", "maximum"), _extremum("min", "minimum")  # noqa: A001


def _middle(word, what):
    def function(input, dim=None, keepdim=False, *, out=None):  # noqa: A002
        if dim is None:
            return _op(word + "_all")(input)
        along = _op(word + "_along")
        return along(input, dim, keepdim) if out is None else along(input, dim, keepdim, out=out)

    function.__name__ = function.__qualname__ = word
    function.__doc__ = f"The lower median of {what}, or along ``dim`` as (values, indices)."
    return function


median = _middle("median", "all elements")
nanmedian = _middle("nanmedian", "all elements that are no NaN")

# Squares are products: exact, and a twentieth of the time of a general power --------------------


def _is_square(x, exponent):
    kind = type(exponent)
    if exponent is not True and kind in (int, float) and exponent == 2 and isinstance(x, Tensor):
        return x.dtype.kind == "f" or kind is int and x.dtype.kind != "b"
    return False


def pow(input, exponent, *, out=None):  # noqa: A001, A002
    """``input ** exponent``, elementwise with broadcasting and promotion."""
    if _is_square(input, exponent):
        return _op("square")(input) if out is None else _op("square")(input, out=out)
    return _op("pow")(input, exponent) if out is None else _op("pow")(input, exponent, out=out)


_power = Tensor.__pow__


def _raised(self, exponent):
    return _op("square")(self) if _is_square(self, exponent) else _power(self, exponent)


Tensor.__pow__ = _raised

# Comparisons to one bool -------------------------------------------------------------------------


def equal(input, other) -> bool:  # noqa: A002
    """Whether two tensors have the same shape and elements."""
    need_tensor("equal", input, other)
    if input.shape != other.shape:
        return False
    with no_grad():
        return bool((input == other).all()) if input.numel() else True


def allclose(input, other, rtol=1e-05, atol=1e-08, equal_nan=False) -> bool:  # noqa: A002
    """Whether ``|input - other| <= atol + rtol * |other|`` everywhere."""
    need_tensor("allclose", input, other)
    with no_grad():
        return bool(_op("isclose")(input, other, rtol, atol, equal_nan).all())


# Sizes that are data -----------------------------------------------------------------------------


def _groups(first, inverse_of, n, return_inverse, return_counts):
    """What ``unique`` needs of a mask that is true where a new element begins."""
    starts = nonzero(first)[:, 0]
    inverse = counts = None
    if return_inverse:
        group = first.cumsum(0) - 1
        if inverse_of is None:
            inverse = group
        else:
            inverse = group.new_empty(n)
            inverse[inverse_of] = group
    if return_counts:
        ends = _op("cat")([starts[1:], starts.new_full((1,), n)]) if n else starts
        counts = ends - starts
    return starts, inverse, counts


def _packed(values, inverse, counts, return_inverse, return_counts):
    if not return_inverse and not return_counts:
        return values
    return (values, *([inverse] if return_inverse else []), *([counts] if return_counts else []))


def _begins(x):
    """Where an element (or row) differs from the one before it."""
    n = x.shape[0]
    if n == 0:
        return x.new_empty(0, dtype=D.bool_)
    differs = x[1:] != x[:-1]
    if x.ndim > 1:
        differs = differs.flatten(1).any(1)
    return _op("cat")([differs.new_ones(1, dtype=D.bool_), differs])


def unique(
    input,
    sorted=True,
    return_inverse=False,
    return_counts=False,
    dim=None,  # noqa: A002
):
    """The different elements (or slices along ``dim``), sorted.

    Args:
        sorted: accepted for PyTorch's sake; the result always is.
        return_inverse: also where each element of ``input`` is in the result.
        return_counts: also how often each occurs.
    """
    need_tensor("unique", input)
    with no_grad():
        if dim is None:
            x, order = input.reshape(-1).sort(stable=True)
        else:
            x = input.movedim(dim, 0)
            x, order = _sorted_rows(x)
        n = x.shape[0]
        starts, inverse, counts = _groups(_begins(x), order, n, return_inverse, return_counts)
        values = x[starts]
        if dim is not None:
            values = values.movedim(0, dim)
        elif return_inverse:
            inverse = inverse.reshape(input.shape)
    return _packed(values, inverse, counts, return_inverse, return_counts)


def _sorted_rows(x):
    """Rows in lexicographic order, and where they were: stable sorts, last column first."""
    n = x.shape[0]
    rows, order = x.flatten(1) if x.ndim > 1 else x.unsqueeze(1), arange(n)
    for k in range(rows.shape[1] - 1, -1, -1):
        order = order[rows[order, k].argsort(0, False, True)]
    return x[order], order


def unique_consecutive(input, return_inverse=False, return_counts=False, dim=None):  # noqa: A002
    """The elements (or slices along ``dim``) that differ from the one before."""
    need_tensor("unique_consecutive", input)
    with no_grad():
        x = input.reshape(-1) if dim is None else input.movedim(dim, 0)
        n = x.shape[0]
        starts, inverse, counts = _groups(_begins(x), None, n, return_inverse, return_counts)
        values = x[starts]
        if dim is not None:
            values = values.movedim(0, dim)
        elif return_inverse:
            inverse = inverse.reshape(input.shape)
    return _packed(values, inverse, counts, return_inverse, return_counts)


def bincount(input, weights=None, minlength=0):  # noqa: A002
    """How often each of 0, 1, ... occurs (or the sums of the weights where it does)."""
    need_tensor("bincount", input)
    if input.ndim != 1 or input.dtype.kind not in "iu":
        fail(ShapeError, "bincount", "bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        fail(ShapeError, "bincount", "minlength should be >= 0")
    n = 0
    if input.numel():
        least, most = (x.item() for x in input.aminmax())
        if least < 0:
            fail(ShapeError, "bincount", "bincount only supports 1-d non-negative integral inputs.")
        n = most + 1
    n = n if n > minlength else minlength
    if weights is None:
        counts = input.new_zeros(n, dtype=D.int64)
        ones = counts.new_ones(1).expand(input.shape)
    else:
        need_tensor("bincount", weights)
        if weights.shape != input.shape:
            fail(ShapeError, "bincount", "weights should be 1-d and have the same length as input")
        dtype = D.float32 if weights.dtype is D.float32 else D.float64
        ones = weights.detach().to(dtype)
        counts = ones.new_zeros(n)
    return counts.index_add_(0, input.long(), ones) if input.numel() else counts


def histogram(input, bins, *, range=None, weight=None, density=False, out=None):  # noqa: A002
    """How many elements fall between bounds: (hist, bin_edges).

    Args:
        bins: their number, or a vector of increasing bounds; the last bin has both of its own.
        range: the first and the last bound; the extremes by default.
        weight: what each element counts.
        density: divide by the total and the widths.
    """
    need_tensor("histogram", input)
    with no_grad():
        x = input.detach().reshape(-1)
        edges = bins if isinstance(bins, Tensor) else _edges(x, bins, range)
        inside = (x >= edges[0]) & (x <= edges[-1])
        place = _op("searchsorted")(edges, x, right=True) - 1
        place = place.clamp(0, edges.numel() - 2)
        amount = inside.to(x.dtype) if weight is None else weight.reshape(-1) * inside.to(x.dtype)
        hist = x.new_zeros(edges.numel() - 1).index_add_(0, place, amount)
        if density:
            hist = hist / hist.sum() / (edges[1:] - edges[:-1])
    if out is not None:
        for target, y in zip(out, (hist, edges)):
            into("histogram", target, y)
        hist, edges = out
    return results.histogram(hist, edges)


def _edges(x, bins, limits):
    if bins <= 0:
        fail(ShapeError, "histogram", f"bins must be > 0, but got {bins}")
    if limits is not None:
        low, high = limits
    else:
        low, high = (x.min().item(), x.max().item()) if x.numel() else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return linspace(low, high, bins + 1, dtype=x.dtype)


def repeat_interleave(input, repeats=None, dim=None, *, output_size=None):  # noqa: A002
    """Each element (or slice along ``dim``) so many times in a row.

    Args:
        repeats: a number, or a vector with one for each element; alone, as ``input``, it gives
            the positions that are to be taken.
    """
    need_tensor("repeat_interleave", input)
    if repeats is None:
        return _repeated(input)
    if isinstance(repeats, Tensor) and repeats.numel() == 1:
        repeats = repeats.item()
    if not isinstance(repeats, Tensor):
        if repeats < 0:
            fail(ShapeError, "repeat_interleave", "repeats can not be negative")
        return _op("repeat_interleave")(input, repeats, dim)
    x, along = (input.reshape(-1), 0) if dim is None else (input, dim)
    if repeats.ndim != 1 or repeats.shape[0] != x.shape[along]:
        fail(ShapeError, "repeat_interleave", "repeats must have the same size as input along dim, "
             f"but got repeats.size(0) = {repeats.numel()} and input.size({along}) = "
             f"{x.shape[along]}")  # fmt: skip
    return x.index_select(along, _repeated(repeats))


def _repeated(repeats):
    if repeats.numel() and repeats.min().item() < 0:
        fail(ShapeError, "repeat_interleave", "repeats can not be negative")
    ends = repeats.cumsum(0)
    total = int(ends[-1].item()) if repeats.numel() else 0
    if not total:
        return repeats.new_empty(0, dtype=D.int64)
    return _op("searchsorted")(ends, arange(total), right=True)


def unravel_index(indices, shape) -> tuple:
    """The subscripts, one tensor a dimension, of positions in an array of that shape."""
    need_tensor("unravel_index", indices)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if indices.dtype.kind not in "iu":
        fail(ArgumentTypeError, "unravel_index", "expected 'indices' to be an integer tensor")
    if any(n < 0 for n in shape):
        fail(ShapeError, "unravel_index", "expected all elements of shape to be non-negative")
    columns, rest = [], indices
    for n in reversed(shape):
        columns.append(rest % n)
        rest = rest // n
    return tuple(reversed(columns))


# Shapes ------------------------------------------------------------------------------------------


def broadcast_shapes(*shapes) -> Size:
    """The shape that all shapes broadcast to.

    >>> broadcast_shapes((3, 1), (4,))
    facula.Size([3, 4])
    """
    tuples = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    for s in tuples:
        if any(n < 0 for n in s):
            fail(
                ShapeError,
                "broadcast_shapes",
                f"Trying to create tensor with negative dimension: {s}",
            )
    return Size(promote.broadcast_shapes(*tuples, name="broadcast_shapes"))


def _each(change):
    def function(*tensors):
        if len(tensors) == 1 and isinstance(tensors[0], Tensor):
            return change(tensors[0])
        several = tensors[0] if len(tensors) == 1 else tensors
        return tuple(change(x) for x in several)

    return function


def _with_rank(n):
    def change(x):
        if x.ndim >= n:
            return x
        ones = (1,) * (n - x.ndim)
        if n == 3:
            return x.reshape({0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}[x.ndim])
        return x.reshape(*ones, *x.shape)

    function = _each(change)
    function.__name__ = function.__qualname__ = f"atleast_{n}d"
    function.__doc__ = f"Dimensions of size 1 added up to a rank of {n}, as NumPy places them."
    return function


atleast_1d, atleast_2d, atleast_3d = _with_rank(1), _with_rank(2), _with_rank(3)


def broadcast_tensors(*tensors) -> tuple:
    """All tensors expanded to their common shape: views."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tensors[0]
    need_tensor("broadcast_tensors", *tensors)
    shape = promote.broadcast_shapes(*(x.shape for x in tensors), name="broadcast_tensors")
    return tuple(x.expand(shape) for x in tensors)


def tensor_split(input, indices_or_sections=None, dim=0, *, indices=None, sections=None):  # noqa: A002
    """Views along ``dim``: so many of nearly equal size, or cut at the indices."""
    cuts = next((c for c in (indices_or_sections, indices, sections) if c is not None), None)
    if cuts is None:
        fail(ArgumentTypeError, "tensor_split", "expected indices or sections")
    if isinstance(cuts, Tensor):
        if cuts.dtype is not D.int64 or cuts.ndim > 1:
            fail(ShapeError, "tensor_split", "expected tensor_indices_or_sections to be a "
                 "zero- or one-dimensional tensor of int64, got "
                 f"{cuts.dtype} of {cuts.ndim} dimensions")  # fmt: skip
        cuts = cuts.tolist()
    return _op("tensor_split")(input, cuts, dim)


def einsum(equation, *operands):
    """Sums of products: ``einsum("ij,jk->ik", a, b)``, ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""
    if not isinstance(equation, str):
        equation, operands = _equation((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    return _op("einsum")(equation, *operands)


def _equation(parts):
    """The equation of operands that are each followed by their subscripts as numbers."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def written(labels):
        return "".join("..." if c is Ellipsis else letters[c] for c in labels)

    operands, terms = list(parts[0::2]), [written(labels) for labels in parts[1::2]]
    if len(operands) > len(terms):
        return ",".join(terms) + "->" + written(operands.pop()), tuple(operands)
    return ",".join(terms), tuple(operands)


def split_with_sizes(input, split_sizes, dim=0):  # noqa: A002
    """Views of the given sizes along ``dim``."""
    return _op("split")(input, list(split_sizes), dim)


def unsafe_split(input, split_size, dim=0):  # noqa: A002
    """As ``split``."""
    return _op("split")(input, split_size, dim)


def unsafe_chunk(input, chunks, dim=0):  # noqa: A002
    """As ``chunk``."""
    return _op("chunk")(input, chunks, dim)


def gradient(input, *, spacing=1, dim=None, edge_order=1):  # noqa: A002
    """Central differences along each dimension: one tensor a dimension.

    Args:
        spacing: the distance of neighbours, or one a dimension.
        edge_order: 1 or 2, the accuracy at the ends.
    """
    need_tensor("gradient", input)
    dims = list(range(input.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    dims = [wrap_dim("gradient", d, input.ndim) for d in dims]
    for d in dims:
        if dims.count(d) > 1:
            fail(ShapeError, "gradient", f"dim {d} appears multiple times in the list of dims")
    steps = list(spacing) if isinstance(spacing, (list, tuple)) else [spacing] * len(dims)
    steps = [1 if s is None else s for s in steps]
    if len(steps) != len(dims):
        fail(ArgumentTypeError, "gradient", "expected one number of spacing for each dimension")
    found = []
    for d, h in zip(dims, steps):
        x = input.movedim(d, 0)
        if x.shape[0] < edge_order + 1:
            fail(ShapeError, "gradient", "each dimension size to be at least edge_order+1")
        if isinstance(h, Tensor) and h.ndim:
            found.append(_uneven(x, h, edge_order).movedim(0, d))
            continue
        inner = (x[2:] - x[:-2]) / (2 * h)
        if edge_order == 1:
            first, last = (x[1] - x[0]) / h, (x[-1] - x[-2]) / h
        else:
            first = (-3 * x[0] + 4 * x[1] - x[2]) / (2 * h)
            last = (3 * x[-1] - 4 * x[-2] + x[-3]) / (2 * h)
        y = _op("cat")([first.unsqueeze(0), inner, last.unsqueeze(0)])
        found.append(y.movedim(0, d))
    return found


def cov(input, *, correction=1, fweights=None, aweights=None):  # noqa: A002
    """The covariance matrix of variables (rows) over observations (columns).

    Args:
        correction: subtracted from the number of observations.
        fweights: how often each observation counts, int >= 0.
        aweights: how much each observation counts, >= 0.
    """
    for name, weights in (("fweights", fweights), ("aweights", aweights)):
        if isinstance(weights, Tensor) and weights.numel() and weights.detach().min().item() < 0:
            fail(ShapeError, "cov", f"{name} cannot be negative")
    return _op("cov")(input, correction=correction, fweights=fweights, aweights=aweights)


def _between(x, t):
    """Differences of neighbours (the first dimension) over those of coordinates ``t``."""
    h = (t[1:] - t[:-1]).reshape(-1, *(1 for _ in x.shape[1:]))
    slopes = (x[1:] - x[:-1]) / h
    a, b = h[:-1], h[1:]
    inner = (slopes[:-1] * b + slopes[1:] * a) / (a + b)
    return slopes, inner, h


def _uneven(x, t, edge_order):
    """The gradient along the first dimension at coordinates ``t``."""
    slopes, inner, h = _between(x, t)
    first, last = slopes[0], slopes[-1]
    if edge_order == 2:
        first = slopes[0] + (slopes[0] - slopes[1]) * h[0] / (h[0] + h[1])
        last = slopes[-1] + (slopes[-1] - slopes[-2]) * h[-1] / (h[-1] + h[-2])
    return _op("cat")([first.unsqueeze(0), inner, last.unsqueeze(0)])


def resize_as_(self, the_template, *, memory_format=None):
    """As ``resize_`` to the shape of another tensor."""
    return self.resize_(the_template.shape)


for _function in (
    max, min, median, nanmedian, equal, allclose, unique, unique_consecutive, bincount, histogram,
    repeat_interleave, split_with_sizes, unsafe_split, unsafe_chunk, resize_as_,
    tensor_split, pow, cov,
):  # fmt: skip
    setattr(Tensor, _function.__name__, _function)

__all__ = [
    "allclose", "atleast_1d", "atleast_2d", "atleast_3d", "bincount", "broadcast_shapes",
    "broadcast_tensors", "cov", "einsum", "equal", "gradient", "histogram", "max", "median",
    "min", "nanmedian", "pow",
    "repeat_interleave", "resize_as_", "split_with_sizes", "tensor_split",
    "unique",
    "unique_consecutive", "unravel_index", "unsafe_chunk", "unsafe_split",
]  # fmt: skip
