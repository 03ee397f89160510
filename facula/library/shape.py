"""Ops that rearrange: joining, splitting, repeating, padding, triangles and diagonals."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import (
    ArgumentError,
    DimensionError,
    ShapeError,
    fail,
    wrap_dim,
)
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.movement import cat_, constant_pad, slice_, whole, windows_
from facula.ops.promote import expand_to, promoted, to
from facula.ops.random import positions
from facula.ops.reduce import size_value
from facula.ops.registry import F, Tensors, op


@op(
    out="apart",
    spaces=("torch",),
    aliases=("concat", "concatenate"),
    samples=lambda make: [(((make(3, 4), make(2, 4)),), {}), (((make(3, 4), make(3, 1)), 1), {})],
)
def cat(tensors: Tensors, dim=0):
    """The tensors joined along an existing dimension; other sizes must agree."""
    if len(tensors) == 0:
        fail(ShapeError, "cat", "expected a non-empty list of Tensors")
    real = [x for x in tensors if not (x.ndim == 1 and x.shape[0] == 0)] or list(tensors[:1])
    for i, x in enumerate(real):
        if x.ndim == 0:
            fail(
                ShapeError,
                "cat",
                f"zero-dimensional tensor (at position {i}) cannot be concatenated",
            )
    dim = wrap_dim("cat", dim, real[0].ndim)
    for i, x in enumerate(real):
        same = x.ndim == real[0].ndim and all(
            d == dim or a == b for d, (a, b) in enumerate(zip(x.shape, real[0].shape))
        )
        if not same:
            fail(
                ShapeError,
                "cat",
                f"Sizes of tensors must match except in dimension {dim}. "
                f"Expected {tuple(real[0].shape)} but got {tuple(x.shape)} for tensor number {i} "
                "in the list.",
            )
    xs = promoted(*tensors)
    xs = [x for x in xs if not (x.ndim == 1 and x.shape[0] == 0)] or xs[:1]
    return cat_(*xs, dim=dim) if len(xs) > 1 else F.clone(xs[0])


@op(out="apart", spaces=("torch",), samples=lambda make: [(((make(3, 4), make(3, 4)), 1), {})])
def stack(tensors: Tensors, dim=0):
    """The tensors, all of one shape, joined along a new dimension."""
    if len(tensors) == 0:
        fail(ShapeError, "stack", "expects a non-empty TensorList")
    for i, x in enumerate(tensors):
        if x.ndim != tensors[0].ndim or not tuple(x.shape) == tuple(tensors[0].shape):
            fail(
                ShapeError,
                "stack",
                f"stack expects each tensor to be equal size, but got "
                f"{list(tensors[0].shape)} at entry 0 and {list(x.shape)} at entry {i}",
            )
    dim = wrap_dim("stack", dim, tensors[0].ndim + 1)
    return F.cat([F.unsqueeze(x, dim) for x in tensors], dim)


@op(view=True)
def flatten(input: Value, start_dim=0, end_dim=-1):
    """Dimensions ``start_dim`` to ``end_dim`` as one; a view where possible."""
    if input.ndim == 0:
        return F.reshape(input, (1,))
    a, b = wrap_dim("flatten", start_dim, input.ndim), wrap_dim("flatten", end_dim, input.ndim)
    if a > b:
        fail(
            ShapeError, "flatten", "flatten() has invalid args: start_dim cannot come after end_dim"
        )
    if a == b:
        return input
    middle = sizes.product(input.shape[a : b + 1])
    return F.reshape(input, (*input.shape[:a], middle, *input.shape[b + 1 :]))


@op(view=True, samples=lambda make: [((make(2, 6), 1, (2, -1)), {})])
def unflatten(input: Value, dim, sizes):  # noqa: A002
    """One dimension as several; one of ``sizes`` may be -1."""
    dim = wrap_dim("unflatten", dim, input.ndim)
    known, unknown = 1, None
    result = list(sizes)
    for i, n in enumerate(result):
        if isinstance(n, int) and n == -1:
            unknown = i
        else:
            known = known * n
    if unknown is not None:
        if known == 0 or not input.shape[dim] % known == 0:
            fail(
                ShapeError,
                "unflatten",
                f"Provided sizes {result} don't multiply up to the size "
                f"of dim {dim} ({input.shape[dim]}) in the input tensor",
            )
        result[unknown] = input.shape[dim] // known
    elif not known == input.shape[dim]:
        fail(
            ShapeError,
            "unflatten",
            f"Provided sizes {result} don't multiply up to the size of "
            f"dim {dim} ({input.shape[dim]}) in the input tensor",
        )
    return F.reshape(input, (*input.shape[:dim], *result, *input.shape[dim + 1 :]))


@op(view=True, spaces=("method",), samples=lambda make: [((make(3, 4), 2, 6), {})])
def view(input: Value, *size):
    """The same memory in another shape (see ``reshape``; this one never copies)."""
    return F.reshape(input, *size)


@op(view=True, spaces=("method",), samples=lambda make: [((make(1, 4), make(3, 4)), {})])
def expand_as(input: Value, other: Value):
    """``input.expand(other.size())``."""
    return F.expand(input, tuple(other.shape))


@op(view=True, spaces=("method",), samples=lambda make: [((make(3, 4), make(2, 6)), {})])
def view_as(input: Value, other: Value):
    """``input.view(other.size())``."""
    return F.reshape(input, tuple(other.shape))


@op(view=True, spaces=("method",), samples=lambda make: [((make(3, 4), make(2, 6)), {})])
def reshape_as(input: Value, other: Value):
    """``input.reshape(other.shape)``."""
    return F.reshape(input, tuple(other.shape))


@op(view=True, samples=lambda make: [((make(3, 4),), {}), ((make(3),), {})])
def t(input: Value):
    """The transpose of a matrix; tensors of fewer dimensions as they are."""
    if input.ndim > 2:
        fail(
            ShapeError, "t", f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D"
        )
    return F.transpose(input, 0, 1) if input.ndim == 2 else input


@op(view=True, aliases=("moveaxis",), samples=lambda make: [((make(2, 3, 4), 0, 2), {})])
def movedim(input: Value, source, destination):
    """Dimensions moved to other places, the others keeping their order."""
    source = source if isinstance(source, (tuple, list)) else (source,)
    destination = destination if isinstance(destination, (tuple, list)) else (destination,)
    if len(source) != len(destination):
        fail(ShapeError, "movedim", "source and destination must have the same number of dims")
    a = [wrap_dim("movedim", d, input.ndim) for d in source]
    b = [wrap_dim("movedim", d, input.ndim) for d in destination]
    if len(set(a)) != len(a) or len(set(b)) != len(b):
        fail(ShapeError, "movedim", "repeated dim")
    order = [None] * input.ndim
    for s, d in zip(a, b):
        order[d] = s
    rest = iter(d for d in range(input.ndim) if d not in a)
    return F.permute(input, tuple(next(rest) if d is None else d for d in order))


@op(view=True, samples=lambda make: [((make(7, 2), 3), {}), ((make(2, 5), [1, 4], 1), {})])
def split(tensor: Value, split_size_or_sections, dim=0):
    """Views of ``split_size`` along ``dim`` (the last may be smaller), or of given sizes."""
    dim = wrap_dim("split", dim, tensor.ndim)
    if tensor.ndim == 0:
        fail(ShapeError, "split", "split expects at least a 1-dimensional tensor")
    n = tensor.shape[dim]
    if isinstance(split_size_or_sections, (tuple, list)):
        lengths = list(split_size_or_sections)
        total = sum(lengths[1:], start=lengths[0]) if lengths else 0
        if not total == n:
            fail(
                ShapeError,
                "split",
                f"split_with_sizes expects split_sizes to sum exactly to {n} "
                f"(input tensor's size at dimension {dim}), but got split_sizes={lengths}",
            )
    else:
        size = split_size_or_sections
        if size < 0 or size == 0 and n != 0:
            fail(ShapeError, "split", f"split_size must be positive, got {size}")
        count = 1 if n == 0 else int((n + size - 1) // size)
        lengths = [size] * (count - 1) + [n - size * (count - 1)]
    start, parts = 0, []
    for length in lengths:
        parts.append(slice_(tensor, dim=dim, start=start, length=length, step=1))
        start = start + length
    return tuple(parts)


@op(view=True, samples=lambda make: [((make(7, 2), 3), {})])
def chunk(input: Value, chunks, dim=0):
    """At most ``chunks`` views of equal size along ``dim``."""
    if chunks <= 0:
        fail(ShapeError, "chunk", f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    dim = wrap_dim("chunk", dim, input.ndim)
    n = input.shape[dim]
    size = (n + chunks - 1) // chunks
    return F.split(input, size, dim) if not size == 0 else F.split(input, [0] * chunks, dim)


@op(view=True, samples=lambda make: [((make(3, 4), 1), {})])
def unbind(input: Value, dim=0):
    """The slices along ``dim``, which is removed."""
    dim = wrap_dim("unbind", dim, input.ndim)
    if input.ndim == 0:
        fail(ShapeError, "unbind", "Dimension specified as 0 but tensor has no dimensions")
    return tuple(F.select(input, dim, i) for i in range(int(input.shape[dim])))


@op(spaces=("method",), samples=lambda make: [((make(3, 4), 2, 1), {}), ((make(3), 2, 2), {})])
def repeat(input: Value, *repeats):
    """``input`` tiled: ``repeats`` times along each (possibly leading new) dimension."""
    repeats = whole("repeat", repeats)
    if len(repeats) < input.ndim:
        fail(
            ShapeError,
            "repeat",
            "Number of dimensions of repeat dims can not be smaller than "
            "number of dimensions of tensor",
        )
    if any(r < 0 for r in repeats):
        fail(ShapeError, "repeat", f"Trying to create tensor with negative dimension: {repeats}")
    shape = (1,) * (len(repeats) - input.ndim) + tuple(input.shape)
    x = F.reshape(input, tuple(n for m in shape for n in (1, m)))
    x = expand_to(x, tuple(n for r, m in zip(repeats, shape) for n in (r, m)))
    return F.clone(F.reshape(x, tuple(r * m for r, m in zip(repeats, shape))))


@op(samples=lambda make: [((make(3, 4), (2, 1)), {}), ((make(3, 4), 2), {})])
def tile(input: Value, *dims):
    """``input.repeat``, missing leading repeats being 1."""
    dims = whole("tile", dims)
    dims = (1,) * (input.ndim - len(dims)) + tuple(dims)
    return F.repeat(input, *dims)


@op(spaces=("torch", "method"), samples=lambda make: [((make(3, 4), 2, 1), {})])
def repeat_interleave(input: Value, repeats, dim=None, *, output_size=None):
    """Each element (or slice along ``dim``) ``repeats`` times in a row; ``repeats`` an int."""
    if not isinstance(repeats, int):
        fail(ArgumentError, "repeat_interleave", "repeats must be an int here")
    if dim is None:
        input, dim = F.flatten(input), 0
    dim = wrap_dim("repeat_interleave", dim, input.ndim)
    x = F.unsqueeze(input, dim + 1)
    x = expand_to(x, (*x.shape[: dim + 1], repeats, *x.shape[dim + 2 :]))
    return F.clone(F.flatten(x, dim, dim + 1))


@op(
    samples=lambda make: [
        ((make(3, 4), 1, 0), {}),
        ((make(3, 4), (1, 2), (0, 1)), {}),
        ((make(3, 4), 5), {}),
    ]
)
def roll(input: Value, shifts, dims=()):
    """Elements moved along ``dims``, those pushed out coming in again at the other end."""
    shifts = shifts if isinstance(shifts, (tuple, list)) else (shifts,)
    dims = dims if isinstance(dims, (tuple, list)) else (dims,)
    if not dims:
        return F.reshape(F.roll(F.flatten(input), shifts, 0), input.shape)
    if len(shifts) != len(dims):
        fail(
            ShapeError,
            "roll",
            f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}",
        )
    for shift, d in zip(shifts, dims):
        d = wrap_dim("roll", d, input.ndim)
        n = input.shape[d]
        if n == 0:
            continue
        at = (n - shift % n) % n
        input = F.cat([F.narrow(input, d, at, n - at), F.narrow(input, d, 0, at)], d)
    return input


def index_along(x: Value, dim) -> Value:
    """The int64 position along ``dim``, for every element of ``x``."""
    ones = tuple(n if d == dim else 1 for d, n in enumerate(x.shape))
    return expand_to(F.reshape(positions(shape=(x.shape[dim],)), ones), x.shape)


def _triangle(name, input, keep):
    if input.ndim < 2:
        fail(ShapeError, name, "input tensor must have at least 2 dimensions")
    row, column = index_along(input, input.ndim - 2), index_along(input, input.ndim - 1)
    return F.where(keep(row, column), input, to(0, input.dtype))


@op(inplace=True, out="exact", samples=lambda make: [((make(4, 5),), {}), ((make(4, 5), 1), {})])
def tril(input: Value, diagonal=0):
    """The lower triangle of matrices, zero elsewhere."""
    return _triangle("tril", input, lambda r, c: F.le(c - r, diagonal))


@op(inplace=True, out="exact", samples=lambda make: [((make(4, 5),), {}), ((make(4, 5), -1), {})])
def triu(input: Value, diagonal=0):
    """The upper triangle of matrices, zero elsewhere."""
    return _triangle("triu", input, lambda r, c: F.ge(c - r, diagonal))


def _pad_pairs(name, input, pad):
    if len(pad) % 2 or len(pad) // 2 > input.ndim:
        fail(
            ShapeError,
            name,
            f"padding length {len(pad)} must be even and at most twice the "
            f"number of dimensions ({input.ndim})",
        )
    pairs = [(0, 0)] * input.ndim
    for i in range(len(pad) // 2):
        pairs[input.ndim - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    return pairs


@op(
    spaces=("nn.functional",),
    samples=lambda make: [
        ((make(2, 3, 5), (1, 2)), {}),
        ((make(2, 3, 5), (1, 2, -1, 1), "constant", 2.5), {}),
        ((make(2, 3, 5), (1, 2), "reflect"), {}),
        ((make(2, 3, 5), (1, 2), "replicate"), {}),
        ((make(2, 3, 5), (1, 2), "circular"), {}),
    ],
)
def pad(input: Value, pad, mode="constant", value=None):  # noqa: A002
    """Padding of the last dimensions, given as (before, after) pairs from the last one on.

    Modes: "constant" (by ``value``, default 0; negative padding crops), "reflect", "replicate",
    "circular".
    """
    pairs = _pad_pairs("pad", input, pad)
    if mode == "constant":
        x = constant_pad(input, pairs, 0 if value is None else value)
        return F.clone(x) if x is input else x
    if mode not in ("reflect", "replicate", "circular"):
        fail(ArgumentError, "pad", f"unknown mode {mode!r}")
    for d, (before, after) in enumerate(pairs):
        if mode == "circular" and min(before, after) < 0:
            # What is cropped does not come back on the other side.
            first, n = max(-before, 0), input.shape[d]
            input = F.narrow(input, d, first, n - first - max(-after, 0))
            before, after = max(before, 0), max(after, 0)
        if (before, after) != (0, 0):
            input = _wrapped_pad(input, d, before, after, mode)
    return input


def _wrapped_pad(x, d, before, after, mode):
    n = x.shape[d]
    if mode == "reflect" and not (before < n and after < n):
        fail(
            ShapeError,
            "pad",
            f"Padding size should be less than the corresponding input "
            f"dimension, but got: padding ({before}, {after}) at dimension {d} of input "
            f"{list(x.shape)}",
        )
    if mode == "circular" and (before > n or after > n):
        fail(ShapeError, "pad", "Padding value causes wrapping around more than once.")
    if n == 0:
        fail(ShapeError, "pad", f"dimension {d} of size 0 cannot be padded by {mode}")
    i = positions(shape=(n + before + after,)) - before
    last = F.size_of(x, d) - 1
    if mode == "replicate":
        i = F.minimum(F.maximum(i, 0), last)
    elif mode == "circular":
        i = F.remainder(i, last + 1)
    else:
        i = last - F.abs(last - F.abs(i))
    return F.index_select(x, d, i)


@op(spaces=())
def size_of(input: Value, dim):
    """A size as an int64 value."""
    return size_value(input.shape[dim], D.int64)


@op(view=True, spaces=("method",), samples=lambda make: [((make(7), 0, 3, 2), {})])
def unfold(input: Value, dimension, size, step):
    """All windows of ``size`` along a dimension, ``step`` apart, as a new last dimension."""
    d = wrap_dim("unfold", dimension, input.ndim)
    if input.ndim == 0:
        # One element has one window of at most one, which is not a dimension more.
        return F.select(F.unfold(F.reshape(input, (1,)), 0, size, step), 0, 0)
    if size > input.shape[d] or size < 0:
        fail(
            ShapeError,
            "unfold",
            f"maximum size for tensor at dimension {d} is {input.shape[d]} but size is {size}",
        )
    if step <= 0:
        fail(ShapeError, "unfold", f"step is {step} but must be > 0")
    return F.movedim(windows_(input, dim=d, size=size, step=step, dilation=1), d + 1, -1)


@op(view=True, samples=lambda make: [((make(4, 5),), {}), ((make(3, 4, 5), 1, 0, 2), {})])
def diagonal(input: Value, offset=0, dim1=0, dim2=1):
    """The diagonal of two dimensions, as a new last dimension."""
    a, b = wrap_dim("diagonal", dim1, input.ndim), wrap_dim("diagonal", dim2, input.ndim)
    if a == b:
        fail(DimensionError, "diagonal", "dimensions cannot be identical")
    rest = tuple(d for d in range(input.ndim) if d not in (a, b))
    x = F.permute(input, (*rest, a, b))
    n, m = x.shape[-2], x.shape[-1]
    rows, columns = (n, m - offset) if offset >= 0 else (n + offset, m)
    length = rows if rows < columns else columns
    length = length if length > 0 else 0
    start = offset if offset >= 0 else -offset * m
    flat = F.reshape(x, (*x.shape[:-2], n * m))
    if length == 0:
        return slice_(flat, dim=x.ndim - 2, start=0, length=0, step=1)
    return slice_(flat, dim=x.ndim - 2, start=start, length=length, step=m + 1)


@op(out="exact", samples=lambda make: [((make(4),), {}), ((make(4, 5), 1), {})])
def diag(input: Value, diagonal=0):
    """A vector as a diagonal matrix, or the diagonal of a matrix."""
    if input.ndim == 1:
        return F.diag_embed(input, diagonal)
    if input.ndim != 2:
        fail(ShapeError, "diag", f"expected a 1-D or 2-D tensor, got {input.ndim}-D")
    return F.clone(F.diagonal(input, diagonal))


@op(samples=lambda make: [((make(3, 4),), {}), ((make(3, 4), 1), {})])
def diag_embed(input: Value, offset=0, dim1=-2, dim2=-1):
    """Last dimension as the diagonal of new matrices in dimensions ``dim1``, ``dim2``."""
    n = input.shape[-1] + abs(offset)
    a, b = (
        wrap_dim("diag_embed", dim1, input.ndim + 1),
        wrap_dim("diag_embed", dim2, input.ndim + 1),
    )
    before, after = (0, abs(offset)) if offset >= 0 else (abs(offset), 0)
    rows = constant_pad(input, [(0, 0)] * (input.ndim - 1) + [(before, after)])
    x = expand_to(F.unsqueeze(rows, -1), (*input.shape[:-1], n, n))
    row, column = index_along(x, x.ndim - 2), index_along(x, x.ndim - 1)
    y = F.where(F.eq(column - row, offset), x, to(0, x.dtype))
    return F.movedim(y, (-2, -1), (a, b))


@op(samples=lambda make: [((make(4, 4),), {})])
def trace(input: Value):
    """The sum of a matrix's diagonal."""
    if input.ndim != 2:
        fail(ShapeError, "trace", f"expected a matrix, but got tensor with dim {input.ndim}")
    return F.sum(F.diagonal(input))


@op(
    spaces=("nn.functional",),
    samples=lambda make: [((make(5, dtype=D.int64, low=0, high=4), 4), {})],
)
def one_hot(tensor: Value, num_classes=-1):
    """int64 zeros with a one at each class, in a new last dimension."""
    if num_classes <= 0:
        fail(ArgumentError, "one_hot", "num_classes must be given and positive in a trace")
    x = expand_to(F.unsqueeze(tensor, -1), (*tensor.shape, num_classes))
    return to(F.eq(x, index_along(x, x.ndim - 1)), D.int64)
