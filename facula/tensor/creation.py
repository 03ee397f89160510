"""Tensors of a given shape: memory, then a fill in place, so that a new size compiles nothing."""

from __future__ import annotations

import builtins
import itertools
import math
from functools import cache

from facula.base import dtypes as D
from facula.base.device import device as Device
from facula.base.errors import (
    ArgumentTypeError,
    OutOfMemoryError,
    ShapeError,
    UnsupportedError,
    fail,
)
from facula.eager.dispatch import capture, outside, table
from facula.eager.grad_mode import runs
from facula.eager.meta import contiguous, meta
from facula.eager.tensor import Tensor, need_tensor, wrap
from facula.ir.dims import Dim
from facula.library import OPS
from facula.runtime import storage
from facula.tensor.functions import fit, function_of

_PYTHON_TYPES = {bool: D.bool_, int: D.int64, float: D.float64}
#: Metas of shapes asked for lately; emptied when there are too many.
_metas = table()
_MAX_METAS = 4096
_MAX_BYTES = (1 << 63) - 1


@cache
def fills(name):
    """The in-place function of a fill op."""
    return function_of(OPS[name], "self")


# Arguments ---------------------------------------------------------------------------------------


def element_type(dtype, default=None) -> D.dtype:
    """The dtype that an argument names: a dtype, a Python type, or None for ``default``."""
    if dtype is None:
        return default or D.get_default_dtype()
    if isinstance(dtype, D.dtype):
        return dtype
    if dtype in _PYTHON_TYPES:
        return _PYTHON_TYPES[dtype]
    return fail(ArgumentTypeError, "dtype", f"expected a facula.dtype, got {dtype!r}")


def check_device(device) -> None:
    """Refuse devices that this build does not have."""
    if device is not None and Device(device).type != "cpu":
        fail(UnsupportedError, "device", f"tensors on {str(device)!r} are not supported",
             "this build has the device 'cpu'")  # fmt: skip


def sizes(name, given) -> tuple:
    """Sizes given as ``f(2, 3)``, ``f((2, 3))`` or ``f(tensor.shape)`` as one tuple of ints.

    Raises:
        TypeError: something is no int.
        RuntimeError: a negative size.
    """
    if len(given) == 1 and not hasattr(given[0], "__index__"):
        given = given[0]
        if not isinstance(given, (tuple, list)):
            fail(ArgumentTypeError, name, f"sizes must be ints, got {type(given).__name__}")
    elif len(given) == 1 and isinstance(given[0], Tensor) and given[0].ndim:
        given = given[0].tolist()
    result = []
    for n in given:
        if not hasattr(n, "__index__") or isinstance(n, bool):
            fail(ArgumentTypeError, name, f"sizes must be ints, got {type(n).__name__}")
        result.append(n if isinstance(n, Dim) else n.__index__())
    bad = next((n for n in result if n < 0), None)
    if bad is not None:
        fail(ShapeError, name, f"Trying to create tensor with negative dimension {bad}: {result}")
    return tuple(result)


def blank(name, given, dtype=None, device=None, size=None) -> Tensor:
    """New memory of the sizes and the dtype asked for, not initialised."""
    dtype = dtype if type(dtype) is D.dtype else element_type(dtype)
    if device is not None:
        check_device(device)
    if size is not None:
        given = (size,)
    try:
        own = _metas[given, dtype]
    except (KeyError, TypeError):
        if capture.trace is not None:
            return capture.trace.fresh(sizes(name, given), dtype)
        own = _meta_of(name, given, dtype)
    block = storage.allocate(own.nbytes)
    return wrap(own, block.ptr, block)


def memory_for(name, shape, dtype) -> Tensor:
    """As :func:`blank`, also while a function is captured: for elements that are known now."""
    own = _metas.get((shape, dtype)) or _meta_of(name, shape, dtype)
    block = storage.allocate(own.nbytes)
    return wrap(own, block.ptr, block)


def _meta_of(name, given, dtype):
    shape = sizes(name, given)
    if math.prod(n for n in shape if n) > _MAX_BYTES // dtype.itemsize:
        fail(OutOfMemoryError, name, f"a tensor of sizes {list(shape)} and dtype {dtype.name} is "
             "larger than any address space")  # fmt: skip
    own = contiguous(shape, dtype)
    # A captured function must not find here what would give it memory instead of a trace.
    plain = given[0] if len(given) == 1 and isinstance(given[0], tuple) else given
    if capture.trace is None and all(type(n) is int for n in plain):
        if len(_metas) >= _MAX_METAS:
            _metas.clear()
        _metas[given, dtype] = own
    return own


def target(name, out, given, dtype=None, device=None, size=None) -> Tensor:
    """Where results go: ``out``, resized to the shape, or new memory."""
    if out is None:
        return blank(name, given, dtype, device, size)
    if dtype is not None and element_type(dtype) is not out.dtype:
        fail(ShapeError, name, f"dtype {dtype} does not match dtype of out parameter ({out.dtype})")
    fit(name, out, sizes(name, given if size is None else (size,)))
    return out


def leaf(x, requires_grad, layout=None) -> Tensor:
    """``x``, wanting gradients if asked; layouts but the strided one are refused."""
    if layout is not None and repr(layout) != "facula.strided":
        fail(UnsupportedError, "layout", f"expected facula.strided, got {layout!r}",
             "sparse tensors are not supported: to_dense() where they are made")  # fmt: skip
    if requires_grad:
        return x.requires_grad_()
    return capture.trace.shell(x) if runs and capture.trace in runs else x


def number(name, x):
    """A Python number of a number or a tensor of one element.

    Raises:
        TypeError: anything else; complex numbers, which there are none of here.
    """
    if isinstance(x, (bool, int, float, Dim)):
        return x
    if isinstance(x, builtins.complex):
        refuse_complex(name)
    if hasattr(x, "item"):
        return x.item()
    return fail(ArgumentTypeError, name, f"expected a number, got {type(x).__name__}")


def refuse_complex(name):
    """Say that there are no complex numbers."""
    fail(UnsupportedError, name, "complex numbers are not supported",
         "keep real and imaginary parts in a last dimension of size 2")  # fmt: skip


# One value everywhere ----------------------------------------------------------------------------


def empty(
    *given, size=None, out=None, dtype=None, layout=None, device=None, requires_grad=False,
    pin_memory=False, memory_format=None, names=None,
) -> Tensor:  # fmt: skip
    """A tensor of that shape, its elements not initialised."""
    return leaf(target("empty", out, given, dtype, device, size), requires_grad, layout)


def zeros(
    *given, size=None, out=None, dtype=None, layout=None, device=None, requires_grad=False,
    pin_memory=False, names=None,
) -> Tensor:  # fmt: skip
    """Zeros of that shape.

    >>> zeros(2, 3).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    return leaf(target("zeros", out, given, dtype, device, size).zero_(), requires_grad, layout)


def ones(
    *given, size=None, out=None, dtype=None, layout=None, device=None, requires_grad=False,
    pin_memory=False, names=None,
) -> Tensor:  # fmt: skip
    """Ones of that shape."""
    return leaf(target("ones", out, given, dtype, device, size).fill_(1), requires_grad, layout)


def full(
    size, fill_value, *, out=None, dtype=None, layout=None, device=None, requires_grad=False,
    pin_memory=False, names=None,
) -> Tensor:  # fmt: skip
    """``fill_value`` everywhere; its Python type decides the dtype if none is given."""
    value = number("full", fill_value)
    value = int(value) if isinstance(value, Dim) else value
    if dtype is None:
        own = fill_value.dtype if isinstance(fill_value, Tensor) else D.of_scalar(value)
        dtype = out.dtype if out is not None else own
    return leaf(target("full", out, (size,), dtype, device).fill_(value), requires_grad, layout)


def scalar_tensor(s, *, dtype=None, layout=None, device=None, requires_grad=False) -> Tensor:
    """A 0-dim tensor of the default dtype, unless another is given."""
    x = blank("scalar_tensor", ((),), dtype, device).fill_(number("scalar_tensor", s))
    return leaf(x, requires_grad, layout)


def _like(x, dtype, device, memory_format, name) -> Tensor:
    """New memory of the shape of ``x``; also of its strides, where these leave no gaps."""
    if not isinstance(x, Tensor):
        fail(ArgumentTypeError, name, f"expected a Tensor, got {type(x).__name__}")
    check_device(device)
    own = x._meta
    dtype = own.dtype if dtype is None else element_type(dtype)
    if capture.trace is not None:
        return capture.trace.fresh(own.shape, dtype)
    if own.contiguous and dtype is own.dtype:
        block = storage.allocate(own.nbytes)
        return wrap(own.with_grad(False), block.ptr, block)
    strides = None
    if not own.contiguous and str(memory_format or "preserve").endswith("preserve"):
        strides = dense_strides(own)
    new = contiguous(own.shape, dtype) if strides is None else meta(own.shape, strides, dtype)
    block = storage.allocate(new.nbytes)
    return wrap(new, block.ptr, block)


def dense_strides(own):
    """The strides of a meta if its elements fill their memory without gaps, else None."""
    step = 1
    for s, n in sorted((s, n) for s, n in zip(own.strides, own.shape) if n != 1):
        if s != step:
            return None
        step *= n
    return own.strides


def empty_like(
    input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None,
    pin_memory=False,
) -> Tensor:  # fmt: skip
    """A tensor of the shape, dtype and strides of ``input``, its elements not initialised."""
    return leaf(_like(input, dtype, device, memory_format, "empty_like"), requires_grad, layout)


def zeros_like(
    input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None,
    pin_memory=False,
) -> Tensor:  # fmt: skip
    """Zeros of the shape and dtype of ``input``."""
    return leaf(
        _like(input, dtype, device, memory_format, "zeros_like").zero_(), requires_grad, layout
    )


def ones_like(
    input, *, dtype=None, layout=None, device=None, requires_grad=False, memory_format=None,
    pin_memory=False,
) -> Tensor:  # fmt: skip
    """Ones of the shape and dtype of ``input``."""
    return leaf(
        _like(input, dtype, device, memory_format, "ones_like").fill_(1), requires_grad, layout
    )


def full_like(
    input, fill_value, *, dtype=None, layout=None, device=None, requires_grad=False,
    memory_format=None, pin_memory=False,
) -> Tensor:  # fmt: skip
    """``fill_value`` everywhere, in the shape and dtype of ``input``."""
    x = _like(input, dtype, device, memory_format, "full_like")
    return leaf(x.fill_(number("full_like", fill_value)), requires_grad, layout)


def empty_strided(
    size, stride, *, dtype=None, layout=None, device=None, requires_grad=False, pin_memory=False
) -> Tensor:
    """A tensor of that shape and those strides (in elements), not initialised.

    Raises:
        RuntimeError: negative numbers, or not as many strides as sizes.
    """
    shape, steps = sizes("empty_strided", (size,)), sizes("empty_strided", (stride,))
    if len(shape) != len(steps):
        fail(ShapeError, "empty_strided", f"dimensionality of sizes ({len(shape)}) must match "
             f"dimensionality of strides ({len(steps)})")  # fmt: skip
    last = sum((n - 1) * s for n, s in zip(shape, steps)) if all(shape) else -1
    flat = blank("empty_strided", (last + 1,), dtype, device)
    return leaf(
        wrap(meta(shape, steps, flat.dtype), flat._ptr, flat._storage), requires_grad, layout
    )


def empty_permuted(
    size, physical_layout, *, dtype=None, layout=None, device=None, requires_grad=False
) -> Tensor:
    """A tensor whose dimensions lie in memory in the order of ``physical_layout``."""
    shape, order = sizes("empty_permuted", (size,)), tuple(physical_layout)
    if sorted(order) != list(builtins.range(len(shape))):
        fail(ShapeError, "empty_permuted", f"expected a permutation of the dimensions, got {order}")
    x = blank("empty_permuted", (tuple(shape[d] for d in order),), dtype, device)
    return leaf(
        x.permute([order.index(d) for d, _ in enumerate(order)]).detach(), requires_grad, layout
    )


# Sequences of numbers ----------------------------------------------------------------------------


def arange(
    start, end=None, step=1, *, out=None, dtype=None, layout=None, device=None,
    requires_grad=False, pin_memory=False,
) -> Tensor:  # fmt: skip
    """``start, start + step, ...`` below ``end``: int64 for ints, else the default dtype.

    Raises:
        RuntimeError: a step of 0, or one that leads away from ``end``.

    >>> arange(3).tolist(), arange(1, 2, 0.5).tolist()
    ([0, 1, 2], [1.0, 1.5])
    """
    if end is None:
        start, end = 0, start
    exact = type(start) is type(step) is int and type(end) in (int, Dim)
    if not exact:
        start, end, step = (number("arange", x) for x in (start, end, step))
    if dtype is None and out is not None:
        dtype = out.dtype
    if dtype is None and not any(isinstance(x, float) for x in (start, end, step)):
        dtype = D.int64
    dtype = element_type(dtype)
    if not exact:
        start, end, step, exact = _range_bounds(start, end, step, dtype)
    if step == 0:
        fail(ShapeError, "arange", "step must be nonzero")
    if (end - start) * step < 0:
        fail(ShapeError, "arange", "upper bound and lower bound inconsistent with step sign")
    n = -((start - end) // step) if exact else math.ceil((end - start) / step)
    x = target("arange", out, (n,), dtype, device)
    return leaf(fills("count")(x, start, step), requires_grad, layout)


def _range_bounds(start, end, step, dtype):
    """(start, end, step, whether all are ints) of what is to be counted in ``dtype``."""
    for x in (start, end, step):
        if isinstance(x, float) and not math.isfinite(x):
            fail(ShapeError, "arange", f"unsupported range: {start} -> {end} by {step}")
    if dtype.kind != "f":
        start, end, step = int(start), int(end), int(step)
    return start, end, step, not any(isinstance(x, float) for x in (start, end, step))


def range(  # noqa: A001  the public name
    start=0, end=None, step=1, *, out=None, dtype=None, layout=None, device=None,
    requires_grad=False,
) -> Tensor:  # fmt: skip
    """As :func:`arange` with ``end`` included; always of the default dtype if none is given."""
    if end is None:
        start, end = 0, start
    start, end, step = (number("range", x) for x in (start, end, step))
    if step == 0:
        fail(ShapeError, "range", "step must be nonzero")
    if (end - start) * step < 0:
        fail(ShapeError, "range", "upper bound and lower bound inconsistent with step sign")
    n = math.floor((end - start) / step) + 1
    x = target("range", out, (n,), dtype, device)
    return leaf(fills("count")(x, float(start), float(step)), requires_grad, layout)


def linspace(
    start, end, steps, *, out=None, dtype=None, layout=None, device=None, requires_grad=False
) -> Tensor:
    """``steps`` numbers from ``start`` to ``end``, both included, evenly spaced."""
    if not hasattr(steps, "__index__"):
        fail(ArgumentTypeError, "linspace", f"steps must be an int, got {type(steps).__name__}")
    if steps < 0:
        fail(ShapeError, "linspace", f"number of steps must be non-negative, got {steps}")
    x = target("linspace", out, (steps,), dtype, device)
    a, b = (float(number("linspace", v)) for v in (start, end))
    return leaf(fills("between")(x, a, b, float(steps)), requires_grad, layout)


def logspace(
    start, end, steps, base=10.0, *, out=None, dtype=None, layout=None, device=None,
    requires_grad=False,
) -> Tensor:  # fmt: skip
    """``base`` to the powers of :func:`linspace`."""
    powers = linspace(start, end, steps, dtype=D.float64, device=device)
    x = target("logspace", out, (powers.numel(),), dtype, device)
    return leaf(x.copy_(OPS["pow"](float(base), powers).to(x.dtype)), requires_grad, layout)


def eye(
    n, m=None, *, out=None, dtype=None, layout=None, device=None, requires_grad=False
) -> Tensor:
    """``n`` by ``m`` (default ``n``) zeros with ones on the diagonal."""
    shape = (n, n if m is None else m)
    if shape[0] < 0 or shape[1] < 0:
        fail(ShapeError, "eye", f"sizes must be greater or equal to 0, got {shape}")
    return leaf(fills("identity")(target("eye", out, shape, dtype, device)), requires_grad, layout)


# Index patterns ----------------------------------------------------------------------------------


def tril_indices(row, col, offset=0, *, dtype=None, device=None, layout=None) -> Tensor:
    """[2, n]: rows and columns of the lower triangle of a matrix, row by row."""
    return _triangle("tril_indices", row, col, offset, dtype, device, "tril")


def triu_indices(row, col, offset=0, *, dtype=None, device=None, layout=None) -> Tensor:
    """[2, n]: rows and columns of the upper triangle of a matrix, row by row."""
    return _triangle("triu_indices", row, col, offset, dtype, device, "triu")


def _triangle(name, row, col, offset, dtype, device, part):
    with outside():
        mask = ones(*sizes(name, (row, col)), dtype=D.uint8, device=device)
        places = OPS[part](mask, offset).nonzero()
        return places.t().contiguous().to(element_type(dtype, D.int64))


def meshgrid(*tensors, indexing=None) -> tuple:
    """Each vector expanded over the dimensions of the others.

    Args:
        indexing: "ij" (the default): dimension i varies with vector i; "xy": the first two
            dimensions are exchanged.
    """
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tensors[0]
    if indexing not in (None, "ij", "xy"):
        fail(ShapeError, "meshgrid", f"indexing must be one of 'xy' or 'ij', got {indexing!r}")
    if not tensors:
        fail(ShapeError, "meshgrid", "expects a non-empty TensorList")
    need_tensor("meshgrid", *tensors)
    for x in tensors:
        if x.ndim > 1:
            fail(ShapeError, "meshgrid", f"Expected 0D or 1D tensors, got {x.ndim}D")
        if x.dtype is not tensors[0].dtype:
            fail(ShapeError, "meshgrid", "expects all tensors to have the same dtype")
    shape = [x.numel() for x in tensors]
    n = len(shape)
    swap = indexing == "xy" and n > 1
    grids = []
    for i, x in enumerate(tensors):
        grid = x.reshape([-1 if d == i else 1 for d in builtins.range(n)]).expand(shape)
        grids.append(grid.transpose(0, 1) if swap else grid)
    return tuple(grids)


def cartesian_prod(*tensors) -> Tensor:
    """[n, k]: all tuples of one element from each of ``k`` vectors."""
    for x in tensors:
        if x.ndim != 1:
            fail(ShapeError, "cartesian_prod", f"Expect a 1D vector, but got shape {x.shape}")
    if len(tensors) == 1:
        return tensors[0]
    grids = meshgrid(*tensors)
    return OPS["stack"]([g.reshape(-1) for g in grids], 1)


def combinations(input, r=2, with_replacement=False) -> Tensor:  # noqa: A002
    """[n, r]: all choices of ``r`` elements of a vector, in lexicographic order."""
    if input.ndim != 1:
        fail(ShapeError, "combinations", f"Expect a 1D vector, but got shape {input.shape}")
    if r < 0:
        fail(ShapeError, "combinations", f"Expect a non-negative number, but got {r}")
    if r == 0:
        return empty(0, dtype=input.dtype)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    flat = list(itertools.chain.from_iterable(choose(builtins.range(input.numel()), r)))
    from_python = input.new_tensor(flat, dtype=D.int64)
    return OPS["index_select"](input, 0, from_python).reshape(-1, r)


def complex(real, imag, *, out=None):  # noqa: A001  the public name
    """Refused: there are no complex dtypes."""
    refuse_complex("complex")


def polar(abs, angle, *, out=None):  # noqa: A002
    """Refused: there are no complex dtypes."""
    refuse_complex("polar")


# Methods -----------------------------------------------------------------------------------------


def _new(function, name):
    def method(self, *size, dtype=None, device=None, requires_grad=False, layout=None,
               pin_memory=False, **named):  # fmt: skip
        dtype = self._meta.dtype if dtype is None else dtype
        return function(*size, dtype=dtype, device=device, requires_grad=requires_grad, **named)

    method.__name__ = name
    method.__doc__ = f"As ``facula.{name[4:]}``, with the dtype of this tensor unless one is given."
    return method


for _function in (empty, zeros, ones, full, empty_strided):
    _name = f"new_{_function.__name__}"
    setattr(Tensor, _name, _new(_function, _name))


__all__ = [
    "arange", "cartesian_prod", "combinations", "complex", "empty", "empty_like", "empty_permuted",
    "empty_strided", "eye", "full", "full_like", "linspace", "logspace", "meshgrid", "ones",
    "ones_like", "polar", "range", "scalar_tensor", "tril_indices", "triu_indices", "zeros",
    "zeros_like",
]  # fmt: skip
