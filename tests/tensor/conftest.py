"""Helpers of the tensor layer's tests."""

from __future__ import annotations

import numpy as np
import pytest

from facula.tensor import from_numpy


@pytest.fixture
def make():
    """``make(2, 3)``: a float64 leaf of that shape; the same numbers in every run."""
    rng = np.random.default_rng(7)

    def build(*shape, low=-2.0, high=2.0, grad=True):
        x = from_numpy(rng.uniform(low, high, shape))
        return x.requires_grad_(grad)

    return build


def numeric(f, inputs, g=None, eps=1e-6):
    """Central differences of ``(f(*inputs) * g).sum()`` by every element of every input."""
    grads = []
    for x in inputs:
        a = x.detach().numpy()
        d = np.zeros_like(a)
        for i in np.ndindex(*a.shape):
            keep = a[i]
            a[i] = keep + eps
            up = f(*inputs).detach().numpy()
            a[i] = keep - eps
            down = f(*inputs).detach().numpy()
            a[i] = keep
            d[i] = ((up - down) * (1 if g is None else g)).sum() / (2 * eps)
        grads.append(d)
    return grads


def compare(f, *inputs):
    """Compare backward of ``f(*inputs)`` with finite differences."""
    y = f(*inputs)
    g = np.random.default_rng(3).uniform(-1, 1, tuple(y.shape))
    expected = numeric(f, inputs, g)
    for x in inputs:
        x.grad = None
    y.backward(from_numpy(g))
    for x, e in zip(inputs, expected):
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), e, rtol=1e-5, atol=1e-7)


@pytest.fixture
def check_gradients():
    """``check_gradients(f, *inputs)``: backward of ``f`` against finite differences."""
    return compare
