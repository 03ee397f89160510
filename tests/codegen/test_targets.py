"""Text for processors that are not here: LLVM must accept it and have instructions for it."""

from __future__ import annotations

import re

import pytest
from test_golden import KERNELS

from facula.base import dtypes as D
from facula.codegen import Target, emit
from facula.ir import loops as L

#: Triple, LLVM's names of processor and features, our target.
MACHINES = {
    "x86-sse": ("x86_64-unknown-linux-gnu", "x86-64-v2", "", Target(16, "x86_64")),
    "x86-avx2": ("x86_64-unknown-linux-gnu", "x86-64-v3", "", Target(32, "x86_64")),
    "x86-avx512": ("x86_64-unknown-linux-gnu", "x86-64-v4", "", Target(64, "x86_64")),
    "arm": ("aarch64-unknown-linux-gnu", "generic", "+neon", Target(16, "aarch64")),
    "apple": ("arm64-apple-darwin", "apple-m1", "", Target(16, "arm64")),
    "wasm": ("wasm32-unknown-unknown", "generic", "+simd128", Target(16, "wasm32")),
}


def assembly(machine, text):
    import llvmlite.binding as llvm

    triple, cpu, features, _ = MACHINES[machine]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    to = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    head = f'target triple = "{triple}"\ntarget datalayout = "{to.target_data}"\n'
    module = llvm.parse_assembly(head + text, llvm.create_context())
    module.verify()
    return to.emit_assembly(module)


def kernel(build):
    k = L.Builder(build.__name__)
    build(k)
    return k.kernel()


@pytest.mark.parametrize("machine", MACHINES)
def test_other_processors(machine):
    target = MACHINES[machine][-1]
    for build in dict.fromkeys(build for build, _ in KERNELS):
        assert assembly(machine, emit(kernel(build), target))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("d", D.ALL, ids=lambda d: d.name)
def test_dtypes_need_no_library(machine, d):
    """Conversions and arithmetic are instructions, not calls that nobody may provide."""
    k = L.Builder("mixed")
    x, y, n = k.buffer("x", d), k.buffer("y", d, "w"), k.size("n")
    with k.vector(0, n) as i:
        as_float = L.cast(x[i], D.float32)
        again = L.cast(L.cast(as_float * as_float, D.float16), d)
        k.store(y, i, L.select(x[i].ne(0), L.maximum(x[i], again), x[i]))
    text = assembly(machine, emit(k.kernel(), MACHINES[machine][-1]))
    assert not re.findall(r"__(?:extend|trunc|fix|float|u?div|mul)\w+", text)


@pytest.mark.parametrize("machine, instruction", [
    ("x86-avx512", "vfmadd231ps"), ("x86-avx2", "vfmadd231ps"), ("arm", "fmla"),
])  # fmt: skip
def test_micro_kernel_keeps_its_tile_in_registers(machine, instruction):
    target = MACHINES[machine][-1]
    rows, vectors = (12, 2) if target.vector_bytes == 64 else (5, 2)
    width = target.lanes(4) * vectors
    k = L.Builder("micro")
    a, b, c = (k.buffer(x, D.float32, "rw") for x in "abc")
    depth = k.size("depth")
    acc = k.local(D.float32, 0.0, (rows, width))
    with k.serial(0, depth) as p, k.vector(0, width) as j, k.unroll(0, rows) as i:
        k.assign(acc, i, j, L.fma(a[p * rows + i], b[p * width + j], acc[i, j]))
    with k.vector(0, width) as j, k.unroll(0, rows) as i:
        k.store(c, i * width + j, acc[i, j])
    text = assembly(machine, emit(k.kernel(), target))
    assert text.count(instruction) == rows * vectors
    assert "(%rsp)" not in text and "[sp" not in text
