"""Operands that share memory with what is written, set apart: the kernel reads old values."""

from __future__ import annotations

import ctypes

from facula.eager import tape, views
from facula.eager.grad_mode import mode
from facula.eager.tensor import Tensor, wrap
from facula.runtime import storage


def apart(x, y, always=False):
    """``y``, or a copy of it if writing ``x`` would change it under the kernel's hands.

    Elements that are read where they are written do no harm, but with ``always`` are copied too.
    """
    if not isinstance(y, Tensor):
        if isinstance(y, (list, tuple)):
            return type(y)(apart(x, z, always) for z in y)
        return y
    if y._storage is not x._storage:
        return y
    a, b = x._meta, y._meta
    if not always and y._ptr == x._ptr and a.shape == b.shape and a.strides == b.strides:
        return y
    return _copied(y) if overlap(x, y) else y


def _copied(y):
    """A copy of the memory of ``y``, in the same strides: a plan is made for those."""
    first, end = span(y)
    block = storage.allocate(end - first)
    ctypes.memmove(block.ptr, first, end - first)
    z = wrap(y._meta, block.ptr, block)
    if y._meta.requires_grad and mode.grad is not False:
        z._grad_fn = tape.start(views.ViewNode(), tape.edge(y))
        z._grad_fn.chain, z._grad_fn.title = (), "CloneBackward0"
    return z


def overlap(x, y) -> bool:
    """Whether the memory ranges of two tensors meet."""
    x0, x1 = span(x)
    y0, y1 = span(y)
    return x0 < y1 and y0 < x1


def span(x) -> tuple[int, int]:
    """The addresses of a tensor's first byte and of the one after its last."""
    m = x._meta
    if m.numel == 0:
        return x._ptr, x._ptr
    last = sum((n - 1) * s for n, s in zip(m.shape, m.strides))
    return x._ptr, x._ptr + (last + 1) * m.dtype.itemsize
