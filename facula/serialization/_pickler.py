"""Objects to a pickle that names PyTorch's functions where it means Facula's.

The pickler is Python's own, in Python, for the one in C looks every global up under the name it
writes, and PyTorch is not here. What it writes is small: the bytes of tensors go elsewhere.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from types import FunctionType

from facula.base.dtypes import dtype, uint8
from facula.base.errors import ArgumentError, fail
from facula.serialization._globals import (
    STORAGE_OF,
    WRITTEN_AS,
    Named,
    make_size,
    rebuild_tensor_v2,
    rebuild_tensor_v3,
)
from facula.tensor import Size, Tensor, pickling

#: What PyTorch writes, and the newest that its reader of weights understands.
PROTOCOL = 2


class _StorageRef:
    """A storage in the stream: its number in the archive, its dtype, its elements."""

    __slots__ = ("storage_class", "key", "numel")

    def __init__(self, storage_class: Named, key: str, numel: int):
        self.storage_class, self.key, self.numel = storage_class, key, numel


class ArchivePickler(pickle._Pickler):
    """Pickles one object; the storages it met are in :attr:`storages` afterwards.

    Attributes:
        storages: ``{key: memoryview of bytes}``, in order of first meeting. They keep the
            memory alive, so that its address may serve to know it again.
    """

    def __init__(self, file):
        super().__init__(file, protocol=PROTOCOL)
        self.storages: dict[str, memoryview] = {}
        self._keys: dict[tuple[int, int], tuple[str, dtype]] = {}
        self._classes: dict[str, Named] = {}

    dispatch = pickle._Pickler.dispatch.copy()

    def save_global(self, obj, name=None):
        """Write a class, function or singleton by name, PyTorch's where it has one."""
        if isinstance(obj, dtype):
            target = ("torch", obj.name)
        elif isinstance(obj, Named):
            target = (obj.module, obj.name)
        else:
            own = (getattr(obj, "__module__", None), name or getattr(obj, "__qualname__", None))
            target = WRITTEN_AS.get(own)
        if target is None:
            super().save_global(obj, name)
            return
        self.write(pickle.GLOBAL + "{}\n{}\n".format(*target).encode("ascii"))
        self.memoize(obj)

    dispatch[FunctionType] = save_global
    dispatch[Named] = save_global

    def persistent_id(self, obj):
        if isinstance(obj, _StorageRef):
            return ("storage", obj.storage_class, obj.key, "cpu", obj.numel)
        return None

    def reducer_override(self, obj):
        if isinstance(obj, Tensor) and type(obj).__reduce_ex__ is Tensor.__reduce_ex__:
            function, args = self._tensor_parts(obj)
            state = getattr(obj, "__dict__", None)
            if type(obj) is Tensor and not state:
                return function, args
            return pickling.rebuild_from_type, (function, type(obj), args, state)
        if isinstance(obj, dtype):
            return obj.name
        if type(obj) is Size:
            return make_size, (tuple(obj),)
        return NotImplemented

    def _tensor_parts(self, tensor):
        """The call that makes the tensor again."""
        if tensor.device.type != "cpu":
            fail(ArgumentError, "save", f"a tensor on {tensor.device} has no bytes to save")
        storage, first = self._storage(tensor)
        layout = (tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()))
        args = (storage, *layout, tensor.requires_grad, OrderedDict())
        if tensor.dtype is first:
            return rebuild_tensor_v2, args
        return rebuild_tensor_v3, (*args, tensor.dtype)

    def _storage(self, tensor):
        """The tensor's storage in the stream, and the storage's own dtype: that of the first
        tensor on it, or bytes where those do not fill it evenly."""
        storage = tensor._storage
        identity = (storage.ptr, storage.nbytes)
        known = self._keys.get(identity) if storage.nbytes else None
        if known is None:
            whole = storage.nbytes % tensor.dtype.itemsize == 0
            known = (str(len(self.storages)), tensor.dtype if whole else uint8)
            self._keys[identity] = known
            self.storages[known[0]] = memoryview(storage)
        key, first = known
        name = STORAGE_OF[first]
        # One object a class, so that the pickle's memo finds it again.
        storage_class = self._classes.setdefault(name, Named("torch", name))
        numel = self.storages[key].nbytes // first.itemsize
        return _StorageRef(storage_class, key, numel), first
