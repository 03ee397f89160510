"""What the machine offers, and that looking costs no import."""

import os

import pytest

from facula.runtime import host


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
