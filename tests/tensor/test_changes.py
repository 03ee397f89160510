"""Views, changes in place, versions, ``out=``."""

from __future__ import annotations

import copy
import gc
import warnings

import numpy as np
import pytest

import facula.tensor as ft
from facula.library import F


def leaf(*values):
    return ft.tensor(list(values), requires_grad=True)


# Views ----------------------------------------------------------------------------------------


def test_views_share_memory_and_know_their_base():
    x = ft.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    views = [
        x.T,
        x.reshape(3, 2),
        x.select(0, 1),
        x.unsqueeze(1),
        x.narrow(1, 1, 2),
        x.expand(2, 2, 3),
    ]
    for v in views:
        assert v._base is x
    assert x.T.stride() == (1, 3)
    assert x.T.narrow(0, 1, 2)._base is x
    assert x.select(0, 1).storage_offset() == 3
    x.add_(10.0)
    assert views[2].tolist() == [14.0, 15.0, 16.0]
    assert x.detach()._base is None


def test_reshape_copies_only_where_it_must():
    x = ft.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.reshape(6).data_ptr() == x.data_ptr()
    y = x.T.reshape(6)
    assert y.data_ptr() != x.data_ptr()
    assert y.tolist() == [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
    assert x.contiguous() is x
    assert x.T.contiguous().stride() == (2, 1)


def test_gradients_flow_through_chains_of_views(make, check_gradients):
    check_gradients(
        lambda x: x.transpose(0, 1).reshape(2, 6).narrow(1, 1, 4).unsqueeze(0).expand(3, 2, 4),
        make(3, 4),
    )
    check_gradients(lambda x: x.select(1, 2).reshape(3, 1) * x, make(3, 4))


def test_views_with_gradients_of_bases_with_odd_strides(make):
    x = make(4, 3)
    y = x.T.contiguous().T  # a non-leaf whose memory is column-major
    y = y * 1.0
    v = y.T.narrow(0, 1, 2)
    v.mul_(3.0)
    y.sum().backward()
    assert x.grad.numpy().tolist() == [[1.0, 3.0, 3.0]] * 4


# Changes in place -------------------------------------------------------------------------------


def test_changes_in_place_are_differentiated():
    x, w = leaf(1.0, 2.0, 3.0), leaf(2.0, 2.0, 2.0)
    y = x * 2.0
    y.mul_(w)
    y += 1.0
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 4.0, 4.0]
    assert w.grad.tolist() == [2.0, 4.0, 6.0]


def test_a_tensor_may_be_its_own_operand():
    x = leaf(1.0, 2.0)
    y = x * 2.0
    y *= y
    y.sum().backward()
    assert x.grad.tolist() == [8.0, 16.0]
    z = ft.tensor([1.0, 2.0])
    z += z
    assert z.tolist() == [2.0, 4.0]


def test_operands_that_overlap_are_read_as_they_were():
    x = ft.tensor([1.0, 2.0, 3.0, 4.0])
    x.narrow(0, 1, 3).add_(x.narrow(0, 0, 3))
    assert x.tolist() == [1.0, 3.0, 5.0, 7.0]


def test_a_change_through_a_view_changes_the_history_of_its_base():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    y = x * 2.0
    v = y.reshape(2, 2)
    row = v.select(0, 1)
    row.mul_(5.0)
    assert y.grad_fn.name() == "CopySlices"
    assert v.requires_grad and row.requires_grad
    (y * y).sum().backward()
    assert x.grad.tolist() == [8.0, 16.0, 600.0, 800.0]


def test_views_follow_a_change_of_their_base():
    x = leaf(1.0, 2.0)
    y = x * 1.0
    v = y.unsqueeze(0)
    y.mul_(3.0)
    (v * v).sum().backward()
    assert x.grad.tolist() == [18.0, 36.0]


def test_a_base_without_history_gets_one():
    w = leaf(1.0, 2.0)
    y = ft.tensor([0.0, 0.0, 0.0, 0.0])
    seen = y.narrow(0, 0, 2)
    y.narrow(0, 1, 2).copy_(w)
    assert y.requires_grad and seen.requires_grad
    (y * y).sum().backward()
    assert w.grad.tolist() == [2.0, 4.0]


def test_filling_cuts_the_history():
    x = leaf(1.0, 2.0)
    y = x * 2.0
    y.narrow(0, 0, 1).zero_()
    (y * y).sum().backward()
    assert x.grad.tolist() == [0.0, 16.0]
    y = x * 2.0
    y.fill_(3.0)
    x.grad = None
    (y * y).sum().backward()
    assert x.grad is None


def test_changes_in_place_are_differentiated_twice():
    x = leaf(2.0, 3.0)
    y = x * 1.0
    y.narrow(0, 0, 1).mul_(x.narrow(0, 1, 1))
    (g,) = ft.grad((y * y).sum(), x, create_graph=True)
    # y = (x0 x1, x1): the sum is x0^2 x1^2 + x1^2.
    assert g.tolist() == [36.0, 30.0]
    (h,) = ft.grad(g.sum(), x)
    assert h.tolist() == [18.0 + 24.0, 24.0 + 8.0 + 2.0]


def test_what_backward_needs_must_not_change():
    x = leaf(1.0, 2.0)
    y = x.exp()
    y.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    w = ft.tensor([1.0, 2.0])
    y = x * w
    w.add_(1.0)
    with pytest.raises(RuntimeError, match="at version 1; expected version 0"):
        y.sum().backward()
    y = x + w
    w.add_(1.0)
    y.sum().backward()


def test_refused_changes():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        x.add_(1.0)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
        x.narrow(0, 0, 1).add_(1.0)
    with ft.no_grad():
        x.add_(1.0)
    assert x.tolist() == [2.0, 3.0]
    with pytest.raises(RuntimeError, match="can't be cast"):
        ft.tensor([1, 2]).add_(1.5)
    with pytest.raises(RuntimeError, match=r"output with shape \[2\] doesn't match"):
        ft.tensor([1.0, 2.0]).add_(ft.tensor([[1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(RuntimeError, match="single memory location"):
        ft.tensor([1.0]).expand(3).add_(1.0)


def test_versions_count_changes():
    x = ft.tensor([1.0, 2.0])
    v = x.unsqueeze(0)
    x.add_(1.0)
    v.mul_(2.0)
    x -= 1.0
    assert x._version == v._version == 3


def test_many_views_of_one_base_leave_nothing():
    x = leaf(1.0, 2.0)
    y = x * 1.0
    for _ in range(1000):
        y.unsqueeze(0)
    assert len(y._views) < 40
    gc.collect()


# out= -------------------------------------------------------------------------------------------


def test_out_is_filled_and_resized():
    x = ft.tensor([1.0, 2.0])
    o = ft.empty(0)
    assert F.add(x, x, out=o) is o
    assert o.tolist() == [2.0, 4.0]
    o = ft.tensor([1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="was resized"):
        F.mul(x, 3.0, out=o)
    assert o.tolist() == [3.0, 6.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.mul(x, x, out=x)
    assert x.tolist() == [1.0, 4.0]
    with pytest.raises(RuntimeError, match="can't be cast"):
        F.mul(x, 2.0, out=ft.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        F.mul(leaf(1.0, 2.0), 2.0, out=x)


# Tensors as Python objects ------------------------------------------------------------------------


def test_conversions_to_python():
    x = ft.tensor([5])
    assert (int(x), float(x), bool(x), x.item(), len(x), [1] * 6 == [1] * (x + 1)[0].item()) == (
        5,
        5.0,
        True,
        5,
        1,
        True,
    )
    assert list(range(9))[x] == 5
    assert 5 in x and 4 not in x
    assert [v.item() for v in ft.tensor([1, 2, 3])] == [1, 2, 3]
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(ft.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="0-d"):
        len(ft.tensor(1.0))
    assert {x: 1}[x] == 1


def test_dtypes_of_results():
    x = ft.tensor([1, 2])
    assert (x * 1.5).dtype.name == "float32"
    assert (x + True).tolist() == [2, 3]
    assert (2 - x).tolist() == [1, 0]
    assert (x / 2).tolist() == [0.5, 1.0]
    assert (x.int() + ft.tensor(3)).dtype.name == "int32"
    assert (x.float() + ft.tensor(1.5).double()).dtype.name == "float32"
    assert (x * np.float32(2)).tolist() == [2.0, 4.0]
    assert (np.float64(2) * x).tolist() == [2.0, 4.0]
    assert x.to(ft.tensor(1.0)).dtype.name == "float32"
    assert x.to("cpu") is x
    assert x.float().to(x.dtype).tolist() == [1, 2]
    assert x.half().dtype.name == "float16"


def test_unknown_operands_are_left_to_their_class():
    class Other:
        def __radd__(self, x):
            return "mine"

    assert ft.tensor([1.0]) + Other() == "mine"
    with pytest.raises(TypeError):
        ft.tensor([1.0]) + "a"
    assert (ft.tensor([1.0]) == "a") is False


def test_deepcopy():
    x = leaf(1.0, 2.0)
    x.grad = ft.tensor([1.0, 1.0])
    y = copy.deepcopy(x)
    assert y.requires_grad and y.is_leaf and y.data_ptr() != x.data_ptr()
    assert y.grad.tolist() == [1.0, 1.0]
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2.0)


def test_subclasses_keep_their_class_and_attributes():
    class Weight(ft.Tensor):
        def __new__(cls, data):
            return ft.Tensor._make_subclass(cls, data, True)

    w = Weight(ft.tensor([1.0, 2.0]))
    w.note = "kept"
    assert type(w) is Weight and w.requires_grad and w.is_leaf
    y = w * w + ft.tensor([1.0, 1.0])
    assert type(y) is ft.Tensor
    y.sum().backward()
    assert w.grad.tolist() == [2.0, 4.0]
    assert copy.deepcopy(w).note == "kept"


def test_empty_tensors():
    x = ft.from_numpy(np.zeros((0, 3), np.float32)).requires_grad_()
    y = (x + 1.0).sum(0)
    assert y.tolist() == [0.0, 0.0, 0.0]
    y.sum().backward()
    assert x.grad.shape == (0, 3)


def test_errors_show_sizes_and_indices():
    with pytest.raises(RuntimeError, match=r"\(1, 2\) and \(1, 2\)"):
        ft.tensor([[1.0, 2.0]]) @ ft.tensor([[1.0, 2.0]])
    x = ft.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    with pytest.raises(IndexError, match="index 7 is out of bounds for dimension 0 with size 2"):
        x.index_select(0, ft.tensor([0, 7]))


def test_as_strided_is_differentiable(make, check_gradients):
    check_gradients(lambda x: x.as_strided((3, 2), (2, 1), 1) * 2.0, make(3, 4))
    check_gradients(lambda x: x.T.as_strided((4,), (3,)).exp(), make(3, 4))
    x = make(3, 4)
    (g,) = ft.grad((x.as_strided((2, 2), (1, 1)) ** 2.0).sum(), x, create_graph=True)
    (h,) = ft.grad(g.sum(), x)
    assert h.reshape(12).tolist()[:4] == [2.0, 4.0, 2.0, 0.0]
    y = x * 1.0
    with pytest.raises(NotImplementedError, match="as_strided"):
        y.as_strided((2,), (1,)).mul_(2.0)
    with pytest.raises(RuntimeError, match="out of bounds"):
        x.as_strided((100,), (1,))


def test_inplace_as_an_argument():
    x = ft.tensor([-1.0, 2.0])
    assert F.leaky_relu(x, 0.1, inplace=True) is x
    assert x.tolist() == [pytest.approx(-0.1), 2.0]
    w = leaf(-1.0, 2.0)
    h = w * 1.0
    F.relu(h, True).sum().backward()
    assert h.tolist() == [0.0, 2.0] and w.grad.tolist() == [0.0, 1.0]
    with pytest.raises(RuntimeError, match="leaf Variable"):
        F.relu(w, inplace=True)


def test_operands_set_apart_keep_their_strides():
    x = ft.from_numpy(np.arange(6.0))
    x[1::2].add_(x[0:5:2])
    x[::2].add_(x[::2])
    assert x.tolist() == [0.0, 1.0, 4.0, 5.0, 8.0, 9.0]
    x[1:5].mul_(x[::2][:1].expand(4) + 1.0)
    w = ft.from_numpy(np.arange(4.0)).requires_grad_()
    y = w * 1.0
    v = y[::2]
    v.mul_(v)
    y.sum().backward()
    assert y.tolist() == [0.0, 1.0, 4.0, 3.0]
    assert w.grad.tolist() == [0.0, 1.0, 4.0, 1.0]


def test_arrays_as_operands():
    x = ft.tensor([1.0, 2.0])
    y = x + np.array([1.0, 2.0])
    assert type(y) is ft.Tensor and y.dtype.name == "float64" and y.tolist() == [2.0, 4.0]
    assert (x == np.array([1.0, 5.0])).tolist() == [True, False]
