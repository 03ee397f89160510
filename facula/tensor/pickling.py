"""Tensors to plain data and back: what pickles, process boundaries and files have in common.

A tensor on the way is the bytes of a storage plus (dtype, offset, size, stride); here is the one
place that checks these against each other, so that no file can make a view out of bounds.
"""

from __future__ import annotations

import ctypes
import pickle
import warnings

from facula.base.errors import ArgumentError, ArgumentTypeError, ShapeError, fail
from facula.eager.meta import meta
from facula.eager.tensor import Tensor, wrap
from facula.runtime import storage

#: No array library of the field goes beyond 64 dimensions.
MAX_NDIM = 64
_MAX_NUMEL = 2**63 - 1
#: Memory of others must suit every dtype.
_ALIGNMENT = 8


def storage_over(buffer):
    """A Storage over the memory of a buffer, which it keeps alive.

    Memory that is read-only, or begins where no 8-byte element may, is copied.
    """
    memory = memoryview(buffer).cast("B")
    if memory.nbytes == 0:
        return storage.allocate(0)
    if not memory.readonly:
        # Holds the buffer as well as telling its address.
        anchor = ctypes.c_char.from_buffer(memory)
        if ctypes.addressof(anchor) % _ALIGNMENT == 0:
            return storage.wrap(ctypes.addressof(anchor), memory.nbytes, anchor)
    own = storage.allocate(memory.nbytes)
    memoryview(own)[:] = memory
    return own


def tensor_over(op: str, block, dtype, offset, size, stride, requires_grad=False) -> Tensor:
    """A leaf that shows the memory of a Storage.

    Args:
        op: who asks, for messages.
        block: the Storage.
        dtype: of the elements.
        offset, size, stride: the layout, in elements.
        requires_grad: whether it wants gradients.

    Raises:
        ArgumentTypeError: a layout of anything but ints.
        ShapeError: negative or overflowing numbers, or an element outside of the storage.
        ArgumentError: integers that require grad.
    """
    size, stride = tuple(size), tuple(stride)
    check_layout(op, dtype.itemsize, block.nbytes, offset, size, stride)
    if requires_grad and not dtype.is_floating_point:
        fail(ArgumentError, op, f"a tensor of dtype {dtype.name} cannot require grad")
    layout = meta(size, stride, dtype, bool(requires_grad))
    if layout.numel == 0:
        offset = 0
    return wrap(layout, block.ptr + offset * dtype.itemsize, block)


def check_layout(op: str, itemsize: int, nbytes: int, offset, size: tuple, stride: tuple) -> None:
    """Raise unless all elements of a view lie within ``nbytes``; see :func:`tensor_over`."""
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
    if numel * itemsize > _MAX_NUMEL:
        fail(ShapeError, op, f"size {size} has more than 2**63 - 1 bytes")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    held = nbytes // itemsize
    if numel and last >= held:
        fail(
            ShapeError,
            op,
            f"size {size}, stride {stride} and offset {offset} reach element {last} of a "
            f"storage of {held}",
        )


def is_dense(size, stride) -> bool:
    """Whether the elements fill one block of memory without a gap or an overlap."""
    expected = 1
    for step, n in sorted((s, n) for n, s in zip(size, stride) if n != 1):
        if step != expected:
            return False
        expected *= n
    return True


def dense_bytes(tensor) -> memoryview:
    """The bytes of exactly the elements of a tensor that is dense: no copy."""
    if tensor.numel() == 0:
        return memoryview(b"")
    start = tensor.data_ptr() - tensor._storage.ptr
    return memoryview(tensor._storage)[start : start + tensor.nbytes]


def rebuild_tensor(buffer, dtype, offset, size, stride, requires_grad=False):
    """A tensor over the memory of ``buffer``; pickles of tensors call this.

    Raises:
        ShapeError, ArgumentTypeError: the layout does not fit the buffer.
    """
    block = storage_over(buffer)
    return tensor_over("unpickle", block, dtype, offset, size, stride, requires_grad)


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


def reduce_tensor(tensor, protocol: int):
    """What ``Tensor.__reduce_ex__`` returns: only the elements that the tensor shows.

    From protocol 5 on the bytes are a ``PickleBuffer``, which goes out of band where the pickler
    has a ``buffer_callback``: no copy is made here then.
    """
    size, stride = tuple(tensor.shape), tuple(tensor.stride())
    dense = tensor.detach()
    if not is_dense(size, stride):
        dense = dense.contiguous()
        stride = tuple(dense.stride())
    data = dense_bytes(dense)
    data = pickle.PickleBuffer(data) if protocol >= 5 else bytes(data)
    args = (data, tensor.dtype, 0, size, stride, tensor.requires_grad)
    cls, state = type(tensor), getattr(tensor, "__dict__", None)
    if cls is Tensor and not state:
        return rebuild_tensor, args
    return rebuild_from_type, (rebuild_tensor, cls, args, state)


Tensor.__reduce_ex__ = reduce_tensor
