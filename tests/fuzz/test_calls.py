"""Thousands of random calls: each gives a result or a typed error, none takes the process down.

``FACULA_FUZZ_CALLS`` and ``FACULA_FUZZ_SEED`` set how many calls and from which number on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from calls import program

WORKER = Path(__file__).resolve().parent / "worker.py"
CALLS = int(os.environ.get("FACULA_FUZZ_CALLS", "1500"))
FIRST = int(os.environ.get("FACULA_FUZZ_SEED", "0"))
#: Seconds without a word from the worker after which it counts as hanging.
SILENCE = 60


def run(first, count):
    """(programs run, [(seed, what went wrong)]) of one worker process, until its end."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(first), str(count)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    faults, current, ended = [], None, 0
    hung = threading.Event()

    def stop():
        hung.set()
        process.kill()

    for line in _lines(process, stop):
        word, seed, *rest = line.split(" ", 3)
        if word == "start":
            current = int(seed)
        elif word == "done":
            ended, current = ended + 1, None
            if rest[0] == "fault":
                faults.append((int(seed), rest[1].strip()))
    status = process.wait()
    if current is not None:
        what = f"no answer for {SILENCE} s" if hung.is_set() else f"process ended: {status}"
        faults.append((current, what))
        ended += 1
    elif ended < count and not faults:
        faults.append((first + ended, f"worker ended early: {status}"))
        ended = count
    return ended, faults


def _lines(process, stop):
    while True:
        timer = threading.Timer(SILENCE, stop)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            return
        yield line


def test_random_calls_give_results_or_typed_errors():
    first, left, faults = FIRST, CALLS, []
    while left > 0 and len(faults) < 20:
        ended, found = run(first, left)
        faults += found
        first, left = first + max(ended, 1), left - max(ended, 1)
    report = "\n\n".join(f"# seed {seed}: {what}\n{program(seed)}" for seed, what in faults)
    assert not faults, f"{len(faults)} calls failed\n\n{report}"
