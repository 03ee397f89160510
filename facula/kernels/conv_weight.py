"""The gradient of a convolution with respect to its weight.

``w[o, c, t] = sum over n, q of g[n, o, q] * x[n, c, q * stride + t * dilation - padding]``: terms
(an input channel and a place in the kernel) by output channels, summed over all pixels. Threads
share the output channels and the input channels; each goes over images and blocks of rows in
order. Within a block the sum is a chain of fused multiply-adds in the order of the pixels, and the
blocks' sums are added in order. Blocks depend on sizes alone, so nothing depends on the threads.

For each block a thread packs g with output channels side by side, copies x with its padding
(``windows``), and sums tiles of some terms by some vectors of channels over the pixels: each
term's input is one pointer that walks along the rows.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.tiles import Source
from facula.kernels.windows import Windows, numbered

#: Size parameters, as those of ``conv.SIZES``; strides of x, g and w. w is contiguous in (c, t).
SIZES = (
    *("n", "groups", "c", "o"),
    *(f"{name}{d}" for name in ("in", "kernel", "out") for d in range(3)),
    *(f"{name}{d}" for name in ("stride", "padding", "dilation") for d in range(3)),
    *("x_n", "x_c", "x_0", "x_1", "x_2"),
    *("g_n", "g_c", "g_0", "g_1", "g_2"),
    "w_out",
)
CUTS = ("row_cut", "column_cut", "image_cut", "channel_cut")
#: Pixels of a block, about, and elements of its input: both stay in the second-level cache.
_PIXELS, _PIECE = 1024, 1 << 17


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of x, g and w.
        x_unit, g_unit: whether the last stride of x and of g is 1.
        strided: whether the last stride of the convolution may be other than 1.
        vectors: of output channels in a tile, 1 or 2.
        vector_bytes: 16, 32 or 64.
    """

    dtype: dtype
    x_unit: bool
    g_unit: bool
    strided: bool
    vectors: int
    vector_bytes: int

    @property
    def name(self) -> str:
        flags = "".join(c for c, on in zip("xgs", self[1:4]) if on)
        return f"conv_weight{self.vectors}_{self.dtype.name}_{flags or 'n'}"


def build(form: Form) -> L.Kernel:
    """The kernel: parameters x, g, w (written), those of ``SIZES`` and ``CUTS``, scratch."""
    return _WeightGradient(form).kernel()


class _WeightGradient(Windows):
    """Writes one kernel."""

    def __init__(self, form: Form):
        self.form = form
        k = self.k = L.Builder(form.name)
        self.sum = tiles.accumulator(form.dtype)
        shape = tiles.shape_for(form.vector_bytes, self.sum)
        # A tile has a pointer for each of its terms, and there are not many registers for them.
        self.terms_high = 8 if form.vector_bytes == 64 else 6
        self.shape = shape._replace(vectors=form.vectors)
        self.x, self.g = k.buffer("x", form.dtype), k.buffer("g", form.dtype)
        self.w = k.buffer("w", form.dtype, "w")
        self.size = {name: k.size(name) for name in (*SIZES, *CUTS)}
        self._scratch()

    def _scratch(self):
        k, size, width = self.k, self.size, self.shape.width
        channels = size["channel_cut"]
        self.window_scratch(channels, 0)
        k0, k1, k2 = self.three("kernel")
        self.taps = k0 * k1 * k2
        pixels = size["image_cut"] * size["row_cut"] * size["column_cut"] + self.shape.lanes
        self.packed = k.scratch("packed", self.sum, pixels * width, per_thread=True)
        terms = tiles.round_up(channels * self.taps, self.terms_high)
        self.sums = k.scratch("sums", self.sum, terms * width, per_thread=True)

    def kernel(self) -> L.Kernel:
        k, size, width = self.k, self.size, self.shape.width
        self.taps = k.let(self.taps, "taps")
        self.fill_offsets(size["channel_cut"])
        panels = k.let(L.idiv_ceil(size["o"], width), "panels")
        blocks = k.let(L.idiv_ceil(size["c"], size["channel_cut"]), "blocks")
        with k.parallel(0, size["groups"] * panels * blocks) as number:
            c0 = k.let((number % blocks) * size["channel_cut"], "c")
            rest = k.let(number // blocks, "rest")
            o0 = k.let((rest % panels) * width, "o")
            group = k.let(rest // panels, "group")
            channels = k.let(L.minimum(size["c"] - c0, size["channel_cut"]), "channels")
            count = k.let(channels * self.taps, "count")
            with k.vector(0, tiles.round_up(count, self.terms_high) * width) as i:
                k.store(self.sums, i, L.Const(0, self.sum))
            self._images(group, c0, channels, o0, count)
            self._write(group, c0, o0, count)
        return k.kernel()

    def _images(self, group, c0, channels, o0, count):
        k, size = self.k, self.size
        out0, out1, out2 = self.three("out")
        with k.serial(0, size["n"], size["image_cut"]) as n, k.serial(0, out0) as q0:
            images = k.let(L.minimum(size["n"] - n, size["image_cut"]), "images")
            with k.serial(0, out1, size["row_cut"]) as q1:
                with k.serial(0, out2, size["column_cut"]) as q2:
                    high = k.let(L.minimum(out1 - q1, size["row_cut"]), "high")
                    wide = k.let(L.minimum(out2 - q2, size["column_cut"]), "wide")
                    with k.serial(0, images) as i:
                        at = k.let(i * high, "at")
                        self._pack(at, n + i, group, o0, q0, q1, q2, high, wide)
                    self.copy_input(n, images, group * size["c"] + c0, channels, q0, q1, q2)
                    with k.serial(0, count, self.terms_high) as term:
                        self._tile(term, count, images, high, wide)

    def _pack(self, at, n, group, o0, q0, q1, q2, high, wide):
        """g's values of an image's part of a block, [pixel, output channel], from row ``at`` on."""
        k, size, width = self.k, self.size, self.shape.width
        with k.serial(0, high) as r:
            base = n * size["g_n"] + group * size["o"] * size["g_c"]
            base = base + q0 * size["g_0"] + (q1 + r) * size["g_1"]
            unit = "k" if self.form.g_unit else None
            source = Source(self.g, k.let(base, "base"), size["g_c"], size["g_2"], size["o"], unit)
            to = (at + r) * wide * width
            tiles.pack(k, source, self.packed, to, o0, q2, wide, width, self.shape)

    def _tile(self, term, count, images, high, wide):
        """Some terms by a panel of channels, summed over the block's pixels."""
        k, width = self.k, self.shape.width
        starts = []
        for i in range(self.terms_high):
            # Terms behind the last repeat it; their sums are not written out.
            at = L.minimum(term + i, count - 1) if i else term
            starts.append(k.let(self.offsets[at], "start"))
        acc = k.local(self.sum, 0, (self.terms_high, width), name="acc")
        step = self.size["stride1"] * self.row
        with k.serial(0, images) as image, k.serial(0, high) as r:
            row = k.let(image * self.image + r * step, "row")
            values = k.let((image * high + r) * wide * width, "values")
            tiles.multiply(
                k, acc, wide,
                lambda i, j: self.piece[starts[i] + row + j],
                lambda j, lane: self.packed[values + j * width + lane],
            )  # fmt: skip
        for i in range(self.terms_high):
            with k.vector(0, width) as lane:
                at = (term + i) * width + lane
                k.store(self.sums, at, self.sums[at] + acc[i, lane])

    def _write(self, group, c0, o0, count):
        k, size, width = self.k, self.size, self.shape.width
        base = k.let((group * size["o"] + o0) * size["w_out"] + c0 * self.taps, "base")
        with k.serial(0, L.minimum(size["o"] - o0, width)) as o:
            with k.vector(0, count) as term:
                value = L.cast(self.sums[term * width + o], self.form.dtype)
                k.store(self.w, base + o * size["w_out"] + term, value)


# Sizes and cuts ---------------------------------------------------------------------------------


def sizes_of(x, g, w, strides, *, stride, padding, dilation, groups) -> list:
    """Values of ``SIZES``, in a list of one as ``conv.forward`` has it; shapes may be of symbols.

    Args:
        x, g, w: shapes [n, c, *in], [n, o, *out], [o, c / groups, *kernel].
        strides: of x, g and w; w is contiguous.
    """
    x_strides, g_strides, w_strides = strides
    sizes = {
        "n": x[0], "groups": groups, "c": w[1], "o": g[1] // groups,
        **numbered("in", x[2:], 1), **numbered("kernel", w[2:], 1),
        **numbered("out", g[2:], 1), **numbered("stride", stride, 1),
        **numbered("padding", padding, 0), **numbered("dilation", dilation, 1),
        "x_n": x_strides[0], "x_c": x_strides[1], **numbered("x_", x_strides[2:], 0),
        "g_n": g_strides[0], "g_c": g_strides[1], **numbered("g_", g_strides[2:], 0),
        "w_out": w_strides[0],
    }  # fmt: skip
    return [sizes]


class Choice(NamedTuple):
    """A form, and values for the size parameters that say how the work is cut."""

    form: Form
    row_cut: int
    column_cut: int
    image_cut: int
    channel_cut: int


def choose(d: dtype, sizes: dict, *, vector_bytes: int, threads: int = 1) -> Choice:
    """The form for these sizes, and how to cut the work.

    The cut of rows and columns says in which blocks sums are added, and depends on sizes alone.
    """
    shape = tiles.shape_for(vector_bytes, tiles.accumulator(d))
    vectors = 1 if sizes["o"] <= shape.lanes else 2
    units = [sizes["x_2"] == 1 or sizes["in2"] == 1, sizes["g_2"] == 1 or sizes["out2"] == 1]
    form = Form(d, *units, sizes["stride2"] != 1, vectors, vector_bytes)
    out1, out2 = max(sizes["out1"], 1), max(sizes["out2"], 1)
    columns = min(out2, _PIXELS)
    rows = min(out1, max(1, _PIXELS // columns))
    rows = -(-out1 // -(-out1 // rows))
    height = (rows - 1) * sizes["stride1"] + (sizes["kernel1"] - 1) * sizes["dilation1"] + 1
    across = (columns - 1) * sizes["stride2"] + (sizes["kernel2"] - 1) * sizes["dilation2"] + 1
    images = 1
    if rows == out1 and columns == out2:
        images = max(1, min(sizes["n"], _PIXELS // (rows * columns)))
    c = max(sizes["c"], 1)
    channels = min(c, max(1, _PIECE // (images * sizes["kernel0"] * height * across)))
    panels = sizes["groups"] * -(-sizes["o"] // (vectors * shape.lanes))
    wanted = 1 if threads == 1 else 2 * threads
    blocks = max(-(-c // channels), min(c, -(-wanted // max(panels, 1))))
    return Choice(form, rows, columns, images, -(-c // blocks))
