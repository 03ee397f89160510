"""Layers and helpers that few programs use, against PyTorch's."""

from __future__ import annotations

import copy
import importlib

import numpy as np
import pytest

import facula
from facula import nn
from tests.nn.against import array, assert_close, copy_weights, to_facula

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance

LAZY = {
    "LazyLinear": ((4,), (2, 3)),
    "LazyConv2d": ((4, 3, 1, 1, 1, 1, False), (2, 3, 6, 5)),
    "LazyConvTranspose1d": ((4, 3), (2, 3, 6)),
    "LazyBatchNorm2d": ((), (2, 3, 4, 4)),
    "LazyInstanceNorm1d": ((), (2, 3, 4)),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers_become_ordinary_ones(name):
    args, shape = LAZY[name]
    ours, theirs = getattr(nn, name)(*args), getattr(torch.nn, name)(*args)
    assert ours.has_uninitialized_params() == theirs.has_uninitialized_params()
    x = torch.randn(shape)
    theirs(x)
    empty = copy.deepcopy(ours)
    ours(to_facula(x))
    assert type(ours) is getattr(nn, name.removeprefix("Lazy")) and repr(ours) == repr(theirs)
    copy_weights(ours, theirs)
    copy_weights(empty, theirs)  # Sizes come with the weights, too.
    for layer in (ours, empty):
        assert_close(layer.eval()(to_facula(x)), theirs.eval()(x))


def test_adaptive_softmax():
    ours, theirs = nn.AdaptiveLogSoftmaxWithLoss(6, 20, [4, 9], 2.0), None
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(6, 20, [4, 9], 2.0)
    copy_weights(ours, theirs)
    x, y = torch.randn(7, 6), torch.tensor([0, 3, 4, 8, 9, 19, 2])
    assert_close(tuple(ours(to_facula(x), to_facula(y))), tuple(theirs(x, y)))
    assert_close(ours.log_prob(to_facula(x)), theirs.log_prob(x))
    assert ours.predict(to_facula(x)).tolist() == theirs.predict(x).tolist()
    with pytest.raises(RuntimeError):
        ours(to_facula(x), to_facula(y + 5))
    with pytest.raises(ValueError):
        nn.AdaptiveLogSoftmaxWithLoss(6, 20, [9, 4])


def test_attention_with_weights_from_outside():
    theirs = torch.nn.MultiheadAttention(8, 2)
    x, mask = torch.randn(5, 3, 8), torch.zeros(3, 5, dtype=torch.bool)
    mask[1, 3:] = True
    weights = (theirs.in_proj_weight, theirs.in_proj_bias, None, None, False, 0.0,
               theirs.out_proj.weight, theirs.out_proj.bias)  # fmt: skip
    want = torch.nn.functional.multi_head_attention_forward(
        x, x, x, 8, 2, *weights, key_padding_mask=mask
    )
    x, mask, weights = to_facula(x), to_facula(mask), to_facula(weights)
    got = nn.functional.multi_head_attention_forward(x, x, x, 8, 2, *weights, key_padding_mask=mask)
    assert_close(got, want)


def test_affine_grids():
    theta = torch.randn(2, 2, 3)
    for align in (False, True):
        size = (2, 3, 4, 1)
        want = torch.nn.functional.affine_grid(theta, size, align)
        assert_close(nn.functional.affine_grid(to_facula(theta), size, align), want)
    theta = torch.randn(1, 3, 4)
    want = torch.nn.functional.affine_grid(theta, (1, 1, 2, 3, 4), False)
    assert_close(nn.functional.affine_grid(to_facula(theta), (1, 1, 2, 3, 4), False), want)
    with pytest.raises(ValueError):
        nn.functional.affine_grid(to_facula(theta), (1, 1, 2, 3))


def test_pruning():
    ours, theirs = nn.Linear(6, 5), torch.nn.Linear(6, 5)
    copy_weights(ours, theirs)
    prune, reference = nn.utils.prune, importlib.import_module("torch.nn.utils.prune")
    for module, p in ((ours, prune), (theirs, reference)):
        p.l1_unstructured(module, "weight", 0.3)
        p.ln_structured(module, "weight", 2, n=2, dim=0)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(ours.weight_mask, theirs.weight_mask)
    x = torch.randn(2, 6)
    assert_close(ours(to_facula(x)), theirs(x))
    ours(to_facula(x)).sum().backward()
    assert not array(ours.weight_orig.grad)[array(ours.weight_mask) == 0].any()
    prune.remove(ours, "weight")
    assert list(ours.state_dict()) == ["bias", "weight"] and not prune.is_pruned(ours)
    with pytest.raises(ValueError):
        prune.remove(ours, "weight")
    other = nn.Linear(5, 4)
    pairs = [(ours, "weight"), (other, "weight")]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=10)
    assert sum(int((m.weight_mask == 0).sum()) for m, _ in pairs) >= 10
    prune.random_unstructured(other, "bias", 2)
    assert int(other.bias_mask.sum()) == 2
    with pytest.raises(ValueError):
        prune.random_unstructured(nn.Linear(2, 2), "bias", 3)


@pytest.mark.parametrize("which", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
def test_orthogonal_weights(which, shape):
    layer = nn.Linear(shape[1], shape[0])
    nn.utils.parametrizations.orthogonal(layer, orthogonal_map=which)
    opt = facula.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        w = layer.weight if shape[0] < shape[1] else layer.weight.mT
        unit = np.eye(min(shape))
        np.testing.assert_allclose((w @ w.mT).detach().numpy(), unit, atol=1e-5)
        opt.zero_grad()
        layer(facula.ones(2, shape[1])).square().sum().backward()
        opt.step()
    plain = nn.Linear(shape[1], shape[0])
    nn.utils.parametrizations.orthogonal(plain, orthogonal_map="householder",
                                         use_trivialization=False)  # fmt: skip
    w = plain.weight if shape[0] < shape[1] else plain.weight.mT
    np.testing.assert_allclose((w @ w.mT).detach().numpy(), np.eye(min(shape)), atol=1e-5)


def test_fused_normalisation():
    conv, bn = nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)
    bn(conv(facula.randn(2, 3, 4, 4)))
    conv.eval(), bn.eval()
    x = facula.randn(1, 3, 3, 3)
    fused = nn.utils.fuse_conv_bn_eval(conv, bn, transpose=True)
    np.testing.assert_allclose(
        fused(x).detach().numpy(), bn(conv(x)).detach().numpy(), rtol=1e-4, atol=1e-5
    )
    linear, bn = nn.Linear(3, 4).eval(), nn.BatchNorm1d(4).eval()
    x = facula.randn(5, 3)
    np.testing.assert_allclose(
        nn.utils.fuse_linear_bn_eval(linear, bn)(x).detach().numpy(),
        bn(linear(x)).detach().numpy(), rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_adaptive_and_fractional_maxima_are_where_they_say():
    x = facula.randn(2, 3, 7, 6)
    for y, at in (
        nn.functional.adaptive_max_pool2d(x, (3, 4), return_indices=True),
        nn.FractionalMaxPool2d(2, output_size=(4, 3), return_indices=True)(x),
    ):
        np.testing.assert_array_equal(x.flatten(2).gather(2, at.flatten(2)).numpy(),
                                      y.flatten(2).numpy())  # fmt: skip


KINKS = {
    "relu": (0.0,), "relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0), "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0), "softplus": (0.0,), "logsigmoid": (0.0,), "elu": (0.0,),
    "leaky_relu": (0.0,), "softsign": (0.0,), "softshrink": (-0.5, 0.5), "celu": (0.0,),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_slopes_where_activations_bend(name):
    x, y = facula.tensor(KINKS[name], requires_grad=True), torch.tensor(KINKS[name])
    getattr(nn.functional, name)(x).sum().backward()
    y.requires_grad_()
    getattr(torch.nn.functional, name)(y).sum().backward()
    assert x.grad.tolist() == y.grad.tolist()


def test_slope_of_binary_cross_entropy_at_zero():
    x, target = facula.zeros(2, requires_grad=True), facula.tensor([1.0, 0.25])
    nn.functional.binary_cross_entropy_with_logits(x, target, reduction="sum").backward()
    assert x.grad.tolist() == [-0.5, 0.25]


@pytest.mark.parametrize("kind", ["embedding", "embedding_bag"])
def test_rows_weighted_by_frequency_and_norm(kind):
    index, weight = torch.tensor([[0, 2, 2], [2, 1, 0]]), torch.randn(4, 3) * 2
    # Of bags, PyTorch's counts are those of other rows: there the norm alone is compared.
    options = {"max_norm": 1.5, "scale_grad_by_freq": kind == "embedding"}
    got = []
    for library, i, w in (
        (facula, to_facula(index), facula.tensor(weight.numpy().copy())),
        (torch, index, weight.clone()),
    ):
        w.requires_grad_()
        y = getattr(library.nn.functional, kind)(i, w, **options)
        (y * y).sum().backward()
        got.append((y, w, w.grad))
    assert_close(*got)
