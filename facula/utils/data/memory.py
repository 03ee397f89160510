"""Shared memory without a name: an anonymous file, mapped by whoever has its descriptor."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
import weakref

import numpy

from facula.base.errors import OutOfMemoryError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


class Mapping(numpy.ndarray):
    """The bytes of a mapped file; unmapped when the last array on them goes.

    Not :class:`mmap.mmap`, which keeps a descriptor of its own: a program that collects a
    thousand batches would run out of them.
    """


def new_file(size: int) -> int:
    """The descriptor of an anonymous file of that size, in memory where the system can.

    Raises:
        OutOfMemoryError: the system refuses.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("facula-batch", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        os.close(descriptor)
        raise OutOfMemoryError(f"DataLoader: no {size} bytes of shared memory: {error}") from error
    return descriptor


def map_file(descriptor: int, size: int) -> Mapping:
    """The file's bytes; the descriptor may be closed afterwards.

    Raises:
        OutOfMemoryError: the system refuses.
    """
    # All pages at once: much cheaper than a fault for each.
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0)
    if address == _FAILED:
        reason = os.strerror(ctypes.get_errno())
        raise OutOfMemoryError(f"DataLoader: {size} bytes of shared memory not mapped: {reason}")
    memory = (ctypes.c_ubyte * size).from_address(address)
    mapping = numpy.frombuffer(memory, dtype=numpy.uint8).view(Mapping)
    # At the interpreter's end the system unmaps everything, after the last user.
    weakref.finalize(mapping, _libc.munmap, address, size).atexit = False
    return mapping
