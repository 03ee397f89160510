"""Tensors and plain memory: new tensors, single values, nested lists."""

from __future__ import annotations

import ctypes
import struct

from facula.base import dtypes as D
from facula.base.device import CPU
from facula.base.errors import ShapeError, fail
from facula.eager.meta import contiguous
from facula.eager.tensor import Tensor, wrap
from facula.runtime import storage

#: struct's letters for dtypes; bfloat16 is read as the upper half of a float32.
FORMATS = {
    D.bool_: "?",
    D.uint8: "B",
    D.int8: "b",
    D.int16: "h",
    D.int32: "i",
    D.int64: "q",
    D.float16: "e",
    D.float32: "f",
    D.float64: "d",
}
_C_TYPES = {
    D.bool_: ctypes.c_bool,
    D.uint8: ctypes.c_uint8,
    D.int8: ctypes.c_int8,
    D.int16: ctypes.c_int16,
    D.int32: ctypes.c_int32,
    D.int64: ctypes.c_int64,
    D.float32: ctypes.c_float,
    D.float64: ctypes.c_double,
}


def allocate(meta) -> Tensor:
    """A row-major tensor of that shape and dtype, its elements not initialised."""
    if not meta.contiguous:
        meta = contiguous(meta.shape, meta.dtype, meta.requires_grad, meta.device)
    block = storage.allocate(meta.nbytes)
    return wrap(meta, block.ptr, block)


def empty(shape, dtype=None, device=CPU) -> Tensor:
    """A new tensor, its elements not initialised."""
    return allocate(contiguous(tuple(shape), dtype or D.get_default_dtype(), False, device))


def read(address: int, dtype):
    """The Python number at an address."""
    kind = _C_TYPES.get(dtype)
    if kind is not None:
        return kind.from_address(address).value
    return decoded(ctypes.string_at(address, 2), dtype)[0]


def decoded(data: bytes, dtype) -> list:
    """The numbers that bytes hold."""
    if dtype is D.bfloat16:
        halves = struct.unpack(f"<{len(data) // 2}H", data)
        words = struct.pack(f"<{len(halves)}I", *(h << 16 for h in halves))
        return list(struct.unpack(f"<{len(halves)}f", words))
    return list(struct.unpack(f"{len(data) // dtype.itemsize}{FORMATS[dtype]}", data))


def item(x):
    """The one element of ``x`` as a Python number."""
    if x._meta.numel != 1:
        fail(
            ShapeError,
            "item",
            f"a Tensor with {x._meta.numel} elements cannot be converted to Scalar",
            "use tolist() for several",
        )
    return read(x._ptr, x._meta.dtype)


def tolist(x):
    """The elements as nested lists; of a 0-dim tensor, the number."""
    if x._meta.ndim == 0:
        return read(x._ptr, x._meta.dtype)
    if not x._meta.contiguous:
        x = x.detach().contiguous()
    flat = decoded(ctypes.string_at(x._ptr, x._meta.nbytes), x._meta.dtype)
    for n in reversed(x._meta.shape[1:]):
        outer = len(flat) // n if n else x._meta.shape[:-1].numel()
        flat = [flat[i * n : (i + 1) * n] for i in range(outer)]
    return flat if x._meta.numel else _empty_lists(x._meta.shape)


def _empty_lists(shape):
    return [] if len(shape) == 1 else [_empty_lists(shape[1:]) for _ in range(shape[0])]


def resize(x, shape):
    """Give ``x`` another shape, row-major; more memory if what it has is too small."""
    new = contiguous(tuple(shape), x._meta.dtype, x._meta.requires_grad, x._meta.device)
    have = x._storage.nbytes - (x._ptr - x._storage.ptr)
    if new.nbytes > have:
        block = storage.allocate(new.nbytes)
        kept = min(have, new.nbytes)
        ctypes.memmove(block.ptr, x._ptr, kept)
        x._ptr, x._storage = block.ptr, block
    x._meta = new
    return x
