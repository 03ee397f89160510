"""The GPT example, made tiny: it learns, resumes to the same numbers, and writes."""

from __future__ import annotations

import pytest

from facula.cli.demo import load_example

TINY = "--layers 1 --width 32 --context 16 --batch-size 4 --text-bytes 100000 --length 0".split()


@pytest.fixture(scope="module")
def gpt():
    return load_example("gpt")


def test_a_resumed_run_ends_where_an_unbroken_one_does(gpt, tmp_path, capsys):
    whole = gpt.main([*TINY, "--out", f"{tmp_path}/whole", "--steps", "12"])
    args = gpt.parse_arguments([*TINY, "--out", f"{tmp_path}/parts", "--steps", "12"])
    args.out.mkdir()
    gpt.torch.manual_seed(args.seed)
    run = gpt.Run(args, gpt.Config(16, 32, 4, 1))
    # Stopped as Ctrl-C would stop it: in the middle of the seventh step.
    save, run.optimizer.step = run.optimizer.step, interrupted_after(run.optimizer.step, 6)
    gpt.train(run, args)
    run.optimizer.step = save
    assert "stopped; saved step 6" in capsys.readouterr().out
    resumed = gpt.main([*TINY, "--out", f"{tmp_path}/parts", "--steps", "12", "--resume"])
    assert resumed == whole


def interrupted_after(step, times):
    left = [times]

    def wrapper(*arguments, **keywords):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return step(*arguments, **keywords)

    return wrapper


def test_it_learns_and_writes(gpt, tmp_path, capsys):
    start = gpt.main([*TINY, "--out", str(tmp_path), "--steps", "1"])
    end = gpt.main([*TINY, "--out", str(tmp_path), "--steps", "60", "--warmup", "5"])
    assert end < start - 0.5
    gpt.main(["--out", str(tmp_path), "--generate", "def f(", "--length", "20"])
    assert "def f(" in capsys.readouterr().out
