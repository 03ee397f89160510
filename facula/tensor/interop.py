"""To and from NumPy."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.runtime import storage
from facula.tensor.meta import meta
from facula.tensor.tensor import Tensor, wrap


def from_numpy(a) -> Tensor:
    """A tensor over the memory of an array."""
    dtype = D.from_numpy(a.dtype)
    strides = tuple(s // dtype.itemsize for s in a.strides)
    last = sum((n - 1) * s for n, s in zip(a.shape, a.strides)) if a.size else -dtype.itemsize
    block = storage.wrap(a.ctypes.data, last + dtype.itemsize, a)
    return wrap(meta(a.shape, strides, dtype), block.ptr, block)


def numpy(self, *, force=False):
    """An array over the memory of the tensor."""
    import numpy

    x = self.detach() if force else self
    if x.requires_grad:
        raise RuntimeError(
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )
    size = x.itemsize
    return numpy.ndarray(
        x.shape, x.dtype.numpy(), x._storage, x._ptr - x._storage.ptr,
        tuple(s * size for s in x.stride()),
    )  # fmt: skip


Tensor.numpy = numpy
