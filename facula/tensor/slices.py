"""Views by ints, slices, None and ``...``: shape, strides and address, without a kernel."""

from __future__ import annotations

from facula.base.errors import IndexRangeError, fail
from facula.eager.meta import meta
from facula.eager.views import View
from facula.ir.program import Node as Movement
from facula.ir.program import Value
from facula.ops.movement import reshape_, slice_


class Steps:
    """The movements of a basic subscript, made when a gradient or a change in place needs them."""

    __slots__ = ("own", "cuts", "shape", "_made")

    def __init__(self, own, cuts, shape):
        # cuts: (dim, start, length, step) of each dimension that is not whole.
        self.own, self.cuts, self.shape, self._made = own, cuts, shape, None

    def _steps(self):
        if self._made is None:
            value, made = Value(self.own.dtype, tuple(self.own.shape)), []
            for dim, start, length, step in self.cuts:
                params = {"dim": dim, "start": start, "length": length, "step": step}
                value = _moved(slice_, value, params, made)
            if tuple(value.shape) != self.shape:
                value = _moved(reshape_, value, {"shape": self.shape}, made)
            self._made = made
        return self._made

    def __iter__(self):
        return iter(self._steps())

    def __reversed__(self):
        return reversed(self._steps())

    def __len__(self):
        return len(self._steps())

    def __getitem__(self, i):
        return self._steps()[i]


def _moved(primitive, value, params, made):
    node = Movement(primitive, (value,), params, ())
    ((dtype, shape),) = primitive.infer(value, **params)
    node.outputs = (Value(dtype, tuple(shape), node),)
    made.append(node)
    return node.outputs[0]


def view_of(own, index) -> View:
    """The View of basic subscripts on tensors of meta ``own``."""
    shape, strides, offset, cuts, dim = [], [], 0, [], 0
    consumed = sum(1 for i in index if i is not None and i is not Ellipsis)
    if consumed > own.ndim:
        if own.ndim == 0 and consumed == 1:
            fail(IndexRangeError, "index", "invalid index of a 0-dim tensor. Use `tensor.item()` "
                 "in Python to convert a 0-dim tensor to a number")  # fmt: skip
        fail(IndexRangeError, "index", f"too many indices for tensor of dimension {own.ndim}")
    if sum(1 for i in index if i is Ellipsis) > 1:
        fail(IndexRangeError, "index", "an index can only have a single ellipsis ('...')")
    for i in index:
        if i is None:
            shape.append(1)
            strides.append(strides_after(own, dim))
        elif i is Ellipsis:
            until = dim + own.ndim - consumed
            shape += own.shape[dim:until]
            strides += own.strides[dim:until]
            dim = until
        elif isinstance(i, slice):
            start, length, step = bounds(i, own.shape[dim])
            if (start, length, step) != (0, own.shape[dim], 1):
                cuts.append((dim, start, length, step))
            shape.append(length)
            strides.append(own.strides[dim] * step)
            offset += start * own.strides[dim] if length else 0
            dim += 1
        else:
            n, at = own.shape[dim], i.__index__()
            if not -n <= at < n:
                fail(IndexRangeError, "index", f"index {at} is out of bounds for dimension {dim} "
                     f"with size {n}")  # fmt: skip
            at += n if at < 0 else 0
            cuts.append((dim, at, 1, 1))
            offset += at * own.strides[dim]
            dim += 1
    shape += own.shape[dim:]
    strides += own.strides[dim:]
    new = meta(shape, strides, own.dtype, False, own.device)
    title = "SelectBackward0" if len(shape) < own.ndim else "SliceBackward0"
    steps = Steps(own, cuts, tuple(shape))
    return View(own, new, offset * own.dtype.itemsize, steps, title)


def strides_after(own, dim):
    """The stride of a new dimension of size 1 before ``dim``, as ``unsqueeze`` gives it."""
    return own.shape[dim] * own.strides[dim] if dim < own.ndim else 1


def bounds(s, n):
    """(start, length, step) of a slice of a dimension of size ``n``."""
    step = 1 if s.step is None else s.step.__index__()
    if step <= 0:
        raise ValueError("index: slice step must be positive, got " + str(step)
                         + "; hint: flip(...) reverses a dimension")  # fmt: skip
    start, stop, step = slice(
        None if s.start is None else s.start.__index__(),
        None if s.stop is None else s.stop.__index__(),
        step,
    ).indices(n)
    return start, max(0, -((start - stop) // step)), step
