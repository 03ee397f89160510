"""Sorting along a dimension, stably, with the elements' former positions.

Elements become *keys*: signed integers in the same order, for floats by flipping the lower bits of
negative numbers; -0 and 0 have one key, NaN has the largest, and a descending order is that of the
inverted keys. Positions are then found in one of three ways:

``rank``   for short rows: an element's place is the number of those that come before it, counted
           in vector lanes, n * n comparisons.
``radix``  for long rows: keys and positions are dealt out by 8 bits at a time, the lowest first. A
           digit that is the same in all keys is passed over.
``wide``   the same of long rows one after the other, each by all threads: a thread counts, then
           deals out, pieces whose places for a digit follow each other in the pieces' order.

Rows are independent and run on any thread; all memory but x and the results is each thread's own.

:func:`topk` keeps the first elements of the order in a short sorted list while it goes over a row:
blocks of which no element belongs there are seen to be so in vector lanes. For a long list (k of
more than a few) elements that belong there are gathered until they are as many as the list, and
sorted with it.

:func:`search` is binary search in sorted rows, the same steps in all lanes.
"""

from __future__ import annotations

from contextlib import contextmanager

from facula.base.dtypes import bfloat16, bool_, dtype, float16, float32, float64, int32, int64
from facula.ir import loops as L

SIZES = ("outer", "n", "inner")
#: Up to this length counting comparisons is quicker than dealing out digits.
_SHORT = 72
_DIGITS = 256
#: From this length on a row is worth several threads.
_LONG = 1 << 15
#: Pieces that such a row is cut into.
_PIECES = 16
#: Elements that are looked at together for whether any is among the first.
_BLOCK = 128


def choose(n: int, rows: int, threads: int) -> str:
    """The method for so many rows of ``n`` elements."""
    if n <= _SHORT:
        return "rank"
    return "wide" if n >= _LONG and rows < threads else "radix"


def is_many(k: int) -> bool:
    """Whether so many first elements are found sooner by :func:`many` than by :func:`topk`."""
    return k > 64


def build(d: dtype, descending: bool, method: str, values: bool = True) -> L.Kernel:
    """The kernel: sorts the middle dimension of a contiguous x [outer, n, inner].

    Parameters: x, y (sorted values, unless ``values`` is False), index (int64 positions), sizes,
    scratch. The number of elements of a row must be below 2**31.

    Args:
        method: "rank", "radix" or "wide"; all give the same.
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
        self.descending = descending
        self.x = k.buffer("x", d)
        self.y = k.buffer("y", d, "w") if values else None
        self.index = k.buffer("index", int64, "w")
        self.outer, self.n, self.inner = (k.size(name) for name in SIZES)
        self._scratch(method, d, self.n)

    def _scratch(self, method, d, room):
        """Memory for rows of up to ``room`` elements."""
        k, self.method = self.k, method
        self.key = int64 if d in (int64, float64) else int32
        two, own = 1 if method == "rank" else 2, method != "wide"
        self.keys = k.scratch("keys", self.key, room * two, own)
        self.places = k.scratch("places", int32, room * two, own)
        self.passes = self.key.itemsize
        self.pieces = 1 if own else _PIECES
        if method != "rank":
            count = L.Const(_DIGITS * (self.passes if own else _PIECES), int64)
            self.counts = k.scratch("counts", int64, count, own)
            self.differ = k.scratch("differ", self.key, L.Const(self.pieces, int64), own)

    def kernel(self) -> L.Kernel:
        k, n, inner = self.k, self.n, self.inner
        kind = "serial" if self.method == "wide" else "parallel"
        with k.loop(0, self.outer * inner, kind=kind) as r:
            start = k.let((r // inner) * n * inner + r % inner, "start")
            where = self._rank(start) if self.method == "rank" else self._radix(start)
            with self._each_piece() as (_, lo, hi), k.vector(lo, hi) as i:
                place = L.cast(self.places[where + i], int64)
                k.store(self.index, start + i * inner, place)
                if self.y is not None:
                    k.store(self.y, start + i * inner, self.x[start + place * inner])
        return k.kernel()

    @contextmanager
    def _each_piece(self):
        """The pieces of a row: the number, the first element and the end of each."""
        k, n = self.k, self.n
        if self.pieces == 1:
            yield L.Const(0, int64), L.Const(0, int64), n
            return
        with k.parallel(0, self.pieces) as c:
            yield c, k.let(c * n // self.pieces, "lo"), k.let((c + 1) * n // self.pieces, "hi")

    @contextmanager
    def _keys_of(self, start, lo, hi):
        """Store keys and positions of elements ``lo`` to ``hi``, in lanes; yields the key."""
        k = self.k
        with k.vector(lo, hi) as i:
            key = k.let(key_of(self.x[start + i * self.inner], self.descending), "key")
            k.store(self.keys, i, key)
            k.store(self.places, i, L.cast(i, int32))
            yield key

    def _rank(self, start):
        """Every element's place, and the positions written to their places."""
        k, n, one = self.k, self.n, L.Const(1, self.key)
        with self._keys_of(start, L.Const(0, int64), n):
            pass
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

    def _radix(self, start):
        """Deal out by every digit; returns where the final positions begin."""
        k, n = self.k, self.n
        first = k.let(key_of(self.x.load(start, n > 0), self.descending), "first")
        with self._each_piece() as (c, lo, hi):
            seen = k.local(self.key, 0, name="seen")
            with self._keys_of(start, lo, hi) as key:
                k.reduce(seen, "or", key ^ first)
            k.store(self.differ, c, seen.get())
        differ = self.differ[0]
        for c in range(1, self.pieces):
            differ = L.binary("or", differ, self.differ[c])
        return self._dealt(k.let(differ, "differ"))

    def _dealt(self, differ):
        """The same of keys and positions that are there; bits that ``differ`` lacks are equal."""
        k, n, source = self.k, self.n, self.k.local(int64, 0, name="source")
        if self.pieces == 1:
            self._count(range(self.passes), L.Const(0, int64))
        with k.serial(0, self.passes) as p:
            bits = L.binary("lshr", differ, L.cast(p * 8, self.key)) & (_DIGITS - 1)
            with k.if_(bits.ne(0)):
                a = k.let(source.get(), "from")
                if self.pieces > 1:
                    self._count([p], a)
                self._add_up(p)
                self._deal(p, a, k.let(n - a, "to"))
                k.assign(source, n - a)
        return k.let(source.get(), "where")

    def _row(self, p, c):
        """Where the counts of a digit are: of one piece those of all are kept, else of one."""
        return (p if self.pieces == 1 else c) * _DIGITS

    def _count(self, digits, a):
        """How often each digit has each value, of what is at ``a``."""
        k, counts = self.k, self.counts
        with self._each_piece() as (c, lo, hi):
            first = self._row(digits[0], c)
            with k.vector(first, first + _DIGITS * len(digits)) as i:
                k.store(counts, i, 0)
            with k.serial(lo, hi) as i:
                key = k.let(self.keys[a + i], "key")
                for p in digits:
                    at = k.let(self._row(p, c) + self._digit(key, p), "at")
                    k.store(counts, at, counts[at] + 1)

    def _add_up(self, p):
        """From counts to the first place of each piece for each value."""
        k, counts = self.k, self.counts
        total = k.local(int64, 0, name="total")
        with k.serial(0, _DIGITS) as value, k.serial(0, self.pieces) as c:
            at = k.let(self._row(p, c) + value, "at")
            here = k.let(counts[at], "here")
            k.store(counts, at, total.get())
            k.assign(total, total + here)

    def _deal(self, p, a, b):
        """Move elements from ``a`` to the places that were counted, from ``b`` on."""
        k, counts = self.k, self.counts
        with self._each_piece() as (c, lo, hi), k.serial(lo, hi) as i:
            key = k.let(self.keys[a + i], "key")
            place = k.let(self.places[a + i], "place")
            at = k.let(self._row(p, c) + self._digit(key, p), "at")
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


def many(d: dtype, largest: bool) -> L.Kernel:
    """The same kernel as :func:`topk`, for a large ``k``."""
    return _Many(d, largest).kernel()


class _Many(_Sort):
    """The first elements so far are at the front of keys and places, new ones behind them."""

    def __init__(self, d, largest):
        k = self.k = L.Builder(f"topk_many_{d.name}_{'largest' if largest else 'smallest'}")
        self.x, self.y = k.buffer("x", d), k.buffer("y", d, "w")
        self.descending, self.index = largest, k.buffer("index", int64, "w")
        self.outer, self.n, self.inner, self.count = (k.size(name) for name in (*SIZES, "k"))
        self._scratch("radix", d, 2 * self.count + _BLOCK)

    def kernel(self) -> L.Kernel:
        k, n, inner, count = self.k, self.n, self.inner, self.count
        greatest = (1 << (8 * self.key.itemsize - 1)) - 1
        with k.parallel(0, self.outer * inner) as r:
            start = k.let((r // inner) * n * inner + r % inner, "start")
            filled, worst = k.local(int64, 0, name="filled"), k.local(self.key, greatest)
            few = k.local(bool_, True, name="few")  # Not as many are known as are wanted.
            with k.serial(0, n, _BLOCK) as first:
                last, least = (
                    k.let(L.minimum(first + _BLOCK, n), "last"),
                    k.local(self.key, greatest),
                )
                with k.vector(first, last) as i:
                    k.reduce(least, "min", key_of(self.x[start + i * inner], self.descending))
                with k.if_((least.get() < worst) | few.get()), k.serial(first, last) as i:
                    key = k.let(key_of(self.x[start + i * inner], self.descending), "key")
                    k.store(self.keys, filled.get(), key)
                    k.store(self.places, filled.get(), L.cast(i, int32))
                    belongs = (key < worst) | few.get()
                    k.assign(filled, L.select(belongs, filled.get() + 1, filled.get()))
                with k.if_((filled.get() > 2 * count) | last.eq(n)):
                    self._keep(filled)
                    k.assign(worst, self.keys[count - 1])
                    k.assign(few, False)
            to = k.let((r // inner) * count * inner + r % inner, "to")
            with k.vector(0, count) as i:
                place = L.cast(self.places[i], int64)
                k.store(self.index, to + i * inner, place)
                k.store(self.y, to + i * inner, self.x[start + place * inner])
        return k.kernel()

    def _keep(self, filled):
        """Sort what is there and keep the first of it."""
        k, self.n = self.k, self.k.let(filled.get(), "n")
        where = self._dealt(L.Const(-1, self.key))
        with k.if_(where.ne(0)), k.vector(0, self.count) as i:
            k.store(self.keys, i, self.keys[where + i])
            k.store(self.places, i, self.places[where + i])
        k.assign(filled, self.count)


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
