"""Movement primitives: the same elements seen through other shapes.

Each tells how it acts on strides (``view``), which serves eager views and the compiler alike.
"""

from __future__ import annotations

from facula.base.errors import (
    ArgumentError,
    DimensionError,
    IndexRangeError,
    ShapeError,
    fail,
    wrap_dim,
)
from facula.ir import dims
from facula.ir.program import Value
from facula.ops.promote import unbroadcast
from facula.ops.registry import F, Primitive, op


def contiguous_strides(shape) -> tuple:
    """Row-major strides, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step = step * (n if not isinstance(n, int) or n > 0 else 1)
    return tuple(reversed(strides))


# expand ------------------------------------------------------------------------------------------


def _expand_view(shape, strides, *, shape_to):
    extra = len(shape_to) - len(shape)
    return (
        shape_to,
        (0,) * extra
        + tuple(
            0 if isinstance(n, int) and n == 1 and not (isinstance(m, int) and m == 1) else s
            for n, m, s in zip(shape, shape_to[extra:], strides)
        ),
        0,
    )


expand_ = Primitive(
    "expand",
    "movement",
    lambda x, *, shape: [(x.dtype, shape)],
    lambda np, x, *, shape: np.broadcast_to(x, shape),
    lambda g, y, x, *, shape: (unbroadcast(g, x.shape),),
    view=lambda shape_, strides, *, shape: _expand_view(shape_, strides, shape_to=shape),
)

# reshape -----------------------------------------------------------------------------------------


def _as_many(a, b) -> bool:
    """Whether two shapes have as many elements, asked of the sizes that they do not share.

    What the others are then does not matter: a width that its heads divide is known to be so.
    """
    left, right = [], list(b)
    for n in a:
        at = next((i for i, m in enumerate(right) if dims.same(n, m)), None)
        if at is None:
            left.append(n)
        else:
            del right[at]
    return dims.product(left) == dims.product(right) or dims.product(a) == dims.product(b)


def _reshape_infer(x, *, shape):
    if not dims.structural() and not _as_many(x.shape, shape):
        fail(
            ShapeError,
            "reshape",
            f"shape '{list(shape)}' is invalid for input of size {dims.product(x.shape)}",
        )
    return [(x.dtype, shape)]


def reshape_strides(shape, strides, target):
    """Strides of the same memory in the shape ``target``, or None where a copy is needed."""
    if dims.product(shape) == 0:
        return contiguous_strides(target)
    kept = [(n, s) for n, s in zip(shape, strides) if not n == 1]
    groups = []  # maximal runs of dimensions that are one dimension in memory: [size, stride]
    for n, s in kept:
        if groups and groups[-1][1] == n * s:
            groups[-1][0] = groups[-1][0] * n
            groups[-1][1] = s
        else:
            groups.append([n, s])
    result, position = [None] * len(target), len(target) - 1
    for size, stride in reversed(groups):
        taken = 1
        while not taken == size:
            if position < 0:
                return None
            n = target[position]
            result[position] = stride * taken
            taken = taken * n
            position -= 1
            if dims.hint(taken) > dims.hint(size):
                return None
    step = 1 if not groups else None
    for i in range(len(target) - 1, -1, -1):
        if result[i] is None:
            if not target[i] == 1:
                return None
            result[i] = (
                step
                if step is not None
                else (result[i + 1] * target[i + 1] if i + 1 < len(target) else 1)
            )
    return tuple(result)


def _reshape_view(shape, strides, *, shape_to):
    new = reshape_strides(shape, strides, shape_to)
    return None if new is None else (shape_to, new, 0)


reshape_ = Primitive(
    "reshape",
    "movement",
    _reshape_infer,
    lambda np, x, *, shape: np.reshape(x, shape),
    lambda g, y, x, *, shape: (F.reshape(g, x.shape),),
    view=lambda shape_, strides, *, shape: _reshape_view(shape_, strides, shape_to=shape),
)

# permute, slice, flip, pad ----------------------------------------------------------------------


def _inverse(order):
    inverse = [0] * len(order)
    for i, d in enumerate(order):
        inverse[d] = i
    return tuple(inverse)


permute_ = Primitive(
    "permute",
    "movement",
    lambda x, *, order: [(x.dtype, tuple(x.shape[d] for d in order))],
    lambda np, x, *, order: np.transpose(x, order),
    lambda g, y, x, *, order: (permute_(g, order=_inverse(order)),),
    view=lambda shape, strides, *, order: (
        tuple(shape[d] for d in order),
        tuple(strides[d] for d in order),
        0,
    ),
)


def _slice_gradient(g, y, x, *, dim, start, length, step):
    """Zeros around (and, for steps, between) the cotangents."""
    after = x.shape[dim] - start - ((length - 1) * step + 1)
    return (pad_(g, dim=dim, before=start, after=after, between=step - 1, value=0),)


slice_ = Primitive(
    "slice",
    "movement",
    lambda x, *, dim, start, length, step: [
        (x.dtype, x.shape[:dim] + (length,) + x.shape[dim + 1 :])
    ],
    lambda np, x, *, dim, start, length, step: np.take(x, start + step * np.arange(length), dim),
    _slice_gradient,
    view=lambda shape, strides, *, dim, start, length, step: (
        shape[:dim] + (length,) + shape[dim + 1 :],
        strides[:dim] + (strides[dim] * step,) + strides[dim + 1 :],
        strides[dim] * start,
    ),
)

flip_ = Primitive(
    "flip",
    "movement",
    lambda x, *, dims: [(x.dtype, x.shape)],
    lambda np, x, *, dims: np.flip(x, dims),
    lambda g, y, x, *, dims: (flip_(g, dims=dims),),
)


def padded_size(n, before, after, between):
    """The length of a dimension of ``n`` after padding."""
    return n + before + after + (n - 1) * between


def _pad_meaning(np, x, *, dim, before, after, between, value):
    shape = list(x.shape)
    shape[dim] = padded_size(shape[dim], before, after, between)
    y = np.full(shape, value, x.dtype)
    place = [slice(None)] * x.ndim
    place[dim] = slice(before, before + (x.shape[dim] - 1) * (between + 1) + 1, between + 1)
    y[tuple(place)] = x
    return y


#: Constants around and between the elements along one dimension. Needs a size of at least 1.
pad_ = Primitive(
    "pad",
    "movement",
    lambda x, *, dim, before, after, between, value: [
        (
            x.dtype,
            x.shape[:dim]
            + (padded_size(x.shape[dim], before, after, between),)
            + x.shape[dim + 1 :],
        )
    ],
    _pad_meaning,
    lambda g, y, x, *, dim, before, after, between, value: (
        slice_(g, dim=dim, start=before, length=x.shape[dim], step=between + 1),
    ),
)


def _windows_infer(x, *, dim, size, step, dilation):
    n = (x.shape[dim] - dilation * (size - 1) - 1) // step + 1
    return [(x.dtype, x.shape[:dim] + (n, size) + x.shape[dim + 1 :])]


def _windows_meaning(np, x, *, dim, size, step, dilation):
    n = (x.shape[dim] - dilation * (size - 1) - 1) // step + 1
    index = np.arange(n)[:, None] * step + np.arange(size)[None, :] * dilation
    return np.take(x, index, axis=dim)


def _windows_gradient(g, y, x, *, dim, size, step, dilation):
    """Each window's cotangents put back to where they came from, and added."""
    total = None
    n = g.shape[dim]
    for k in range(size):
        part = slice_(g, dim=dim + 1, start=k, length=1, step=1)
        part = reshape_(part, shape=g.shape[: dim + 1] + g.shape[dim + 2 :])
        after = x.shape[dim] - k * dilation - ((n - 1) * step + 1)
        part = pad_(part, dim=dim, before=k * dilation, after=after, between=step - 1, value=0)
        total = part if total is None else total + part
    return (total,)


#: Sliding windows: dimension ``dim`` becomes (number of windows, ``size``).
windows_ = Primitive(
    "windows",
    "movement",
    _windows_infer,
    _windows_meaning,
    _windows_gradient,
    view=lambda shape, strides, *, dim, size, step, dilation: (
        shape[:dim]
        + ((shape[dim] - dilation * (size - 1) - 1) // step + 1, size)
        + shape[dim + 1 :],
        strides[:dim] + (strides[dim] * step, strides[dim] * dilation) + strides[dim + 1 :],
        0,
    ),
)

# Ops --------------------------------------------------------------------------------------------


def whole(op_name, sizes) -> tuple:
    """Sizes given as ``f(2, 3)`` or ``f((2, 3))`` as one tuple."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    for n in sizes:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"{op_name}: sizes must be ints, got {type(n).__name__}")
    return tuple(sizes)


@op(
    view=True,
    spaces=("method",),
    samples=lambda make: [((make(3, 1), 4, 3, 5), {}), ((make(1), (2,)), {})],
)
def expand(input: Value, *size):
    """Repeat dimensions of size 1 (and add leading ones) without copying; -1 keeps a size."""
    size = whole("expand", size)
    extra = len(size) - input.ndim
    if extra < 0:
        fail(
            ShapeError,
            "expand",
            f"the number of sizes provided ({len(size)}) must be greater or "
            f"equal to the number of dimensions in the tensor ({input.ndim})",
        )
    shape = []
    for i, n in enumerate(size):
        own = input.shape[i - extra] if i >= extra else None
        if isinstance(n, int) and n == -1:
            if own is None:
                fail(
                    ShapeError,
                    "expand",
                    f"-1 is not allowed in a leading, non-existing dimension {i}",
                )
            n = own
        elif own is not None and not own == n and not own == 1 or n < 0:
            fail(
                ShapeError,
                "expand",
                f"The expanded size of the tensor ({n}) must match the "
                f"existing size ({own}) at non-singleton dimension {i}.  Target sizes: "
                f"{list(size)}.  Tensor sizes: {list(input.shape)}",
            )
        shape.append(n)
    return expand_(input, shape=tuple(shape))


@op(
    view=True,
    samples=lambda make: [((make(3, 4), 2, -1), {}), ((make(6), (2, 3)), {}), ((make(1), ()), {})],
)
def reshape(input: Value, *shape):
    """The same elements in another shape; one size may be -1. Copies where no view exists."""
    shape = list(whole("reshape", shape))
    unknown = [i for i, n in enumerate(shape) if isinstance(n, int) and n == -1]
    for n in shape:
        if isinstance(n, int) and n < -1:
            fail(ShapeError, "reshape", f"invalid shape dimension {n}")
    if len(unknown) > 1:
        fail(ShapeError, "reshape", "only one dimension can be inferred")
    total = dims.product(input.shape)
    if unknown:
        known = dims.product(n for i, n in enumerate(shape) if i != unknown[0])
        if known == 0:
            fail(
                ShapeError,
                "reshape",
                f"cannot reshape tensor of 0 elements into shape {shape} "
                "because the unspecified dimension size -1 can be any value and is ambiguous",
            )
        if not total % known == 0:
            fail(ShapeError, "reshape", f"shape '{shape}' is invalid for input of size {total}")
        shape[unknown[0]] = total // known
    shape = tuple(shape)
    if len(shape) == input.ndim and all(dims.same(a, b) for a, b in zip(shape, input.shape)):
        return input
    return reshape_(input, shape=shape)


@op(view=True, samples=lambda make: [((make(2, 3, 4), 2, 0, 1), {})])
def permute(input: Value, *dims):
    """Dimensions in another order, without copying."""
    order = whole("permute", dims)
    if len(order) != input.ndim:
        fail(
            ShapeError,
            "permute",
            f"permute(sparse_coo): number of dimensions in the tensor "
            f"input does not match the length of the desired ordering of dimensions i.e. "
            f"input.dim() = {input.ndim} is not equal to len(dims) = {len(order)}",
        )
    order = tuple(wrap_dim("permute", d, input.ndim) for d in order)
    if len(set(order)) != len(order):
        fail(ShapeError, "permute", "duplicate dims are not allowed")
    return permute_(input, order=order)


@op(view=True, aliases=("swapaxes", "swapdims"), samples=lambda make: [((make(2, 3, 4), 0, 2), {})])
def transpose(input: Value, dim0, dim1):
    """Two dimensions swapped, without copying."""
    a, b = wrap_dim("transpose", dim0, input.ndim), wrap_dim("transpose", dim1, input.ndim)
    order = list(range(input.ndim))
    if order:
        order[a], order[b] = b, a
    return permute_(input, order=tuple(order))


@op(view=True, samples=lambda make: [((make(2, 3), 1), {})])
def unsqueeze(input: Value, dim):
    """A dimension of size 1 inserted before ``dim``."""
    dim = wrap_dim("unsqueeze", dim, input.ndim + 1)
    return reshape_(input, shape=input.shape[:dim] + (1,) + input.shape[dim:])


@op(view=True)
def squeeze(input: Value, dim=None):
    """Dimensions of size 1 (all of them, or those named) removed."""
    if dim is None:
        drop = {i for i, n in enumerate(input.shape) if n == 1}
    else:
        named = dim if isinstance(dim, (tuple, list)) else (dim,)
        drop = {wrap_dim("squeeze", d, input.ndim) for d in named}
        drop = {d for d in drop if input.ndim and input.shape[d] == 1}
    return reshape_(input, shape=tuple(n for i, n in enumerate(input.shape) if i not in drop))


@op(view=True, samples=lambda make: [((make(5, 3), 0, 1, 3), {}), ((make(2, 7), 1, -4, 2), {})])
def narrow(input: Value, dim, start, length):
    """``length`` elements from ``start`` along ``dim``, without copying."""
    if input.ndim == 0:
        fail(ShapeError, "narrow", "narrow() cannot be applied to a 0-dim tensor.")
    if isinstance(start, bool) or not hasattr(start, "__index__"):
        fail(ShapeError, "narrow", "start must be an int or a 0-dim integral tensor")
    dim = wrap_dim("narrow", dim, input.ndim)
    n = input.shape[dim]
    if length < 0:
        fail(ShapeError, "narrow", "narrow(): length must be non-negative.")
    if start < -n or start > n:
        fail(
            DimensionError,
            "narrow",
            f"start out of range (expected to be in range of [-{n}, {n}], but got {start})",
        )
    start = start + n if start < 0 else start
    if start + length > n:
        fail(
            ShapeError,
            "narrow",
            f"start ({start}) + length ({length}) exceeds dimension size ({n}).",
        )
    return slice_(input, dim=dim, start=start, length=length, step=1)


@op(view=True, samples=lambda make: [((make(5, 3), 0, 1), {}), ((make(2, 7), 1, -4), {})])
def select(input: Value, dim, index):
    """The sub-tensor at ``index`` along ``dim``, which is removed; without copying."""
    if input.ndim == 0:
        fail(IndexRangeError, "select", "select() cannot be applied to a 0-dim tensor.")
    dim = wrap_dim("select", dim, input.ndim)
    n = input.shape[dim]
    if index < -n or index >= n:
        fail(
            IndexRangeError,
            "select",
            f"index {index} is out of bounds for dimension {dim} with size {n}",
        )
    index = index + n if index < 0 else index
    part = slice_(input, dim=dim, start=index, length=1, step=1)
    return reshape_(part, shape=input.shape[:dim] + input.shape[dim + 1 :])


@op()
def flip(input: Value, *dims):
    """The order of elements along ``dims`` reversed; a copy."""
    named = whole("flip", dims)
    order = tuple(wrap_dim("flip", d, input.ndim) for d in named)
    if len(set(order)) != len(order):
        fail(ShapeError, "flip", f"dim {named} appears multiple times in the list of dims")
    return flip_(input, dims=order) if order and input.ndim else F.clone(input)


def constant_pad(x: Value, pads, value=0) -> Value:
    """``pads`` is a (before, after) pair a dimension; negative ones crop."""
    for dim, (before, after) in enumerate(pads):
        cut = max(-before, 0), max(-after, 0)
        if cut != (0, 0):
            length = x.shape[dim] - cut[0] - cut[1]
            if length < 0:
                fail(ArgumentError, "pad", f"cropping {cut} leaves nothing of size {x.shape[dim]}")
            x = slice_(x, dim=dim, start=cut[0], length=length, step=1)
        before, after = max(before, 0), max(after, 0)
        if (before, after) != (0, 0):
            x = pad_(x, dim=dim, before=before, after=after, between=0, value=value)
    return x


def _cat_infer(*xs, dim):
    shape = list(xs[0].shape)
    shape[dim] = sum((x.shape[dim] for x in xs[1:]), start=xs[0].shape[dim])
    return [(xs[0].dtype, tuple(shape))]


def _cat_gradient(g, y, *xs, dim):
    start, parts = 0, []
    for x in xs:
        parts.append(slice_(g, dim=dim, start=start, length=x.shape[dim], step=1))
        start = start + x.shape[dim]
    return tuple(parts)


cat_ = Primitive(
    "cat", "opaque", _cat_infer, lambda np, *xs, dim: np.concatenate(xs, axis=dim), _cat_gradient
)
