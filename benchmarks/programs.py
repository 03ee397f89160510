"""Whole programs: training steps and forward passes as users write them, the same text for both."""

from __future__ import annotations

import math
from collections.abc import Callable

from benchmarks.measure import Settings, apart

CASES: dict[str, Callable] = {}
SPECS = ("facula:eager", "facula:step", "torch:eager", "torch:compile", "torch:step")
#: Those that stand for the others.
QUICK = ("mlp, small", "transformer training", "elementwise chain")


def program(name: str):
    def add(build):
        CASES[name] = build
        return build

    return add


def run(settings: Settings, threads: int, only=()) -> dict:
    """All programs, each library in a process of its own for each of them."""
    names = [n for n in CASES if not only or any(w in n for w in only)]
    if settings.quick:
        names = [n for n in names if n in QUICK]
    specs = [s for s in SPECS if not settings.quick or s.endswith(("eager", "facula:step"))]
    return {n: apart("programs", n, specs, settings, threads) for n in names}


def _entropy(torch):
    return lambda model, x, y: torch.nn.functional.cross_entropy(model(x), y)


def perceptron(torch, sizes, activation):
    """Linear layers with an activation between them."""
    nn, layers = torch.nn, []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


@program("mlp, small")
def mlp_small(lib):
    torch = lib.torch
    model = perceptron(torch, (64, 64, 64, 10), torch.nn.ReLU)
    batch = torch.randn(32, 64), torch.randint(0, 10, (32,))
    return lib.training(model, torch.optim.Adam(model.parameters()), _entropy(torch), *batch)


@program("mlp, large")
def mlp_large(lib):
    torch = lib.torch
    model = perceptron(torch, (784, 1024, 1024, 10), torch.nn.GELU)
    batch = torch.randn(256, 784), torch.randint(0, 10, (256,))
    return lib.training(model, torch.optim.AdamW(model.parameters()), _entropy(torch), *batch)


@program("convolutions, 28 x 28")
def small_images(lib):
    torch, nn = lib.torch, lib.torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(64 * 144, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 10),
    )  # fmt: skip
    batch = torch.randn(64, 1, 28, 28), torch.randint(0, 10, (64,))
    return lib.training(model, torch.optim.Adadelta(model.parameters()), _entropy(torch), *batch)


def residual_network(torch, width=64, classes=1000):
    """He et al. (2015): 18 layers, for images of any size."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.first = nn.Conv2d(a, b, 3, stride, 1, bias=False)
            self.second = nn.Conv2d(b, b, 3, 1, 1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(b), nn.BatchNorm2d(b)])
            same = stride == 1 and a == b
            self.short = nn.Identity() if same else nn.Sequential(
                nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b)
            )  # fmt: skip

        def forward(self, x):
            y = F.relu(self.norms[0](self.first(x)))
            return F.relu(self.norms[1](self.second(y)) + self.short(x))

    widths = [width, width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    blocks = [
        Block(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])
    ]  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8 * width, classes),
    )  # fmt: skip


@program("resnet-18 training")
def resnet_training(lib):
    torch = lib.torch
    model = residual_network(torch, classes=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    batch = torch.randn(8, 3, 96, 96), torch.randint(0, 100, (8,))
    return lib.training(model, optimizer, _entropy(torch), *batch)


@program("resnet-18, one image")
def resnet_image(lib):
    return lib.inference(residual_network(lib.torch), lib.torch.randn(1, 3, 224, 224))


def transformer(torch, vocabulary=512, length=256, width=256, depth=4, heads=4, causal=True):
    """Pre-norm layers over token and position embeddings (Radford et al., 2019)."""
    nn, F = torch.nn, torch.nn.functional

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            b, t, c = x.shape
            q, k, v = self.qkv(self.norms[0](x)).chunk(3, dim=-1)
            q, k, v = (z.view(b, t, heads, c // heads).transpose(1, 2) for z in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
            return x + self.down(F.gelu(self.up(self.norms[1](x))))

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            self.layers = nn.ModuleList([Layer() for _ in range(depth)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, x):
            y = self.tokens(x) + self.places(torch.arange(x.shape[1]))
            for layer in self.layers:
                y = layer(y)
            return self.head(self.norm(y))

    return Transformer()


def language_loss(torch):
    """Cross-entropy of every position."""
    F = torch.nn.functional
    return lambda model, x, y: F.cross_entropy(model(x).flatten(0, 1), y.flatten())


@program("transformer training")
def transformer_training(lib):
    torch = lib.torch
    model = transformer(torch)
    batch = torch.randint(0, 512, (8, 128)), torch.randint(0, 512, (8, 128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return lib.training(model, optimizer, language_loss(torch), *batch)


@program("transformer encoder, batch 8")
def encoder(lib):
    torch = lib.torch
    model = transformer(torch, vocabulary=2048, depth=6, causal=False)
    return lib.inference(model, torch.randint(0, 2048, (8, 128)))


@program("transformer, 16 tokens")
def tokens(lib):
    return lib.inference(transformer(lib.torch), lib.torch.randint(0, 512, (1, 16)))


@program("transformer, a new length each call")
def lengths(lib):
    torch, count = lib.torch, [0]
    model = transformer(torch, length=512, depth=2, causal=False)
    inputs = [torch.randint(0, 512, (2, 17 + 7 * i % 401)) for i in range(64)]
    model.eval()
    forward = lib.compiled(model)

    def run():
        count[0] += 1
        with torch.no_grad():
            return forward(inputs[count[0] % 64])

    return run


@program("lstm tagger")
def tagger(lib):
    torch, nn = lib.torch, lib.torch.nn

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.lstm = nn.Embedding(256, 64), nn.LSTM(64, 128, batch_first=True)
            self.head = nn.Linear(128, 256)

        def forward(self, x):
            return self.head(self.lstm(self.embed(x))[0])

    model, x = Tagger(), torch.randint(0, 256, (32, 64))
    optimizer = torch.optim.Adam(model.parameters())
    return lib.training(model, optimizer, language_loss(torch), x, x)


@program("recommender")
def recommender(lib):
    """Naumov et al. (2019): embeddings, their products by pairs, two perceptrons."""
    torch, nn, F = lib.torch, lib.torch.nn, lib.torch.nn.functional
    rows, size, count = 20000, 32, 8

    class Recommender(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList([nn.Embedding(rows, size) for _ in range(count)])
            self.dense = perceptron(torch, (13, 64, size), nn.ReLU)
            pairs = count * (count + 1) // 2
            self.top = perceptron(torch, (size + pairs, 64, 1), nn.ReLU)

        def forward(self, dense, sparse):
            x = F.relu(self.dense(dense))
            found = [table(sparse[:, i]) for i, table in enumerate(self.tables)]
            z = torch.stack([x, *found], 1)
            i, j = torch.tril_indices(count + 1, count + 1, -1)
            crossed = torch.bmm(z, z.transpose(1, 2))[:, i, j]
            return self.top(torch.cat([x, crossed], 1)).squeeze(1)

    def loss(model, dense, sparse, y):
        return F.binary_cross_entropy_with_logits(model(dense, sparse), y)

    model = Recommender()
    batch = torch.randn(512, 13), torch.randint(0, rows, (512, count)), torch.rand(512)
    return lib.training(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, *batch)


@program("variational autoencoder")
def autoencoder(lib):
    """Kingma and Welling (2013)."""
    torch, nn, F = lib.torch, lib.torch.nn, lib.torch.nn.functional
    encode = perceptron(torch, (784, 400, 40), nn.ReLU)
    decode = perceptron(torch, (20, 400, 784), nn.ReLU)

    def loss(model, x):
        mean, log_variance = model[0](x).chunk(2, dim=-1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        kept = F.binary_cross_entropy(torch.sigmoid(model[1](z)), x, reduction="sum")
        spread = 1 + log_variance - mean.pow(2) - log_variance.exp()
        return kept - 0.5 * spread.sum()

    model = nn.ModuleList([encode, decode])
    optimizer = torch.optim.Adam(model.parameters())
    return lib.training(model, optimizer, loss, torch.rand(128, 784))


@program("transposed convolutions")
def generator(lib):
    """The generator of Radford et al. (2015), for small images."""
    torch, nn, layers = lib.torch, lib.torch.nn, []
    for a, b, stride, padding in ((64, 128, 1, 0), (128, 64, 2, 1)):
        layers += [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(b), nn.ReLU(True)]
    model = nn.Sequential(*layers, nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False), nn.Tanh())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def loss(model, z, y):
        return nn.functional.mse_loss(model(z), y)

    return lib.training(
        model, optimizer, loss, torch.randn(32, 64, 1, 1), torch.randn(32, 1, 16, 16)
    )


@program("elementwise chain")
def chain(lib):
    torch = lib.torch
    x, y = torch.randn(2048, 2048), torch.randn(2048, 1)

    def f(x, y):
        z = torch.sigmoid(x * y + 1.0) * torch.tanh(x) - 0.5 * x.pow(2)
        return z.exp().clamp(max=3.0).sum(1)

    f = lib.compiled(f)
    return lambda: f(x, y)


@program("200 operations on 16 numbers")
def tiny(lib):
    torch = lib.torch
    x, y = torch.randn(16), torch.randn(16)

    def f(x, y):
        for _ in range(50):
            x = torch.tanh(x * 0.9 + y) - y
        return x

    f = lib.compiled(f)
    return lambda: f(x, y)


def geometric_mean(ratios) -> float:
    """Of positive numbers."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
