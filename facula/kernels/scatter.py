"""Writes to positions that are data: scatter, index_add, index_put.

The result starts as a copy of the target, as zeros, or is the target itself; then elements are
combined into it *in the order of the index*, so that sums and last-write-wins have the same bits
on any number of threads. Threads share the work by what they may write to:

``rows``   (index_add, index_put) A thread takes some columns of all rows, in vector lanes, at
           least a line of memory; it goes through the whole index.
``columns`` (scatter along a dimension that is not the last) Likewise, but that every element has a
           position of its own; "rows" if the index is the same for all of a row.
``lines``  (scatter along the last dimension, or of few columns) Every line along the dimension is
           one thread's.

Element by element is quicker here than gathers and scatters in lanes. Blocks of the index are
looked at in lanes first, so that all but those with one out of range are gone through without a
question.

Rows may be *updated* once all is added to them: ``x - rate * y`` over ``x``. If, with the numbers
at hand, a ``y`` of 0 leaves any ``x`` as it is (``update.still``), only rows that the index names
are updated, each once; else all are.

Indices are checked before they are used; one out of range is left out and gives status 1. Where a
target is changed in its own memory all are looked at first, and with one out of range none is used.
Limit: memory traffic, one read of index and source and one read and write of the rows touched.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import NamedTuple

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.ir.dims import product

#: Elements that one parallel chunk of the initial copy, or of the lines, has at least.
_CHUNK = 16384
#: Fewer columns are not worth vectors.
NARROW = 4
#: Rows of a multiple of so many columns are gone through without a remainder.
_EVEN = 16
#: Entries of the index that are looked at together for whether all are inside.
_BLOCK = 1024
#: Bytes that a thread's columns have at least: two threads should not write to one line of memory.
_LINE = 64
#: Elements that are worth a thread of their own to combine.
_WORTH = 4096
STATUS = 1
_ONE = L.Const(1, D.int64)


def combine(how: str, old, new):
    """``old`` with ``new`` combined: "set", "add", "mul", "min" or "max"."""
    if how == "set":
        return new
    if old.dtype is D.bool_:
        return L.binary("or" if how in ("add", "max") else "and", old, new)
    return L.binary(how, old, new)


def _start(k, start, y, total):
    """``y`` becomes a copy of x, or zeros; with ``start`` "place" it is what it has to be."""
    if start == "place":
        return
    x = k.buffer("x", y.dtype) if start == "copy" else None
    zero = False if y.dtype is D.bool_ else 0.0 if y.dtype.is_floating_point else 0
    with k.parallel(0, L.idiv_ceil(total, _CHUNK)) as b:
        lo = k.let(b * _CHUNK, "lo")
        hi = k.let(L.minimum(lo + _CHUNK, total), "hi")
        with k.vector(lo, hi) as i:
            k.store(y, i, x[i] if x is not None else L.Const(zero, y.dtype))


def _inside(k, places, sizes):
    """Whether all of an entry's positions are inside."""
    all_ = None
    for where, size in zip(places, sizes):
        ok = k.let((where >= 0) & (where < size), "ok")
        all_ = ok if all_ is None else all_ & ok
    return all_


def _fail(k):
    """In the branch of an index out of range."""
    with k.else_():
        k.check(L.Const(False, D.bool_), STATUS)


def _none_unless(k, signs, count):
    """The count of entries if all are inside, else 0: a target's own memory stays as it is."""
    ok = k.let(signs.get() >= 0, "ok")
    k.check(ok, STATUS)
    return k.let(L.select(ok, count, 0), "count")


def _blockwise(k, n, where, sizes, one):
    """``one(i, positions)`` for each i below n whose positions, ``where(i)``, are inside."""

    def entry(i):
        return [k.let(w, "w") for w in where(i)]

    with k.serial(0, n, _BLOCK) as first:
        last = k.let(L.minimum(first + _BLOCK, n), "last")
        signs = k.local(D.int64, 0, name="signs")
        with k.vector(first, last) as i:
            for w, size in zip(entry(i), sizes):
                k.reduce(signs, "or", L.binary("or", w, size - 1 - w))
        with k.if_(signs.get() >= 0):
            whole = k.let(first + (last - first) // 4 * 4, "whole")
            with k.serial(first, whole, 4) as i, k.unroll(0, 4) as more:
                one(i + more, entry(i + more))
            with k.serial(whole, last) as i:
                one(i, entry(i))
        with k.else_():
            k.check(L.Const(False, D.bool_), STATUS)
            with k.serial(first, last) as i:
                found = entry(i)
                with k.if_(_inside(k, found, sizes)):
                    one(i, found)


def kind_of(columns: int) -> str:
    """What :class:`Form` calls so many columns."""
    if columns < NARROW:
        return "one" if columns == 1 else "few"
    return "many" if columns % _EVEN else "even"


def columns_of(columns: int, work: int, others: int, itemsize: int, threads: int) -> int:
    """How many of the columns a thread takes.

    Args:
        work: elements that are combined in all.
        others: parts that the work has without a cut of columns.
    """
    least = max(_LINE // itemsize, _EVEN)
    parts = min(threads // max(others, 1), columns // least, work // _WORTH)
    if parts < 2:
        return max(columns, 1)
    return -(-columns // (parts * least)) * least


class Form(NamedTuple):
    """A kernel of :func:`build`.

    Attributes:
        dtype: of src and y.
        how: see :func:`combine`.
        width: positions that say which row.
        start: what y begins as: a "copy" of x, "zero", or "place": itself.
        solid: a row of src is contiguous.
        columns: see :func:`kind_of`; "many" will always do.
    """

    dtype: D.dtype
    how: str
    width: int
    start: str
    solid: bool
    columns: str


def build(form: Form, update=None, out=None, name="") -> L.Kernel:
    """``y[o, row(i), j] = combine(y[o, row(i), j], src[o, i, j])``, y contiguous.

    Parameters: x (if ``start`` is "copy", contiguous), index, src, y; sizes outer, count, inner and
    ``m{d}``, the sizes that the ``width`` positions of a row are in; strides i_n and i_w of the
    index, s_o, s_n and s_j (unless ``solid``) of src; ``columns``: those of a thread.

    Args:
        update: see ``compiler.epilogue``; ``name`` is what it does.
    """
    return _Rows(form, update, name).k.kernel()


class _Rows:
    """Writes one kernel."""

    def __init__(self, form, update, name):
        dtype, how, width, start, solid, self.kind = form
        k = self.k = L.Builder(f"rows_{how}_{dtype.name}_{width}{name and '_' + name}")
        self.index, self.src = k.buffer("index", D.int64), k.buffer("src", dtype)
        self.y = k.buffer("y", dtype, "rw")
        self.outer, self.count, self.inner = (k.size(s) for s in ("outer", "count", "inner"))
        self.m = [k.size(f"m{d}") for d in range(width)]
        self.i_n, self.i_w = k.size("i_n"), k.size("i_w") if width > 1 else _ONE
        s_o, s_n, s_j = k.size("s_o"), k.size("s_n"), _ONE if solid else k.size("s_j")
        self.columns = k.size("columns")
        self.rows = product(self.m)
        finish = update(k) if update else None
        _start(k, start, self.y, self.outer * self.rows * self.inner)
        if start == "place":
            signs = k.local(D.int64, 0, name="signs")
            for d, size in enumerate(self.m):
                with k.vector(0, self.count) as i:
                    w = k.let(self.index[i * self.i_n + d * self.i_w], "w")
                    k.reduce(signs, "or", L.binary("or", w, size - 1 - w))
            self.count = _none_unless(k, signs, self.count)
        with self._parts() as (o, lo, hi):

            def one(i, places):
                row = places[0]
                for place, size in zip(places[1:], self.m[1:]):
                    row = row * size + place
                to = k.let((o * self.rows + row) * self.inner, "to")
                from_ = k.let(o * s_o + i * s_n, "from")
                with self._along(lo, hi) as j:
                    new = combine(how, self.y[to + j], self.src[from_ + j * s_j])
                    k.store(self.y, to + j, new)

            self._entries(one)
        if update:
            self._update(finish, k.let(update.still(), "still"))

    @contextmanager
    def _parts(self):
        """Outer indices and blocks of columns, in parallel: yields (outer index, first, end)."""
        k, columns = self.k, self.columns
        blocks = k.let(L.idiv_ceil(self.inner, columns), "blocks")
        with k.parallel(0, self.outer * blocks) as part:
            lo = k.let((part % blocks) * columns, "lo")
            hi = k.let(L.minimum(lo + columns, self.inner), "hi")
            yield k.let(part // blocks, "o"), lo, hi

    @contextmanager
    def _along(self, lo, hi):
        """A loop over columns."""
        k = self.k
        if self.kind == "even":
            with k.serial(lo, hi, _EVEN) as first, k.vector(0, _EVEN) as j:
                yield first + j
            return
        loops = {"many": k.vector, "few": k.serial, "one": lambda lo, hi: k.unroll(0, 1)}
        with loops[self.kind](lo, hi) as j:
            yield j

    def _entries(self, one):
        """``one(i, positions)`` for each entry of the index, in order."""
        k = self.k

        def where(i):
            return [self.index[i * self.i_n + d * self.i_w] for d in range(len(self.m))]

        if self.kind in ("one", "few"):
            _blockwise(k, self.count, where, self.m, one)
            return
        with k.serial(0, self.count) as i:
            found = [k.let(w, "w") for w in where(i)]
            with k.if_(_inside(k, found, self.m)):
                one(i, found)
            _fail(k)

    def _update(self, finish, still):
        k, rows = self.k, self.rows
        done = k.scratch("done", D.uint8, rows, per_thread=True)
        with self._parts() as (_, lo, hi):
            with k.vector(0, rows) as i:
                k.store(done, i, 0)
            with k.serial(0, L.select(still, self.count, rows)) as i:
                entry = self.index.load(i * self.i_n, still)
                row = k.let(L.select(still, entry, i), "row")
                with k.if_(_inside(k, [row], [rows])), k.if_(done[row].eq(0)):
                    k.store(done, row, 1)
                    with self._along(lo, hi) as j:
                        finish(self.y[row * self.inner + j], row, j)


def scatter(dtype, rank, dim, how, start, method, units=(False, False)) -> L.Kernel:
    """``y[..., index[p], ...] = combine(y, src[p])`` for all positions p of the index.

    Parameters: x (if ``start`` is "copy"), index, src, y; sizes ``n{d}`` of the index, ``m{d}`` of
    y, strides ``i{d}`` of the index, ``s{d}`` of src; ``columns``. x and y are contiguous.

    Args:
        method: "lines" or, where ``dim`` is not the last dimension, "columns", or "rows".
        units: whether the last strides of index and src are 1.
    """
    k = L.Builder(f"scatter_{how}_{dtype.name}_{rank}d{dim}_{method}")
    index, src = k.buffer("index", D.int64), k.buffer("src", dtype)
    y = k.buffer("y", dtype, "rw")
    n, m, i_s, s_s = ([k.size(f"{c}{d}") for d in range(rank)] for c in "nmis")
    for strides, unit in zip((i_s, s_s), units):
        strides[-1] = _ONE if unit else strides[-1]
    columns = k.size("columns")
    _start(k, start, y, product(m))
    steps = [product(m[d + 1 :]) for d in range(rank)]
    others = [d for d in range(rank) if d != dim]
    if start == "place":
        signs = k.local(D.int64, 0, name="signs")
        with k.serial(0, product([n[d] for d in others])) as line:
            (at,) = _bases(k, line, others, n, (i_s,))
            with k.vector(0, n[dim]) as i:
                w = k.let(index[at + i * i_s[dim]], "w")
                k.reduce(signs, "or", L.binary("or", w, m[dim] - 1 - w))
        n[dim] = _none_unless(k, signs, n[dim])
    blocks, grain = _ONE, L.maximum(L.Const(_CHUNK, D.int64) // L.maximum(n[dim], 1), 1)
    if method != "lines":
        wide = n[others.pop()]
        blocks, grain = k.let(L.idiv_ceil(wide, columns), "blocks"), _ONE

    def one(from_, to, where):
        target = k.let(to + where * steps[dim], "to")
        k.store(y, target, combine(how, y[target], src[from_]))

    with k.parallel(0, product([n[d] for d in others]) * blocks, grain=grain) as line:
        at, from_, to = _bases(k, line // blocks, others, n, (i_s, s_s, steps))

        def along(d, at, from_, to, lo, count):
            """Entries from ``lo`` on along a dimension."""
            step = 0 if d == dim else 1
            _blockwise(
                k, count, lambda i: [index[at + (lo + i) * i_s[d]]], [m[dim]],
                lambda i, places: one(from_ + (lo + i) * s_s[d], to + (lo + i) * step, places[0]),
            )  # fmt: skip

        if method == "lines":
            along(dim, at, from_, to, 0, n[dim])
        else:
            lo = k.let((line % blocks) * columns, "lo")
            hi = k.let(L.minimum(lo + columns, wide), "hi")
            with k.serial(0, n[dim]) as i:
                at_i, from_i = k.let(at + i * i_s[dim], "at"), k.let(from_ + i * s_s[dim], "from")
                if method == "columns":
                    along(rank - 1, at_i, from_i, to, lo, hi - lo)
                else:
                    where = k.let(index[at_i], "w")
                    with k.if_(_inside(k, [where], [m[dim]])), k.vector(lo, hi) as j:
                        one(from_i + j * s_s[-1], to + j, where)
                    _fail(k)
    return k.kernel()


def _bases(k, line, others, sizes, strides):
    """Where a line begins, by each of the strides; its number counts the other dimensions."""
    place, rest = {}, k.let(line, "q")
    for d in reversed(others[1:]):
        place[d] = k.let(rest % sizes[d], "q")
        rest = k.let(rest // sizes[d], "q")
    if others:
        place[others[0]] = rest
    zero = L.Const(0, D.int64)
    return [k.let(sum((place[d] * by[d] for d in others), zero), "base") for by in strides]
