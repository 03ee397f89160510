"""Subscripts against NumPy on random expressions, and PyTorch's rules where the two differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import facula

SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4).map(tuple)


@st.composite
def basic(draw, n):
    kind = draw(st.sampled_from(["int", "slice", "slice", "all"]))
    if kind == "int" and n:
        return draw(st.integers(-n, n - 1))
    if kind == "slice":
        bound = st.none() | st.integers(-n - 1, n + 1)
        return slice(draw(bound), draw(bound), draw(st.none() | st.integers(1, 3)))
    return slice(None)


@st.composite
def subscripts(draw, shape):
    """A tuple of basic subscripts, with None and possibly one Ellipsis."""
    count = draw(st.integers(0, len(shape)))
    parts = []
    dots = draw(st.booleans())
    before = draw(st.integers(0, count)) if dots else count
    for i in range(before):
        parts.append(draw(basic(shape[i])))
    if dots:
        parts.append(Ellipsis)
        for i in range(count - before):
            parts.append(draw(basic(shape[len(shape) - (count - before) + i])))
    for _ in range(draw(st.integers(0, 2))):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


@st.composite
def case(draw):
    shape = draw(SHAPES)
    return shape, draw(subscripts(shape))


def array(shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


@settings(max_examples=200, deadline=None)
@given(case())
def test_basic_subscripts_are_views(drawn):
    shape, index = drawn
    a = array(shape)
    x = facula.tensor(a)
    expected = a[index]
    found = x[index]
    note(f"shape {shape} index {index}")
    assert tuple(found.shape) == np.shape(expected)
    np.testing.assert_array_equal(found.numpy(), expected)
    if found.numel():
        assert found._storage is x._storage
        assert found.storage_offset() == (
            (expected.__array_interface__["data"][0] - a.__array_interface__["data"][0]) // 4
            if isinstance(expected, np.ndarray)
            else found.storage_offset()
        )


@settings(max_examples=100, deadline=None)
@given(case(), st.booleans())
def test_assignment_to_basic_subscripts(drawn, scalar):
    shape, index = drawn
    a = array(shape)
    x = facula.tensor(a)
    value = np.float32(-1.5) if scalar else -array(np.shape(a[index])) - 1
    a[index] = value
    x[index] = -1.5 if scalar else facula.tensor(np.asarray(value))
    note(f"shape {shape} index {index}")
    np.testing.assert_array_equal(x.numpy(), a)


@st.composite
def advanced(draw):
    """Tensors of ints at some dimensions, slices at the others: (shape, index for NumPy)."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    chosen = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    if not any(chosen):
        chosen[draw(st.integers(0, len(shape) - 1))] = True
    parts = []
    for n, by_tensor in zip(shape, chosen):
        if by_tensor:
            own = draw(st.sampled_from([common, common[-1:], (1,)])) if common else (2,)
            count = int(np.prod(own, dtype=int))
            values = draw(st.lists(st.integers(-n, n - 1), min_size=count, max_size=count))
            parts.append(np.array(values, dtype=np.int64).reshape(own))
        else:
            parts.append(draw(st.sampled_from([slice(None), slice(None, None, 2), slice(1, None)])))
    return shape, tuple(parts)


def ours(index):
    return tuple(facula.tensor(i) if isinstance(i, np.ndarray) else i for i in index)


@settings(max_examples=150, deadline=None)
@given(advanced())
def test_tensors_of_ints(drawn):
    shape, index = drawn
    a = array(shape)
    note(f"shape {shape} index {index}")
    expected = a[index]
    found = facula.tensor(a)[ours(index)]
    assert tuple(found.shape) == expected.shape
    np.testing.assert_array_equal(found.numpy(), expected)


@settings(max_examples=100, deadline=None)
@given(advanced())
def test_assignment_at_tensors_of_ints(drawn):
    shape, index = drawn
    a = array(shape)
    x = facula.tensor(a)
    note(f"shape {shape} index {index}")
    value = np.full(a[index].shape, -2, np.float32)
    a[index] = value
    x[ours(index)] = facula.tensor(value)
    np.testing.assert_array_equal(x.numpy(), a)


@st.composite
def masked(draw):
    """(rank of the mask, shape, seed of the mask)."""
    rank = draw(st.integers(1, 3))
    shape = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=4))
    return rank, tuple(shape), draw(st.integers(0, 2**32))


@settings(max_examples=100, deadline=None)
@given(masked())
def test_masks(drawn):
    rank, shape, seed = drawn
    rng = np.random.default_rng(seed)
    a, mask = array(shape), rng.integers(0, 2, shape[:rank]).astype(bool)
    x, m = facula.tensor(a), facula.tensor(mask)
    np.testing.assert_array_equal(x[m].numpy(), a[mask])
    x[m] = -1.0
    a[mask] = -1
    np.testing.assert_array_equal(x.numpy(), a)
    x[m] = x[m] * 2
    a[mask] *= 2
    np.testing.assert_array_equal(x.numpy(), a)


def test_ints_are_views_beside_tensors_as_in_pytorch():
    torch = pytest.importorskip("torch")
    a = array((2, 3, 4))
    x, y = facula.tensor(a), torch.tensor(a)
    for index in (
        (0, slice(None), [0, 1]), (slice(None), 1, [0, 1]), ([0, 1], slice(None), 2),
        (None, [1], 0), (..., [0, 2]), ([0, 1], None, [1, 2]), (True,), (False,), (None, True),
    ):  # fmt: skip
        np.testing.assert_array_equal(x[index].numpy(), y[index].numpy(), err_msg=str(index))
        assert x[index].shape == tuple(y[index].shape)


def test_gradients_flow_through_subscripts():
    x = facula.arange(12, dtype=facula.float32).reshape(3, 4).requires_grad_()
    (x[1] * 2).sum().backward()
    x[:, [0, 0, 3]].sum().backward()
    x[x > 9].sum().backward()
    expected = np.zeros((3, 4), np.float32)
    expected[1] += 2
    expected[:, 0] += 2
    expected[:, 3] += 1
    expected[2, 2:] += 1
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_gradients_flow_through_assignment():
    x = facula.ones(3, 4, requires_grad=True)
    v = facula.ones(4, requires_grad=True)
    y = x * 3
    y[1] = v
    y[:, 2] *= 5
    y[facula.tensor([0]), facula.tensor([0])] = 7.0
    y.sum().backward()
    expected = np.full((3, 4), 3, np.float32)
    expected[1], expected[0, 0], expected[[0, 2], 2] = 0, 0, 15
    np.testing.assert_array_equal(x.grad.numpy(), expected)
    np.testing.assert_array_equal(v.grad.numpy(), [1, 1, 5, 1])


def test_index_put_accumulates():
    x = facula.zeros(4)
    i = facula.tensor([1, 1, 3])
    x.index_put_((i,), facula.tensor([1.0, 2.0, 3.0]), accumulate=True)
    assert x.tolist() == [0.0, 3.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (3, IndexError, "index 3 is out of bounds for dimension 0 with size 3"),
        ((0, -5), IndexError, "index -5 is out of bounds for dimension 1 with size 4"),
        ((0, 0, 0), IndexError, "too many indices for tensor of dimension 2"),
        ((..., ...), IndexError, "single ellipsis"),
        (slice(None, None, -1), ValueError, "step must be positive"),
        (slice(None, None, 0), ValueError, "step must be positive"),
        ("a", IndexError, "only integers"),
        (1.5, IndexError, "only integers"),
        ([0, 7], IndexError, "index 7 is out of bounds for dimension 0 with size 3"),
        ((slice(None), [0, -6]), IndexError, "index -6 is out of bounds for dimension 1"),
        (([0, 9], [0, 0]), IndexError, "index 9 is out of bounds for dimension 0"),
        ([0.5], IndexError, "tensors used as indices must be"),
        ([True, False], IndexError, "mask"),
    ],
    ids=str,
)
def test_errors_name_what_is_wrong(index, error, words):
    x = facula.zeros(3, 4)
    with pytest.raises(error) as caught:
        x[index]
    assert words in str(caught.value)


def test_assignment_errors():
    x = facula.zeros(3, 4)
    with pytest.raises(RuntimeError):
        x[0] = facula.zeros(5)
    with pytest.raises(RuntimeError):
        x[[0, 1]] = facula.zeros(3, 4)
    with pytest.raises(IndexError):
        x[[0, 5]] = 1.0
    leaf = facula.zeros(3, requires_grad=True)
    with pytest.raises(RuntimeError):
        leaf[0] = 1.0
    assert x.tolist() == [[0.0] * 4] * 3


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 0, 3), (2, 3, 4)], ids=str)
def test_nonzero(shape):
    rng = np.random.default_rng(3)
    a = rng.integers(0, 2, shape)
    found = facula.nonzero(facula.tensor(a))
    np.testing.assert_array_equal(found.numpy(), np.argwhere(a))
    if a.ndim:
        for ours_, theirs in zip(facula.where(facula.tensor(a)), np.nonzero(a)):
            np.testing.assert_array_equal(ours_.numpy(), theirs)


def test_a_new_size_compiles_nothing():
    from facula.eager import engine

    def work(n):
        x = facula.zeros(n, 3)
        x[1] = 2.0
        x[:, 0] = facula.arange(n).float()
        i = facula.tensor([0, n - 1])
        x[i] += 1
        return x[i].sum() + x[x > 1].sum() + facula.rand(n).sum() + facula.eye(n).sum()

    work(5), work(6)
    before = engine.compiled_kernels
    work(7), work(29)
    assert engine.compiled_kernels == before
