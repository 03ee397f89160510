"""Running kernels on arrays: scratch is allocated, everything else is given by name."""

from __future__ import annotations

import ctypes
import functools
import mmap

import numpy as np

from facula.base.dtypes import bfloat16, float64
from facula.codegen import Target, emit
from facula.ir import loops as L
from facula.ir.evaluate_loops import evaluate
from facula.runtime import host, jit, launch
from facula.runtime import threads as _threads  # noqa: F401  provides what parallel loops call

WIDTH = host.target().vector_bytes
#: Threads that tests may use; per-thread scratch is allocated for so many.
MOST_THREADS = 4


@functools.cache
def _address(text, name):
    return jit.load(text, [name])[name]


def compiled(kernel, width=WIDTH):
    """Address of the kernel's machine code for vectors of ``width`` bytes."""
    return _address(emit(kernel, Target(width, host.target().arch)), kernel.name)


def storage(d):
    """The NumPy dtype that holds elements of ``d``: bfloat16 as its bits."""
    return np.dtype("uint16") if d is bfloat16 else d.numpy()


def aligned(nbytes):
    """Memory at a multiple of 64 bytes, filled with what no kernel should rely on."""
    raw = np.full(nbytes + 64, 0xA5, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def guarded(array):
    """A copy of a one-dimensional array that ends where memory ends that may be touched."""
    page = mmap.PAGESIZE
    pages = -(-max(array.nbytes, 1) // page) + 1
    memory = mmap.mmap(-1, pages * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = (pages - 1) * page
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + end), ctypes.c_size_t(page), 0)
    copy = np.frombuffer(memory, np.uint8)[end - array.nbytes : end].view(array.dtype)
    copy[:] = array
    return copy


class Call:
    """A kernel with its argument words; calling it runs it and returns the status."""

    def __init__(self, kernel, arguments, width=WIDTH):
        sizes = {k: int(v) for k, v in arguments.items() if isinstance(v, (int, np.integer))}
        self.kept, words, per_thread = [], [], []
        for p in kernel.params:
            if not isinstance(p, L.Buffer):
                value = arguments[p.name]
                words.append(float(value) if p.dtype is float64 else int(value))
            elif p.scratch is None:
                a = arguments[p.name]
                assert a.dtype == storage(p.dtype), (p.name, a.dtype, p.dtype)
                words.append(a.ctypes.data)
            else:
                nbytes = max(0, evaluate(p.scratch, sizes)) * p.dtype.itemsize
                nbytes = -(-nbytes // 64) * 64
                if p.per_thread:
                    per_thread.append((len(words), nbytes))
                    words.append(0)
                else:
                    self.kept.append(aligned(nbytes))
                    words.append(self.kept[-1].ctypes.data)
        if per_thread:
            stride = sum(n for _, n in per_thread)
            region = aligned(stride * MOST_THREADS)
            self.kept.append(region)
            at = region.ctypes.data
            for i, nbytes in per_thread:
                words[i], at = at, at + nbytes
            words.append(stride)
        self.arguments, self.words, self.address = arguments, words, compiled(kernel, width)

    def __call__(self):
        return launch.call(self.address, self.words)


def run(kernel, width=WIDTH, **arguments):
    """Run once; returns the status."""
    return Call(kernel, arguments, width)()
