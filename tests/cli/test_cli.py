"""The command, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from facula.cli import COMMANDS, machine
from tests.conftest import ROOT


def facula(*arguments, cwd, check=True):
    return subprocess.run(
        [sys.executable, "-m", "facula", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=check,
    )


def test_version_and_help(root):
    assert facula("--version", cwd=root).stdout.startswith("facula 0.")
    text = facula("--help", cwd=root).stdout
    assert all(command in text for command in COMMANDS)
    assert facula(cwd=root, check=False).returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(root, command):
    assert "usage: facula " + command in facula(command, "--help", cwd=root).stdout


def test_run_serves_torch_from_facula(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 3")
    program = tmp_path / "train.py"
    program.write_text(
        "import sys, torch, beside\nprint(__name__, torch.__name__, sys.argv[1:], beside.VALUE)\n"
    )
    done = facula("run", program, "--epochs", "3", cwd=tmp_path)
    assert done.stdout == "__main__ facula ['--epochs', '3'] 3\n"
    done = facula("run", "-m", "train", "-m", "x", cwd=tmp_path)
    assert done.stdout == "__main__ facula ['-m', 'x'] 3\n"


def test_run_passes_on_how_the_program_ended(tmp_path):
    program = tmp_path / "p.py"
    program.write_text("raise SystemExit(7)")
    assert facula("run", program, cwd=tmp_path, check=False).returncode == 7
    done = facula("run", tmp_path / "none.py", cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stderr.startswith("facula run: no such file")


def test_serve_says_what_is_wrong_with_a_path(tmp_path):
    done = facula("serve", tmp_path / "none", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "no such file or folder" in done.stderr
    done = facula("serve", tmp_path, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "no known kind of archive" in done.stderr


def test_serve_says_that_a_port_is_taken(tmp_path):
    import socket

    import facula as library

    program = library.export.export(library.nn.Linear(3, 2), (library.ones(1, 3),))
    program.save(tmp_path / "linear.facula")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = facula("serve", "linear.facula", "--port", port, cwd=tmp_path, check=False)
    assert done.returncode == 1 and f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_doctor_tells_all_of_it(root):
    report = json.loads(facula("doctor", "--json", cwd=root).stdout)
    assert report["verdict"]["status"] == "ready"
    assert report["machine"]["cores"]["allowed"] >= 1
    assert report["facula will use"]["threads"] >= 1
    assert report["software"]["llvm"]
    assert "status" in facula("doctor", cwd=root).stdout


def test_machine_facts_never_fail(monkeypatch):
    monkeypatch.setattr(machine, "read_text", lambda path: "")
    assert machine.cpu_model() and machine.cores()["allowed"] >= 1
    assert list(machine.memory()) == ["usable"]
    assert machine.extras("no-such-distribution") == {}
    assert isinstance(machine.gpu(), str)


def test_cache_shows_and_clears(root, monkeypatch, tmp_path):
    monkeypatch.setenv("FACULA_CACHE_DIR", str(tmp_path))
    program = "import facula; print((facula.ones(3) + 1).sum().item())"
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True)
    assert str(tmp_path) in facula("cache", cwd=root).stdout
    assert facula("cache", "clear", cwd=root).stdout.startswith("removed ")
    assert "objects  0" in facula("cache", "show", cwd=root).stdout
