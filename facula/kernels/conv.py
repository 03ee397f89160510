"""Convolutions: ``y[n, o, q] = sum of x[n, c, q * stride + t * dilation - padding] * w[o, c, t]``.

Three spatial dimensions; those of lower rank have size 1. Every result is a matrix product in
disguise: pixels by output channels, summed over (input channel, tap). As in ``matmul`` a sum is a
chain of fused multiply-adds in that order within each block of ``K_BLOCK`` terms, and the blocks'
sums are added in order; nothing depends on the number of threads or on the batch.

1. The weights are packed in panels of output channels (if but one piece needs them: by that piece,
   while they are near), and the place of each term's input relative to a pixel goes into a table.
2. Threads take pieces of the output: an image, a group, some rows and columns. The input that a
   piece needs is copied with its padding to where a tile's pixels lie side by side: with a stride
   of 2, even and odd columns apart.
3. Tiles of pixels by channels are summed over the table, transposed in registers and stored. A
   tile takes the columns of one row, or of several where rows are short, each with a pointer of
   its own. If a group has but a few output channels, vectors run along the columns instead.

The gradient with respect to the input is such a convolution too: of the output's gradient, with
the weights flipped and their channels exchanged. With a stride it is several, one for each
remainder of a place by the stride, as only some taps reach each. So is ``conv_transpose``.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.ir import loops as L
from facula.ir.dims import same
from facula.kernels import tiles
from facula.kernels.tiles import K_BLOCK, Source
from facula.kernels.windows import Windows, even, geometry, numbered

#: Size parameters: images, groups, channels of a group; input, kernel and output sizes; stride,
#: padding (which may be negative), dilation; strides of x, w and y in elements. Numbers 0 to 2 are
#: the spatial dimensions. ``w_base`` is where the weight of term 0 is, ``w_group`` from group to
#: group, ``w_out`` and ``w_in`` from channel to channel; ``y_base`` is where y's first element is.
#: Channels of x and y of one group follow those of the one before.
SIZES = (
    *("n", "groups", "c", "o"),
    *(f"{name}{d}" for name in ("in", "kernel", "out") for d in range(3)),
    *(f"{name}{d}" for name in ("stride", "padding", "dilation") for d in range(3)),
    *("x_n", "x_c", "x_0", "x_1", "x_2"),
    *("w_base", "w_group", "w_out", "w_in", "w_0", "w_1", "w_2"),
    *("y_base", "y_n", "y_c", "y_0", "y_1", "y_2"),
)
#: Rows and columns of a piece, its images, and panels of output channels.
CUTS = ("row_cut", "column_cut", "image_cut", "panel_cut")
#: Elements of a piece's input that stay in the second-level cache.
_PIECE = 1 << 17
#: Pixels of a piece of several images: so many pay for the reading of the weights.
_PIXELS = 256
#: Up to so many output channels of a group vectors run along the columns.
_FEW = 4


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of x, w and y.
        x_unit: whether x's last stride is 1.
        flat: whether a channel's weights lie in the order of the terms, close together.
        step: the convolution's last stride if that is 1 or 2, else 0.
        y_unit: whether y's last stride is 1.
        vectors: of output channels in a tile, 1 or 2; 0 for few channels, taken one by one.
        late: weights are packed by the piece that needs them, a block of terms at a time.
        rows: how many a tile has pixels of.
        vector_bytes: 16, 32 or 64.
    """

    dtype: dtype
    x_unit: bool
    flat: bool
    step: int
    y_unit: bool
    vectors: int
    late: bool
    rows: int
    vector_bytes: int

    @property
    def name(self) -> str:
        flags = "u" * self.x_unit + "f" * self.flat + "y" * self.y_unit + "l" * self.late
        return f"conv{self.vectors}{self.step}{self.rows}_{self.dtype.name}_{flags or 'x'}"


def build(form: Form, epilogue=None, out: dtype | None = None, name: str = "") -> L.Kernel:
    """The kernel: parameters x, w, y, those of ``SIZES`` and ``CUTS``, the epilogue's, scratch.

    As in ``matmul.build``; an element's indices are (image, channel, three of space).
    """
    return _Convolution(form, epilogue, out or form.dtype, name).kernel()


class _Convolution(Windows):
    """Writes one kernel."""

    def __init__(self, form: Form, epilogue, out: dtype, name: str):
        self.form = form
        k = self.k = L.Builder(f"{form.name}_{name}" if name else form.name)
        self.sum = tiles.accumulator(form.dtype)
        shape = tiles.shape_for(form.vector_bytes, self.sum)
        self.shape = shape._replace(
            vectors=form.vectors, heights=columns_of(shape, form.rows, form.step)
        )
        self.x, self.w = k.buffer("x", form.dtype), k.buffer("w", form.dtype)
        self.y = k.buffer("y", out, "w")
        self.size = {name: k.size(name) for name in (*SIZES, *CUTS)}
        self.epilogue = epilogue(k) if epilogue else None
        self._scratch()

    def _scratch(self):
        k, size, shape = self.k, self.size, self.shape
        self.window_scratch(size["c"], shape.height, shared=False)
        k0, k1, k2 = self.three("kernel")
        self.depth = size["c"] * k0 * k1 * k2
        self.padded = tiles.round_up(self.depth, shape.lanes)
        self.width = shape.width or 1
        self.panels = L.idiv_ceil(size["o"], self.width)
        if self.form.late:
            depth = tiles.round_up(L.minimum(self.depth, K_BLOCK), shape.lanes)
            self.weights = k.scratch("weights", self.sum, depth * shape.width, per_thread=True)
        else:
            panels = size["groups"] * self.panels * self.width * self.padded
            self.weights = k.scratch("weights", self.sum, panels)
        if not self.form.flat:
            self.taken = k.scratch("taken", L.int64, self.depth)
        if not self.form.vectors:
            return
        self.columns = tiles.round_up(size["column_cut"], shape.height)
        rows = tiles.round_up(size["image_cut"] * size["row_cut"], self.form.rows)
        # A tile is read as so many rows as there are lanes.
        partial = (rows * self.columns + shape.lanes) * shape.width
        self.partial = k.scratch("partial", self.sum, partial, per_thread=True)
        self.pitch_of_spill = tiles.round_up(shape.height * self.form.rows, shape.lanes).value
        spill = self.pitch_of_spill * shape.width
        self.spill = k.scratch("spill", self.sum, spill, per_thread=True)

    def kernel(self) -> L.Kernel:
        # What comes up again and again is computed once.
        for name in ("depth", "padded", "panels"):
            setattr(self, name, self.k.let(getattr(self, name), name))
        self.fill_offsets()
        if not self.form.flat:
            self._fill_taken()
        if not self.form.late:
            with self.k.parallel(0, self.size["groups"] * self.panels) as p:
                at = self.k.let(p * self.width * self.padded, "at")
                zero = L.Const(0, L.int64)
                self._pack_weights(at, p // self.panels, p % self.panels, zero, self.depth)
        self._pieces()
        return self.k.kernel()

    def _fill_taken(self):
        """Where the weight of each term is, from that of term 0 on."""
        size = self.size

        def write(term, c, t0, t1, t2):
            place = c * size["w_in"] + t0 * size["w_0"] + t1 * size["w_1"] + t2 * size["w_2"]
            self.k.store(self.taken, term, place)

        self.terms(size["c"], write)

    def _pack_weights(self, at, group, panel, k0, count):
        """A panel of weights, ``count`` terms from ``k0`` on, to ``weights[at:]``."""
        k, size, width = self.k, self.size, self.width
        o0 = k.let(panel * width, "o")
        base = k.let(size["w_base"] + group * size["w_group"], "base")
        if self.form.flat:
            source = Source(self.w, base, size["w_out"], None, size["o"], "k")
            tiles.pack(k, source, self.weights, at, o0, k0, count, width, self.shape)
            return
        with k.serial(0, count) as kk:
            start = k.let(base + self.taken[k0 + kk], "start")
            with k.vector(0, width) as j:
                value = self.w.load(start + (o0 + j) * size["w_out"], o0 + j < size["o"])
                k.store(self.weights, at + kk * width + j, L.cast(value, self.sum))

    def _pieces(self):
        k, size = self.k, self.size
        rows, columns = size["row_cut"], size["column_cut"]
        out0, out1, out2 = self.three("out")
        down = k.let(L.idiv_ceil(out1, rows), "down")
        across = k.let(L.idiv_ceil(out2, columns), "across")
        packs = k.let(L.idiv_ceil(size["n"], size["image_cut"]), "packs")
        parts = k.let(L.idiv_ceil(self.panels, size["panel_cut"]), "parts")
        counts = (parts, across, down, out0, size["groups"])
        total = packs
        for count in counts:
            total = total * count
        with k.parallel(0, total) as number:
            rest, place = number, []
            for count in counts:
                place.append(k.let(rest % count, "part"))
                rest = k.let(rest // count, "rest")
            part, q2, q1, q0, group = place
            q2, q1 = k.let(q2 * columns, "q2"), k.let(q1 * rows, "q1")
            n = k.let(rest * size["image_cut"], "n")
            images = k.let(L.minimum(size["n"] - n, size["image_cut"]), "images")
            high = k.let(L.minimum(out1 - q1, rows), "high")
            wide = k.let(L.minimum(out2 - q2, columns), "wide")
            self.copy_input(n, images, group * size["c"], size["c"], q0, q1, q2)
            first = k.let(part * size["panel_cut"], "panel")
            last = k.let(L.minimum(first + size["panel_cut"], self.panels), "panels")
            place = n, group, q0, q1, q2
            if self.form.vectors:
                self._panels_of_channels(place, (first, last), (images, high, wide))
            else:
                self._channels_one_by_one(place, (first, last), (images, high, wide))

    def finish(self, value, n, o, q0, q1, q2):
        """What is stored of the sum for a place."""
        if self.epilogue:
            value = self.epilogue(value, n, o, q0, q1, q2)
        return L.cast(value, self.y.dtype)

    def _place(self, n, o, q0, q1, q2):
        """Where in y the row of an element begins, and from column to column."""
        size = self.size
        step = 1 if self.form.y_unit else size["y_2"]
        row = n * size["y_n"] + o * size["y_c"] + q0 * size["y_0"] + q1 * size["y_1"]
        return self.k.let(size["y_base"] + row + q2 * step, "to"), step

    def _channels_one_by_one(self, place, channels, extent):
        k, size, rows = self.k, self.size, self.form.rows
        (n, group, q0, q1, q2), (images, high, wide) = place, extent
        with k.serial(*channels) as c, k.serial(0, images * high, rows) as first:
            o = k.let(group * size["o"] + c, "channel")
            found = self._rows_from(first, images, high)
            with k.vector(0, wide) as j:
                accs = [k.local(self.sum, 0, name="acc") for _ in found]
                with k.serial(0, self.depth) as term:
                    weight = k.let(self.weights[o * self.padded + term], "weight")
                    for acc, (_, _, base) in zip(accs, found):
                        element = self.piece[base + self.offsets[term] + j]
                        k.assign(acc, L.fma(weight, element, acc.get()))
                for acc, (i, row, _) in zip(accs, found):
                    to, step = self._place(n + i, o, q0, q1 + row, q2)
                    value = self.finish(acc.get(), n + i, o, q0, q1 + row, q2 + j)
                    k.store(self.y, to + j * step, value)

    def _rows_from(self, first, images, high):
        """(image, row, place in the input) of a tile's rows; the last one stands for those that
        there are not."""
        found = []
        for r in range(self.form.rows):
            number = L.minimum(first + r, images * high - 1) if r else first
            image = self.k.let(number // high, "image")
            row = self.k.let(number - image * high, "row")
            base = image * self.image + row * (self.size["stride1"] * self.row)
            found.append((image, row, self.k.let(base, "base")))
        return found

    def _panels_of_channels(self, place, panels, extent):
        k, shape = self.k, self.shape
        (n, group, q0, q1, q2), (images, high, wide) = place, extent
        with k.serial(*panels) as p:
            o0 = k.let(p * shape.width, "o")
            with k.serial(0, L.maximum(self.depth, 1), K_BLOCK) as k0:
                count = k.let(L.minimum(self.depth - k0, K_BLOCK), "count")
                if self.form.late:
                    at = L.Const(0, L.int64)
                    self._pack_weights(at, group, p, k0, count)
                else:
                    panel = (group * self.panels + p) * self.padded
                    at = k.let((panel + k0) * shape.width, "at")
                with k.serial(0, images * high, self.form.rows) as first:
                    rows = self._rows_from(first, images, high)
                    with k.serial(0, wide, shape.height) as j:
                        left = k.let(wide - j, "left")
                        kept = first * self.columns + j * self.form.rows
                        kept = k.let(kept * shape.width, "kept")
                        bases = [base + j for _, _, base in rows]
                        tile = partial(self._sum_tile, at, k0, count, bases, kept)
                        tiles.by_height(k, left, shape.heights, tile)
                        with k.if_(k0 + K_BLOCK >= self.depth):
                            self._turn(kept)
                            for r, (image, row, _) in enumerate(rows):
                                to = n + image, group, o0, q0, q1 + row, q2 + j
                                with k.if_(first + r < images * high):
                                    self._store_row(r * shape.height, left, to)

    # The tiles

    def _sum_tile(self, at, k0, count, bases, kept, columns):
        """A tile of so many columns, for a block of terms, to ``partial[kept]``."""
        k, width, height = self.k, self.shape.width, self.shape.height
        acc = k.local(self.sum, 0, (len(bases) * columns, width), name="acc")
        bases = [k.let(base, "base") for base in bases]
        tiles.multiply(
            k, acc, count,
            lambda i, kk: self.piece[bases[i // columns] + self.offsets[k0 + kk] + i % columns],
            lambda kk, lane: self.weights[at + kk * width + lane],
        )  # fmt: skip

        def each(statement):
            for i in range(len(bases) * columns):
                with k.vector(0, width) as lane:
                    place = (i // columns) * height + i % columns
                    statement(i, lane, kept + place * width + lane)

        with k.if_(k0.ne(0)):
            each(lambda i, lane, at: k.store(self.partial, at, self.partial[at] + acc[i, lane]))
        with k.else_():
            each(lambda i, lane, at: k.store(self.partial, at, acc[i, lane]))

    def _turn(self, kept):
        """Transpose a tile, that channels have pixels side by side."""
        k, lanes, width = self.k, self.shape.lanes, self.shape.width
        for first in range(0, self.pitch_of_spill, lanes):
            for vector in range(0, width, lanes):
                tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
                for i in range(lanes):
                    with k.vector(0, lanes) as j:
                        at = kept + (first + i) * width + vector + j
                        k.assign(tile, i, j, self.partial[at])
                k.transpose(tile)
                for o in range(lanes):
                    with k.vector(0, lanes) as j:
                        to = (vector + o) * self.pitch_of_spill + first + j
                        k.store(self.spill, to, tile[o, j])

    def _store_row(self, pixel, left, place):
        """What a tile has of a row, from that pixel of it on."""
        k, size = self.k, self.size
        n, group, o0, q0, q1, q2 = place
        columns = k.let(L.minimum(left, self.shape.height), "columns")
        with k.serial(0, L.minimum(size["o"] - o0, self.shape.width)) as i:
            o = k.let(group * size["o"] + o0 + i, "channel")
            to, step = self._place(n, o, q0, q1, q2)
            with k.vector(0, columns) as j:
                value = self.spill[i * self.pitch_of_spill + pixel + j]
                k.store(self.y, to + j * step, self.finish(value, n, o, q0, q1, q2 + j))


# Sizes and cuts ---------------------------------------------------------------------------------


def forward(x, w, y, strides, *, joined=True, **how) -> list:
    """Values of ``SIZES`` for a convolution, in a list of one; shapes may be of symbols.

    Args:
        x, w, y: shapes [n, c, *in], [o, c / groups, *kernel], [n, o, *out].
        strides: of x, w and y.
        joined: whether all pixels may be seen as one row.
        how: stride, padding, dilation, groups.
    """
    x_strides, w_strides, y_strides = strides
    sizes = geometry(x, w, y, x_strides, **how) | {
        "w_base": 0, "w_group": y[1] // how["groups"] * w_strides[0], "w_out": w_strides[0],
        "w_in": w_strides[1], **numbered("w_", w_strides[2:], 0),
        "y_base": 0, "y_n": y_strides[0], "y_c": y_strides[1],
        **numbered("y_", y_strides[2:], 0),
    }  # fmt: skip
    return [_flattened(sizes) if joined else sizes]


def input_gradient(g, w, y, strides, *, stride, padding, dilation, groups, joined=True) -> list:
    """Values of ``SIZES`` for the gradient with respect to the input, which is written to y.

    It is one convolution for each remainder of the input's places by the strides: the taps that
    reach such places are every so many-th one. Where none does, there are no channels to sum.

    Args:
        g, w, y: shapes [n, o, *out], [o, c / groups, *kernel], [n, c, *in].
        strides: of g, w and y.
        joined: as in :func:`forward`.
    """
    g_strides, w_strides, y_strides = strides
    result = []
    for remainders in itertools.product(*map(range, stride)):
        axes = [
            _gradient_axis(*axis)
            for axis in zip(remainders, y[2:], w[2:], stride, padding, dilation)
        ]
        w_base = sum((a.last * step for a, step in zip(axes, w_strides[2:])), 0)
        y_base = sum((r * step for r, step in zip(remainders, y_strides[2:])), 0)
        sizes = {
            "n": g[0], "groups": groups, "o": w[1],
            "c": g[1] // groups if all(a.reached for a in axes) else 0,
            **numbered("in", g[2:], 1), **numbered("kernel", [a.kernel for a in axes], 1),
            **numbered("out", [a.out for a in axes], 1), **numbered("stride", (), 1),
            **numbered("padding", [a.padding for a in axes], 0),
            **numbered("dilation", [a.dilation for a in axes], 1),
            "x_n": g_strides[0], "x_c": g_strides[1], **numbered("x_", g_strides[2:], 0),
            "w_base": w_base, "w_group": g[1] // groups * w_strides[0],
            "w_out": w_strides[1], "w_in": w_strides[0],
            **numbered("w_", [-a.every * step for a, step in zip(axes, w_strides[2:])], 0),
            "y_base": y_base, "y_n": y_strides[0], "y_c": y_strides[1],
            **numbered("y_", [s * step for s, step in zip(stride, y_strides[2:])], 0),
        }  # fmt: skip
        result.append(_flattened(sizes) if joined else sizes)
    return result


class _Axis(NamedTuple):
    """One dimension of the convolution that gives one in ``stride`` places of the input."""

    kernel: int
    out: int
    padding: int
    dilation: int
    every: int  # taps from one that counts to the next
    last: int  # the last tap that counts, which comes first
    reached: bool


def _gradient_axis(remainder, size, kernel, stride, padding, dilation) -> _Axis:
    """Tap t reaches the places for which stride divides place + padding - t * dilation."""
    out = (size - remainder + (stride - 1)) // stride
    every = stride // math.gcd(dilation, stride)
    first, count = 0, kernel
    if stride > 1:
        kernel = int(kernel)
        taps = [t for t in range(kernel) if (remainder + padding - t * dilation) % stride == 0]
        if not taps:
            return _Axis(1, out, 0, 1, 1, 0, False)
        first, count = taps[0], len(taps)
    step = every * dilation // stride
    ahead = (remainder + padding - first * dilation) // stride
    last = first + (count - 1) * every
    return _Axis(count, out, (count - 1) * step - ahead, step, every, last, True)


def _flattened(sizes: dict) -> dict:
    """Of a product of channels alone, all pixels as one row, if they lie so in x and y."""
    plain = {"kernel": 1, "stride": 1, "padding": 0}
    if not all(same(sizes[f"{name}{d}"], v) for name, v in plain.items() for d in range(3)):
        return sizes
    expected = 1
    for d in (2, 1, 0):
        size = sizes[f"in{d}"]
        if not same(size, sizes[f"out{d}"]):
            return sizes
        if not same(size, 1):
            if not (same(sizes[f"x_{d}"], expected) and same(sizes[f"y_{d}"], expected)):
                return sizes
        expected = expected * size
    row = {"in0": 1, "in1": 1, "in2": expected, "out0": 1, "out1": 1, "out2": expected}
    return {**sizes, **row, "x_2": 1, "y_2": 1}


class Choice(NamedTuple):
    """A form, and the values of size parameters that go with it: the cuts, and sizes changed."""

    form: Form
    values: dict


def choose(d: dtype, sizes: dict, *, vector_bytes: int, threads: int = 1) -> Choice:
    """The form for a convolution of these sizes, and how to cut it.

    Args:
        sizes: numbers by the names of ``SIZES``.
        threads: how many the cuts are meant for; they change no bit of the result.
    """
    taps = [sizes[f"kernel{i}"] for i in range(3)]
    flat, expected = True, 1
    for i, name in ((2, "w_2"), (1, "w_1"), (0, "w_0")):
        flat = flat and (taps[i] == 1 or sizes[name] == expected)
        expected *= taps[i]
    flat = flat and (sizes["c"] == 1 or sizes["w_in"] == expected)
    step = sizes["stride2"] if sizes["stride2"] in (1, 2) else 0
    shape = tiles.shape_for(vector_bytes, tiles.accumulator(d))
    vectors = 1 if sizes["o"] <= shape.lanes else 2
    if sizes["o"] <= _FEW and math.prod(taps) * sizes["c"] <= K_BLOCK:
        # The weights are then taken as they come.
        vectors, flat = 0, False
    x_unit = sizes["x_2"] == 1 or sizes["in2"] == 1
    y_unit = sizes["y_2"] == 1 or sizes["out2"] == 1
    width = vectors * shape.lanes or 1
    cuts = _cuts(sizes, shape.height, -(-sizes["o"] // width), threads)
    rows, columns, images, _ = cuts
    terms = sizes["c"] * taps[0] * taps[1] * taps[2]
    together = _rows(shape, step, terms, rows * images, columns) if vectors else 4
    pieces = -(-sizes["out1"] // rows) * -(-sizes["out2"] // columns) * -(-sizes["n"] // images)
    late = vectors > 0 and pieces * sizes["out0"] <= (4 if flat else 2)
    form = Form(d, x_unit, flat, step, y_unit, vectors, late, together, vector_bytes)
    return Choice(form, dict(zip(CUTS, cuts)))


def columns_of(shape, rows, step) -> tuple:
    """The numbers of columns for which tiles of so many rows have an inner loop.

    With more of them LLVM was seen to run out of registers, in the largest.
    """
    most = shape.height // rows
    if rows == 1:
        return (4, 8, 10, 12, 14) if most == 14 and step != 2 else shape.heights
    return tuple(range(most // 2 + 1, most + 1))


def _rows(shape, step, terms, rows, columns) -> int:
    """Rows of a tile: such that the tiles of a piece take the least time."""

    def time(together):
        most, heights = shape.height // together, columns_of(shape, together, step)
        last = min(h for h in heights if h >= (columns - 1) % most + 1)
        # In cycles: beside multiplications there are two vectors of weights to read, and rows of
        # 32 channels to store.
        tile = [terms * (together * h + 1.5) + 130 + 150 * together for h in (most, last)]
        return -(-rows // together) * ((columns - 1) // most * tile[0] + tile[1])

    return min((1, 2, 3, 4), key=time)


def _cuts(sizes, height, panels, threads):
    out0, out1, out2 = (max(sizes[f"out{i}"], 1) for i in range(3))
    channels = max(sizes["c"] * sizes["kernel0"], 1)
    lines = max(sizes["kernel1"] * sizes["dilation1"], 1)
    # As many columns as leave a piece of one row in the cache, then as many rows, then images:
    # the weights are read once for all of a piece.
    most = _PIECE // (channels * lines * sizes["stride2"]) // height * height
    columns = min(out2, max(most, height))
    beyond = sizes["kernel2"] * sizes["dilation2"]
    across = channels * (columns * sizes["stride2"] + beyond)
    rows = (_PIECE // across - lines) // sizes["stride1"] + 1
    rows = min(max(rows, 1), out1)
    rows = -(-out1 // -(-out1 // rows))
    wanted = 1 if threads == 1 else 3 * threads
    images, share = 1, panels
    # Weights that are dearer to pack once more than the input is to copy?
    dear = sizes["o"] * lines * sizes["kernel2"] > 2 * sizes["n"] * sizes["in1"] * sizes["in2"]
    if rows == out1 and columns == out2:
        image = across * (rows * sizes["stride1"] + lines)
        most = 2 * _PIECE // image if dear else min(_PIECE // image, _PIXELS // (rows * columns))
        images = even(max(sizes["n"], 1), max(most, 1))
    if dear and threads > 1:
        share = _share(panels, threads)
        wanted = -(-threads // -(-panels // share))
    each = max(sizes["groups"] * out0 * -(-out2 // columns), 1)
    images = min(images, -(-sizes["n"] * each // wanted) or 1)
    each *= -(-sizes["n"] // images) or 1
    if rows < out1 or panels < wanted:
        rows = min(rows, -(-out1 // -(-wanted // each)))
    each *= -(-out1 // rows)
    return rows, columns, images, min(share, -(-panels // -(-wanted // each)))


def _share(panels, threads) -> int:
    """Panels that a thread takes at a time, such that all have about as many."""
    shares = [-(-panels // (times * threads)) for times in (1, 2, 3)]
    return min(shares, key=lambda share: -(-panels // share // threads) * share)
