"""What is paid once: imports, first steps with a cold and a warm cache, sizes never seen."""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile

from benchmarks.measure import Failed, Settings, python

_IMPORT = """
import time
start = time.perf_counter()
import {library}
imported = time.perf_counter()
{library}.ones(3).sum().item()
print(imported - start, time.perf_counter() - start)
"""

_FIRST = """
import time
start = time.perf_counter()
from benchmarks import programs
from benchmarks.worker import Library
library = Library({spec!r})
imported = time.perf_counter()
run = programs.CASES[{name!r}](library)
run()
print(time.perf_counter() - imported)
"""

#: Kernels compiled by the second of two rounds of sizes, over text and images.
_NEW_SIZES = """
import facula
from benchmarks import programs
from benchmarks.worker import Library
from facula.eager import engine

library = Library("facula:eager")
text = programs.transformer(facula, width=64, depth=1)
images = programs.residual_network(facula, width=8, classes=5)
entropy = facula.nn.functional.cross_entropy

def words(n, t):
    x = facula.randint(0, 512, (n, t))
    programs.language_loss(facula)(text, x, x).backward()

def pictures(n, side):
    entropy(images(facula.randn(n, 3, side, side)), facula.randint(0, 5, (n,))).backward()

for n, t, side in ((4, 16, 32), (6, 24, 48)):
    words(n, t)
    pictures(n, side)
before = engine.compiled_kernels
words(9, 33)
pictures(13, 40)
print(engine.compiled_kernels - before)
"""

FIRST = ("mlp, small", "resnet-18 training", "transformer training")
SPECS = ("facula:eager", "facula:step", "torch:eager", "torch:step")


def run(settings: Settings, threads: int, only=()) -> dict:
    """``{"imports": ..., "first": {program: {spec: {cold, warm}}}, "new sizes": kernels}``."""
    found: dict = {"imports": {}, "first": {}}
    libraries = [x for x in ("facula", "torch") if importlib.util.find_spec(x)]
    for library in libraries:
        times = [
            tuple(map(float, python(_IMPORT.format(library=library)).split()))
            for _ in range(1 + settings.rounds)
        ]
        # The first run may write bytecode and machine code.
        whole, first = (statistics.median(column) for column in zip(*times[1:]))
        found["imports"][library] = {"import_s": whole, "first_sum_s": first}
    specs = [s for s in SPECS if s.partition(":")[0] in libraries]
    if settings.quick:
        specs = [s for s in specs if s != "torch:step"]
    for name in FIRST[:1] if settings.quick else FIRST:
        found["first"][name] = {spec: _first(spec, name) for spec in specs}
    found["new sizes"] = int(python(_NEW_SIZES))
    return found


def _first(spec, name) -> dict:
    """Seconds from the import's end to the end of the first step, by the state of the caches."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"FACULA_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
        text = _FIRST.format(spec=spec, name=name)
        try:
            return {state: json.loads(python(text, **caches)) for state in ("cold", "warm")}
        except Failed as error:
            return {"error": str(error)[:200]}
