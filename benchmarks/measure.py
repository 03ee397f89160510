"""How everything is measured: the same case in several libraries, each in a process of its own.

Rounds go over the libraries in turns, so that what else the machine does meets all of them, with a
pause in between in which the threads of one fall asleep. A figure is the median over all rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Seconds between two timings: threads that wait for work spin for a while.
PAUSE = 0.03


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Attributes:
        rounds, seconds: turns, and the time of one.
        quick: only the cases that stand for the others, without whole compilations.
    """

    rounds: int = 3
    seconds: float = 0.7
    quick: bool = False


class Failed(RuntimeError):
    """A case failed in its process; the message is the error there."""


class Worker:
    """A process with one library, as ``spec`` names it: ``torch:eager``, ``onnxruntime``, ..."""

    def __init__(self, spec: str, **environment: str):
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        kept = str(ROOT / "benchmarks" / "results" / "bytecode")
        self.spec = spec
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", spec],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**inherited, "PYTHONPYCACHEPREFIX": kept, **environment},
            text=True,
            cwd=ROOT,
        )

    def ask(self, what: str, **details):
        """The worker's answer to one question.

        Raises:
            Failed: with the error there, or that the process died.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"what": what, **details}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line or '{"error": "the process died"}')
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()


def compare(theme: str, name: str, workers: dict, settings: Settings, threads: int) -> dict:
    """Figures of one case in all workers: by spec ms, best_ms, first_s and mib, or an error.

    ``mib`` is the most memory that the case took, above what the library itself takes; it means
    something where the worker ran nothing else.
    """
    found: dict = {}
    for spec, worker in workers.items():
        try:
            first = worker.ask("build", theme=theme, name=name, threads=threads)
            found[spec] = {"first_s": first["seconds"], "times": []}
        except Failed as error:
            found[spec] = {"error": str(error)[:200]}
        time.sleep(PAUSE)
    good = [spec for spec in workers if "error" not in found[spec]]
    for _ in range(settings.rounds):
        for spec in good:
            found[spec]["times"] += workers[spec].ask("time", seconds=settings.seconds)["times"]
            time.sleep(PAUSE)
    for spec in good:
        times = found[spec].pop("times")
        found[spec] |= {"ms": 1e3 * statistics.median(times), "best_ms": 1e3 * min(times)}
        found[spec]["mib"] = workers[spec].ask("memory")["mib"]
    return found


def apart(theme, name, specs, settings: Settings, threads: int) -> dict:
    """As :func:`compare`, in processes made for this case alone.

    Facula's kernels are compiled beforehand, so that LLVM's memory is not taken for the case's.
    """
    for spec in specs:
        if spec.startswith("facula"):
            with Worker(spec) as worker, contextlib.suppress(Failed):
                worker.ask("build", theme=theme, name=name, threads=threads)
    workers = {spec: Worker(spec) for spec in specs}
    try:
        return compare(theme, name, workers, settings, threads)
    finally:
        for worker in workers.values():
            worker.__exit__()


def python(text: str, **environment: str) -> str:
    """What a program of its own prints.

    Raises:
        Failed: with the last line of its errors.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    kept = str(ROOT / "benchmarks" / "results" / "bytecode")
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**inherited, "PYTHONPYCACHEPREFIX": kept, **environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or ["no output"])[-1])
    return done.stdout
