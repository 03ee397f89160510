"""What is timed: each case takes the library's module and gives a function without arguments.

The text of a case is the same for both libraries, and is what a user would write. ``bound`` is
the largest share of PyTorch's time that facula may take, ``moved`` the bytes that have to be read
and written at least, for cases that may be limited by memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    bound: float
    build: Callable
    threads: tuple[int, ...] = (1, 2)
    moved: int = 0


CASES: dict[str, Case] = {}
DIGITS = "digits: a training step of the demo's network, batch 32"


def case(name: str, bound: float, threads=(1, 2), moved: int = 0):
    def add(build):
        CASES[name] = Case(name, bound, build, threads, moved)
        return build

    return add


# Small calls: what is timed is the way to the kernel, so one thread tells all.


@case("a + b, 8 elements", 0.4, threads=(1,))
def add_small(torch):
    a, b = torch.randn(8), torch.randn(8)
    return lambda: a + b


@case("a + b, 8 elements, recorded for backward", 0.5, threads=(1,))
def add_grad(torch):
    a, b = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)
    return lambda: a + b


@case("MLP 64-64-64-10, batch 32: a training step with Adam", 0.3, threads=(1,))
def mlp_step(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


# Matrix products


def _matmul(size: int, form: str):
    def build(torch):
        a, b = torch.randn(size, size), torch.randn(size, size)
        if form[0] == "T":
            a = a.t()
        if form[1] == "T":
            b = b.t()
        return lambda: a @ b

    return case(f"matmul {size} {form}", 1 / 0.95)(build)


for _size in (512, 1024, 2048):
    for _form in ("NN", "NT", "TN"):
        _matmul(_size, _form)


# Over a square of 1024 x 1024 float32 numbers: 4 MiB.

SQUARE = 4 << 20


def _square(name: str, bound: float, fn: Callable, moved: int = 2 * SQUARE):
    def build(torch):
        x = torch.randn(1024, 1024)
        return lambda: fn(torch, x)

    return case(f"{name} 1024x1024", bound, moved=moved)(build)


_square("softmax", 1 / 1.5, lambda torch, x: torch.softmax(x, dim=-1))
_square("layer_norm", 1 / 1.5, lambda torch, x: torch.nn.functional.layer_norm(x, (1024,)))
_square("exp", 1.0, lambda torch, x: torch.exp(x))
_square("tanh", 1.0, lambda torch, x: torch.tanh(x))
_square("gelu", 1.0, lambda torch, x: torch.nn.functional.gelu(x))
_square("sum", 1.0, lambda torch, x: x.sum(), moved=SQUARE)


@case("copy_ 1024x1024", 1.0, moved=2 * SQUARE)
def copy(torch):
    """What memory allows: no kernel that reads and writes as much can be faster."""
    x, y = torch.randn(1024, 1024), torch.empty(1024, 1024)
    return lambda: y.copy_(x)


# Convolutions


def _conv(batch: int, channels: int, size: int):
    def build(torch):
        x, weight = torch.randn(batch, channels, size, size), torch.randn(channels, channels, 3, 3)
        return lambda: torch.nn.functional.conv2d(x, weight, padding=1)

    return case(f"conv 3x3, {batch} x {channels} x {size} x {size}", 1.0)(build)


_conv(16, 64, 32)
_conv(32, 32, 8)


@case(DIGITS, 1.0)
def digits_step(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.rand(32, 1, 8, 8), torch.randint(0, 10, (32,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step
