"""What a file may name: PyTorch's names, and what each of them is here.

PyTorch's pickles refer to functions and classes by name. One table, :data:`ALLOWED`, serves the
reader, and turned around the writer. A name that is neither in it nor on the user's own list is
never looked up, so no file can reach other code. Every function in it bears hostile arguments.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict

from facula.base import dtypes
from facula.base.device import device
from facula.serialization._storage import FileStorage
from facula.serialization.errors import UnpicklingError
from facula.tensor import Size, Tensor, pickling

#: PyTorch's classes of typed storages.
STORAGES = {
    "BoolStorage": dtypes.bool_,
    "ByteStorage": dtypes.uint8,
    "CharStorage": dtypes.int8,
    "ShortStorage": dtypes.int16,
    "IntStorage": dtypes.int32,
    "LongStorage": dtypes.int64,
    "HalfStorage": dtypes.float16,
    "BFloat16Storage": dtypes.bfloat16,
    "FloatStorage": dtypes.float32,
    "DoubleStorage": dtypes.float64,
}
STORAGE_OF = {d: name for name, d in STORAGES.items()}

#: Known to PyTorch, not to Facula: the error says so instead of asking to allow the name.
MISSING = {
    *(("torch", name) for name in "complex32 complex64 complex128 uint16 uint32 uint64".split()),
    *(("torch", name) for name in "qint8 quint8 qint32 quint4x2 quint2x4".split()),
    *(("torch", f"float8_{name}") for name in "e4m3fn e5m2 e4m3fnuz e5m2fnuz e8m0fnu".split()),
    *(("torch", f"Complex{name}Storage") for name in ("Float", "Double")),
    *(("torch", f"{name}Storage") for name in "QInt8 QUInt8 QInt32 QUInt4x2 QUInt2x4".split()),
    *(("torch._utils", f"_rebuild_{name}_tensor") for name in ("sparse", "nested")),
    ("torch._utils", "_rebuild_qtensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"),
    ("torch._utils", "_rebuild_wrapper_subclass"),
}


class Named:
    """A global that the writer emits by name though nothing here bears it."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class StorageClass:
    """A storage class as the reader meets it; untyped ones count in bytes."""

    __slots__ = ("dtype",)

    def __init__(self, dtype):
        self.dtype = dtype


# -- functions that files call --------------------------------------------------------------------


def rebuild_tensor_v1(storage, offset, size, stride):
    return rebuild_tensor_v2(storage, offset, size, stride, False, None)


def rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks, metadata=None):
    """A tensor of the storage's own dtype. Hooks are code and are never in a file of weights."""
    _check_storage(storage)
    return storage.tensor(storage.dtype, offset, size, stride, requires_grad)


def rebuild_tensor_v3(
    storage, offset, size, stride, requires_grad, backward_hooks, dtype, metadata=None
):
    """A tensor of another dtype than its storage's."""
    _check_storage(storage)
    if not isinstance(dtype, dtypes.dtype):
        raise UnpicklingError(f"load: expected a dtype, got {type(dtype).__name__}")
    return storage.tensor(dtype, offset, size, stride, requires_grad)


def _check_storage(storage) -> None:
    if not isinstance(storage, FileStorage):
        raise UnpicklingError(f"load: expected a storage, got {type(storage).__name__}")


def rebuild_parameter_with_state(data, requires_grad, backward_hooks, state):
    rebuild = importlib.import_module("facula.nn.parameter")._rebuild_parameter
    return pickling.set_attributes(rebuild(data, requires_grad, backward_hooks), state)


def check_key(key) -> None:
    """Refuse keys whose hash recurses too deep for the C stack or does not end in this life."""
    budget = [10_000]

    def visit(value, depth):
        budget[0] -= 1
        if depth > 16 or budget[0] < 0:
            raise UnpicklingError("load: a dict key or set element is nested too deep")
        if isinstance(value, (tuple, frozenset)):
            for item in value:
                visit(item, depth + 1)

    visit(key, 0)


def make_set(items=()):
    return set(_checked_keys(items))


def make_frozenset(items=()):
    return frozenset(_checked_keys(items))


def _checked_keys(items):
    items = list(items)
    for item in items:
        check_key(item)
    return items


def make_ordered_dict(items=()):
    pairs = [(key, value) for key, value in (items.items() if type(items) is dict else items)]
    _checked_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def make_counter(counts=None):
    if counts is not None and type(counts) is not dict:
        raise UnpicklingError("load: expected the dict of a Counter")
    return Counter(counts)


def encode(text, encoding="latin1"):
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnpicklingError("load: bytes are expected as text in latin1")
    return text.encode("latin1")


def make_bytearray(data=b"", encoding="latin1"):
    # A number would ask for that much memory.
    return bytearray(data if isinstance(data, bytes) else encode(data, encoding))


def make_complex(real, imag):
    return complex(float(real), float(imag))


def make_size(sizes=()):
    sizes = tuple(sizes)
    if any(type(n) is not int for n in sizes):
        raise UnpicklingError("load: expected the ints of a Size")
    return Size(sizes)


#: What a file may name. Text is a module and a name in it, imported when a file asks for it.
ALLOWED: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor_v1,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    ("torch._tensor", "_rebuild_from_type_v2"): pickling.rebuild_from_type,
    ("torch._utils", "_rebuild_parameter"): "facula.nn.parameter:_rebuild_parameter",
    ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter_with_state,
    ("torch.nn.parameter", "Parameter"): "facula.nn.parameter:Parameter",
    ("facula.nn.parameter", "Buffer"): "facula.nn.parameter:Buffer",
    ("facula.nn.parameter", "_rebuild_buffer"): "facula.nn.parameter:_rebuild_buffer",
    ("torch", "Tensor"): Tensor,
    ("torch", "Size"): make_size,
    ("torch", "device"): device,
    ("torch.storage", "UntypedStorage"): StorageClass(dtypes.uint8),
    ("torch", "UntypedStorage"): StorageClass(dtypes.uint8),
    **{("torch", d.name): d for d in dtypes.ALL},
    **{("torch", name): StorageClass(d) for name, d in STORAGES.items()},
    ("collections", "OrderedDict"): make_ordered_dict,
    ("collections", "Counter"): make_counter,
    ("_codecs", "encode"): encode,
    ("builtins", "set"): make_set,
    ("builtins", "frozenset"): make_frozenset,
    ("builtins", "bytearray"): make_bytearray,
    ("builtins", "complex"): make_complex,
}


def resolve(module: str, name: str):
    """What a name in the table is, or None."""
    value = ALLOWED.get((module, name))
    if isinstance(value, str):
        home, _, attribute = value.partition(":")
        value = getattr(importlib.import_module(home), attribute)
    return value


def _names_to_write() -> dict[tuple[str, str], tuple[str, str]]:
    names = {}
    for torch_name, value in ALLOWED.items():
        if isinstance(value, str):
            home, _, attribute = value.partition(":")
            names.setdefault((home, attribute), torch_name)
        elif hasattr(value, "__qualname__") and value.__module__.startswith("facula"):
            names.setdefault((value.__module__, value.__qualname__), torch_name)
    return names


#: Facula's (module, name) of what has a name of PyTorch's, for the writer.
WRITTEN_AS = _names_to_write()
