"""Hooks: their order, what they may change, and how they go away."""

from __future__ import annotations

import copy

import pytest

import facula
from facula import nn
from facula.nn.modules import _hooks


def double():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    return layer


def test_forward_hooks_run_in_order_and_may_replace():
    layer, seen = double(), []
    layer.register_forward_pre_hook(lambda module, args: seen.append("pre") or (args[0] + 1,))
    layer.register_forward_pre_hook(
        lambda module, args: seen.append(("first", args[0].item())), prepend=True
    )
    layer.register_forward_hook(lambda module, args, output: seen.append(args[0].item()))
    layer.register_forward_hook(lambda module, args, output: output * 10)
    assert layer(facula.ones(1)).item() == 40.0
    assert seen == [("first", 1.0), "pre", 2.0]


def test_handles_remove():
    layer = double()
    handle = layer.register_forward_hook(lambda module, args, output: output + 1)
    with layer.register_forward_pre_hook(lambda module, args: args[0] + 1):
        assert layer(facula.ones(1)).item() == 5.0
    assert layer(facula.ones(1)).item() == 3.0
    handle.remove()
    handle.remove()
    assert layer(facula.ones(1)).item() == 2.0


def test_hooks_with_keyword_arguments():
    class Add(nn.Module):
        def forward(self, x, more=0.0):
            return x + more

    layer, seen = Add(), []
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {"more": kwargs["more"] + 1}), with_kwargs=True
    )
    layer.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(kwargs), with_kwargs=True
    )
    assert layer(facula.ones(1), more=1.0).item() == 3.0
    assert seen == [{"more": 2.0}]
    layer.register_forward_pre_hook(lambda module, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        layer(facula.ones(1), more=1.0)


def test_always_called():
    class Failing(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    layer, seen = Failing(), []
    layer.register_forward_hook(lambda *a: seen.append("plain"))
    layer.register_forward_hook(lambda *a: seen.append("always"), always_call=True)
    with pytest.raises(ValueError, match="no"):
        layer(1)
    assert seen == ["always"]


def test_full_backward_hooks():
    layer, seen = double(), []
    layer.register_full_backward_pre_hook(lambda module, grads: seen.append(grads[0].item()))
    layer.register_full_backward_hook(
        lambda module, grad_input, grad_output: seen.append(
            (grad_input[0].item(), grad_output[0].item())
        )
    )
    x = facula.ones(1, requires_grad=True)
    (layer(x) * 3).sum().backward()
    assert seen == [3.0, (6.0, 3.0)]
    assert x.grad.item() == 6.0
    assert layer.weight.grad.item() == 3.0


def test_backward_hooks_may_replace():
    layer = double()
    layer.register_full_backward_pre_hook(lambda module, grads: (grads[0] * 10,))
    layer.register_full_backward_hook(lambda module, grads, outputs: (grads[0] + 1,))
    x = facula.ones(1, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.item() == 21.0
    assert layer.weight.grad.item() == 10.0
    layer.register_full_backward_hook(lambda module, grads, outputs: (1, 2))
    with pytest.raises(RuntimeError, match="invalid number of grad_input, got 2, but expected 1"):
        layer(x).sum().backward()


def test_backward_hook_without_gradient_of_the_input():
    layer, seen = double(), []
    layer.register_full_backward_hook(lambda module, grads, outputs: seen.append(grads))
    layer(facula.ones(1)).sum().backward()
    assert seen == [(None,)]


def test_backward_hook_of_several_inputs_and_outputs():
    class Cross(nn.Module):
        def forward(self, a, b, flag):
            return a * b, a + b

    layer, seen = Cross(), []
    layer.register_full_backward_hook(lambda module, grads, outputs: seen.append((grads, outputs)))
    a, b = (facula.full((1,), v, requires_grad=True) for v in (2.0, 5.0))
    product, _ = layer(a, b, True)
    product.sum().backward()
    ((grads, outputs),) = seen
    assert [grads[0].item(), grads[1].item(), grads[2]] == [5.0, 2.0, None]
    assert outputs[0].item() == 1.0
    assert outputs[1] is None


def test_global_hooks():
    seen = []
    handles = [
        _hooks.register_module_forward_pre_hook(lambda module, args: seen.append("pre")),
        _hooks.register_module_forward_hook(lambda module, args, output: seen.append("post")),
        _hooks.register_module_full_backward_hook(lambda module, a, b: seen.append("back")),
    ]
    try:
        nn.Sequential(double())(facula.ones(1, requires_grad=True)).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    assert seen == ["pre", "pre", "post", "post", "back", "back"]
    nn.ReLU()(facula.ones(1))
    assert len(seen) == 6


def test_hooks_are_copied_with_the_module():
    layer = double()
    layer.register_forward_hook(lambda module, args, output: output + 1)
    assert copy.deepcopy(layer)(facula.ones(1)).item() == 3.0
