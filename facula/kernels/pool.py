"""The gradient of max pooling.

For each window of the output, in order, the position of the first largest element of the input is
found (NaN counts as the largest), and the output's gradient is added there. Planes are
independent and run on any thread, so that sums have one order. One element at a time: windows are
small, and where they overlap their sums collide.

Limit: latency of the comparisons, about one a cycle.
"""

from __future__ import annotations

from facula.base.dtypes import dtype, int64
from facula.ir import loops as L
from facula.kernels.windows import numbered

#: Size parameters: images, channels; input and output sizes; stride, padding, dilation; strides of
#: x and g in elements. Numbers 0 to 2 are the spatial dimensions, of which lower ranks have fewer.
SIZES = (
    *("n", "c"),
    *(f"{name}{d}" for name in ("in", "out", "stride", "padding", "dilation") for d in range(3)),
    *("x_n", "x_c", "x_0", "x_1", "x_2"),
    *("g_n", "g_c", "g_0", "g_1", "g_2"),
)


def max_gradient(d: dtype, kernel: tuple, inside: bool) -> L.Kernel:
    """The kernel: parameters x, g, y (the input's gradient, contiguous), those of ``SIZES``.

    Args:
        kernel: sizes of the window in three dimensions.
        inside: no window reaches beyond the input.
    """
    window = "x".join(map(str, kernel))
    k = L.Builder(f"max_pool_gradient_{d.name}_{window}{'_inside' if inside else ''}")
    x, g, y = k.buffer("x", d), k.buffer("g", d), k.buffer("y", d, "rw")
    size = {name: k.size(name) for name in SIZES}
    in0, in1, in2 = (size[f"in{i}"] for i in range(3))
    plane = k.let(in0 * in1 * in2, "plane")
    with k.parallel(0, size["n"] * size["c"]) as p:
        n, c = k.let(p // size["c"], "n"), k.let(p % size["c"], "c")
        first = k.let(p * plane, "first")
        with k.vector(first, first + plane) as i:
            k.store(y, i, L.Const(0, d))
        x0 = k.let(n * size["x_n"] + c * size["x_c"], "x0")
        g0 = k.let(n * size["g_n"] + c * size["g_c"], "g0")
        with k.serial(0, size["out0"]) as q0, k.serial(0, size["out1"]) as q1:
            with k.serial(0, size["out2"]) as q2:
                at = _largest(k, x, size, kernel, inside, x0, (q0, q1, q2))
                place = first + at
                gradient = g[g0 + q0 * size["g_0"] + q1 * size["g_1"] + q2 * size["g_2"]]
                k.store(y, place, y[place] + gradient)
    return k.kernel()


def _largest(k, x, size, kernel, inside, x0, place):
    """The position within a plane of the first largest element of a window."""
    d = x.dtype
    floating = d.is_floating_point
    best = k.local(d, float("-inf") if floating else _least(d), name="best")
    at = k.local(int64, -1, name="at")
    starts = [
        k.let(q * size[f"stride{i}"] - size[f"padding{i}"], "start") for i, q in enumerate(place)
    ]
    for taps in ((a, b, c) for a in range(kernel[0]) for b in range(kernel[1])
                 for c in range(kernel[2])):  # fmt: skip
        where = [start + t * size[f"dilation{i}"] for i, (start, t) in enumerate(zip(starts, taps))]
        mask, index = None, x0
        for i, w in enumerate(where):
            index = index + w * size[f"x_{i}"]
            if not inside:
                here = (w >= 0) & (w < size[f"in{i}"])
                mask = here if mask is None else mask & here
        value = k.let(x.load(index, mask), "value")
        better = (value > best) | (at.get() < 0)
        if floating:
            better = better | (value.ne(value) & best.get().eq(best.get()))
        better = k.let(better if mask is None else better & mask, "better")
        position = (where[0] * size["in1"] + where[1]) * size["in2"] + where[2]
        k.assign(best, L.select(better, value, best.get()))
        k.assign(at, L.select(better, position, at.get()))
    # A window without any element of the input does not occur; it must still not write outside.
    return k.let(L.maximum(at.get(), 0), "at")


def _least(d: dtype) -> int:
    return -(1 << (8 * d.itemsize - 1)) if d.kind == "i" else 0


def sizes_of(x, g, strides, *, stride, padding, dilation) -> dict:
    """Values of ``SIZES``; shapes may be of symbols.

    Args:
        x, g: shapes [n, c, *in] and [n, c, *out].
        strides: of x and g.
    """
    x_strides, g_strides = strides
    return {
        "n": x[0], "c": x[1], **numbered("in", x[2:], 1), **numbered("out", g[2:], 1),
        **numbered("stride", stride, 1), **numbered("padding", padding, 0),
        **numbered("dilation", dilation, 1),
        "x_n": x_strides[0], "x_c": x_strides[1], **numbered("x_", x_strides[2:], 0),
        "g_n": g_strides[0], "g_c": g_strides[1], **numbered("g_", g_strides[2:], 0),
    }  # fmt: skip


def all_inside(sizes: dict, kernel: tuple) -> bool:
    """Whether no window reaches beyond the input, for sizes that are numbers."""
    for i, taps in enumerate(kernel):
        last = (sizes[f"out{i}"] - 1) * sizes[f"stride{i}"] + (taps - 1) * sizes[f"dilation{i}"]
        if sizes[f"padding{i}"] or last >= sizes[f"in{i}"]:
            return False
    return True
