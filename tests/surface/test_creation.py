"""New tensors: values, dtypes, shapes, keywords, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula

MAKERS = {
    "empty": facula.empty, "zeros": facula.zeros, "ones": facula.ones, "rand": facula.rand,
    "randn": facula.randn,
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_sizes_may_be_given_in_every_way(name):
    make = MAKERS[name]
    for x in (make(2, 3), make((2, 3)), make([2, 3]), make(size=(2, 3)), make(facula.Size([2, 3]))):
        assert x.shape == (2, 3) and x.is_contiguous() and x.dtype is facula.float32
    assert make(()).shape == () and make(0, 3).numel() == 0 and make(np.int64(2)).shape == (2,)
    x = make(2, dtype=facula.float64, device="cpu", requires_grad=True)
    assert x.dtype is facula.float64 and x.requires_grad and x.is_leaf
    out = facula.empty(0)
    assert make(2, 2, out=out) is out and out.shape == (2, 2)


@pytest.mark.parametrize("name", MAKERS)
def test_bad_sizes_are_refused(name):
    make = MAKERS[name]
    with pytest.raises(RuntimeError, match="negative"):
        make(2, -1)
    with pytest.raises(RuntimeError):
        make(2**40, 2**40)
    with pytest.raises((MemoryError, RuntimeError)):
        make(2**62)
    for wrong in (1.5, "a", None, [[1]]):
        with pytest.raises(TypeError):
            make(wrong)
    with pytest.raises((RuntimeError, NotImplementedError)):
        make(2, device="cuda")


def test_values():
    assert facula.zeros(2, dtype=facula.int8).tolist() == [0, 0]
    assert facula.ones(2, dtype=bool).tolist() == [True, True]
    assert facula.full((2,), 7).dtype is facula.int64
    assert facula.full((2,), True).dtype is facula.bool
    assert facula.full((2,), 1.5).tolist() == [1.5, 1.5]
    assert facula.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    x = facula.full((2, 3), 5, dtype=facula.int32)
    for like, value in ((facula.zeros_like, 0), (facula.ones_like, 1)):
        y = like(x)
        assert (
            y.dtype is facula.int32 and y.shape == (2, 3) and set(y.reshape(-1).tolist()) == {value}
        )
    assert facula.full_like(x, 9, dtype=facula.float32).tolist() == [[9.0] * 3] * 2
    assert facula.empty_like(facula.zeros(2, 3).t()).stride() == (1, 3)
    assert x.new_zeros(2).dtype is facula.int32 and x.new_full((1,), 3).tolist() == [3]
    assert x.new_tensor([1.7]).tolist() == [1] and x.new_ones(1, dtype=facula.float64).tolist() == [
        1.0
    ]
    assert facula.scalar_tensor(2).dtype is facula.float32


@pytest.mark.parametrize(
    "args",
    [
        (5,),
        (2, 7),
        (0, 10, 3),
        (10, 0, -3),
        (0.0, 1.0, 0.1),
        (1.5,),
        (0, 1, 0.25),
        (5, 5),
        (-3, 3, 2),
    ],
    ids=str,
)
def test_arange(args):
    x, a = facula.arange(*args), np.arange(*args)
    assert x.dtype is (facula.float32 if a.dtype.kind == "f" else facula.int64)
    np.testing.assert_allclose(x.numpy(), a, rtol=1e-6)


def test_arange_refuses():
    for args in ((0, 1, 0), (0, 1, -1), (1, 0, 1), (0, math.inf), (math.nan,)):
        with pytest.raises(RuntimeError):
            facula.arange(*args)


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 100])
def test_linspace_and_logspace(steps):
    np.testing.assert_allclose(
        facula.linspace(-3, 7, steps).numpy(), np.linspace(-3, 7, steps), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        facula.logspace(-1, 2, steps).numpy(), np.logspace(-1, 2, steps), rtol=1e-5
    )
    with pytest.raises(RuntimeError):
        facula.linspace(0, 1, -1)


def test_index_patterns():
    for offset in (-1, 0, 2):
        np.testing.assert_array_equal(
            facula.tril_indices(3, 4, offset).numpy(), np.tril_indices(3, offset, 4)
        )
        np.testing.assert_array_equal(
            facula.triu_indices(3, 4, offset).numpy(), np.triu_indices(3, offset, 4)
        )
    for indexing in ("ij", "xy"):
        ours = facula.meshgrid(facula.arange(2), facula.arange(3), indexing=indexing)
        for x, a in zip(ours, np.meshgrid(np.arange(2), np.arange(3), indexing=indexing)):
            np.testing.assert_array_equal(x.numpy(), a)
    assert facula.cartesian_prod(facula.tensor([1, 2]), facula.tensor([3, 4])).tolist() == [
        [1, 3], [1, 4], [2, 3], [2, 4],
    ]  # fmt: skip
    assert facula.combinations(facula.tensor([5, 6, 7])).tolist() == [[5, 6], [5, 7], [6, 7]]


# tensor(...) -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1, "int64"), (1.0, "float32"), (True, "bool"), ([1, 2], "int64"), ([1, 2.5], "float32"),
        ([True, 2], "int64"), ([True, 2.0], "float32"), ([], "float32"), ([[]], "float32"),
        ([[1, 2], [3, 4]], "int64"), (((1.0,), (2.0,)), "float32"), (range(3), "int64"),
        (np.array([1, 2], np.int16), "int16"), (np.float64(1), "float32"), (np.int32(1), "int32"),
        ([np.int64(1), 2], "int64"), ([np.float32(1)], "float32"),
    ],
    ids=str,
)  # fmt: skip
def test_tensor_infers_the_dtype(data, dtype):
    x = facula.tensor(data)
    assert x.dtype is getattr(facula, dtype)
    np.testing.assert_array_equal(x.numpy(), np.array(data))
    assert x.shape == np.shape(data)


def test_tensor_converts():
    assert facula.tensor([1.7, -1.7], dtype=facula.int32).tolist() == [1, -1]
    assert facula.tensor([0, 2], dtype=facula.bool).tolist() == [False, True]
    assert facula.tensor([1, 2], dtype=facula.float16).tolist() == [1.0, 2.0]
    assert facula.tensor([1.0, 3.1415926], dtype=facula.bfloat16).tolist() == [1.0, 3.140625]
    assert facula.tensor([1e300], dtype=facula.float32).tolist() == [math.inf]
    assert facula.tensor(np.arange(6).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert facula.tensor([facula.tensor(1.5), 2]).tolist() == [1.5, 2.0]
    assert facula.tensor([np.array([1, 2]), np.array([3, 4])]).tolist() == [[1, 2], [3, 4]]
    a = np.zeros(2)
    facula.tensor(a)[0] = 1.0
    assert a[0] == 0
    x = facula.tensor([1.0], requires_grad=True)
    assert x.requires_grad and x.is_leaf
    with pytest.warns(UserWarning, match="detach"):
        y = facula.tensor(x)
    assert not y.requires_grad and y.data_ptr() != x.data_ptr()


def test_tensor_refuses():
    for bad in ([[1, 2], [3]], [[1], 2], [1, [2]]):
        with pytest.raises(ValueError):
            facula.tensor(bad)
    for bad in ("a", ["a"], {1: 2}, None, [None], object()):
        with pytest.raises(TypeError):
            facula.tensor(bad)
    with pytest.raises(NotImplementedError, match="complex"):
        facula.tensor(1j)
    with pytest.raises(RuntimeError, match="overflow"):
        facula.tensor([300], dtype=facula.uint8)
    with pytest.raises(RuntimeError):
        facula.tensor([2**70])
    with pytest.raises(RuntimeError):
        facula.tensor([1], requires_grad=True)


def test_as_tensor_and_asarray_share_where_they_can():
    a = np.ones(3)
    x = facula.zeros(2)
    assert facula.as_tensor(a).data_ptr() == a.ctypes.data and facula.as_tensor(x) is x
    assert facula.as_tensor(a, dtype=facula.float32).data_ptr() != a.ctypes.data
    assert facula.asarray(a).data_ptr() == a.ctypes.data
    assert facula.asarray(a, copy=True).data_ptr() != a.ctypes.data
    assert facula.asarray([1, 2]).tolist() == [1, 2]
    with pytest.raises(ValueError):
        facula.asarray([1, 2], copy=False)


def test_the_default_dtype():
    try:
        facula.set_default_dtype(facula.float64)
        assert (
            facula.zeros(1).dtype
            is facula.tensor(1.0).dtype
            is facula.rand(1).dtype
            is facula.float64
        )
        assert (facula.tensor([1]) / 2).dtype is facula.float64
    finally:
        facula.set_default_dtype(facula.float32)
    assert (facula.tensor([1]) / 2).dtype is facula.float32
    with pytest.raises(TypeError):
        facula.set_default_dtype(facula.int64)


# Random ------------------------------------------------------------------------------------------


def test_seeds_repeat_and_states_restore():
    facula.manual_seed(5)
    a = facula.rand(4), facula.randn(3), facula.randint(0, 100, (5,)), facula.randperm(6)
    facula.manual_seed(5)
    b = facula.rand(4), facula.randn(3), facula.randint(0, 100, (5,)), facula.randperm(6)
    assert all(x.tolist() == y.tolist() for x, y in zip(a, b))
    state = facula.get_rng_state()
    x = facula.rand(3)
    facula.set_rng_state(state)
    assert facula.rand(3).tolist() == x.tolist()
    with facula.random.fork_rng():
        facula.rand(10)
    g = facula.Generator().manual_seed(1)
    h = facula.Generator().manual_seed(1)
    assert facula.rand(3, generator=g).tolist() == facula.rand(3, generator=h).tolist()
    assert facula.rand(3, generator=g).tolist() != facula.rand(3).tolist()
    h.set_state(g.get_state())
    assert facula.randn(3, generator=g).tolist() == facula.randn(3, generator=h).tolist()


def test_distributions():
    facula.manual_seed(0)
    n = 40_000
    cases = {
        "uniform_": ((2.0, 4.0), 3.0, 2 / math.sqrt(12)), "normal_": ((1.0, 2.0), 1.0, 2.0),
        "exponential_": ((2.0,), 0.5, 0.5), "bernoulli_": ((0.3,), 0.3, math.sqrt(0.21)),
        "geometric_": ((0.4,), 2.5, math.sqrt(0.6) / 0.4),
    }  # fmt: skip
    for name, (args, mean, std) in cases.items():
        x = getattr(facula.empty(n), name)(*args)
        assert abs(x.mean().item() - mean) < 0.05, name
        assert abs(x.std().item() - std) < 0.05 * max(std, 1), name
    x = facula.empty(n, dtype=facula.int64).random_(3, 9)
    assert x.min().item() == 3 and x.max().item() == 8 and abs(x.float().mean().item() - 5.5) < 0.05
    x = facula.randperm(1000)
    assert sorted(x.tolist()) == list(range(1000))
    assert abs(facula.normal(facula.zeros(n), facula.ones(n) * 3).std().item() - 3) < 0.05


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial(replacement):
    facula.manual_seed(1)
    p = facula.tensor([[0.0, 1.0, 2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0]])
    x = facula.multinomial(p, 3, replacement)
    assert x.shape == (2, 3) and x.dtype is facula.int64
    assert not {0, 3} & set(x[0].tolist()) and 4 not in x[1].tolist()
    if not replacement:
        assert sorted(x[0].tolist()) == [1, 2, 4]
    counts = facula.bincount(facula.multinomial(p[0], 8000, True), minlength=5).float() / 8000
    np.testing.assert_allclose(counts.numpy(), [0, 0.25, 0.5, 0, 0.25], atol=0.03)


def test_bad_distributions_are_refused():
    x = facula.empty(3)
    for call in (
        lambda: x.uniform_(1.0, 0.0), lambda: x.normal_(0.0, -1.0), lambda: x.exponential_(0.0),
        lambda: x.bernoulli_(1.5), lambda: x.geometric_(0.0), lambda: facula.randint(3, 3, (1,)),
        lambda: facula.randint(0, 300, (1,), dtype=facula.uint8), lambda: facula.randperm(-1),
        lambda: facula.rand(3, dtype=facula.int64), lambda: facula.bernoulli(facula.tensor([2.0])),
        lambda: facula.multinomial(facula.tensor([-1.0, 1.0]), 1),
        lambda: facula.multinomial(facula.zeros(3), 1),
        lambda: facula.multinomial(facula.ones(3), 4),
        lambda: facula.ones(2, requires_grad=True).uniform_(),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            call()


def test_complex_numbers_are_refused_clearly():
    for call in (
        lambda: facula.complex(facula.zeros(1), facula.zeros(1)), lambda: facula.full((1,), 1j),
        lambda: facula.fft.fft(facula.zeros(2)), lambda: facula.linalg.eig(facula.eye(2)),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError, match="complex"):
            call()
