"""Storage: the memory behind tensors, allocated and recycled by native code.

A :class:`Storage` is a Python object and its block of memory in one piece: a header of 64 bytes,
then the data, aligned to 64. When the last reference goes, the block goes to the free list of its
size class and the next allocation of that class takes it from there, in a few nanoseconds and
without page faults (a fresh 4 MB block costs 40 times a recycled one).

Size classes are the multiples of 64 up to 1 KB and eight steps a doubling above, so a block is at
most 12.5 % larger than asked for. Where a class has no free block, a larger one may be taken, so
that sizes which change from call to call do not each need memory of their own. When the free lists
would hold more than :func:`set_cache_limit` says, they are all emptied into the system first: what
a program uses again and again fills them anew, what it used once is gone.

Allocation and release happen under the GIL, which guards the lists.
"""

from __future__ import annotations

import ctypes
import sys

from facula.base.errors import ArgumentError, ArgumentTypeError, OutOfMemoryError, fail
from facula.runtime import host, jit, native

#: Larger requests are refused without asking the system: no address space holds them.
MAX_BYTES = 1 << 46
#: Blocks from here on are aligned for, and ask for, huge pages: far fewer page faults.
_HUGE = 4 << 20
_HUGE_PAGE = 2 << 20
#: From this size on a request is served, before the system is asked, from the free blocks of the
#: next so many classes: up to half as large again.
_BORROWED, _REACH = 64 << 10, 4

# The counters' places in the native table.
_GROUPS = ("allocated_bytes", "reserved_bytes", "allocation", "segment")
#: Offset of a Storage's version after the header of the object.
VERSION = 16
_RETRIES, _OOMS, _LIMIT, _CELLS = 12, 13, 14, 16


def _text() -> str:
    """The native code, for this interpreter and system."""
    # Linux: 14 is MADV_HUGEPAGE. Elsewhere the system decides by itself.
    linux = sys.platform == "linux"
    words = {
        "HEADER": native.HEADER,
        "MAX_BYTES": MAX_BYTES,
        "HUGE_BYTES": _HUGE,
        "HUGE_PAGE": _HUGE_PAGE,
        "BORROWED_BYTES": _BORROWED,
        "REACH": _REACH,
        "RETRIES": _RETRIES,
        "OOMS": _OOMS,
        "LIMIT": _LIMIT,
        "DECLARE_ADVICE": "declare i32 @madvise(ptr, i64, i32)" if linux else "",
        "ADVISE": "call i32 @madvise(ptr %block, i64 %whole, i32 14)" if linux else "",
    }
    return jit.source("storage.ll", words)


class _Native:
    """The loaded code: the type, the functions, and the counters' memory."""

    def __init__(self):
        native.require_gil()
        names = "dealloc buffer allocate wrap new empty class_bytes type fail stats".split()
        found = jit.load(_text(), [f"storage_{n}" for n in names], optimize=2)
        at = {n: found[f"storage_{n}"] for n in names}
        self.new = at["new"]
        data = native.HEADER
        self.type = native.make_type(
            "facula.runtime.storage.Storage",
            data + 48,
            {native.TP_DEALLOC: at["dealloc"], native.BF_GETBUFFER: at["buffer"]},
            (
                ("ptr", native.SSIZE, data, native.READONLY, "address of the first byte"),
                ("nbytes", native.SSIZE, data + 8, native.READONLY, "bytes asked for"),
                ("version", native.LONGLONG, data + 16, 0, "raised by every change in place"),
                ("owner", native.OBJECT, data + 24, native.READONLY, "keeps foreign memory alive"),
                ("__weaklistoffset__", native.SSIZE, data + 40, native.READONLY, None),
            ),
        )
        self.type.__doc__ = "A block of memory; see facula.runtime.storage."
        self.type.__repr__ = lambda s: f"<Storage of {s.nbytes} bytes at {s.ptr:#x}>"
        ctypes.c_void_p.from_address(at["type"]).value = id(self.type)
        ctypes.c_void_p.from_address(at["fail"]).value = id(jit.immortal(_refuse))
        self.stats = (ctypes.c_int64 * _CELLS).from_address(at["stats"])
        self.stats[_LIMIT] = host.memory_limit() // 4
        self.allocate = native.builtin("allocate", at["allocate"])
        # PYFUNCTYPE keeps the GIL, which guards the lists.
        self.wrap = ctypes.PYFUNCTYPE(
            ctypes.py_object, ctypes.c_void_p, ctypes.c_int64, ctypes.py_object
        )(at["wrap"])
        self.empty = ctypes.PYFUNCTYPE(None)(at["empty"])
        self.class_bytes = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(at["class_bytes"])


_native = jit.once(_Native)
jit.provide("storage_new", lambda: _native().new)


def storage_type() -> type:
    """The native type of all storages."""
    return _native().type


def allocate(nbytes: int):
    """A Storage of ``nbytes`` bytes, not initialised, its data aligned to 64.

    Raises:
        OutOfMemoryError: the system has no such block.
        ArgumentError: ``nbytes`` is negative.
        ArgumentTypeError: ``nbytes`` is no int.

    >>> s = allocate(100)
    >>> s.nbytes, s.ptr % 64, s.version, len(memoryview(s))
    (100, 0, 0, 100)
    """
    return _native().allocate(nbytes)


def wrap(address: int, nbytes: int, owner):
    """A Storage over memory of somebody else, which ``owner`` keeps alive.

    Raises:
        ArgumentError: ``address`` or ``nbytes`` is negative.
    """
    if address < 0 or nbytes < 0:
        fail(ArgumentError, "storage", f"invalid memory: {nbytes} bytes at {address}")
    return _native().wrap(address, nbytes, owner)


def block_bytes(nbytes: int) -> int:
    """Bytes of the block that a request is given: its size class."""
    return _native().class_bytes(nbytes)


def empty_cache() -> None:
    """Give the free blocks back to the system."""
    _native().empty()
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim is not None:
        trim(0)  # The C library keeps small blocks for itself unless told.


def set_cache_limit(nbytes: int) -> int:
    """Bound the bytes kept in free lists; the bound before. A quarter of the memory at first."""
    if not isinstance(nbytes, int) or nbytes < 0:
        fail(ArgumentError, "set_cache_limit", f"expected bytes, at least 0, got {nbytes!r}")
    cells = _native().stats
    before, cells[_LIMIT] = cells[_LIMIT], nbytes
    return before


def memory_stats() -> dict[str, int]:
    """Counters under PyTorch's names: ``{bytes, blocks} x {current, peak, allocated, freed}``.

    ``allocated_bytes`` and ``allocation`` are blocks in use, ``reserved_bytes`` and ``segment``
    blocks in use or in free lists; ``num_ooms`` requests that failed, ``num_alloc_retries`` times
    that the free lists had to be emptied for one.
    """
    cells = list(_native().stats)
    table = {}
    for i, group in enumerate(_GROUPS):
        current, peak, total = cells[3 * i : 3 * i + 3]
        table[f"{group}.all.current"] = current
        table[f"{group}.all.peak"] = peak
        table[f"{group}.all.allocated"] = total
        table[f"{group}.all.freed"] = total - current
    return {**table, "num_alloc_retries": cells[_RETRIES], "num_ooms": cells[_OOMS]}


def reset_peak_memory_stats() -> None:
    """Let every peak start again from the present value."""
    cells = _native().stats
    for i in range(len(_GROUPS)):
        cells[3 * i + 1] = cells[3 * i]


def _refuse(nbytes) -> None:
    """Raise what fits a request that native code could not serve."""
    if not isinstance(nbytes, int):
        got = type(nbytes).__name__
        fail(ArgumentTypeError, "storage", f"expected a number of bytes, got {got}")
    if nbytes < 0:
        fail(ArgumentError, "storage", f"size must not be negative, got {nbytes}")
    if nbytes > MAX_BYTES:
        fail(OutOfMemoryError, "storage", f"{nbytes} bytes are more than any machine has")
    stats = memory_stats()
    fail(
        OutOfMemoryError,
        "storage",
        f"the system refuses {_size(nbytes)} ({nbytes} bytes); in use are "
        f"{_size(stats['allocated_bytes.all.current'])} of "
        f"{_size(stats['reserved_bytes.all.current'])} reserved",
        "use a smaller batch, or drop references to tensors no longer needed",
    )


def _size(nbytes: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024
