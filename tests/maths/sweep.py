"""The error of every float32 function over all its 2^32 arguments: ``python sweep.py [NAME ...]``.

The truth is the same function in float64, which ``test_maths`` holds against many digits; argument,
both results and the error are computed in one kernel, so that a function takes some seconds.
Prints a line of the table of ``docs/design/maths.md`` a function.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from facula.base.dtypes import float32, float64, int32, int64
from facula.codegen import Target, emit
from facula.ir import loops as L
from facula.runtime import host, jit

CHUNK = 1 << 22


def error(y, t):
    """The error of the float32 ``y`` in its units, ``t`` being the truth in float64."""
    rounded = L.cast(t, float32)
    exponent = L.binary("shr", L.bitcast(L.unary("abs", t), int64), 52)
    exponent = L.select(exponent < 897, L.Const(897, int64), exponent)
    per_unit = L.bitcast(L.binary("shl", 2046 + 23 - exponent, 52), float64)
    # An infinity stands for the power of two that would come next.
    wide = L.cast(y, float64)
    infinite = L.unary("abs", wide).eq(np.inf)
    wide = L.select(infinite, L.binary("copysign", L.Const(2.0**128, float64), wide), wide)
    size = L.unary("abs", (wide - t) * per_unit)
    both_nan = y.ne(y) & rounded.ne(rounded)
    settled = both_nan | (infinite & y.eq(rounded))
    size = L.select(settled, L.Const(0.0, float64), size)
    return L.select(size.eq(size), size, L.Const(np.inf, float64))


def kernel(name):
    b = L.Builder("sweep")
    start, out, n = b.size("start"), b.buffer("out", float64, "w"), b.size("n")
    worst = b.local(float64, 0.0)
    with b.vector(0, n) as i:
        x = L.bitcast(L.cast(start + i, int32), float32)
        b.reduce(worst, "max", error(L.call(name, x), L.call(name, L.cast(x, float64))))
    b.store(out, 0, worst.get())
    target = host.target()
    address = jit.load(emit(b.kernel(), Target(target.vector_bytes, target.arch)), ["sweep"])
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address["sweep"])


def sweep(name):
    run, out = kernel(name), np.zeros(1)

    def worst(start, n):
        run(np.array([start, out.ctypes.data, n], np.int64).ctypes.data)
        return out[0]

    starts = range(0, 1 << 32, CHUNK)
    at = max(starts, key=lambda s: worst(s, CHUNK))
    largest, n = worst(at, CHUNK), CHUNK
    while n > 1:
        n //= 2
        at = at if worst(at, n) == largest else at + n
    return largest, np.uint32(at).view(np.float32)


if __name__ == "__main__":
    unary = [name for name, count in L.TRANSCENDENTAL.items() if count == 1]
    for name in sys.argv[1:] or unary:
        largest, at = sweep(name)
        print(f"| {name} | {largest:.3f} | {at!s} |", flush=True)
