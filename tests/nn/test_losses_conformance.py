"""Every loss against PyTorch's: values and gradients, for each reduction."""

from __future__ import annotations

import pytest

from facula import nn
from tests.nn.against import assert_same_module, to_facula

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance


def scores(*shape):
    return torch.randn(*shape, requires_grad=True)


def signs(*shape):
    return torch.randint(0, 2, shape) * 2 - 1


LOSSES = [
    ("L1Loss", {}, lambda: (scores(4, 3), torch.randn(4, 3))),
    ("MSELoss", {}, lambda: (scores(4, 3), torch.randn(4, 3))),
    ("SmoothL1Loss", {"beta": 0.7}, lambda: (scores(4, 3), torch.randn(4, 3))),
    ("HuberLoss", {"delta": 0.7}, lambda: (scores(4, 3), torch.randn(4, 3))),
    ("CrossEntropyLoss", {}, lambda: (scores(4, 3), torch.randint(0, 3, (4,)))),
    (
        "CrossEntropyLoss",
        {"weight": torch.tensor([0.5, 1.0, 2.0]), "ignore_index": 1, "label_smoothing": 0.1},
        lambda: (scores(5, 3), torch.tensor([0, 1, 2, 2, 0])),
    ),
    ("CrossEntropyLoss", {}, lambda: (scores(2, 3, 4), torch.randint(0, 3, (2, 4)))),
    (
        "CrossEntropyLoss",
        {"label_smoothing": 0.2},
        lambda: (scores(4, 3), torch.randn(4, 3).softmax(1)),
    ),
    (
        "NLLLoss",
        {"weight": torch.tensor([0.5, 1.0, 2.0]), "ignore_index": 1},
        lambda: (scores(4, 3), torch.tensor([0, 1, 2, 2])),
    ),
    ("PoissonNLLLoss", {"full": True}, lambda: (scores(4, 3), torch.rand(4, 3) * 5)),
    (
        "GaussianNLLLoss",
        {"full": True},
        lambda: (scores(4, 3), torch.randn(4, 3), torch.rand(4, 3) + 0.1),
    ),
    ("KLDivLoss", {}, lambda: (scores(4, 3), torch.randn(4, 3).softmax(1))),
    ("KLDivLoss", {"log_target": True}, lambda: (scores(4, 3), torch.randn(4, 3))),
    (
        "BCELoss",
        {"weight": torch.tensor([0.5, 1.0, 2.0])},
        lambda: (torch.rand(4, 3).requires_grad_(), torch.rand(4, 3)),
    ),
    (
        "BCEWithLogitsLoss",
        {"pos_weight": torch.tensor([0.5, 1.0, 2.0])},
        lambda: (scores(4, 3), torch.rand(4, 3)),
    ),
    ("HingeEmbeddingLoss", {"margin": 0.8}, lambda: (scores(4, 3), signs(4, 3))),
    ("SoftMarginLoss", {}, lambda: (scores(4, 3), signs(4, 3))),
    ("CosineEmbeddingLoss", {"margin": 0.1}, lambda: (scores(4, 3), scores(4, 3), signs(4))),
    ("MarginRankingLoss", {"margin": 0.1}, lambda: (scores(4), scores(4), signs(4))),
    ("MultiMarginLoss", {"p": 2}, lambda: (scores(4, 3), torch.randint(0, 3, (4,)))),
    (
        "MultiLabelMarginLoss",
        {},
        lambda: (scores(2, 4), torch.tensor([[3, 0, -1, 1], [1, -1, 0, 0]])),
    ),
    ("MultiLabelSoftMarginLoss", {}, lambda: (scores(4, 3), torch.rand(4, 3).round())),
    ("TripletMarginLoss", {"swap": True}, lambda: (scores(4, 3), scores(4, 3), scores(4, 3))),
    ("TripletMarginWithDistanceLoss", {}, lambda: (scores(4, 3), scores(4, 3), scores(4, 3))),
    (
        "CTCLoss",
        {},
        lambda: (
            # Without gradients: PyTorch's are those before the log-softmax, whatever came before.
            torch.randn(8, 2, 5).log_softmax(2),
            torch.randint(1, 5, (2, 3)),
            torch.tensor([8, 7]),
            torch.tensor([3, 2]),
        ),
    ),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "name, options, inputs", LOSSES, ids=[f"{name}{i}" for i, (name, *_) in enumerate(LOSSES)]
)
def test_loss(name, options, inputs, reduction):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(reduction=reduction, **options)
    mine = {key: to_facula(value) for key, value in options.items()}
    ours = getattr(nn, name)(reduction=reduction, **mine)
    assert repr(ours) == repr(theirs)
    arguments = inputs()
    gradients = any(tensor.requires_grad for tensor in arguments)
    assert_same_module(ours, theirs, arguments, gradients=gradients)


@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
@pytest.mark.filterwarnings("ignore:size_average and reduce")
def test_older_arguments(size_average, reduce):
    ours = nn.MSELoss(size_average, reduce)
    theirs = torch.nn.MSELoss(size_average, reduce)
    assert ours.reduction == theirs.reduction
