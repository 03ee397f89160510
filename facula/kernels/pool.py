"""The gradient of max pooling.

Planes are independent and run on any thread. For a plane:

1. In lanes, for each window: which of its taps is the first largest element (NaN counts as the
   largest). It and the window's gradient go to scratch memory, to the column where the window
   starts; between windows there is none.
2. In lanes, for each element of the input: the sum of the gradients of those windows whose largest
   it is, in the order of the windows.

Nothing is added up in memory, and each element is written once.

Limit: instructions, some 7 for each tap and element in lanes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from facula.base.dtypes import dtype, int32
from facula.ir import loops as L
from facula.kernels.windows import numbered

#: Size parameters: images, channels; input and output sizes, padding; strides of x and g in
#: elements. Numbers 0 to 2 are the spatial dimensions, of which lower ranks have fewer.
SIZES = (
    *("n", "c"),
    *(f"{name}{d}" for name in ("in", "out", "padding") for d in range(3)),
    *("x_n", "x_c", "x_0", "x_1", "x_2"),
    *("g_n", "g_c", "g_0", "g_1", "g_2"),
)


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        dtype: of x, g and y.
        kernel, stride, dilation: of the window, in three dimensions.
        inside: no window reaches beyond the input.
        x_unit, g_unit: whether the last stride of x and of g is 1.
    """

    dtype: dtype
    kernel: tuple
    stride: tuple
    dilation: tuple
    inside: bool
    x_unit: bool
    g_unit: bool

    @property
    def name(self) -> str:
        words = ("x".join(map(str, sizes)) for sizes in self[1:4])
        flags = "".join(c for c, on in zip("ixg", self[4:]) if on)
        return f"max_pool_gradient_{self.dtype.name}_{'_'.join(words)}_{flags}"


def max_gradient(form: Form) -> L.Kernel:
    """The kernel: parameters x, g, y (the input's gradient, contiguous), those of ``SIZES``."""
    (d, kernel, stride, dilation), k = form[:4], L.Builder(form.name)
    x, g, y = k.buffer("x", d), k.buffer("g", d), k.buffer("y", d, "w")
    size = {name: k.size(name) for name in SIZES}
    in0, in1, in2 = (size[f"in{i}"] for i in range(3))
    margin = (kernel[2] - 1) * dilation[2]
    width = margin + in2 + size["padding2"] + size["out2"] * stride[2]
    rows = size["out0"] * size["out1"]
    # In a row behind the last one there is no window.
    tap = k.scratch("tap", int32, (rows + 1) * width, per_thread=True)
    spread = k.scratch("spread", d, (rows + 1) * width, per_thread=True)
    width, rows = k.let(width, "width"), k.let(rows, "rows")
    with k.parallel(0, size["n"] * size["c"]) as p:
        n, c = k.let(p // size["c"], "n"), k.let(p % size["c"], "c")
        x0 = k.let(n * size["x_n"] + c * size["x_c"], "x0")
        g0 = k.let(n * size["g_n"] + c * size["g_c"], "g0")
        with k.vector(0, (rows + 1) * width) as i:
            k.store(tap, i, L.Const(-1, int32))
        with k.serial(0, size["out0"]) as q0, k.serial(0, size["out1"]) as q1:
            starts = [
                k.let(q * stride[i] - size[f"padding{i}"], "start") for i, q in enumerate((q0, q1))
            ]
            row = k.let(g0 + q0 * size["g_0"] + q1 * size["g_1"], "row")
            first = k.let((q0 * size["out1"] + q1) * width + margin, "first")
            with k.vector(0, size["out2"]) as q2:
                at, place = first + q2 * stride[2], (*starts, q2 * stride[2] - size["padding2"])
                k.store(tap, at, _largest(k, x, size, form, x0, place))
                k.store(spread, at, g[row + (q2 if form.g_unit else q2 * size["g_2"])])
        with k.serial(0, in0) as i0, k.serial(0, in1) as i1:
            to = k.let(((p * in0 + i0) * in1 + i1) * in2, "to")
            with k.vector(0, in2) as i2:
                total = _collected(k, size, form, (tap, spread), (width, rows), (i0, i1, i2))
                k.store(y, to + i2, total)
    return k.kernel()


def _largest(k, x, size, form, x0, starts):
    """The number of the tap, of the window that starts there, that is the first largest."""
    d, kernel, _, dilation, inside = form[:5]
    floating = d.is_floating_point
    best = k.local(d, float("-inf") if floating else _least(d), name="best")
    # The first tap inside of the input, until one is better.
    at = k.local(int32, 0, name="at")
    for i, start in enumerate(() if inside else starts):
        with _each(k, kernel[i]) as t:
            outside = start + t * dilation[i] < 0
            taps = L.Const(math.prod(kernel[i + 1 :]), int32)
            k.assign(at, at.get() + L.select(outside, taps, L.Const(0, int32)))
    with _each(k, kernel[0]) as a, _each(k, kernel[1]) as b, _each(k, kernel[2]) as c:
        taps, index, mask = (a, b, c), x0, None
        for i, start in enumerate(starts):
            w = start + taps[i] * dilation[i]
            index = index + (w if form.x_unit and i == 2 else w * size[f"x_{i}"])
            if not inside:
                # Seen as unsigned, numbers below 0 are too large as well.
                here = L.compare("ult", w, size[f"in{i}"])
                mask = here if mask is None else mask & here
        value = k.let(x.load(index, mask), "value")
        better = value > best
        if floating:
            better = ~(value <= best) & best.get().eq(best.get())
        better = k.let(better if mask is None else better & mask, "better")
        k.assign(best, L.select(better, value, best.get()))
        k.assign(at, L.select(better, L.cast(_number(kernel, *taps), int32), at.get()))
    return at.get()


def _collected(k, size, form, scratch, extent, place):
    """The sum of the gradients that go to a place of the input."""
    (kernel, stride, dilation), (tap, spread), (width, rows) = form[1:4], scratch, extent
    total = k.local(spread.dtype, 0, name="total")
    # Windows of stride 1 by stride 1 come in the opposite order of the taps that reach them.
    counts = [_ways(*of) for of in zip(kernel[:2], stride[:2], dilation[:2])]
    with _each(k, counts[0]) as t0, _each(k, counts[1]) as t1, _each(k, kernel[2]) as back:
        valid, q, b = None, [], []
        for d, t in enumerate((t0, t1)):
            found = _reaching(size, kernel[d], stride[d], dilation[d], d, place[d], t)
            valid = found[0] if valid is None else valid & found[0]
            q.append(found[1])
            b.append(found[2])
        row = k.let(L.select(valid, q[0] * size["out1"] + q[1], rows) * width, "row")
        c = kernel[2] - 1 - back
        number = k.let(L.cast(_number(kernel, *b, c), int32), "number")
        at = row + place[2] + (size["padding2"] + back * dilation[2])
        k.assign(total, L.select(tap[at].eq(number), total.get() + spread[at], total.get()))
    return total.get()


def _ways(kernel, stride, dilation) -> int:
    """How many windows may reach a place of a dimension."""
    return -(-kernel // stride) if dilation == 1 else kernel


def _reaching(size, kernel, stride, dilation, d, i, t):
    """The ``t``-th window that may reach place ``i`` of a dimension: does it, which one is it, and
    with which tap does it?"""
    place = i + size[f"padding{d}"]
    if dilation == 1:
        q = place // stride - (_ways(kernel, stride, dilation) - 1 - t)
        b = place - q * stride
        valid = b < kernel
    else:
        b = kernel - 1 - t
        place = place - b * dilation
        q, valid = place // stride, (place >= 0) & (place % stride).eq(0)
    return valid & (q >= 0) & (q < size[f"out{d}"]), q, b


def _number(kernel, a, b, c):
    return (a * kernel[1] + b) * kernel[2] + c


def _each(k, n):
    """A loop over so many taps: written out if they are few."""
    return k.unroll(0, n) if n <= 4 else k.serial(0, n)


def _least(d: dtype) -> int:
    return -(1 << (8 * d.itemsize - 1)) if d.kind == "i" else 0


def sizes_of(x, g, strides, padding) -> dict:
    """Values of ``SIZES``; shapes may be of symbols.

    Args:
        x, g: shapes [n, c, *in] and [n, c, *out].
        strides: of x and g.
    """
    x_strides, g_strides = strides
    return {
        "n": x[0], "c": x[1], **numbered("in", x[2:], 1), **numbered("out", g[2:], 1),
        **numbered("padding", padding, 0),
        "x_n": x_strides[0], "x_c": x_strides[1], **numbered("x_", x_strides[2:], 0),
        "g_n": g_strides[0], "g_c": g_strides[1], **numbered("g_", g_strides[2:], 0),
    }  # fmt: skip


def all_inside(sizes: dict, kernel, stride, dilation) -> bool:
    """Whether no window reaches beyond the input, for sizes that are numbers."""
    for i, taps in enumerate(kernel):
        last = (sizes[f"out{i}"] - 1) * stride[i] + (taps - 1) * dilation[i]
        if sizes[f"padding{i}"] or last >= sizes[f"in{i}"]:
            return False
    return True
