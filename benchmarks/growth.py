"""How time and memory grow with batch, width, depth and length, for training steps.

Each point is a process of its own, so that the peak of memory is that of the point.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import Settings, apart
from benchmarks.programs import language_loss, perceptron, transformer

CASES: dict[str, Callable] = {}
SPECS = ("facula:eager", "facula:step", "torch:eager")
#: What grows -> (what it is measured on, the sizes).
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "batch": ("perceptron 256-1024-1024-10", (16, 64, 256, 1024, 4096)),
    "width": ("perceptron of three layers, batch 128", (64, 256, 512, 1024, 2048)),
    "depth": ("perceptron 256 wide with norms, batch 128", (2, 8, 32, 128)),
    "length": ("transformer 128 wide, 2 layers, batch 2", (64, 128, 256, 512, 1024, 2048)),
}


def run(settings: Settings, threads: int, only=()) -> dict:
    """``{axis: {size: {spec: figures}}}``."""
    found: dict = {}
    for axis, (_, sizes) in AXES.items():
        if not only or axis in only:
            chosen = sizes[::2] if settings.quick else sizes
            chosen = chosen[:2] if settings.quick else chosen
            found[axis] = {
                n: apart("growth", f"{axis} {n}", SPECS, settings, threads) for n in chosen
            }
    return found


def _case(axis, n):
    def build(lib):
        torch = lib.torch
        if axis == "length":
            model = transformer(torch, length=n, width=128, depth=2)
            x = torch.randint(0, 512, (2, n))
            optimizer = torch.optim.AdamW(model.parameters())
            return lib.training(model, optimizer, language_loss(torch), x, x)
        rows = n if axis == "batch" else 128
        sizes = {
            "batch": (256, 1024, 1024, 10),
            "width": (n, n, n, 10),
            "depth": (*[256] * n, 10),
        }[axis]
        activation = torch.nn.ReLU
        if axis == "depth":  # without norms, gradients would sink below the normal numbers

            def activation():
                return torch.nn.Sequential(torch.nn.LayerNorm(256), torch.nn.ReLU())

        model = perceptron(torch, sizes, activation)

        def loss(model, x, y):
            return torch.nn.functional.cross_entropy(model(x), y)

        batch = torch.randn(rows, sizes[0]), torch.randint(0, 10, (rows,))
        return lib.training(model, torch.optim.AdamW(model.parameters()), loss, *batch)

    return build


for _axis, (_, _sizes) in AXES.items():
    for _n in _sizes:
        CASES[f"{_axis} {_n}"] = _case(_axis, _n)
