"""Scans against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from running import guarded, run

from facula.base import dtypes as D
from facula.kernels import scan

SHAPES = [
    (1, 1, 1),
    (3, 7, 1),
    (2, 9, 5),
    (1, 4, 300),
    (2, 0, 3),
    (0, 3, 2),
    (5, 33, 17),
    (3, 300, 1),
]


def flat(array):
    return guarded(np.ascontiguousarray(array).reshape(-1))


def scanned(how, d, x, method):
    outer, n, inner = x.shape
    y = flat(np.zeros_like(x))
    more = {"index": flat(np.zeros(x.shape, np.int64))} if how in ("cummax", "cummin") else {}
    kernel = scan.build(how, d, method)
    assert run(kernel, x=flat(x), y=y, outer=outer, n=n, inner=inner, **more) == 0
    return y.reshape(x.shape), more["index"].reshape(x.shape) if more else None


@pytest.mark.parametrize("method", ["lanes", "lines", "turns"])
@pytest.mark.parametrize("how", ["cumsum", "cumprod"])
def test_running_sums_and_products(how, method):
    rng = np.random.default_rng(1)
    for d, digits in ((D.float32, 1e-4), (D.float64, 1e-12), (D.int64, 0), (D.float16, 1e-2)):
        for shape in SHAPES:
            x = rng.uniform(0.5, 1.5, shape).astype(d.numpy())
            if d is D.int64:
                x = rng.integers(-3, 4, shape)
            y, _ = scanned(how, d, x, method)
            want = getattr(np, how)(x.astype(np.float64 if digits else np.int64), axis=1)
            np.testing.assert_allclose(y, want.astype(d.numpy()), rtol=digits, atol=digits)


@pytest.mark.parametrize("method", ["lanes", "lines"])
@pytest.mark.parametrize("how", ["cummax", "cummin"])
def test_running_extremes_and_where_they_are(how, method):
    rng = np.random.default_rng(2)
    for d in (D.float32, D.float64, D.int32, D.uint8):
        for shape in SHAPES:
            x = rng.integers(0, 5, shape).astype(d.numpy())
            if d.is_floating_point and x.size > 3:
                x.reshape(-1)[rng.integers(0, x.size, 2)] = np.nan
            y, index = scanned(how, d, x, method)
            want = (np.maximum if how == "cummax" else np.minimum).accumulate(x, axis=1)
            np.testing.assert_array_equal(y, want)
            places = np.arange(shape[1])[None, :, None]
            hits = np.where((x == want) | (np.isnan(x) & np.isnan(want)), places, -1)
            np.testing.assert_array_equal(index, np.maximum.accumulate(hits, axis=1))


def test_lines_in_lanes_and_alone_have_the_same_bits():
    x = np.random.default_rng(4).standard_normal((3, 100, 20)).astype(np.float32)
    one, *others = (scanned("cumsum", D.float32, x, m)[0] for m in ("lanes", "lines", "turns"))
    assert all(one.tobytes() == other.tobytes() for other in others)


@pytest.mark.parametrize("n", [0, 1, 9, scan.COUNTED, 2 * scan.COUNTED + 5])
def test_positions_of_true_elements(n):
    mask = np.random.default_rng(5).random(n) < 0.3
    want = np.flatnonzero(mask)
    blocks = -(-n // scan.COUNTED)
    ends = np.array([mask[: (b + 1) * scan.COUNTED].sum() for b in range(blocks)], np.int64)
    for room in (len(want), len(want) // 2):  # Less room than there should be is never left.
        y = flat(np.zeros(room, np.int64))
        sizes = {"n": n, "blocks": blocks, "room": room}
        assert run(scan.compact(), mask=flat(mask), ends=flat(ends), y=y, **sizes) == 0
        np.testing.assert_array_equal(y, want[:room])
