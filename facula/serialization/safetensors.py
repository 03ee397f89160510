"""The safetensors format: a header in JSON, then the bytes of the tensors, and nothing that runs.

A file is eight bytes with the header's length N (little-endian), N bytes of JSON, and the data.
The JSON maps each name to ``{"dtype", "shape", "data_offsets": [begin, end]}``, offsets counted
from the data's beginning, and ``"__metadata__"`` to a dict of texts. The tensors fill the data
without holes or overlaps. (Format: https://github.com/huggingface/safetensors, "Format".)

>>> import facula
>>> from facula.serialization import safetensors
>>> data = safetensors.save({"weight": facula.ones(2, 3)}, metadata={"step": "7"})
>>> safetensors.load(data)["weight"].shape == (2, 3)
True
"""

from __future__ import annotations

import json
import mmap
import os
from math import prod
from typing import NamedTuple

from facula.base import dtypes
from facula.base.device import device as make_device
from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.ops.movement import contiguous_strides
from facula.serialization._files import replacing
from facula.serialization.errors import SafetensorError
from facula.tensor import Tensor, pickling

__all__ = ["SafetensorError", "load", "load_file", "safe_open", "save", "save_file"]

#: The reference implementation's bound on the header.
MAX_HEADER = 100_000_000
_METADATA = "__metadata__"
_DTYPES = {
    "BOOL": dtypes.bool_,
    "U8": dtypes.uint8,
    "I8": dtypes.int8,
    "I16": dtypes.int16,
    "I32": dtypes.int32,
    "I64": dtypes.int64,
    "F16": dtypes.float16,
    "BF16": dtypes.bfloat16,
    "F32": dtypes.float32,
    "F64": dtypes.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class _Entry(NamedTuple):
    """One tensor of a file; offsets are in bytes from the beginning of the data."""

    dtype: dtypes.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


# -- writing --------------------------------------------------------------------------------------


def _layout(tensors, metadata) -> tuple[bytes, list[memoryview]]:
    """The beginning of the file, header included, and the pieces of data that follow."""
    if not isinstance(tensors, dict):
        kind = type(tensors).__name__
        fail(ArgumentTypeError, "safetensors", f"expected a dict of tensors, got {kind}")
    header: dict[str, object] = {}
    if metadata is not None:
        if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
            fail(ArgumentTypeError, "safetensors", "metadata must map texts to texts")
        header[_METADATA] = dict(metadata)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            got = f"{type(name).__name__}: {type(tensor).__name__}"
            fail(ArgumentTypeError, "safetensors", f"expected names and tensors, got {got}")
        if name == _METADATA:
            fail(ArgumentError, "safetensors", f"the name {name!r} is taken by the metadata")
    # Wide elements first: then each tensor begins at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    pieces, at = [], 0
    for name in order:
        tensor = tensors[name].detach()
        data = pickling.dense_bytes(tensor if tensor.is_contiguous() else tensor.contiguous())
        end = at + len(data)
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        pieces.append(data)
        at = end
    _refuse_sharing(tensors)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        fail(SafetensorError, "safetensors", f"the header would have {len(text)} bytes")
    return len(text).to_bytes(8, "little") + text, pieces


def _refuse_sharing(tensors) -> None:
    """The format has no way to say that two tensors are one memory."""
    spans = []
    for name, tensor in tensors.items():
        if tensor.numel():
            last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
            start = tensor.data_ptr()
            spans.append((start, start + (last + 1) * tensor.dtype.itemsize, name))
    spans.sort()
    for (_, end, first), (start, _, second) in zip(spans, spans[1:]):
        if start < end:
            fail(
                SafetensorError,
                "safetensors",
                f"the tensors {first!r} and {second!r} share memory, which the format cannot hold",
                "leave one out or clone it; facula.save keeps sharing",
            )


def save(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The tensors as the bytes of a file; see :func:`save_file`."""
    beginning, pieces = _layout(tensors, metadata)
    return b"".join([beginning, *pieces])


def save_file(
    tensors: dict[str, Tensor],
    filename: str | os.PathLike,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write tensors to a file, which takes the place of a former one only when it is whole.

    Args:
        tensors: by name; of any layout (written in row-major order), sharing no memory.
        filename: where to.
        metadata: texts by name, kept in the header.

    Raises:
        SafetensorError: two tensors share memory.
        ArgumentTypeError: no dict of tensors, or metadata that is no text.
    """
    beginning, pieces = _layout(tensors, metadata)
    with replacing(filename) as file:
        file.write(beginning)
        for piece in pieces:
            file.write(piece)


# -- reading --------------------------------------------------------------------------------------


def _refuse(what: str):
    raise SafetensorError(f"safetensors: {what}")


def _unique(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        _refuse("a name occurs twice in the header")
    return result


def _read_header(buffer: memoryview) -> tuple[dict[str, _Entry], dict[str, str], int]:
    """The entries, the metadata and where the data begins, all of it checked.

    Raises:
        SafetensorError: anything that the format forbids.
    """
    total = len(buffer)
    if total < 8:
        _refuse(f"expected at least 8 bytes, got {total}")
    length = int.from_bytes(buffer[:8], "little")
    if length > MAX_HEADER:
        _refuse(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    start = 8 + length
    if start > total:
        _refuse(f"the header has {length} bytes, but only {total - 8} are there")
    try:
        header = json.loads(bytes(buffer[8:start]).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, SafetensorError):
            raise
        raise SafetensorError(f"safetensors: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        _refuse("the header is not an object")
    metadata = header.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(type(v) is str for v in metadata.values()):
        _refuse("the metadata does not map texts to texts")
    entries = {name: _entry(name, value) for name, value in header.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.begin != at:
            _refuse(f"tensor {name!r} begins at byte {entry.begin}, the one before ends at {at}")
        at = entry.end
    if start + at != total:
        _refuse(f"the tensors need {at} bytes, but {total - start} are there")
    return entries, metadata, start


def _entry(name: str, value) -> _Entry:
    """One tensor's line of the header."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        _refuse(f"tensor {name!r} needs dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or n < 0 for n in numbers):
            _refuse(f"tensor {name!r}: expected lists of sizes and offsets")
    known = _DTYPES.get(dtype) if isinstance(dtype, str) else None
    if known is None:
        _refuse(f"tensor {name!r} has dtype {dtype!r}; known are {', '.join(_DTYPES)}")
    if len(offsets) != 2 or len(shape) > pickling.MAX_NDIM:
        _refuse(f"tensor {name!r} needs two offsets and at most {pickling.MAX_NDIM} sizes")
    begin, end = offsets
    if end - begin != prod(shape) * known.itemsize:
        _refuse(f"tensor {name!r}: {dtype} of shape {shape} does not have {end - begin} bytes")
    # Also where one of the sizes is 0.
    if prod(max(n, 1) for n in shape) * known.itemsize >= 2**63:
        _refuse(f"tensor {name!r}: the sizes {shape} are too large")
    return _Entry(known, tuple(shape), begin, end)


def _tensor(buffer: memoryview, start: int, entry: _Entry):
    """A tensor over its part of the buffer; copied out of it if it is not aligned."""
    block = pickling.storage_over(buffer[start + entry.begin : start + entry.end])
    stride = contiguous_strides(entry.shape)
    return pickling.tensor_over("safetensors", block, entry.dtype, 0, entry.shape, stride)


def _check_device(device) -> None:
    if make_device(device).type != "cpu":
        fail(ArgumentError, "safetensors", f"no tensor can be put on {device}", "use 'cpu'")


def load(data: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a file, copied once.

    Raises:
        SafetensorError: the bytes break the format.
    """
    entries, _, start = _read_header(memoryview(data))
    # The copy begins at an address that suits every dtype, as the data of a file does.
    own = memoryview(bytearray(memoryview(data)[start:]))
    return {name: _tensor(own, 0, entry) for name, entry in entries.items()}


def load_file(filename: str | os.PathLike, device="cpu") -> dict[str, Tensor]:
    """The tensors in a file, which is mapped: its pages are read when first touched.

    Writing to the tensors does not change the file. The file must not be cut shorter while they
    are in use; replacing it, as :func:`save_file` does, is safe.

    Raises:
        SafetensorError: the file breaks the format.
        FileNotFoundError, OSError: as ``open`` does.
    """
    with safe_open(filename, device=device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


class safe_open:  # noqa: N801  the name in the reference implementation
    """A file of which tensors are taken one by one.

    Args:
        filename: the path.
        framework: ``"pt"``; for the reference implementation's signature.
        device: ``"cpu"``.
    """

    def __init__(self, filename: str | os.PathLike, framework: str = "pt", device="cpu"):
        _check_device(device)
        if framework not in ("pt", "torch", "facula"):
            fail(ArgumentError, "safe_open", f"expected framework 'pt', got {framework!r}")
        with open(filename, "rb") as file:
            # An empty file cannot be mapped.
            empty_file = os.fstat(file.fileno()).st_size == 0
            mapped = b"" if empty_file else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._buffer = memoryview(mapped)
        self._entries, self._metadata, self._start = _read_header(self._buffer)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        # Tensors taken from the file keep its memory.
        self._buffer = None

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._entries)

    def offset_keys(self) -> list[str]:
        """The tensors' names in the order of their bytes."""
        return sorted(self._entries, key=lambda name: self._entries[name][2:])

    def metadata(self) -> dict[str, str] | None:
        """The texts in the header, or None."""
        return dict(self._metadata) or None

    def _find(self, name: str) -> _Entry:
        if self._buffer is None:
            _refuse("the file is closed")
        entry = self._entries.get(name)
        if entry is None:
            _refuse(f"the file has no tensor {name!r}")
        return entry

    def get_tensor(self, name: str) -> Tensor:
        """The tensor of that name, over the file's memory.

        Raises:
            SafetensorError: there is none, or the file is closed.
        """
        entry = self._find(name)
        return _tensor(self._buffer, self._start, entry)

    def get_slice(self, name: str) -> TensorSlice:
        """The tensor of that name, to be indexed; only what is indexed is read."""
        return TensorSlice(self, name, self._find(name))


class TensorSlice:
    """A tensor of an open file, not yet taken."""

    def __init__(self, file: safe_open, name: str, entry: _Entry):
        self._file, self._name, self._entry = file, name, entry

    def get_shape(self) -> list[int]:
        return list(self._entry.shape)

    def get_dtype(self) -> str:
        """The format's name of the dtype, such as ``"F32"``."""
        return _NAMES[self._entry.dtype]

    def __getitem__(self, index):
        return self._file.get_tensor(self._name)[index]
