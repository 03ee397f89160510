"""Convolutions of r x r taps, 3 or 2, by Winograd's algorithm: far fewer multiplications.

The output is cut into tiles of ``m x m`` places, the input accordingly into overlapping ones of
``n x n``, n = m + r - 1. With the matrices of ``toom``, a tile's sums over taps become ``n * n``
products of single numbers: of 3 x 3 taps 36 for 16 results or 25 for 9, instead of 9 for each; of
2 x 2 (the gradient of a 4 x 4 with stride 2 consists of such) 25 for 16, instead of 4 for each. And
what is summed over channels is a matrix product, tiles by output channels, one for each of the
``n * n`` *points*:

1. Input: copied with channels side by side, with its padding; tiles are transformed, many channels
   at once, to ``data[point, channel block, tile, channel]``.
2. Weights, likewise, to panels of output channels ``taps[point, channel, output channel]``.
3. Products, in register tiles as in ``matmul``: for each ``CHANNELS`` channels a chain of fused
   multiply-adds in their order, from zero; these are added in order.
4. Sums are transformed back, turned to have columns side by side, and stored.

Threads take pieces of the output: some tiles, some panels of output channels. They share nothing,
though tiles or weights are so transformed more than once: it costs less than to fetch them from
another core. No cut changes a bit, nor does the batch: m depends on the size of an image alone.

Products take 0.25 (m = 4) or 0.31 of the time of a direct convolution at the machine's limit; all
of it was measured to take 0.38 to 0.45 (64 to 128 channels, images of 12 to 56). How exact it is:
docs/design/decisions.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from facula.base.dtypes import dtype, float64
from facula.ir import loops as L
from facula.kernels import tiles
from facula.kernels.conv import SIZES, Choice
from facula.kernels.toom import from_points, in_two, to_points, toom
from facula.kernels.windows import piece_of

#: Tile rows, tile columns and images of a piece; panels of output channels that a thread takes at
#: a time.
CUTS = ("row_cut", "column_cut", "image_cut", "panel_cut")
#: Input channels that lie side by side.
NEAR = 64
#: Sums are chains over so many channels: part of the result's meaning.
CHANNELS = 128
#: Tiles of a piece, about: transformed, those of 128 channels fill half of a second-level cache.
MOST = 64
#: Fewer channels, of input or of output, do not pay for the transformations.
LEAST = 16


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of x, w and y.
        m, r: rows and columns of a tile of the output, and of the taps.
        x_unit, y_unit: whether the last stride of x and of y is 1.
        taps: how the weights of two channels lie: 1 in order, -1 in reverse order, 0 elsewhere.
        vector_bytes: 16, 32 or 64.
    """

    dtype: dtype
    m: int
    r: int
    x_unit: bool
    y_unit: bool
    taps: int
    vector_bytes: int

    @property
    def name(self) -> str:
        flags = "x" * self.x_unit + "y" * self.y_unit + "nfr"[self.taps]
        return f"winograd{self.m}{self.r}_{self.dtype.name}_{flags}"


class Piece(NamedTuple):
    """A piece of the output: its first image, tile row and column, and how many."""

    n: L.Expr
    r: L.Expr
    x: L.Expr
    images: L.Expr
    rows: L.Expr
    columns: L.Expr


def build(form: Form, epilogue=None, out: dtype | None = None, name: str = "") -> L.Kernel:
    """As ``conv.build``: parameters x, w, y, ``conv.SIZES``, ``CUTS``, the epilogue's, scratch."""
    return _Winograd(form, epilogue, out or form.dtype, name).kernel()


class Side(NamedTuple):
    """Images that are cut into tiles, and where the tiles' values at the points go.

    Attributes:
        source, name: the images, and what the names of their strides begin with.
        unit: whether their last stride is 1.
        channels: of a group.
        overlap: rows and columns that neighbouring tiles share.
        padding, limit: rows and columns before the images, and of them.
        transform: a list of values to a list of values at the points.
        data, step: where to, and how far it is from point to point.
    """

    source: L.Buffer
    name: str
    unit: bool
    channels: L.Expr
    overlap: int
    padding: tuple
    limit: tuple
    transform: Callable
    data: L.Buffer
    step: L.Expr


class Tiled:
    """Writes what this kernel shares with that of the gradient in the weights.

    Attributes that users set: k, sum, shape, size as in ``Windows``; m, the tiles' distance.
    """

    def cut(self, overlap):
        """How the images are cut in pieces; scratch for the tiles of a piece."""
        size, m, lanes = self.size, self.m, self.shape.lanes
        self.down = L.idiv_ceil(L.idiv_ceil(size["out1"], m), size["row_cut"])
        self.across = L.idiv_ceil(L.idiv_ceil(size["out2"], m), size["column_cut"])
        self.pieces = L.idiv_ceil(size["n"], size["image_cut"]) * self.down * self.across
        count = size["image_cut"] * size["row_cut"] * size["column_cut"]
        self.count = tiles.round_up(count, self.shape.height)
        # The last column's tile may be read behind its end.
        self.pitch = tiles.round_up(size["column_cut"] * m + overlap, lanes)
        turned = (size["row_cut"] * m + overlap) * self.pitch * lanes
        self.turned = self.k.scratch("turned", self.sum, turned, per_thread=True)

    def data_of(self, name, channels):
        """Scratch for a side's values at the points, and the step from point to point.

        It is not a multiple of the caches' size, or they would not hold all points.
        """
        step = L.idiv_ceil(channels, NEAR) * NEAR * self.count + self.shape.lanes
        return self.k.scratch(name, self.sum, self.n * self.n * step, per_thread=True), step

    def name_all(self, *names):
        """What comes up again and again is computed once."""
        for name in names:
            setattr(self, name, self.k.let(getattr(self, name), name))

    def piece(self, number) -> Piece:
        k, size, m = self.k, self.size, self.m
        rest = k.let(number // self.across, "rest")
        x = k.let((number % self.across) * size["column_cut"], "x")
        r = k.let((rest % self.down) * size["row_cut"], "r")
        n = k.let((rest // self.down) * size["image_cut"], "n")
        images = k.let(L.minimum(size["n"] - n, size["image_cut"]), "images")
        rows = k.let(L.minimum(L.idiv_ceil(size["out1"], m) - r, size["row_cut"]), "rows")
        across = L.idiv_ceil(size["out2"], m) - x
        columns = k.let(L.minimum(across, size["column_cut"]), "columns")
        return Piece(n, r, x, images, rows, columns)

    def to_points(self, side, piece, group, first, last):
        """Channels of a piece, to ``data[point, channel block, tile, channel]``."""
        with self.k.serial(first, last, self.shape.lanes) as c0:
            self._vector_to_points(side, piece, group, c0, c0 - first)

    def _vector_to_points(self, side, piece, group, c0, place):
        k, lanes, m, n = self.k, self.shape.lanes, self.m, self.m + side.overlap
        c0, place = k.let(c0, "c"), k.let(place, "place")
        block = k.let((place // NEAR) * self.count * NEAR + place % NEAR, "block")
        with k.serial(0, piece.images) as i:
            self._turn(side, piece, piece.n + i, group, c0)
            with k.serial(0, piece.rows) as r, k.serial(0, piece.columns) as x:
                to = block + ((i * piece.rows + r) * piece.columns + x) * NEAR
                base = (r * m * self.pitch + x * m) * lanes
                with k.vector(0, lanes) as j:
                    values = [
                        [
                            k.let(self.turned[base + (a * self.pitch + b) * lanes + j])
                            for b in range(n)
                        ]
                        for a in range(n)
                    ]
                    values = in_two(side.transform, values)
                    for point, value in enumerate(sum(values, [])):
                        k.store(side.data, to + point * side.step + j, value)

    def _turn(self, side, piece, image, group, c0):
        """What a piece needs of some channels of an image to ``turned[row, column, channel]``."""
        k, m, lanes = self.k, self.m, self.shape.lanes
        by_n, by_c, by_row, step = (self.size[f"{side.name}_{x}"] for x in "nc12")
        left = k.let(piece.x * m - side.padding[1], "left")
        high = k.let(piece.rows * m + side.overlap, "high")
        wide = k.let(piece.columns * m + side.overlap, "wide")
        plane = k.let(image * by_n + group * side.channels * by_c, "plane")
        with k.serial(0, high) as h, k.serial(0, wide, lanes) as column:
            tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
            row = k.let(piece.r * m - side.padding[0] + h, "row")
            with k.if_((row >= 0) & (row < side.limit[0])):
                for channel in range(lanes):
                    # Channels that do not exist repeat the last one; nobody reads them.
                    c = L.minimum(c0 + channel, side.channels - 1)
                    start = k.let(plane + c * by_c + row * by_row, "start")
                    with k.vector(0, lanes) as j:
                        place = left + column + j
                        index = start + (place if side.unit else place * step)
                        # Seen as unsigned, numbers below 0 are too large as well.
                        value = side.source.load(index, L.compare("ult", place, side.limit[1]))
                        k.assign(tile, channel, j, L.cast(value, self.sum))
                k.transpose(tile)
            for place in range(lanes):
                with k.vector(0, lanes) as j:
                    to = (h * self.pitch + column + place) * lanes
                    k.store(self.turned, to + j, tile[place, j])


class _Winograd(Tiled):
    """Writes one kernel."""

    def __init__(self, form: Form, epilogue, out: dtype, name: str):
        self.form = form
        k = self.k = L.Builder(f"{form.name}_{name}" if name else form.name)
        self.sum = tiles.accumulator(form.dtype)
        self.shape = tiles.shape_for(form.vector_bytes, self.sum)
        self.m, self.r, self.n = form.m, form.r, form.m + form.r - 1
        self.points = self.n * self.n
        t = toom(form.m, form.r)
        self._to_data = partial(to_points, k, t.data, t.pairs)
        self._to_taps = partial(to_points, k, t.taps, t.pairs)
        self._from_sums = partial(from_points, k, t.out, t.pairs)
        self.x, self.w = k.buffer("x", form.dtype), k.buffer("w", form.dtype)
        self.y = k.buffer("y", out, "w")
        self.size = {name: k.size(name) for name in (*SIZES, *CUTS)}
        self.epilogue = epilogue(k) if epilogue else None
        self._scratch()

    def _scratch(self):
        k, size, lanes = self.k, self.size, self.shape.lanes
        width, m = self.shape.width, self.m
        self.panels = L.idiv_ceil(size["o"], width)
        self.cut(self.r - 1)
        self.data, self.data_step = self.data_of("data", size["c"])
        self.taps_step = L.minimum(size["c"], CHANNELS) * width + lanes
        self.sums_step = self.count * width + lanes
        self.taps = k.scratch("taps", self.sum, self.points * self.taps_step, per_thread=True)
        self.sums = k.scratch("sums", self.sum, self.points * self.sums_step, per_thread=True)
        self.pixels = k.scratch("pixels", self.sum, m * self.pitch * lanes, per_thread=True)
        self.spill = k.scratch("spill", self.sum, self.pitch * lanes, per_thread=True)

    def kernel(self) -> L.Kernel:
        size = self.size
        self.name_all(
            *"panels down across pieces count pitch data_step taps_step sums_step".split()
        )
        padding, limit = (tuple(size[f"{name}{i}"] for i in (1, 2)) for name in ("padding", "in"))
        self.side = Side(
            self.x, "x", self.form.x_unit, size["c"], self.r - 1, padding, limit,
            self._to_data, self.data, self.data_step,
        )  # fmt: skip
        self._pieces()
        return self.k.kernel()

    def _pieces(self):
        k, size = self.k, self.size
        parts = k.let(L.idiv_ceil(self.panels, size["panel_cut"]), "parts")
        with k.parallel(0, self.pieces * size["groups"] * parts) as number:
            rest, first = number // parts, k.let((number % parts) * size["panel_cut"], "first")
            group = k.let(rest % size["groups"], "group")
            piece = self.piece(k.let(rest // size["groups"], "piece"))
            self.to_points(self.side, piece, group, L.Const(0, L.int64), size["c"])
            last = k.let(L.minimum(first + size["panel_cut"], self.panels), "last")
            with k.serial(first, last) as panel:
                with k.serial(0, size["c"], CHANNELS) as k0:
                    count = k.let(L.minimum(size["c"] - k0, CHANNELS), "count")
                    self._transform_weights(group, panel, k0, count)
                    with k.serial(0, self.points) as point:
                        self._product(piece, point, k0, count)
                self._transform_back(piece, group, panel)

    # To the points

    def _transform_weights(self, group, panel, k0, count):
        """The weights of ``count`` channels from k0 on of a panel, to ``taps``."""
        k, size, width, lanes = self.k, self.size, self.shape.width, self.shape.lanes
        r = self.r
        base = k.let(size["w_base"] + group * size["w_group"], "base")
        with k.serial(0, count) as kk:
            for first in range(0, width, lanes):
                o0 = k.let(panel * width + first, "o")
                tap = self._taps(k.let(base + (k0 + kk) * size["w_in"], "start"), o0)
                with k.vector(0, lanes) as j:
                    values = [[k.let(tap(r * a + b, j)) for b in range(r)] for a in range(r)]
                    values = in_two(self._to_taps, values)
                    to = kk * width + first + j
                    for point, value in enumerate(sum(values, [])):
                        k.store(self.taps, to + point * self.taps_step, value)

    def _taps(self, start, o0):
        """``tap(t, j)``: the weight of tap t for output channel o0 + j."""
        k, size, lanes, order = self.k, self.size, self.shape.lanes, self.form.taps
        last, count = size["o"] - 1, self.r * self.r
        if not order:

            def tap(t, j):
                place = (t // self.r) * size["w_1"] + (t % self.r) * size["w_2"]
                value = self.w.load(start + place + (o0 + j) * size["w_out"], o0 + j <= last)
                return L.cast(value, self.sum)

            return tap
        # The taps of each output channel lie side by side: square tiles of them are transposed.
        loaded = []
        for first in range(0, count, lanes):
            tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
            for r in range(lanes):
                row = start + L.minimum(o0 + r, last) * size["w_out"]
                row = k.let(row + (first if order > 0 else first - count + 1), "row")
                with k.vector(0, lanes) as j:
                    value = self.w.load(row + j, j < min(count - first, lanes))
                    k.assign(tile, r, j, L.cast(value, self.sum))
            k.transpose(tile)
            loaded.append(tile)

        def tap(t, j):
            t = t if order > 0 else count - 1 - t
            return loaded[t // lanes][t % lanes, j]

        return tap

    # Products

    def _product(self, piece, point, k0, count):
        """The sums at a point over ``count`` channels from k0 on, added to those before."""
        k = self.k
        data = k.let(point * self.data_step + k0 * self.count, "data")
        taps = k.let(point * self.taps_step, "taps")
        sums = k.let(point * self.sums_step, "sums")
        total = k.let(piece.images * piece.rows * piece.columns, "total")
        with k.serial(0, total, self.shape.height) as t:
            left = k.let(total - t, "left")
            places = data, taps, sums
            tiles.by_height(
                k, left, self.shape.heights, lambda h: self._sum_tile(places, t, k0, count, h)
            )

    def _sum_tile(self, places, t, k0, count, height):
        k, width, (data, taps, sums) = self.k, self.shape.width, places
        acc = k.local(self.sum, 0, (height, width), name="acc")
        to = k.let(sums + t * width, "to")
        with k.serial(0, count, NEAR) as near:
            some = k.let(L.minimum(count - near, NEAR), "some")
            base = k.let(data + near * self.count + t * NEAR, "base")
            panel = k.let(taps + near * width, "panel")
            tiles.multiply(
                k, acc, some,
                lambda i, kk: self.data[base + i * NEAR + kk],
                lambda kk, lane: self.taps[panel + kk * width + lane],
            )  # fmt: skip
        tiles.add_to(k, acc, self.sums, to, k0.ne(0))

    # Back

    def _transform_back(self, piece, group, panel):
        """The sums of a panel to the output."""
        k, size, m, n = self.k, self.size, self.m, self.n
        lanes, width = self.shape.lanes, self.shape.width
        with k.serial(0, width, lanes) as vector:
            o0 = k.let(panel * width + vector, "o")
            with k.serial(0, piece.images) as i, k.serial(0, piece.rows) as r:
                first = k.let((i * piece.rows + r) * piece.columns, "first")
                with k.serial(0, piece.columns) as x:
                    base = (first + x) * width + vector
                    with k.vector(0, lanes) as j:
                        values = [
                            [
                                k.let(self.sums[base + (a * n + b) * self.sums_step + j])
                                for b in range(n)
                            ]
                            for a in range(n)
                        ]
                        values = in_two(self._from_sums, values)
                        for a in range(m):
                            for b in range(m):
                                to = (a * self.pitch + x * m + b) * lanes + j
                                k.store(self.pixels, to, values[a][b])
                q1 = k.let((piece.r + r) * m, "row")
                with k.serial(0, L.minimum(size["out1"] - q1, m)) as a:
                    self._store_row(a, piece, piece.n + i, group, o0, q1 + a)

    def _store_row(self, a, piece, n, group, o0, q1):
        """Row ``a`` of ``pixels``, of a vector of channels, to the output."""
        k, size, lanes = self.k, self.size, self.shape.lanes
        q2 = k.let(piece.x * self.m, "q")
        wide = k.let(L.minimum(size["out2"] - q2, piece.columns * self.m), "wide")
        with k.serial(0, wide, lanes) as column:
            tile = k.local(self.sum, 0, (lanes, lanes), name="tile")
            for place in range(lanes):
                at = (a * self.pitch + column + place) * lanes
                with k.vector(0, lanes) as j:
                    k.assign(tile, place, j, self.pixels[at + j])
            k.transpose(tile)
            for o in range(lanes):
                with k.vector(0, lanes) as j:
                    k.store(self.spill, o * self.pitch + column + j, tile[o, j])
        step = 1 if self.form.y_unit else size["y_2"]
        with k.serial(0, L.minimum(size["o"] - o0, lanes)) as i:
            o = k.let(group * size["o"] + o0 + i, "channel")
            row = n * size["y_n"] + o * size["y_c"] + q1 * size["y_1"] + q2 * step
            row = k.let(size["y_base"] + row, "to")
            with k.vector(0, wide) as j:
                value = self.spill[i * self.pitch + j]
                if self.epilogue:
                    value = self.epilogue(value, n, o, L.Const(0, L.int64), q1, q2 + j)
                k.store(self.y, row + j * step, L.cast(value, self.y.dtype))


# Choosing ---------------------------------------------------------------------------------------


def suits(d: dtype, sizes: dict) -> bool:
    """Whether a convolution of these sizes (numbers, by the names of ``conv.SIZES``) is done so.

    It does not depend on the batch, for a row's bits must not.
    """
    if any(sizes[f"{name}{i}"] != 1 for name in ("stride", "dilation") for i in range(3)):
        return False
    square = sizes["kernel0"] == 1 and sizes["kernel1"] == sizes["kernel2"] in (2, 3)
    flat = square and sizes["in0"] == sizes["out0"] == 1 and sizes["padding0"] == 0
    big = min(sizes["c"], sizes["o"]) >= LEAST and min(sizes["out1"], sizes["out2"]) >= 3
    return flat and big and d.kind == "f" and d is not float64


def tile_of(sizes: dict) -> int:
    """Rows and columns of a tile: those that waste least. It decides about bits: no batch here."""
    r = sizes["kernel1"]
    high, wide = sizes["out1"], sizes["out2"]
    # For 2 x 2 taps 6 points would leave sums less exact than is promised.
    return min((4, 3)[: r - 1], key=lambda m: -(-high // m) * -(-wide // m) * (m + r - 1) ** 2)


def choose(d: dtype, sizes: dict, *, vector_bytes: int, threads: int = 1) -> Choice:
    """The form for a convolution that :func:`suits`, and how to cut it."""
    shape = tiles.shape_for(vector_bytes, tiles.accumulator(d))
    m, r = tile_of(sizes), sizes["kernel1"]
    steps = sizes["w_1"], sizes["w_2"]
    taps = 1 if steps == (r, 1) else -1 if steps == (-r, -1) else 0
    values = _cuts(sizes, m, shape, threads)
    form = Form(d, m, r, sizes["x_2"] == 1, sizes["y_2"] == 1, taps, vector_bytes)
    return Choice(form, values)


def _cuts(sizes, m, shape, threads) -> dict:
    """The cuts for which the busiest thread has the least to do."""
    down, across = -(-sizes["out1"] // m), -(-sizes["out2"] // m)
    panels = -(-sizes["o"] // shape.width)
    best, points = None, (m + sizes["kernel1"] - 1) ** 2
    for target in (MOST, MOST // 2, MOST // 4):
        rows, columns, images = piece_of(sizes, m, target)
        pieces = -(-down // rows) * -(-across // columns) * -(-sizes["n"] // images)
        whole, rest = divmod(rows * columns * images, shape.height)
        high = whole * shape.height + (min(h for h in shape.heights if h >= rest) if rest else 0)
        for parts in range(1, min(panels, threads) + 1):
            each = -(-panels // parts)
            rounds = -(-pieces * sizes["groups"] * -(-panels // each) // threads)
            # In cycles a channel, of a core with vectors of 64 bytes; measured.
            time = rounds * (14 * high + each * (300 + points * high))
            if best is None or time < best[0]:
                best = time, (rows, columns, images, each)
    return dict(zip(CUTS, best[1]))
