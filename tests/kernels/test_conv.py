"""Convolutions and their gradients against sums over taps in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from running import Call, guarded

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.kernels import conv, conv_weight
from facula.runtime import host, threads

WIDTHS = [w for w in (16, 32, 64) if w <= host.target().vector_bytes]
#: images, channels, output channels, input, kernel, stride, padding, dilation, groups
CASES = [
    (2, 3, 5, (9, 11), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (1, 1, 1, (1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (2, 4, 6, (9, 11), (3, 2), (2, 3), (1, 0), (1, 2), 2),
    (3, 20, 40, (7, 7), (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (1, 70, 34, (5, 17), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (1, 3, 33, (20, 21), (7, 7), (2, 2), (3, 3), (1, 1), 1),
    (2, 6, 6, (8, 8), (3, 3), (2, 2), (1, 1), (1, 1), 6),
    (7, 66, 70, (3, 3), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 5, 10, (130, 37), (3, 3), (1, 1), (1, 1), (1, 1), 5),
    (2, 4, 8, (8, 9), (1, 1), (2, 2), (0, 0), (1, 1), 1),
    (2, 5, 3, (6, 6), (2, 2), (3, 3), (2, 2), (1, 1), 1),
    (2, 3, 4, (20,), (5,), (2,), (3,), (2,), 1),
    (1, 2, 3, (5, 6, 7), (2, 3, 3), (1, 2, 2), (1, 1, 0), (2, 1, 1), 1),
    (0, 3, 4, (5, 5), (3, 3), (1, 1), (1, 1), (1, 1), 1),
]


def steps(a):
    return tuple(s // a.itemsize for s in a.strides)


def copy(array):
    return guarded(np.ascontiguousarray(array).reshape(-1)).reshape(array.shape)


def patches(x, out, kernel, stride, padding, dilation):
    """For each tap, the input elements [n, c, *out] that meet it."""
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0)] + [(p, p) for p in padding])
    for taps in itertools.product(*map(range, kernel)):
        index = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(taps, dilation, out, stride)
        )
        yield taps, x[(slice(None), slice(None), *index)]


def oracle(x, w, g, stride, padding, dilation, groups):
    """(y, gradient in x, gradient in w) in float64; g is a function of y's shape."""
    n, c, *space = x.shape
    o, _, *kernel = w.shape
    out = [
        (i + 2 * p - d * (k - 1) - 1) // s + 1
        for i, p, d, k, s in zip(space, padding, dilation, kernel, stride)
    ]
    y = np.zeros((n, groups, o // groups, *out))
    g = g((n, o, *out))
    grouped = g.astype(np.float64).reshape(y.shape)
    wide = np.zeros((n, c, *(i + 2 * p for i, p in zip(space, padding))))
    gw = np.zeros(w.shape)
    for taps, part in patches(x, out, kernel, stride, padding, dilation):
        part = part.reshape(n, groups, c // groups, *out)
        at = w[(slice(None), slice(None), *taps)].astype(float).reshape(groups, o // groups, -1)
        y += np.einsum("ngc...,goc->ngo...", part, at)
        gw[(slice(None), slice(None), *taps)] = np.einsum(
            "ngcp,ngop->goc",
            part.reshape(n, groups, c // groups, math.prod(out)),
            grouped.reshape(n, groups, o // groups, math.prod(out)),
        ).reshape(o, -1)
        index = tuple(
            slice(t * d, t * d + (q - 1) * s + 1, s)
            for t, d, q, s in zip(taps, dilation, out, stride)
        )
        back = np.einsum("ngo...,goc->ngc...", grouped, at).reshape(n, c, *out)
        wide[(slice(None), slice(None), *index)] += back
    inner = tuple(slice(p, p + i) for i, p in zip(space, padding))
    return y.reshape(n, o, *out), wide[(slice(None), slice(None), *inner)], gw, g


def convolve(kind, d, x, w, y, width, count=1, epilogue=None, extra=(), **how):
    """``conv.forward`` or ``conv.input_gradient`` into y."""
    for sizes in kind(x.shape, w.shape, y.shape, (steps(x), steps(w), steps(y)), **how):
        form, values = conv.choose(d, sizes, vector_bytes=width, threads=count)
        kernel = conv.build(form, epilogue)
        arguments = {"x": x, "w": w, "y": y, **sizes, **values}
        assert Call(kernel, {**arguments, **dict(extra)}, width)() == 0
    return y


def weight_gradient(d, x, g, w, width, count=1, **how):
    strides = steps(x), steps(g), steps(w)
    (sizes,) = conv_weight.sizes_of(x.shape, g.shape, w.shape, strides, **how)
    form, values = conv_weight.choose(d, sizes, vector_bytes=width, threads=count)
    arguments = {"x": x, "g": g, "w": w, **sizes, **values}
    assert Call(conv_weight.build(form), arguments, width)() == 0
    return w


def inputs(rng, case, d):
    n, c, o, space, kernel, stride, padding, dilation, groups = case
    x = copy(rng.standard_normal((n, c, *space)).astype(d.numpy()))
    w = copy(rng.standard_normal((o, c // groups, *kernel)).astype(d.numpy()))
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x, w, how


def empty(shape, d):
    return copy(np.full(shape, np.nan, d.numpy()))


def close(got, want, d, terms):
    digits = {D.float32: 2e-6, D.float64: 1e-14, D.float16: 2e-3}[d]
    np.testing.assert_allclose(got, want, rtol=0, atol=digits * 8 * max(terms, 1) ** 0.5 + 1e-30)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, width):
    rng = np.random.default_rng(1)
    for d in (D.float32, D.float64) if width == WIDTHS[-1] else (D.float32,):
        x, w, how = inputs(rng, case, d)
        y, gx, gw, g = oracle(x, w, rng.standard_normal, **how)
        g = copy(g.astype(d.numpy()))
        terms = w[0].size
        close(convolve(conv.forward, d, x, w, empty(y.shape, d), width, **how), y, d, terms)
        got = convolve(conv.input_gradient, d, g, w, empty(x.shape, d), width, **how)
        close(got, gx, d, terms * w.shape[0])
        close(weight_gradient(d, x, g, empty(w.shape, d), width, **how), gw, d, g.size)


def test_half_precision_sums_in_single():
    rng = np.random.default_rng(2)
    x, w, how = inputs(rng, (1, 40, 20, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1), 1), D.float16)
    y, *_ = oracle(x, w, np.zeros, **how)
    got = convolve(conv.forward, D.float16, x, w, empty(y.shape, D.float16), WIDTHS[-1], **how)
    np.testing.assert_allclose(got, y, rtol=2e-3, atol=2e-2)


def test_strided_inputs():
    rng = np.random.default_rng(3)
    big = rng.standard_normal((2, 8, 9, 24)).astype(np.float32)
    x = big[:, ::2, :, ::3]
    w = rng.standard_normal((4, 3, 3, 5)).astype(np.float32).transpose(1, 0, 3, 2)
    how = {"stride": (1, 1), "padding": (2, 1), "dilation": (1, 1), "groups": 1}
    y, gx, gw, g = oracle(x, w, lambda s: rng.standard_normal(s).astype(np.float32), **how)
    width = WIDTHS[-1]
    got = convolve(conv.forward, D.float32, x, w, empty(y.shape, D.float32), width, **how)
    close(got, y, D.float32, 60)
    got = weight_gradient(D.float32, x, g, empty(w.shape, D.float32), width, **how)
    close(got, gw, D.float32, 2000)
    g = np.ascontiguousarray(g.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    got = convolve(conv.input_gradient, D.float32, g, w, empty(x.shape, D.float32), width, **how)
    close(got, gx, D.float32, 60)
    got = weight_gradient(D.float32, x, g, empty(w.shape, D.float32), width, **how)
    close(got, gw, D.float32, 2000)


@pytest.mark.parametrize("case", [CASES[4], CASES[5], CASES[2], CASES[7], CASES[8]], ids=str)
def test_bits_depend_on_no_thread_no_neighbour_and_no_width(case):
    rng = np.random.default_rng(4)
    case = (7, *case[1:])
    x, w, how = inputs(rng, case, D.float32)
    y, gx, gw, g = oracle(x, w, lambda s: rng.standard_normal(s).astype(np.float32), **how)
    before = threads.get_num_threads()
    found = {"y": set(), "gx": set(), "gw": set()}
    try:
        for count in (1, 2):
            threads.set_num_threads(count)
            for width in WIDTHS:
                args = D.float32, x, w, empty(y.shape, D.float32), width, count
                forward = convolve(conv.forward, *args, **how)
                found["y"].add(forward.tobytes())
                args = D.float32, g, w, empty(x.shape, D.float32), width, count
                back = convolve(conv.input_gradient, *args, **how)
                found["gx"].add(back.tobytes())
                args = D.float32, x, g, empty(w.shape, D.float32), width, count
                found["gw"].add(weight_gradient(*args, **how).tobytes())
    finally:
        threads.set_num_threads(before)
    assert {name: len(bits) for name, bits in found.items()} == {"y": 1, "gx": 1, "gw": 1}
    alone = np.empty((1, *y.shape[1:]), np.float32)
    convolve(conv.forward, D.float32, copy(x[3:4]), w, alone, WIDTHS[-1], **how)
    assert alone.tobytes() == forward[3:4].tobytes()


@pytest.mark.parametrize("case", [CASES[0], CASES[7]], ids=str)
def test_epilogue_sees_the_sum_and_its_place(case):
    rng = np.random.default_rng(5)
    x, w, how = inputs(rng, case, D.float32)
    y, *_ = oracle(x, w, np.zeros, **how)
    n, o, high, wide = y.shape
    bias = copy(rng.standard_normal(y.shape).astype(np.float32))

    def epilogue(k):
        b = k.buffer("bias", D.float32)

        def finish(value, image, channel, _, row, column):
            return L.maximum(value + b[((image * o + channel) * high + row) * wide + column], 0.0)

        return finish

    got = convolve(
        conv.forward, D.float32, x, w, empty(y.shape, D.float32), WIDTHS[-1],
        epilogue=epilogue, extra={"bias": bias}.items(), **how,
    )  # fmt: skip
    close(got, np.maximum(y + bias, 0), D.float32, w[0].size)
