"""Scans: running sums, products, maxima, minima and log-sums of exponentials along a dimension.

A scan is a chain in the order of the dimension, so its bits do not depend on how the work is
shared. Lines that lie side by side run in vector lanes; a line that lies along memory by itself
is followed element by element. Sums of float16 and bfloat16 are kept in float32 and rounded where
they are stored. Running maxima take the last of equal elements, and NaN counts as the largest
(of minima: the smallest) from where it first occurs.

Limit: memory traffic, one read and one write of each element; for single lines the latency of
one operation an element.
"""

from __future__ import annotations

from facula.base.dtypes import bfloat16, dtype, float16, float32, int64
from facula.ir import loops as L

SIZES = ("outer", "n", "inner")
#: Neighbouring lines that one thread follows together.
_LINES = 256


def build(how: str, d: dtype, lanes: bool) -> L.Kernel:
    """The kernel of a scan over the middle dimension of contiguous [outer, n, inner] arrays.

    Args:
        how: "cumsum", "cumprod", "logcumsumexp", "cummax" or "cummin"; the last two also write
            the position (int64) at which the running extreme was met.
        d: dtype of x and y.
        lanes: whether neighbouring lines run in vector lanes: right if inner is more than a few.
    """
    k = L.Builder(f"{how}_{d.name}_{'lanes' if lanes else 'lines'}")
    x, y = k.buffer("x", d), k.buffer("y", d, "w")
    index = k.buffer("index", int64, "w") if how in ("cummax", "cummin") else None
    outer, n, inner = (k.size(name) for name in SIZES)

    def line(start):
        if index is None:
            _running(k, how, x, y, start, n, inner)
        else:
            _extreme(k, how, x, y, index, start, n, inner)

    if lanes:
        blocks = k.let(L.idiv_ceil(inner, _LINES), "blocks")
        with k.parallel(0, outer * blocks) as b:
            first = k.let((b % blocks) * _LINES, "first")
            last = k.let(L.minimum(first + _LINES, inner), "last")
            base = k.let((b // blocks) * n * inner, "base")
            with k.vector(first, last) as i:
                line(base + i)
    else:
        with k.parallel(0, outer * inner) as r:
            line(k.let((r // inner) * n * inner + r % inner, "start"))
    return k.kernel()


def _running(k, how, x, y, start, n, inner):
    d = float32 if x.dtype in (float16, bfloat16) else x.dtype
    neutral = {"cumsum": 0, "cumprod": 1, "logcumsumexp": float("-inf")}[how]
    total = k.local(d, neutral, name="total")
    with k.serial(0, n) as j:
        value = L.cast(x[start + j * inner], d)
        if how == "logcumsumexp":
            k.assign(total, _log_add(total.get(), value))
        else:
            k.assign(total, L.binary("add" if how == "cumsum" else "mul", total, value))
        k.store(y, start + j * inner, L.cast(total, x.dtype))


def _log_add(a, b):
    """``log(exp(a) + exp(b))``; of two equal infinities, that infinity."""
    difference = L.unary("abs", a - b)
    result = L.maximum(a, b) + L.call("log1p", L.call("exp", -difference))
    return L.select(a.eq(b) & L.unary("abs", a).eq(float("inf")), a, result)


def _extreme(k, how, x, y, index, start, n, inner):
    with_first = L.select(n > 0, start, 0)
    best = k.local(x.dtype, x.load(with_first, n > 0), name="best")
    at = k.local(int64, 0, name="at")
    with k.serial(0, n) as j:
        value = x[start + j * inner]
        if x.dtype.is_floating_point:
            better = value >= best if how == "cummax" else value <= best
            better = better | value.ne(value)
        else:
            better = value >= best if how == "cummax" else value <= best
        better = k.let(better, "better")
        k.assign(best, L.select(better, value, best.get()))
        k.assign(at, L.select(better, j, at.get()))
        k.store(y, start + j * inner, best.get())
        k.store(index, start + j * inner, at.get())
