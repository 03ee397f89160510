"""Subscripts and creation inside of captured functions: the same values, for other sizes too."""

from __future__ import annotations

import pytest

import facula

I = facula.tensor([0, 2])  # noqa: E741  a captured constant


def assigned(x):
    y = facula.zeros_like(x)
    y[:, 1] = x[:, 0]
    y[0, 2:4] = 5.0
    return y


def scattered(x):
    y = x.clone()
    y[I] = 0.0
    y[:, I] = y[:, I] * 3
    return y


FUNCTIONS = {
    "int": lambda x: x[1], "last": lambda x: x[-1], "slice": lambda x: x[:, 1:3] * 2,
    "step": lambda x: x[::2, 1::2], "none": lambda x: x[:, None, ..., 0],
    "ints": lambda x: x[I] * 1.0, "pairs": lambda x: x[I, I] * 1.0,
    "list": lambda x: x[:, [0, 2]] + 0,
    "zeros": lambda x: x + facula.zeros(x.shape[1]),
    "arange": lambda x: x + facula.arange(x.shape[1]),
    "like": lambda x: x + facula.ones_like(x), "full": lambda x: x + x.new_full((x.shape[1],), 2.0),
    "mask": lambda x: x.masked_fill(facula.ones(x.shape[0], x.shape[1]).tril() == 0, 0.0),
    "assigned": assigned, "scattered": scattered, "max": lambda x: x.max(1)[0],
    "einsum": lambda x: facula.einsum("ij,kj->ik", x, x), "sorted": lambda x: x.sort(1).values,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_captured_as_eager(name):
    fn = FUNCTIONS[name]
    captured = facula.compile(fn, fullgraph=True)
    for shape in ((4, 6), (4, 6), (7, 5)):
        x = facula.randn(shape)
        assert captured(x).tolist() == fn(x).tolist()
