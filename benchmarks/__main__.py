"""Facula against PyTorch, in medians of paired runs, as a Markdown table.

    python -m benchmarks [--rounds 5] [--seconds 0.1] [--write] [WORD ...]

A round times a case in the one library and at once in the other, with a pause between in which
the threads of the first fall asleep; so what else the machine does meets both. The ratio is the
median over the rounds. Results go to ``benchmarks/results/`` (not kept in the repository), with
``--write`` also to ``docs/benchmarks.md``. Status 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import operator
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import processes
from benchmarks.cases import CASES, Case

ROOT = Path(__file__).resolve().parent.parent
#: Seconds between two timings: threads that wait for work spin for a while.
PAUSE = 0.03


class Worker:
    """A process with one of the two libraries."""

    def __init__(self, library: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def time(self, case: Case, threads: int, seconds: float) -> tuple[float, float]:
        """Median and shortest seconds of one call.

        Raises:
            RuntimeError: the case failed there.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([case.name, threads, seconds]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the process died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        time.sleep(PAUSE)
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


class Report:
    """Lines of Markdown, said as they come; what was measured; whether all bounds hold."""

    def __init__(self):
        self.lines: list[str] = []
        self.found: list[dict] = []
        self.good = True

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)

    def note(self, what: str, bound: float | None, value: float, **more) -> str:
        """Remember a figure; the word to print beside it."""
        kept = bound is None or value <= bound
        self.good &= kept
        self.found.append({"what": what, "bound": bound, "value": value, **more})
        return "" if kept else "missed"

    def failed(self, what: str, error: Exception) -> str:
        self.good = False
        self.found.append({"what": what, "error": str(error)})
        return f"{what}: {error}"


def compare(report: Report, cases: list[Case], rounds: int, seconds: float) -> None:
    """A row for each case and number of threads."""
    ours, theirs = Worker("facula"), Worker("torch")
    cores = len(os.sched_getaffinity(0))
    report.say("| case | threads | facula | PyTorch | share | at most | | shortest | GB/s |")
    report.say("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        for threads in (t for t in case.threads if t <= cores):
            try:
                pairs = [
                    (ours.time(case, threads, seconds), theirs.time(case, threads, seconds))
                    for _ in range(rounds)
                ]
            except RuntimeError as error:
                report.say(
                    f"| {report.failed(case.name, error)} | {threads} | | | | | failed | | |"
                )
                continue
            share = statistics.median(a / b for (a, _), (b, _) in pairs)
            a, b = (statistics.median(t for t, _ in column) for column in zip(*pairs))
            best = operator.truediv(*(min(t for _, t in column) for column in zip(*pairs)))
            word = report.note(case.name, case.bound, share, threads=threads, pairs=pairs)
            speed = f"{case.moved / a / 1e9:.1f}, {case.moved / b / 1e9:.1f}" if case.moved else ""
            report.say(
                f"| {case.name} | {threads} | {in_units(a)} | {in_units(b)} | {share:.2f} "
                f"| {case.bound:.2f} | {word} | {best:.2f} | {speed} |"
            )
    ours.close()
    theirs.close()


def alone(report: Report, rounds: int, torch: bool) -> None:
    """The rows that are not ratios."""
    report.say("| | measured | at most | |\n|---|---|---|---|")
    for measure in (
        lambda: processes.imports(rounds, torch),
        processes.first_steps,
        processes.new_sizes,
        processes.memory,
    ):
        try:
            for what, value, bound in measure():
                word = report.note(what, bound, value)
                shown = "" if bound is None else f"{bound:g}"
                report.say(f"| {what} | {value:.3g} | {shown} | {word} |")
        except RuntimeError as error:
            report.say(f"| {report.failed('failed', error)} | | | failed |")


def machine() -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} when the run began"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only cases whose name has one of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one timing")
    parser.add_argument("--write", action="store_true", help="also write docs/benchmarks.md")
    args = parser.parse_args()
    chosen = [c for n, c in CASES.items() if not args.words or any(w in n for w in args.words)]
    torch = importlib.util.find_spec("torch") is not None
    report = Report()
    version = importlib.metadata.version("torch") if torch else "not installed"
    report.say(f"{machine()}; PyTorch {version}; medians of {args.rounds} rounds.\n")
    if torch:
        compare(report, chosen, args.rounds, args.seconds)
        report.say()
    if not args.words:
        alone(report, args.rounds, torch)
    save(report, args.write)
    return 0 if report.good else 1


HEAD = """# Benchmarks

Written by `make bench BENCH_ARGS=--write`. Each case is the same text for both libraries, timed
in a process of each, in turns. "share" is the median over the rounds of facula's time by
PyTorch's, "at most" what it shall not exceed; "shortest" is the same of the shortest times, which
other programs on the machine disturb least. The last column is the speed of memory that the median
amounts to (facula, PyTorch): beside that of `copy_` it tells whether memory is the limit.

One thread's times are those on a processor, without waiting for one. Where the load is above the
number of cores, times of several threads say little: a thread that waits for a core holds up all
others (PyTorch's, by 20 ms and more a call).

"""


def save(report: Report, write: bool) -> None:
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    name = time.strftime("%Y-%m-%d-%H%M%S")
    (folder / f"{name}.json").write_text(json.dumps(report.found, indent=1))
    (folder / f"{name}.md").write_text("\n".join(report.lines) + "\n")
    if write:
        (ROOT / "docs" / "benchmarks.md").write_text(HEAD + "\n".join(report.lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
