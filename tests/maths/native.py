"""Functions of the maths library as machine code on arrays, and their errors."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from facula.base.dtypes import dtype
from facula.codegen import Target, emit
from facula.ir import loops as L
from facula.runtime import host, jit

WIDTHS = [w for w in (16, 32, 64) if w <= host.target().vector_bytes]


@cache
def address(name: str, d: dtype, width: int, loop: str) -> int:
    b = L.Builder("apply")
    inputs = [b.buffer(f"x{k}", d) for k in range(L.TRANSCENDENTAL[name])]
    out, n = b.buffer("out", d, "w"), b.size("n")
    with getattr(b, loop)(0, n) as i:
        b.store(out, i, L.call(name, *(x[i] for x in inputs)))
    text = emit(b.kernel(), Target(width, host.target().arch))
    return jit.load(text, ["apply"])["apply"]


def apply(name: str, d: dtype, *arrays, width: int = WIDTHS[-1], loop: str = "vector"):
    """``name`` of arrays of dtype ``d``, in vectors of that many bytes or in a loop of scalars."""
    arrays = [np.ascontiguousarray(a, d.numpy()) for a in arrays]
    out = np.empty_like(arrays[0])
    words = [*(a.ctypes.data for a in arrays), out.ctypes.data, out.size]
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address(name, d, width, loop))
    assert function(np.array(words, np.int64).ctypes.data) == 0
    return out


def ulps(got, want):
    """Errors in units in the last place of ``want``, which has more digits than ``got``.

    Infinite where one is NaN or infinite and the other is not after rounding.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        _, exponent = np.frexp(want)
        unit = np.ldexp(np.ones_like(want), np.maximum(exponent, info.minexp + 1) - 1 - info.nmant)
        error = np.abs((got - want) / unit).astype(np.float64)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    error[same & ~np.isfinite(rounded)] = 0
    return np.nan_to_num(error, nan=np.inf)


def equal(got, want):
    """Where two arrays agree to the bit, all NaNs taken as one."""
    same = (got == want) & (np.signbit(got) == np.signbit(want))
    return same | (np.isnan(got) & np.isnan(want))
