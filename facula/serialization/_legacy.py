"""Files from before PyTorch 1.6 (and of ``_use_new_zipfile_serialization=False``).

Five pickles in a row - a magic number, a version, facts about the machine, the object, the
storages' keys - and then, a storage at a time, its number of elements and its bytes.
"""

from __future__ import annotations

import mmap

from facula.serialization._location import storage_id
from facula.serialization._storage import FileStorage, is_foreign
from facula.serialization._unpickler import Unpickler
from facula.serialization.errors import ArchiveError, UnpicklingError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
#: Every legacy file begins with this: protocol 2, a LONG1 of ten bytes.
_BEGINNING = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little")


def read_legacy(file, start: int, place):
    """The object in a legacy file that begins at ``start``.

    Raises:
        ArchiveError: not such a file either.
    """
    buffer = _whole(file, start)
    if bytes(buffer[: len(_BEGINNING)]) != _BEGINNING:
        raise ArchiveError(f"load: {_kind(bytes(buffer[:16]))}")
    storages: dict[str, FileStorage] = {}
    room = len(buffer)

    def persistent_load(pid):
        nonlocal room
        cls, key, location, numel = storage_id(pid)
        if len(pid) > 5 and pid[5] is not None:
            raise UnpicklingError("load: views of storages, as written before PyTorch 0.4")
        if key not in storages:
            # No file can ask for more memory than it has bytes.
            room -= numel * cls.dtype.itemsize
            if room < 0:
                raise ArchiveError("load: the storages are larger than the file")
            storages[key] = FileStorage(cls.dtype, numel, location)
            place(storages[key], location)
        return storages[key]

    reader = Unpickler(buffer, persistent_load)
    reader.load()
    if reader.load() != _VERSION:
        raise ArchiveError("load: a version of the legacy format that is not known")
    facts = reader.load()
    little = facts.get("little_endian", True) if isinstance(facts, dict) else True
    result, keys = reader.load(), reader.load()
    if not isinstance(keys, list):
        raise UnpicklingError("load: expected the list of storages")
    foreign = is_foreign("little" if little else "big")
    for key in keys:
        storage = storages.pop(key, None) if isinstance(key, str) else None
        if storage is None:
            raise ArchiveError(f"load: the file has a storage {key!r} that nothing refers to")
        numel = int.from_bytes(reader.take(8), "little" if little else "big")
        if numel != storage.numel:
            raise ArchiveError(f"load: storage {key!r} has two sizes")
        storage.buffer()[:] = reader.take(storage.nbytes)
        if foreign:
            storage.swap_bytes()
    if storages:
        raise ArchiveError(f"load: the file lacks the bytes of {len(storages)} storages")
    return result


def _whole(file, start: int) -> memoryview:
    """All of a file from ``start`` on, mapped where that is possible."""
    try:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[start:]
    except (OSError, ValueError, AttributeError):
        # Not a file of the system, or an empty one.
        return memoryview(file.read())


def _kind(beginning: bytes) -> str:
    """What a file that is no archive seems to be."""
    if not beginning:
        return "nothing to read: the file is empty or stands at its end; hint: file.seek(0)"
    if beginning[8:9] == b"{":
        return "a safetensors file; hint: facula.serialization.safetensors.load_file"
    if beginning[:1] == b"\x80":
        return "a plain pickle, which could run code; hint: write the object with facula.save"
    return "not a file that facula.save or torch.save wrote"
