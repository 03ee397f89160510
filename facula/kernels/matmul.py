"""Matrix products: ``c[b, m, n] = sum over k of a[b, m, k] * b[b, k, n]``.

What every element of the result is: within each block of ``K_BLOCK`` k, a chain of fused
multiply-adds in the order of k, starting from zero; the blocks' sums added in order. All variants
below compute exactly this, so their results have the same bits, whatever the strides, the number
of threads, or the rows that happen to be computed together.

Three variants:

``packed``  for large products. The result is cut into pieces of rows and columns. A thread packs a
            strip of b's columns for itself, which stays in the second-level cache; then panel by
            panel of a's rows is packed, stays in the first, and is multiplied by the strip in
            register tiles. Threads share nothing packed: another core's cache is further away than
            packing takes.
``direct``  for few rows, few columns and small matrices: a is read as it lies, and so is b by the
            first tile of rows, which leaves a copy of its columns close together for the tiles that
            follow. Where b's columns lie contiguous (a linear layer's weight), square tiles of b
            are transposed in registers on the way.

``ready``   b was packed before (a constant of an inference, ``compiler.constants``): as ``packed``
            without packing it. Few rows read it at 48 GB/s of 54 there are.

Sizes and strides are parameters, so a kernel serves all shapes; :mod:`.choose_matmul` picks.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.tiles import K_BLOCK, Source

#: Names of the size parameters, in order: strides are in elements, "abs" is a's batch stride. A
#: batch may have two dimensions: "inner" is the size of the second, "abi" a's stride of it.
SIZES = (
    *("batch", "m", "n", "k", "abs", "ars", "acs", "bbs", "brs", "bcs", "cbs", "crs"),
    *("inner", "abi", "bbi", "cbi"),
)
#: Parameters that say how the work is cut, which change no bit of the result.
CUTS = ("row_cut", "column_cut")
#: Panels of rows packed at a time where m runs along memory, that whole lines are read.
_TOGETHER = 8
#: Values of k for which rows of a are packed at a time where m runs along memory, so few that the
#: lines that two panels share are still near if all rows lie a power of two apart.
_LINES = 8
#: Values of k for which all of a strip's columns are packed at a time where n runs along memory.
_ROWS = 8

#: How many k ahead the rows of a turned tile, panels packed before, and rows of b by few rows of a
#: are asked for (1 x 4096 x 4096 3.27 to 2.72 ms).
_FURTHER, _COMING, _NEXT = 64, 16, 4


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        variant: "packed", "direct" or "ready".
        dtype: of a, b and c.
        a_unit: which index of a has stride 1: "m", "k" or None.
        b_unit: which index of b has stride 1: "n", "k" or None.
        single: c is one row.
        swapped: c is one column, computed as the row ``transpose(b) @ transpose(a)``.
        vector_bytes: 16, 32 or 64.
        low: of "ready": tiles of fewer rows, for as many as fill those better.
    """

    variant: str
    dtype: dtype
    a_unit: str | None
    b_unit: str | None
    single: bool
    swapped: bool
    vector_bytes: int
    low: bool = False

    @property
    def name(self) -> str:
        units = f"{self.a_unit or 'x'}{self.b_unit or 'x'}" + "l" * self.low
        row = "_column" if self.swapped else "_row" if self.single else ""
        return f"matmul_{self.variant}_{self.dtype.name}_{units}{row}"

    @property
    def heights(self) -> tuple:
        """Rows of the tiles of the variant "direct"."""
        if self.single:
            return (1,)
        heights = tiles.DIRECT[self.vector_bytes]
        # Of many values side by side LLVM loads all at once, and has no registers left for sums.
        return heights if self.a_unit == "k" else heights[:2]


#: Called once with the builder, to add parameters of its own; what it returns is called with an
#: element's sum and its indices (batch, m, n) and gives the value that is stored.
Epilogue = Callable[[L.Builder], Callable[[L.Expr, L.Expr, L.Expr, L.Expr], L.Expr]]


def build(form: Form, epilogue: Epilogue | None = None, out: dtype | None = None,
          name: str = "") -> L.Kernel:  # fmt: skip
    """The kernel: parameters a, b, c, those of ``SIZES`` and ``CUTS``, the epilogue's, scratch.

    Args:
        epilogue: what becomes of a sum before it is stored; the sum is float32 for float16 and
            bfloat16, int32 for narrower integers, else of the operands' dtype.
        out: dtype of c if not that of the operands.
        name: what the epilogue does, for the kernel's name.
    """
    return _Product(form, epilogue, out or form.dtype, name).kernel()


class _Product:
    """Writes one kernel. Internally c has columns of stride 1 and, if swapped, a single row."""

    def __init__(self, form: Form, epilogue, out: dtype, name: str):
        self.form = form
        k = self.k = L.Builder(f"{form.name}_{name}" if name else form.name)
        self.sum = tiles.accumulator(form.dtype)
        shape = tiles.shape_for(form.vector_bytes, self.sum)
        self.shape = shape._replace(heights=shape.heights[: 3 - form.low])
        # Narrow integers are multiplied two k at a time.
        self.pairs = self.sum.kind == "i" and self.sum is not form.dtype
        a, self.ready = k.buffer("a", form.dtype), form.variant == "ready"
        b = k.buffer("panels", self.sum) if self.ready else k.buffer("b", form.dtype)
        self.c = k.buffer("c", out, "rw")
        size = {name: k.size(name) for name in (*SIZES, *CUTS)}
        self.row_cut, self.column_cut = size["row_cut"], size["column_cut"]
        self.batch, self.depth = size["batch"], size["k"]
        self.m, self.n, self.row_stride = size["m"], size["n"], size["crs"]
        self.size = size
        left = a, ("abs", "abi"), size["ars"], size["acs"], form.a_unit
        right = b, ("bbs", "bbi"), size["bcs"], size["brs"], form.b_unit
        if form.swapped:
            left, right, self.m, self.n = right, left, self.n, self.m
        self.left, self.right = left, right
        self.finish = finish = epilogue(k) if epilogue else None
        if finish and form.swapped:
            self.finish = lambda value, batch, m, n: finish(value, batch, n, m)
        self.direct_stores = self._in_registers(out)
        # Sums of earlier blocks of k wait in c, unless c is too narrow for them.
        self.partial = self.c
        if out is not self.sum:
            more = L.minimum((self.depth - 1) // K_BLOCK, 1)
            self.partial = k.scratch("partial", self.sum, self.batch * self.m * self.n * more)

    def kernel(self) -> L.Kernel:
        getattr(self, f"_{self.form.variant}")()
        return self.k.kernel()

    def _in_registers(self, out) -> bool:
        """Whether whole tiles are stored from registers: their code is written for each vector.

        Not if that were too much code, nor if there are wider elements than a tile's.
        """
        if out.itemsize > self.sum.itemsize:
            return False
        if self.finish is None:
            return True
        zero, index = L.Const(0, self.sum), L.Var("index", L.int64)
        with self.k.block() as body:
            values = [self.finish(zero, index, index, index)]
        values += [s.value for s in body]
        return sum(tiles.weight(e, self.sum.itemsize) for e in values) <= tiles.CHEAP

    def source(self, operand, batch) -> Source:
        """The left operand with x = m, or the right one with x = n."""
        buffer, batch_strides, x_stride, k_stride, unit = operand
        limit = self.m if operand is self.left else self.n
        unit = unit if unit in (None, "k") else "x"
        return Source(buffer, self.start(batch, batch_strides), x_stride, k_stride, limit, unit)

    def start(self, batch, strides):
        """Where a matrix of the batch begins, by the names of the batch's two strides."""
        outer, inner = (self.size[name] for name in strides)
        count = self.size["inner"]
        return (batch // count) * outer + (batch % count) * inner

    # Where sums go

    def place(self, buffer, batch, m, n):
        if buffer is self.partial and buffer is not self.c:
            return (batch * self.m + m) * self.n + n
        return self.start(batch, ("cbs", "cbi")) + m * self.row_stride + n

    def added(self, value, *element):
        """A sum and what the blocks of k before have left."""
        return self.partial[self.place(self.partial, *element)] + value

    def keep(self, value, *element):
        """Put a sum away until the next block of k."""
        self.k.store(self.partial, self.place(self.partial, *element), value)

    def final(self, value, *element):
        """Store a sum over all k."""
        if self.finish is not None:
            value = self.finish(value, *element)
        self.k.store(self.c, self.place(self.c, *element), L.cast(value, self.c.dtype))

    def each_stage(self, k0, add, final, keep):
        """What is to be done after a block of k, at the first, the last, and others."""
        k = self.k
        with k.if_(k0 > 0):
            add()
        if self.partial is self.c and self.finish is None:
            keep()
            return
        with k.if_(k0 + K_BLOCK >= self.depth):
            final()
        with k.else_():
            keep()

    def store_tile(self, acc, batch, m0, n0, k0):
        """Store a tile all of whose rows and columns exist, from registers."""

        def each(write):
            for i in range(acc.shape[0]):
                with self.k.vector(0, acc.shape[1]) as j:
                    write(i, j, (batch, m0 + i, n0 + j))

        self.each_stage(
            k0,
            lambda: each(lambda i, j, at: self.k.assign(acc, i, j, self.added(acc[i, j], *at))),
            lambda: each(lambda i, j, at: self.final(acc[i, j], *at)),
            lambda: each(lambda i, j, at: self.keep(acc[i, j], *at)),
        )

    def use_spill(self, height, pitch):
        self.pitch = pitch
        self.spill = self.k.scratch("spill", self.sum, height * pitch, per_thread=True)

    def spill_tile(self, acc, column=0):
        """Put a tile, or its columns from ``column`` on, where :meth:`store_spill` finds it."""
        height, width = acc.shape
        for i in range(height):
            with self.k.vector(0, width) as j:
                self.k.store(self.spill, i * max(self.pitch, width) + column + j, acc[i, j])

    def store_spill(self, batch, m0, n0, k0, rows, columns, pitch=None):
        """Store ``rows`` x ``columns`` of the tile in memory."""
        k, spill, pitch = self.k, self.spill, pitch or self.pitch

        def each(write):
            def all_of(columns):
                with k.serial(0, rows) as i, k.vector(0, columns) as j:
                    write(i * pitch + j, (batch, m0 + i, n0 + j))

            with k.if_(L.as_expr(columns).eq(pitch)):
                all_of(pitch)
            with k.else_():
                all_of(columns)

        self.each_stage(
            k0,
            lambda: each(lambda i, at: k.store(spill, i, self.added(spill[i], *at))),
            lambda: each(lambda i, at: self.final(spill[i], *at)),
            lambda: each(lambda i, at: self.keep(spill[i], *at)),
        )

    # Packed variants

    def pack_left(self, source, panels, m0, rows, k0, count, padded):
        k, height = self.k, self.shape.height
        if source.unit == "k":
            with k.serial(0, rows, height) as i:
                at = i * padded, m0 + i, k0, count, height, self.shape
                tiles.pack(k, source, panels, *at, pairs=self.pairs)
            return
        # A panel is narrower than a line of the cache: few k at a time, that lines are read once.
        with k.serial(0, count, _LINES) as kk, k.serial(0, rows, height) as i:
            some = k.let(L.minimum(count - kk, _LINES), "some")
            start = i * padded + kk * (height // (1 + self.pairs))
            at = start, m0 + i, k0 + kk, some, height, self.shape
            tiles.pack(k, source, panels, *at, _LINES, self.pairs)

    def pack_right(self, source, panels, n0, columns, k0, count, padded):
        k, width = self.k, self.shape.width
        step = K_BLOCK if source.unit == "k" else _ROWS
        with k.serial(0, count, step) as kk, k.serial(0, columns, width) as p:
            some = k.let(L.minimum(count - kk, step), "some")
            start = p * padded + kk * (width // (1 + self.pairs))
            at = start, n0 + p, k0 + kk, some, width, self.shape
            tiles.pack(k, source, panels, *at, pairs=self.pairs)

    def prefetch_tile(self, batch, m0, n0, height):
        """A tile's place in the result, a line a prefetch: it is long out of the caches."""
        size = self.partial.dtype.itemsize
        for i in range(height):
            for line in range(0, self.shape.width * size, 64):
                place = self.place(self.partial, batch, m0 + i, n0)
                self.k.prefetch(self.partial, place + line // size)

    def multiply_block(self, lefts, rights, batch, m0, rows, n0, columns, k0, count, padded,
                       origin, step):  # fmt: skip
        """All tiles of a block of packed rows and columns, whose panels are ``step`` k apart."""
        k, shape, ready = self.k, self.shape, self.ready
        loops = (0, rows, shape.height), (0, columns, shape.width)
        # Panels that come from far are taken by all rows one after the other.
        outer, inner = reversed(loops) if ready else loops
        with k.serial(*outer) as x, k.serial(*inner) as y:
            ii, jj = (y, x) if ready else (x, y)
            self.prefetch_tile(batch, m0 + ii, n0 + jj, shape.height)
            left_at, right_at = ii * padded, origin + jj * step
            high = k.let(L.minimum(rows - ii, shape.height), "rows")
            wide = k.let(L.minimum(columns - jj, shape.width), "columns")

            def ahead(kk, width):
                """Panels of wide elements outgrow the first-level cache: 2.95 to 2.72 ms at 512."""
                panels = [(rights, right_at, shape.width), (lefts, left_at, shape.height)]
                for panel, at, size in panels[: 2 - ready]:
                    for line in range(0, size, 64 // self.sum.itemsize):
                        k.prefetch(panel, at + (kk + (_COMING if ready else 8)) * size + line)

            def tile(height, width=shape.width):
                acc = k.local(self.sum, 0, (height, width), name="acc")
                tiles.multiply(
                    k, acc, L.idiv_ceil(count, 1 + self.pairs),
                    lambda i, kk: lefts[left_at + kk * shape.height + i],
                    lambda kk, j: rights[right_at + kk * shape.width + j],
                    ahead=ahead if ready or self.sum.itemsize == 8 else None,
                    fma=tiles.dot2 if self.pairs else L.fma,
                )  # fmt: skip
                return acc

            def edge(height):
                self.spill_tile(tile(height))

            def any_size():
                with k.if_(wide <= shape.lanes):
                    self.spill_tile(tile(shape.height, shape.lanes))
                with k.else_():
                    tiles.by_height(k, high, shape.heights, edge)
                self.store_spill(batch, m0 + ii, n0 + jj, k0, high, wide)

            if not self.direct_stores:
                any_size()
                return
            with k.if_(high.eq(shape.height) & wide.eq(shape.width)):
                self.store_tile(tile(shape.height), batch, m0 + ii, n0 + jj, k0)
            with k.else_():
                any_size()

    def _packed(self):
        k, shape, ready = self.k, self.shape, self.ready
        depth = tiles.round_up(L.minimum(self.depth, K_BLOCK), shape.lanes)
        wide = tiles.round_up(L.minimum(self.n, self.column_cut), shape.width)
        high = (1 + ready if self.left[-1] == "k" else _TOGETHER) * shape.height
        lefts = k.scratch("packed_a", self.sum, high * depth, per_thread=True)
        rights, origin = self.right[0], L.Const(0, L.int64)
        if not ready:
            rights = k.scratch("packed_b", self.sum, wide * depth, per_thread=True)
        self.use_spill(shape.height, shape.width)
        loop, piece = self._chunks()
        with loop as chunk:
            batch, m0, m1, n0, n1 = piece(chunk)
            left, right = self.source(self.left, batch), self.source(self.right, batch)
            columns = k.let(n1 - n0, "columns")
            with k.serial(0, L.maximum(self.depth, 1), K_BLOCK) as k0:
                count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")
                padded = k.let(tiles.round_up(count, shape.lanes), "padded")
                if ready:
                    origin = k.let(n0 * self.depth + k0 * shape.width, "origin")
                else:
                    self.pack_right(right, rights, n0, columns, k0, count, padded)
                with k.serial(m0, m1, high) as m:
                    rows = k.let(L.minimum(m1 - m, high), "rows")
                    self.pack_left(left, lefts, m, rows, k0, count, padded)
                    self.multiply_block(
                        lefts, rights, batch, m, rows, n0, columns, k0, count, padded,
                        origin, self.depth if ready else padded,
                    )  # fmt: skip

    _ready = _packed

    def _chunks(self):
        """A parallel loop over pieces of the result: yields batch, first and last row, column."""
        k = self.k
        strips = k.let(L.idiv_ceil(self.n, self.column_cut), "strips")
        groups = k.let(L.idiv_ceil(self.m, self.row_cut), "groups")
        loop = k.parallel(0, self.batch * groups * strips)

        def piece(chunk):
            batch = k.let(chunk // (groups * strips), "batch")
            rest = k.let(chunk % (groups * strips), "rest")
            m0 = k.let((rest // strips) * self.row_cut, "m")
            n0 = k.let((rest % strips) * self.column_cut, "n")
            m1 = k.let(L.minimum(m0 + self.row_cut, self.m), "m_end")
            n1 = k.let(L.minimum(n0 + self.column_cut, self.n), "n_end")
            return batch, m0, m1, n0, n1

        return loop, piece

    # Directly

    def _direct(self):
        k, form = self.k, self.form
        heights = form.heights
        few, *more = heights
        turned = self.right[-1] == "k"
        width, wide = self.shape.width, self.shape.lanes * (8 if form.single else 4)
        if form.single and not turned:
            self.use_spill(1, wide)
        else:
            self.use_spill(heights[-1], width)
        if not form.single:
            depth = L.minimum(self.depth, K_BLOCK)
            self.strip = k.scratch("strip", self.sum, depth * width, per_thread=True)
        loop, piece = self._chunks()
        with loop as chunk:
            batch, m0, m1, n0, n1 = piece(chunk)
            right, rows = self.source(self.right, batch), k.let(m1 - m0, "rows")
            with k.serial(0, L.maximum(self.depth, 1), K_BLOCK) as k0:
                count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")
                block = _Block(batch, m0, m1, n0, n1, k0, count, right)
                if turned:
                    self._strips(block, heights, self._turned_tile)
                elif form.single:
                    self._few_rows(block, rows, few, wide)
                else:
                    with k.if_(rows <= few):
                        self._few_rows(block, rows, few, wide)
                    with k.else_():
                        self._strips(block, more, self._lying_tile)

    def _left_value(self, block, m, height):
        """Values of the left operand read as they lie, by row of a tile and k of a block."""
        source = self.source(self.left, block.batch)
        starts = []
        for i in range(height):
            # Rows that do not exist repeat the last one; what becomes of them is not stored.
            row = self.k.let(L.minimum(m + i, self.m - 1), "row") if i else m
            starts.append(self.k.let(source.index(row, block.k0), "start"))

        def value(i, kk):
            offset = kk if source.unit == "k" else kk * source.k_stride
            return source.buffer[starts[i] + offset]

        return value

    def _few_rows(self, block, rows, height, wide):
        """Strips of many columns, that as many sums as hide an addition's latency are under way."""
        k, right = self.k, block.right
        with k.serial(block.n0, block.n1, wide) as n:
            columns = k.let(L.minimum(block.n1 - n, wide), "columns")
            left = self._left_value(block, block.m0, height)

            def tile(whole):
                acc = k.local(self.sum, 0, (height, wide), name="acc")

                def value(kk, j):
                    mask = None if whole else n + j < block.n1
                    return right.buffer.load(right.index(n + j, block.k0 + kk), mask)

                def ahead(kk, width):
                    tiles.prefetch_row(k, right, n, block.k0 + kk, width, _NEXT)

                tiles.multiply(k, acc, block.count, left, value, ahead=ahead)
                self.spill_tile(acc)

            with k.if_(columns.eq(wide)):
                tile(whole=True)
            with k.else_():
                tile(whole=False)
            self.store_spill(block.batch, block.m0, n, block.k0, rows, columns, wide)

    def _strips(self, block, heights, first):
        """Strips of columns: ``first`` tiles read b, and leave a copy for the rows after them."""
        k, width, tall = self.k, self.shape.width, heights[-1]
        with k.serial(block.n0, block.n1, width) as n, k.serial(block.m0, block.m1, tall) as m:
            columns = k.let(L.minimum(block.n1 - n, width), "columns")
            rows = k.let(L.minimum(block.m1 - m, tall), "rows")
            self._prefetch_rows(block, m + tall, n, tall)
            if self.form.single:
                first(block, m, n, rows, columns, heights)
            else:
                with k.if_(m.eq(block.m0)):
                    first(block, m, n, rows, columns, heights)
                with k.else_():
                    self._strip_tile(block, m, rows, columns, heights)
            self.store_spill(block.batch, m, n, block.k0, rows, columns)

    def _prefetch_rows(self, block, m, n, count):
        """Ask for the beginnings of rows of a that come next: 128 x 100 x 16 x 32 167 to 126 us."""
        k, left = self.k, self.source(self.left, block.batch)
        if left.unit == "k":
            with k.if_(n.eq(block.n0)):
                for i in range(2 * count):
                    line = i % 2 * (64 // left.buffer.dtype.itemsize)
                    k.prefetch(left.buffer, left.index(m + i // 2, block.k0 + line))

    def _strip_tile(self, block, m, rows, columns, heights):
        k, pitch = self.k, self.pitch

        def tile(height, width=pitch):
            acc = k.local(self.sum, 0, (height, width), name="acc")
            left = self._left_value(block, m, height)
            tiles.multiply(k, acc, block.count, left, lambda kk, j: self.strip[kk * pitch + j])
            self.spill_tile(acc)

        with k.if_((columns <= self.shape.lanes) & (rows > heights[0])):
            tile(heights[-1], self.shape.lanes)
        with k.else_():
            tiles.by_height(k, rows, heights, tile)

    def _lying_tile(self, block, m, n, rows, columns, heights):
        k, right = self.k, block.right

        def tile(height):
            acc = k.local(self.sum, 0, (height, self.pitch), name="acc")
            tiles.multiply(
                k, acc, block.count, self._left_value(block, m, height),
                lambda kk, j: right.buffer[right.index(n + j, block.k0 + kk)],
                copy=self.strip if height == heights[-1] else None,
                ahead=lambda kk, width: tiles.prefetch_row(k, right, n, block.k0 + kk, width),
            )  # fmt: skip
            self.spill_tile(acc)

        with k.if_(columns.eq(self.pitch)):
            tiles.by_height(k, rows, heights, tile)
        with k.else_():
            tiles.pack(
                k, right, self.strip, 0, n, block.k0, block.count, self.pitch, self.shape
            )  # fmt: skip
            self._strip_tile(block, m, rows, columns, heights)

    def _turned_tile(self, block, m, n, rows, columns, heights):
        """Square tiles of b are transposed in registers and multiplied at once."""
        k, lanes = self.k, self.shape.lanes
        groups = self.pitch // lanes

        def tile(height):
            left = self._left_value(block, m, height)
            strip = self.strip if height == heights[-1] > 1 else None
            if height == 1:
                # Both groups by turns: the sums of one alone would wait for one another.
                accs = [k.local(self.sum, 0, (height, lanes), name="acc") for _ in range(groups)]
                self._turned_tiles(block, accs, left, n, strip, 0)
                for g, acc in enumerate(accs):
                    self.spill_tile(acc, g * lanes)
                return
            with k.serial(0, columns, lanes) as first:
                acc = k.local(self.sum, 0, (height, lanes), name="acc")
                self._turned_tiles(block, [acc], left, n + first, strip, first)
                self.spill_tile(acc, first)

        tiles.by_height(k, rows, heights, tile)

    def _turned_tiles(self, block, accs, left, n, strip, first):
        """A block of k by square tiles of b, kept in a strip if there is one; then the rest."""
        k, (height, lanes), right = self.k, accs[0].shape, block.right
        k0, count = block.k0, block.count
        full = k.let(count // lanes * lanes, "full")
        starts = [
            k.let(right.index(L.minimum(n + r, self.n - 1), k0), "column")
            for r in range(lanes * len(accs))
        ]

        def step(kk, g, value_of):
            acc = accs[g]
            for i in range(height):
                factor = L.cast(left(i, kk), self.sum)
                with k.vector(0, lanes) as j:
                    k.assign(acc, i, j, L.fma(factor, value_of(j), acc[i, j]))
            if strip is not None:
                with k.vector(0, lanes) as j:
                    k.store(strip, kk * self.pitch + g * lanes + first + j, value_of(j))

        with k.serial(0, full, lanes) as kk:
            for g in range(len(accs)):
                tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
                for r, start in enumerate(starts[g * lanes : (g + 1) * lanes]):
                    if height > 1:
                        k.prefetch(right.buffer, start + kk + _FURTHER)
                    with k.vector(0, lanes) as j:
                        k.assign(tile, r, j, L.cast(right.buffer[start + kk + j], self.sum))
                k.transpose(tile)
                for r in range(lanes):
                    step(kk + r, g, lambda j, r=r, tile=tile: tile[r, j])
        # The next columns begin to arrive while this tile is finished.
        for r in range(2 * lanes):
            line = k0 + r % 2 * (64 // right.buffer.dtype.itemsize)
            k.prefetch(right.buffer, right.index(n + (len(accs) * lanes + r // 2), line))
        with k.serial(full, count) as kk:
            for g in range(len(accs)):

                def lying(j, g=g):
                    column = n + g * lanes + j
                    at = right.index(column, k0 + kk)
                    return L.cast(right.buffer.load(at, column < block.n1), self.sum)

                step(kk, g, lying)


#: A piece of the result, a block of k, and the right operand.
_Block = namedtuple("_Block", "batch m0 m1 n0 n1 k0 count right")
