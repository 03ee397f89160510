"""Functions whose result's size is data, overloads, and names of the top level, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import facula

RNG = np.random.default_rng(11)


def tensors(*arrays):
    return [facula.tensor(a) for a in arrays]


@pytest.mark.parametrize("shape", [(0,), (1,), (30,), (4, 5)], ids=str)
def test_unique(shape):
    a = RNG.integers(0, 6, shape)
    values, inverse, counts = facula.unique(
        facula.tensor(a), return_inverse=True, return_counts=True
    )
    expected, where, number = np.unique(a, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(values.numpy(), expected)
    np.testing.assert_array_equal(inverse.numpy(), where.reshape(shape))
    np.testing.assert_array_equal(counts.numpy(), number)


@pytest.mark.parametrize("dim", [0, 1])
def test_unique_slices(dim):
    a = RNG.integers(0, 2, (5, 6))
    found = facula.unique(facula.tensor(a), dim=dim, return_counts=True)
    expected = np.unique(a, axis=dim, return_counts=True)
    for x, y in zip(found, expected):
        np.testing.assert_array_equal(x.numpy(), y)


def test_unique_consecutive():
    x = facula.tensor([1, 1, 2, 2, 3, 1, 1, 2])
    values, inverse, counts = facula.unique_consecutive(x, return_inverse=True, return_counts=True)
    assert values.tolist() == [1, 2, 3, 1, 2]
    assert inverse.tolist() == [0, 0, 1, 1, 2, 3, 3, 4] and counts.tolist() == [2, 2, 1, 2, 1]


def test_bincount_histc_histogram():
    a = RNG.integers(0, 9, 50)
    w = RNG.random(50)
    np.testing.assert_array_equal(facula.bincount(*tensors(a)).numpy(), np.bincount(a))
    np.testing.assert_allclose(facula.bincount(*tensors(a, w)).numpy(), np.bincount(a, w))
    assert facula.bincount(facula.tensor([1]), minlength=4).tolist() == [0, 1, 0, 0]
    with pytest.raises(RuntimeError):
        facula.bincount(facula.tensor([-1]))
    b = RNG.standard_normal(200)
    np.testing.assert_array_equal(
        facula.histc(facula.tensor(b), 7, -2, 2).numpy(), np.histogram(b, 7, (-2, 2))[0]
    )
    hist, edges = facula.histogram(facula.tensor(b), 9, range=(-3.0, 3.0), density=True)
    expected = np.histogram(b, 9, (-3, 3), density=True)
    np.testing.assert_allclose(hist.numpy(), expected[0])
    np.testing.assert_allclose(edges.numpy(), expected[1])


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 65])
def test_searchsorted(n, right):
    a = np.sort(RNG.integers(0, 30, n)).astype(np.float32)
    v = RNG.integers(-2, 33, (3, 8)).astype(np.float32)
    found = facula.searchsorted(*tensors(a, v), right=right)
    np.testing.assert_array_equal(
        found.numpy(), np.searchsorted(a, v, "right" if right else "left")
    )
    np.testing.assert_array_equal(
        facula.bucketize(*tensors(v, a), right=right).numpy(), found.numpy()
    )


def test_repeat_interleave_by_a_tensor():
    x, r = facula.tensor([[1, 2], [3, 4]]), facula.tensor([2, 0])
    assert x.repeat_interleave(r, 0).tolist() == [[1, 2], [1, 2]]
    assert facula.repeat_interleave(facula.tensor([1, 0, 2])).tolist() == [0, 2, 2]
    with pytest.raises(RuntimeError):
        x.repeat_interleave(facula.tensor([1]).expand(3), 0)


def test_max_and_min_in_their_three_forms():
    a = RNG.standard_normal((4, 5)).astype(np.float32)
    b = RNG.standard_normal((4, 5)).astype(np.float32)
    x, y = tensors(a, b)
    for name, reduce, arg, pair in (
        ("max", np.max, np.argmax, np.maximum), ("min", np.min, np.argmin, np.minimum),
    ):  # fmt: skip
        f = getattr(facula, name)
        assert f(x).item() == reduce(a)
        found = f(x, 1)
        np.testing.assert_array_equal(found.values.numpy(), reduce(a, 1))
        np.testing.assert_array_equal(found.indices.numpy(), arg(a, 1))
        np.testing.assert_array_equal(f(x, y).numpy(), pair(a, b))
        assert getattr(x, name)(dim=0, keepdim=True)[0].shape == (1, 5)
    z = x.clone().requires_grad_()
    z.max(1)[0].sum().backward()
    np.testing.assert_array_equal(z.grad.numpy(), (a == a.max(1, keepdims=True)).astype(np.float32))
    with pytest.raises(RuntimeError):
        facula.max(facula.zeros(0))


def test_results_have_names():
    found = facula.sort(facula.tensor([2.0, 1.0]))
    assert found._fields == ("values", "indices") and type(found).__name__ == "sort"
    assert repr(found).startswith("facula.return_types.sort(\nvalues=tensor([1., 2.]),")
    assert facula.topk(facula.tensor([2.0, 1.0]), 1).values.tolist() == [2.0]


def test_order_statistics():
    a = RNG.standard_normal((4, 7)).astype(np.float32)
    a[1, 3] = np.nan
    (x,) = tensors(a)
    np.testing.assert_array_equal(facula.median(x, 1).values.isnan().numpy(), [0, 1, 0, 0])
    np.testing.assert_array_equal(
        facula.nanmedian(x, 1).values[[0, 2]].numpy(), np.median(a[[0, 2]], 1)
    )
    np.testing.assert_allclose(
        facula.nanquantile(x, 0.3, 1).numpy(), np.nanquantile(a, 0.3, 1), rtol=1e-5
    )
    q = facula.quantile(x[2:], facula.tensor([0.1, 0.9]), 1)
    np.testing.assert_allclose(q.numpy(), np.quantile(a[2:], [0.1, 0.9], 1), rtol=1e-5)
    assert facula.mode(facula.tensor([3, 1, 3, 1])).values.item() == 1
    assert facula.kthvalue(facula.tensor([3.0, 1.0, 2.0]), 2).values.item() == 2.0


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]), ("ij,jk", [(3, 4), (4, 5)]), ("ii->i", [(4, 4)]),
        ("ii", [(4, 4)]), ("ij->ji", [(3, 4)]), ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("bi,bj->bij", [(2, 3), (2, 4)]), ("i,j,k->ijk", [(2,), (3,), (4,)]), ("ij->", [(3, 4)]),
        ("abc,cd,bd->a", [(2, 3, 4), (4, 5), (3, 5)]), ("i,i->", [(5,), (5,)]),
        ("ijk->kj", [(2, 3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("...,...->...", [(3, 4), (4,)]),
    ],
)  # fmt: skip
def test_einsum(equation, shapes):
    arrays = [RNG.standard_normal(s) for s in shapes]
    found = facula.einsum(equation, *tensors(*arrays))
    np.testing.assert_allclose(found.numpy(), np.einsum(equation, *arrays), rtol=1e-9, atol=1e-12)


def test_einsum_with_numbers_for_letters_and_errors():
    a, b = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 5))
    x, y = tensors(a, b)
    np.testing.assert_allclose(facula.einsum(x, [0, 1], y, [1, 2], [0, 2]).numpy(), a @ b)
    for equation, operands in (
        ("ij,jk->ik", (x,)), ("ijk->i", (x,)), ("ij->iz", (x,)), ("ij,kj->ik", (x, y)),
        ("i.j", (x,)),
        ("ij->ii", (x,)),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            facula.einsum(equation, *operands)


def test_products_of_tensors():
    a, b, c = (
        RNG.standard_normal((2, 3, 4)),
        RNG.standard_normal((3, 4, 5)),
        RNG.standard_normal((2, 2)),
    )
    x, y, z = tensors(a, b, c)
    np.testing.assert_allclose(facula.tensordot(x, y, 2).numpy(), np.tensordot(a, b, 2))
    np.testing.assert_allclose(facula.kron(z, x[0]).numpy(), np.kron(c, a[0]))
    np.testing.assert_allclose(facula.inner(x, x).numpy(), np.inner(a, a))
    u, v = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3))
    np.testing.assert_allclose(facula.linalg.cross(*tensors(u, v)).numpy(), np.cross(u, v))
    np.testing.assert_array_equal(
        facula.block_diag(z, facula.tensor([7.0, 8.0]).double()).numpy(),
        [[*c[0], 0, 0], [*c[1], 0, 0], [0, 0, 7, 8]],
    )


def test_joining_and_splitting():
    a = np.arange(24).reshape(4, 6)
    (x,) = tensors(a)
    for name in ("hstack", "vstack", "dstack", "column_stack"):
        np.testing.assert_array_equal(
            getattr(facula, name)([x, x]).numpy(), getattr(np, name)([a, a])
        )
    for cuts in (3, [1, 4], facula.tensor([2, 3])):
        plain = cuts if not isinstance(cuts, facula.Tensor) else cuts.tolist()
        for p, q in zip(facula.tensor_split(x, cuts, 1), np.array_split(a, plain, 1)):
            np.testing.assert_array_equal(p.numpy(), q)
    assert facula.tensor_split(x, 2)[0].data_ptr() == x.data_ptr()
    assert [t.shape for t in facula.atleast_2d(x, facula.tensor(1))] == [(4, 6), (1, 1)]
    assert facula.broadcast_shapes((3, 1), (1, 4), 2 * (1,)) == (3, 4)


def test_numbers_about_dtypes():
    assert facula.finfo(facula.float32).max == np.finfo(np.float32).max
    assert facula.finfo(facula.float16).eps == np.finfo(np.float16).eps
    assert facula.iinfo(facula.int16).min == -32768 and facula.iinfo(facula.uint8).max == 255
    assert facula.result_type(facula.zeros(1, dtype=facula.int8), 1.0) is facula.float32
    assert facula.can_cast(facula.int64, facula.float16)
    assert not facula.can_cast(facula.float16, facula.int64)
    for bad in (facula.int8,):
        with pytest.raises(TypeError):
            facula.finfo(bad)


def test_names_of_the_top_level():
    for name in (
        "nn", "optim", "utils", "autograd", "linalg", "special", "fft", "random", "cuda",
        "backends",
        "testing", "types", "version", "cpu", "return_types",
    ):  # fmt: skip
        assert type(getattr(facula, name)).__name__ == "module"
    assert not facula.cuda.is_available() and facula.cuda.device_count() == 0
    assert facula.long is facula.int64 and facula.float is facula.float32
    assert {"zeros", "Tensor", "no_grad", "float32", "nn"} <= set(dir(facula))
    with pytest.raises(AttributeError, match="facula.*no_such_name"):
        _ = facula.no_such_name
    assert isinstance(facula.zeros(1), facula.FloatTensor)
    assert not isinstance(facula.zeros(1), facula.LongTensor)
    assert facula.LongTensor([1, 2]).dtype is facula.int64 and facula.Tensor(2, 3).shape == (2, 3)
