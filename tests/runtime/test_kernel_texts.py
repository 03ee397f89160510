"""Texts of kernels in the disk cache: what one process wrote, the next neither writes nor emits."""

import subprocess
import sys

PROGRAM = """
import facula
from facula import codegen
from facula.eager import engine
from facula.ir import deferred, loops

written, emitted = [], []
finish, emit = loops.Builder.kernel, codegen.emit
def kernel(self):
    written.append(self.name)
    return finish(self)
def emitting(kernel, target):
    emitted.append(kernel)
    return emit(kernel, target)
loops.Builder.kernel, codegen.emit = kernel, emitting

facula.manual_seed(0)
x, w = facula.randn(40, 30), facula.randn(20, 30, requires_grad=True)
y = facula.compile(lambda x, w: facula.relu(x @ w.T).cumsum(0))(x, w)
y.sum().backward()
by_hand = [name for name in written if "matmul" in name or "cumsum" in name]
print(len(by_hand), len(emitted), float(y.sum()), float(w.grad.sum()))
"""


def run(folder):
    env = {"FACULA_CACHE_DIR": str(folder), "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, check=True, capture_output=True, text=True
    )
    return found.stdout.split()


def test_the_next_process_writes_no_kernel_again(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert int(first[0]) >= 3 and int(first[1]) >= 3
    assert second[:2] == ["0", "0"]
    assert first[2:] == second[2:]


def test_a_damaged_text_is_written_again(tmp_path):
    first = run(tmp_path)
    for entry in tmp_path.iterdir():
        content = entry.read_bytes()
        entry.write_bytes(content[: len(content) // 2])
    assert run(tmp_path) == first


def test_without_a_cache_kernels_are_written(tmp_path):
    first = run(tmp_path)
    assert run("") == first
