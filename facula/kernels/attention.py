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
keys and values instead (:func:`build_rows`): keys' tiles are turned in registers.

What a query's result is depends on its own row alone. A score is a chain of fused multiply-adds in
the order of e. A value is a chain in the order of keys, rescaled between blocks of ``BLOCK`` keys.
The sum of weights is sixteen chains, of keys equal modulo ``GROUP``: within a block, then of the
blocks' sums, rescaled; at last halves are added.

Bound of the error against exact arithmetic, of values of magnitude V and scores of magnitude A, in
units u of the last place (2^-24 for float32): ``(e + 5) A u`` in a score, hence in a weight
relatively; ``(n + 8 + n / BLOCK) V u`` from the n summands of the result.

Share of the limit: of the multiply-adds a core can do, about 0.7 with heads of 64 float32.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import bool_, dtype, float32, int32, int64
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.tiles import Source, round_up
from facula.ops.random import philox

#: Keys between two rescalings, and sums of weights that run side by side: part of the meaning.
BLOCK, GROUP = 64, 16
#: Up to so many queries are taken row by row.
_FEW = 2
#: Multiply-adds that are worth a chunk of their own.
_CHUNK = 1 << 18
#: Size parameters: batch, query heads, query heads for each head of k and v, queries, keys, sizes
#: of a key and of a value; strides in elements (batch, head, position) of the operands,
#: the gradient's among them.
SIZES = (
    *("batch", "heads", "group", "queries", "keys", "depth", "values"),
    *(f"{x}_{d}" for x in "qkvgy" for d in "bhn"),
    *(f"m_{d}" for d in "bhnk"),
)
_INF = float("inf")


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of q, k, v and the result; their last strides are 1.
        mask: dtype of the mask, or None.
        mask_unit: whether the mask's last stride is 1.
        causal: whether key j counts for query i only if j <= i.
        dropout: whether weights are dropped; then there are p, seed and offset.
        scale: what scores are multiplied with; None: one over the root of e.
        vectors: of queries that are taken together; 0: row by row.
        vector_bytes: 16, 32 or 64.
    """

    dtype: dtype
    mask: dtype | None
    mask_unit: bool
    causal: bool
    dropout: bool
    scale: float | None
    vectors: int
    vector_bytes: int


def choose(form: Form, queries: int, few: int = _FEW) -> Form:
    """The form that suits so many queries; up to ``few`` of them row by row."""
    lanes = form.vector_bytes // tiles.accumulator(form.dtype).itemsize
    return form._replace(vectors=0 if queries <= few else 1 if queries <= lanes else 2)


def build(form: Form) -> L.Kernel:
    """The forward kernel: q, k, v, (mask), (p, seed, offset), y, lse; sizes; scratch.

    y is contiguous ``[batch, l, heads, v]``; lse, ``[batch, heads, l]``, is the logarithm of the
    sum of exponentials, infinite where nothing counts (y is 0 there).
    """
    return (_Rows if form.vectors == 0 else _Forward)(form).kernel()


class Common:
    """Parameters and the parts that all kernels share."""

    def __init__(self, form: Form, name: str, outputs, extra=()):
        self.form = form
        k = self.k = L.Builder(name)
        self.type = tiles.accumulator(form.dtype)
        self.shape = tiles.shape_for(form.vector_bytes, self.type)
        self.lanes = self.shape.lanes
        self.width = max(form.vectors, 1) * self.lanes
        self.height = 8 if form.vector_bytes == 64 else 4
        self.buffers = {}
        for n in (*extra, "q", "k", "v"):
            d = self.type if n == "lse" else form.dtype
            self.buffers[n] = k.buffer(n, d)
        self.mask = k.buffer("mask", form.mask) if form.mask else None
        if form.dropout:
            self.p = k.buffer("p", float32)
            self.seed, self.offset = k.buffer("seed", int64), k.buffer("offset", int64)
        for n in outputs:
            self.buffers[n] = k.buffer(n, self.type if n == "lse" else form.dtype, "w")
        self.size = {name: k.size(name) for name in SIZES}
        n = self.size
        self.heads, self.queries, self.keys = n["heads"], n["queries"], n["keys"]
        self.e_size, self.v_size = n["depth"], n["values"]

    def kernel(self) -> L.Kernel:
        self.write()
        return self.k.kernel()

    def scratch(self, name, elements, d=None):
        return self.k.scratch(name, d or self.type, elements, per_thread=True)

    def panel(self, name, rows):
        """Scratch for ``rows`` rows of a vector of queries each."""
        return self.scratch(name, round_up(L.as_expr(rows, int64), 16) * self.width)

    def number(self, value):
        return L.Const(value, self.type)

    def scale(self):
        if self.form.scale is not None:
            return self.number(float(self.form.scale))
        size = L.cast(L.maximum(self.e_size, 1), self.type)
        return self.k.let(1.0 / L.unary("sqrt", size), "scale")

    def start(self, name, batch, head):
        return batch * self.size[f"{name}_b"] + head * self.size[f"{name}_h"]

    def each(self, body):
        """``body(lane)`` for the vectors of queries."""
        with self.k.vector(0, self.width) as i:
            body(i)

    def limit_of(self, first, count):
        """How many keys count for some of the ``count`` queries from ``first`` on."""
        return L.minimum(self.keys, first + count) if self.form.causal else self.keys

    def grain(self, work):
        return L.maximum(L.as_expr(_CHUNK) // L.maximum(work, 1), 1)

    # Operands

    def turn(self, name, panel, batch, head, first, count):
        """Pack rows of queries so that they lie in the lanes."""
        stride, buffer = self.size[f"{name}_n"], self.buffers[name]
        source = Source(buffer, self.start(name, batch, head), stride, 1, self.queries, "k")
        tiles.pack(self.k, source, panel, 0, first, 0, count, self.width, self.shape)

    def block(self, name, batch, head, j0, count, wide):
        """A block's keys or values in rows: (buffer, start, stride); narrow ones are widened."""
        k, stride = self.k, self.size[f"{name}_n"]
        buffer, start = self.buffers[name], self.start(name, batch, head) + j0 * stride
        if wide is None:
            return buffer, start, stride
        columns = self.e_size if name == "k" else self.v_size
        with k.serial(0, count) as j, k.vector(0, columns) as c:
            k.store(wide, j * columns + c, L.cast(buffer[start + j * stride + c], self.type))
        return wide, 0, columns

    def wide(self):
        """Scratch for a block's keys and values, if they have to be widened."""
        if self.type is self.form.dtype:
            return None, None
        sizes = ("wide_k", self.e_size), ("wide_v", self.v_size)
        return tuple(self.scratch(name, n * BLOCK) for name, n in sizes)

    # Products

    def across(self, block, panel, depth, at, count):
        """Tile of keys by queries: ``sum over d of block[at + t, d] * panel[d, i]``."""
        k = self.k
        buffer, start, stride = block
        rows = [k.let(L.minimum(at + t, count - 1), "row") for t in range(self.height)]
        acc = k.local(self.type, 0, (self.height, self.width), name="acc")
        tiles.multiply(
            k, acc, depth,
            lambda t, d: buffer[start + rows[t] * stride + d],
            lambda d, i: panel[d * self.width + i],
        )  # fmt: skip
        return acc

    def along(self, block, weights, count, at, size, panel, factor=None):
        """Shrink a panel's rows and add ``sum over keys of block[j, row] * weights[j, i]``."""
        k, width = self.k, self.width
        buffer, start, stride = block
        columns = [k.let(L.minimum(at + t, size - 1), "column") for t in range(self.height)]
        acc = k.local(self.type, 0, (self.height, width), name="acc")

        def put(t, i):
            old = panel[(at + t) * width + i]
            k.assign(acc, t, i, old if factor is None else old * factor[i])

        for t in range(self.height):
            self.each(lambda i, t=t: put(t, i))
        tiles.multiply(
            k, acc, count,
            lambda t, j: buffer[start + columns[t] + j * stride],
            lambda j, i: weights[j * width + i],
        )  # fmt: skip
        for t in range(self.height):
            self.each(lambda i, t=t: k.store(panel, (at + t) * width + i, acc[t, i]))

    # Masks

    def helpers(self):
        """Panels for the mask, for what dropout leaves, and the numbers of the lanes."""
        self.masked = self.panel("masked", BLOCK) if self.mask else None
        self.left = self.panel("left", BLOCK) if self.form.dropout else None
        self.lane = self.scratch("lane", self.width, int32) if self.form.causal else None

    def number_lanes(self):
        if self.lane is not None:
            with self.k.serial(0, self.width) as i:
                self.k.store(self.lane, i, L.cast(i, int32))

    def prepare_block(self, batch, head, first, j0, count):
        """The mask's and dropout's part of a block, turned as the scores are."""
        k, n = self.k, self.size
        if self.mask is not None:
            source = Source(
                self.mask, self.start("m", batch, head), n["m_n"], n["m_k"], self.queries,
                "k" if self.form.mask_unit else None,
            )  # fmt: skip
            tiles.pack(k, source, self.masked, 0, first, j0, count, self.width, self.shape)
        if self.left is not None:
            row = (batch * self.heads + head) * self.queries + first
            with k.serial(0, round_up(count, GROUP)) as j, k.vector(0, self.width) as i:
                k.store(self.left, j * self.width + i, self.kept((row + i) * self.keys + j0 + j))

    def kept(self, position):
        """What the weight at a position is multiplied with: 0, or one over the rest."""
        p = self.p[0]
        bits, _ = philox(position + self.offset[0], self.seed[0])
        uniform = L.cast(bits & ((1 << 24) - 1), float32) * 2.0**-24
        rest = 1.0 - p
        whole = L.select(rest > 0.0, 1.0 / rest, 0.0)
        return L.cast(L.select(uniform >= p, whole, 0.0), self.type)

    def score(self, value, j, i, first, key, limit):
        """A score from the product: scaled and masked. ``j``: in the block, ``key``: of all."""
        value, none = value * self.factor, self.number(-_INF)
        if self.mask is not None:
            # Beyond the last key there is no mask. Without one, there are but repeated scores.
            m, counts = self.masked[j * self.width + i], key < limit
            if self.form.mask is bool_:
                counts = counts & (m > 0.0)
            else:
                value = value + m
            value = L.select(counts, value, none)
        if self.lane is not None:
            ahead = L.minimum(L.maximum(key - first, -1), self.width)
            value = L.select(self.lane[i] >= L.cast(ahead, int32), value, none)
        return value

    def fill(self, panel, count, whole, value):
        """Give a panel's rows from ``count`` on a value."""
        with self.k.serial(count, whole) as j:
            self.each(lambda i: self.k.store(panel, j * self.width + i, self.number(value)))

    # Results

    def give_back(self, panel, buffer, batch, head, heads, first, size, factor=None):
        """Store a panel as rows of ``buffer``, contiguous ``[batch, queries, heads, size]``."""
        k, lanes = self.k, self.lanes
        with k.serial(0, size, lanes) as c0:
            for vector in range(0, self.width, lanes):
                tile = k.local(self.type, 0, (lanes, lanes), name="tile")
                for r in range(lanes):
                    with k.vector(0, lanes) as i:
                        value = panel[(c0 + r) * self.width + vector + i]
                        value = value if factor is None else value * factor[vector + i]
                        k.assign(tile, r, i, value)
                k.transpose(tile)
                for r in range(lanes):
                    query = k.let(first + (vector + r), "query")
                    row = ((batch * self.queries + query) * heads + head) * size + c0
                    with k.if_(query < self.queries), k.vector(0, lanes) as c:
                        value = L.cast(tile[r, c], buffer.dtype)
                        k.store(buffer, row + c, value, c0 + c < size)


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
        largest = k.local(self.type, -_INF, (width,), name="largest")
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
        self.fill(weights, count, whole, -_INF)
        shrink = k.local(self.type, 0, (width,), name="shrink")
        base = k.local(self.type, 0, (width,), name="base")

        def compare(i):
            k.assign(base, i, L.select(new[i].eq(-_INF), self.number(0.0), new[i]))
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


def halve(k, sums, width, each):
    """Add up the GROUP rows of ``sums`` into the first, halves onto halves."""
    size = GROUP // 2
    while size:
        with k.serial(0, size) as r:
            here, there = r * width, (r + size) * width
            each(lambda i, a=here, b=there: k.store(sums, a + i, sums[a + i] + sums[b + i]))
        size //= 2


def closed(total, largest):
    """What a result is multiplied with, and the logarithm of the sum of exponentials."""
    none, infinite = total.eq(0.0), L.Const(_INF, total.dtype)
    inverse = L.select(none, L.Const(0.0, total.dtype), 1.0 / total)
    return inverse, L.select(none, infinite, largest + L.call("log", total))


class _Rows(Common):
    """A query at a time: vectors run along the keys, then along the values."""

    def __init__(self, form):
        super().__init__(form, "attention_rows", ("y", "lse"))

    def write(self):
        k = self.k
        self.masked = self.left = self.lane = None
        self.row, self.out = self.scratch("row", self.e_size), self.scratch("out", self.v_size)
        self.weights, self.sums = self.scratch("weights", BLOCK), self.scratch("sums", GROUP)
        self.left = self.scratch("left", BLOCK) if self.form.dropout else None
        self.factor = self.scale()
        work = self.keys * (self.e_size + self.v_size)
        total = self.size["batch"] * self.heads * self.queries
        with k.parallel(0, total, grain=self.grain(work)) as chunk:
            query = k.let(chunk % self.queries, "query")
            head = k.let(chunk // self.queries % self.heads, "head")
            batch = k.let(chunk // self.queries // self.heads, "batch")
            self._query(batch, head, query)

    def _query(self, batch, head, query):
        k, n = self.k, self.size
        at = self.start("q", batch, head) + query * n["q_n"]
        with k.vector(0, self.e_size) as c:
            k.store(self.row, c, L.cast(self.buffers["q"][at + c], self.type))
        for buffer, size in ((self.out, self.v_size), (self.sums, GROUP)):
            with k.vector(0, size) as c:
                k.store(buffer, c, 0.0)
        limit = k.let(self.limit_of(query, 1), "limit")
        other = k.let(head // n["group"], "other")
        largest = k.local(self.type, -_INF, name="largest")
        with k.serial(0, limit, BLOCK) as j0:
            count = k.let(L.minimum(limit - j0, BLOCK), "count")
            whole = k.let(round_up(count, GROUP), "whole")
            keys = self.start("k", batch, other) + j0 * n["k_n"]
            new = k.local(self.type, 0, name="new")
            k.assign(new, largest.get())
            with k.serial(0, whole, self.lanes) as at:
                self._scores(keys, batch, head, query, j0, at, count)
            with k.vector(0, whole) as j:
                k.reduce(new, "max", self.weights[j])
            base = k.let(L.select(new.get().eq(-_INF), self.number(0.0), new.get()), "base")
            shrink = k.let(L.call("exp", largest.get() - base), "shrink")
            k.assign(largest, new.get())
            self._weights(batch, head, query, j0, count, whole, base, shrink)
            values = self.start("v", batch, other) + j0 * n["v_n"]
            self._values(values, count, shrink)
        halve(k, self.sums, 1, lambda body: body(0))
        inverse, lse = closed(k.let(self.sums[0], "total"), largest.get())
        inverse = k.let(inverse, "inverse")
        k.store(self.buffers["lse"], (batch * self.heads + head) * self.queries + query, lse)
        start = ((batch * self.queries + query) * self.heads + head) * self.v_size
        y = self.buffers["y"]
        with k.vector(0, self.v_size) as c:
            k.store(y, start + c, L.cast(self.out[c] * inverse, y.dtype))

    def _scores(self, keys, batch, head, query, j0, at, count):
        """A vector of keys: whole square tiles of them turned, then the rest one by one."""
        k, lanes, n = self.k, self.lanes, self.size
        acc = k.local(self.type, 0, (1, lanes), name="acc")
        full = k.let(self.e_size // lanes * lanes, "full")
        rows = [k.let(L.minimum(at + r, count - 1), "row") for r in range(lanes)]
        with k.serial(0, full, lanes) as c:
            tile = k.local(self.type, 0, (lanes, lanes), name="tile")
            for r, row in enumerate(rows):
                with k.vector(0, lanes) as i:
                    value = self.k_at(keys + row * n["k_n"] + c + i)
                    k.assign(tile, r, i, value)
            k.transpose(tile)
            for r in range(lanes):
                with k.vector(0, lanes) as i:
                    k.assign(acc, 0, i, L.fma(self.row[c + r], tile[r, i], acc[0, i]))
        with k.serial(full, self.e_size) as c, k.vector(0, lanes) as i:
            value = self.k.let(at + i < count, "counts")
            value = self.k_at(keys + (at + i) * n["k_n"] + c, value)
            k.assign(acc, 0, i, L.fma(self.row[c], value, acc[0, i]))
        with k.vector(0, lanes) as i:
            counts = at + i < count
            value = acc[0, i] * self.factor
            if self.mask is not None:
                place = self.start("m", batch, head) + query * n["m_n"]
                place = place + (j0 + at + i) * (1 if self.form.mask_unit else n["m_k"])
                m = self.mask.load(place, counts)
                if self.form.mask is bool_:
                    counts = counts & m
                else:
                    value = value + L.cast(m, self.type)
            k.store(self.weights, at + i, L.select(counts, value, self.number(-_INF)))

    def k_at(self, place, mask=None):
        return L.cast(self.buffers["k"].load(place, mask), self.type)

    def _weights(self, batch, head, query, j0, count, whole, base, shrink):
        k, weights, sums = self.k, self.weights, self.sums
        if self.left is not None:
            row = ((batch * self.heads + head) * self.queries + query) * self.keys + j0
            with k.vector(0, count) as j:
                k.store(self.left, j, self.kept(row + j))
        with k.vector(0, GROUP) as i:
            total = k.local(self.type, 0, name="total")
            with k.serial(0, whole, GROUP) as g:
                p = k.let(L.call("exp", weights[g + i] - base), "p")
                k.assign(total, total.get() + p)
                k.store(weights, g + i, p if self.left is None else p * self.left[g + i])
            k.store(sums, i, sums[i] * shrink + total)

    def _values(self, values, count, shrink):
        """Four vectors of values at a time, over the block's keys."""
        k, wide = self.k, 4 * self.lanes

        def part(at, whole):
            acc = k.local(self.type, 0, (1, wide), name="acc")

            def inside(c):
                return None if whole else at + c < self.v_size

            with k.vector(0, wide) as c:
                k.assign(acc, 0, c, self.out.load(at + c, inside(c)) * shrink)
            with k.serial(0, count) as j, k.vector(0, wide) as c:
                value = self.buffers["v"].load(values + j * self.size["v_n"] + at + c, inside(c))
                value = L.cast(value, self.type)
                k.assign(acc, 0, c, L.fma(self.weights[j], value, acc[0, c]))
            with k.vector(0, wide) as c:
                k.store(self.out, at + c, acc[0, c], inside(c))

        full = k.let(self.v_size // wide * wide, "full")
        with k.serial(0, full, wide) as at:
            part(at, True)
        with k.if_(full < self.v_size):
            part(full, False)
