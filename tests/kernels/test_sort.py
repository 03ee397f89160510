"""Sorting and searching against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from running import guarded, run, storage

from facula.base import dtypes as D
from facula.kernels import sort

SHAPES = [(1, 1, 1), (3, 7, 1), (2, 9, 5), (1, 150, 3), (2, 0, 3), (0, 3, 2), (2, 1000, 2)]


def flat(array):
    return guarded(np.ascontiguousarray(array).reshape(-1))


def sample(rng, d, shape):
    if d is D.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if not d.is_floating_point:
        info = np.iinfo(d.name)
        wide = rng.integers(info.min, info.max, shape, dtype=d.name, endpoint=True)
        return np.where(rng.random(shape) < 0.5, wide, rng.integers(0, 5, shape).astype(d.name))
    x = rng.integers(-4, 5, shape) * 10.0 ** rng.integers(-2, 4, shape)
    for special in (np.nan, np.inf, -np.inf, -0.0, 0.0):
        x = np.where(rng.random(shape) < 0.05, special, x)
    with np.errstate(over="ignore"):
        return x.astype(storage(d))


def order(x, descending):
    """Stable positions; NaN counts as the largest."""
    if not descending:
        return np.argsort(x, axis=1, kind="stable")
    turned = np.argsort(np.flip(x, 1), axis=1, kind="stable")
    return np.flip(x.shape[1] - 1 - turned, 1)


@pytest.mark.parametrize("method", ["rank", "radix", "wide"])
@pytest.mark.parametrize("d", [d for d in D.ALL if d is not D.bfloat16], ids=lambda d: d.name)
def test_values_and_positions(d, method):
    rng = np.random.default_rng(1)
    for descending in (False, True):
        kernel = sort.build(d, descending, method)
        for shape in SHAPES:
            x = sample(rng, d, shape)
            y, index = flat(np.zeros_like(x)), flat(np.zeros(shape, np.int64))
            outer, n, inner = shape
            assert run(kernel, x=flat(x), y=y, index=index, outer=outer, n=n, inner=inner) == 0
            want = order(x, descending)
            np.testing.assert_array_equal(index.reshape(shape), want)
            assert y.tobytes() == np.take_along_axis(x, want, 1).tobytes()


def test_positions_alone():
    x = np.random.default_rng(2).standard_normal((4, 30, 1)).astype(np.float32)
    index = flat(np.zeros(x.shape, np.int64))
    kernel = sort.build(D.float32, False, "rank", values=False)
    assert run(kernel, x=flat(x), index=index, outer=4, n=30, inner=1) == 0
    np.testing.assert_array_equal(index.reshape(x.shape), np.argsort(x, axis=1))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("of", [sort.topk, sort.many])
def test_first_elements(largest, of):
    rng = np.random.default_rng(4)
    for d in (D.float32, D.int64, D.uint8, D.float16):
        kernel = of(d, largest)
        for outer, n, inner in ((1, 1, 1), (3, 10, 1), (2, 7, 5), (2, 1000, 2), (0, 5, 2)):
            for k in {1, min(5, n), n}:
                x = sample(rng, d, (outer, n, inner))
                y = flat(np.zeros((outer, k, inner), x.dtype))
                index = flat(np.zeros((outer, k, inner), np.int64))
                sizes = {"outer": outer, "n": n, "inner": inner, "k": k}
                assert run(kernel, x=flat(x), y=y, index=index, **sizes) == 0
                want = order(x, largest)[:, :k]
                np.testing.assert_array_equal(index.reshape(want.shape), want)
                assert y.tobytes() == np.take_along_axis(x, want, 1).tobytes()


@pytest.mark.parametrize("right", [False, True])
def test_searching(right):
    rng = np.random.default_rng(3)
    side = "right" if right else "left"
    for d in (D.float32, D.int64, D.float64):
        kernel = sort.search(d, right)
        for n in (0, 1, 2, 7, 64, 100):
            sequence = np.sort(rng.integers(-9, 10, (3, n)), axis=1).astype(d.numpy())
            x = rng.integers(-11, 12, (3, 50)).astype(d.numpy())
            y = flat(np.zeros((3, 50), np.int64))
            sizes = {"rows": 3, "n": n, "m": 50, "row_step": n, "top": sort.search_steps(n)}
            assert run(kernel, sequence=flat(sequence), x=flat(x), y=y, **sizes) == 0
            want = [np.searchsorted(s, v, side) for s, v in zip(sequence, x)]
            np.testing.assert_array_equal(y.reshape(3, 50), want)
