"""Sums of bags of rows: those of a table that an index names, from where a bag starts to the next.

A thread has bags of its own. In lanes along the columns, a bag's rows are added up in the order of
the index, a chain from zero, without ever being laid side by side; float16 and bfloat16 in float32.
Starts and positions are checked first: a bag with one out of range is taken for empty.

Limit: memory traffic, one read of the rows that are named.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.ir import loops as L

#: Bags share out the whole index in order, or else status 1; rows are in the table, or else 2.
STATUS_START, STATUS_ROW = 1, 2
#: Elements that a thread's bags should read at least, if they are no larger than usual.
_CHUNK = 16384
#: Columns whose sums stay in registers.
_COLUMNS = 64


def build(dtype, mean: bool) -> L.Kernel:
    """``y[b] = x[index[starts[b]]] + ...`` up to the next start; with ``mean`` by their number.

    Parameters: x [rows, inner], starts [given], index [count], y [bags, inner], all contiguous, and
    these sizes. The last bag ends at ``count`` if there is no further start.
    """
    k = L.Builder(f"bags_{dtype.name}{'_mean' if mean else ''}")
    x, y = k.buffer("x", dtype), k.buffer("y", dtype, "w")
    starts, index = k.buffer("starts", D.int64), k.buffer("index", D.int64)
    rows, count, given, bags, inner = (
        k.size(s) for s in ("rows", "count", "given", "bags", "inner")
    )
    d = D.float32 if dtype in (D.float16, D.bfloat16) else dtype
    usual = L.maximum(count // L.maximum(bags, 1), 1) * L.maximum(inner, 1)
    with k.parallel(0, bags, grain=L.maximum(L.Const(_CHUNK, D.int64) // usual, 1)) as b:
        lo, more = k.let(starts[b], "lo"), k.let(b + 1 < given, "more")
        hi = k.let(L.select(more, starts.load(b + 1, more), count), "hi")
        whole = (lo.eq(0) | (b > 0)) & (hi.eq(count) | (b + 1 < bags))
        inside = k.let((lo >= 0) & (lo <= hi) & (hi <= count) & whole, "ok")
        k.check(inside, STATUS_START)
        hi = k.let(L.select(inside, hi, lo), "hi")
        signs = k.local(D.int64, 0, name="signs")
        with k.vector(lo, hi) as e:
            row = k.let(index[e], "row")
            k.reduce(signs, "or", L.binary("or", row, rows - 1 - row))
        known = k.let(signs.get() >= 0, "known")
        k.check(known, STATUS_ROW)
        hi = k.let(L.select(known, hi, lo), "hi")

        def finish(j, total):
            if mean:
                total = total / L.cast(L.maximum(hi - lo, 1), d)
            k.store(y, b * inner + j, L.cast(total, dtype))

        whole = k.let(inner // _COLUMNS * _COLUMNS, "whole")
        with k.serial(0, whole, _COLUMNS) as first:
            totals = k.local(d, 0, (_COLUMNS,), "totals")
            with k.serial(lo, hi) as e:
                row = k.let(index[e] * inner + first, "row")
                with k.vector(0, _COLUMNS) as j:
                    k.assign(totals, j, totals[j] + L.cast(x[row + j], d))
            with k.vector(0, _COLUMNS) as j:
                finish(first + j, totals[j])
        with k.vector(whole, inner) as j:
            total = k.local(d, 0, name="total")
            with k.serial(lo, hi) as e:
                k.assign(total, total + L.cast(x[index[e] * inner + j], d))
            finish(j, total.get())
    return k.kernel()
