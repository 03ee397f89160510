"""Sums of bags of rows against loops."""

from __future__ import annotations

import numpy as np
import pytest
from running import guarded, run

from facula.base import dtypes as D
from facula.kernels import bags


def summed(d, x, starts, index, count, mean=False, width=64):
    y = guarded(np.zeros(count * x.shape[1], x.dtype))
    operands = {"x": guarded(x.reshape(-1)), "starts": guarded(starts), "index": guarded(index)}
    sizes = {"rows": len(x), "count": len(index), "given": len(starts), "bags": count}
    kernel = bags.build(d, mean)
    return run(kernel, width, y=y, inner=x.shape[1], **operands, **sizes), y.reshape(count, -1)


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("mean", [False, True])
def test_sums_and_means(mean, width):
    rng = np.random.default_rng(1)
    for d in (D.float32, D.float16) if width == 64 else (D.float32,):
        for inner in (1, 5, 64, 200):
            x = rng.integers(-8, 9, (9, inner)).astype(d.numpy())
            index = rng.integers(0, 9, 12)
            for starts, count in (([0, 3, 3, 8], 4), ([0, 3, 12, 12], 3), ([0], 1)):
                status, y = summed(d, x, np.array(starts), index, count, mean, width)
                ends = [*starts, 12][: count + 1]
                want = [x[index[a:b]].sum(0, np.float64) for a, b in zip(ends, ends[1:])]
                sizes = np.maximum(np.diff(ends), 1)[:, None] if mean else 1
                assert status == 0
                np.testing.assert_allclose(y, (np.array(want) / sizes).astype(x.dtype), rtol=1e-3)


def test_what_is_out_of_range_is_told():
    x, index = np.ones((4, 3), np.float32), np.array([0, 3, 1])
    far = 1 << 62
    for starts in ([1, 2], [0, 4], [0, -1], [0, far], [0, 2, 1], [-far, 0]):
        status, _ = summed(D.float32, x, np.array(starts), index, len(starts))
        assert status == bags.STATUS_START
    for bad in (-1, 4, far, -far):
        status, _ = summed(D.float32, x, np.array([0, 1]), np.array([0, bad, 1]), 2)
        assert status == bags.STATUS_ROW
