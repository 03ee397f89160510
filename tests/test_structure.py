"""The shape of the source itself: layers, sizes, what an import costs, words that mean unfinished.

Limits only ever get tighter: an entry in an allow list goes when its reason goes.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "facula"

#: A layer imports itself and those before it.
ENGINE = (
    "base",
    "ir",
    "ops",
    "derivatives",
    "kernels",
    "compiler",
    "codegen",
    "runtime",
    "eager",
)
#: Everything that is not named here or above is a library, and so is the face, `facula` itself.
ROADS = (("onnx", "export", "serve"), ("distributed",), ("compat",), ("cli", "__main__"))
LIBRARY = len(ENGINE)
#: Layers that see still less than what stands before them, and one that nobody sees.
ONLY = {"codegen": {"base", "ir"}, "kernels": {"base", "ir", "ops"}}
UNSEEN = {"compat": {"cli"}}

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
#: The plan's figure is 20,000. What counts as engine, and why, is in docs/design/decisions.md.
MAX_ENGINE_LINES = 28_250
#: "path" or "path:function" -> its lines today. It may shrink and go, never grow.
LONGER: dict[str, int] = {}
UNFINISHED = ("TODO", "FIXME", "XXX", "HACK", "/work/", "/root/", "/tmp/venv")


def rank(layer: str) -> int:
    if layer in ENGINE:
        return ENGINE.index(layer)
    return next((LIBRARY + 1 + i for i, road in enumerate(ROADS) if layer in road), LIBRARY)


def source_files(*folders: str, suffixes=(".py",)) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path.is_file()
    )


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_layers(path: Path):
    """(line, layer) of every import of facula's own, those inside of functions included."""
    package = ("facula", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from facula import x` is the layer x if there is one, otherwise the face.
            names = [f"{module}.{a.name}" for a in node.names] if module == "facula" else [module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "facula":
                layer = parts[1] if len(parts) > 1 else "__init__"
                known = (PACKAGE / layer).is_dir() or (PACKAGE / f"{layer}.py").is_file()
                yield node.lineno, layer if known else "__init__"


def test_a_layer_imports_only_those_before_it():
    wrong = []
    for path in source_files("facula"):
        own = layer_of(path)
        for line, layer in imported_layers(path):
            if layer == own:
                continue
            allowed = layer in ONLY[own] if own in ONLY else rank(layer) <= rank(own)
            if not allowed or own not in UNSEEN.get(layer, {own}):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} imports {layer}")
    assert not wrong, "\n".join(wrong)


def test_the_engine_stays_small(capsys):
    counts = {
        layer: sum(
            len(path.read_text().splitlines())
            for path in source_files(f"facula/{layer}", suffixes=(".py", ".ll"))
        )
        for layer in ENGINE
    }
    total = sum(counts.values())
    with capsys.disabled():
        table = ", ".join(f"{layer} {lines}" for layer, lines in counts.items())
        print(f"\nlines of the engine: {table}; {total} in all, of at most {MAX_ENGINE_LINES}")
    assert total < MAX_ENGINE_LINES


def sizes():
    """Everything over its limit: name -> lines."""
    over = {}
    for path in source_files("facula", "tests", "examples", "benchmarks"):
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text().splitlines())
        if lines >= MAX_FILE_LINES:
            over[name] = lines
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                if length >= MAX_FUNCTION_LINES:
                    over[f"{name}:{node.name}"] = length
    return over


def test_files_and_functions_stay_short():
    over = sizes()
    grown = {n: lines for n, lines in over.items() if lines > LONGER.get(n, 0)}
    assert not grown, f"too long; split them: {grown}"
    shrunk = {n: over.get(n, 0) for n, lines in LONGER.items() if over.get(n, 0) < lines}
    assert not shrunk, f"shorter than LONGER says; write it there: {shrunk}"


def test_nothing_is_left_unfinished():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in source_files("facula", "tests", "examples", "benchmarks")
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for word in UNFINISHED
        if word in line
    ]
    assert not found, "\n".join(found)


def test_names_of_modules_are_unique_in_a_folder():
    """A module beside a package of the same name would be shadowed by it."""
    names = Counter(
        p.with_suffix("") for p in PACKAGE.rglob("*") if p.suffix == ".py" or p.is_dir()
    )
    assert not [str(n) for n, count in names.items() if count > 1]


PROBE = """
import json, sys, time
start = time.perf_counter()
import facula
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules), "v": facula.__version__}))
"""


@pytest.fixture(scope="module")
def imported():
    done = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_import_loads_nothing_that_it_does_not_need(imported, capsys):
    with capsys.disabled():
        print(f"\nimport facula: {1e3 * imported['seconds']:.0f} ms")
    heavy = {"numpy", "llvmlite", "facula.serve", "facula.onnx", "facula.compat", "facula.cli"}
    assert not heavy & set(imported["modules"])


def test_the_version_is_said_once(imported):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == imported["v"]
    assert f"## {imported['v']}" in (ROOT / "CHANGELOG.md").read_text()
