"""Recurrences over a whole sequence: a product with the state, then a cell's arithmetic, each step.

Forward, at every step and for every row of the batch: ``u = h @ w.T`` with the rows' states h,
then the cell makes of its input's gates p (already multiplied, for all steps), of ``u + bias`` and
of the old state the new one. For backward it also keeps, beside the state each step began with,
what the cell asks for. Backward walks the other way: the cell's derivative turns the cotangents of
the new state into those of the gates, and ``dh = du @ w`` brings them to the step before. The
gradients of weights are products over all steps at once and not made here.

The weights are packed in panels once, then stay in the cache near the core: a step multiplies rows
of the state with panels in register tiles, leaves the sums in memory, and the cell's arithmetic
runs over whole rows in vector lanes. Two ways to share the work:

``rows``     threads take rows of the batch and run all steps on them, without waiting for others.
``columns``  all threads share each step's columns: for few rows, or weights too large for a cache.

What an element is: the product's sum is, within each 512 k, a chain of fused multiply-adds in the
order of k from zero, the blocks' sums added in order, as in ``kernels.matmul``; no row depends on
another. Sizes are parameters. Sequences of several lengths (``packed``) lie step after step, the
longest first: step t has the first ``sizes[t]`` rows, which are clamped to what there is and
checked. Limit: FLOP/s of the products (two threads of AVX-512, an LSTM of 128 units and 32 rows:
245 of 400 GFLOP/s with the cell's arithmetic, whose five divisions are most of the rest); for few
rows the second-level cache's bytes/s, each weight being read once a step.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import dtype, int64
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.tiles import K_BLOCK, Source

#: steps, rows of a batch, hidden size, rows in all; index of a row: ``t * t_step + b * b_step``;
#: ``back`` is 1 where time runs backwards, else 0.
SIZES = ("steps", "rows", "hidden", "total", "t_step", "b_step", "back")
#: Rows that a thread takes (``rows``), panels and hidden units that one takes (``columns``).
CUTS = ("row_cut", "panel_cut", "unit_cut")
#: Products of fewer multiply-adds, and arithmetic on fewer hidden units, are one thread's.
_APART, _UNITS_APART = 1 << 15, 1 << 10
#: What a failed check says: the rows of steps do not fit together.
STATUS = 1


class Arithmetic(NamedTuple):
    """A cell: functions of lists of expressions, for one hidden unit.

    Attributes:
        name: tells cells apart.
        gates, kept, states: how many there are of each; the first state is h.
        forward: ``(p, u, states) -> (kept, new states)``.
        backward: ``(kept, states, cotangents) -> (dp, du, dstates)``; None for a zero.
        shares: whether dp and du are the same.
    """

    name: str
    gates: int
    kept: int
    states: int
    forward: object
    backward: object
    shares: bool


class Form(NamedTuple):
    """What a kernel is compiled for; ``keeps`` (forward): whether backward will follow."""

    dtype: dtype
    variant: str
    vectors: int
    vector_bytes: int
    packed: bool
    keeps: bool = False


class _Walk:
    """What both directions share: panels, products, and the walk over steps."""

    def __init__(self, name: str, form: Form, cell: Arithmetic):
        kind = f"{form.variant}{form.vectors}{'_packed' if form.packed else ''}"
        self.k = L.Builder(f"{cell.name}{name}_{kind}_{form.dtype.name}")
        self.form, self.cell = form, cell
        self.lanes = form.vector_bytes // form.dtype.itemsize
        self.width = self.lanes * form.vectors

    def buffers(self, *names, access="r"):
        return [self.k.buffer(name, self.form.dtype, access) for name in names]

    def sizes(self):
        k = self.k
        self.lengths = k.buffer("sizes", int64) if self.form.packed else None
        for name in (*SIZES, *CUTS):
            setattr(self, name, k.size(name))
        self.all_gates = self.cell.gates * self.hidden

    def pack(self, weights, columns, depth, turned: bool):
        """Panels of the weights [gates, hidden], whose rows or columns are the columns here."""
        k = self.k
        self.depth = depth
        self.padded = k.let(tiles.round_up(depth, self.lanes), "padded")
        self.count = k.let(L.idiv_ceil(columns, self.width), "panels")
        self.stride = k.let(self.count * self.width, "stride")
        size = L.idiv_ceil(columns, self.width) * self.width
        self.panels = k.scratch("panels", self.form.dtype, size * tiles.round_up(depth, self.lanes))
        x_step, k_step = (self.hidden, 1) if turned else (1, self.hidden)
        x_step, k_step = L.as_expr(x_step), L.as_expr(k_step)
        zero = L.Const(0, int64)
        source = Source(weights, zero, x_step, k_step, columns, "k" if turned else "x")
        shape = tiles.Shape(self.lanes, self.form.vectors, ())
        with k.parallel(0, self.count) as p:
            at = p * self.width * self.padded
            first = k.let(p * self.width, "first")
            tiles.pack(k, source, self.panels, at, first, 0, depth, self.width, shape)

    def copy(self, pairs):
        """Copy whole states: ``(target, its row stride, source, its row stride)`` each."""
        k = self.k
        with k.parallel(0, self.rows, grain=16) as b, k.vector(0, self.hidden) as j:
            for target, step, source, source_step in pairs:
                k.store(target, b * step + j, source[b * source_step + j])

    def product(self, panel, b0, b1, left, start, finish, ahead):
        """``finish(sum, place, k0)`` for all elements of the rows of one panel.

        ``left[start(b) + k]`` are the rows; ``ahead(b, column)`` asks for a line of what the
        cell's arithmetic will read.
        """
        k, width = self.k, self.width
        base = k.let(panel * width * self.padded, "base")
        line = 64 // self.form.dtype.itemsize
        with k.serial(0, self.depth, K_BLOCK) as k0:
            count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")
            at = k.let(base + k0 * width, "at")
            first = b0
            for height in heights(self.form.vectors, self.form.vector_bytes):
                end = k.let(first + (b1 - first) // height * height, "end")
                with k.serial(first, end, height) as b:
                    for i in range(height):
                        for column in range(0, width, line):
                            ahead(b + i, panel * width + column)
                    acc = k.local(self.form.dtype, 0, (height, width), name="acc")
                    starts = [k.let(start(b + i) + k0, "start") for i in range(height)]
                    tiles.multiply(
                        k, acc, count,
                        lambda i, kk, starts=starts: left[starts[i] + kk],
                        lambda kk, j: self.panels[at + kk * width + j],
                    )  # fmt: skip
                    for i in range(height):
                        row = k.let((b + i) * self.stride + panel * width, "row")
                        with k.vector(0, width) as j:
                            finish(acc[i, j], row + j, k0)
                first = end

    def walk(self, back, step):
        """Run ``step(base, b0, b1)`` for all steps; row b of a step lies at base + b * b_step."""
        k = self.k
        if self.form.variant == "columns":
            self._steps(back, L.Const(0, int64), self.rows, step)
            return
        with k.parallel(0, L.idiv_ceil(self.rows, self.row_cut)) as group:
            b0 = k.let(group * self.row_cut, "b0")
            self._steps(back, b0, k.let(L.minimum(b0 + self.row_cut, self.rows), "b1"), step)

    def _steps(self, back, b0, b1, step):
        k = self.k
        if not self.form.packed:
            with k.serial(0, self.steps) as i:
                t = k.let(i + back * (self.steps - 1 - i * 2), "t")
                step(k.let(t * self.t_step, "base"), b0, b1)
            return
        place = k.local(int64, back * self.total, name="place")
        with k.serial(0, self.steps) as i:
            t = k.let(i + back * (self.steps - 1 - i * 2), "t")
            room = back * place.get() + (1 - back) * (self.total - place.get())
            asked = k.let(self.lengths[t], "asked")
            rows = k.let(L.maximum(L.minimum(asked, L.minimum(room, self.rows)), 0), "active")
            base = k.let(place.get() - back * rows, "base")
            k.check(rows.eq(asked), STATUS)
            k.assign(place, place.get() + rows * (1 - back * 2))
            step(base, b0, L.minimum(b1, rows))
        k.check(place.get().eq((1 - back) * self.total), STATUS)

    def over_panels(self):
        """A loop over panels: of all threads in the variant ``columns``."""
        if self.form.variant == "columns":
            return self.k.parallel(0, self.count, grain=self.panel_cut)
        return self.k.serial(0, self.count)

    def over_hidden(self, b0, b1, element):
        """Run ``element(b, j)`` for the rows and all hidden units."""
        k = self.k
        if self.form.variant == "columns":
            with k.parallel(0, L.idiv_ceil(self.hidden, self.unit_cut)) as part:
                lo = k.let(part * self.unit_cut, "lo")
                hi = k.let(L.minimum(lo + self.unit_cut, self.hidden), "hi")
                with k.serial(b0, b1) as b, k.vector(lo, hi) as j:
                    element(b, j)
        else:
            with k.serial(b0, b1) as b, k.vector(0, self.hidden) as j:
                element(b, j)

    def gate(self, buffer, row, g, j, count=None):
        """Element j of part g of a row of ``count`` parts, all gates if None."""
        return buffer[row * (count or self.cell.gates) * self.hidden + g * self.hidden + j]


def forward(form: Form, cell: Arithmetic) -> L.Kernel:
    """The kernel of all steps; all buffers are contiguous, rows of several parts part by part.

    Parameters: p [total, gates, hidden]; w [gates, hidden, hidden] by the state's units last;
    bias [gates, hidden]; ``s{i}`` [rows, hidden], the initial states; y [total, hidden]; ``f{i}``
    [rows, hidden], the final states; with ``keeps``: kept [total, kept, hidden] and ``o{i}``
    [total, hidden], the states each step began with; sizes [steps] (``packed``); SIZES, CUTS.
    """
    walk = _Walk("", form, cell)
    k, states = walk.k, range(cell.states)
    p, w, bias = walk.buffers("p", "w", "bias")
    initial = walk.buffers(*(f"s{i}" for i in states))
    (y,) = walk.buffers("y", access="w")
    running = walk.buffers(*(f"f{i}" for i in states), access="rw")
    if form.keeps:
        kept, *olds = walk.buffers("kept", *(f"o{i}" for i in states), access="w")
    walk.sizes()
    hidden = walk.hidden
    walk.pack(w, walk.all_gates, hidden, turned=True)
    sums = k.scratch(
        "sums", form.dtype, walk.rows * L.idiv_ceil(walk.all_gates, walk.width) * walk.width
    )
    walk.copy([(f, hidden, s, hidden) for f, s in zip(running, initial)])

    def store_sum(value, at, k0):
        k.store(sums, at, L.select(k0.eq(0), value, sums[at] + value))

    def step(base, b0, b1):
        with walk.over_panels() as panel:
            walk.product(
                panel, b0, b1, running[0], lambda b: b * hidden, store_sum,
                lambda b, c: k.prefetch(p, (base + b * walk.b_step) * walk.all_gates + c),
            )  # fmt: skip

        def element(b, j):
            row, at = base + b * walk.b_step, b * hidden + j
            gates = range(cell.gates)
            ps = [walk.gate(p, row, g, j) for g in gates]
            us = [sums[b * walk.stride + g * hidden + j] + bias[g * hidden + j] for g in gates]
            old = [k.let(f[at], "old") for f in running]
            ks, new = cell.forward(ps, us, old)
            new = [k.let(value, "new") for value in new]
            if form.keeps:
                for g, value in enumerate(ks):
                    k.store(kept, row * cell.kept * hidden + g * hidden + j, value)
                for target, value in zip(olds, old):
                    k.store(target, row * hidden + j, value)
            for target, value in zip(running, new):
                k.store(target, at, value)
            k.store(y, row * hidden + j, new[0])

        walk.over_hidden(b0, b1, element)

    walk.walk(walk.back, step)
    return k.kernel()


def backward(form: Form, cell: Arithmetic) -> L.Kernel:
    """The kernel of all steps backwards, for a forward of the same ``back``.

    Parameters: gy [total, hidden], ``g{i}`` [rows, hidden], the cotangents; kept and ``o{i}`` as
    forward left them; w; dp [total, gates, hidden], du alike unless the cell shares them; ``d{i}``
    [rows, hidden] for the initial states; sizes, SIZES and CUTS as in :func:`forward`.
    """
    walk = _Walk("_backward", form, cell)
    k, states = walk.k, range(cell.states)
    gy, *given = walk.buffers("gy", *(f"g{i}" for i in states))
    kept, *olds = walk.buffers("kept", *(f"o{i}" for i in states))
    (w,) = walk.buffers("w")
    (dp,) = walk.buffers("dp", access="rw")
    du = dp if cell.shares else walk.buffers("du", access="rw")[0]
    running = walk.buffers(*(f"d{i}" for i in states), access="rw")
    walk.sizes()
    hidden = walk.hidden
    walk.pack(w, hidden, walk.all_gates, turned=False)
    dh = k.scratch("dh", form.dtype, walk.rows * L.idiv_ceil(hidden, walk.width) * walk.width)
    pairs = [(d, hidden, g, hidden) for d, g in zip(running[1:], given[1:])]
    walk.copy([(dh, walk.stride, given[0], hidden), *pairs])

    def step(base, b0, b1):
        def element(b, j):
            row, at = base + b * walk.b_step, b * hidden + j
            gh = dh[b * walk.stride + j] + gy[row * hidden + j]
            values = [walk.gate(kept, row, g, j, cell.kept) for g in range(cell.kept)]
            old = [o[row * hidden + j] for o in olds]
            dps, dus, dold = cell.backward(values, old, [gh, *(d[at] for d in running[1:])])
            dold = [k.let(L.as_expr(0.0, form.dtype) if d is None else d, "dold") for d in dold]
            for target, parts in ((dp, dps),) if cell.shares else ((dp, dps), (du, dus)):
                for g, value in enumerate(parts):
                    k.store(target, row * walk.all_gates + g * hidden + j, value)
            k.store(dh, b * walk.stride + j, dold[0])
            for target, value in zip(running[1:], dold[1:]):
                k.store(target, at, value)

        walk.over_hidden(b0, b1, element)

        def add_sum(value, at, k0):
            k.store(dh, at, dh[at] + value)

        with walk.over_panels() as panel:
            start = lambda b: (base + b * walk.b_step) * walk.all_gates  # noqa: E731
            walk.product(panel, b0, b1, du, start, add_sum, lambda b, c: None)

    walk.walk(1 - walk.back, step)
    walk.copy([(running[0], hidden, dh, walk.stride)])
    return k.kernel()


def heights(vectors: int, vector_bytes: int) -> list:
    """Rows of register tiles: as many as registers allow, and fewer for what is left."""
    most = max(1, (24 if vector_bytes == 64 else 12) // vectors)
    return [most] + [h for h in (4, 2, 1) if h < most]


def _time(vectors, rows, needed, vector_bytes):
    """Cycles a k that panels of so many vectors take: products, loads, and latencies."""
    total = 0.0
    for height in heights(vectors, vector_bytes):
        tall, rows = divmod(rows, height)
        total += tall * (1 + max(height * vectors / 2, (height + vectors) / 2, 1.3 * vectors, 4))
    return -(-needed // vectors) * total


def choose(sizes: dict, columns: int, depth: int, *, itemsize, vector_bytes, threads, near):
    """(variant, vectors of a panel, values of CUTS) for a product of ``columns`` and ``depth``.

    ``near`` is how many bytes surely stay in a core's second-level cache.
    """
    rows, hidden = sizes["rows"], sizes["hidden"]
    lanes = vector_bytes // itemsize
    share = -(-rows // threads)
    shared = threads > 1 and (rows < threads or columns * depth * itemsize > near)
    if shared:
        share = rows
    needed = -(-columns // lanes)
    candidates = (4, 3, 2, 1) if vector_bytes < 64 else (4, 3, 8, 6, 2, 1)
    vectors = min(candidates, key=lambda v: _time(v, share, needed, vector_bytes))
    # Threads wait for each other twice a step: for little work that does not pay.
    panels = -(-needed // vectors)
    panel_cut = panels if columns * depth * rows < _APART else panels // threads
    unit_cut = hidden if hidden * rows < _UNITS_APART else -(-hidden // (threads * lanes)) * lanes
    cuts = {name: max(1, cut) for name, cut in zip(CUTS, (share, panel_cut, unit_cut))}
    return "columns" if shared else "rows", vectors, cuts
