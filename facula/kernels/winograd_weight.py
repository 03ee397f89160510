"""The gradient of a convolution with respect to its weight, by Winograd's algorithm.

The taps' gradients are a correlation too, of the input with the output's gradient, whose tiles of
``m x m`` places are its taps: with the same points as ``winograd``, 36 or 25 products stand for
the 144 or 81 of a tile. At each point they are summed over the tiles, a matrix product of input
channels by output channels, in register tiles: for each piece of some tiles a chain of fused
multiply-adds in their order, from zero; the pieces' sums are added in order. Pieces depend on
sizes alone. Sums are transformed back once, at the end.

Threads take blocks of channels, input by output, and transform what they need of both images.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from facula.base.dtypes import dtype
from facula.ir import loops as L
from facula.kernels import tiles, winograd
from facula.kernels.conv import Choice
from facula.kernels.conv_weight import SIZES
from facula.kernels.toom import from_points, in_two, to_points, toom
from facula.kernels.windows import even, piece_of
from facula.kernels.winograd import NEAR, Side, Tiled

#: Tile rows, tile columns and images of a piece; input channels and panels of
#: output channels of a block.
CUTS = ("row_cut", "column_cut", "image_cut", "channel_cut", "panel_cut")
#: Sums of a block at a point: those at all points stay in the second-level cache.
_BLOCK = 8192
#: Places of the output, all images', for which it pays to transform the sums back.
_LEAST = 64


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of x, g and w.
        m, r: rows and columns of a tile of g, and of the taps.
        x_unit, g_unit: whether the last stride of x and of g is 1.
        vector_bytes: 16, 32 or 64.
    """

    dtype: dtype
    m: int
    r: int
    x_unit: bool
    g_unit: bool
    vector_bytes: int

    @property
    def name(self) -> str:
        flags = "x" * self.x_unit + "g" * self.g_unit
        return f"winograd_weight{self.m}{self.r}_{self.dtype.name}_{flags}"


def build(form: Form) -> L.Kernel:
    """The kernel: parameters x, g, w (written), ``conv_weight.SIZES``, ``CUTS``, scratch."""
    return _WeightGradient(form).kernel()


class _WeightGradient(Tiled):
    """Writes one kernel."""

    def __init__(self, form: Form):
        self.form = form
        k = self.k = L.Builder(form.name)
        self.sum = tiles.accumulator(form.dtype)
        self.shape = tiles.shape_for(form.vector_bytes, self.sum)
        self.m, self.r, self.n = form.m, form.r, form.m + form.r - 1
        x, g = k.buffer("x", form.dtype), k.buffer("g", form.dtype)
        self.w = k.buffer("w", form.dtype, "w")
        size = self.size = {name: k.size(name) for name in (*SIZES, *CUTS)}
        self.cut(form.r - 1)
        self.rows = tiles.round_up(size["channel_cut"], NEAR)
        self.sums_step = self.rows * size["panel_cut"] * self.shape.width + self.shape.lanes
        self.sums = k.scratch("sums", self.sum, self.n**2 * self.sums_step, per_thread=True)
        data, self.x_step = self.data_of("data", size["channel_cut"])
        others, self.g_step = self.data_of("others", size["panel_cut"] * self.shape.width)
        self.name_all(*"down across pieces count pitch rows sums_step x_step g_step".split())
        t = toom(form.r, form.m)
        padding, inside = (tuple(size[f"{name}{i}"] for i in (1, 2)) for name in ("padding", "in"))
        self.input = Side(
            x, "x", form.x_unit, size["c"], form.r - 1, padding, inside,
            partial(to_points, k, t.data, t.pairs), data, self.x_step,
        )  # fmt: skip
        self.output = Side(
            g, "g", form.g_unit, size["o"], 0, (0, 0), (size["out1"], size["out2"]),
            partial(to_points, k, t.taps, t.pairs), others, self.g_step,
        )  # fmt: skip
        self._from_sums = partial(from_points, k, t.out, t.pairs)

    def kernel(self) -> L.Kernel:
        k, size, width = self.k, self.size, self.shape.width
        blocks = k.let(L.idiv_ceil(size["c"], size["channel_cut"]), "blocks")
        panels = k.let(L.idiv_ceil(size["o"], size["panel_cut"] * width), "panels")
        with k.parallel(0, size["groups"] * blocks * panels) as number:
            rest = k.let(number // blocks, "rest")
            group = k.let(rest // panels, "group")
            c0 = k.let((number % blocks) * size["channel_cut"], "c")
            o0 = k.let((rest % panels) * size["panel_cut"] * width, "o")
            c1 = k.let(L.minimum(c0 + size["channel_cut"], size["c"]), "c_end")
            o1 = k.let(L.minimum(o0 + size["panel_cut"] * width, size["o"]), "o_end")
            with k.serial(0, self.pieces) as number:
                piece = self.piece(number)
                self.to_points(self.input, piece, group, c0, c1)
                self.to_points(self.output, piece, group, o0, o1)
                with k.serial(0, self.n**2) as point, k.serial(0, o1 - o0, width) as o:
                    with k.serial(0, c1 - c0, NEAR) as near:
                        some = k.let(L.minimum(c1 - c0 - near, NEAR), "some")
                        with k.serial(0, some, self.shape.height) as c:
                            tile = partial(self._sum_tile, piece, number, point, near, c, o)
                            tiles.by_height(k, k.let(some - c), self.shape.heights, tile)
            self._transform_back(group, c0, c1, o0, o1)
        return k.kernel()

    def _sum_tile(self, piece, number, point, near, c, o, height):
        k, width = self.k, self.shape.width
        acc = k.local(self.sum, 0, (height, width), name="acc")
        x = k.let(point * self.x_step + near * self.count + c, "x")
        g = k.let(point * self.g_step + (o // NEAR) * self.count * NEAR + o % NEAR, "g")
        tiles.multiply(
            k, acc, k.let(piece.images * piece.rows * piece.columns, "total"),
            lambda i, kk: self.input.data[x + kk * NEAR + i],
            lambda kk, lane: self.output.data[g + kk * NEAR + lane],
        )  # fmt: skip
        to = k.let(point * self.sums_step + o * self.rows + (near + c) * width, "to")
        tiles.add_to(k, acc, self.sums, to, number.ne(0))

    def _transform_back(self, group, c0, c1, o0, o1):
        """The sums of a block to the weights' gradients."""
        k, width, lanes, n = self.k, self.shape.width, self.shape.lanes, self.n
        taps, by_o = self.r**2, self.size["w_out"]
        base = k.let((group * self.size["o"] + o0) * by_o + c0 * taps, "base")
        with k.serial(0, o1 - o0, lanes) as o, k.serial(0, c1 - c0) as c:
            start = (o // width) * width * self.rows + c * width + o % width
            found = k.local(self.sum, 0, (taps, lanes), name="found")
            with k.vector(0, lanes) as j:
                values = [
                    [k.let(self.sums[start + (a * n + b) * self.sums_step + j]) for b in range(n)]
                    for a in range(n)
                ]
                for t, value in enumerate(sum(in_two(self._from_sums, values), [])):
                    k.assign(found, t, j, value)
            for first in range(0, taps, lanes):
                tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
                for t in range(min(lanes, taps - first)):
                    with k.vector(0, lanes) as j:
                        k.assign(tile, t, j, found[first + t, j])
                k.transpose(tile)
                for i in range(lanes):
                    to = k.let(base + (o + i) * by_o + c * taps + first, "to")
                    with k.vector(0, lanes) as j:
                        here = (j < min(lanes, taps - first)) & (o + i < o1 - o0)
                        k.store(self.w, to + j, L.cast(tile[i, j], self.form.dtype), here)


def suits(d: dtype, sizes: dict) -> bool:
    """Whether a gradient of these sizes (numbers, by the names of ``SIZES``) is computed so.

    With few channels there would be too few blocks of them for the threads.
    """
    big = sizes["c"] * sizes["o"] >= 2048 and sizes["n"] * sizes["out1"] * sizes["out2"] >= _LEAST
    return big and winograd.suits(d, sizes)


def choose(d: dtype, sizes: dict, *, vector_bytes: int, threads: int = 1) -> Choice:
    """The form for a gradient that :func:`suits`, and how to cut it."""
    m, width = winograd.tile_of(sizes), tiles.shape_for(vector_bytes, tiles.accumulator(d)).width
    pieces = piece_of(sizes, m, winograd.MOST)
    panels = -(-sizes["o"] // width)
    # All input channels and few panels, that fewer tiles are transformed more than once; but
    # something to do for every thread.
    channels = even(sizes["c"], max(NEAR, _BLOCK // width))
    each = max(1, min(_BLOCK // (channels * width), -(-panels // threads)))
    blocks = sizes["groups"] * -(-panels // each) * -(-sizes["c"] // channels)
    channels = max(winograd.LEAST, even(channels, -(-channels * blocks // threads)))
    form = Form(d, m, sizes["kernel1"], sizes["x_2"] == 1, sizes["g_2"] == 1, vector_bytes)
    return Choice(form, dict(zip(CUTS, (*pieces, channels, even(panels, each)))))
