"""Windows of an input: what convolutions copy of it, and where its elements then lie.

A *piece* of the output is some rows and columns of some images. What it needs of the input is
copied with its padding into scratch memory, ``[n, c, kernel0, height, phase, pitch]``: the planes
that the kernel's first dimension reaches, rows from the first to the last one needed, and of each
row the columns of equal remainder by the stride side by side. Then output columns that follow each
other have inputs that follow each other, whatever the stride; and a *term* (an input channel and a
place in the kernel) is one offset, the same for all elements of the output.
"""

from __future__ import annotations

from facula.ir import loops as L


def numbered(name, values, fill) -> dict:
    """``{name0: .., name1: .., name2: ..}`` of the values of up to three dimensions, the last."""
    values = (fill,) * (3 - len(values)) + tuple(values)
    return {f"{name}{d}": v for d, v in enumerate(values)}


def geometry(x, w, y, x_strides, *, stride, padding, dilation, groups) -> dict:
    """The sizes by name that say how shapes of input, weight and output meet; x's strides."""
    return {
        "n": x[0], "groups": groups, "c": w[1], "o": y[1] // groups,
        **numbered("in", x[2:], 1), **numbered("kernel", w[2:], 1),
        **numbered("out", y[2:], 1), **numbered("stride", stride, 1),
        **numbered("padding", padding, 0), **numbered("dilation", dilation, 1),
        "x_n": x_strides[0], "x_c": x_strides[1], **numbered("x_", x_strides[2:], 0),
    }  # fmt: skip


def even(count, most) -> int:
    """The size of parts of ``count``, of at most ``most`` each and all about as large."""
    return -(-count // -(-count // most))


def piece_of(sizes: dict, m: int, most: int) -> tuple:
    """Tile rows, tile columns and images of a piece of at most so many tiles."""
    down, across = (max(-(-sizes[f"out{i}"] // m), 1) for i in (1, 2))
    columns = even(across, most)
    rows = even(down, max(1, most // columns)) if columns == across else 1
    whole = rows == down and columns == across
    images = even(max(sizes["n"], 1), max(1, most // (rows * columns))) if whole else 1
    return rows, columns, images


class Windows:
    """Writes that part of a kernel.

    Attributes that users set: k (the builder), size (parameters by name: those of ``conv.SIZES``
    without those of w and y, and the cuts), sum (dtype of the copy), x (the input), form (with
    ``x_unit`` and ``step``).
    """

    def three(self, name):
        """The parameters of that name of the three dimensions."""
        return [self.size[f"{name}{d}"] for d in range(3)]

    def window_scratch(self, channels, slack: int, shared: bool):
        """Scratch for the input of a piece, of all threads or of each, and for offsets.

        Reading may go ``slack`` elements past the last one.
        """
        k, size = self.k, self.size
        k0, k1, k2 = self.three("kernel")
        _, s1, s2 = self.three("stride")
        _, d1, d2 = self.three("dilation")
        self.height = (size["row_cut"] - 1) * s1 + (k1 - 1) * d1 + 1
        across = (size["column_cut"] - 1) * s2 + (k2 - 1) * d2 + 1
        self.pitch = L.idiv_ceil(across, s2)
        self.row = s2 * self.pitch
        self.offsets = k.scratch("offsets", L.int64, size["c"] * k0 * k1 * k2)
        self.channel = k0 * self.height * self.row
        self.image = channels * self.channel
        piece = size["image_cut"] * self.image + slack
        self.piece = k.scratch("piece", self.sum, piece, per_thread=not shared)

    def terms(self, channels, write):
        """Call ``write(term, c, t0, t1, t2)`` in loops over channels and taps."""
        k, (k0, k1, k2) = self.k, self.three("kernel")
        with k.serial(0, channels) as c, k.serial(0, k0) as t0, k.serial(0, k1) as t1:
            with k.serial(0, k2) as t2:
                write(((c * k0 + t0) * k1 + t1) * k2 + t2, c, t0, t1, t2)

    def fill_offsets(self):
        """Where in a piece the input of each term lies, from that of the output's element on."""
        k, (k0, _, _), s2 = self.k, self.three("kernel"), self.size["stride2"]
        _, d1, d2 = self.three("dilation")
        for name in ("height", "pitch", "row", "channel", "image"):
            setattr(self, name, k.let(getattr(self, name), name))

        def write(term, c, t0, t1, t2):
            row = (c * k0 + t0) * self.height + t1 * d1
            column = t2 * d2
            if self.form.step != 1:
                column = k.let(column % s2) * self.pitch + k.let(column // s2)
            k.store(self.offsets, term, row * self.row + column)

        self.terms(self.size["c"], write)

    def copy_input(self, n, images, channel, channels, q0, q1, q2):
        """The input that the piece of the output at (n, q0, q1, q2) needs of some channels."""
        with self.k.serial(0, images) as i, self.k.serial(0, channels) as c:
            at = self.k.let(i * self.image + c * self.channel, "at")
            self.copy_channel(at, n + i, channel + c, q0, q1, q2)

    def copy_channel(self, first, n, channel, q0, q1, q2):
        """What the piece needs of one channel of one image, with zeros where there is none."""
        k, size = self.k, self.size
        (s0, s1, _), (p0, p1, _) = self.three("stride"), self.three("padding")
        kernel0, dilation0 = size["kernel0"], size["dilation0"]
        plane = n * size["x_n"] + channel * size["x_c"]
        # Rows between those that a single tap reads are left out.
        every = k.let(L.select(size["kernel1"].eq(1), s1, L.Const(1, L.int64)), "every")
        with k.serial(0, kernel0) as t0, k.serial(0, self.height, every) as h:
            at = k.let(first + (t0 * self.height + h) * self.row, "at")
            i0 = k.let(q0 * s0 + t0 * dilation0 - p0, "i")
            i1 = k.let(q1 * s1 + h - p1, "i")
            start = k.let(plane + i0 * size["x_0"] + i1 * size["x_1"], "start")
            with k.if_((i0 >= 0) & (i0 < size["in0"]) & (i1 >= 0) & (i1 < size["in1"])):
                self._copy_row(at, start, q2)
            with k.else_(), k.vector(0, self.row) as j:
                k.store(self.piece, at + j, L.Const(0, self.sum))

    def _copy_row(self, at, start, q2):
        """Columns q2 * stride - padding and on, each phase of the stride by itself."""
        k, step = self.k, None if self.form.x_unit else self.size["x_2"]
        s2, p2, in2 = self.size["stride2"], self.size["padding2"], self.size["in2"]
        first = k.let(q2 * s2 - p2, "first")

        def phase(f):
            to = at + f * self.pitch
            with k.vector(0, self.pitch) as j:
                column = j * (self.form.step or s2) + (first + f)
                # Seen as unsigned, numbers below 0 are too large as well.
                here = L.compare("ult", column, in2)
                index = start + (column if step is None else column * step)
                k.store(self.piece, to + j, L.cast(self.x.load(index, here), self.sum))

        if self.form.step == 1:
            phase(L.Const(0, L.int64))
            return
        # Of the phases only those that some tap reads.
        reach = (self.size["kernel2"] - 1) * self.size["dilation2"]
        with k.serial(0, L.minimum(s2, reach + 1)) as f:
            phase(f)
