"""Register tiles and packed panels: what the kernels of matrix products and convolutions share.

A *panel* holds ``width`` rows (or columns) of an operand, k by k: ``panel[k * width + x]``. The
inner loop of a product then reads both operands straight on. A *tile* is the piece of the result
that stays in registers meanwhile: ``height`` rows of some vectors.

Panels need no zeros behind an operand's last row: what is computed there is never stored.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import bfloat16, bool_, dtype, float16, float32, int32
from facula.ir import loops as L

#: Products are summed over blocks of so many k, on every processor: part of the result's meaning.
K_BLOCK = 512

#: Rows of the tiles of products whose rows are read as they lie, by bytes of a vector. The lowest
#: leaves registers for twice as many columns.
DIRECT = {16: (2, 4, 6), 32: (2, 4, 6), 64: (4, 8, 12)}

#: Epilogues of so many operations are applied to registers, others to a tile in memory.
CHEAP = 16

#: How many k ahead packing asks for what it will read.
_AHEAD = 16


class Shape(NamedTuple):
    """The register tile for a vector width.

    Attributes:
        lanes: elements of one vector.
        vectors: vectors side by side in a row of the tile.
        heights: numbers of rows for which there is an inner loop, the largest last.
    """

    lanes: int
    vectors: int
    heights: tuple

    @property
    def height(self) -> int:
        return self.heights[-1]

    @property
    def width(self) -> int:
        return self.lanes * self.vectors


def shape_for(vector_bytes: int, d: dtype) -> Shape:
    """The tile that uses the registers best: 32 of 64 bytes, or 16 of fewer.

    >>> shape_for(64, float32)
    Shape(lanes=16, vectors=2, heights=(4, 8, 14))
    """
    heights = (4, 8, 14) if vector_bytes == 64 else (2, 4, 6)
    return Shape(vector_bytes // d.itemsize, 2, heights)


def accumulator(d: dtype) -> dtype:
    """The dtype in which products of ``d`` are summed."""
    if d in (float16, bfloat16):
        return float32
    return int32 if d is bool_ or d.itemsize < 4 else d


def round_up(value, multiple: int):
    """The least multiple that is not less."""
    return L.idiv_ceil(value, multiple) * multiple


class Source(NamedTuple):
    """A matrix in memory: element (x, k) is ``buffer[base + x * x_stride + k * k_stride]``.

    ``unit`` says which stride is known to be 1: "x", "k" or None. ``limit`` is the number of x.
    """

    buffer: L.Buffer
    base: L.Expr
    x_stride: L.Expr
    k_stride: L.Expr
    limit: L.Expr
    unit: str | None

    def index(self, x, k):
        x_part = x if self.unit == "x" else x * self.x_stride
        k_part = k if self.unit == "k" else k * self.k_stride
        return self.base + x_part + k_part


def joined(low, high) -> L.Expr:
    """Two integers of at most 16 bits as the int32 that :func:`dot2` takes apart."""
    return (L.cast(low, int32) & 0xFFFF) | L.binary("shl", L.cast(high, int32), 16)


def dot2(a, b, c) -> L.Expr:
    """``c`` and the products of the lower and of the upper halves."""
    return L.call("dot2", a, b, c)


def pack(
    k: L.Builder, source: Source, panels: L.Buffer, at, x0, k0, count, width, shape,
    ahead=_AHEAD, pairs=False,
):  # fmt: skip
    """Write the panel of the ``width`` x from ``x0`` and the ``count`` k from ``k0``.

    It goes to ``panels[at:]``, whose space must be for a multiple of ``shape.lanes`` k. With
    ``pairs`` (of narrow integers) each int32 of it is of two k.
    """
    if source.unit == "k":
        _pack_turned(k, source, panels, at, x0, k0, count, width, shape.lanes, pairs)
        return

    def line(kk, j, masked):
        mask = x0 + j < source.limit if masked else None
        return source.buffer.load(source.index(x0 + j, k0 + kk), mask)

    def copy(masked):
        if pairs:
            half = width // 2
            with k.serial(0, count - 1, 2) as kk, k.vector(0, width) as j:
                both = joined(line(kk, j, masked), line(kk + 1, j, masked))
                k.store(panels, at + kk * half + j, both)
            with k.if_((count % 2).eq(1)), k.vector(0, width) as j:
                last = joined(line(count - 1, j, masked), 0)
                k.store(panels, at + (count - 1) * half + j, last)
            return
        with k.serial(0, count) as kk:
            prefetch_row(k, source, x0, k0 + kk, width, ahead)
            with k.vector(0, width) as j:
                k.store(panels, at + kk * width + j, L.cast(line(kk, j, masked), panels.dtype))

    with k.if_(x0 + width <= source.limit):
        copy(masked=False)
    with k.else_():
        copy(masked=True)


def _pack_turned(k, source, panels, at, x0, k0, count, width, lanes, pairs):
    """As :func:`pack` where k runs along the lanes: square tiles are transposed in registers."""
    with k.serial(0, count, lanes) as kk:
        for first in range(0, width, lanes):
            rows = min(lanes, width - first)
            tile = k.local(panels.dtype, 0, (lanes, lanes), name="tile")

            def load(masked, first=first, rows=rows, tile=tile):
                for r in range(rows):
                    x = L.minimum(x0 + (first + r), source.limit - 1)
                    start = k.let(source.index(x, k0), "row")
                    with k.vector(0, lanes) as j:
                        mask = kk + j < count if masked else None
                        value = source.buffer.load(start + kk + j, mask)
                        k.assign(tile, r, j, L.cast(value, panels.dtype))

            with k.if_(kk + lanes <= count):
                load(masked=False)
            with k.else_():
                load(masked=True)
            k.transpose(tile)
            for r in range(0, lanes, 1 + pairs):
                row = kk * (width // 2) + r // 2 * width if pairs else (kk + r) * width
                with k.vector(0, rows) as j:
                    value = joined(tile[r, j], tile[r + 1, j]) if pairs else tile[r, j]
                    k.store(panels, at + row + first + j, value)


def prefetch_row(k: L.Builder, source: Source, x0, kk, width, ahead=_AHEAD):
    """Ask for ``width`` x of a k further on: no processor guesses where the next row lies."""
    for line in range(0, width, 64 // source.buffer.dtype.itemsize):
        k.prefetch(source.buffer, source.index(x0 + line, kk + ahead))


def multiply(k: L.Builder, acc: L.Local, count, left, right, copy=None, ahead=None, fma=L.fma):
    """``acc[i, j] = fma(left(i, kk), right(kk, j), acc[i, j])`` for the ``count`` k in order.

    With ``copy`` the right operand's values are also written there, as a panel; ``ahead`` is
    called with a k and the width to prefetch what comes.
    """
    height, width = acc.shape
    with k.serial(0, count) as kk:
        if ahead is not None:
            ahead(kk, width)
        if copy is not None:
            with k.vector(0, width) as j:
                k.store(copy, kk * width + j, L.cast(right(kk, j), acc.dtype))
        for i in range(height):
            value = L.cast(left(i, kk), acc.dtype)
            with k.vector(0, width) as j:
                k.assign(acc, i, j, fma(value, L.cast(right(kk, j), acc.dtype), acc[i, j]))


def by_height(k: L.Builder, left, heights, run):
    """``run(height)`` for the lowest height that has all rows left, or the highest."""
    height, *taller = heights
    if not taller:
        run(height)
        return
    with k.if_(left <= height):
        run(height)
    with k.else_():
        by_height(k, left, taller, run)


def add_to(k, acc, sums: L.Buffer, to, later):
    """A tile's rows go to ``sums[to]``, one after the other; ``later``: added to what is there."""
    height, width = acc.shape
    with k.if_(later):
        for i in range(height):
            with k.vector(0, width) as lane:
                k.assign(acc, i, lane, sums[to + i * width + lane] + acc[i, lane])
    for i in range(height):
        with k.vector(0, width) as lane:
            k.store(sums, to + i * width + lane, acc[i, lane])


def weight(e: L.Expr, itemsize: int) -> int:
    """How many operations an expression is; many if one is dear or wider than that."""
    if e.dtype is L.int64:
        return 0
    much = e.dtype.itemsize > itemsize or isinstance(e, L.Op) and e.name in L.TRANSCENDENTAL
    return 1 + CHEAP * much + sum(weight(c, itemsize) for c in L.children(e))
