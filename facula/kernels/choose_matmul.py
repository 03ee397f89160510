"""Which kernel multiplies matrices of given sizes, and how the work is cut: no bit hangs on it."""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.kernels import tiles
from facula.kernels.matmul import Form
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
           *, vector_bytes: int, threads: int = 1, near: int = 1 << 20,
           ready: bool = False) -> Choice:  # fmt: skip
    """The form for a product of these sizes, and how to cut it.

    Args:
        a_strides: of a's rows and columns, in elements.
        b_strides: of b's rows and columns.
        threads: how many the cuts are meant for; they change no bit of the result.
        near: bytes of packed columns that stay in a core's cache while all rows go by.
        ready: whether b was packed before.
    """
    swapped = n == 1 and m > 1 and not ready
    if swapped:
        # c's one column is a row: c.T = b.T @ a.T.
        m, n, a_strides, b_strides = n, m, b_strides[::-1], a_strides[::-1]
    a_unit = _unit(a_strides, (m, k), "mk")
    b_unit = _unit(b_strides, (k, n), "kn")
    total = tiles.accumulator(d)
    shape = tiles.shape_for(vector_bytes, total)
    variant = _variant(m, n, k, (a_unit, b_unit), total is not d, vector_bytes)
    if swapped:
        names = {"m": "n", "k": "k", "n": "m", None: None}
        a_unit, b_unit = names[b_unit], names[a_unit]
    form = Form(variant, d, a_unit, b_unit, m == 1, swapped, vector_bytes)
    if ready:
        whole, half = shape.heights[-1], shape.heights[-2]
        low = m <= half or whole < m <= 2 * half
        form = Form("ready", d, a_unit, None, False, False, vector_bytes, low)
    depth = min(max(k, 16), K_BLOCK)
    strip = max(1, near // (depth * shape.width * total.itemsize))
    rows, columns = _cuts(form, batch, m, n, k, shape, threads, strip)
    return Choice(form, rows, columns)


def others(form: Form) -> list:
    """The forms that other sizes of the same strides would choose."""
    if form.variant == "ready":
        return [form._replace(low=not form.low)]
    if form.single or _right(form) is None:
        return []
    return [form._replace(variant="direct" if form.variant == "packed" else "packed")]


def _right(form):
    """Along which index the operand in vectors lies, by the form's names."""
    return form.a_unit if form.swapped else form.b_unit


class _Limits(NamedTuple):
    """Up to how many rows ``direct`` is the quicker variant, measured on one thread and on two.

    Attributes:
        rows: of b whose rows lie contiguous, and whose columns do.
        across: the same where a's columns lie contiguous, which packing gathers.
        near: if b has at most ``size`` elements, or one sixteenth of that if a's columns do.
        narrow: if b has at most ``columns``: any number, or this if a's columns do.
        flat: if sums are of at most ``depth`` terms, so that storing is most of the work.
    """

    rows: tuple
    across: tuple
    size: int = 1 << 16
    near: int = 640
    columns: int = 16
    narrow: int = 300
    depth: int = 16
    flat: int = 40


#: By bytes of a vector. With 64, direct over packed: 24 x 768 x 768 1.7, by NT 1.4; 144 rows 1.1
#: and 1.04, 416 rows 1.01 and 1.0, 1024 0.83 and 0.85; a across, 48 rows 1.2 and 1.08, 200 0.89 and
#: 0.84; of 640 rows, 16 columns and 64 terms 1.3, 512 columns and 8 terms 0.8.
_LIMITS = {
    16: _Limits((6, 18), (6, 6), 0, columns=0, flat=6),
    32: _Limits((256, 48), (96, 18)),
    64: _Limits((300, 300), (96, 40), columns=32),
}


def _variant(m, n, k, units, narrow, vector_bytes):
    limits, (a_unit, b_unit) = _LIMITS[vector_bytes], units
    if b_unit not in ("n", "k"):
        return "packed"
    if narrow:
        # What must be widened is better widened once, when it is packed.
        return "direct" if m <= tiles.DIRECT[vector_bytes][-1] else "packed"
    across = a_unit != "k"
    if n <= limits.columns:
        most = limits.narrow if across else m
    elif k <= limits.depth:
        most = limits.flat
    elif n * k <= (limits.size >> 4 if across else limits.size):
        most = limits.near
    else:
        most = (limits.across if across else limits.rows)["nk".index(b_unit)]
    return "direct" if m <= most else "packed"


#: What packing a panel of a, or of b, takes, in tiles of the same depth; and what rows of c cost
#: that start anew, in tiles of depth 1. A panel of b packed before comes from memory.
_PACK_A, _PACK_B, _COMES, _START = 0.35, 1.8, 1.1, 250


def _pieces(batch, m, n, k, shape, threads, most, pack_b=_PACK_B):
    """Rows and columns (``most`` panels) of a piece: the slowest thread shall be done soonest."""
    high, wide = -(-max(m, 1) // shape.height), -(-max(n, 1) // shape.width)
    best, panel = None, _PACK_A + _START / min(max(k, 1), K_BLOCK)
    for strips in range(-(-wide // most), wide + 1):
        columns = -(-wide // strips)
        for groups in range(1, high + 1):
            rows = -(-high // groups)
            cost = rows * columns + rows * panel + columns * pack_b
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
    if form.variant == "ready":
        return _pieces(batch, m, n, k, shape, threads, strip, _COMES)
    if form.variant == "packed":
        return _pieces(batch, m, n, k, shape, threads, strip)
    low, tall = form.heights[0], form.heights[-1]
    high, unit = -(-max(m, 1) // tall), shape.width
    if m <= low and _right(form) != "k":
        unit = shape.lanes * (8 if m == 1 else 4)
    wide = -(-max(n, 1) // unit)
    # One strip a thread at least; wide ones, that rows of b are read far enough ahead.
    most = max(-(-n // (8 * shape.lanes)), min(threads, wide))
    most = 1 if threads == 1 else min(3 * threads, most)
    most = max(1, most // max(batch, 1))

    def slowest(pieces):
        each = -(-wide // pieces)
        return -(-batch * -(-wide // each) // threads) * each

    pieces = min(range(most, 0, -1), key=slowest)
    apart = pieces * max(batch, 1)
    groups = 1 if apart >= threads else min(high, -(-threads // apart))
    return -(-high // groups) * tall, -(-wide // pieces) * unit
