"""Running kernels on real memory and on the interpreter, and comparing every byte.

Arrays end where a page begins that may not be touched, so that a read past the end is a crash
and not luck.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys

import interpret
import numpy as np

from facula.base.dtypes import bfloat16, float64
from facula.codegen import Target, emit
from facula.ir import loops as L
from facula.ir.verify_loops import verify
from facula.runtime import host, jit
from facula.runtime import threads as _threads

PAGE = mmap.PAGESIZE
WIDTHS = [w for w in (16, 32, 64) if w <= host.target().vector_bytes]


class Guarded:
    """A copy of an array whose last byte is the last before a page without access."""

    def __init__(self, array):
        array = np.ascontiguousarray(array)
        pages = -(-max(array.nbytes, 1) // PAGE) + 1
        self.memory = mmap.mmap(-1, pages * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        end = (pages - 1) * PAGE
        self.address = base + end - array.nbytes
        whole = np.frombuffer(self.memory, np.uint8)
        whole[:end] = 0xA5
        self.before = whole[: end - array.nbytes]
        self.array = whole[end - array.nbytes : end].view(array.dtype)
        self.array[:] = array
        if sys.platform == "linux":
            ctypes.CDLL(None).mprotect(ctypes.c_void_p(base + end), ctypes.c_size_t(PAGE), 0)

    def untouched(self) -> bool:
        return bool((self.before == 0xA5).all())


def compiled(kernel, width):
    """The kernel's native function for vectors of that many bytes."""
    text = emit(kernel, Target(width, host.target().arch))
    address = jit.load(text, [kernel.name])[kernel.name]
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)


def native(kernel, arguments, width):
    """Status and final arrays, by name, of the native kernel."""
    function = compiled(kernel, width)
    held, words, stride = {}, [], None
    for p in kernel.params:
        value = arguments[p.name]
        if isinstance(p, L.Buffer):
            held[p.name] = Guarded(value)
            words.append(held[p.name].address)
            if p.per_thread:
                stride = value.nbytes // _threads.MAX_THREADS
        elif p.dtype is float64:
            words.append(struct.unpack("<q", struct.pack("<d", value))[0])
        else:
            words.append(value)
    if stride is not None:
        words.append(stride)
    array = (ctypes.c_int64 * max(len(words), 1))(*words)
    status = function(ctypes.addressof(array))
    assert all(h.untouched() for h in held.values()), "bytes before a buffer were written"
    return status, {name: h.array for name, h in held.items()}


def same(a, b) -> bool:
    """Equal bytes, NaNs of any bits being one."""
    if a.dtype.kind == "f":
        bits = np.dtype(f"u{a.itemsize}")
        return bool(((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))).all())
    return bool((a == b).all())


def check(kernel, arguments, widths=WIDTHS):
    """Assert that all vector widths do what the interpreter does."""
    verify(kernel)
    copies = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    status = interpret.run(kernel, copies)
    scratch = {p.name for p in kernel.params if isinstance(p, L.Buffer) and p.scratch is not None}
    for width in widths:
        got_status, got = native(kernel, arguments, width)
        assert got_status == status, f"status {got_status}, expected {status}"
        for name, array in got.items():
            if name in scratch:
                continue
            d = next(p.dtype for p in kernel.params if p.name == name)
            want, have = copies[name], array
            if d is bfloat16:
                want, have = ((x.astype(np.uint32) << 16).view(np.float32) for x in (want, have))
            if not same(want, have):
                bad = [i for i in range(len(want)) if not same(want[i : i + 1], have[i : i + 1])]
                raise AssertionError(
                    f"{name} at {width} bytes differs at {bad[:8]} of {len(want)}:"
                    f" expected {want[bad[:8]]}, got {have[bad[:8]]}\n"
                    + emit(kernel, Target(width))
                )


def sample(d, n, seed=0):
    """``n`` elements of a dtype, extremes and not-a-numbers among them."""
    rng = np.random.default_rng(seed + 7 * n)
    if d.kind == "b":
        return rng.integers(0, 2, n).astype(np.bool_)
    if d.kind in "ui":
        info = np.iinfo(d.name)
        values = rng.integers(info.min, info.max, n, dtype=d.name, endpoint=True)
        small = rng.integers(0, 7, n).astype(d.name)
        values = np.where(rng.random(n) < 0.5, small, values)
        special = [info.min, info.max, 0, 1]
    else:
        values = rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4, n)
        special = [0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, 1.5, 3e9, -3e9, 1e19, 1e-40]
    for x in special:
        if n and rng.random() < 0.7:
            values[rng.integers(n)] = x
    if d is bfloat16:
        with np.errstate(all="ignore"):
            bits = [int(np.float32(interpret.to_bfloat16(v)).view(np.uint32)) >> 16 for v in values]
        return np.array(bits, np.uint16)
    with np.errstate(all="ignore"):
        return values.astype(d.name)
