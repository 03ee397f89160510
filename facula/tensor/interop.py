"""Memory shared with NumPy and, by DLPack, with other libraries: never a copy.

DLPack (https://dmlc.github.io/dlpack): a struct that tells where an array lies, in a capsule with
a function that gives it back. Ours are built by ctypes; versions before 1.0 of the standard.
"""

from __future__ import annotations

import ctypes
import warnings

from facula.base import dtypes as D
from facula.base.changes import shown
from facula.base.errors import ArgumentTypeError, AutogradError, DtypeError, UnsupportedError, fail
from facula.eager.grad_mode import refuse
from facula.eager.meta import contiguous, meta
from facula.eager.tensor import Tensor, wrap
from facula.runtime import storage

# NumPy -------------------------------------------------------------------------------------------


#: NumPy's dtypes met so far that tensors have.
plain_dtypes: dict = {}


#: Why a function that does is not captured as a whole.
READS_ARRAY = "reads an array of NumPy's, which may be another at the next call"


def from_numpy(ndarray) -> Tensor:
    """A tensor over the memory of an array; a change of one is a change of both.

    Raises:
        TypeError: not an array, or of a dtype that tensors do not have.
        ValueError: negative strides, or strides that are no multiple of the element size.
    """
    if not hasattr(ndarray, "__array_interface__"):
        fail(ArgumentTypeError, "from_numpy", f"expected np.ndarray (got {type(ndarray).__name__})")
    refuse(READS_ARRAY)
    a = ndarray
    dtype = plain_dtypes.get(a.dtype)
    flags = a.flags
    if dtype is not None and flags.c_contiguous and flags.writeable:
        own = contiguous(a.shape, dtype)
        block = storage.wrap(a.__array_interface__["data"][0], own.nbytes, a)
        return wrap(own, block.ptr, block)
    if a.dtype.kind == "c":
        fail(UnsupportedError, "from_numpy", "complex numbers are not supported",
             "use .real and .imag")  # fmt: skip
    if not a.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion "
            "between byte orders is currently not supported."
        )
    dtype = plain_dtypes[a.dtype] = D.from_numpy(a.dtype)
    size = dtype.itemsize
    if any(s < 0 for s in a.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array with array.copy().)"
        )
    if any(s % size for s in a.strides):
        raise ValueError(
            "given numpy array strides not a multiple of the element byte size. Copy the numpy "
            "array to reallocate the memory."
        )
    if not a.flags.writeable:
        warnings.warn(
            "The given NumPy array is not writable. Writing to the tensor is undefined behavior; "
            "copy the array first",
            stacklevel=2,
        )
    own = meta(a.shape, [s // size for s in a.strides], dtype)
    return wrap(own, *_foreign(a.__array_interface__["data"][0], own, a))


def _foreign(address, own, owner):
    """(address, Storage) of memory of somebody else that tensors of meta ``own`` lie in."""
    n = _span(own) * own.dtype.itemsize
    block = storage.wrap(address or 0, n, owner)
    return block.ptr, block


def _span(own) -> int:
    """Elements between the first and the last, both included."""
    if not own.numel:
        return 0
    return sum((n - 1) * s for n, s in zip(own.shape, own.strides)) + 1


def numpy(self, *, force=False):
    """An array over the memory of the tensor; a change of one is a change of both.

    Args:
        force: detach first.

    Raises:
        RuntimeError: the tensor requires grad.
        TypeError: bfloat16, which NumPy does not have.
    """
    own = self._meta
    if own.requires_grad and not force:
        fail(AutogradError, "numpy", "Can't call numpy() on Tensor that requires grad. Use "
             "tensor.detach().numpy() instead.")  # fmt: skip
    return _array_of(self)


def _array_of(x):
    import numpy

    own = x._meta
    if own.numel == 0:
        return numpy.empty(tuple(own.shape), own.dtype.numpy())
    size = own.dtype.itemsize
    array = numpy.ndarray(
        tuple(own.shape), own.dtype.numpy(), x._storage, x._ptr - x._storage.ptr,
        tuple(s * size for s in own.strides),
    )  # fmt: skip
    shown.add(x._storage, array)
    return array


def _array(self, dtype=None, copy=None):
    """What ``numpy.asarray(tensor)`` gives."""
    a = numpy(self)
    if dtype is not None and a.dtype != dtype:
        if copy is False:
            raise ValueError(f"__array__: a copy is needed to convert {a.dtype} to {dtype}")
        return a.astype(dtype)
    return a.copy() if copy else a


def _array_wrap(self, array, context=None, return_scalar=False):
    """What NumPy's functions of a tensor return: a tensor."""
    return from_numpy(array)


def _copy(self):
    """``copy.copy``: another tensor over the same memory."""
    y = self.detach()
    y = y if type(self) is Tensor else y.as_subclass(type(self))
    return y.requires_grad_() if self._meta.requires_grad else y


# DLPack ------------------------------------------------------------------------------------------


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Array(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("array", _Array), ("context", ctypes.c_void_p), ("deleter", _Deleter)]

_CPU = 1
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT = 4
_NAME, _USED = b"dltensor", b"used_dltensor"
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)

#: Exported arrays by address: what must live until the consumer calls the deleter.
_exported: dict = {}


@_Deleter
def _delete(managed):
    address = ctypes.addressof(managed.contents)
    if address in _exported:
        shown.forget(id(_exported.pop(address)[-1]), address)


def _capi(name, result, *arguments):
    function = ctypes.pythonapi[name]
    function.restype, function.argtypes = result, arguments
    return function


_new_capsule = _capi(
    "PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)
_pointer = _capi("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
_valid = _capi("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_rename = _capi("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
# In a destructor the capsule has no references left: it is passed as an address.
_dead_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_dead_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@_Destructor
def _unused(capsule):
    """A capsule that nobody consumed gives the array back itself."""
    if _dead_valid(capsule, _NAME):
        _exported.pop(_dead_pointer(capsule, _NAME), None)


_destructor = ctypes.cast(_unused, ctypes.c_void_p)


def _dlpack(self, *, stream=None, max_version=None, dl_device=None, copy=None):
    """The tensor as a DLPack capsule.

    Raises:
        BufferError: it requires grad.
    """
    own = self._meta
    if own.requires_grad:
        raise BufferError(
            "__dlpack__: Can't export tensors that require gradient, use tensor.detach()"
        )
    if dl_device is not None and tuple(dl_device) != (_CPU, 0):
        raise BufferError(f"__dlpack__: the tensor lies on the CPU, not on device {dl_device}")
    x = self.clone() if copy else self
    code = _BFLOAT if own.dtype is D.bfloat16 else _CODES[own.dtype.kind]
    dims = ctypes.c_int64 * max(own.ndim, 1)
    shape, strides = dims(*own.shape), dims(*x._meta.strides)
    managed = _Managed()
    managed.array = _Array(
        x._ptr if own.numel else None, _Device(_CPU, 0), own.ndim,
        _DataType(code, 8 * own.dtype.itemsize, 1), shape, strides, 0,
    )  # fmt: skip
    managed.deleter = _delete
    address = ctypes.addressof(managed)
    _exported[address] = (managed, shape, strides, x._storage)
    shown.note(x._storage, address)
    return _new_capsule(address, _NAME, _destructor)


def _dlpack_device(self):
    """(device type, device id) of DLPack: the CPU."""
    return (_CPU, 0)


class _Import:
    """Foreign memory: gives it back when the last tensor over it is gone."""

    def __init__(self, managed):
        self.managed = managed

    def __del__(self):
        if self.managed.deleter:
            self.managed.deleter(ctypes.byref(self.managed))


def from_dlpack(ext_tensor, *, device=None, copy=None) -> Tensor:
    """A tensor over the memory of a DLPack capsule, or of an object with ``__dlpack__``.

    Raises:
        TypeError: neither of them, or a dtype that tensors do not have.
        BufferError: the array lies on another device.
    """
    capsule = ext_tensor
    if hasattr(ext_tensor, "__dlpack__"):
        where = tuple(ext_tensor.__dlpack_device__())
        if where[0] != _CPU:
            raise BufferError(f"from_dlpack: expected an array on the CPU, got device {where}")
        capsule = ext_tensor.__dlpack__()
    if type(capsule).__name__ != "PyCapsule" or not _valid(capsule, _NAME):
        fail(ArgumentTypeError, "from_dlpack", "expected an object with __dlpack__ or a fresh "
             f"DLPack capsule, got {type(ext_tensor).__name__}")  # fmt: skip
    managed = _Managed.from_address(_pointer(capsule, _NAME))
    _rename(capsule, _USED)
    owner = _Import(managed)
    array = managed.array
    dtype = _element_type(array.dtype)
    shape = tuple(array.shape[: array.ndim])
    own = contiguous(shape, dtype)
    if array.strides:
        own = meta(shape, array.strides[: array.ndim], dtype)
        if own.numel and min(own.strides, default=0) < 0:
            raise BufferError("from_dlpack: negative strides are not supported; hint: copy first")
    x = wrap(own, *_foreign((array.data or 0) + array.byte_offset, own, owner))
    return x.clone() if copy else x


def _element_type(t) -> D.dtype:
    for dtype in D.ALL:
        code = _BFLOAT if dtype is D.bfloat16 else _CODES[dtype.kind]
        if (t.code, t.bits, t.lanes) == (code, 8 * dtype.itemsize, 1):
            return dtype
    return fail(DtypeError, "from_dlpack", f"no dtype of DLPack's code {t.code}, {t.bits} bits, "
                f"{t.lanes} lanes")  # fmt: skip


def to_dlpack(tensor):
    """The tensor as a DLPack capsule."""
    return _dlpack(tensor)


# Storages ----------------------------------------------------------------------------------------


class UntypedStorage:
    """The bytes that tensors lie in; tensors with equal storages share memory.

    Supports the buffer protocol by :meth:`buffer`.
    """

    __slots__ = ("_block",)

    def __init__(self, block):
        self._block = block

    def nbytes(self) -> int:
        """The number of bytes."""
        return self._block.nbytes

    size = __len__ = nbytes

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return self._block.ptr

    def buffer(self) -> memoryview:
        """The bytes themselves."""
        return memoryview(self._block)

    def tolist(self) -> list:
        """The bytes as ints."""
        return self.buffer().tolist()

    def __getitem__(self, i):
        return self.buffer()[i]

    def __setitem__(self, i, byte):
        self.buffer()[i] = byte
        self._block.version += 1

    def __eq__(self, other):
        return isinstance(other, UntypedStorage) and other._block is self._block

    def __hash__(self):
        return id(self._block)

    def __repr__(self):
        return f"<facula.UntypedStorage of {len(self)} bytes at {self.data_ptr():#x}>"


def untyped_storage(self) -> UntypedStorage:
    """The memory that the tensor, and all its views, lie in."""
    return UntypedStorage(self._storage)


Tensor.numpy, Tensor.__array__, Tensor.__array_wrap__ = numpy, _array, _array_wrap
Tensor.__copy__ = _copy
Tensor.__dlpack__, Tensor.__dlpack_device__ = _dlpack, _dlpack_device
Tensor.untyped_storage = untyped_storage

__all__ = ["UntypedStorage", "from_dlpack", "from_numpy", "to_dlpack"]
