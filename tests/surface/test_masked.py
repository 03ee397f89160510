"""``facula.masked``: reductions that leave elements out."""

import doctest
import math

import numpy as np
import pytest

import facula
from facula import masked
from facula.base.errors import ArgumentError, DimensionError, DtypeError

X = np.array([[1.0, -2.0, 4.0], [3.0, 5.0, -7.0]], dtype=np.float32)
MASK = np.array([[True, False, True], [True, True, False]])


def both():
    return facula.tensor(X), facula.tensor(MASK), np.ma.array(X, mask=~MASK)


@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "amax", "amin", "var", "std"])
def test_reductions(name, dim):
    x, mask, oracle = both()
    more = {"correction": 0} if name in ("var", "std") else {}
    found = getattr(masked, name)(x, dim, mask=mask, **more)
    expected = getattr(oracle, {"amax": "max", "amin": "min"}.get(name, name))(axis=dim)
    np.testing.assert_allclose(found.numpy(), np.ma.filled(expected), rtol=1e-5)
    kept = getattr(masked, name)(x, dim, mask=mask, keepdim=True, **more)
    assert kept.shape == ((1, 1) if dim is None else np.max(X, dim, keepdims=True).shape)


def test_along_a_dimension():
    x, mask, _ = both()
    soft = masked.softmax(x, 1, mask=mask)
    assert soft[~mask].tolist() == [0.0, 0.0]
    assert facula.allclose(soft.sum(1), facula.ones(2))
    assert facula.allclose(masked.log_softmax(x, 1, mask=mask).exp(), soft)
    assert facula.allclose(masked.softmin(-x, 1, mask=mask), soft)
    assert masked.cumsum(x, 1, mask=mask).tolist() == [[1, 1, 5], [3, 8, 8]]
    assert masked.cumprod(x, 1, mask=mask).tolist() == [[1, 1, 4], [3, 15, 15]]
    assert masked.median(x, 1, mask=mask).tolist() == [1, 3]
    assert masked.argmax(x, 1, mask=mask).tolist() == [2, 1]
    assert masked.argmin(x, 1, mask=mask).tolist() == [0, 0]
    norms = masked.norm(x, 2.0, 1, mask=mask)
    assert facula.allclose(norms, facula.tensor([17.0, 34.0]).sqrt())
    unit = masked.normalize(x, 2.0, 1, mask=mask)
    assert facula.allclose((unit * unit).sum(1), facula.ones(2))
    sums = masked.logsumexp(x, 1, mask=mask)
    assert facula.allclose(sums, facula.tensor([math.log(math.e + math.e**4), 5.126928]))
    assert masked.logaddexp(x, x, input_mask=mask)[0, 1].item() == -2.0


def test_nothing_counts():
    x, none = facula.tensor([1.0, 2.0]), facula.tensor([False, False])
    assert masked.sum(x, mask=none).item() == 0 and masked.prod(x, mask=none).item() == 1
    assert masked.amax(x, mask=none).item() == -math.inf
    assert math.isnan(masked.mean(x, mask=none).item())
    assert masked.amin(facula.tensor([3, 4]), mask=none).item() == facula.iinfo(facula.int64).max


def test_masks_broadcast_and_gradients_stop_at_them():
    x = facula.tensor(X, requires_grad=True)
    masked.sum(x * x, mask=facula.tensor([1, 0, 2])).backward()
    assert x.grad.tolist() == [[2.0, 0.0, 8.0], [6.0, 0.0, -14.0]]


def test_refusals():
    x, mask, _ = both()
    with pytest.raises(DimensionError):
        masked.sum(x, 2)
    with pytest.raises(DimensionError):
        masked.sum(x[0], mask=mask)
    with pytest.raises(ArgumentError):
        masked.sum(x, (0, 0))
    with pytest.raises(DtypeError):
        masked.mean(facula.tensor([1, 2]))


def test_examples():
    assert doctest.testmod(masked).failed == 0


@pytest.mark.conformance
@pytest.mark.parametrize("name", ["sum", "prod", "mean", "amax", "amin", "var", "argmax", "norm"])
def test_as_in_pytorch(name):
    import torch

    for mask in (None, MASK):
        for dim in (None, 0, 1):
            args = (2.0, dim) if name == "norm" else (dim,)
            results = [
                getattr(lib.masked, name)(
                    lib.tensor(X), *args, mask=None if mask is None else lib.tensor(mask)
                )
                for lib in (facula, torch)
            ]
            assert str(results[0].dtype).partition(".")[2] == str(results[1].dtype)[6:]
            np.testing.assert_allclose(*(r.numpy() for r in results), rtol=1e-5)
