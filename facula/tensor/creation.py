"""Making tensors."""

from __future__ import annotations

import array
import ctypes
import struct

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, ShapeError, fail
from facula.tensor import memory
from facula.tensor.memory import FORMATS
from facula.tensor.tensor import Tensor


def tensor(data, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor with the values of nested lists, a number or an array."""
    if isinstance(data, Tensor):
        data = data.tolist()
    elif hasattr(data, "__array__"):
        data = data.tolist() if dtype else data
        if not isinstance(data, (list, int, float, bool)):
            from facula.tensor.interop import from_numpy

            return from_numpy(data.copy()).requires_grad_(requires_grad)
    shape, flat = _flat(data)
    if dtype is None:
        kinds = [D.of_scalar(x) for x in flat]
        dtype = D.result_type((), (), kinds) if kinds else D.get_default_dtype()
    x = memory.empty(shape, dtype)
    if dtype is D.bfloat16:
        words = [struct.unpack("<I", struct.pack("<f", v))[0] for v in flat]
        raw = array.array("H", [(w + 0x7FFF + (w >> 16 & 1)) >> 16 for w in words]).tobytes()
    else:
        if dtype.kind in "iu":
            flat = [int(v) for v in flat]
        raw = struct.pack(f"{len(flat)}{FORMATS[dtype]}", *flat)
    ctypes.memmove(x._ptr, raw, len(raw))
    return x.requires_grad_(requires_grad) if requires_grad else x


def _flat(data):
    if isinstance(data, (int, float)):
        return (), [data]
    if isinstance(data, Tensor):
        return tuple(data.shape), [data.item()]
    if not isinstance(data, (list, tuple)):
        fail(ArgumentTypeError, "tensor", f"could not infer dtype of {type(data).__name__}")
    parts = [_flat(x) for x in data]
    shapes = {shape for shape, _ in parts}
    if len(shapes) > 1:
        fail(ShapeError, "tensor", "nested lists of different lengths")
    inner = shapes.pop() if shapes else ()
    return (len(data), *inner), [v for _, flat in parts for v in flat]


def empty(*size, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor of that shape, its elements not initialised."""
    shape = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    return memory.empty(tuple(map(int, shape)), dtype).requires_grad_(requires_grad)
