"""Promise 2: one wheel for all machines, two dependencies, and an import that loads neither."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile

import pytest


def test_two_dependencies(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    names = {d.split(">")[0].split("=")[0].strip() for d in project["dependencies"]}
    assert names == {"numpy", "llvmlite"}


def test_the_wheel_is_for_every_machine(root, tmp_path):
    backend = pytest.importorskip("hatchling.build", reason="the wheel's builder is not installed")
    before = os.getcwd()
    os.chdir(root)
    try:
        name = backend.build_wheel(str(tmp_path))
    finally:
        os.chdir(before)
    assert name.startswith("facula-") and name.endswith("-py3-none-any.whl")
    files = zipfile.ZipFile(tmp_path / name).namelist()
    assert not [f for f in files if f.endswith((".so", ".pyd", ".dll", ".dylib", ".a", ".o"))]
    assert {f.split("/")[0].split("-")[0] for f in files} == {"facula"}
    assert "facula/runtime/storage.ll" in files


LOADED = """
import sys
before = set(sys.modules)
import facula
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert new == {"facula"}, new
facula.ones(2).sum()
"""


def test_an_import_loads_nothing_but_facula(root):
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WITHOUT_EXTRAS = """
import sys
for name in ("torch", "scipy", "sklearn", "matplotlib", "onnx", "onnxruntime", "tqdm",
             "starlette", "uvicorn", "safetensors", "jinja2", "sympy", "networkx"):
    sys.modules[name] = None
import facula
from facula import nn
model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
optimizer = facula.optim.Adam(model.parameters())
nn.functional.cross_entropy(model(facula.randn(3, 1, 4, 4)), facula.tensor([0, 1, 1])).backward()
optimizer.step()
"""


def test_a_training_step_needs_no_extra(root):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


WARM = """
import facula, facula.codegen
{patch}
x = facula.ones(5, 7, requires_grad=True)
(x.softmax(1) @ x.t()).exp().sum().backward()
print(x.grad.sum().item())
"""
#: In a second process neither text nor machine code is made.
REFUSE = """
from facula.runtime import jit
def refuse(*args): raise AssertionError("made again")
facula.codegen.emit = jit.compile_object = refuse
"""


def test_a_second_process_makes_no_kernel(root, tmp_path):
    seen = []
    for patch in ("", REFUSE):
        done = subprocess.run(
            [sys.executable, "-c", WARM.format(patch=patch)],
            cwd=root,
            env={**os.environ, "FACULA_CACHE_DIR": str(tmp_path), "FACULA_VERIFY": "0"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        seen.append(done.stdout)
    assert seen[0] == seen[1]
