"""Initialisers: their bounds and moments, and what layers start from."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula
from facula import nn
from facula.nn import init


def values(tensor):
    return tensor.detach().numpy()


@pytest.fixture(autouse=True)
def seed():
    facula.manual_seed(0)


def test_fillers():
    w = facula.empty(3, 4)
    assert init.ones_(w) is w
    assert (values(w) == 1).all()
    assert not values(init.zeros_(w)).any()
    assert (values(init.constant_(w, 2.5)) == 2.5).all()
    np.testing.assert_array_equal(values(init.eye_(w)), np.eye(3, 4))


def test_parameters_are_filled_outside_the_graph():
    w = nn.Parameter(facula.empty(3, 4))
    assert init.xavier_uniform_(w) is w
    assert w.requires_grad
    assert w.is_leaf


@pytest.mark.parametrize(
    "fill, low, high, std",
    [
        (lambda w: init.uniform_(w, -2, 3), -2, 3, 5 / math.sqrt(12)),
        (lambda w: init.normal_(w, 0, 0.5), -4, 4, 0.5),
        (init.xavier_uniform_, -0.1, 0.1, 0.1 / math.sqrt(3)),
        (lambda w: init.xavier_normal_(w, gain=2), -1, 1, 2 * math.sqrt(2 / 600)),
        (init.kaiming_uniform_, -math.sqrt(6 / 200), math.sqrt(6 / 200), math.sqrt(2 / 200)),
        (
            lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
            -1,
            1,
            math.sqrt(2 / 400),
        ),
        (lambda w: init.trunc_normal_(w, std=0.5, a=-10, b=10), -3, 3, 0.5),
    ],
)
def test_moments(fill, low, high, std):
    w = fill(facula.empty(400, 200))
    found = values(w)
    assert low <= found.min() and found.max() <= high
    middle = (low + high) / 2
    assert abs(found.mean() - middle) < 4 * std / math.sqrt(found.size)
    assert found.std() == pytest.approx(std, rel=0.02)


def test_truncated_normal_is_truncated():
    found = values(init.trunc_normal_(facula.empty(1000), mean=0.5, std=1.0, a=0.0, b=1.0))
    assert 0 <= found.min() and found.max() <= 1
    with pytest.warns(UserWarning, match="more than 2 std"):
        init.trunc_normal_(facula.empty(10), mean=9.0)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (4, 2, 3)], ids=str)
def test_orthogonal(shape):
    w = values(init.orthogonal_(facula.empty(*shape), gain=2.0)).reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_dirac_passes_the_input_through():
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    init.dirac_(layer.weight, groups=2)
    x = facula.randn(1, 4, 5, 5)
    np.testing.assert_allclose(values(layer(x)), values(x))


def test_sparse():
    found = values(init.sparse_(facula.empty(20, 5), sparsity=0.25))
    assert ((found == 0).sum(axis=0) == 5).all()


def test_gains():
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("conv2d") == 1
    assert init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    with pytest.raises(ValueError, match="Unsupported nonlinearity swish"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="not a valid number"):
        init.calculate_gain("leaky_relu", "0.5")


def test_errors():
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(facula.empty(3))
    with pytest.raises(ValueError, match="Mode middle not supported"):
        init.kaiming_uniform_(facula.empty(3, 3), mode="middle")
    with pytest.raises(ValueError, match="Only tensors with 2 dimensions"):
        init.eye_(facula.empty(3))


@pytest.mark.parametrize(
    "make, bound",
    [
        (lambda: nn.Linear(64, 300), 1 / 8),
        (lambda: nn.Bilinear(64, 10, 30), 1 / 8),
        (lambda: nn.Conv2d(16, 100, 2), 1 / 8),
        (lambda: nn.ConvTranspose2d(100, 16, 2), 1 / 8),
        (lambda: nn.LSTM(10, 64), 1 / 8),
        (lambda: nn.GRUCell(10, 64), 1 / 8),
    ],
)
def test_layers_start_within_their_bound(make, bound):
    for parameter in make().parameters():
        found = np.abs(values(parameter))
        assert 0.8 * bound < found.max() <= bound


def test_embedding_and_norms_start():
    table = values(nn.Embedding(100, 100, padding_idx=3).weight)
    assert table.std() == pytest.approx(1, rel=0.05)
    assert not table[3].any()
    norm = nn.BatchNorm1d(3)
    assert values(norm.weight).tolist() == [1, 1, 1] and values(norm.bias).tolist() == [0, 0, 0]
