"""Functions of functions, by hand and against PyTorch."""

from __future__ import annotations

import pytest

import facula
from facula import nn
from facula.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)


def test_gradients_nest():
    x = facula.tensor(2.0)
    assert grad(lambda x: x**3)(x).item() == 12.0
    assert grad(grad(grad(lambda x: x**3)))(x).item() == 6.0
    assert not grad(lambda x: x * x)(x).requires_grad
    g, v = grad_and_value(lambda x: x * x)(x)
    assert (g.item(), v.item()) == (4.0, 4.0)
    g, aux = grad(lambda x: (x * x, {"twice": x * 2}), has_aux=True)(x)
    assert (g.item(), aux["twice"].item()) == (4.0, 4.0)
    with pytest.raises(RuntimeError, match="scalar"):
        grad(lambda x: x * 2)(facula.ones(2))


def test_arguments_may_be_nests():
    params = {"w": facula.tensor([1.0, 2.0]), "b": [facula.tensor(3.0)]}
    g = grad(lambda p, x: ((p["w"] * x).sum() + p["b"][0]) ** 2.0)(params, facula.ones(2))
    assert g["w"].tolist() == [12.0, 12.0] and g["b"][0].item() == 12.0
    a, b = grad(lambda x, y: x * y, argnums=(0, 1))(facula.tensor(2.0), facula.tensor(5.0))
    assert (a.item(), b.item()) == (5.0, 2.0)


def test_a_transform_is_differentiable_in_its_arguments():
    x = facula.tensor(2.0, requires_grad=True)
    grad(lambda x: x**3)(x).backward()
    assert x.grad.item() == 12.0


def test_products_with_jacobians():
    x = facula.tensor([1.0, 2.0])
    y, pull = vjp(lambda x: x * x, x)
    assert y.tolist() == [1.0, 4.0]
    assert pull(facula.tensor([1.0, 10.0]))[0].tolist() == [2.0, 40.0]
    assert pull(facula.tensor([1.0, 0.0]))[0].tolist() == [2.0, 0.0]
    y, t = jvp(lambda x: x * x, (x,), (facula.tensor([1.0, 10.0]),))
    assert t.tolist() == [2.0, 40.0]
    assert jacrev(lambda x: x * x)(x).tolist() == [[2.0, 0.0], [0.0, 4.0]]
    assert hessian(lambda x: (x**3).sum())(x).tolist() == [[6.0, 0.0], [0.0, 12.0]]


def test_gradients_of_every_sample():
    layer = nn.Linear(3, 1)
    params = {k: v.detach() for k, v in layer.named_parameters()}
    x, y = facula.randn(5, 3), facula.randn(5)

    def loss(params, x, y):
        return (functional_call(layer, params, (x,)).squeeze() - y) ** 2

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))(params, x, y)
    assert per_sample["weight"].shape == (5, 1, 3)
    total = grad(lambda p: vmap(loss, in_dims=(None, 0, 0))(p, x, y).sum())(params)
    assert facula.allclose(per_sample["weight"].sum(0), total["weight"], atol=1e-5)
    assert layer.weight.grad is None


def test_modules_with_other_weights():
    models = [nn.Linear(2, 2) for _ in range(3)]
    params, buffers = stack_module_state(models)
    assert params["weight"].shape == (3, 2, 2) and buffers == {}
    x = facula.randn(4, 2)
    together = vmap(lambda p, x: functional_call(models[0], p, (x,)), in_dims=(0, None))(params, x)
    assert facula.allclose(together[2], models[2](x))
    with pytest.raises(KeyError, match="other"):
        functional_call(models[0], {"other": x}, (x,))
