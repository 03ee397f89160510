"""Tensors to plain data and back: what pickles, process boundaries and archives have in common.

A tensor on the way is the bytes of a storage plus (dtype, offset, size, stride); here is the one
place that checks these against each other, so that no file can make a view out of bounds.
"""

from __future__ import annotations

import pickle
import warnings

from facula.base.errors import ArgumentError, ArgumentTypeError, ShapeError, fail
from facula.tensor import Tensor, empty, frombuffer

#: No array library of the field goes beyond 64 dimensions.
MAX_NDIM = 64
_MAX_NUMEL = 2**63 - 1


def check_layout(op: str, itemsize: int, nbytes: int, offset, size, stride) -> int:
    """The number of elements of a view, once it is known to lie within ``nbytes``.

    Raises:
        ArgumentTypeError: anything but ints and tuples of ints.
        ShapeError: negative or overflowing numbers, or an element out of the storage's bounds.
    """
    size, stride = tuple(size), tuple(stride)
    for number in (offset, *size, *stride):
        if type(number) is not int:
            kind = type(number).__name__
            fail(ArgumentTypeError, op, f"sizes, strides and offset must be ints, got {kind}")
        if not 0 <= number <= _MAX_NUMEL:
            fail(ShapeError, op, f"sizes, strides and offset must be in [0, 2**63), got {number}")
    if len(size) != len(stride) or len(size) > MAX_NDIM:
        fail(ShapeError, op, f"expected as many strides as sizes, got {size} and {stride}")
    numel = 1
    for n in size:
        numel *= n
    if numel > _MAX_NUMEL:
        fail(ShapeError, op, f"size {size} has more than 2**63 - 1 elements")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    held = nbytes // itemsize
    if numel and last >= held:
        fail(
            ShapeError,
            op,
            f"size {size}, stride {stride} and offset {offset} reach element {last} of a "
            f"storage of {held}",
        )
    return numel


def view(flat, offset, size, stride, requires_grad: bool):
    """A leaf of the given layout over the elements of ``flat``; the layout has been checked."""
    tensor = flat.detach().as_strided(tuple(size), tuple(stride), offset)
    if requires_grad:
        if not tensor.dtype.is_floating_point:
            fail(ArgumentError, "load", f"a tensor of dtype {tensor.dtype} cannot require grad")
        tensor.requires_grad_(True)
    return tensor


def rebuild_tensor(buffer, dtype, offset, size, stride, requires_grad=False):
    """A tensor over the memory of ``buffer``; pickles of tensors call this.

    Args:
        buffer: bytes of a storage; read-only ones are copied, others are shared.
        dtype: the dtype of the elements.
        offset, size, stride: the layout, in elements.
        requires_grad: as of the tensor that was pickled.

    Raises:
        ShapeError, ArgumentTypeError: the layout does not fit the buffer.
    """
    memory = memoryview(buffer).cast("B")
    if memory.readonly:
        memory = memoryview(bytearray(memory))
    numel = check_layout("unpickle", dtype.itemsize, memory.nbytes, offset, size, stride)
    if numel == 0:
        return view(empty(0, dtype=dtype), 0, size, stride, requires_grad)
    flat = frombuffer(memory, dtype=dtype, count=memory.nbytes // dtype.itemsize)
    return view(flat, offset, size, stride, requires_grad)


def rebuild_from_type(function, cls, args, state):
    """A tensor of a subclass: built as a plain one, then given its class and attributes."""
    tensor = function(*args)
    if type(tensor) is not cls:
        if not (isinstance(cls, type) and issubclass(cls, Tensor)):
            fail(ArgumentTypeError, "unpickle", f"expected a Tensor class, got {cls!r}")
        tensor = Tensor._make_subclass(cls, tensor, tensor.requires_grad)
    return set_attributes(tensor, state)


def set_attributes(tensor, state):
    """Give a tensor the Python attributes it was saved with, where its class can hold them."""
    if isinstance(state, tuple) and len(state) == 2:
        state = state[0]  # (__dict__, slots), as copyreg writes it
    if not state:
        return tensor
    if not isinstance(state, dict):
        fail(ArgumentTypeError, "unpickle", f"expected a dict of attributes, got {type(state)}")
    own = getattr(tensor, "__dict__", None)
    for name, value in state.items():
        # A file must not put its data where the class has a method.
        if own is None or not isinstance(name, str) or hasattr(type(tensor), name):
            warnings.warn(f"load: the tensor's attribute {name!r} is left out", stacklevel=3)
        else:
            own[name] = value
    return tensor


def is_dense(size, stride) -> bool:
    """Whether the elements fill one block of memory without a gap or an overlap."""
    expected = 1
    for step, n in sorted((s, n) for n, s in zip(size, stride) if n != 1):
        if step != expected:
            return False
        expected *= n
    return True


def storage_bytes(tensor) -> memoryview:
    """The bytes of the tensor's whole storage, shared."""
    return tensor.untyped_storage().buffer()


def dense_bytes(tensor) -> memoryview:
    """The bytes of exactly the elements of a tensor that is dense: no copy."""
    start, numel = tensor.storage_offset(), tensor.numel()
    if numel == 0:
        return memoryview(b"")
    itemsize = tensor.dtype.itemsize
    return storage_bytes(tensor)[start * itemsize : (start + numel) * itemsize]


def reduce_tensor(tensor, protocol: int):
    """What ``Tensor.__reduce_ex__`` returns: only the elements that the tensor shows.

    From protocol 5 on the bytes are a ``PickleBuffer``, which goes out of band where the pickler
    has a ``buffer_callback``: no copy is made here then.
    """
    size, stride, requires_grad = tuple(tensor.shape), tuple(tensor.stride()), tensor.requires_grad
    dense = tensor.detach()
    if not is_dense(size, stride):
        dense = dense.contiguous()
        stride = tuple(dense.stride())
    data = dense_bytes(dense)
    data = pickle.PickleBuffer(data) if protocol >= 5 else bytes(data)
    args = (data, tensor.dtype, 0, size, stride, requires_grad)
    cls, state = type(tensor), getattr(tensor, "__dict__", None)
    if cls is Tensor and not state:
        return rebuild_tensor, args
    return rebuild_from_type, (rebuild_tensor, cls, args, state)
