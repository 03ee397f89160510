"""The gradient of a convolution with respect to its weight.

``w[o, c, t] = sum over n, q of g[n, o, q] * x[n, c, q * stride + t * dilation - padding]``: terms
(an input channel and a place in the kernel) by output channels, summed over all pixels. They are
summed in blocks, of some rows of an image or of some small images, one block after the other:
within a block the sum is a chain of fused multiply-adds in the order of the pixels, and the
blocks' sums are added in order. Blocks depend on sizes alone, so nothing depends on the threads.

For each block x is copied with its padding (``windows``) and g packed with output channels side by
side, by all threads together; then threads sum tiles of some terms by some vectors of channels
over the pixels: each term's input is one pointer, from which a table leads to each pixel's.

Where a group has but a few terms (depthwise, or images themselves) vectors run along the
rows of g instead: threads take output channels by themselves. A weight is then 64 bytes of sums,
columns modulo their number, each a chain in the order of the rows of a block; at last they are
added up as halves. It takes a load an instruction: 0.5 to 0.8 of the machine's limit, and g is
read as it lies.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.conv import Choice
from facula.kernels.tiles import Source
from facula.kernels.windows import Windows, even, geometry, numbered, piece_of

#: Size parameters, as those of ``conv.SIZES``; strides of x, g and w. w is contiguous in (c, t).
SIZES = (
    *("n", "groups", "c", "o"),
    *(f"{name}{d}" for name in ("in", "kernel", "out") for d in range(3)),
    *(f"{name}{d}" for name in ("stride", "padding", "dilation") for d in range(3)),
    *("x_n", "x_c", "x_0", "x_1", "x_2"),
    *("g_n", "g_c", "g_0", "g_1", "g_2"),
    "w_out",
)
#: Rows, columns and images of a block; terms that a thread takes at a time (along rows: output
#: channels).
CUTS = ("row_cut", "column_cut", "image_cut", "share")
#: Pixels of a block, at least and at most: threads meet after each.
_PIXELS = 384, 1024
#: Elements of x and g of a block of more pixels: they stay in the second-level caches.
_BLOCK = 1 << 19
#: Up to so many terms of a group vectors may run along the rows.
_FEW = 32
#: Elements of the input of a block then: they stay in the first-level cache.
_NEAR = 1 << 13


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of x, g and w.
        x_unit, g_unit: whether the last stride of x and of g is 1.
        step: the last stride of the convolution if that is 1 or 2, else 0.
        vectors: of output channels in a tile, 1 or 2; 0 along rows.
        vector_bytes: 16, 32 or 64.
    """

    dtype: dtype
    x_unit: bool
    g_unit: bool
    step: int
    vectors: int
    vector_bytes: int

    @property
    def name(self) -> str:
        flags = "x" * self.x_unit + "g" * self.g_unit
        return f"conv_weight{self.vectors}{self.step}_{self.dtype.name}_{flags or 'n'}"


def build(form: Form) -> L.Kernel:
    """The kernel: parameters x, g, w (written), those of ``SIZES`` and ``CUTS``, scratch."""
    return (_WeightGradient if form.vectors else _AlongRows)(form).kernel()


def terms_high(vector_bytes: int) -> int:
    """Terms of a tile: each has a pointer, and there are not many registers for them."""
    return 8 if vector_bytes == 64 else 6


def terms_along(vector_bytes: int) -> int:
    """Terms of a tile along rows, each of 64 bytes: those of 3 x 3, if there are the registers."""
    return max(9 * vector_bytes // 64, 2)


class _WeightGradient(Windows):
    """Writes one kernel."""

    def __init__(self, form: Form):
        self.form = form
        k = self.k = L.Builder(form.name)
        self.sum = tiles.accumulator(form.dtype)
        shape = tiles.shape_for(form.vector_bytes, self.sum)
        self.terms_high = terms_high(form.vector_bytes)
        self.shape = shape._replace(vectors=form.vectors)
        self.x, self.g = k.buffer("x", form.dtype), k.buffer("g", form.dtype)
        self.w = k.buffer("w", form.dtype, "w")
        self.size = {name: k.size(name) for name in (*SIZES, *CUTS)}
        self._scratch()

    def _scratch(self):
        k, size, width = self.k, self.size, self.shape.width
        self.window_scratch(size["groups"] * size["c"], 0, shared=True)
        k0, k1, k2 = self.three("kernel")
        self.count = size["c"] * k0 * k1 * k2
        self.padded = tiles.round_up(self.count, self.terms_high)
        self.panels = L.idiv_ceil(size["o"], width)
        # Packing a row may write some lanes behind it.
        pixels = size["image_cut"] * size["row_cut"] * size["column_cut"] + self.shape.lanes
        self.panel = pixels * width
        all_panels = size["groups"] * self.panels
        self.packed = k.scratch("packed", self.sum, all_panels * self.panel)
        self.pixels = k.scratch("pixels", L.int64, pixels)
        self.sums = k.scratch("sums", self.sum, all_panels * self.padded * width)

    def kernel(self) -> L.Kernel:
        k, size, width = self.k, self.size, self.shape.width
        for name in ("count", "padded", "panels", "panel"):
            setattr(self, name, k.let(getattr(self, name), name))
        self.fill_offsets()
        all_panels = k.let(size["groups"] * self.panels, "all_panels")
        with k.if_((size["n"] * size["out0"] * size["out1"] * size["out2"]).eq(0)):
            with k.vector(0, all_panels * self.padded * width) as i:
                k.store(self.sums, i, L.Const(0, self.sum))
        self._blocks(all_panels)
        with k.parallel(0, all_panels) as p:
            self._write(p)
        return k.kernel()

    def _blocks(self, all_panels):
        k, size = self.k, self.size
        out0, out1, out2 = self.three("out")
        channels = k.let(size["groups"] * size["c"], "channels")
        parts = k.let(L.idiv_ceil(self.count, size["share"]), "parts")
        with k.serial(0, size["n"], size["image_cut"]) as n, k.serial(0, out0) as q0:
            images = k.let(L.minimum(size["n"] - n, size["image_cut"]), "images")
            with k.serial(0, out1, size["row_cut"]) as q1:
                with k.serial(0, out2, size["column_cut"]) as q2:
                    high = k.let(L.minimum(out1 - q1, size["row_cut"]), "high")
                    wide = k.let(L.minimum(out2 - q2, size["column_cut"]), "wide")
                    copies = k.let(images * channels, "copies")
                    items = all_panels + L.idiv_ceil(copies, self.shape.width)
                    with k.parallel(0, items) as number:
                        place, extent = (n, q0, q1, q2), (images, high, wide)
                        self._prepare(number, all_panels, copies, place, extent)
                    count = k.let(images * high * wide, "pixels")
                    started = k.let((n + q0 + q1 + q2).ne(0), "started")
                    with k.parallel(0, all_panels * parts) as number:
                        p = k.let(number // parts, "p")
                        first = k.let((number % parts) * size["share"], "first")
                        last = k.let(L.minimum(first + size["share"], self.count), "last")
                        with k.serial(first, last, self.terms_high) as term:
                            self._tile(p, term, count, started)

    def _prepare(self, number, all_panels, copies, place, extent):
        """An item of what is done for a block before the sums: g is packed for a panel of channels
        or, which takes as long, x copied of as many."""
        k, (n, *q), (images, _, _) = self.k, place, extent
        with k.if_(number < all_panels):
            with k.serial(0, images) as i:
                self._pack(number, i, n + i, *q, *extent[1:])
        with k.else_():
            first = k.let((number - all_panels) * self.shape.width, "first")
            last = k.let(L.minimum(first + self.shape.width, copies), "last")
            with k.serial(first, last) as rest:
                i, c = k.let(rest % images, "i"), k.let(rest // images, "c")
                self.copy_channel(k.let(i * self.image + c * self.channel, "at"), n + i, c, *q)
        with k.if_(number.eq(0)):
            self._fill_pixels(*extent)

    def _pack(self, p, i, n, q0, q1, q2, high, wide):
        """g's values of an image of a block, [pixel, output channel]."""
        k, size, width = self.k, self.size, self.shape.width
        group = k.let(p // self.panels, "group")
        o0 = k.let((p % self.panels) * width, "o")
        with k.serial(0, high) as r:
            base = n * size["g_n"] + group * size["o"] * size["g_c"]
            base = base + q0 * size["g_0"] + (q1 + r) * size["g_1"]
            unit = "k" if self.form.g_unit else None
            source = Source(self.g, k.let(base, "base"), size["g_c"], size["g_2"], size["o"], unit)
            to = p * self.panel + (i * high + r) * wide * width
            tiles.pack(k, source, self.packed, to, o0, q2, wide, width, self.shape)

    def _fill_pixels(self, images, high, wide):
        """Where the input of a term lies for each pixel of a block, from that of the first on."""
        k, step = self.k, self.size["stride1"] * self.row
        with k.serial(0, images) as i, k.serial(0, high) as r, k.serial(0, wide) as j:
            k.store(self.pixels, (i * high + r) * wide + j, i * self.image + r * step + j)

    def _tile(self, p, term, count, started):
        """Some terms by a panel of channels, summed over the block's pixels."""
        k, width = self.k, self.shape.width
        group = k.let((p // self.panels) * self.size["c"] * self.channel, "group")
        starts = self._starts(term, group)
        acc = k.local(self.sum, 0, (self.terms_high, width), name="acc")
        values = k.let(p * self.panel, "values")
        tiles.multiply(
            k, acc, count,
            lambda i, pixel: self.piece[starts[i] + self.pixels[pixel]],
            lambda pixel, lane: self.packed[values + pixel * width + lane],
        )  # fmt: skip
        tiles.add_to(k, acc, self.sums, (p * self.padded + term) * width, started)

    def _starts(self, term, base):
        """Where the inputs of a tile's terms begin."""
        starts = []
        for i in range(self.terms_high):
            # Terms behind the last repeat it; their sums are not written out.
            at = L.minimum(term + i, self.count - 1) if i else term
            starts.append(self.k.let(base + self.offsets[at], "start"))
        return starts

    def _write(self, p):
        k, size, width = self.k, self.size, self.shape.width
        o0 = k.let((p % self.panels) * width, "o")
        base = k.let(((p // self.panels) * size["o"] + o0) * size["w_out"], "base")
        lanes, last = self.shape.lanes, self.count - 1
        with k.serial(0, L.minimum(size["o"] - o0, width), lanes) as o:
            with k.serial(0, self.count, lanes) as term:
                tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
                for i in range(lanes):
                    row = k.let((p * self.padded + L.minimum(term + i, last)) * width + o, "row")
                    with k.vector(0, lanes) as j:
                        k.assign(tile, i, j, self.sums[row + j])
                k.transpose(tile)
                for i in range(lanes):
                    to = k.let(base + (o + i) * size["w_out"] + term, "to")
                    with k.vector(0, lanes) as j:
                        here = (term + j <= last) & (o0 + o + i < size["o"])
                        k.store(self.w, to + j, L.cast(tile[i, j], self.form.dtype), here)


class _AlongRows(_WeightGradient):
    """Writes one kernel whose vectors run along the rows of g."""

    def _scratch(self):
        k, size = self.k, self.size
        self.lanes, self.terms_high = 64 // self.sum.itemsize, terms_along(self.form.vector_bytes)
        self.window_scratch(size["c"], 0, shared=False)
        k0, k1, k2 = self.three("kernel")
        self.count = size["c"] * k0 * k1 * k2
        self.padded = tiles.round_up(self.count, self.terms_high)
        sums = size["share"] * self.padded * self.lanes
        self.sums = k.scratch("sums", self.sum, sums, per_thread=True)

    def kernel(self) -> L.Kernel:
        k, size = self.k, self.size
        self.count, self.padded = k.let(self.count, "count"), k.let(self.padded, "padded")
        self.fill_offsets()
        parts = k.let(L.idiv_ceil(size["o"], size["share"]), "parts")
        with k.parallel(0, size["groups"] * parts) as number:
            group, first = k.let(number // parts, "group"), (number % parts) * size["share"]
            count = k.let(L.minimum(size["o"] - first, size["share"]), "channels")
            first = k.let(group * size["o"] + first, "first")
            with k.vector(0, count * self.padded * self.lanes) as i:
                k.store(self.sums, i, L.Const(0, self.sum))
            self._blocks(group, first, count)
            with k.serial(0, count) as o, k.serial(0, self.count) as term:
                total = k.local(self.sum, 0, name="total")
                with k.vector(0, self.lanes) as lane:
                    at = (o * self.padded + term) * self.lanes + lane
                    k.reduce(total, "add", self.sums[at])
                value = L.cast(total.get(), self.form.dtype)
                k.store(self.w, (first + o) * size["w_out"] + term, value)
        return k.kernel()

    def _blocks(self, group, first, count):
        k, size = self.k, self.size
        out0, out1, out2 = self.three("out")
        with k.serial(0, size["n"]) as n, k.serial(0, out0) as q0:
            with k.serial(0, out1, size["row_cut"]) as q1:
                with k.serial(0, out2, size["column_cut"]) as q2:
                    high = k.let(L.minimum(out1 - q1, size["row_cut"]), "high")
                    wide = k.let(L.minimum(out2 - q2, size["column_cut"]), "wide")
                    self.copy_input(n, 1, group * size["c"], size["c"], q0, q1, q2)
                    with k.serial(0, count) as o:
                        g = n * size["g_n"] + (first + o) * size["g_c"] + q0 * size["g_0"]
                        step = 1 if self.form.g_unit else size["g_2"]
                        g = k.let(g + q1 * size["g_1"] + q2 * step, "g")
                        with k.serial(0, self.count, self.terms_high) as term:
                            self._tile(g, step, term, o * self.padded + term, high, wide)

    def _tile(self, g, step, term, to, high, wide):
        """Some terms of an output channel, added up over a block."""
        k, lanes, height = self.k, self.lanes, self.terms_high
        starts = self._starts(term, 0)
        acc = k.local(self.sum, 0, (height, lanes), name="acc")
        with k.serial(0, high) as r:
            row = k.let(r * self.size["stride1"] * self.row, "row")
            values = k.let(g + r * self.size["g_1"], "values")

            def add(j, masked):
                for i in range(height):
                    with k.vector(0, lanes) as lane:
                        here = j + lane < wide if masked else None
                        x = self.piece.load(starts[i] + row + j + lane, here)
                        value = L.cast(self.g.load(values + (j + lane) * step, here), self.sum)
                        k.assign(acc, i, lane, L.fma(value, x, acc[i, lane]))

            whole = k.let(wide // lanes * lanes, "whole")
            with k.serial(0, whole, lanes) as j:
                add(j, False)
            with k.if_(whole < wide):
                add(whole, True)
        for i in range(height):
            with k.vector(0, lanes) as lane:
                at = (to + i) * lanes + lane
                k.store(self.sums, at, self.sums[at] + acc[i, lane])


# Sizes and cuts ---------------------------------------------------------------------------------


def sizes_of(x, g, w, strides, **how) -> list:
    """Values of ``SIZES``, in a list of one as ``conv.forward`` has it; shapes may be of symbols.

    Args:
        x, g, w: shapes [n, c, *in], [n, o, *out], [o, c / groups, *kernel].
        strides: of x, g and w; w is contiguous.
        how: stride, padding, dilation, groups.
    """
    x_strides, g_strides, w_strides = strides
    more = {"g_n": g_strides[0], "g_c": g_strides[1], **numbered("g_", g_strides[2:], 0)}
    return [geometry(x, w, g, x_strides, **how) | more | {"w_out": w_strides[0]}]


def choose(d: dtype, sizes: dict, *, vector_bytes: int, threads: int = 1) -> Choice:
    """The form for these sizes, and how to cut the work.

    The cut of rows and columns says in which blocks sums are added, and depends on sizes alone.
    """
    shape = tiles.shape_for(vector_bytes, tiles.accumulator(d))
    vectors = 1 if sizes["o"] <= shape.lanes else 2
    along = _pays_along(sizes, 64 // tiles.accumulator(d).itemsize)
    vectors = 0 if along else vectors
    units = [sizes["x_2"] == 1 or sizes["in2"] == 1, sizes["g_2"] == 1 or sizes["out2"] == 1]
    step = sizes["stride2"] if sizes["stride2"] in (1, 2) else 0
    form = Form(d, *units, step, vectors, vector_bytes)
    if along:
        cuts = dict(zip(CUTS, (*_block_along(sizes), 1, _channels_along(sizes, threads))))
        return Choice(form, cuts)
    panels = sizes["groups"] * -(-sizes["o"] // (vectors * shape.lanes))
    wanted = 1 if threads == 1 else 3 * threads
    terms = max(sizes["c"] * sizes["kernel0"] * sizes["kernel1"] * sizes["kernel2"], 1)
    # Where there is little to do with a pixel, threads meet less often.
    few = min(1 << 13, (1 << 21) // (terms * sizes["o"] * sizes["groups"] or 1))
    near = _BLOCK // max((sizes["c"] + sizes["o"]) * sizes["groups"], 1)
    pixels = max(_PIXELS[0], min(_PIXELS[1], near), few)
    high = terms_high(vector_bytes)
    each = -(-terms // -(-wanted // max(panels, 1)))
    cuts = *piece_of(sizes, 1, pixels), -(-each // high) * high
    return Choice(form, dict(zip(CUTS, cuts)))


def _pays_along(sizes, lanes) -> bool:
    """Whether vectors run along rows: by instructions for a row of a group. It decides about bits:
    nothing of the machine here."""
    terms = sizes["c"] * sizes["kernel0"] * sizes["kernel1"] * sizes["kernel2"]
    wide, channels = sizes["out2"], sizes["o"]
    along = channels * -(-wide // lanes) * (terms + -(-terms // 9))
    # Packing g is worth a multiplication with each of its elements.
    vectors = -(-channels // lanes) if channels <= lanes else 2 * -(-channels // (2 * lanes))
    return terms <= _FEW and along < wide * (vectors * -(-terms // 8) * 8 + channels)


def _block_along(sizes) -> tuple:
    """Rows and columns of a block along rows."""
    across = max(sizes["c"] * sizes["kernel0"], 1)
    columns = even(max(sizes["out2"], 1), max(_NEAR // (across * sizes["stride2"]), 64))
    row = across * columns * sizes["stride2"] * sizes["stride1"]
    return even(max(sizes["out1"], 1), max(_NEAR // row, 1)), columns


def _channels_along(sizes, threads) -> int:
    """Output channels of a group that a thread takes at a time."""
    parts = -(-(1 if threads == 1 else 3 * threads) // max(sizes["groups"], 1))
    return -(-sizes["o"] // max(min(parts, sizes["o"]), 1))
