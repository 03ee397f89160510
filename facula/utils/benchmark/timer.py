"""``Timer``: a statement timed so that its figures can be trusted and compared."""

from __future__ import annotations

import itertools
import textwrap
import time
import timeit
from collections.abc import Callable

import facula
from facula.base.errors import ArgumentError, UnsupportedError, fail
from facula.utils.benchmark.measurement import Measurement, TaskSpec


class Timer:
    """Times a statement, on one thread unless told otherwise.

    Args:
        stmt: code, or a function without arguments.
        setup: code that runs once before, untimed.
        global_setup: for C++ in PyTorch; refused.
        timer: gives seconds.
        globals: names that the code knows.
        label, sub_label, description, env: what :class:`Compare` sorts results by.
        num_threads: threads that kernels may use meanwhile.

    >>> from facula.utils.benchmark import Timer
    >>> m = Timer("x + x", globals={"x": facula.ones(100)}).blocked_autorange(min_run_time=0.01)
    >>> 0 < m.median < 1
    True
    """

    def __init__(
        self,
        stmt: str | Callable = "pass",
        setup: str = "pass",
        global_setup: str = "",
        timer: Callable[[], float] = time.perf_counter,
        globals: dict | None = None,  # noqa: A002  PyTorch's name
        label: str | None = None,
        sub_label: str | None = None,
        description: str | None = None,
        env: str | None = None,
        num_threads: int = 1,
        language: object = "python",
    ):
        if global_setup or str(language).lower() not in ("python", "py", "language.python"):
            fail(UnsupportedError, "Timer", "only Python is timed")
        names = dict(globals or {})
        names.setdefault("facula", facula)
        if callable(stmt):
            names["__stmt"], text = stmt, "__stmt()"
        else:
            text = textwrap.dedent(stmt).strip()
        setup = textwrap.dedent(setup).strip() or "pass"
        self._timer = timeit.Timer(text, setup, timer, names)
        named = getattr(stmt, "__name__", "stmt") if callable(stmt) else text
        self.spec = TaskSpec(named, setup, label, sub_label, description, env, num_threads)

    def timeit(self, number: int = 1_000_000) -> Measurement:
        """One measurement of so many runs, after a short warm-up."""
        with self._threads():
            self._timer.timeit(max(number // 100, min(number, 2)))
            return Measurement(number, [self._timer.timeit(number)], self.spec)

    def blocked_autorange(
        self, callback: Callable | None = None, min_run_time: float = 0.2
    ) -> Measurement:
        """Blocks of runs, long enough for the clock, until so many seconds are measured.

        Args:
            callback: called with (runs of a block, seconds of it) each time.
        """
        with self._threads():
            number = self._block_size(min_run_time)
            times, total = [], 0.0
            while total < min_run_time or len(times) < 2:
                seconds = self._timer.timeit(number)
                total += seconds
                times.append(seconds)
                if callback is not None:
                    callback(number, seconds)
        return Measurement(number, times, self.spec)

    def adaptive_autorange(
        self,
        threshold: float = 0.1,
        *,
        min_run_time: float = 0.01,
        max_run_time: float = 10.0,
        callback: Callable | None = None,
    ) -> Measurement:
        """As ``blocked_autorange`` until the spread (IQR by median) is below ``threshold``."""
        with self._threads():
            number = self._block_size(min_run_time)
            times, total = [], 0.0
            while True:
                seconds = self._timer.timeit(number)
                total += seconds
                times.append(seconds)
                if callback is not None:
                    callback(number, seconds)
                found = Measurement(number, times, self.spec)
                if len(times) > 3 and total >= min_run_time and found.meets_confidence(threshold):
                    return found
                if total >= max_run_time:
                    return found

    def collect_callgrind(self, *args, **kwargs):
        """Refused: counts of instructions need a build for Valgrind."""
        fail(UnsupportedError, "Timer", "collect_callgrind needs Valgrind")

    def _block_size(self, min_run_time) -> int:
        """Runs of a block, so that a hundredth of the time, or a microsecond's error, is small."""
        self._timer.timeit(2)
        for number in (10**k for k in itertools.count()):
            seconds = self._timer.timeit(number)
            if seconds >= min(max(min_run_time / 1000, 1e-4), 0.1) or number >= 10**9:
                return number
        raise AssertionError

    def _threads(self):
        return _Threads(self.spec.num_threads)


class _Threads:
    """A block with so many threads."""

    def __init__(self, count):
        if count < 1:
            fail(ArgumentError, "Timer", f"expected num_threads at least 1, got {count}")
        self.count = count

    def __enter__(self):
        self.before = facula.get_num_threads()
        facula.set_num_threads(self.count)

    def __exit__(self, *exception):
        facula.set_num_threads(self.before)
