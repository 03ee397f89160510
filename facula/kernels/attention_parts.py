"""What the kernels of attention share: their parameters, products of tiles, masks, results.

The algorithm is told in :mod:`facula.kernels.attention`.
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
INF = float("inf")


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
        rows: row by row: the heads that are taken together, all with the same keys.
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
    rows: int = 1


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
        value, none = value * self.factor, self.number(-INF)
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
    none, infinite = total.eq(0.0), L.Const(INF, total.dtype)
    inverse = L.select(none, L.Const(0.0, total.dtype), 1.0 / total)
    return inverse, L.select(none, infinite, largest + L.call("log", total))
