"""The gradient of attention in tiles, from the logarithm of each row's sum that forward kept.

With p the weights, d what dropout leaves (1 without), g the gradient of the result y::

    ds = p (d (g @ v.T) - sum of g y) scale
    gv = (p d).T @ g        gq = ds @ k        gk = ds.T @ q

A thread takes one head of k and v with all heads of q that use it, and goes through pairs of a
piece of queries, which lie in the lanes, and a block of keys: p and ``g @ v.T`` are computed anew
(``kernels.attention``), ds goes to scratch memory as p does. Then come three sums in register
tiles: gq in the lanes of the queries, gk and gv in those of their own columns.

Each number of the result is one chain of fused multiply-adds: gq over the keys in order, gk and gv
over the queries in order, head by head. So it depends on no width of vectors, number of threads or
batch. What is summed has relative errors as in the forward kernel; the error of n summands of
magnitude A is at most ``(n + depth + 8) A`` units of the last place.

Share of the limit: five products of 2 n m d operations at about 0.75 of a core's multiply-adds.
"""

from __future__ import annotations

from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.attention_parts import BLOCK, GROUP, Common, Form
from facula.kernels.tiles import round_up


def build(form: Form) -> L.Kernel:
    """The kernel: g, y, lse, q, k, v, (mask), (p, seed, offset), gq, gk, gv; sizes; scratch.

    g and y are ``[batch, heads, queries, values]`` in any strides but the last; the results are
    contiguous ``[batch, position, heads, size]``.
    """
    return _Gradient(form).kernel()


class _Gradient(Common):
    def __init__(self, form):
        super().__init__(form, "attention_gradient", ("gq", "gk", "gv"), ("g", "y", "lse"))

    def write(self):
        k, n = self.k, self.size
        self.helpers()
        depth, values, tile = self.e_size, self.v_size, 2 * self.lanes
        self.columns = {
            name: k.let(round_up(size, tile), "columns")
            for name, size in (("q", depth), ("g", values))
        }
        self.turned = {x: self.panel(f"turned_{x}", m) for x, m in (("q", depth), ("g", values))}
        self.rows = {
            x: self.scratch(f"rows_{x}", self.width * round_up(m, tile))
            for x, m in (("q", depth), ("g", values))
        }
        self.weights, self.ds = self.panel("weights", BLOCK), self.panel("ds", BLOCK)
        self.gq = self.panel("sum_q", L.maximum(depth, values))
        self.lse, self.delta = (
            self.scratch("row_lse", self.width),
            self.scratch("row_delta", self.width),
        )
        keys = round_up(self.keys, GROUP)
        self.gk = self.scratch("sum_k", keys * round_up(depth, tile))
        self.gv = self.scratch("sum_v", keys * round_up(values, tile))
        self.wides = self.wide()
        self.factor = self.scale()
        others = k.let(self.heads // L.maximum(n["group"], 1), "others")
        with k.parallel(0, n["batch"] * others, grain=1) as chunk:
            other = k.let(chunk % L.maximum(others, 1), "other")
            batch = k.let(chunk // L.maximum(others, 1), "batch")
            self.number_lanes()
            for total, name in ((self.gk, "q"), (self.gv, "g")):
                with k.vector(0, keys * self.columns[name]) as c:
                    k.store(total, c, 0.0)
            with k.serial(0, n["group"]) as member:
                head = k.let(other * n["group"] + member, "head")
                with k.serial(0, self.queries, self.width) as first:
                    self._piece(batch, head, other, first)
            for total, name, size in (("gk", "q", depth), ("gv", "g", values)):
                self._store_keys(
                    getattr(self, total), total, self.columns[name], batch, other, others, size
                )

    def _piece(self, batch, head, other, first):
        """A piece of queries of one head against all keys that count for it."""
        k, width = self.k, self.width
        count = k.let(L.minimum(self.queries - first, width), "queries")
        self.turn("q", self.turned["q"], batch, head, first, self.e_size)
        self.turn("g", self.turned["g"], batch, head, first, self.v_size)
        for name, size in (("q", self.e_size), ("g", self.v_size)):
            self._lay("q" if name == "q" else "g", batch, head, first, count, size)
        self._row_sums(batch, head, first)
        with k.serial(0, round_up(self.e_size, 16)) as r:
            self.each(lambda i: k.store(self.gq, r * width + i, 0.0))
        limit = k.let(self.limit_of(first, count), "limit")
        with k.serial(0, limit, BLOCK) as j0:
            keys_here = k.let(L.minimum(limit - j0, BLOCK), "count")
            self.prepare_block(batch, head, first, j0, keys_here)
            keys = self.block("k", batch, other, j0, keys_here, self.wides[0])
            values = self.block("v", batch, other, j0, keys_here, self.wides[1])
            whole = k.let(round_up(keys_here, self.height), "whole")
            self._differentiate(keys, values, first, j0, keys_here, whole, limit)
            with k.serial(0, self.e_size, self.height) as at:
                self.along(keys, self.ds, keys_here, at, self.e_size, self.gq)
            with k.serial(0, whole, self.height) as at:
                self._add(self.weights, "g", self.gv, at, j0, count)
                self._add(self.ds, "q", self.gk, at, j0, count)
        self.give_back(self.gq, self.buffers["gq"], batch, head, self.heads, first, self.e_size)

    def _lay(self, name, batch, head, first, count, size):
        """Rows of q or g as they are, but in the type of sums and with zeros behind."""
        k, rows, columns = self.k, self.rows[name], self.columns[name]
        start = self.start(name, batch, head) + first * self.size[f"{name}_n"]
        with k.serial(0, count) as r, k.vector(0, columns) as c:
            value = self.buffers[name].load(start + r * self.size[f"{name}_n"] + c, c < size)
            k.store(rows, r * columns + c, L.cast(value, self.type))

    def _row_sums(self, batch, head, first):
        """The sum of g y in each row, and forward's logarithms."""
        k, width = self.k, self.width
        self.turn("y", self.gq, batch, head, first, self.v_size)
        acc = k.local(self.type, 0, (width,), name="delta")
        with k.serial(0, self.v_size) as c:
            at = c * width
            self.each(
                lambda i: k.assign(acc, i, L.fma(self.turned["g"][at + i], self.gq[at + i], acc[i]))
            )
        place = (batch * self.heads + head) * self.queries + first

        def keep(i):
            k.store(self.delta, i, acc[i])
            k.store(self.lse, i, self.buffers["lse"].load(place + i, first + i < self.queries))

        self.each(keep)

    def _differentiate(self, keys, values, first, j0, count, whole, limit):
        """The weights of a block, after dropout, and the gradient of its scores."""
        k, width = self.k, self.width
        with k.serial(0, whole, self.height) as at:
            for block, panel, depth, to in (
                (keys, self.turned["q"], self.e_size, self.weights),
                (values, self.turned["g"], self.v_size, self.ds),
            ):
                acc = self.across(block, panel, depth, at, count)
                for t in range(self.height):
                    self.each(
                        lambda i, t=t, to=to, acc=acc: k.store(to, (at + t) * width + i, acc[t, i])
                    )

        def one(i, j):
            place, key = j * width + i, j0 + j
            s = self.score(self.weights[place], j, i, first, key, limit)
            p = k.let(L.call("exp", s - self.lse[i]), "p")
            left = None if self.left is None else self.left[place]
            dp = self.ds[place] if left is None else self.ds[place] * left
            ds = k.let(p * (dp - self.delta[i]) * self.factor, "ds")
            k.store(self.ds, place, ds)
            k.store(self.weights, place, p if left is None else p * left)

        with k.serial(0, whole, 2) as j:
            for t in range(2):
                self.each(lambda i, t=t: one(i, j + t))
        for panel in (self.weights, self.ds):
            self.fill(panel, count, whole, 0.0)

    def _add(self, weights, name, total, at, j0, count):
        """``total[j, c] += sum over queries of weights[j, i] * rows[i, c]`` for some keys."""
        k, height, tile = self.k, self.height, 2 * self.lanes
        columns, rows = self.columns[name], self.rows[name]
        with k.serial(0, columns, tile) as c0:
            acc = k.local(self.type, 0, (height, tile), name="acc")
            for t in range(height):
                with k.vector(0, tile) as c:
                    k.assign(acc, t, c, total[(j0 + at + t) * columns + c0 + c])
            tiles.multiply(
                k, acc, count,
                lambda t, i: weights[(at + t) * self.width + i],
                lambda i, c: rows[i * columns + c0 + c],
            )  # fmt: skip
            for t in range(height):
                with k.vector(0, tile) as c:
                    k.store(total, (j0 + at + t) * columns + c0 + c, acc[t, c])

    def _store_keys(self, total, name, columns, batch, other, others, size):
        """The sums of one head of k or v into the result, ``[batch, keys, heads, size]``."""
        k, buffer = self.k, self.buffers[name]
        with k.serial(0, self.keys) as j, k.vector(0, size) as c:
            place = ((batch * self.keys + j) * others + other) * size + c
            k.store(buffer, place, L.cast(total[j * columns + c], buffer.dtype))
