"""Attention in tiles: ``softmax(q @ k.T * scale + mask) @ v`` without the matrix of weights.

Queries lie in the lanes. A thread takes one or two vectors of queries of one head and turns them in
registers, so that ``turned[e, i]`` is a vector. Then, for each block of ``BLOCK`` keys:

1. Scores: tiles of keys by queries, summed over e. Keys are read as they lie, a number at a time,
   each multiplied with vectors of queries; nothing of k or v is packed.
2. Weights: the largest score so far, elementwise over the queries; what was summed before shrinks
   by ``exp(old - new)``; ``exp(score - largest)`` replaces the scores.
3. Values: ``out[v, i] = fma(v[j, v], weight[j, i], out[v, i])`` over the block's keys, in tiles.

At the end the result is divided by the sum of the weights, turned back and stored in the order
(batch, query, head, v). Where a single row has to do (a token of a generation), vectors run along
keys and values instead (:class:`_Rows`): keys' tiles are turned in registers, for up to four heads
that share them.

What a query's result is depends on its own row alone. A score is a chain of fused multiply-adds in
the order of e. A value is a chain in the order of keys, rescaled between blocks of ``BLOCK`` keys.
The sum of weights is sixteen chains, of keys equal modulo ``GROUP``: within a block, then of the
blocks' sums, rescaled; at last halves are added.

Bound of the error against exact arithmetic, of values of magnitude V and scores of magnitude A, in
units u of the last place (2^-24 for float32): ``(e + 5) A u`` in a score, hence in a weight
relatively; ``(n + 8 + n / BLOCK) V u`` from the n summands of the result.

Share of the limit: of the multiply-adds a core can do, about 0.7 with heads of 64 float32. A single
row is bound by memory: keys and values come at 25 GB/s a core.
"""

from __future__ import annotations

from facula.base.dtypes import bool_
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.attention_parts import BLOCK, GROUP, INF, Common, Form, closed, halve
from facula.kernels.tiles import round_up

#: Up to so many queries are taken row by row.
_FEW = 2


def choose(form: Form, queries: int, group: int, few: int = _FEW) -> Form:
    """The form that suits so many queries; up to ``few`` of them row by row."""
    lanes = form.vector_bytes // tiles.accumulator(form.dtype).itemsize
    if queries <= few:
        return form._replace(vectors=0, rows=1 if group < 2 else 2 if group < 4 else 4)
    return form._replace(vectors=1 if queries <= lanes else 2)


def build(form: Form) -> L.Kernel:
    """The forward kernel: q, k, v, (mask), (p, seed, offset), y, lse; sizes; scratch.

    y is contiguous ``[batch, l, heads, v]``; lse, ``[batch, heads, l]``, is the logarithm of the
    sum of exponentials, infinite where nothing counts (y is 0 there).
    """
    return (_Rows if form.vectors == 0 else _Forward)(form).kernel()


class _Forward(Common):
    """Queries in the lanes."""

    def __init__(self, form):
        super().__init__(form, "attention", ("y", "lse"))

    def write(self):
        k, width = self.k, self.width
        self.helpers()
        self.turned, self.out = self.panel("turned", self.e_size), self.panel("out", self.v_size)
        self.weights, self.sums = self.panel("weights", BLOCK), self.panel("sums", GROUP)
        self.inverse = self.scratch("inverse", width)
        self.wides = self.wide()
        self.factor = self.scale()
        pieces = k.let(L.idiv_ceil(self.queries, width), "pieces")
        work = self.keys * (self.e_size + self.v_size) * width
        total = self.size["batch"] * self.heads * pieces
        with k.parallel(0, total, grain=self.grain(work)) as chunk:
            first = k.let((chunk % pieces) * width, "first")
            head = k.let(chunk // pieces % self.heads, "head")
            batch = k.let(chunk // pieces // self.heads, "batch")
            self._piece(batch, head, first)

    def _piece(self, batch, head, first):
        k, width = self.k, self.width
        self.number_lanes()
        self.turn("q", self.turned, batch, head, first, self.e_size)
        for panel, rows in ((self.out, round_up(self.v_size, 16)), (self.sums, GROUP)):
            with k.serial(0, rows) as r:
                self.each(lambda i, r=r, panel=panel: k.store(panel, r * width + i, 0.0))
        limit = k.let(self.limit_of(first, width), "limit")
        other = k.let(head // self.size["group"], "other")
        largest = k.local(self.type, -INF, (width,), name="largest")
        with k.serial(0, limit, BLOCK) as j0:
            count = k.let(L.minimum(limit - j0, BLOCK), "count")
            self.prepare_block(batch, head, first, j0, count)
            keys = self.block("k", batch, other, j0, count, self.wides[0])
            values = self.block("v", batch, other, j0, count, self.wides[1])
            shrink = self._weigh(keys, first, j0, count, limit, largest)
            with k.serial(0, self.v_size, self.height) as at:
                self.along(values, self.weights, count, at, self.v_size, self.out, shrink)
        self._finish(batch, head, first, largest)

    def _weigh(self, keys, first, j0, count, limit, largest):
        """Scores and weights of a block; what earlier sums shrink by."""
        k, width, weights = self.k, self.width, self.weights
        new = k.local(self.type, 0, (width,), name="new")
        self.each(lambda i: k.assign(new, i, largest[i]))
        whole = k.let(round_up(count, GROUP), "whole")
        with k.serial(0, whole, self.height) as at:
            acc = self.across(keys, self.turned, self.e_size, at, count)

            def put(i, t, at=at, acc=acc):
                key = j0 + at + t
                s = k.let(self.score(acc[t, i], at + t, i, first, key, limit), "s")
                k.store(weights, (at + t) * width + i, s)
                k.assign(new, i, L.select(new[i] < s, s, new[i]))

            for t in range(self.height):
                self.each(lambda i, t=t: put(i, t))
        self.fill(weights, count, whole, -INF)
        shrink = k.local(self.type, 0, (width,), name="shrink")
        base = k.local(self.type, 0, (width,), name="base")

        def compare(i):
            k.assign(base, i, L.select(new[i].eq(-INF), self.number(0.0), new[i]))
            k.assign(shrink, i, L.call("exp", largest[i] - base[i]))
            k.assign(largest, i, new[i])

        self.each(compare)
        rows = 2

        def weigh(i, j, t, total):
            p = k.let(L.call("exp", weights[j * width + i] - base[i]), "p")
            k.assign(total, t, i, total[t, i] + p)
            if self.left is not None:
                p = p * self.left[j * width + i]
            k.store(weights, j * width + i, p)

        def keep(i, at, t, total):
            k.store(self.sums, at + i, self.sums[at + i] * shrink[i] + total[t, i])

        with k.serial(0, GROUP, rows) as r:
            total = k.local(self.type, 0, (rows, width), name="total")
            with k.serial(0, whole, GROUP) as g:
                for t in range(rows):
                    self.each(lambda i, t=t: weigh(i, g + r + t, t, total))
            for t in range(rows):
                self.each(lambda i, t=t: keep(i, (r + t) * width, t, total))
        return shrink

    def _finish(self, batch, head, first, largest):
        k, width = self.k, self.width
        halve(k, self.sums, width, self.each)

        def close(i):
            total = k.let(self.sums[i], "total")
            inverse, lse = closed(total, largest[i])
            k.store(self.inverse, i, inverse)
            at = (batch * self.heads + head) * self.queries + first + i
            k.store(self.buffers["lse"], at, lse, first + i < self.queries)

        self.each(close)
        self.give_back(
            self.out, self.buffers["y"], batch, head, self.heads, first, self.v_size, self.inverse
        )


class _Rows(Common):
    """A query of a few heads that share keys: vectors run along the keys, then along the values."""

    def __init__(self, form):
        self.rows = range(form.rows)
        super().__init__(form, f"attention_rows{form.rows}", ("y", "lse"))

    def write(self):
        k, n, many = self.k, self.size, len(self.rows)
        self.lane = None
        self.row, self.out = (self.scratch(x, y * many) for x, y in
                              (("row", self.e_size), ("out", self.v_size)))  # fmt: skip
        self.weights = self.scratch("weights", BLOCK * many)
        self.sums = self.scratch("sums", GROUP * many)
        self.left = self.scratch("left", BLOCK * many) if self.form.dropout else None
        self.factor = self.scale()
        work = self.keys * (self.e_size + self.v_size) * many
        parts = k.let(L.idiv_ceil(n["group"], many), "parts")
        shared = k.let(self.heads // n["group"], "shared")
        total = n["batch"] * shared * parts * self.queries
        with k.parallel(0, total, grain=self.grain(work)) as chunk:
            query = k.let(chunk % self.queries, "query")
            part = k.let(chunk // self.queries % parts, "part")
            other = k.let(chunk // self.queries // parts % shared, "other")
            batch = k.let(chunk // self.queries // parts // shared, "batch")
            # Where heads are too few, the last of them is taken again.
            first, last = other * n["group"] + part * many, (other + 1) * n["group"] - 1
            self.head = [k.let(L.minimum(first + r, last), "head") for r in self.rows]
            self._query(batch, other, query)

    def _query(self, batch, other, query):
        k, n = self.k, self.size
        for r in self.rows:
            at = self.start("q", batch, self.head[r]) + query * n["q_n"]
            with k.vector(0, self.e_size) as c:
                value = L.cast(self.buffers["q"][at + c], self.type)
                k.store(self.row, r * self.e_size + c, value)
        for buffer, size in ((self.out, self.v_size), (self.sums, GROUP)):
            with k.vector(0, size * len(self.rows)) as c:
                k.store(buffer, c, 0.0)
        limit = k.let(self.limit_of(query, 1), "limit")
        largest = [k.local(self.type, -INF, name="largest") for _ in self.rows]
        with k.serial(0, limit, BLOCK) as j0:
            count = k.let(L.minimum(limit - j0, BLOCK), "count")
            whole = k.let(round_up(count, GROUP), "whole")
            keys = self.start("k", batch, other) + j0 * n["k_n"]
            values = self.start("v", batch, other) + j0 * n["v_n"]
            with k.serial(0, whole, self.lanes) as at:
                self._scores(keys, values, batch, query, j0, at, count)
            shrinks = [
                self._weigh(batch, query, j0, count, whole, r, largest[r]) for r in self.rows
            ]
            self._values(values, keys + BLOCK * n["k_n"], count, shrinks)
        for r in self.rows:
            self._finish(batch, query, r, largest[r])

    def _finish(self, batch, query, r, largest):
        k, y = self.k, self.buffers["y"]
        size = GROUP // 2
        while size:
            for i in range(r * GROUP, r * GROUP + size):
                k.store(self.sums, i, self.sums[i] + self.sums[i + size])
            size //= 2
        inverse, lse = closed(k.let(self.sums[r * GROUP], "total"), largest.get())
        inverse = k.let(inverse, "inverse")
        row = (batch * self.heads + self.head[r]) * self.queries + query
        k.store(self.buffers["lse"], row, lse)
        start = ((batch * self.queries + query) * self.heads + self.head[r]) * self.v_size
        with k.vector(0, self.v_size) as c:
            value = self.out[r * self.v_size + c] * inverse
            k.store(y, start + c, L.cast(value, y.dtype))

    def _scores(self, keys, values, batch, query, j0, at, count):
        """A vector of keys: whole square tiles of them turned, then the rest one by one.

        Meanwhile the block's values are brought near.
        """
        k, lanes, n = self.k, self.lanes, self.size
        acc = k.local(self.type, 0, (len(self.rows), lanes), name="acc")
        full = k.let(self.e_size // lanes * lanes, "full")
        rows = [k.let(L.minimum(at + j, count - 1), "row") for j in range(lanes)]
        with k.serial(0, full, lanes) as c:
            tile = k.local(self.type, 0, (lanes, lanes), name="tile")
            for j, row in enumerate(rows):
                k.prefetch(self.buffers["v"], values + row * n["v_n"] + c)
                with k.vector(0, lanes) as i:
                    k.assign(tile, j, i, self.k_at(keys + row * n["k_n"] + c + i))
            k.transpose(tile)
            for j in range(lanes):
                for r in self.rows:
                    query_at = self.row[r * self.e_size + c + j]
                    with k.vector(0, lanes) as i:
                        k.assign(acc, r, i, L.fma(query_at, tile[j, i], acc[r, i]))
        with k.serial(full, self.e_size) as c, k.vector(0, lanes) as i:
            value = self.k_at(keys + (at + i) * n["k_n"] + c, k.let(at + i < count, "counts"))
            value = k.let(value, "value")
            for r in self.rows:
                k.assign(acc, r, i, L.fma(self.row[r * self.e_size + c], value, acc[r, i]))
        for r in self.rows:
            with k.vector(0, lanes) as i:
                value = acc[r, i] * self.factor
                value = self._masked(value, batch, query, r, j0, at + i, count)
                k.store(self.weights, r * BLOCK + at + i, value)

    def _masked(self, value, batch, query, r, j0, j, count):
        counts = j < count
        if self.mask is not None:
            place = self.start("m", batch, self.head[r]) + query * self.size["m_n"]
            place = place + (j0 + j) * (1 if self.form.mask_unit else self.size["m_k"])
            m = self.mask.load(place, counts)
            if self.form.mask is bool_:
                counts = counts & m
            else:
                value = value + L.cast(m, self.type)
        return L.select(counts, value, self.number(-INF))

    def k_at(self, place, mask=None):
        return L.cast(self.buffers["k"].load(place, mask), self.type)

    def _weigh(self, batch, query, j0, count, whole, r, largest):
        """A row's weights of a block; what its earlier sums shrink by."""
        k, weights, sums, first = self.k, self.weights, self.sums, r * BLOCK
        new = k.local(self.type, 0, name="new")
        k.assign(new, largest.get())
        with k.vector(0, whole) as j:
            k.reduce(new, "max", weights[first + j])
        base = k.let(L.select(new.get().eq(-INF), self.number(0.0), new.get()), "base")
        shrink = k.let(L.call("exp", largest.get() - base), "shrink")
        k.assign(largest, new.get())
        if self.left is not None:
            row = ((batch * self.heads + self.head[r]) * self.queries + query) * self.keys + j0
            with k.vector(0, count) as j:
                k.store(self.left, first + j, self.kept(row + j))
        with k.vector(0, GROUP) as i:
            total = k.local(self.type, 0, name="total")
            with k.serial(0, whole, GROUP) as g:
                p = k.let(L.call("exp", weights[first + g + i] - base), "p")
                k.assign(total, total.get() + p)
                left = 1 if self.left is None else self.left[first + g + i]
                k.store(weights, first + g + i, p if self.left is None else p * left)
            k.store(sums, r * GROUP + i, sums[r * GROUP + i] * shrink + total)
        return shrink

    def _values(self, values, keys, count, shrinks):
        """Some vectors of values at a time, over the block's keys; those of the next come near."""
        k, wide = self.k, max(1, 8 // max(2, len(self.rows))) * self.lanes

        def part(at, whole):
            acc = k.local(self.type, 0, (len(self.rows), wide), name="acc")

            def inside(c):
                return None if whole else at + c < self.v_size

            for r, shrink in enumerate(shrinks):
                with k.vector(0, wide) as c:
                    old = self.out.load(r * self.v_size + at + c, inside(c))
                    k.assign(acc, r, c, old * shrink)
            with k.serial(0, count) as j:
                for v in range(0, wide, self.lanes):
                    k.prefetch(self.buffers["k"], keys + j * self.size["k_n"] + at + v)
                with k.vector(0, wide) as c:
                    value = self.buffers["v"].load(
                        values + j * self.size["v_n"] + at + c, inside(c)
                    )
                    value = k.let(L.cast(value, self.type), "value")
                    for r in self.rows:
                        k.assign(acc, r, c, L.fma(self.weights[r * BLOCK + j], value, acc[r, c]))
            for r in self.rows:
                with k.vector(0, wide) as c:
                    k.store(self.out, r * self.v_size + at + c, acc[r, c], inside(c))

        full = k.let(self.v_size // wide * wide, "full")
        with k.serial(0, full, wide) as at:
            part(at, True)
        with k.if_(full < self.v_size):
            part(full, False)
