"""Matrix products against NumPy in float64, and their promise: one element, one set of bits."""

from __future__ import annotations

import numpy as np
import pytest
from running import Call, guarded, storage

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.kernels import choose_matmul, matmul, tiles
from facula.runtime import host, threads

WIDTHS = [w for w in (16, 32, 64) if w <= host.target().vector_bytes]
SIZES = [(1, 1, 1), (1, 37, 5), (3, 1, 17), (2, 2, 0), (5, 33, 600), (17, 31, 70), (64, 10, 33)]


def laid_out(rng, shape, unit_last, d):
    """A random matrix batch [b, r, c] whose last (or else middle) index has stride 1."""
    b, r, c = shape
    lying = (b, r, c) if unit_last else (b, c, r)
    if d.is_floating_point:
        flat = rng.standard_normal(b * r * c)
    else:
        flat = rng.integers(-100 if d.is_signed else 0, 100, b * r * c)
    if d is D.bfloat16:
        flat = (flat.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    flat = guarded(flat.astype(storage(d)))
    return flat.reshape(lying) if unit_last else flat.reshape(lying).transpose(0, 2, 1)


def values(array, d):
    """As float64 (floats) or int64."""
    if d is D.bfloat16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64 if d.is_floating_point else np.int64)


def product(a, b, d, choice, c=None, **extra):
    """c of a chosen kernel; a, b are [batch, ., .] arrays."""
    batch, m, k = a.shape
    n = b.shape[2]
    if c is None:
        c = guarded(np.full(batch * m * n, 0x55, storage(d))).reshape(batch, m, n)
    steps = [x // a.itemsize for x in (*a.strides, *b.strides)]
    c_steps = [x // c.itemsize for x in c.strides]
    sizes = dict(zip(matmul.SIZES, (batch, m, n, k, *steps, *c_steps[:2], 1, 0, 0, 0)))
    cuts = {"row_cut": choice.row_cut, "column_cut": choice.column_cut}
    epilogue, out = extra.pop("epilogue", None), extra.pop("out", None)
    kernel = matmul.build(choice.form, epilogue, out)
    ready = choice.form.variant == "ready"
    right = {"panels": panels(b, d, choice.form)} if ready else {"b": b}
    arguments = {"a": a, **right, "c": c, **sizes, **cuts, **extra}
    assert Call(kernel, arguments, choice.form.vector_bytes)() == 0
    return c


def panels(b, d, form):
    """b [1, k, n] as ``compiler.constants`` packs it."""
    _, k, n = b.shape
    total = tiles.accumulator(d)
    width = tiles.shape_for(form.vector_bytes, total).width
    count = -(-n // width)
    whole = np.zeros((k, count * width), storage(total))
    whole[:, :n] = values(b[0], d)
    return guarded(whole.reshape(k, count, width).transpose(1, 0, 2).reshape(-1))


def chosen(a, b, d, width, count=1, ready=False):
    batch, m, k = a.shape
    steps = [tuple(s // x.itemsize for s in x.strides[1:]) for x in (a, b)]
    return choose_matmul.choose(
        d, batch, m, b.shape[2], k, *steps, vector_bytes=width, threads=count, ready=ready
    )


def close(got, a, b, d):
    want = np.matmul(values(a, d), values(b, d))
    if not d.is_floating_point:
        return (got == want.astype(storage(d))).all()
    digits = {D.float64: 1e-13, D.float32: 1e-5, D.float16: 2e-3, D.bfloat16: 1e-2}[d]
    scale = np.matmul(abs(values(a, d)), abs(values(b, d)))
    return (abs(values(got, d) - want) <= digits * scale + 1e-30).all()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("b_last", [True, False])
@pytest.mark.parametrize("a_last", [True, False])
def test_float32_of_odd_shapes(width, a_last, b_last):
    rng = np.random.default_rng(1)
    for batch in (1, 3):
        for m, n, k in SIZES:
            a = laid_out(rng, (batch, m, k), a_last, D.float32)
            b = laid_out(rng, (batch, k, n), b_last, D.float32)
            got = product(a, b, D.float32, chosen(a, b, D.float32, width))
            assert close(got, a, b, D.float32), (batch, m, n, k)


@pytest.mark.parametrize(
    "d", [D.float64, D.float16, D.bfloat16, D.int64, D.int32, D.int8, D.uint8], ids=lambda d: d.name
)
def test_other_dtypes(d):
    rng = np.random.default_rng(2)
    for m, n, k in ((5, 33, 600), (3, 7, 530), (17, 20, 9), (40, 10, 515), (300, 50, 520)):
        for b_last in (True, False):
            a, b = laid_out(rng, (2, m, k), True, d), laid_out(rng, (2, k, n), b_last, d)
            got = product(a, b, d, chosen(a, b, d, WIDTHS[-1]))
            assert close(got, a, b, d), (m, n, k, b_last)


def forms(d, width, a_last, b_last):
    """Every variant that can do it, with cuts of few rows and columns."""
    units = "k" if a_last else "m", "n" if b_last else "k"
    shape = tiles.shape_for(width, tiles.accumulator(d))
    form = matmul.Form("packed", d, *units, False, False, width)
    yield choose_matmul.Choice(form, shape.height, shape.width)
    yield choose_matmul.Choice(form, 8 * shape.height, 8 * shape.width)
    form = form._replace(variant="direct")
    for rows in (1, 3, 8, 60):
        yield choose_matmul.Choice(form, rows, 2 * shape.width)


@pytest.mark.parametrize("d", [D.float32, D.float64, D.float16], ids=lambda d: d.name)
def test_all_variants_give_the_same_bits(d):
    rng = np.random.default_rng(3)
    a, b = laid_out(rng, (1, 19, 1100), True, d), laid_out(rng, (1, 1100, 45), True, d)
    a_turned = np.ascontiguousarray(a.transpose(0, 2, 1)).transpose(0, 2, 1)
    b_turned = np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(0, 2, 1)
    known = None
    for a_last, x in ((True, a), (False, a_turned)):
        for b_last, y in ((True, b), (False, b_turned)):
            for choice in forms(d, WIDTHS[-1], a_last, b_last):
                got = product(x, y, d, choice).tobytes()
                known = known or got
                assert got == known, choice
    for width in WIDTHS:
        for count in (1, 3):
            for ready in (False, True):
                choice = chosen(a, b, d, width, count, ready)
                assert product(a, b, d, choice).tobytes() == known, choice
                low = choice.form._replace(low=ready)
                got = product(a_turned, b, d, choice._replace(form=low._replace(a_unit="m")))
                assert not ready or got.tobytes() == known, low


def test_a_row_alone_is_the_row_among_others():
    rng = np.random.default_rng(4)
    for b_last in (True, False):
        a = laid_out(rng, (1, 300, 600), True, D.float32)
        b = laid_out(rng, (1, 600, 40), b_last, D.float32)
        whole = product(a, b, D.float32, chosen(a, b, D.float32, WIDTHS[-1]))
        for first, last in ((0, 1), (7, 10), (100, 130), (299, 300)):
            some = a[:, first:last]
            got = product(some, b, D.float32, chosen(some, b, D.float32, WIDTHS[-1]))
            assert got.tobytes() == whole[:, first:last].tobytes(), (first, last, b_last)
        column = b[:, :, 5:6]
        got = product(a, column, D.float32, chosen(a, column, D.float32, WIDTHS[-1]))
        assert chosen(a, column, D.float32, WIDTHS[-1]).form.swapped
        assert got.tobytes() == whole[:, :, 5:6].tobytes()


def test_threads_change_no_bit():
    rng = np.random.default_rng(5)
    before = threads.get_num_threads()
    try:
        for batch, m, n, k in ((1, 400, 300, 520), (1, 8, 700, 300), (6, 40, 33, 50)):
            for b_last in (True, False):
                a = laid_out(rng, (batch, m, k), True, D.float32)
                b = laid_out(rng, (batch, k, n), b_last, D.float32)
                results = set()
                for count in (1, 2):
                    threads.set_num_threads(count)
                    choice = chosen(a, b, D.float32, WIDTHS[-1], count)
                    results.add(product(a, b, D.float32, choice).tobytes())
                assert len(results) == 1
    finally:
        threads.set_num_threads(before)


def test_strides_of_any_size_and_broadcast_batches():
    rng = np.random.default_rng(6)
    wide = rng.standard_normal((4, 40, 60)).astype(np.float32)
    a, b = wide[:, ::2, ::3], np.broadcast_to(wide[:1, :40:2, :17], (4, 20, 17))
    got = product(a, b, D.float32, chosen(a, b, D.float32, WIDTHS[-1]))
    assert close(got, a, b, D.float32)
    b = wide[:, ::2, ::3]
    got = product(wide[:, :, :20], b, D.float32, chosen(wide[:, :, :20], b, D.float32, WIDTHS[-1]))
    assert close(got, wide[:, :, :20], b, D.float32)


def test_batches_of_two_dimensions():
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 20, 3, 16)).astype(np.float32)
    a, b = x.transpose(0, 2, 1, 3), x.transpose(0, 2, 3, 1)
    for d_width in WIDTHS:
        choice = choose_matmul.choose(
            D.float32, 6, 20, 20, 16, (48, 1), (1, 48), vector_bytes=d_width, threads=1
        )
        c = guarded(np.zeros(6 * 400, np.float32)).reshape(2, 3, 20, 20)
        sizes = (6, 20, 20, 16, 960, 48, 1, 960, 1, 48, 1200, 20, 3, 16, 16, 400)
        arguments = dict(
            zip(matmul.SIZES, sizes), row_cut=choice.row_cut, column_cut=choice.column_cut
        )
        assert (
            Call(matmul.build(choice.form), {"a": a, "b": b, "c": c, **arguments}, d_width)() == 0
        )
        np.testing.assert_allclose(c, np.matmul(a, b), rtol=1e-4, atol=1e-4)


def test_rows_of_the_result_may_lie_apart():
    rng = np.random.default_rng(7)
    a, b = laid_out(rng, (2, 20, 30), True, D.float32), laid_out(rng, (2, 30, 40), True, D.float32)
    place = np.zeros((2, 20, 64), np.float32)
    got = product(a, b, D.float32, chosen(a, b, D.float32, WIDTHS[-1]), place[:, :, 8:48])
    assert close(got, a, b, D.float32) and not place[:, :, :8].any() and not place[:, :, 48:].any()


@pytest.mark.parametrize("sizes", [(4, 30, 1100), (40, 30, 1100), (300, 50, 600), (50, 1, 600)])
def test_epilogue_sees_sums_and_indices_once(sizes):
    m, n, k = sizes

    def epilogue(builder):
        bias = builder.buffer("bias", D.float32)
        factor = builder.scalar("factor")

        def finish(value, batch, m, n):
            scaled = (value + bias[n]) * L.cast(factor, D.float32)
            return scaled + L.cast(m, D.float32)

        return finish

    rng = np.random.default_rng(8)
    for b_last in (True, False):
        a = laid_out(rng, (1, m, k), True, D.float32)
        b = laid_out(rng, (1, k, n), b_last, D.float32)
        bias = guarded(rng.standard_normal(n).astype(np.float32))
        choice = chosen(a, b, D.float32, WIDTHS[-1])
        plain = product(a, b, D.float32, choice)
        c = guarded(np.zeros(m * n)).reshape(1, m, n)
        got = product(a, b, D.float32, choice, c, epilogue=epilogue, out=D.float64, bias=bias,
                      factor=3.0)  # fmt: skip
        want = (plain + bias) * np.float32(3) + np.arange(m, dtype=np.float32)[None, :, None]
        assert (got == want).all()


def test_not_a_number_stays_in_its_row_and_column():
    a, b = np.ones((1, 20, 40), np.float32), np.ones((1, 40, 50), np.float32)
    a[0, 19, 3], b[0, 5, 49] = np.nan, np.inf
    got = product(a, b, D.float32, chosen(a, b, D.float32, WIDTHS[-1]))[0]
    assert np.isnan(got[19]).all() and np.isinf(got[:19, 49]).all()
    assert (got[:19, :49] == 40).all()
