"""Matrix products: ``c[b, m, n] = sum over k of a[b, m, k] * b[b, k, n]``.

What every element of the result is: within each block of ``K_BLOCK`` k, a chain of fused
multiply-adds in the order of k, starting from zero; the blocks' sums added in order. All variants
below compute exactly this, so their results have the same bits, whatever the strides, the number
of threads, or the rows that happen to be computed together.

The variants, from the largest problems to the smallest:

``packed``  the result is cut into pieces of rows and columns. A thread packs a strip of b's columns
            for itself, which stays in the second-level cache; then panel by panel of a's rows is
            packed, stays in the first, and is multiplied by the strip in register tiles. Threads
            share nothing packed: another core's cache is further away than packing takes.
``direct``  nothing is packed: b's rows are read as they lie. For few rows or small matrices.
``copied``  as ``direct`` for more rows than a tile has: the first rows' tile copies b's columns
            on the way, to where the next tiles find them close together.
``turned``  as ``direct`` for b whose columns lie contiguous (a linear layer's weight): square
            tiles of b are transposed in registers and multiplied at once.
``kept``    as ``turned`` for a few tiles of rows: the first keeps its tiles of b for the others.

Sizes and strides are parameters, so a kernel serves all shapes; :mod:`.choose_matmul` picks.
"""

from __future__ import annotations

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
#: Values of k for which rows of a are packed at a time where m runs along memory.
_LINES = 32
#: Values of k for which all of a strip's columns are packed at a time where n runs along memory.
_ROWS = 8

#: How many k ahead the rows of a turned tile are asked for.
_FURTHER = 64
#: Epilogues of so many operations are applied to registers, others to a tile in memory.
_CHEAP = 16


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        variant: "packed", "direct", "copied", "turned" or "kept".
        dtype: of a, b and c.
        a_unit: which index of a has stride 1: "m", "k" or None.
        b_unit: which index of b has stride 1: "n", "k" or None.
        height: rows of a register tile; 0 for "packed", which has several.
        swapped: c is one column, computed as the row ``transpose(b) @ transpose(a)``.
        vector_bytes: 16, 32 or 64.
    """

    variant: str
    dtype: dtype
    a_unit: str | None
    b_unit: str | None
    height: int
    swapped: bool
    vector_bytes: int

    @property
    def name(self) -> str:
        units = f"{self.a_unit or 'x'}{self.b_unit or 'x'}"
        swapped = "_swapped" if self.swapped else ""
        return f"matmul_{self.variant}{self.height}_{self.dtype.name}_{units}{swapped}"


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
        self.shape = tiles.shape_for(form.vector_bytes, self.sum)
        a, b = k.buffer("a", form.dtype), k.buffer("b", form.dtype)
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
        return sum(_weight(e, self.sum.itemsize) for e in values) <= _CHEAP

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

    def store_any(self, acc, spill, batch, m0, n0, k0, rows, columns):
        """Store ``rows`` x ``columns`` of a tile by the quickest way."""
        k = self.k
        if not self.direct_stores:
            self.store_edge(acc, spill, batch, m0, n0, k0, rows, columns)
            return
        height, width = acc.shape
        with k.if_(L.as_expr(rows).eq(height) & L.as_expr(columns).eq(width)):
            self.store_tile(acc, batch, m0, n0, k0)
        with k.else_():
            self.store_edge(acc, spill, batch, m0, n0, k0, rows, columns)

    def store_edge(self, acc, spill, batch, m0, n0, k0, rows, columns):
        """Store ``rows`` x ``columns`` of a tile, through a copy of it in memory."""
        k = self.k
        height, width = acc.shape
        for i in range(height):
            with k.vector(0, width) as j:
                k.store(spill, i * width + j, acc[i, j])

        def each(write):
            def all_of(columns):
                with k.serial(0, rows) as i, k.vector(0, columns) as j:
                    write(i * width + j, (batch, m0 + i, n0 + j))

            with k.if_(L.as_expr(columns).eq(width)):
                all_of(width)
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
                start = i * padded
                tiles.pack(k, source, panels, start, m0 + i, k0, count, height, self.shape)
            return
        # A panel is narrower than a line of the cache: few k at a time, that lines are read once.
        with k.serial(0, count, _LINES) as kk, k.serial(0, rows, height) as i:
            some = k.let(L.minimum(count - kk, _LINES), "some")
            start = i * padded + kk * height
            tiles.pack(k, source, panels, start, m0 + i, k0 + kk, some, height, self.shape)

    def pack_right(self, source, panels, n0, columns, k0, count, padded):
        k, width = self.k, self.shape.width
        step = K_BLOCK if source.unit == "k" else _ROWS
        with k.serial(0, count, step) as kk, k.serial(0, columns, width) as p:
            some = k.let(L.minimum(count - kk, step), "some")
            start = p * padded + kk * width
            tiles.pack(k, source, panels, start, n0 + p, k0 + kk, some, width, self.shape)

    def prefetch_tile(self, batch, m0, n0):
        """A tile's place in the result, a line a prefetch: it is long out of the caches."""
        size = self.partial.dtype.itemsize
        for i in range(self.shape.height):
            for line in range(0, self.shape.width * size, 64):
                place = self.place(self.partial, batch, m0 + i, n0)
                self.k.prefetch(self.partial, place + line // size)

    def multiply_block(self, lefts, rights, spill, batch, m0, rows, n0, columns, k0, count, padded):
        """All tiles of a block of packed rows and columns."""
        k, shape = self.k, self.shape
        with k.serial(0, rows, shape.height) as ii, k.serial(0, columns, shape.width) as jj:
            self.prefetch_tile(batch, m0 + ii, n0 + jj)
            left_at, right_at = ii * padded, jj * padded
            rows_left = k.let(rows - ii, "rows")
            columns_left = k.let(L.minimum(columns - jj, shape.width), "columns")

            def ahead(kk, width):
                """Panels of wide elements outgrow the first-level cache: 2.95 to 2.72 ms at 512."""
                for panel, at, size in ((rights, right_at, width), (lefts, left_at, shape.height)):
                    for line in range(0, size, 8):
                        k.prefetch(panel, at + (kk + 8) * size + line)

            def tile(height):
                acc = k.local(self.sum, 0, (height, shape.width), name="acc")
                tiles.multiply(
                    k, acc, count,
                    lambda i, kk: lefts[left_at + kk * shape.height + i],
                    lambda kk, j: rights[right_at + kk * shape.width + j],
                    ahead=ahead if self.sum.itemsize == 8 else None,
                )  # fmt: skip
                return acc

            self._by_height(
                tile, spill, rows_left, columns_left, batch, m0 + ii, n0 + jj, k0, shape.heights
            )

    def _by_height(self, tile, spill, rows, columns, batch, m0, n0, k0, heights):
        """The lowest tile that has all of ``rows``, computed and stored."""
        k = self.k
        height, *taller = heights
        if taller:
            with k.if_(rows <= height):
                acc = tile(height)
                edge = L.minimum(rows, height)
                self.store_edge(acc, spill, batch, m0, n0, k0, edge, columns)
            with k.else_():
                self._by_height(tile, spill, rows, columns, batch, m0, n0, k0, taller)
            return
        acc = tile(height)
        self.store_any(acc, spill, batch, m0, n0, k0, L.minimum(rows, height), columns)

    def _packed(self):
        k, shape = self.k, self.shape
        depth = tiles.round_up(L.minimum(self.depth, K_BLOCK), shape.lanes)
        wide = tiles.round_up(L.minimum(self.n, self.column_cut), shape.width)
        high = (1 if self.left[-1] == "k" else _TOGETHER) * shape.height
        lefts = k.scratch("packed_a", self.sum, high * depth, per_thread=True)
        rights = k.scratch("packed_b", self.sum, wide * depth, per_thread=True)
        spill = k.scratch("spill", self.sum, shape.height * shape.width, per_thread=True)
        loop, piece = self._chunks()
        with loop as chunk:
            batch, m0, m1, n0, n1 = piece(chunk)
            left, right = self.source(self.left, batch), self.source(self.right, batch)
            columns = k.let(n1 - n0, "columns")
            with k.serial(0, L.maximum(self.depth, 1), K_BLOCK) as k0:
                count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")
                padded = k.let(tiles.round_up(count, shape.lanes), "padded")
                self.pack_right(right, rights, n0, columns, k0, count, padded)
                with k.serial(m0, m1, high) as m:
                    rows = k.let(L.minimum(m1 - m, high), "rows")
                    self.pack_left(left, lefts, m, rows, k0, count, padded)
                    self.multiply_block(
                        lefts, rights, spill, batch, m, rows, n0, columns, k0, count, padded
                    )  # fmt: skip

    # Variants without packing

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

    def _left_value(self, batch, m0, k0):
        """Values of the left operand read as they lie, by row of a tile and k of a block."""
        source = self.source(self.left, batch)
        starts = []
        for i in range(self.form.height):
            # Rows that do not exist repeat the last one; what becomes of them is not stored.
            m = self.k.let(L.minimum(m0 + i, self.m - 1), "row") if i else m0
            starts.append(self.k.let(source.index(m, k0), "start"))

        def value(i, kk):
            offset = kk if source.unit == "k" else kk * source.k_stride
            return source.buffer[starts[i] + offset]

        return value

    def _right_value(self, right, n, n1, k0, whole):
        """Values of the right operand read as they lie, and what asks for those to come."""

        def value(kk, j):
            mask = None if whole else n + j < n1
            return right.buffer.load(right.index(n + j, k0 + kk), mask)

        def ahead(kk, width):
            tiles.prefetch_row(self.k, right, n, k0 + kk, width)

        return value, ahead

    def _store_unpacked(self, acc, spill, batch, m0, m1, n0, n1, k0):
        rows = self.k.let(L.minimum(m1 - m0, acc.shape[0]), "rows")
        columns = self.k.let(L.minimum(n1 - n0, acc.shape[1]), "columns")
        self.store_any(acc, spill, batch, m0, n0, k0, rows, columns)

    def _direct(self, copies=False):
        k, height = self.k, self.form.height
        width = self.shape.lanes * direct_vectors(height, self.form.vector_bytes)
        spill = k.scratch("spill", self.sum, height * width, per_thread=True)
        strip = None
        if copies:
            depth = L.minimum(self.depth, K_BLOCK)
            strip = k.scratch("strip", self.sum, depth * width, per_thread=True)
        loop, piece = self._chunks()
        with loop as chunk:
            batch, m0, m1, n0, n1 = piece(chunk)
            right = self.source(self.right, batch)
            with k.serial(0, L.maximum(self.depth, 1), K_BLOCK) as k0:
                count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")

                def one_tile(m, n, whole, value, copy=None, ahead=None, k0=k0, count=count):
                    acc = k.local(self.sum, 0, (height, width), name="acc")
                    left = self._left_value(batch, m, k0)
                    tiles.multiply(k, acc, count, left, value, copy, ahead)
                    self._store_unpacked(acc, spill, batch, m, m1, n, n1, k0)

                def tiles_of_rows(n, whole, k0=k0):
                    as_it_lies, ahead = self._right_value(right, n, n1, k0, whole)
                    if not copies:
                        with k.serial(m0, m1, height) as m:
                            one_tile(m, n, whole, as_it_lies)
                        return
                    one_tile(m0, n, whole, as_it_lies, strip, ahead)
                    with k.serial(m0 + height, m1, height) as m:
                        one_tile(m, n, whole, lambda kk, j: strip[kk * width + j])

                full = k.let((n1 - n0) // width * width, "full")
                with k.serial(0, full, width) as n:
                    tiles_of_rows(n0 + n, whole=True)
                with k.if_(n0 + full < n1):
                    tiles_of_rows(n0 + full, whole=False)

    def _copied(self):
        self._direct(copies=True)

    def _turned(self, keeps=False):
        k, height, lanes = self.k, self.form.height, self.shape.lanes
        spill = k.scratch("spill", self.sum, height * lanes, per_thread=True)
        strip = None
        if keeps:
            depth = L.minimum(self.depth, K_BLOCK)
            strip = k.scratch("strip", self.sum, depth * lanes, per_thread=True)
        loop, piece = self._chunks()
        with loop as chunk:
            batch, m0, m1, n0, n1 = piece(chunk)
            right = self.source(self.right, batch)
            with k.serial(0, L.maximum(self.depth, 1), K_BLOCK) as k0:
                count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")

                def one_tile(m, n, kept, k0=k0, count=count):
                    left = self._left_value(batch, m, k0)
                    acc = k.local(self.sum, 0, (height, lanes), name="acc")
                    if kept:
                        tiles.multiply(k, acc, count, left, lambda kk, j: strip[kk * lanes + j])
                    else:
                        self._turned_tiles(acc, left, right, n, n1, k0, count, strip)
                    self._store_unpacked(acc, spill, batch, m, m1, n, n1, k0)

                with k.serial(n0, n1, lanes) as n:
                    if keeps:
                        one_tile(m0, n, False)
                    with k.serial(m0 + height * keeps, m1, height) as m:
                        one_tile(m, n, keeps)

    def _kept(self):
        self._turned(keeps=True)

    def _turned_tiles(self, acc, left, right, n, n1, k0, count, strip):
        """A block of k by square tiles of b, kept in a strip if there is one; then the rest."""
        k, (height, lanes) = self.k, acc.shape
        full = k.let(count // lanes * lanes, "full")
        starts = [
            k.let(right.index(L.minimum(n + r, self.n - 1), k0), "column") for r in range(lanes)
        ]

        def step(kk, value_of):
            for i in range(height):
                factor = L.cast(left(i, kk), self.sum)
                with k.vector(0, lanes) as j:
                    k.assign(acc, i, j, L.fma(factor, value_of(j), acc[i, j]))
            if strip is not None:
                with k.vector(0, lanes) as j:
                    k.store(strip, kk * lanes + j, value_of(j))

        with k.serial(0, full, lanes) as kk:
            tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
            for r, start in enumerate(starts):
                if height > 1:
                    k.prefetch(right.buffer, start + kk + _FURTHER)
                with k.vector(0, lanes) as j:
                    k.assign(tile, r, j, L.cast(right.buffer[start + kk + j], self.sum))
            k.transpose(tile)
            for r in range(lanes):
                step(kk + r, lambda j, r=r: tile[r, j])
        # The next columns begin to arrive while this tile is finished.
        for r in range(2 * lanes):
            line = k0 + r % 2 * (64 // right.buffer.dtype.itemsize)
            k.prefetch(right.buffer, right.index(n + (lanes + r // 2), line))
        with k.serial(full, count) as kk:

            def lying(j):
                at = right.index(n + j, k0 + kk)
                return L.cast(right.buffer.load(at, n + j < n1), self.sum)

            step(kk, lying)


def _weight(e: L.Expr, itemsize: int) -> int:
    """How many operations an expression is; many if one is dear or wider than that."""
    if e.dtype is L.int64:
        return 0
    much = e.dtype.itemsize > itemsize or isinstance(e, L.Op) and e.name in L.TRANSCENDENTAL
    return 1 + _CHEAP * much + sum(_weight(c, itemsize) for c in L.children(e))


def direct_vectors(height: int, vector_bytes: int) -> int:
    """Vectors in a row of the tile of the variant ``direct``."""
    most = 16 if vector_bytes == 64 else 8
    return max(2, min(8, most // height))
