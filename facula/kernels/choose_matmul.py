"""Which kernel multiplies matrices of given sizes, and how the work is cut: no bit hangs on it."""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.kernels import tiles
from facula.kernels.matmul import Form, direct_vectors
from facula.kernels.tiles import K_BLOCK


class Choice(NamedTuple):
    """A form, and values for the size parameters that say how the work is cut."""

    form: Form
    row_cut: int
    column_cut: int


def _unit(strides, sizes, names):
    """Which of two indices has stride 1; an index of one value has any stride."""
    for stride, size, name in reversed(list(zip(strides, sizes, names))):
        if stride == 1 or size == 1:
            return name
    return None


def choose(d: dtype, batch: int, m: int, n: int, k: int, a_strides: tuple, b_strides: tuple,
           *, vector_bytes: int, threads: int = 1, near: int = 1 << 20) -> Choice:  # fmt: skip
    """The form for a product of these sizes, and how to cut it.

    Args:
        a_strides: of a's rows and columns, in elements.
        b_strides: of b's rows and columns.
        threads: how many the cuts are meant for; they change no bit of the result.
        near: bytes of packed columns that stay in a core's cache while all rows go by.
    """
    swapped = n == 1 and m > 1
    if swapped:
        # c's one column is a row: c.T = b.T @ a.T.
        m, n, a_strides, b_strides = n, m, b_strides[::-1], a_strides[::-1]
    a_unit = _unit(a_strides, (m, k), "mk")
    b_unit = _unit(b_strides, (k, n), "kn")
    total = tiles.accumulator(d)
    shape = tiles.shape_for(vector_bytes, total)
    variant, height = _variant(batch, m, n, k, (a_unit, b_unit), total is not d, vector_bytes)
    if swapped:
        names = {"m": "n", "k": "k", "n": "m", None: None}
        a_unit, b_unit = names[b_unit], names[a_unit]
    form = Form(variant, d, a_unit, b_unit, height, swapped, vector_bytes)
    depth = min(max(k, 16), K_BLOCK)
    strip = max(1, near // (depth * shape.width * total.itemsize))
    rows, columns = _cuts(form, batch, m, n, k, shape, threads, strip)
    return Choice(form, rows, columns)


class _Limits(NamedTuple):
    """The most rows that variants are for, measured against one another on one thread."""

    heights: tuple  # of tiles of few rows
    kept: int  # more rows: packed
    copied: int  # more rows: packed, unless all sizes are at most ``small``
    copied_across: int  # the same if a's rows lie contiguous, which packing gathers
    small: int


#: By bytes of a vector. Masked loads, which the last columns need, are single instructions from
#: AVX2 on: before, b is packed. With 64: 16 x 768 x 768 kept 157 us, packed 220; 24 x 512 x 256 44
#: and 49; 64 x 256 x 256 50 and 47. 256 x 256 x 256 copied 170, packed 166; a across, 48 and 42.
_LIMITS = {
    16: _Limits((1, 2, 4, 6), 18, 0, 0, 0),
    32: _Limits((1, 2, 4, 6), 18, 256, 96, 384),
    64: _Limits((1, 2, 4, 8), 24, 256, 96, 384),
}


def _variant(batch, m, n, k, units, narrow, vector_bytes):
    """The variant and the height of its tile."""
    limits, (a_unit, b_unit) = _LIMITS[vector_bytes], units
    height = next((h for h in limits.heights if m <= h), limits.heights[-1])
    if b_unit == "k" and m <= height:
        return "turned", height
    # What must be widened is better widened once, when it is packed.
    if b_unit == "k" and m <= limits.kept and not narrow:
        return "kept", height
    if b_unit != "n" or not limits.copied:
        return "packed", 0
    if m <= height:
        return "direct", height
    most = limits.copied_across if a_unit == "m" else limits.copied
    if not narrow and (m <= most or max(m, n, k) <= limits.small and a_unit != "m"):
        return "copied", height
    return "packed", 0


#: What packing a panel of a, or of b, takes, in tiles of the same depth; and what rows of c cost
#: that start anew, in tiles of depth 1.
_PACK_A, _PACK_B, _START = 0.35, 1.8, 250


def _pieces(batch, m, n, k, shape, threads, most):
    """Rows and columns (``most`` panels) of a piece: the slowest thread shall be done soonest."""
    high, wide = -(-max(m, 1) // shape.height), -(-max(n, 1) // shape.width)
    best, panel = None, _PACK_A + _START / min(max(k, 1), K_BLOCK)
    for strips in range(-(-wide // most), wide + 1):
        columns = -(-wide // strips)
        for groups in range(1, high + 1):
            rows = -(-high // groups)
            cost = rows * columns + rows * panel + columns * _PACK_B
            cost *= -(-batch * -(-wide // columns) * -(-high // rows) // threads)
            if best is None or cost < best[0]:
                best = cost, rows * shape.height, columns * shape.width
            if groups * strips * batch >= 4 * threads:
                break
        if strips * batch >= 4 * threads:
            break
    return best[1:]


#: Products that take fewer microseconds than this are left to one thread: by multiplications
#: and by elements of b, in a microsecond of one thread.
_ALONE, _SPEED, _READ = 4, 1e5, 14e3


def _cuts(form, batch, m, n, k, shape, threads, strip):
    """Rows and columns of a piece: whole tiles, and some pieces for each thread."""
    if batch * k * n * (m / _SPEED + 1 / _READ) < _ALONE:
        threads = 1
    if form.variant == "packed":
        return _pieces(batch, m, n, k, shape, threads, strip)
    rows = -(-max(m, 1) // form.height) * form.height
    unit = shape.lanes
    if form.variant in ("direct", "copied"):
        unit *= direct_vectors(form.height, form.vector_bytes)
    wide = -(-max(n, 1) // unit)
    # One strip a thread at least; wide ones, that rows of b are read far enough ahead.
    most = max(-(-n // (8 * shape.lanes)), min(threads, wide))
    most = 1 if threads == 1 else min(3 * threads, most)
    most = max(1, most // max(batch, 1))

    def slowest(pieces):
        each = -(-wide // pieces)
        return -(-batch * -(-wide // each) // threads) * each

    pieces = min(range(most, 0, -1), key=slowest)
    return rows, -(-wide // pieces) * unit
