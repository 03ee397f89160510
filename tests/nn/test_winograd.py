"""``facula.backends.cpu.winograd``: what it switches, and that results stay near those without."""

from __future__ import annotations

import pytest

import facula
from facula.nn import functional as F


@pytest.fixture
def switch():
    before = facula.backends.cpu.winograd
    yield facula.backends.cpu
    facula.backends.cpu.winograd = before


def results(dtype=facula.float32):
    facula.manual_seed(0)
    x = facula.randn(2, 16, 8, 8, dtype=dtype, requires_grad=True)
    w = facula.randn(24, 16, 3, 3, dtype=dtype, requires_grad=True)
    y = F.conv2d(x, w, padding=1)
    return y, *facula.autograd.grad(y.sin().sum(), (x, w))


def test_it_changes_bits_and_little_else(switch):
    switch.winograd = True
    fast = results()
    switch.winograd = False
    direct = results()
    assert not facula.equal(fast[0], direct[0])
    for a, b in zip(fast, direct):
        assert (a - b).norm() < 1e-5 * b.norm()


def test_double_precision_is_summed_directly(switch):
    switch.winograd = True
    fast = results(facula.float64)
    switch.winograd = False
    assert all(facula.equal(a, b) for a, b in zip(fast, results(facula.float64)))


@pytest.mark.parametrize("on", [True, False])
def test_captured_is_eager_to_the_bit_and_no_row_knows_its_batch(switch, on):
    switch.winograd = on
    x, w = facula.randn(5, 20, 7, 9), facula.randn(17, 20, 3, 3)
    conv = lambda x, w: F.relu(F.conv2d(x, w, padding=1))  # noqa: E731
    y = conv(x, w)
    assert facula.equal(facula.compile(conv)(x, w), y)
    assert facula.equal(conv(x[2:3], w), y[2:3])


def test_it_is_a_bool(switch):
    with pytest.raises(TypeError, match="bool"):
        switch.winograd = 1
