"""What is measured in processes of its own: imports, first steps, new sizes, memory.

Each measurement gives rows (what, value, at most or None) of floats, with a unit in the name.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

Row = tuple[str, float, float | None]

_IMPORT = """
import time
start = time.perf_counter()
import {library}
imported = time.perf_counter()
{library}.ones(3).sum().item()
print(imported - start, time.perf_counter() - start)
"""

_FIRST_STEP = """
import time
start = time.perf_counter()
import facula
from benchmarks.cases import CASES, DIGITS
run = CASES[DIGITS].build(facula)
run()
print(time.perf_counter() - start, time.process_time())
"""

_NEW_SIZES = """
import facula
from facula import nn
from facula.eager import engine

class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(50, 32), nn.LayerNorm(32)
        self.qkv, self.head = nn.Linear(32, 96), nn.Linear(32, 50)

    def forward(self, tokens):
        x = self.embed(tokens)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x).flatten(0, 1)

def step(model, x, y):
    nn.functional.cross_entropy(model(x), y).backward()

def tokens(n, t):
    return facula.randint(0, 50, (n, t)), facula.randint(0, 50, (n * t,))

def images(n, side):
    return facula.randn(n, 3, side, side), facula.randint(0, 5, (n,))

text = Attending()
pictures = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
for n, t in ((4, 16), (6, 24)):
    step(text, *tokens(n, t))
for n in (4, 6):
    step(pictures, *images(n, 16))
before = engine.compiled_kernels
step(text, *tokens(9, 16))
step(text, *tokens(4, 33))
step(pictures, *images(13, 16))
print(engine.compiled_kernels - before)
"""

_MEMORY = """
import json, statistics, time
import facula

facula.set_num_threads(1)
found = {}
for name, elements in (("64 KiB", 1 << 14), ("4 MiB", 1 << 20), ("64 MiB", 1 << 24)):
    a, b = facula.randn(elements), facula.randn(elements)
    for kind, limit in (("recycled", 1 << 30), ("fresh", 0)):
        facula.cpu.set_cache_limit(limit)
        facula.cpu.empty_cache()
        times = []
        for _ in range(9 if elements > 1 << 20 else 99):
            start = time.perf_counter()
            c = a + b
            times.append(time.perf_counter() - start)
            del c
        found[f"{name} {kind}"] = statistics.median(times[1:])
print(json.dumps(found))
"""


def _python(text: str, **environment: str) -> str:
    """Run a program; bytecode is kept, as that of installed packages is."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    kept = str(Path(__file__).parent / "results" / "bytecode")
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**inherited, "PYTHONPYCACHEPREFIX": kept, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def imports(rounds: int, torch: bool) -> Iterator[Row]:
    """Seconds of an import, in pairs, the files being in the page cache."""
    libraries = ("facula", "torch") if torch else ("facula",)
    times: dict[str, list] = {library: [] for library in libraries}
    for _ in range(rounds + 1):
        for library in libraries:
            times[library].append(map(float, _python(_IMPORT.format(library=library)).split()))
    for library in libraries:
        # The first run writes bytecode and machine code.
        whole, first = (statistics.median(column) for column in zip(*times[library][1:]))
        yield f"import {library} (s)", whole, 0.2 if library == "facula" else None
        yield f"import {library} and a first sum (s)", first, None


def first_steps() -> Iterator[Row]:
    """Seconds from the start of the import to the end of the demo's first training step."""
    _python("import benchmarks.cases, facula.nn, facula.optim.adam, facula.tensor")
    with tempfile.TemporaryDirectory() as folder:
        for cache, bound in (("cold", 4.0), ("warm", 0.5)):
            answer = _python(_FIRST_STEP, FACULA_CACHE_DIR=folder).split()
            seconds, processor = map(float, answer)
            yield f"the demo's first step, import included, {cache} cache (s)", seconds, bound
            yield "its share of a processor, Python's start included (s)", processor, None


def new_sizes() -> Iterator[Row]:
    """Kernels compiled for a batch size and a sequence length that were never seen."""
    yield "kernels compiled for new batch sizes and lengths", float(_python(_NEW_SIZES)), 0.0


def memory() -> Iterator[Row]:
    """Microseconds of ``a + b`` with blocks recycled, and with blocks fresh from the system."""
    for name, seconds in json.loads(_python(_MEMORY)).items():
        yield f"a + b, {name} result (µs, one thread)", 1e6 * seconds, None
