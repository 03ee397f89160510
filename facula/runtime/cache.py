"""The disk cache of compiled objects (and of their texts), shared by every process of the user.

An entry is one file, named by a hash over everything that determines the machine code (text,
triple, CPU, features, LLVM's version, level of optimisation, format of this cache). It holds a
checksum before the object: a truncated or corrupted entry reads as missing, is removed, and is
compiled again. Files come into place by an atomic rename, so that any number of processes may
write at once, the same entry too. When the folder outgrows its limit, the entries that were not
read for the longest time go first.

The folder is ``FACULA_CACHE_DIR``, or ``facula`` in the user's cache folder; the limit is
``FACULA_CACHE_MB`` (512). An empty ``FACULA_CACHE_DIR``, a folder that cannot be written or that
belongs to somebody else turns the cache off: everything works, only slower.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from hashlib import blake2b
from pathlib import Path

from facula.runtime.host import Target

#: Part of every key: raise it when the meaning of an entry changes.
FORMAT = 3
SUFFIX = ".o"
_MAGIC = b"facula-object-1\n"
_DIGEST = 16
#: The folder is measured at the first write of a process and then once in so many writes.
_MEASURE_EVERY = 64
#: Temporary files of writers that died are removed after so many seconds.
_STALE = 3600.0

_writes = 0


def directory() -> Path | None:
    """The folder of the cache, whether it exists yet or not; None if it is turned off."""
    named = os.environ.get("FACULA_CACHE_DIR")
    if named is not None:
        return Path(named).expanduser() if named else None
    if sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "facula"


def limit() -> int:
    """Bytes that the folder may hold."""
    megabytes = os.environ.get("FACULA_CACHE_MB", "")
    return (int(megabytes) if megabytes.isdigit() else 512) << 20


def key(text: str, target: Target, optimize: int | str) -> str:
    """The name under which the object of ``text`` is kept.

    ``optimize`` is the level, or a word that names something else made from ``text``.
    """
    parts = (FORMAT, target.triple, target.cpu, target.features, target.llvm, optimize, text)
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=20).hexdigest()


def get(name: str) -> bytes | None:
    """The object of that key, or None. A damaged entry is removed."""
    folder = _trusted()
    if folder is None:
        return None
    path = folder / (name + SUFFIX)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST
    payload = content[start:]
    if not content.startswith(_MAGIC) or _checksum(payload) != content[len(_MAGIC) : start]:
        remove(name)
        return None
    try:
        os.utime(path)  # The time of the last use decides what goes when the folder is full.
    except OSError:
        pass
    return payload


def put(name: str, payload: bytes) -> None:
    """Keep an object. Failure to write is no error: the object is compiled again next time."""
    global _writes
    folder = _trusted(create=True)
    if folder is None:
        return
    temporary = folder / f"{name}.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        temporary.write_bytes(_MAGIC + _checksum(payload) + payload)
        os.replace(temporary, folder / (name + SUFFIX))
    except OSError:
        _unlink(temporary)
        return
    if _writes % _MEASURE_EVERY == 0:
        trim()
    _writes += 1


def remove(name: str) -> None:
    """Forget one entry, if it exists."""
    folder = directory()
    if folder is not None:
        _unlink(folder / (name + SUFFIX))


def trim() -> None:
    """Remove what writers left behind, and the least recently used entries beyond the limit."""
    now, bound = time.time(), limit()
    total = 0
    for modified, size, path in sorted(_files(), reverse=True):
        total += size
        stale = path.suffix == ".tmp" and now - modified > _STALE
        if total > bound or stale:
            _unlink(path)
            total -= size


def stats() -> dict[str, int]:
    """Number of ``entries``, their ``bytes``, and the ``limit`` in bytes."""
    sizes = [size for _, size, path in _files() if path.suffix == SUFFIX]
    return {"entries": len(sizes), "bytes": sum(sizes), "limit": limit()}


def clear() -> int:
    """Remove all entries; how many they were."""
    removed = 0
    for _, _, path in _files():
        removed += _unlink(path) and path.suffix == SUFFIX
    return removed


def _trusted(create: bool = False) -> Path | None:
    """The folder, if it is there (or could be made) and nobody else's.

    Entries are machine code that will run in this process, so a folder that another user owns
    is not read.
    """
    folder = directory()
    if folder is None:
        return None
    try:
        if create:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError:
        return None
    return folder if not hasattr(os, "getuid") or owner == os.getuid() else None


def _files() -> list[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of every file of the cache."""
    folder = directory()
    found = []
    try:
        for entry in os.scandir(folder) if folder is not None else ():
            if entry.name.endswith((SUFFIX, ".tmp")):
                try:
                    status = entry.stat()
                except OSError:
                    continue  # Another process removed it.
                found.append((status.st_mtime, status.st_size, Path(entry.path)))
    except OSError:
        pass
    return found


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_DIGEST).digest()
