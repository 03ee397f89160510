"""Methods that change what a tensor is, and other small ones."""

from __future__ import annotations

import pytest

import facula


def test_shapes_change_in_place():
    x = facula.arange(6).reshape(2, 3)
    address = x.data_ptr()
    assert x.unsqueeze_(0) is x and x.shape == (1, 2, 3)
    assert x.transpose_(1, 2).shape == (1, 3, 2) and x.squeeze_().shape == (3, 2)
    assert x.t_().tolist() == [[0, 1, 2], [3, 4, 5]] and x.data_ptr() == address


def test_history_goes_through_a_change_of_shape():
    p = facula.ones(3, requires_grad=True)
    y = p * 2
    y.unsqueeze_(0)
    (y * facula.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert p.grad.tolist() == [2, 4, 6]
    with pytest.raises(RuntimeError):
        p.unsqueeze_(0)


def test_diagonals_and_elements():
    assert facula.zeros(2, 3).fill_diagonal_(1.0).tolist() == [[1, 0, 0], [0, 1, 0]]
    wrapped = facula.zeros(5, 2).fill_diagonal_(1.0, wrap=True)
    assert wrapped.tolist() == [[1, 0], [0, 1], [0, 0], [1, 0], [0, 1]]
    assert facula.tensor([1.0, 2.0]).apply_(lambda v: v * v).tolist() == [1, 4]
    assert facula.tensor([1.0, 2.0]).map_(facula.tensor([3.0]), lambda a, b: a + b).tolist() == [
        4,
        5,
    ]
    assert facula.nonzero_static(facula.tensor([0, 1, 1]), size=3).tolist() == [[1], [2], [-1]]
    assert list(reversed(facula.arange(3)))[0].item() == 2
    with pytest.raises(TypeError):
        del facula.zeros(2)[0]


class Tagged(facula.Tensor):
    """A subclass with an attribute."""


def test_subclasses():
    x = facula.ones(2).as_subclass(Tagged)
    x.tag = "a"
    assert type(x) is Tagged and x.tag == "a" and type(x + 1) is facula.Tensor
    assert type(Tagged([1.0, 2.0])) is Tagged and Tagged([1.0]).dtype is facula.float32


def test_there_is_no_gpu():
    with pytest.raises(NotImplementedError, match="CUDA"):
        facula.zeros(1).cuda()
    with pytest.raises(NotImplementedError):
        facula.cuda.current_device()
    facula.cuda.manual_seed_all(0)
    assert facula.backends.cudnn.benchmark is False and not facula.backends.mps.is_available()


def test_testing():
    facula.testing.assert_close([facula.ones(2), {"a": 1.0}], [facula.ones(2), {"a": 1.0}])
    for actual, expected, words in (
        (facula.ones(2), facula.ones(3), "shape"),
        (facula.ones(1), facula.ones(1).double(), "dtype"),
        (facula.ones(2), facula.tensor([1.0, 2.0]), r"index \(1,\)"), (1.0, 2.0, "Scalars"),
        ([1], [1, 2], "length"), ({"a": 1}, {"b": 1}, "keys"),
        (facula.tensor([float("nan")]), facula.tensor([float("nan")]), "not close"),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=words):
            facula.testing.assert_close(actual, expected)
    x = facula.testing.make_tensor(3, 4, dtype=facula.int8, low=-3, high=4, noncontiguous=True)
    assert (
        x.shape == (3, 4) and not x.is_contiguous() and -3 <= x.min().item() <= x.max().item() < 4
    )
