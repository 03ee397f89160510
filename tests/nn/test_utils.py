"""Gradient clipping, vectors of parameters, and parametrizations."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import facula
from facula import nn
from facula.nn.utils import parametrizations, parametrize


def with_gradients(*gradients):
    params = []
    for gradient in gradients:
        params.append(nn.Parameter(facula.zeros(len(gradient))))
        params[-1].grad = facula.tensor(gradient)
    return params


@pytest.mark.parametrize(
    "order, norm",
    [(2.0, 13.0), (1, 19.0), (math.inf, 12.0), (-math.inf, 3.0), (0, 2.0), (3, 1819 ** (1 / 3))],
)
def test_norms(order, norm):
    params = [*with_gradients([3.0, -4.0], [12.0]), nn.Parameter(facula.ones(1))]
    total = nn.utils.clip_grad_norm_(params, 1e9, norm_type=order)
    assert total.item() == pytest.approx(norm, rel=1e-5)
    assert params[0].grad.tolist() == [3.0, -4.0]


def test_clip_grad_norm():
    params = with_gradients([3.0, -4.0], [12.0])
    nn.utils.clip_grad_norm_(iter(params), 1.3)
    np.testing.assert_allclose(params[0].grad.tolist(), [0.3, -0.4], rtol=1e-5)
    np.testing.assert_allclose(params[1].grad.tolist(), [1.2], rtol=1e-5)
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0.0
    bad = with_gradients([math.inf])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(bad, 1.0, error_if_nonfinite=True)


def test_clip_grad_value():
    params = with_gradients([3.0, -4.0], [0.5])
    nn.utils.clip_grad_value_(params, 1.0)
    assert [param.grad.tolist() for param in params] == [[1.0, -1.0], [0.5]]


def test_parameters_as_a_vector():
    layer = nn.Linear(2, 2)
    vector = nn.utils.parameters_to_vector(layer.parameters())
    assert vector.tolist() == [*layer.weight.reshape(-1).tolist(), *layer.bias.tolist()]
    nn.utils.vector_to_parameters(facula.arange(6.0), layer.parameters())
    assert layer.weight.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert layer.bias.tolist() == [4.0, 5.0]
    assert layer.weight.requires_grad


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(0, 1)

    def right_inverse(self, x):
        return x.triu()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(facula.full((1,), 2.0))

    def forward(self, x):
        return x * self.scale


def test_parametrize():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert parametrize.is_parametrized(layer)
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert repr(layer).startswith("ParametrizedLinear(\n  in_features=3, out_features=3, bias=True")
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    assert layer.parametrizations.weight.original is weight
    assert layer.weight.tolist() == layer.weight.t().tolist()
    layer(facula.ones(1, 3)).sum().backward()
    assert weight.grad is not None

    layer.weight = facula.eye(3) * 2
    assert layer.weight.tolist() == (facula.eye(3) * 2).tolist()
    parametrize.register_parametrization(layer, "weight", Scaled())
    assert layer.weight.tolist() == (facula.eye(3) * 4).tolist()
    assert "parametrizations.weight.1.scale" in layer.state_dict()
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight

    twin = copy.deepcopy(layer)
    parametrize.remove_parametrizations(twin, "weight")
    assert type(twin) is nn.Linear
    assert isinstance(twin.weight, nn.Parameter)
    assert twin.weight.tolist() == (facula.eye(3) * 4).tolist()
    assert sorted(twin.state_dict()) == ["bias", "weight"]
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is weight
    assert weight.tolist() == (facula.eye(3) * 2).tolist()


def test_parametrize_errors():
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="with name 'absent'"):
        parametrize.register_parametrization(layer, "absent", Symmetric())
    with pytest.raises(ValueError, match="hint: pass unsafe=True"):
        parametrize.register_parametrization(layer, "weight", nn.Flatten(0))
    with pytest.raises(ValueError, match="does not have a parametrization"):
        parametrize.remove_parametrizations(layer, "weight")


def test_weight_norm():
    layer = nn.Linear(3, 2)
    before = layer.weight.tolist()
    parametrizations.weight_norm(layer)
    np.testing.assert_allclose(layer.weight.tolist(), before, rtol=1e-6)
    assert list(layer.state_dict()) == [
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ]
    layer(facula.ones(1, 3)).sum().backward()
    assert tuple(layer.parametrizations.weight.original0.grad.shape) == (2, 1)
    older = {"weight_g": facula.ones(2, 1), "weight_v": facula.ones(2, 3), "bias": facula.ones(2)}
    layer.load_state_dict(older)
    np.testing.assert_allclose(layer.weight.tolist(), np.full((2, 3), 3**-0.5), rtol=1e-6)


def test_spectral_norm():
    facula.manual_seed(0)
    layer = parametrizations.spectral_norm(nn.Linear(6, 4), n_power_iterations=20)
    for _ in range(5):
        layer(facula.ones(1, 6))
    largest = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0]
    assert largest == pytest.approx(1, rel=1e-3)
    layer.eval()
    before = layer.parametrizations.weight[0]._u.tolist()
    layer(facula.ones(1, 6)).sum().backward()
    assert layer.parametrizations.weight[0]._u.tolist() == before
    assert layer.parametrizations.weight.original.grad is not None


def test_functional_call():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = net[0].weight
    weights = {"0.weight": facula.eye(2) * 2, "1.weight": facula.eye(2) * 3}
    call = nn.utils.stateless.functional_call
    assert call(net, weights, facula.ones(2)).tolist() == [6.0, 6.0]
    assert net[0].weight is before
    net[1].weight = before
    assert call(net, {"0.weight": facula.eye(2) * 2}, (facula.ones(2),)).tolist() == [4.0, 4.0]
    with pytest.raises(KeyError, match=r"no parameter or buffer 0\.absent"):
        call(net, {"0.absent": before}, facula.ones(2))
    with pytest.raises(RuntimeError, match=r"missing 0\.weight"):
        call(net, {}, facula.ones(2), strict=True)
    assert net[0].weight is before
