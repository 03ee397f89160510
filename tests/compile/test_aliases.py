"""Results of captured functions that are views of what they were given, or are it."""

from __future__ import annotations

import pytest

import facula
from facula import nn
from facula.eager.capture import CaptureError


def both(fn, make):
    """What is left of eager and of captured calls, for several calls of each."""
    captured = facula.compile(fn, fullgraph=True)
    return [make(fn) for _ in range(3)], [make(captured) for _ in range(3)]


def test_a_view_of_an_argument_shows_its_memory():
    def change(fn):
        x = facula.arange(6.0).reshape(2, 3)
        row, flat, turned = fn(x)
        row.add_(10)
        flat[5] = -1
        turned[0, 1] = 7
        return x.tolist(), tuple(turned.shape)

    expected, found = both(lambda x: (x[1], x.view(-1), x.t()), change)
    assert found == expected


def test_a_view_taken_before_a_change_shows_it():
    def fn(x):
        first = x[0]
        x.add_(1)
        return first, x

    def change(fn):
        x = facula.zeros(2, 2)
        first, same = fn(x)
        first.mul_(5)
        return x.tolist(), same is x

    expected, found = both(fn, change)
    assert found == expected and found[0][1]


def test_views_of_parameters_pass_gradients_and_detached_ones_do_not():
    p = nn.Parameter(facula.arange(6.0).reshape(2, 3))

    def use(fn):
        row, detached = fn(facula.ones(3))
        p.grad = None
        (row * 2).sum().backward()
        assert not detached.requires_grad and detached.data_ptr() == p.data_ptr()
        return p.grad.tolist()

    expected, found = both(lambda x: (p[0], p.detach()), use)
    assert found == expected


def test_a_reshape_copies_where_strides_ask_for_it():
    fn = facula.compile(lambda x: x.reshape(-1), fullgraph=True)
    for x, shares in ((facula.zeros(2, 3), True), (facula.zeros(3, 2).t(), False)):
        fn(x).add_(1)
        assert bool(x.sum() == 6) is shares


def test_generators_run_as_they_are():
    def several(x):
        for k in range(3):
            yield x * k

    with pytest.warns(UserWarning, match="does not run to its end"):
        fn = facula.compile(several)
    assert [y.item() for y in fn(facula.tensor(2.0))] == [0.0, 2.0, 4.0]
    with pytest.raises(CaptureError):
        facula.compile(several, fullgraph=True)


def test_the_default_dtype_is_part_of_what_a_capture_assumes():
    fn = facula.compile(lambda: facula.zeros(2) + 1, fullgraph=True)
    assert fn().dtype is facula.float32
    facula.set_default_dtype(facula.float64)
    try:
        assert fn().dtype is facula.float64
    finally:
        facula.set_default_dtype(facula.float32)
    assert fn().dtype is facula.float32
