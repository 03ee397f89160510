"""Facula against PyTorch, in medians of paired runs, as a Markdown table.

    python -m benchmarks [--threads 2] [--rounds 5] [WORD ...]

A round times a case in the one library and at once in the other, so that what else the machine
does meets both; the ratio is the median over the rounds. Status 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks.cases import CASES, Case


class Worker:
    """A process with one of the two libraries."""

    def __init__(self, library: str, threads: int):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", library, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def time(self, case: Case, seconds: float) -> float:
        """Median seconds of one call.

        Raises:
            RuntimeError: the case failed there.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([case.name, seconds]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the process died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def in_units(seconds: float) -> str:
    """Three digits and a unit.

    >>> in_units(0.000412)
    '412 µs'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def compare(cases: list[Case], threads: int, rounds: int, seconds: float) -> bool:
    """Print a row a case; whether all bounds hold."""
    ours, theirs = Worker("facula", threads), Worker("torch", threads)
    print("| case | facula | PyTorch | share of its time | at most | |\n|---|---|---|---|---|---|")
    good = True
    for case in cases:
        try:
            pairs = [(ours.time(case, seconds), theirs.time(case, seconds)) for _ in range(rounds)]
        except RuntimeError as error:
            print(f"| {case.name} | {error} | | | {case.bound:.2f} | FAILED |", flush=True)
            good = False
            continue
        share = statistics.median(a / b for a, b in pairs)
        a, b = (in_units(statistics.median(column)) for column in zip(*pairs))
        kept = share <= case.bound
        good &= kept
        word = "" if kept else "MISSED"
        print(f"| {case.name} | {a} | {b} | {share:.2f} | {case.bound:.2f} | {word} |", flush=True)
    ours.close()
    theirs.close()
    return good


FIRST_STEP = """
import time
start = time.perf_counter()
import facula
imported = time.perf_counter() - start
from benchmarks.cases import CASES
run = CASES["digits: a training step of the demo's network, batch 32"].build(facula)
run()
print(imported, time.perf_counter() - start)
"""


def first_steps() -> bool:
    """Print what an import and the demo's first step cost with a cold and a warm cache."""
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for cache, bound in (("cold", 4.0), ("warm", 0.5)):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_STEP],
                env={**os.environ, "FACULA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                print(f"{cache} cache: {done.stderr.strip().splitlines()[-1]}")
                return False
            imported, first = map(float, done.stdout.split())
            good &= first <= bound and imported <= 0.2
            print(
                f"{cache} cache: import {1e3 * imported:.0f} ms (at most 200), demo's first step "
                f"{first:.2f} s with the import (at most {bound})"
            )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only cases whose name has one of these")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one timing")
    args = parser.parse_args()
    chosen = [c for n, c in CASES.items() if not args.words or any(w in n for w in args.words)]
    kept = compare(chosen, args.threads, args.rounds, args.seconds)
    if not args.words:
        kept &= first_steps()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
