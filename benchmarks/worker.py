"""One library in one process: reads a case, threads and seconds a line, writes times a line.

The libraries are timed in processes of their own since the threads of one, waiting for work,
would take the cores from the other.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.cases import CASES


def times_of(run: Callable, seconds: float, threads: int) -> tuple[float, float]:
    """Median and shortest time of a call, over batches of calls long enough for the clock.

    With one thread it is that thread's time on a processor: waiting for one is not counted.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    run()
    start = clock()
    run()
    once = clock() - start
    calls = max(1, int(2e-4 / max(once, 1e-7)))
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = clock()
        for _ in range(calls):
            run()
        times.append((clock() - start) / calls)
    return statistics.median(times), min(times)


def main() -> None:
    torch = importlib.import_module(sys.argv[1])
    torch.manual_seed(0)
    built: dict[str, Callable] = {}
    for line in sys.stdin:
        name, threads, seconds = json.loads(line)
        try:
            torch.set_num_threads(threads)
            if name not in built:
                built[name] = CASES[name].build(torch)
            answer = {"seconds": times_of(built[name], seconds, threads)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
