"""Sorting along a dimension, stably, with the elements' former positions.

Elements become *keys*: signed integers in the same order, for floats by flipping the lower bits of
negative numbers; -0 and 0 have one key, NaN has the largest, and a descending order is that of the
inverted keys. Positions are then found in one of two ways:

``rank``   for short rows: an element's place is the number of those that come before it, counted
           in vector lanes, n * n comparisons.
``radix``  for long rows: keys and positions are dealt out by 8 bits at a time, the lowest first. A
           digit that is the same in all keys is passed over.

Rows are independent and run on any thread; all memory but x and the results is each thread's own.

:func:`topk` keeps the first elements of the order in a short sorted list while it goes over a row:
blocks of which no element belongs there are seen to be so in vector lanes.

:func:`search` is binary search in sorted rows, the same steps in all lanes.
"""

from __future__ import annotations

from facula.base.dtypes import bfloat16, dtype, float16, float32, float64, int32, int64
from facula.ir import loops as L

SIZES = ("outer", "n", "inner")
#: Up to this length counting comparisons is quicker than dealing out digits.
_SHORT = 72
_DIGITS = 256
#: Elements that are looked at together for whether any is among the first.
_BLOCK = 128


def choose(n: int) -> str:
    """The method for rows of ``n`` elements."""
    return "rank" if n <= _SHORT else "radix"


def build(d: dtype, descending: bool, method: str, values: bool = True) -> L.Kernel:
    """The kernel: sorts the middle dimension of a contiguous x [outer, n, inner].

    Parameters: x, y (sorted values, unless ``values`` is False), index (int64 positions), sizes,
    scratch. The number of elements of a row must be below 2**31.

    Args:
        method: "rank" or "radix"; both give the same.
    """
    return _Sort(d, descending, method, values).kernel()


def key_of(value: L.Expr, descending: bool) -> L.Expr:
    """A signed integer that orders as ``value`` does, int32 or int64."""
    d = value.dtype
    if d in (float16, bfloat16):
        value, d = L.cast(value, float32), float32
    if d.is_floating_point:
        whole = int32 if d is float32 else int64
        low = (1 << (8 * whole.itemsize - 1)) - 1
        bits = L.bitcast(value + 0.0, whole)
        key = L.select(bits < 0, bits ^ low, bits)
        key = L.select(value.ne(value), L.Const(low, whole), key)
    else:
        key = L.cast(value, int64 if d is int64 else int32)
    return key ^ -1 if descending else key


class _Sort:
    """Writes one kernel."""

    def __init__(self, d, descending, method, values):
        order = "descending" if descending else "ascending"
        k = self.k = L.Builder(f"sort_{method}_{d.name}_{order}{'' if values else '_index'}")
        self.descending, self.method = descending, method
        self.x = k.buffer("x", d)
        self.y = k.buffer("y", d, "w") if values else None
        self.index = k.buffer("index", int64, "w")
        self.outer, self.n, self.inner = (k.size(name) for name in SIZES)
        self.key = int64 if d in (int64, float64) else int32
        two = 2 if method == "radix" else 1
        self.keys = k.scratch("keys", self.key, self.n * two, per_thread=True)
        self.places = k.scratch("places", int32, self.n * two, per_thread=True)
        self.passes = self.key.itemsize
        if method == "radix":
            counts = _DIGITS * self.passes
            self.counts = k.scratch("counts", int64, L.Const(counts, int64), per_thread=True)

    def kernel(self) -> L.Kernel:
        k, n, inner = self.k, self.n, self.inner
        with k.parallel(0, self.outer * inner) as r:
            start = k.let((r // inner) * n * inner + r % inner, "start")
            with k.vector(0, n) as i:
                key = key_of(self.x[start + i * inner], self.descending)
                k.store(self.keys, i, key)
            where = self._rank() if self.method == "rank" else self._radix()
            with k.vector(0, n) as i:
                place = L.cast(self.places[where + i], int64)
                k.store(self.index, start + i * inner, place)
                if self.y is not None:
                    k.store(self.y, start + i * inner, self.x[start + place * inner])
        return k.kernel()

    def _rank(self):
        """Every element's place, and the positions written to their places."""
        k, n, one = self.k, self.n, L.Const(1, self.key)
        with k.vector(0, n) as i:
            mine = k.let(self.keys[i], "mine")
            rank = k.local(self.key, 0, name="rank")
            me = k.let(L.cast(i, self.key), "me")
            with k.serial(0, n) as j:
                other = self.keys[j]
                before = (other < mine) | (other.eq(mine) & (L.cast(j, self.key) < me))
                k.assign(rank, L.select(before, rank + one, rank.get()))
            k.store(self.places, L.cast(rank, int64), L.cast(me, int32))
        return L.Const(0, int64)

    def _digit(self, key, p):
        """Digit ``p`` of a key; the sign's bit counts the other way round."""
        bits = L.binary("lshr", key, L.cast(p * 8, self.key)) & (_DIGITS - 1)
        digit = L.cast(bits, int64)
        return L.select(L.as_expr(p, int64).eq(self.passes - 1), digit ^ 128, digit)

    def _radix(self):
        """Deal out by every digit; returns where the final positions begin."""
        k, n, counts = self.k, self.n, self.counts
        with k.vector(0, _DIGITS * self.passes) as i:
            k.store(counts, i, 0)
        with k.serial(0, n) as i:
            key = k.let(self.keys[i], "key")
            k.store(self.places, i, L.cast(i, int32))
            for p in range(self.passes):
                at = k.let(self._digit(key, p) + p * _DIGITS, "at")
                k.store(counts, at, counts[at] + 1)
        source = k.local(int64, 0, name="source")
        with k.serial(0, self.passes) as p:
            row = k.let(p * _DIGITS, "row")
            first = k.let(self._digit(self.keys.load(source.get(), n > 0), p), "first")
            with k.if_(counts[row + first].ne(n)):
                self._deal(p, row, source)
                k.assign(source, n - source.get())
        return k.let(source.get(), "where")

    def _deal(self, p, row, source):
        k, n, counts = self.k, self.n, self.counts
        total = k.local(int64, 0, name="total")
        with k.serial(0, _DIGITS) as i:
            here = k.let(counts[row + i], "here")
            k.store(counts, row + i, total.get())
            k.assign(total, total + here)
        a = k.let(source.get(), "from")
        b = k.let(n - a, "to")
        with k.serial(0, n) as i:
            key = k.let(self.keys[a + i], "key")
            place = k.let(self.places[a + i], "place")
            at = k.let(row + self._digit(key, p), "at")
            to = k.let(counts[at], "to")
            k.store(counts, at, to + 1)
            k.store(self.keys, b + to, key)
            k.store(self.places, b + to, place)


def topk(d: dtype, largest: bool) -> L.Kernel:
    """The kernel: the first ``k`` of each row of x [outer, n, inner] in sorted order.

    Parameters: x, y [outer, k, inner], index (int64 positions), sizes outer, n, inner and k, which
    is at least 1 and at most n; scratch. Equal elements come in the order of their positions.
    """
    b = L.Builder(f"topk_{d.name}_{'largest' if largest else 'smallest'}")
    x, y, index = b.buffer("x", d), b.buffer("y", d, "w"), b.buffer("index", int64, "w")
    outer, n, inner, k = (b.size(name) for name in (*SIZES, "k"))
    key = int64 if d in (int64, float64) else int32
    keys = b.scratch("keys", key, n, per_thread=True)
    best = b.scratch("best", key, k, per_thread=True)
    places = b.scratch("places", int64, k, per_thread=True)
    with b.parallel(0, outer * inner) as r:
        start = b.let((r // inner) * n * inner + r % inner, "start")
        with b.vector(0, n) as i:
            b.store(keys, i, key_of(x[start + i * inner], largest))
        with b.serial(0, k) as i:
            _insert(b, keys[i], i, best, places, i)
        with b.serial(k, n, _BLOCK) as first:
            last = b.let(L.minimum(first + _BLOCK, n), "last")
            least = b.local(key, (1 << (8 * key.itemsize - 1)) - 1, name="least")
            with b.vector(first, last) as i:
                b.reduce(least, "min", keys[i])
            with b.if_(least.get() < best[k - 1]), b.serial(first, last) as i:
                candidate = b.let(keys[i], "candidate")
                with b.if_(candidate < best[k - 1]):
                    _insert(b, candidate, i, best, places, k - 1)
        to = b.let((r // inner) * k * inner + r % inner, "to")
        with b.serial(0, k) as i:
            place = b.let(places[i], "place")
            b.store(index, to + i * inner, place)
            b.store(y, to + i * inner, x[start + place * inner])
    return b.kernel()


def _insert(b, key, place, best, places, count):
    """Put a key behind those of the first ``count`` that are not larger, the others one up."""
    key = b.let(key, "key")
    at = b.local(int64, count, name="at")
    before = L.maximum(at.get() - 1, 0)
    with b.while_((at.get() > 0) & (best[before] > key)):
        b.store(best, at.get(), best[at.get() - 1])
        b.store(places, at.get(), places[at.get() - 1])
        b.assign(at, at.get() - 1)
    b.store(best, at.get(), key)
    b.store(places, at.get(), place)


def search_steps(n: int) -> int:
    """The parameter ``top`` of :func:`search`: the largest power of two that is not above n."""
    return 1 << (n.bit_length() - 1) if n else 0


def search(d: dtype, right: bool) -> L.Kernel:
    """Where values would be inserted into ascending rows, that they stay so.

    Parameters: sequence [rows, n], x [rows, m], y [rows, m] (int64), sizes rows, n, m, ``row_step``
    (n, or 0 if all rows search the same sequence) and ``top`` (see :func:`search_steps`).

    Args:
        right: behind equal elements, not before them.
    """
    k = L.Builder(f"search_{d.name}_{'right' if right else 'left'}")
    sequence, x = k.buffer("sequence", d), k.buffer("x", d)
    y = k.buffer("y", int64, "w")
    rows, n, m, row_step, top = (k.size(s) for s in ("rows", "n", "m", "row_step", "top"))
    block = 1024
    blocks = k.let(L.idiv_ceil(m, block), "blocks")
    with k.parallel(0, rows * blocks) as b:
        row = k.let(b // blocks, "row")
        first = k.let((b % blocks) * block, "first")
        last = k.let(L.minimum(first + block, m), "last")
        with k.vector(first, last) as i:
            mine = k.let(key_of(x[row * m + i], False), "mine")
            found = k.local(int64, 0, name="found")
            step = k.local(int64, top, name="step")
            with k.while_(step.get() > 0):
                ahead = k.let(found.get() + step, "ahead")
                inside = k.let(ahead <= n, "inside")
                other = key_of(sequence.load(row * row_step + ahead - 1, inside), False)
                before = other <= mine if right else other < mine
                k.assign(found, L.select(inside & before, ahead, found.get()))
                k.assign(step, L.binary("shr", step.get(), L.Const(1, int64)))
            k.store(y, row * m + i, found.get())
    return k.kernel()
