"""One library in one process: answers questions, a line of JSON each.

``build`` makes a case ready (its answer: seconds to the first result), ``time`` times its calls,
``memory`` tells how much memory the process took at most above what the library takes by itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable

#: Shortest batch of calls that is timed, in seconds, for the clock's sake.
BATCH = 2e-4


class Library:
    """What a case is built with.

    Attributes:
        name, mode: ``torch`` or ``facula`` with ``eager``, ``compile`` or ``step``; or another
            runtime, and no mode.
        torch: the module, None for other runtimes.
    """

    def __init__(self, spec: str):
        self.name, _, self.mode = spec.partition(":")
        self.torch = None
        if self.name in ("torch", "facula"):
            self.torch = importlib.import_module(self.name)
            self.torch.manual_seed(0)

    def compiled(self, fn):
        """The function as the mode has it."""
        return fn if self.mode == "eager" else self.torch.compile(fn)

    def training(self, model, optimizer, loss_of, *batch):
        """A whole training step: "compile" captures the loss, "step" everything."""
        loss_fn = self.torch.compile(loss_of) if self.mode == "compile" else loss_of

        def step():
            optimizer.zero_grad()
            loss = loss_fn(model, *batch)
            loss.backward()
            optimizer.step()
            return loss

        return self.torch.compile(step) if self.mode == "step" else step

    def inference(self, model, *batch):
        """A forward pass without gradients."""
        model.eval()
        forward = self.compiled(model)

        def run():
            with self.torch.no_grad():
                return forward(*batch)

        return run

    def warm_up(self):
        """Load what the library loads late, so that it is not taken for a case's memory."""
        torch = self.torch
        if torch is None:
            return
        model = torch.nn.Linear(3, 3)
        for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
            optimizer = kind(model.parameters(), lr=0.1)
            torch.nn.functional.cross_entropy(
                model(torch.randn(2, 3)), torch.tensor([0, 1])
            ).backward()
            optimizer.step()
        if self.mode != "eager":
            with contextlib.suppress(Exception):  # who cannot compile says so in the case
                self.compiled(lambda x: x + 1)(torch.ones(3))


def times_of(run: Callable, seconds: float) -> list[float]:
    """Seconds of one call, over batches of calls."""
    clock = time.perf_counter
    start = clock()
    run()
    calls = max(1, int(BATCH / max(clock() - start, 1e-7)))
    times: list[float] = []
    end = clock() + seconds
    while clock() < end or len(times) < 3:
        start = clock()
        for _ in range(calls):
            run()
        times.append((clock() - start) / calls)
    return times


def status(what: str) -> float:
    """A line of /proc/self/status in MiB; where there is none, the peak since the start."""
    try:
        with open("/proc/self/status") as lines:
            return next(int(x.split()[1]) for x in lines if x.startswith(what + ":")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            1024 if sys.platform == "linux" else 1 << 20
        )


def reset_peak() -> None:
    """Let the peak start anew, where the system can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


class Answers:
    """The questions that a worker understands."""

    def __init__(self, spec: str):
        self.library, self.base, self.run = Library(spec), None, None

    def build(self, theme, name, threads):
        """Make a case ready; the first one also tells what the library itself takes."""
        os.environ["BENCH_THREADS"] = str(threads)
        if self.library.torch is not None:
            self.library.torch.set_num_threads(threads)
        case = importlib.import_module(f"benchmarks.{theme}").CASES[name]
        if self.base is None:
            self.library.warm_up()
            gc.collect()
            self.base = status("VmRSS")
            reset_peak()
        start = time.perf_counter()
        self.run = case(self.library)
        self.run()
        seconds = time.perf_counter() - start
        for _ in range(3):
            self.run()
        return {"seconds": seconds}

    def time(self, seconds):
        """Seconds of each call."""
        return {"times": times_of(self.run, seconds)}

    def memory(self):
        """The peak above the library's own, in MiB."""
        found = {"mib": status("VmHWM") - self.base}
        if self.library.name == "facula":
            stats = self.library.torch.cpu.memory_stats()
            found["tensors_mib"] = stats["allocated_bytes.all.peak"] / (1 << 20)
        return found

    def call(self, name, **details):
        """A function of a theme, for what is no timing."""
        theme, _, function = name.rpartition(".")
        return getattr(importlib.import_module(f"benchmarks.{theme}"), function)(**details)


def main() -> None:
    # What libraries print goes to the errors: the output is for answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answers = answers or Answers(sys.argv[1])
            answer = getattr(answers, question.pop("what"))(**question)
        except Exception as error:
            text = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {text[0]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
