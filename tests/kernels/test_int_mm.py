"""Products of narrow integers: exact at the ends of their range, and refused where they must be."""

from __future__ import annotations

import numpy as np
import pytest

import facula as fc

SIZES = [(17, 33, 65), (1, 5, 3), (300, 100, 77), (13, 1, 600), (100, 200, 1030), (4, 4, 0)]


def extreme(rng, dtype, *shape):
    """Random numbers, a third of them the least or the greatest."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = rng.integers(least, most + 1, shape)
    ends = rng.integers(0, 6, shape)
    return np.where(ends == 0, least, np.where(ends == 1, most, x)).astype(dtype)


@pytest.mark.parametrize("dtypes", [("int8", "int8"), ("uint8", "int8"), ("uint8", "uint8")])
def test_int_mm_is_exact(dtypes):
    rng = np.random.default_rng(0)
    for m, n, k in SIZES:
        a, b = extreme(rng, dtypes[0], m, k), extreme(rng, dtypes[1], k, n)
        want = a.astype(np.int32) @ b.astype(np.int32)
        x, y = fc.from_numpy(a), fc.from_numpy(b)
        for left in (x, fc.from_numpy(a.T.copy()).t()):
            for right in (y, fc.from_numpy(b.T.copy()).t()):
                got = fc._int_mm(left, right)
                assert got.dtype is fc.int32 and (got.numpy() == want).all(), (m, n, k)
        if dtypes[0] == dtypes[1]:
            assert (fc.matmul(x, y).numpy() == want.astype(dtypes[0])).all()


def test_products_of_int16_wrap():
    rng = np.random.default_rng(1)
    a, b = extreme(rng, "int16", 40, 77), extreme(rng, "int16", 77, 50)
    want = (a.astype(np.int32) @ b.astype(np.int32)).astype(np.int16)
    assert (fc.matmul(fc.from_numpy(a), fc.from_numpy(b)).numpy() == want).all()


def test_what_follows_sees_the_whole_sum():
    x = fc.full((30, 70), -128, dtype=fc.int8)
    f = fc.compile(lambda x: fc._int_mm(x, x.t()).float() * 0.5)
    assert (f(x).numpy() == 0.5 * 70 * 128**2).all()
    assert (fc._int_mm(x, x.t()).t().numpy() == 70 * 128**2).all()


@pytest.mark.parametrize(
    "shapes, dtype",
    [(((2, 3), (4, 2)), fc.int8), (((3,), (3, 2)), fc.int8), (((2, 3), (3, 2)), fc.float32)],
)
def test_refusals(shapes, dtype):
    a, b = (fc.ones(shape, dtype=dtype) for shape in shapes)
    with pytest.raises(RuntimeError, match="_int_mm"):
        fc._int_mm(a, b)
