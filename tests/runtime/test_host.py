"""What the machine offers, and that looking costs no import."""

import ctypes
import os

import numpy as np
import pytest

from facula.runtime import host, jit


def test_the_host_is_described():
    target = host.target()
    assert target.vector_bytes in (16, 32, 64) and target.cpu and target.arch in target.triple
    assert 1 <= host.usable_cores() <= host.physical_cores() <= len(host.affinity())
    assert host.memory_limit() > 1 << 26
    assert all(size > 0 for size in host.cache_sizes().values())


def test_a_quota_bounds_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_cgroup_folders", lambda controller: [tmp_path])
    monkeypatch.setattr(host, "physical_cores", lambda: 8)
    for text, cores in (("max 100000", 8), ("150000 100000", 2), ("10000 100000", 1), ("", 8)):
        (tmp_path / "cpu.max").write_text(text)
        assert host.usable_cores() == cores
    (tmp_path / "memory.max").write_text("1234567")
    assert host.memory_limit() == 1234567


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names x86 processors")
def test_a_generic_cpu_can_be_asked_for(script):
    code = "from facula.runtime import host; print(host.target().vector_bytes)"
    assert script(code, FACULA_CPU="x86-64-v3") == "32\n"
    assert script(code, FACULA_CPU="x86-64") == "16\n"
    wrong = "from facula.runtime import host\ntry: host.target()\nexcept ValueError as e: print(e)"
    assert "expected one of" in script(wrong, FACULA_CPU="i486")


def test_importing_the_runtime_imports_neither_numpy_nor_llvmlite(script):
    code = """
import sys
from facula.runtime import cache, host, jit, launch, native, random, storage, threads
threads.get_num_threads(); cache.stats(); host.usable_cores()
print([m for m in ("numpy", "llvmlite") if m in sys.modules])
"""
    assert script(code) == "[]\n"


def test_halves_are_converted_in_software_where_the_processor_cannot():
    text = jit.source("halves.ll", {})
    found = jit.load(text, ["__extendhfsf2", "__truncsfhf2"])
    # The functions speak of halves in registers; wrap them to speak of memory.
    wrapped = jit.load(
        text.replace("define ", "define internal ")
        + """
define void @all(ptr %halves, ptr %floats, ptr %back, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %h_at = getelementptr half, ptr %halves, i64 %i
  %h = load half, ptr %h_at
  %wide = call float @__extendhfsf2(half %h)
  %w_at = getelementptr float, ptr %floats, i64 %i
  %given = load float, ptr %w_at
  %narrow = call half @__truncsfhf2(float %given)
  %b_at = getelementptr half, ptr %back, i64 %i
  store half %narrow, ptr %b_at
  store float %wide, ptr %w_at
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %out
out:
  ret void
}
""",
        ["all"],
    )
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    exact = halves.astype(np.float32)
    random = np.random.default_rng(0)
    near = np.ldexp(random.uniform(-2, 2, 1 << 16), random.integers(-27, 17, 1 << 16))
    ties = (exact.view(np.uint32) + np.uint32(0x1000)).view(np.float32)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(wrapped["all"])
    for floats in (exact, near.astype(np.float32), ties):
        words, back = floats.copy(), np.empty_like(halves)
        run(halves.ctypes.data, words.ctypes.data, back.ctypes.data, len(halves))
        with np.errstate(over="ignore"):
            expected = floats.astype(np.float16)
        np.testing.assert_array_equal(back, expected)
        np.testing.assert_array_equal(words, exact)
    assert all(found.values())


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names x86 processors")
def test_a_processor_without_conversions_links_what_needs_them(script):
    code = """
import ctypes
from facula.runtime import jit
text = '''define i64 @f(ptr %x) {
  %h = load half, ptr %x
  %f = fpext half %h to float
  %g = fmul float %f, 3.0
  %k = fptrunc float %g to half
  store half %k, ptr %x
  ret i64 0
}'''
x = (ctypes.c_uint16 * 1)(0x3E00)
ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(jit.load(text, ["f"])["f"])(x)
print(hex(x[0]))
"""
    assert script(code, FACULA_CPU="x86-64") == "0x4480\n"
    assert script(code) == "0x4480\n"
