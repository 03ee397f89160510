"""The gradient of max pooling against a walk over all windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from running import guarded, run

from facula.base import dtypes as D
from facula.kernels import pool

#: input, window, stride, padding, dilation, ceil
CASES = [
    ((8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((9, 7), (3, 3), (2, 2), (1, 1), (1, 1), False),
    ((7, 5), (3, 2), (1, 3), (1, 0), (2, 1), False),
    ((7, 7), (2, 2), (2, 2), (0, 0), (1, 1), True),
    ((11,), (4,), (3,), (2,), (1,), False),
    ((4, 5, 6), (2, 2, 3), (2, 1, 2), (1, 0, 1), (1, 1, 1), False),
]


def oracle(x, g, kernel, stride, padding, dilation):
    y = np.zeros(x.shape)
    for place in np.ndindex(*g.shape):
        best, at = None, None
        for taps in itertools.product(*map(range, kernel)):
            where = [
                q * s - p + t * d
                for q, s, p, t, d in zip(place[2:], stride, padding, taps, dilation)
            ]
            if all(0 <= w < n for w, n in zip(where, x.shape[2:])):
                value = x[(*place[:2], *where)]
                if at is None or value > best or (np.isnan(value) and not np.isnan(best)):
                    best, at = value, (*place[:2], *where)
        y[at] += g[place]
    return y


def steps(a):
    return tuple(s // a.itemsize for s in a.strides)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    space, kernel, stride, padding, dilation, ceil = case
    out = [
        (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil else 0)) // s + 1
        for n, p, d, k, s in zip(space, padding, dilation, kernel, stride)
    ]
    rng = np.random.default_rng(1)
    for d in (D.float32, D.float64):
        x = rng.integers(-3, 4, (2, 3, *space)).astype(d.numpy())
        x.reshape(-1)[rng.integers(0, x.size, 3)] = np.nan
        x.reshape(-1)[rng.integers(0, x.size, 9)] = -np.inf
        x = guarded(x.reshape(-1)).reshape(x.shape)
        for g in (
            rng.integers(-9, 9, (2, 3, *out)).astype(d.numpy()),
            np.broadcast_to(d.numpy().type(2), (2, 3, *out)),
        ):
            sizes = pool.sizes_of(x.shape, g.shape, (steps(x), steps(g)), padding)
            windows = [(1,) * (3 - len(v)) + v for v in (kernel, stride, dilation)]
            units = sizes["x_2"] == 1, sizes["g_2"] == 1
            form = pool.Form(d, *windows, pool.all_inside(sizes, *windows), *units)
            y = guarded(np.full(x.size, 7, d.numpy()))
            assert run(pool.max_gradient(form), x=x, g=g, y=y, **sizes) == 0
            want = oracle(x, g, kernel, stride, padding, dilation)
            np.testing.assert_array_equal(y.reshape(x.shape), want)
