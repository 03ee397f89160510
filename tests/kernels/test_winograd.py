"""Winograd's algorithm against sums over taps in float64, and against the direct kernel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from running import Call
from test_conv import WIDTHS, convolve, copy, empty, inputs, oracle, steps, weight_gradient

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.kernels import conv, conv_weight, winograd, winograd_weight
from facula.kernels.toom import toom
from facula.runtime import threads


def case(n, c, o, high, wide, padding=(1, 1), groups=1, taps=3):
    return n, c, o, (high, wide), (taps, taps), (1, 1), padding, (1, 1), groups


CASES = [
    case(2, 16, 16, 4, 4),
    case(3, 17, 33, 3, 3),
    case(1, 70, 34, 7, 13),
    case(2, 130, 40, 6, 5, (0, 2)),
    case(2, 40, 70, 9, 30, (2, 1), 2),
    case(9, 64, 64, 12, 12),
    case(1, 16, 16, 40, 3),
    case(0, 16, 16, 4, 4),
    case(3, 34, 20, 7, 5, taps=2),
    case(9, 20, 33, 4, 5, (0, 1), taps=2),
]


def run(kind, d, x, w, y, width=WIDTHS[-1], count=1, epilogue=None, extra=(), cuts=(), **how):
    (sizes,) = kind(x.shape, w.shape, y.shape, (steps(x), steps(w), steps(y)), **how)
    assert winograd.suits(d, sizes)
    form, values = winograd.choose(d, sizes, vector_bytes=width, threads=count)
    kernel = winograd.build(form, epilogue)
    arguments = {"x": x, "w": w, "y": y, **sizes, **values, **dict(cuts)}
    assert Call(kernel, {**arguments, **dict(extra)}, width)() == 0
    return y


def run_weight(d, x, g, w, width=WIDTHS[-1], count=1, cuts=(), **how):
    strides = tuple(map(steps, (x, g, w)))
    (sizes,) = conv_weight.sizes_of(x.shape, g.shape, w.shape, strides, **how)
    assert winograd.suits(d, sizes)
    form, values = winograd_weight.choose(d, sizes, vector_bytes=width, threads=count)
    arguments = {"x": x, "g": g, "w": w, **sizes, **values, **dict(cuts)}
    assert Call(winograd_weight.build(form), arguments, width)() == 0
    return w


def error(got, want):
    """The root of the mean square of errors, over that of the values."""
    return np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)) if want.size else 0.0


@pytest.mark.parametrize("m, r", [(4, 3), (3, 3), (4, 2)])
def test_matrices_are_exact(m, r):
    t, n = toom(m, r), m + r - 1
    for i, j in itertools.product(range(n), range(r)):
        # The input and the taps are 0 but for one 1.
        products = [row[i] * taps[j] for row, taps in zip(t.data, t.taps)]
        got = [sum(a * v for a, v in zip(row, products)) for row in t.out]
        assert got == [int(q + j == i) for q in range(m)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case, width):
    rng = np.random.default_rng(1)
    x, w, how = inputs(rng, case, D.float32)
    y, gx, gw, g = oracle(x, w, rng.standard_normal, **how)
    g = copy(g.astype(np.float32))
    assert (
        error(run(conv.forward, D.float32, x, w, empty(y.shape, D.float32), width, **how), y) < 2e-6
    )
    got = run(conv.input_gradient, D.float32, g, w, empty(x.shape, D.float32), width, **how)
    assert error(got, gx) < 2e-6
    if len(x):  # Of no images all gradients are 0, which the direct kernel writes.
        got = run_weight(D.float32, x, g, empty(w.shape, D.float32), width, 2, **how)
        assert error(got, gw) < 2e-6


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("c", [16, 64, 256])
@pytest.mark.parametrize("size, taps, bound", [(6, 3, 2.5), (8, 3, 4.0), (7, 2, 4.0)])
def test_error_is_that_of_the_direct_sum_within_a_factor(size, taps, bound, c, shift):
    """The bound that docs/design/decisions.md states; inputs of a mean as after a relu, too."""
    rng = np.random.default_rng(2)
    x, w, how = inputs(rng, case(2, c, 32, size, size, taps=taps), D.float32)
    x += np.float32(shift)
    y, _, gw, g = oracle(x, w, rng.standard_normal, **how)
    got = run(conv.forward, D.float32, x, w, empty(y.shape, D.float32), **how)
    direct = convolve(conv.forward, D.float32, x, w, empty(y.shape, D.float32), WIDTHS[-1], **how)
    assert error(got, y) < bound * error(direct, y)
    args = D.float32, x, copy(g.astype(np.float32)), empty(w.shape, D.float32), WIDTHS[-1]
    got = error(run_weight(*args, **how), gw)
    assert got < bound * error(weight_gradient(*args, **how), gw)


@pytest.mark.parametrize("d", [D.float16])
def test_half_precision_is_computed_in_single(d):
    rng = np.random.default_rng(3)
    x, w, how = inputs(rng, CASES[0], d)
    y, *_ = oracle(x, w, np.zeros, **how)
    assert error(run(conv.forward, d, x, w, empty(y.shape, d), **how), y) < 5e-4


def test_strided_operands():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 32, 9, 24)).astype(np.float32)[:, ::2, :, ::3]
    w = rng.standard_normal((16, 20, 3, 3)).astype(np.float32).transpose(1, 0, 3, 2)
    how = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    y, gx, gw, g = oracle(x, w, rng.standard_normal, **how)
    assert error(run(conv.forward, D.float32, x, w, empty(y.shape, D.float32), **how), y) < 2e-6
    out = np.full((*x.shape, 2), np.nan, np.float32)[..., 0]
    got = run(conv.input_gradient, D.float32, g.astype(np.float32), w, out, **how)
    assert error(got, gx) < 2e-6
    g = np.ascontiguousarray(g.transpose(0, 2, 3, 1).astype(np.float32)).transpose(0, 3, 1, 2)
    assert error(run_weight(D.float32, x, g, empty(w.shape, D.float32), **how), gw) < 2e-6


@pytest.mark.parametrize("case", [CASES[3], CASES[4], CASES[5]], ids=str)
def test_bits_depend_on_no_thread_no_neighbour_no_width_and_no_cut(case):
    rng = np.random.default_rng(5)
    case = (5, *case[1:])
    x, w, how = inputs(rng, case, D.float32)
    y, *_ = oracle(x, w, np.zeros, **how)
    before, found = threads.get_num_threads(), set()
    try:
        for count, width in itertools.product((1, 3), WIDTHS):
            threads.set_num_threads(count)
            out = empty(y.shape, D.float32)
            found.add(run(conv.forward, D.float32, x, w, out, width, count, **how).tobytes())
    finally:
        threads.set_num_threads(before)
    cuts = {"row_cut": 1, "column_cut": 2, "image_cut": 2, "panel_cut": 1}
    out = run(conv.forward, D.float32, x, w, empty(y.shape, D.float32), cuts=cuts, **how)
    found.add(out.tobytes())
    assert len(found) == 1
    alone = empty((1, *y.shape[1:]), D.float32)
    run(conv.forward, D.float32, copy(x[3:4]), w, alone, **how)
    assert alone.tobytes() == out[3:4].tobytes()


def test_bits_of_weights_depend_on_no_thread_no_width_and_no_cut():
    rng = np.random.default_rng(9)
    x, w, how = inputs(rng, case(5, 150, 70, 13, 6), D.float32)
    *_, g = oracle(x, w, lambda s: rng.standard_normal(s).astype(np.float32), **how)
    before, found = threads.get_num_threads(), set()
    cuts = (), {"channel_cut": 64, "panel_cut": 1}, {"channel_cut": 21, "panel_cut": 2}
    try:
        for count, width, cut in itertools.product((1, 4), WIDTHS, cuts):
            threads.set_num_threads(count)
            out = empty(w.shape, D.float32)
            found.add(run_weight(D.float32, x, copy(g), out, width, count, cut, **how).tobytes())
    finally:
        threads.set_num_threads(before)
    assert len(found) == 1


def test_epilogue_sees_the_sum_and_its_place():
    rng = np.random.default_rng(6)
    x, w, how = inputs(rng, CASES[4], D.float32)
    y, *_ = oracle(x, w, np.zeros, **how)
    n, o, high, wide = y.shape
    bias = copy(rng.standard_normal(y.shape).astype(np.float32))

    def epilogue(k):
        b = k.buffer("bias", D.float32)

        def finish(value, image, channel, _, row, column):
            return L.maximum(value + b[((image * o + channel) * high + row) * wide + column], 0.0)

        return finish

    got = run(
        conv.forward, D.float32, x, w, empty(y.shape, D.float32),
        epilogue=epilogue, extra={"bias": bias}.items(), **how,
    )  # fmt: skip
    assert error(got, np.maximum(y + bias, 0)) < 2e-6


def test_the_gradient_of_a_strided_convolution_consists_of_such():
    rng = np.random.default_rng(8)
    x, w, how = inputs(rng, (2, 16, 24, (10, 9), (4, 4), (2, 2), (1, 1), (1, 1), 1), D.float32)
    y, gx, _, g = oracle(x, w, rng.standard_normal, **how)
    g, out = copy(g.astype(np.float32)), empty(x.shape, D.float32)
    shapes = g.shape, w.shape, out.shape
    for sizes in conv.input_gradient(*shapes, tuple(map(steps, (g, w, out))), **how):
        assert winograd.suits(D.float32, sizes)
        form, cuts = winograd.choose(D.float32, sizes, vector_bytes=WIDTHS[-1])
        assert Call(winograd.build(form), {"x": g, "w": w, "y": out, **sizes, **cuts})() == 0
    assert error(out, gx) < 2e-6


def test_random_sizes():
    rng = np.random.default_rng(7)
    for _ in range(6):
        n, c, o = rng.integers(1, 5), rng.integers(16, 80), rng.integers(16, 80)
        space, padding = rng.integers(3, 20, 2), rng.integers(0, 3, 2)
        padding = tuple(int(max(p, (5 - s + 1) // 2)) for p, s in zip(padding, space))
        space = tuple(map(int, space))
        one = int(n), int(c), int(o), space, (3, 3), (1, 1), padding, (1, 1), 1
        x, w, how = inputs(rng, one, D.float32)
        y, _, gw, g = oracle(x, w, lambda s: rng.standard_normal(s).astype(np.float32), **how)
        cuts = {"row_cut": rng.integers(1, 4), "column_cut": rng.integers(1, 6)}
        cuts |= {"image_cut": rng.integers(1, 4), "panel_cut": rng.integers(1, 3)}
        out = empty(y.shape, D.float32)
        assert error(run(conv.forward, D.float32, x, w, out, cuts=cuts, **how), y) < 2e-6, one
        cuts |= {"channel_cut": 64}
        out = empty(w.shape, D.float32)
        assert error(run_weight(D.float32, x, copy(g), out, cuts=cuts, **how), gw) < 2e-6, one
