"""``facula.save`` and ``facula.load``."""

from __future__ import annotations

import io
import pickle
import sys

from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.serialization._archive import ArchiveReader, ArchiveWriter
from facula.serialization._files import is_path, reading, replacing
from facula.serialization._legacy import read_legacy
from facula.serialization._location import placement, storage_id
from facula.serialization._pickler import PROTOCOL, ArchivePickler
from facula.serialization._storage import FileStorage, is_foreign
from facula.serialization._unpickler import Unpickler
from facula.serialization.errors import ArchiveError, UnpicklingError


def save(obj, f, pickle_module=None, pickle_protocol: int = PROTOCOL) -> None:
    """Write an object with all its tensors to a file that ``torch.load`` reads as well.

    Args:
        obj: tensors, state dicts, containers of them, or anything that pickles. Tensors that
            share a storage share it in the file, and all of the storage is written.
        f: a path or a file open for binary writing. A path is replaced only once everything is
            written: a crash leaves the former file.
        pickle_module: None or :mod:`pickle`; for PyTorch's signature.
        pickle_protocol: 2, the one that both readers understand.

    Raises:
        ArgumentError, ArgumentTypeError: another pickle module or protocol; no file.
        pickle.PicklingError: an object that does not pickle.

    >>> import facula, io
    >>> file = io.BytesIO()
    >>> facula.save({"weight": facula.ones(2, 3), "step": 7}, file)
    >>> _ = file.seek(0)
    >>> facula.load(file)["step"]
    7
    """
    if pickle_module not in (None, pickle):
        fail(ArgumentError, "save", f"expected the module pickle, got {pickle_module!r}")
    if pickle_protocol != PROTOCOL:
        fail(ArgumentError, "save", f"expected pickle protocol {PROTOCOL}, got {pickle_protocol}")
    if is_path(f):
        with replacing(f) as file:
            _write(obj, file)
    elif hasattr(f, "write"):
        _write(obj, f)
    else:
        fail(
            ArgumentTypeError,
            "save",
            f"expected a path or a file open for binary writing, got {type(f).__name__}",
        )


def _write(obj, file) -> None:
    stream = io.BytesIO()
    pickler = ArchivePickler(stream)
    pickler.dump(obj)
    archive = ArchiveWriter(file)
    archive.add("data.pkl", stream.getbuffer())
    archive.add(".format_version", b"1")
    archive.add(".storage_alignment", b"64")
    archive.add("byteorder", sys.byteorder.encode())
    for key, data in pickler.storages.items():
        archive.add(f"data/{key}", data)
    archive.add("version", b"3\n")
    archive.close()


def load(f, map_location=None, pickle_module=None, *, weights_only=None, mmap=None):
    """Read a file that ``facula.save`` or ``torch.save`` wrote. No code from the file ever runs.

    Args:
        f: a path, or a seekable file open for binary reading.
        map_location: where storages saved on another device go: a device or its name, a dict from
            the device names of the file to ours, or a function ``(storage, location)`` that
            returns the storage, or None to leave it at its location.
        pickle_module: None or :mod:`pickle`; for PyTorch's signature.
        weights_only: for PyTorch's signature. Both values mean the same here: what a file may
            name is in an allow list, which :func:`~facula.serialization.add_safe_globals` extends.
        mmap: map the file's storages into memory instead of reading them: pages are read when
            first touched, and writes to the tensors stay in memory. ``f`` must be a path. Sums
            over the bytes are not checked then.

    Returns:
        The object.

    Raises:
        UnpicklingError: the file names what is not allowed, or its pickle is damaged.
        ArchiveError: no such archive, cut short or damaged.
        FileNotFoundError, OSError: as ``open`` does.
    """
    if pickle_module not in (None, pickle):
        fail(ArgumentError, "load", f"expected the module pickle, got {pickle_module!r}")
    if mmap and not is_path(f):
        fail(ArgumentError, "load", "mmap=True needs a path, not an open file")
    place = placement(map_location)
    with reading("load", f) as file:
        start = file.tell()
        magic = file.read(4)
        file.seek(start)
        if not isinstance(magic, bytes):
            fail(ArgumentTypeError, "load", "expected a binary file, got one of text")
        if magic == b"PK\3\4":
            return _read(ArchiveReader(file, mapped=bool(mmap)), place)
        return read_legacy(file, start, place)


def _read(archive: ArchiveReader, place):
    """The object in a zip archive."""
    if "constants.pkl" in archive.records:
        raise ArchiveError(
            "load: a TorchScript archive, which holds code; hint: save the model's state_dict()"
        )
    order = archive.read("byteorder").decode("latin1") if "byteorder" in archive.records else None
    foreign = is_foreign(order or sys.byteorder)
    storages: dict[str, FileStorage] = {}

    def persistent_load(pid):
        cls, key, location, numel = storage_id(pid)
        storage = storages.get(key)
        if storage is None:
            name = f"data/{key}"
            storage = _read_storage(archive, name, cls, numel, location, foreign)
            place(storage, location)
            storages[key] = storage
        elif numel * cls.dtype.itemsize != storage.nbytes:
            raise UnpicklingError(f"load: storage {key!r} has two sizes")
        return storage

    return Unpickler(archive.read("data.pkl"), persistent_load).load()


def _read_storage(archive, name: str, cls, numel: int, location: str, foreign: bool):
    dtype = cls.dtype
    size = archive.record(name).size
    if numel * dtype.itemsize != size:
        raise ArchiveError(
            f"load: storage {name!r} has {size} bytes, "
            f"expected {numel} elements of {dtype.itemsize}"
        )
    memory = archive.mapped(name)
    storage = FileStorage(dtype, numel, location, memory)
    if memory is None:
        archive.read_into(name, storage.buffer())
    if foreign:
        storage.swap_bytes()
    return storage
