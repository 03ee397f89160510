"""Gradients of views with several results: one node, one gradient for all parts."""

from __future__ import annotations

import pytest

import facula

SPLITS = [
    lambda x: x.unbind(0),
    lambda x: x.unbind(1),
    lambda x: x.chunk(2, dim=1),
    lambda x: x.split([1, 3], dim=1),
    lambda x: x.t().split(2),
]


def weights(part, k):
    return facula.arange(float(part.numel())).reshape(part.shape) + k


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("used", [slice(None), slice(1, 2)])
def test_gradient_of_parts(split, used):
    x = facula.arange(12.0).reshape(3, 4).requires_grad_()
    y = facula.arange(12.0).reshape(3, 4).requires_grad_()
    parts = split(x)[used]
    sum((part * weights(part, k)).sum() for k, part in enumerate(parts)).backward()
    # The same without views: each part copied out of the whole by a mask.
    whole = facula.zeros(3, 4)
    for k, part in enumerate(split(whole)[used]):
        part.copy_(weights(part, k))
    (y * whole).sum().backward()
    assert x.grad.tolist() == y.grad.tolist()
    assert len({part.grad_fn for part in parts}) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_second_derivative(split):
    x = facula.arange(12.0).reshape(3, 4).requires_grad_()
    total = sum((part * part * part).sum() for part in split(x))
    (first,) = facula.autograd.grad(total, x, create_graph=True)
    first.sum().backward()
    assert x.grad.tolist() == (6 * x).tolist()


def test_change_of_a_part_in_place():
    x = facula.ones(2, 3, requires_grad=True)
    y = x * 2
    a, b = y.unbind(0)
    b.mul_(5)
    (a.sum() + y.sum()).backward()
    assert x.grad.tolist() == [[4.0] * 3, [10.0] * 3]
