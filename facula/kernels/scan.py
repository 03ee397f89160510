"""Scans: running sums, products, maxima and minima along a dimension; positions of true elements.

A scan is a chain in the order of the dimension, so its bits do not depend on how the work is
shared. Lines that lie side by side run in vector lanes; a line that lies along memory by itself
is followed element by element, four lines taking turns where there are so many. Running extremes
of such a line change seldom: blocks in which they do not are seen to be so, and filled, in lanes.
Sums of float16 and bfloat16 are kept in float32 and rounded where they are stored. Running maxima
take the last of equal elements, and NaN counts as the largest (of minima: the smallest) from where
it first occurs.

Limit: memory traffic, one read and one write of each element; for single lines the latency of
one operation an element.
"""

from __future__ import annotations

from facula.base.dtypes import bfloat16, bool_, dtype, float16, float32, int64
from facula.ir import loops as L
from facula.ops.indexing import COUNTED

SIZES = ("outer", "n", "inner")
#: Neighbouring lines that one thread follows together.
_LINES = 256
#: Lines that lie along memory and take turns.
_TURNS = 4
#: Elements that are looked at together for whether an extreme changes.
_BLOCK = 64


def choose(how: str, outer: int, inner: int) -> str:
    """The method: right for many neighbouring lines, for many lines or for few."""
    if inner > 4:
        return "lanes"
    return "turns" if outer * inner >= 2 * _TURNS and how in ("cumsum", "cumprod") else "lines"


def build(how: str, d: dtype, method: str) -> L.Kernel:
    """The kernel of a scan over the middle dimension of contiguous [outer, n, inner] arrays.

    Args:
        how: "cumsum", "cumprod", "cummax" or "cummin"; the last two also write
            the position (int64) at which the running extreme was met.
        d: dtype of x and y.
        method: "lanes": neighbouring lines run in them; "lines": each by itself; "turns" (not of
            extremes): some at a time.
    """
    k = L.Builder(f"{how}_{d.name}_{method}")
    x, y = k.buffer("x", d), k.buffer("y", d, "w")
    index = k.buffer("index", int64, "w") if how in ("cummax", "cummin") else None
    outer, n, inner = (k.size(name) for name in SIZES)

    def line(*starts):
        if index is None:
            _running(k, how, x, y, starts, n, inner)
        else:
            extreme = _extreme if method == "lanes" else _extreme_in_blocks
            extreme(k, how, x, y, index, *starts, n, inner)

    if method == "lanes":
        blocks = k.let(L.idiv_ceil(inner, _LINES), "blocks")
        with k.parallel(0, outer * blocks) as b:
            first = k.let((b % blocks) * _LINES, "first")
            last = k.let(L.minimum(first + _LINES, inner), "last")
            base = k.let((b // blocks) * n * inner, "base")
            with k.vector(first, last) as i:
                line(base + i)
        return k.kernel()
    each, lines = _TURNS if method == "turns" else 1, outer * inner
    with k.parallel(0, L.idiv_ceil(lines, each)) as group:
        # The last group may take the last line several times.
        numbers = [k.let(L.minimum(group * each + i, lines - 1), "r") for i in range(each)]
        line(*(k.let((r // inner) * n * inner + r % inner, "start") for r in numbers))
    return k.kernel()


def _running(k, how, x, y, starts, n, inner):
    d = float32 if x.dtype in (float16, bfloat16) else x.dtype
    totals = [k.local(d, 0 if how == "cumsum" else 1, name="total") for _ in starts]
    with k.serial(0, n) as j:
        # Loads first: lines are often pages apart, where a load seems to wait for a store.
        values = [k.let(x[start + j * inner], "value") for start in starts]
        for start, value, total in zip(starts, values, totals):
            value = L.cast(value, d)
            k.assign(total, L.binary("add" if how == "cumsum" else "mul", total, value))
            k.store(y, start + j * inner, L.cast(total, x.dtype))


def _better(how, value, best):
    """Whether an element takes the place of the extreme so far."""
    better = value >= best if how == "cummax" else value <= best
    return better | value.ne(value) if value.dtype.is_floating_point else better


def _first(k, x, start, n):
    """The extreme before the first element, which is that element, and its position."""
    with_first = L.select(n > 0, start, 0)
    return k.local(x.dtype, x.load(with_first, n > 0), name="best"), k.local(int64, 0, name="at")


def _extreme(k, how, x, y, index, start, n, inner):
    best, at = _first(k, x, start, n)
    with k.serial(0, n) as j:
        value = x[start + j * inner]
        better = k.let(_better(how, value, best), "better")
        k.assign(best, L.select(better, value, best.get()))
        k.assign(at, L.select(better, j, at.get()))
        k.store(y, start + j * inner, best.get())
        k.store(index, start + j * inner, at.get())


def _extreme_in_blocks(k, how, x, y, index, start, n, inner):
    """The same of one line."""
    best, at = _first(k, x, start, n)
    with k.serial(0, n, _BLOCK) as first:
        last = k.let(L.minimum(first + _BLOCK, n), "last")
        here = k.local(x.dtype, x[start + first * inner], name="here")
        with k.vector(first, last) as j:
            k.reduce(here, "max" if how == "cummax" else "min", x[start + j * inner])
        with k.if_(_better(how, here.get(), best)), k.serial(first, last) as j:
            value = k.let(x[start + j * inner], "value")
            with k.if_(_better(how, value, best)):
                k.assign(best, value)
                k.assign(at, j)
            k.store(y, start + j * inner, best.get())
            k.store(index, start + j * inner, at.get())
        with k.else_(), k.vector(first, last) as j:
            k.store(y, start + j * inner, best.get())
            k.store(index, start + j * inner, at.get())


def compact() -> L.Kernel:
    """The positions of the true elements of a vector, in order.

    A block's are gathered in the thread's own memory, without a branch, and written behind those of
    the blocks before it.

    Parameters: mask [n]; ends [blocks], how many are true up to the end of each block of
    ``COUNTED`` elements; y [room]; these sizes.
    """
    k = L.Builder("compact")
    mask, ends = k.buffer("mask", bool_), k.buffer("ends", int64)
    y = k.buffer("y", int64, "rw")
    n, blocks, room = (k.size(name) for name in ("n", "blocks", "room"))
    mine = k.scratch("mine", int64, L.Const(COUNTED, int64), per_thread=True)
    with k.parallel(0, blocks) as b:
        lo, found = k.let(b * COUNTED, "lo"), k.local(int64, 0, name="found")
        hi = k.let(L.minimum(lo + COUNTED, n), "hi")
        whole = k.let(lo + (hi - lo) // 8 * 8, "whole")

        def one(i):
            k.store(mine, found.get(), i)
            k.assign(found, found.get() + L.cast(mask[i], int64))

        with k.serial(lo, whole, 8) as first, k.unroll(0, 8) as more:
            one(first + more)
        with k.serial(whole, hi) as i:
            one(i)
        first = k.let(L.maximum(ends.load(b - 1, b > 0), 0), "first")
        with k.vector(0, L.minimum(found.get(), room - first)) as j:
            k.store(y, first + j, mine[j])
    return k.kernel()
