"""What is timed: each case takes the library's module and gives a function without arguments.

The text of a case is the same for both libraries, and is what a user would write. ``bound`` is
the largest share of PyTorch's time that facula may take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    bound: float
    build: Callable


CASES: dict[str, Case] = {}


def case(name: str, bound: float):
    def add(build):
        CASES[name] = Case(name, bound, build)
        return build

    return add


@case("add, 8 elements", 0.4)
def add_small(torch):
    a, b = torch.randn(8), torch.randn(8)
    return lambda: a + b


@case("add, 8 elements, recorded for backward", 0.5)
def add_grad(torch):
    a, b = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)
    return lambda: a + b


@case("MLP 64-64-64-10, batch 32: a training step with Adam", 0.3)
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


def _matmul(size: int):
    def build(torch):
        a, b = torch.randn(size, size), torch.randn(size, size)
        return lambda: a @ b

    return case(f"matmul {size}", 1 / 0.95)(build)


for _size in (512, 1024, 2048):
    _matmul(_size)


@case("softmax 1024x1024", 1 / 1.5)
def softmax(torch):
    x = torch.randn(1024, 1024)
    return lambda: torch.softmax(x, dim=-1)


@case("layer_norm 1024x1024", 1 / 1.5)
def layer_norm(torch):
    x, norm = torch.randn(1024, 1024), torch.nn.LayerNorm(1024)

    def run():
        with torch.no_grad():
            return norm(x)

    return run


@case("digits: a training step of the demo's network, batch 32", 1.0)
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
