"""The GPT example, made tiny: it learns, resumes to the same numbers, and writes."""

from __future__ import annotations

import signal

import pytest

from facula.cli.demo import load_example

TINY = "--layers 1 --width 32 --context 16 --batch-size 4 --text-bytes 100000 --length 0".split()


@pytest.fixture(scope="module")
def gpt():
    return load_example("gpt")


def test_a_resumed_run_ends_where_an_unbroken_one_does(gpt, tmp_path, capsys, monkeypatch):
    whole = gpt.main([*TINY, "--out", f"{tmp_path}/whole", "--steps", "12"])
    in_parts = [*TINY, "--out", f"{tmp_path}/parts", "--steps", "12"]
    with monkeypatch.context() as patch:
        patch.setattr(gpt.Run, "step", InterruptAt(7), raising=False)
        gpt.main(in_parts)
    assert "stopped at step 7" in capsys.readouterr().out
    assert gpt.main([*in_parts, "--resume"]) == whole


class InterruptAt:
    """A counter that sends this process Ctrl-C as it comes to a number."""

    def __init__(self, number):
        self.number, self.value = number, 0

    def __get__(self, run, owner):
        return self.value

    def __set__(self, run, value):
        self.value = value
        if value == self.number:
            signal.raise_signal(signal.SIGINT)


def test_it_learns_and_writes(gpt, tmp_path, capsys):
    start = gpt.main([*TINY, "--out", str(tmp_path), "--steps", "1"])
    end = gpt.main([*TINY, "--out", str(tmp_path), "--steps", "60", "--warmup", "5"])
    assert end < start - 0.5
    gpt.main(["--out", str(tmp_path), "--generate", "def f(", "--length", "20"])
    assert "def f(" in capsys.readouterr().out
