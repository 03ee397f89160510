"""Small models of the kinds that people export."""

from __future__ import annotations

import facula as torch
import facula.nn.functional as F
from facula import nn


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3))


class LeNet(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, width, 3), nn.Conv2d(width, 2 * width, 3)
        self.drop = nn.Dropout(0.25)
        self.hidden, self.head = nn.Linear(2 * width * 16, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.second(F.relu(self.first(x))))
        x = torch.flatten(self.drop(F.max_pool2d(x, 2)), 1)
        return F.log_softmax(self.head(F.relu(self.hidden(x))), 1)


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.second, self.norm2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        plain = stride == 1 and i == o
        shortcut = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        self.shortcut = nn.Identity() if plain else shortcut

    def forward(self, x):
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A ResNet-18 of small width."""

    def __init__(self, width=4, classes=7):
        super().__init__()
        layers, i = [], width
        for k in range(4):
            o = width << k
            layers += [Block(i, o, 1 if k == 0 else 2), Block(o, o, 1)]
            i = o
        stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1), *layers)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(i, classes)

    def forward(self, x):
        return self.head(self.pool(self.body(x)).flatten(1))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        b, t, c = x.shape
        parts = self.qkv(self.norm1(x)).split(c, dim=2)
        q, k, v = (p.view(b, t, self.heads, c // self.heads).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(b, t, c))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary=11, context=16, width=8, heads=2):
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.layers = nn.Sequential(Layer(width, heads), Layer(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        x = self.token(ids) + self.place(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.layers(x)))


class Tagger(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.recurrent = nn.LSTM(5, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, ids):
        return self.head(self.recurrent(self.embed(ids))[0])


def decoder():
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 20), nn.Sigmoid())


def generator():
    return nn.Sequential(
        nn.ConvTranspose2d(6, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(True),
        nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1), nn.Tanh(),
    )  # fmt: skip


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x):
        y = F.avg_pool2d(F.silu(self.norm(self.down(x))), 2)
        y = F.interpolate(y, scale_factor=2, mode="nearest")
        return self.up(torch.cat([F.pad(x, (0, 0, 0, 0)), y], 1))


def floats(*shape):
    return lambda **sizes: torch.randn(*(sizes.get(n, n) for n in shape))


def tokens(*shape):
    return lambda **sizes: torch.randint(0, 11, tuple(sizes.get(n, n) for n in shape))


#: name -> (model, input of given sizes, sizes that may change by dimension).
MODELS = {
    "mlp": (mlp, floats("n", 6), {0: "n"}),
    "lenet": (LeNet, floats("n", 1, 12, 12), {0: "n"}),
    "resnet": (ResNet, floats("n", 3, 32, 32), {0: "n"}),
    "gpt": (GPT, tokens("n", "t"), {0: "n", 1: "t"}),
    "tagger": (Tagger, tokens("n", 7), {0: "n"}),
    "vae decoder": (decoder, floats("n", 5), {0: "n"}),
    "dcgan generator": (generator, floats("n", 6, 1, 1), {0: "n"}),
    "unet": (Unet, floats("n", 2, 6, 8), {0: "n"}),
}
