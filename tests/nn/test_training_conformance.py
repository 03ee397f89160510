"""Whole training loops here and in PyTorch, from the same weights: the same losses."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn
from tests.nn.against import copy_weights, to_facula

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.conformance


def perceptron(nn):
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))


def convolutional(nn):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def generator(nn):
    return nn.Sequential(
        nn.Unflatten(1, (8, 1, 1)),
        nn.ConvTranspose2d(8, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2, True),
        nn.ConvTranspose2d(4, 1, 2),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def tagger(nn):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(11, 6)
            self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
            self.head = nn.Linear(10, 4)

        def forward(self, x):
            return self.head(self.lstm(self.table(x))[0][:, -1])

    return Tagger()


def transformer(nn):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(11, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.body(self.table(x)).mean(dim=1))

    return Classifier()


VECTORS, IMAGES, WORDS = "vectors", "images", "words"
RUNS = [
    (perceptron, VECTORS, "Adam", {"lr": 1e-2}),
    (convolutional, IMAGES, "SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
    (generator, VECTORS, "RMSprop", {"lr": 1e-3}),
    (tagger, WORDS, "AdamW", {"lr": 1e-2}),
    (transformer, WORDS, "NAdam", {"lr": 1e-3}),
]


def batch(kind):
    if kind == VECTORS:
        return torch.randn(6, 8)
    return torch.randn(6, 1, 8, 8) if kind == IMAGES else torch.randint(0, 11, (6, 5))


def train(library, model, optimizer, options, batches):
    steps = getattr(library.optim, optimizer)(model.parameters(), **options)
    schedule = library.optim.lr_scheduler.ExponentialLR(steps, 0.9)
    loss_fn = library.nn.CrossEntropyLoss(label_smoothing=0.1)
    losses = []
    for x, y in batches:
        steps.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        library.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        steps.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "make, kind, optimizer, options", RUNS, ids=[make.__name__ for make, *_ in RUNS]
)
def test_same_losses(make, kind, optimizer, options):
    torch.manual_seed(0)
    theirs, ours = make(torch.nn), make(nn)
    copy_weights(ours, theirs)
    batches = [(batch(kind), torch.randint(0, 4, (6,))) for _ in range(8)]
    mine = train(facula, ours, optimizer, options, to_facula(batches))
    reference = train(torch, theirs, optimizer, options, batches)
    np.testing.assert_allclose(mine, reference, rtol=1e-3, atol=1e-4)
