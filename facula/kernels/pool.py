"""The gradient of max pooling.

Planes are independent and run on any thread. In a plane, one row of windows after the other:

1. In lanes, for a window that starts at *every* column (those between two strides too, whose loads
   are side by side so): which of its taps is the first largest element (NaN counts as the largest).
2. The gradients of the row's windows, laid out by the column where a window starts, zeros between.
3. For every row of the input under the windows, in lanes: to each element the gradients of those
   windows whose largest it is. Taps go from the last to the first, which is windows in order.

So an element is the sum of its windows' gradients in the order of the windows.

Limit: instructions, some 8 for each tap and element in lanes; 16 to 25 GB/s of x read.
"""

from __future__ import annotations

from facula.base.dtypes import dtype, int32
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
    margin = (kernel[2] - 1) * size["dilation2"]
    width = margin + size["in2"] + size["padding2"] + size["out2"] * size["stride2"]
    tap = k.scratch("tap", int32, width, per_thread=True)
    spread = k.scratch("spread", d, width, per_thread=True)
    with k.parallel(0, size["n"] * size["c"]) as p:
        n, c = k.let(p // size["c"], "n"), k.let(p % size["c"], "c")
        first = k.let(p * plane, "first")
        with k.vector(first, first + plane) as i:
            k.store(y, i, L.Const(0, d))
        with k.vector(0, width) as i:
            k.store(tap, i, L.Const(-1, int32))
            k.store(spread, i, L.Const(0, d))
        x0 = k.let(n * size["x_n"] + c * size["x_c"], "x0")
        g0 = k.let(n * size["g_n"] + c * size["g_c"], "g0")
        with k.serial(0, size["out0"]) as q0, k.serial(0, size["out1"]) as q1:
            starts = [
                k.let(q * size[f"stride{i}"] - size[f"padding{i}"], "start")
                for i, q in enumerate((q0, q1))
            ]
            with k.vector(0, (size["out2"] - 1) * size["stride2"] + 1) as j:
                k.store(tap, margin + j, _largest(k, x, size, kernel, inside, x0, starts, j))
            row = k.let(g0 + q0 * size["g_0"] + q1 * size["g_1"], "row")
            with k.vector(0, size["out2"]) as q2:
                k.store(spread, margin + q2 * size["stride2"], g[row + q2 * size["g_2"]])
            _collect(k, y, size, kernel, first, starts, (tap, spread, margin))
    return k.kernel()


def _largest(k, x, size, kernel, inside, x0, starts, j):
    """The number of the tap, of a window from column ``j``, that is the first largest; or -1."""
    d = x.dtype
    floating = d.is_floating_point
    best = k.local(d, float("-inf") if floating else _least(d), name="best")
    at = k.local(int32, -1, name="at")
    column = k.let(j - size["padding2"], "column")
    with _each(k, kernel[0]) as a, _each(k, kernel[1]) as b, _each(k, kernel[2]) as c:
        taps, index, mask = (a, b, c), x0, None
        for i, start in enumerate((*starts, column)):
            w = start + taps[i] * size[f"dilation{i}"]
            index = index + w * size[f"x_{i}"]
            if not inside:
                here = (w >= 0) & (w < size[f"in{i}"])
                mask = here if mask is None else mask & here
        value = k.let(x.load(index, mask), "value")
        better = (value > best) | (at.get() < 0)
        if floating:
            better = better | (value.ne(value) & best.get().eq(best.get()))
        better = k.let(better if mask is None else better & mask, "better")
        k.assign(best, L.select(better, value, best.get()))
        k.assign(at, L.select(better, L.cast(_number(kernel, *taps), int32), at.get()))
    return at.get()


def _collect(k, y, size, kernel, first, starts, row):
    """Add to the input's rows under a row of windows what is theirs."""
    tap, spread, margin = row
    with _each(k, kernel[0]) as a, _each(k, kernel[1]) as b:
        w0, w1 = (
            k.let(start + t * size[f"dilation{i}"], "w")
            for i, (start, t) in enumerate(zip(starts, (a, b)))
        )
        inside = (w0 >= 0) & (w0 < size["in0"]) & (w1 >= 0) & (w1 < size["in1"])
        with k.if_(inside):
            at = k.let(first + (w0 * size["in1"] + w1) * size["in2"], "at")
            with k.vector(0, size["in2"]) as i:
                total = k.local(y.dtype, y[at + i], name="total")
                with _each(k, kernel[2]) as back:
                    c = kernel[2] - 1 - back
                    start = i + (margin + size["padding2"] - c * size["dilation2"])
                    mine = tap[start].eq(L.cast(_number(kernel, a, b, c), int32))
                    more = L.select(mine, spread[start], L.Const(0, y.dtype))
                    k.assign(total, total.get() + more)
                k.store(y, at + i, total.get())


def _number(kernel, a, b, c):
    return (a * kernel[1] + b) * kernel[2] + c


def _each(k, n):
    """A loop over so many taps: written out if they are few."""
    return k.unroll(0, n) if n <= 4 else k.serial(0, n)


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
