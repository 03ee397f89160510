"""Names of PyTorch's top level that are other names, or short combinations, of what there is."""

from __future__ import annotations

import math

from facula.base import dtypes as D
from facula.base.errors import (
    ArgumentTypeError,
    DtypeError,
    ShapeError,
    UnsupportedError,
    fail,
)
from facula.eager.grad_mode import capture, mode, no_grad
from facula.eager.meta import meta
from facula.eager.tensor import Tensor, need_tensor, wrap
from facula.library import OPS
from facula.ops import promote
from facula.tensor.functions import fit, function_of, site_of
from facula.tensor.lapack import svdvals

__all__ = [
    "as_strided_copy", "as_strided_scatter", "conj_physical", "conj_physical_", "constant_pad_nd",
    "detach_copy", "frobenius_norm", "ger", "get_device", "grid_sampler", "grid_sampler_2d",
    "grid_sampler_3d", "histogramdd", "native_batch_norm", "native_channel_shuffle",
    "native_dropout", "native_group_norm", "native_layer_norm", "native_norm", "nextafter",
    "norm_except_dim", "nuclear_norm", "pdist", "set_flush_denormal", "slice_copy",
    "split_with_sizes_copy", "sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not",
    "sym_sqrt", "sym_sum", "unsafe_split_with_sizes",
]  # fmt: skip


def _op(name):
    return function_of(OPS[name])


def _given(name, y, out):
    if out is None:
        return y
    fit(name, out, y.shape)
    return out.copy_(y)


# Shapes and copies -------------------------------------------------------------------------------


def constant_pad_nd(input, pad, value=0):  # noqa: A002
    """``nn.functional.pad`` with a constant."""
    return _op("pad")(input, tuple(pad), "constant", value)


def as_strided_copy(input, size, stride, storage_offset=None, *, out=None):  # noqa: A002
    """``as_strided`` in memory of its own."""
    return _given("as_strided_copy", input.as_strided(size, stride, storage_offset).clone(), out)


def as_strided_scatter(input, src, size, stride, storage_offset=None):  # noqa: A002
    """A copy of ``input`` with ``src`` where ``as_strided`` would look."""
    y = input.contiguous().clone()
    view = y.as_strided(size, stride, storage_offset)
    if view.shape != src.shape:
        fail(ShapeError, "as_strided_scatter", "expected src to have a size equal to the slice of "
             f"self. src size = {list(src.shape)}, slice size = {list(view.shape)}")  # fmt: skip
    view.copy_(src)
    return y


def detach_copy(input):  # noqa: A002
    """``detach`` in memory of its own."""
    return input.detach().clone()


def slice_copy(input, dim=0, start=None, end=None, step=1):  # noqa: A002
    """``input[start:end:step]`` along ``dim``, in memory of its own."""
    dim = dim % input.ndim
    return input[(slice(None),) * dim + (slice(start, end, step),)].clone()


def split_with_sizes_copy(input, split_sizes, dim=0, *, out=None):  # noqa: A002
    """``split_with_sizes`` in memory of their own."""
    parts = [x.clone() for x in input.split(list(split_sizes), dim)]
    if out is None:
        return parts
    for target, y in zip(out, parts):
        _given("split_with_sizes_copy", y, target)
    return None


def unsafe_split_with_sizes(input, split_sizes, dim=0):  # noqa: A002
    """As ``split_with_sizes``."""
    return input.split(list(split_sizes), dim)


def ger(input, vec2, *, out=None):  # noqa: A002
    """The outer product of two vectors."""
    return _op("outer")(input, vec2) if out is None else _op("outer")(input, vec2, out=out)


def conj_physical(input, *, out=None):  # noqa: A002
    """The conjugate, of real numbers the numbers."""
    return _given("conj_physical", input.clone(), out)


def conj_physical_(input):  # noqa: A002
    """``conj_physical``, in place."""
    return input


def get_device(input):  # noqa: A002
    """-1: the number of the device of a tensor on the CPU."""
    need_tensor("get_device", input)
    return -1


# Numbers -----------------------------------------------------------------------------------------


def nextafter(input, other, *, out=None):  # noqa: A002
    """The next number of the dtype after ``input`` towards ``other``; float32 or float64."""
    need_tensor("nextafter", input, other)
    if input.dtype is not other.dtype or input.dtype.name not in ("float32", "float64"):
        fail(DtypeError, "nextafter", "expected two tensors of float32 or of float64, got "
             f"{input.dtype.name} and {other.dtype.name}")  # fmt: skip
    shape = promote.broadcast_shapes(input.shape, other.shape, name="nextafter")
    with no_grad():
        a, b = (x.detach().expand(shape).contiguous() for x in (input, other))
        whole = D.int32 if a.dtype is D.float32 else D.int64
        where, bits = _op("where"), a.view(whole)
        step = where((b > a) == (a > 0), 1, -1).to(whole)
        moved = (bits + step).view(a.dtype)
        tiny = bits.new_ones(shape).view(a.dtype)
        y = where(a == 0, where(b > 0, tiny, -tiny), moved)
        y = where(a == b, b, y)
        y = where((a != a) | (b != b), a + b, y)
    return _given("nextafter", y, out)


def _nextafter_(self, other):
    """``nextafter``, in place."""
    return self.copy_(nextafter(self, other))


def frobenius_norm(input, dim=(), keepdim=False):  # noqa: A002
    """The root of the sum of squares over ``dim``."""
    return _op("vector_norm")(input, 2, dim if dim else None, keepdim)


def nuclear_norm(input, dim=(-2, -1), keepdim=False):  # noqa: A002
    """The sum of the singular values of matrices in the dimensions ``dim``."""
    a, b = (d % input.ndim for d in dim)
    y = svdvals(input.movedim((a, b), (-2, -1))).sum(-1)
    for d in sorted((a, b)) if keepdim else ():
        y = y.unsqueeze(d)
    return y


def native_norm(input, p=2):  # noqa: A002
    """The ``p``-norm of all elements."""
    return input.norm(p)


def norm_except_dim(v, pow=2, dim=0):  # noqa: A002
    """The norm over all dimensions but ``dim``, kept as sizes of 1."""
    if dim == -1:
        return v.norm(pow)
    others = tuple(d for d in range(v.ndim) if d != dim % v.ndim)
    return v.norm(pow, others, True)


def histogramdd(input, bins, *, range=None, weight=None, density=False):  # noqa: A002
    """How many rows of ``[..., d]`` fall into each box of a grid: (hist, edges of each dimension).

    Args:
        bins: the number of bins, one or for each dimension, or vectors of edges.
        range: the first and last edge of each dimension, in a row.
        weight: what each row counts.
        density: divide by the total and the volumes.
    """
    from facula.tensor.creation import linspace

    need_tensor("histogramdd", input)
    if input.ndim < 2:
        fail(ShapeError, "histogramdd", "input tensor should have at least 2 dimensions")
    rows = input.detach().reshape(-1, input.shape[-1])
    n = rows.shape[1]
    bins = list(bins) if isinstance(bins, (list, tuple)) else [bins] * n
    if len(bins) != n:
        fail(ShapeError, "histogramdd", f"expected {n} sequences of bin edges or bin counts")
    with no_grad():
        edges, index = [], rows.new_zeros(rows.shape[0], dtype=D.int64)
        inside = index == 0
        for d, count in enumerate(bins):
            x = rows[:, d].contiguous()
            if not isinstance(count, Tensor):
                low, high = _limits(x, None if range is None else range[2 * d : 2 * d + 2])
                count = linspace(low, high, count + 1, dtype=x.dtype)
            edges.append(count)
            inside = inside & (x >= count[0]) & (x <= count[-1])
            at = (_op("searchsorted")(count, x, right=True) - 1).clamp(0, count.numel() - 2)
            index = index * (count.numel() - 1) + at
        amount = inside.to(rows.dtype)
        amount = amount if weight is None else amount * weight.reshape(-1)
        shape = [e.numel() - 1 for e in edges]
        hist = rows.new_zeros(math.prod(shape)).index_add_(0, index, amount).reshape(shape)
        if density:
            hist = hist / hist.sum()
            for d, e in enumerate(edges):
                hist = hist / (e[1:] - e[:-1]).reshape([-1 if i == d else 1 for i, _ in
                                                        enumerate(shape)])  # fmt: skip
    return hist, tuple(edges)


def _limits(x, given):
    if given is not None:
        low, high = (float(v) for v in given)
    else:
        low, high = (x.min().item(), x.max().item()) if x.numel() else (0.0, 1.0)
    return (low - 0.5, high + 0.5) if low == high else (low, high)


# Layers' own names -------------------------------------------------------------------------------


def grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners):  # noqa: A002
    """``nn.functional.grid_sample`` with numbers for modes."""
    mode = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    padding = ("zeros", "border", "reflection")[padding_mode]
    return _op("grid_sample")(input, grid, mode, padding, align_corners)


grid_sampler_2d = grid_sampler_3d = grid_sampler


def pdist(input, p=2):  # noqa: A002
    """``nn.functional.pdist``."""
    from facula.nn.functional import pdist

    return pdist(input, p)


def native_channel_shuffle(input, groups):  # noqa: A002
    """``nn.functional.channel_shuffle``."""
    from facula.nn.functional import channel_shuffle

    return channel_shuffle(input, groups)


def native_dropout(input, p, train):  # noqa: A002
    """(``dropout``, the mask of what is kept)."""
    if train is False:
        return input.clone(), input.new_ones(input.shape, dtype=D.bool_)
    mask = input.detach().new_empty(input.shape).bernoulli_(1 - p)
    return input * mask * (1 / (1 - p) if p < 1 else 0.0), mask.bool()


def _moments(x, dims, eps):
    mean = x.mean(dims, keepdim=True)
    return mean, (x.var(dims, correction=0, keepdim=True) + eps).rsqrt()


def native_layer_norm(input, normalized_shape, weight, bias, eps):  # noqa: A002
    """(``layer_norm``, mean, reciprocal standard deviation)."""
    y = _op("layer_norm")(input, tuple(normalized_shape), weight, bias, eps)
    return y, *_moments(input, tuple(range(-len(normalized_shape), 0)), eps)


def native_group_norm(input, weight, bias, N, C, HxW, group, eps):  # noqa: A002, N803
    """(``group_norm``, mean ``[N, group]``, reciprocal standard deviation)."""
    y = _op("group_norm")(input, group, weight, bias, eps)
    mean, rstd = _moments(input.reshape(N, group, -1), -1, eps)
    return y, mean.squeeze(-1), rstd.squeeze(-1)


def native_batch_norm(
    input,
    weight,
    bias,
    running_mean,
    running_var,
    training,
    momentum,
    eps,
    *,
    out=None,  # noqa: A002
):
    """(``batch_norm``, mean and reciprocal standard deviation of the batch, while training)."""
    from facula.nn.functional import batch_norm

    y = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    found = (y, input.new_empty(0), input.new_empty(0))
    if training:
        dims = tuple(d for d in range(input.ndim) if d != 1)
        found = (y, *(x.reshape(-1) for x in _moments(input, dims, eps)))
    if out is None:
        return found
    for target, value in zip(out, found):
        _given("native_batch_norm", value, target)
    return out


# Numbers that may be sizes of a trace ------------------------------------------------------------


def sym_int(a):
    """``int(a)``; sizes are ints."""
    return math.trunc(a)


def sym_float(a):
    """``float(a)``."""
    return float(a)


def sym_not(a):
    """``not a``."""
    return not a


def sym_max(a, b):
    """The larger of two numbers."""
    return a if a >= b else b


def sym_min(a, b):
    """The smaller of two numbers."""
    return a if a <= b else b


def sym_sqrt(a):
    """The square root of a number."""
    return math.sqrt(a)


def sym_sum(args):
    """The sum of numbers."""
    return sum(args)


def sym_ite(b, t, f):
    """``t if b else f``."""
    return t if b else f


def set_flush_denormal(mode) -> bool:
    """False: denormal numbers are always kept; PyTorch's answer where it cannot be set."""
    if not isinstance(mode, bool):
        fail(ArgumentTypeError, "set_flush_denormal", f"expected a bool, got {type(mode).__name__}")
    return False


for _function in (nextafter, as_strided_scatter, conj_physical, conj_physical_, get_device):
    setattr(Tensor, _function.__name__, _function)
Tensor.nextafter_ = _nextafter_
Tensor.unsafe_split_with_sizes = unsafe_split_with_sizes


# view(dtype) -------------------------------------------------------------------------------------


def reinterpreted(x, dtype) -> Tensor:
    """The same memory as elements of another dtype, the last dimension longer or shorter.

    Raises:
        RuntimeError: the last dimension is not contiguous, or its bytes are no whole elements.
    """
    own, new = x._meta, dtype.itemsize
    if capture.trace is not None:
        fail(UnsupportedError, "view", "memory cannot be seen as another dtype in a captured "
             "function", "leave it outside of facula.compile")  # fmt: skip
    if own.requires_grad and mode.grad is not False and not dtype.is_floating_point:
        x, own = x.detach(), own.with_grad(False)
    old, shape, strides = own.dtype.itemsize, tuple(own.shape), tuple(own.strides)
    if old != new:
        if not shape or strides[-1] != 1:
            fail(ShapeError, "view", "self.stride(-1) must be 1 (of at least one dimension) to "
                 f"view {own.dtype} as {dtype} (different element sizes), got shape {list(shape)} "
                 f"and strides {list(strides)}", "contiguous() first")  # fmt: skip
        whole = all((n * old) % new == 0 for n in (shape[-1], *strides[:-1], x.storage_offset()))
        if not whole:
            fail(ShapeError, "view", f"self.size(-1), strides and offset must be divisible by "
                 f"{new // old} to view {own.dtype} as {dtype}, got {list(shape)} and strides "
                 f"{list(strides)}")  # fmt: skip
        shape = (*shape[:-1], shape[-1] * old // new)
        strides = (*(s * old // new for s in strides[:-1]), 1)
    return wrap(meta(shape, strides, dtype), x._ptr, x._storage)


def _with_dtypes(site):
    """Have the method ``view`` take a dtype: a call that no plan was made for comes here first."""
    first = site.first

    def wider(key, args):
        given = args[1] if len(args) == 2 else ()
        if len(given) == 1 and isinstance(given[0], D.dtype):
            return reinterpreted(args[0], given[0])
        return first(key, args)

    site.first = wider


_with_dtypes(site_of(OPS["view"]))
