"""Every layer against PyTorch's, with the same weights: keys, repr, outputs and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn
from tests.nn.against import assert_same_layout, assert_same_module, copy_weights

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance


def layer(name, *args, shapes=((2, 3),), **kwargs):
    """One case: the class's name, its arguments, and the shapes of the inputs."""
    label = f"{name}{args}" if args else name
    if kwargs:
        label += ",".join(f"{k}={v}" for k, v in kwargs.items())
    return pytest.param(name, args, kwargs, shapes, id=label.replace(" ", ""))


IMAGE, SIGNAL, VOLUME = ((2, 4, 7, 6),), ((2, 4, 9),), ((1, 4, 4, 5, 6),)

LAYERS = [
    layer("Identity"),
    layer("Linear", 3, 4),
    layer("Linear", 3, 4, bias=False),
    layer("Bilinear", 3, 2, 4, shapes=((5, 3), (5, 2))),
    layer("Flatten", shapes=IMAGE),
    layer("Unflatten", 1, (3, 1)),
    layer("Conv1d", 4, 6, 3, padding=1, shapes=SIGNAL),
    layer("Conv1d", 4, 6, 3, padding="same", dilation=2, shapes=SIGNAL),
    layer("Conv1d", 4, 6, 3, padding=2, padding_mode="circular", shapes=SIGNAL),
    layer("Conv2d", 4, 6, 3, stride=2, padding=1, shapes=IMAGE),
    layer("Conv2d", 4, 6, (3, 2), groups=2, bias=False, shapes=IMAGE),
    layer("Conv2d", 4, 4, 3, groups=4, dilation=2, padding=2, shapes=IMAGE),
    layer("Conv2d", 4, 6, 3, padding=(1, 2), padding_mode="reflect", shapes=IMAGE),
    layer("Conv2d", 4, 6, 4, padding="same", padding_mode="replicate", shapes=IMAGE),
    layer("Conv2d", 4, 6, 1, shapes=((4, 5, 5),)),
    layer("Conv3d", 4, 2, 2, padding=1, shapes=VOLUME),
    layer("ConvTranspose1d", 4, 6, 3, stride=2, padding=1, output_padding=1, shapes=SIGNAL),
    layer("ConvTranspose2d", 4, 6, 3, stride=2, padding=1, output_padding=1, shapes=IMAGE),
    layer("ConvTranspose2d", 4, 6, 3, groups=2, dilation=2, bias=False, shapes=IMAGE),
    layer("ConvTranspose3d", 4, 2, 2, stride=2, shapes=VOLUME),
    layer("BatchNorm1d", 4, shapes=((5, 4),)),
    layer("BatchNorm1d", 4, momentum=None, shapes=SIGNAL),
    layer("BatchNorm2d", 4, shapes=IMAGE),
    layer("BatchNorm2d", 4, affine=False, shapes=IMAGE),
    layer("BatchNorm2d", 4, track_running_stats=False, shapes=IMAGE),
    layer("BatchNorm2d", 4, bias=False, shapes=IMAGE),
    layer("BatchNorm3d", 4, shapes=VOLUME),
    layer("InstanceNorm1d", 4, shapes=SIGNAL),
    layer("InstanceNorm2d", 4, affine=True, shapes=IMAGE),
    layer("InstanceNorm2d", 4, track_running_stats=True, shapes=IMAGE),
    layer("InstanceNorm3d", 4, shapes=VOLUME),
    layer("LayerNorm", 6, shapes=IMAGE),
    layer("LayerNorm", (7, 6), bias=False, shapes=IMAGE),
    layer("LayerNorm", 6, elementwise_affine=False, shapes=IMAGE),
    layer("RMSNorm", 6, shapes=IMAGE),
    layer("RMSNorm", (7, 6), eps=1e-3, elementwise_affine=False, shapes=IMAGE),
    layer("GroupNorm", 2, 4, shapes=IMAGE),
    layer("GroupNorm", 4, 4, affine=False, shapes=IMAGE),
    layer("LocalResponseNorm", 3, shapes=IMAGE),
    layer("MaxPool1d", 2, shapes=SIGNAL),
    layer("MaxPool2d", 3, 2, 1, shapes=IMAGE),
    layer("MaxPool2d", 2, ceil_mode=True, shapes=IMAGE),
    layer("MaxPool2d", (2, 3), stride=(2, 1), dilation=(1, 2), shapes=IMAGE),
    layer("MaxPool3d", 2, shapes=VOLUME),
    layer("AvgPool1d", 3, 2, 1, shapes=SIGNAL),
    layer("AvgPool2d", 3, stride=2, padding=1, shapes=IMAGE),
    layer("AvgPool2d", 2, ceil_mode=True, count_include_pad=False, shapes=IMAGE),
    layer("AvgPool3d", 2, shapes=VOLUME),
    layer("LPPool1d", 2, 3, shapes=SIGNAL),
    layer("LPPool2d", 2, 3, stride=2, shapes=IMAGE),
    layer("AdaptiveAvgPool1d", 4, shapes=SIGNAL),
    layer("AdaptiveAvgPool2d", (3, None), shapes=IMAGE),
    layer("AdaptiveAvgPool2d", 1, shapes=IMAGE),
    layer("AdaptiveAvgPool3d", 2, shapes=VOLUME),
    layer("AdaptiveMaxPool1d", 4, shapes=SIGNAL),
    layer("AdaptiveMaxPool2d", 3, shapes=IMAGE),
    layer("ZeroPad1d", 2, shapes=SIGNAL),
    layer("ZeroPad2d", (1, 2, 0, 3), shapes=IMAGE),
    layer("ConstantPad2d", 1, 3.5, shapes=IMAGE),
    layer("ConstantPad3d", 1, -1.0, shapes=VOLUME),
    layer("ReflectionPad1d", 2, shapes=SIGNAL),
    layer("ReflectionPad2d", (1, 2, 3, 0), shapes=IMAGE),
    layer("ReplicationPad1d", 2, shapes=SIGNAL),
    layer("ReplicationPad2d", (1, 2, 3, 0), shapes=IMAGE),
    layer("ReplicationPad3d", 1, shapes=VOLUME),
    layer("CircularPad1d", 2, shapes=SIGNAL),
    layer("CircularPad2d", (1, 2, 3, 0), shapes=IMAGE),
    layer("Upsample", scale_factor=2, shapes=IMAGE),
    layer("Upsample", size=(9, 5), mode="bilinear", shapes=IMAGE),
    layer("Upsample", scale_factor=2, mode="bilinear", align_corners=True, shapes=IMAGE),
    layer("UpsamplingNearest2d", scale_factor=3, shapes=IMAGE),
    layer("UpsamplingBilinear2d", size=9, shapes=IMAGE),
    layer("PixelShuffle", 2, shapes=IMAGE),
    layer("PixelUnshuffle", 2, shapes=((1, 2, 4, 6),)),
    layer("ChannelShuffle", 2, shapes=IMAGE),
    layer("Unfold", 2, padding=1, shapes=IMAGE),
    layer("Fold", (4, 5), (2, 2), shapes=((2, 8, 12),)),
    layer("CosineSimilarity", shapes=((3, 4), (3, 4))),
    layer("PairwiseDistance", shapes=((3, 4), (3, 4))),
    layer("Dropout", 0.0),
    layer("Softmax", 1),
    layer("Softmin", 1),
    layer("LogSoftmax", 1),
    layer("Softmax2d", shapes=IMAGE),
    layer("GLU", 1, shapes=IMAGE),
    layer("PReLU"),
    layer("PReLU", 4, shapes=IMAGE),
    *[
        layer(name)
        for name in (
            "Sigmoid Tanh LogSigmoid Softsign Tanhshrink ReLU SELU SiLU Mish Hardsigmoid Hardswish "
            "Hardtanh ReLU6 LeakyReLU ELU CELU GELU Softplus Hardshrink Softshrink"
        ).split()
    ],
    layer("GELU", approximate="tanh"),
    layer("Threshold", 0.1, 20),
    layer("LeakyReLU", 0.3),
]


@pytest.mark.parametrize("name, args, kwargs, shapes", LAYERS)
def test_layer(name, args, kwargs, shapes):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    ours = getattr(nn, name)(*args, **kwargs)
    assert repr(ours) == repr(theirs)
    assert_same_layout(ours, theirs)
    copy_weights(ours, theirs)
    inputs = tuple(torch.randn(shape, requires_grad=True) for shape in shapes)
    assert_same_module(ours, theirs, inputs)


@pytest.mark.parametrize("name", ["BatchNorm1d", "InstanceNorm1d"])
def test_running_statistics_are_used_in_evaluation(name):
    torch.manual_seed(0)
    options = {"affine": True, "track_running_stats": True}
    theirs, ours = getattr(torch.nn, name)(4, **options), getattr(nn, name)(4, **options)
    copy_weights(ours, theirs)
    for _ in range(3):
        assert_same_module(ours, theirs, (torch.randn(3, 4, 5),), gradients=False)
    ours.eval()
    theirs.eval()
    assert_same_module(ours, theirs, (torch.randn(3, 4, 5, requires_grad=True),))


@pytest.mark.parametrize("name", ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"])
def test_dropout_modules(name):
    theirs, ours = getattr(torch.nn, name)(0.3), getattr(nn, name)(0.3)
    assert repr(ours) == repr(theirs)
    shape = {"Dropout1d": (2, 3, 4), "Dropout2d": (2, 3, 4, 4), "Dropout3d": (2, 3, 4, 4, 2)}
    x = torch.randn(shape.get(name, (50, 40)))
    assert_same_module(ours.eval(), theirs.eval(), (x,), gradients=False)


def test_max_pool_with_indices_and_unpool():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 8)
    theirs = torch.nn.MaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)
    ours = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    assert_same_module(ours[0], theirs[0], (x,), gradients=False)
    assert_same_module(ours[1], theirs[1], theirs[0](x), gradients=False)


def test_conv_transpose_output_size():
    torch.manual_seed(0)
    theirs, ours = torch.nn.ConvTranspose2d(3, 2, 3, 2), nn.ConvTranspose2d(3, 2, 3, 2)
    copy_weights(ours, theirs)
    x = torch.randn(1, 3, 4, 5)
    assert_same_module(ours, theirs, (x, (10, 12)), gradients=False)
    with pytest.raises(ValueError, match="requested an output size"):
        assert_same_module(ours, theirs, (x, (14, 12)), gradients=False)


INDICES = torch.tensor([[1, 2, 0, 2], [4, 3, 2, 1]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding_idx": 2},
        {"padding_idx": -1},
        {"max_norm": 0.7},
        {"scale_grad_by_freq": True, "padding_idx": 1},
    ],
    ids=str,
)
def test_embedding(options):
    torch.manual_seed(0)
    theirs, ours = torch.nn.Embedding(5, 3, **options), nn.Embedding(5, 3, **options)
    assert repr(ours) == repr(theirs)
    if "padding_idx" in options:
        assert not ours.weight[options["padding_idx"]].any()
    copy_weights(ours, theirs)
    assert_same_module(ours, theirs, (INDICES,))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}], ids=str)
def test_embedding_bag(mode, options):
    torch.manual_seed(0)
    theirs = torch.nn.EmbeddingBag(5, 3, mode=mode, **options)
    ours = nn.EmbeddingBag(5, 3, mode=mode, **options)
    assert repr(ours) == repr(theirs)
    copy_weights(ours, theirs)
    assert_same_module(ours, theirs, (INDICES,))
    offsets = torch.tensor([0, 3, 3])
    assert_same_module(ours, theirs, (INDICES.reshape(-1), offsets))


CONTAINERS = [
    lambda nn: nn.Sequential(nn.Linear(1, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1))),
    lambda nn: nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1), nn.ReLU(), nn.ModuleList()]),
    lambda nn: nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ModuleDict()}),
]


@pytest.mark.parametrize("make", CONTAINERS)
def test_container_repr(make):
    assert repr(make(nn)) == repr(make(torch.nn))
    assert_same_layout(make(nn), make(torch.nn))


@pytest.mark.parametrize("name", ["Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout"])
def test_dropout_keeps_the_mean(name):
    facula.manual_seed(0)
    module = getattr(nn, name)(0.4)
    x = facula.ones(300, 200, 2, 2)
    y = module(x).numpy()
    dropped = np.unique(y.round(4))
    assert len(dropped) == 2
    whole = y.reshape(300 * 200, 4)
    if name in ("Dropout2d", "FeatureAlphaDropout"):
        assert (whole == whole[:, :1]).all()
    if "Alpha" not in name:
        assert abs(y.mean() - 1) < 0.02
        np.testing.assert_allclose(dropped, [0, 1 / 0.6], rtol=1e-3)
    else:
        # Of inputs with mean 0 and variance 1, mean and variance are kept.
        y = module(facula.randn(300, 200, 2, 2)).numpy()
        assert abs(y.mean()) < 0.02
        assert abs(y.std() - 1) < 0.02
