"""Shapes are arguments: once an op has run, no other size makes anything compile."""

from __future__ import annotations

import pytest

import facula as fc
from facula.runtime import jit

SIZES = (2, 3, 8, 13, 16, 33, 100, 257, 400)


@pytest.fixture
def compiled(monkeypatch):
    """The texts that LLVM is given."""
    texts, compile_object = [], jit.compile_object
    monkeypatch.setattr(jit, "compile_object", lambda *a: texts.append(a) or compile_object(*a))
    return texts


def products(across, turned):
    """All sizes of a product, of operands that lie as said."""
    for m in SIZES:
        for n in SIZES:
            k = SIZES[(m * n) % len(SIZES)]
            a, b = fc.randn(k, m).t() if across else fc.randn(m, k), fc.randn(k, n)
            yield a, fc.randn(n, k).t() if turned else b


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_of_new_sizes_compiles_nothing(compiled, across, turned):
    for i, (a, b) in enumerate(products(across, turned)):
        fc.matmul(a, b)
        if i == 0:
            compiled.clear()
    assert not compiled


def test_a_captured_layer_of_new_sizes_compiles_nothing(compiled):
    layer = fc.nn.Sequential(fc.nn.Linear(33, 70), fc.nn.GELU(), fc.nn.Linear(70, 5))
    captured = fc.compile(layer)

    def step(batch):
        layer.zero_grad()
        captured(fc.randn(batch, 33)).square().mean().backward()

    step(4)
    compiled.clear()
    for batch in (2, 3, 12, 13, 25, 100, 300, 700):
        step(batch)
    assert not compiled


def test_batches_of_products_of_new_sizes_compile_nothing(compiled):
    for i, n in enumerate((4, 2, 17, 64, 100, 300)):
        x = fc.randn(2, n, 4, 16).transpose(1, 2)
        fc.matmul(fc.softmax(fc.matmul(x, x.transpose(-1, -2)), -1), x)
        if i == 0:
            compiled.clear()
    assert not compiled
