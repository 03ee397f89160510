"""Writes to positions that are data: scatter, index_add, index_put.

The result starts as a copy of the target (or as zeros), then elements are combined into it *in
the order of the index*, so that sums and last-write-wins have the same bits on any number of
threads. Threads share the work by what they may write to:

``lines``  (scatter) every line along the scatter dimension is one thread's.
``rows``   (index_add, index_put) the target's rows are cut in blocks; for each block a thread
           walks over the whole index and takes the entries that fall into its block.

Indices are checked before they are used; one out of range is left out and gives status 1.
Limit: memory traffic, one read of index and source and one read and write of the rows touched.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.ir.dims import product

#: Elements that one parallel chunk of the initial copy has at least.
_CHUNK = 16384
#: Blocks of rows that a target is cut into, at most.
_BLOCKS = 8
STATUS = 1


def combine(how: str, old, new):
    """``old`` with ``new`` combined: "set", "add", "mul", "min" or "max"."""
    if how == "set":
        return new
    if old.dtype is D.bool_:
        return L.binary("or" if how in ("add", "max") else "and", old, new)
    return L.binary(how, old, new)


def _start(k, x, y, total):
    """``y`` becomes a copy of ``x``, or zeros where there is no ``x``."""
    with k.parallel(0, L.idiv_ceil(total, _CHUNK)) as b:
        lo = k.let(b * _CHUNK, "lo")
        hi = k.let(L.minimum(lo + _CHUNK, total), "hi")
        with k.vector(lo, hi) as i:
            k.store(y, i, x[i] if x is not None else L.Const(_zero(y.dtype), y.dtype))


def _zero(dtype):
    return False if dtype is D.bool_ else 0.0 if dtype.is_floating_point else 0


def scatter(dtype, rank: int, dim: int, how: str, from_zero: bool) -> L.Kernel:
    """``y[..., index[p], ...] = combine(y, src[p])`` for all positions p of the index.

    Parameters: x (unless ``from_zero``), index, src, y; sizes ``n{d}`` of the index, ``m{d}`` of
    y, strides ``i{d}`` of the index, ``s{d}`` of src. x and y are contiguous.
    """
    k = L.Builder(f"scatter_{how}_{dtype.name}_{rank}d{dim}")
    x = None if from_zero else k.buffer("x", dtype)
    index, src = k.buffer("index", D.int64), k.buffer("src", dtype)
    y = k.buffer("y", dtype, "rw")
    n, m, i_s, s_s = ([k.size(f"{c}{d}") for d in range(rank)] for c in "nmis")
    total = product(m)
    _start(k, x, y, total)
    strides = [product(m[d + 1 :]) for d in range(rank)]
    others = [d for d in range(rank) if d != dim]
    grain = L.maximum(L.Const(_CHUNK, D.int64) // L.maximum(n[dim], 1), 1)
    with k.parallel(0, product([n[d] for d in others]), grain=grain) as line:
        place = {}
        rest = line
        for d in reversed(others[1:]):
            place[d] = k.let(rest % n[d], "q")
            rest = k.let(rest // n[d], "q")
        if others:
            place[others[0]] = rest

        def base(by):
            return k.let(sum((place[d] * by[d] for d in others), L.Const(0, D.int64)), "base")

        at, from_, to = base(i_s), base(s_s), base(strides)
        with k.serial(0, n[dim]) as i:
            where = k.let(index[at + i * i_s[dim]], "w")
            inside = k.let((where >= 0) & (where < m[dim]), "ok")
            k.check(inside, STATUS)
            with k.if_(inside):
                target = k.let(to + where * strides[dim], "to")
                k.store(y, target, combine(how, y[target], src[from_ + i * s_s[dim]]))
    return k.kernel()


def index_add(dtype, from_zero: bool) -> L.Kernel:
    """``y[o, index[i], j] += src[o, i, j]``; everything contiguous.

    Parameters: x (unless ``from_zero``), index, src, y; sizes outer, rows (of y), count, inner.
    """
    k = L.Builder(f"index_add_{dtype.name}")
    x = None if from_zero else k.buffer("x", dtype)
    index, src = k.buffer("index", D.int64), k.buffer("src", dtype)
    y = k.buffer("y", dtype, "rw")
    outer, rows, count, inner = (k.size(s) for s in ("outer", "rows", "count", "inner"))
    _start(k, x, y, outer * rows * inner)
    with _row_blocks(k, outer, rows, count * inner) as (o, lo, hi):
        with k.serial(0, count) as i:
            where = k.let(index[i], "w")
            k.check((where >= 0) & (where < rows), STATUS)
            with k.if_((where >= lo) & (where < hi)):
                to, from_ = k.let((o * rows + where) * inner), k.let((o * count + i) * inner)
                with k.vector(0, inner) as j:
                    k.store(y, to + j, combine("add", y[to + j], src[from_ + j]))
    return k.kernel()


class _row_blocks:  # noqa: N801  used as a context manager, like the builder's own
    """Blocks of rows in parallel: yields (outer index, first row, end row)."""

    def __init__(self, k, outer, rows, work):
        self.k, self.rows = k, rows
        # Few entries are not worth several walks over the index.
        self.blocks = k.let(
            L.maximum(L.minimum(L.minimum(work // _CHUNK, rows), _BLOCKS), 1), "blocks"
        )
        self.loop = k.parallel(0, outer * self.blocks)

    def __enter__(self):
        k, part = self.k, self.loop.__enter__()
        o, block = k.let(part // self.blocks, "o"), k.let(part % self.blocks, "b")
        return (
            o,
            k.let(block * self.rows // self.blocks, "lo"),
            k.let((block + 1) * self.rows // self.blocks, "hi"),
        )

    def __exit__(self, *error):
        return self.loop.__exit__(*error)


def index_put(dtype, width: int, accumulate: bool, from_zero: bool) -> L.Kernel:
    """``y[index[r, 0], ..., index[r, width - 1], j] = src[r, j]`` (or +=); all contiguous.

    Parameters: x (unless ``from_zero``), index, src, y; sizes count, inner and ``m{d}``, the
    sizes of y's first ``width`` dimensions.
    """
    how = "add" if accumulate else "set"
    k = L.Builder(f"index_put_{how}_{dtype.name}_{width}")
    x = None if from_zero else k.buffer("x", dtype)
    index, src = k.buffer("index", D.int64), k.buffer("src", dtype)
    y = k.buffer("y", dtype, "rw")
    count, inner = k.size("count"), k.size("inner")
    m = [k.size(f"m{d}") for d in range(width)]
    _start(k, x, y, product(m) * inner)
    with _row_blocks(k, L.Const(1, D.int64), m[0], count * inner) as (_, lo, hi):
        with k.serial(0, count) as r:
            parts = [k.let(index[r * width + d], "w") for d in range(width)]
            inside = parts[0] >= 0
            for d, part in enumerate(parts):
                inside = inside & (part >= 0) & (part < m[d])
            inside = k.let(inside, "ok")
            k.check(inside, STATUS)
            with k.if_(inside & (parts[0] >= lo) & (parts[0] < hi)):
                row = parts[0]
                for d in range(1, width):
                    row = row * m[d] + parts[d]
                to, from_ = k.let(row * inner), k.let(r * inner)
                with k.vector(0, inner) as j:
                    k.store(y, to + j, combine(how, y[to + j], src[from_ + j]))
    return k.kernel()
