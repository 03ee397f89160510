"""Tensors from what Python programs have at hand: numbers, nested lists, arrays, buffers."""

from __future__ import annotations

import array
import ctypes
import warnings
from itertools import chain

from facula.base import dtypes as D
from facula.base.errors import (
    ArgumentError,
    ArgumentTypeError,
    DtypeError,
    fail,
)
from facula.eager.grad_mode import capture, refuse
from facula.eager.meta import contiguous
from facula.eager.tensor import Tensor, set_constructor, wrap
from facula.runtime import storage
from facula.tensor.creation import (
    check_device,
    element_type,
    empty,
    leaf,
    memory_for,
    number,
    refuse_complex,
)
from facula.tensor.interop import READS_ARRAY, from_dlpack, from_numpy, plain_dtypes

_CODES = {
    D.uint8: "B", D.int8: "b", D.int16: "h", D.int32: "i", D.int64: "q", D.float32: "f",
    D.float64: "d",
}  # fmt: skip


def tensor(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested sequences, an array or a tensor.

    Args:
        dtype: bools make bool, ints int64, floats the default dtype, arrays their own, unless
            it is given.

    Raises:
        ValueError: sequences of different lengths on one level.
        TypeError: elements that are no numbers.

    >>> tensor([[1, 2], [3, 4]]).dtype
    facula.int64
    """
    if device is not None:
        check_device(device)
    if dtype is not None:
        dtype = element_type(dtype)
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach()."
            "clone() or sourceTensor.detach().clone().requires_grad_(True), rather than "
            "facula.tensor(sourceTensor).",
            stacklevel=2,
        )
        x = data.detach().clone()
        return leaf(x if dtype is None else x.to(dtype), requires_grad)
    x, trace = _copied(data, dtype), capture.trace
    if trace is not None and not trace.cuts and not requires_grad:
        return trace.constant(x)
    return leaf(x, requires_grad)


def _copied(data, dtype) -> Tensor:
    kind = type(data)
    if kind is float or kind is int or kind is bool:
        flat, shape = [data], ()
    elif kind is list or kind is tuple:
        flat, shape = _flattened(data)
    elif isinstance(data, (str, bytes, dict, set)):
        fail(ArgumentTypeError, "tensor", f"invalid data type {kind.__name__!r}")
    elif getattr(data, "shape", None) == () and hasattr(data, "item"):
        # NumPy's numbers: Python floats among them count as such.
        own = None if isinstance(data, float) else D.from_numpy(data.dtype)
        return _filled([data.item()], (), dtype or own)
    elif hasattr(data, "__dlpack__") and not hasattr(data, "__array__"):
        x = from_dlpack(data).clone()
        return x if dtype is None else x.to(dtype)
    elif hasattr(data, "__array__"):
        return _of_array(data, dtype)
    elif isinstance(data, (int, float)):
        flat, shape = [data], ()
    elif isinstance(data, complex):
        refuse_complex("tensor")
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        flat, shape = _flattened(list(data))
    else:
        fail(ArgumentTypeError, "tensor", f"Could not infer dtype of {kind.__name__}")
    return _filled(flat, shape, dtype)


def _of_array(data, dtype):
    import numpy

    refuse(READS_ARRAY)
    a = numpy.asarray(data)
    own = plain_dtypes.get(a.dtype)
    if own is not None and a.flags.c_contiguous and dtype in (None, own):
        x = memory_for("tensor", a.shape, own)
        ctypes.memmove(x._ptr, a.__array_interface__["data"][0], a.nbytes)
        return x
    if not a.flags.writeable or any(s < 0 for s in a.strides):
        a = a.copy()
    x = from_numpy(a)
    return x.clone().contiguous() if dtype is None or dtype is x.dtype else x.to(dtype).contiguous()


def _flattened(data):
    """(elements in a flat list, shape) of nested sequences."""
    shape, level = [len(data)], data
    while level and isinstance(level[0], (list, tuple)):
        lengths = set(map(_length, level))
        if len(lengths) > 1:
            n = len(level[0])
            other = next(m for m in map(_length, level) if m != n)
            got = f"got {other}" if other >= 0 else "got a number"
            fail(
                ArgumentError,
                "tensor",
                f"expected sequence of length {n} at dim {len(shape)} ({got})",
            )
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def _length(x):
    return len(x) if isinstance(x, (list, tuple)) else -1


def _filled(flat, shape, dtype) -> Tensor:
    """A tensor of numbers in row-major order; ``dtype`` None infers it."""
    kinds = set(map(type, flat))
    if not kinds <= {float, int, bool}:
        if any(getattr(x, "ndim", 0) for x in flat) or any(_is_sequence(x) for x in flat):
            return _of_parts(flat, shape, dtype)
        if dtype is None:
            dtype = _common_dtype(flat)
        flat = [number("tensor", x) for x in flat]
    elif dtype is None:
        if float in kinds or not kinds:
            dtype = D.get_default_dtype()
        else:
            dtype = D.int64 if int in kinds else D.bool_
    x = memory_for("tensor", shape, dtype)
    _store(x, flat, kinds)
    return x


def _is_sequence(x) -> bool:
    return isinstance(x, (list, tuple))


def _common_dtype(flat):
    """The dtype of numbers of which some are NumPy's or 0-dim tensors."""
    found = None
    for x in flat:
        own = getattr(x, "dtype", None)
        if isinstance(x, (bool, int, float)) or own is None:
            own = D.of_scalar(number("tensor", x))
        elif not isinstance(own, D.dtype):
            own = D.from_numpy(own)
        found = own if found is None else D.promote_types(found, own)
    return found


def _of_parts(parts, shape, dtype):
    """A tensor of sequences among which there are arrays."""
    if any(_is_sequence(x) for x in parts):
        fail(ArgumentError, "tensor", "sequences and numbers on one level")
    if any(isinstance(x, Tensor) and x.numel() != 1 for x in parts):
        fail(ArgumentError, "tensor", "only one element tensors can be converted to Python scalars",
             "join tensors with facula.stack")  # fmt: skip
    import numpy

    return _of_array(numpy.array([numpy.asarray(x) for x in parts]), dtype).reshape(*shape, -1)


def _store(x, flat, kinds) -> None:
    """Write Python numbers into the memory of ``x``."""
    if not flat:
        return
    dtype = x._meta.dtype
    if dtype is D.bool_:
        raw = bytes(map(bool, flat))
        ctypes.memmove(x._ptr, raw, len(raw))
        return
    code = _CODES.get(dtype)
    if code is None:
        # Half precisions: the conversion is the cast's.
        wide = memory_for("tensor", x._meta.shape, D.float32)
        _store(wide, flat, kinds)
        x.copy_(wide)
        return
    if dtype.kind != "f" and not kinds <= {int, bool}:
        flat = [_whole(v) for v in flat]
    try:
        values = array.array(code, flat)
    except OverflowError:
        fail(DtypeError, "tensor", f"value cannot be converted to {dtype.name} without overflow")
    ctypes.memmove(x._ptr, values.buffer_info()[0], x._meta.nbytes)


def _whole(v) -> int:
    if v != v or v in (float("inf"), -float("inf")):
        fail(ArgumentError, "tensor", f"cannot convert {v} to an integer")
    return int(v)


def as_tensor(data, dtype=None, device=None) -> Tensor:
    """``data`` as a tensor; tensors and arrays share their memory where no conversion is needed."""
    check_device(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(element_type(dtype))
    if hasattr(data, "__array_interface__") and getattr(data, "shape", ()) != ():
        x = from_numpy(data)
        return x if dtype is None else x.to(element_type(dtype))
    return tensor(data, dtype=dtype)


def asarray(obj, *, dtype=None, device=None, copy=None, requires_grad=False) -> Tensor:
    """``obj`` (tensor, array, DLPack, buffer or sequence) as a tensor, sharing memory if possible.

    Args:
        copy: True always copies, False refuses to, None copies where it must.
    """
    check_device(device)
    if isinstance(obj, Tensor):
        x, shared = obj, True
    elif hasattr(obj, "__array_interface__") and getattr(obj, "shape", ()) != ():
        x, shared = from_numpy(obj), True
    elif hasattr(obj, "__dlpack__"):
        x, shared = from_dlpack(obj), True
    elif not isinstance(obj, (int, float, list, tuple)) and _has_buffer(obj):
        x = frombuffer(obj, dtype=element_type(dtype))
        shared = True
    else:
        x, shared = tensor(obj, dtype=dtype), False
    wanted = x.dtype if dtype is None else element_type(dtype)
    if copy is False and (not shared or wanted is not x.dtype):
        fail(ArgumentError, "asarray", "can't alias arbitrary sequences or other dtypes; a copy "
             "was excluded by copy=False")  # fmt: skip
    if copy and shared:
        x = x.clone()
    x = x.to(wanted)
    if requires_grad and not x.requires_grad:
        x = x.detach().requires_grad_()
    return x if requires_grad or not x.requires_grad else x.detach()


def _has_buffer(obj) -> bool:
    try:
        memoryview(obj)
    except TypeError:
        return False
    return True


def frombuffer(buffer, *, dtype, count=-1, offset=0, requires_grad=False) -> Tensor:
    """A 1-D tensor over the memory of an object with the buffer protocol.

    Args:
        count: how many elements; all that fit by default.
        offset: bytes to skip.

    Raises:
        ValueError: an empty buffer, or numbers that do not fit it.
    """
    view = memoryview(buffer)
    if view.readonly:
        warnings.warn(
            "The given buffer is not writable. Writing to the tensor is undefined behavior; "
            "copy it with bytearray first",
            stacklevel=2,
        )
    view, dtype = view.cast("B"), element_type(dtype)
    size = dtype.itemsize
    if view.nbytes == 0 or count == 0:
        fail(ArgumentError, "frombuffer", f"both buffer length ({view.nbytes}) and count ({count}) "
             "must not be 0")  # fmt: skip
    if not 0 <= offset < view.nbytes:
        fail(ArgumentError, "frombuffer", f"offset ({offset} bytes) must be non-negative and no "
             f"greater than buffer length ({view.nbytes} bytes) minus 1")  # fmt: skip
    room = view.nbytes - offset
    if count < 0:
        if room % size:
            fail(ArgumentError, "frombuffer", f"buffer length ({room} bytes) after offset "
                 f"({offset} bytes) must be a multiple of element size ({size})")  # fmt: skip
        count = room // size
    if count * size > room:
        fail(ArgumentError, "frombuffer", f"requested buffer length ({count} * {size} bytes) after "
             f"offset ({offset} bytes) must not be greater than actual buffer length "
             f"({view.nbytes} bytes)")  # fmt: skip
    address, owner = _address(view)
    block = storage.wrap(address + offset, count * size, owner)
    return leaf(wrap(contiguous((count,), dtype), block.ptr, block), requires_grad)


class _PyBuffer(ctypes.Structure):
    """The head of CPython's Py_buffer, which is all that is read here."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("rest", ctypes.c_byte * 128),
    ]


def _address(view):
    """(address, object that keeps it valid) of a byte view, read-only or not."""
    if not view.readonly:
        exported = (ctypes.c_char * view.nbytes).from_buffer(view)
        return ctypes.addressof(exported), exported
    info = _PyBuffer()
    get = ctypes.pythonapi.PyObject_GetBuffer
    get.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
    get(view, ctypes.addressof(info), 0)
    address = info.buf
    # The memoryview holds the exporter; this second export has told the address.
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(info))
    return address, view


# Tensor(...) and the typed constructors ----------------------------------------------------------


def _construct(cls, *args, dtype=None, device=None) -> Tensor:
    """``Tensor(2, 3)`` is memory of that shape, ``Tensor([1, 2])`` a tensor of those values."""
    check_device(device)
    if len(args) == 1 and not isinstance(args[0], int):
        (data,) = args
        if isinstance(data, Tensor):
            return data.detach() if dtype in (None, data.dtype) else data.to(dtype)
        if type(data).__name__ == "Size":
            return empty(data, dtype=dtype)
        return tensor(data, dtype=dtype or D.get_default_dtype())
    return empty(*args, dtype=dtype) if args else empty(0, dtype=dtype)


set_constructor(_construct)


class _Typed(type):
    """Classes that stand for tensors of one dtype, as in ``isinstance(x, FloatTensor)``."""

    def __instancecheck__(cls, x):
        return isinstance(x, Tensor) and x._meta.dtype is cls.dtype

    def __call__(cls, *args, device=None):
        return _construct(Tensor, *args, dtype=cls.dtype, device=device)


def _typed(name, dtype):
    doc = f"Tensors of dtype {dtype.name}; PyTorch's older way to say ``tensor(..., dtype=...)``."
    return _Typed(name, (), {"dtype": dtype, "__doc__": doc, "__module__": "facula"})


FloatTensor, DoubleTensor = _typed("FloatTensor", D.float32), _typed("DoubleTensor", D.float64)
HalfTensor, BFloat16Tensor = _typed("HalfTensor", D.float16), _typed("BFloat16Tensor", D.bfloat16)
LongTensor, IntTensor = _typed("LongTensor", D.int64), _typed("IntTensor", D.int32)
ShortTensor, CharTensor = _typed("ShortTensor", D.int16), _typed("CharTensor", D.int8)
ByteTensor, BoolTensor = _typed("ByteTensor", D.uint8), _typed("BoolTensor", D.bool_)


def _new_tensor(self, data, *, dtype=None, device=None, requires_grad=False):
    """As ``facula.tensor``, with the dtype of this tensor unless one is given."""
    if isinstance(data, Tensor):
        x = data.detach().clone().to(element_type(dtype, self.dtype))
        return leaf(x, requires_grad)
    dtype = self._meta.dtype if dtype is None else dtype
    return tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)


def _new(self, *args, device=None):
    """As the constructor of this tensor's type."""
    return _construct(Tensor, *args, dtype=self.dtype, device=device)


Tensor.new_tensor, Tensor.new = _new_tensor, _new


def is_tensor(obj) -> bool:
    """Whether ``obj`` is a tensor."""
    return isinstance(obj, Tensor)


__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor",
    "HalfTensor", "IntTensor", "LongTensor", "ShortTensor", "as_tensor", "asarray", "frombuffer",
    "is_tensor", "tensor",
]  # fmt: skip
