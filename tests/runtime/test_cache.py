"""The disk cache: damage, many writers, the bound on its size, being turned off."""

import ctypes
import os
import threading
import time

import pytest

from facula.base.errors import CompileError
from facula.runtime import cache, host, jit


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FACULA_CACHE_DIR", str(tmp_path / "objects"))
    return tmp_path / "objects"


def constant(number, name="value"):
    return f"; {time.monotonic_ns()}\ndefine i64 @{name}() {{\n  ret i64 {number}\n}}\n"


def result(text):
    # A text's addresses are remembered: forget them, so that the cache is asked.
    jit._loaded.pop(cache.key(text, host.target(), 0), None)
    return ctypes.CFUNCTYPE(ctypes.c_int64)(jit.load(text, ["value"])["value"])()


def test_an_object_is_kept_and_read_back(folder, monkeypatch):
    text = constant(7)
    assert result(text) == 7
    assert cache.stats()["entries"] == 1

    def never(*args):
        raise AssertionError("compiled although it was cached")

    monkeypatch.setattr(jit, "compile_object", never)
    assert result(text) == 7


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_entry_is_removed_and_compiled_again(folder, damage):
    text = constant(11)
    result(text)
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "flip": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
            "empty": b"",
            "other": b"not an object at all",
        }[damage]
    )
    assert cache.get(entry.stem) is None
    assert not entry.exists()
    assert result(text) == 11
    assert entry.read_bytes() == whole


def test_a_whole_entry_of_something_else_is_compiled_again(folder):
    text = constant(13)
    cache.put(cache.key(text, host.target(), 0), jit.compile_object(constant(1, "another")))
    assert result(text) == 13
    assert result(text) == 13


def test_keys_tell_texts_targets_and_levels_apart():
    target = host.target()
    other = host.Target(target.triple, "x86-64", "", 16, target.llvm)
    keys = {
        cache.key(*k)
        for k in (("a", target, 0), ("b", target, 0), ("a", other, 0), ("a", target, 1))
    }
    assert len(keys) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_write_and_read_the_same_entries_at_once(folder):
    payloads = [bytes([i]) * (5000 + i) for i in range(8)]
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for _ in range(100):
                    for i, payload in enumerate(payloads):
                        cache.put(f"key{i}", payload)
                        assert cache.get(f"key{i}") == payload
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert sorted(p.name for p in folder.iterdir()) == [f"key{i}.o" for i in range(8)]


def test_the_least_recently_used_entries_go_first(folder, monkeypatch):
    monkeypatch.setenv("FACULA_CACHE_MB", "1")
    monkeypatch.setattr(cache, "_writes", 1)  # None of these puts is one that trims by itself.
    for i in range(5):
        cache.put(f"key{i}", bytes(300_000))
        os.utime(folder / f"key{i}.o", (1000.0 + i, 1000.0 + i))
    assert cache.get("key0") is not None  # Reading makes it the most recent.
    cache.trim()
    assert [cache.get(f"key{i}") is not None for i in range(5)] == [True, False, False, True, True]
    assert cache.stats()["bytes"] <= cache.limit() == 1 << 20


def test_what_dead_writers_left_is_removed(folder):
    cache.put("key", b"payload")
    for name, age in (("old.1-1.tmp", 7200), ("new.1-1.tmp", 0)):
        (folder / name).write_bytes(b"partial")
        os.utime(folder / name, (time.time() - age,) * 2)
    cache.trim()
    assert {p.name for p in folder.iterdir()} == {"key.o", "new.1-1.tmp"}


def test_clear_and_stats(folder):
    assert cache.stats()["entries"] == 0 and cache.clear() == 0
    for i in range(3):
        cache.put(f"key{i}", b"payload")
    assert cache.stats()["entries"] == 3
    assert cache.clear() == 3
    assert cache.stats()["bytes"] == 0


def test_without_a_folder_everything_works(monkeypatch):
    for folder in ("", "/proc/no/such/folder"):
        monkeypatch.setenv("FACULA_CACHE_DIR", folder)
        assert result(constant(17)) == 17
        assert cache.stats()["entries"] == 0 and cache.clear() == 0


def test_one_text_in_many_threads(folder):
    text, found = constant(19), []
    threads = [
        threading.Thread(target=lambda: found.append(jit.load(text, ["value"]))) for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8 and all(f == found[0] for f in found)


def test_errors_show_the_line():
    with pytest.raises(CompileError, match=r"(?s)line 2.*2 \|   ret i32 %x"):
        jit.load("define i64 @f(i64 %x) {\n  ret i32 %x\n}", ["f"])
    with pytest.raises(CompileError, match="nobody provides no_such_function"):
        jit.load(
            "declare void @no_such_function()\ndefine void @f() {\n"
            "  call void @no_such_function()\n  ret void\n}",
            ["f"],
        )
    with pytest.raises(CompileError, match="verifier"):
        jit.load("define i64 @f(i64 %x) {\n  %y = add i64 %z, 1\n  %z = add i64 %y, 1\n"
                 "  ret i64 %z\n}", ["f"])  # fmt: skip


def test_assembly_and_levels_of_optimisation():
    text = "define i64 @f(i64 %x) {\n  %y = add i64 %x, 0\n  %z = mul i64 %y, 1\n  ret i64 %z\n}"
    assert "f:" in jit.assembly(text)
    assert jit.compile_object(text, optimize=3)
