"""Small versions of the workloads' networks, with batches of any size for them."""

from __future__ import annotations

import facula
from facula import nn
from facula.nn import functional as F

WORDS, WIDTH, LENGTH = 50, 48, 9


def mlp():
    return nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, 64), nn.ReLU(),
                         nn.LayerNorm(64), nn.Linear(64, 10))  # fmt: skip


class CNN(nn.Module):
    """Convolutions with batch norm and a residual branch, pooled and classified."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.c2, self.b2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.down = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.b1(self.c1(x))), 2)
        x = F.relu(self.b2(self.c2(x)) + self.down(x))
        return self.head(x.mean((2, 3)))


class GPT(nn.Module):
    """One causal block over embeddings of words and places."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens):
        b, t = tokens.shape
        x = self.words(tokens) + self.places(facula.arange(t))
        q, k, v = (
            y.view(b, t, 4, WIDTH // 4).transpose(1, 2)
            for y in self.qkv(self.n1(x)).chunk(3, dim=-1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, WIDTH))
        x = x + self.down(F.gelu(self.up(self.n2(x))))
        return self.head(x)[:, -1]


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.rnn = nn.Embedding(WORDS, WIDTH), nn.LSTM(WIDTH, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, tokens):
        states, _ = self.rnn(self.words(tokens))
        return self.head(states[:, -1])


def _numbers(*shape):
    return lambda batch: facula.randn(batch, *shape)


def _tokens(batch):
    return facula.randint(0, WORDS, (batch, LENGTH))


#: name -> (class or function that makes the model, batch size -> input)
MODELS = {
    "mlp": (mlp, _numbers(40)),
    "cnn": (CNN, _numbers(3, 16, 16)),
    "gpt": (GPT, _tokens),
    "lstm": (LSTM, _tokens),
}


def made(name, batch=6):
    """(model, input, classes), the same at every call."""
    facula.manual_seed(7)
    build, inputs = MODELS[name]
    return build(), inputs(batch), facula.randint(0, 10, (batch,))


def step(model, x, y, forward=None):
    """Loss and gradients of one step, as bytes."""
    loss = F.cross_entropy((forward or model)(x), y)
    loss.backward()
    found = [loss.detach(), *(p.grad for p in model.parameters())]
    return [t.numpy().tobytes() for t in found]
