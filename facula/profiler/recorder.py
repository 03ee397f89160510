"""Recording: what the launcher tells, and the ranges that programs name, until it is asked for.

A launch costs one short Python call while recording; what it computed is looked up afterwards.
When nobody records, nothing here runs: the launcher itself is another one then (see
:func:`facula.runtime.launch.observe`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ContextDecorator

from facula.base.errors import UnsupportedError, fail
from facula.eager import plans
from facula.eager.tensor import Tensor
from facula.runtime import launch, storage

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_active: list[Recorder] = []


class Recorder:
    """What happened between :meth:`start` and :meth:`stop`.

    Attributes:
        launches: (report, notes, thread, shapes, stack, bytes allocated afterwards) each.
        ranges: (name, start, end, thread, shapes, stack, bytes allocated before and after) each.
        shapes, memory, stacks: what is noted beside times.
    """

    def __init__(self, shapes=False, memory=False, stacks=False):
        self.shapes, self.memory, self.stacks = shapes, memory, stacks
        self.launches: list = []
        self.ranges: list = []
        self.start_ns = self.end_ns = 0

    def start(self) -> None:
        """Begin.

        Raises:
            UnsupportedError: another recorder is at work.
        """
        if _active:
            fail(UnsupportedError, "profiler", "another profiler is recording", "stop it first")
        _active.append(self)
        launch.observe(_observe)
        self.start_ns = time.perf_counter_ns()

    def stop(self) -> None:
        """End; a second time does nothing."""
        if _active[:1] == [self]:
            self.end_ns = time.perf_counter_ns()
            launch.observe(None)
            _active.clear()

    def clear(self) -> None:
        """Forget what was recorded until now, and begin anew."""
        self.launches, self.ranges = [], []
        self.start_ns = time.perf_counter_ns()


def recording() -> bool:
    """Whether a profiler is at work."""
    return bool(_active)


def _observe(report, notes, args):
    """What the launcher calls after every launch."""
    if not _active:
        return
    own = _active[0]
    own.launches.append(
        (
            report,
            notes,
            threading.get_native_id(),
            shapes_of(args) if own.shapes else None,
            _stack(sys._getframe(1)) if own.stacks else None,
            _allocated() if own.memory else None,
        )
    )


def _allocated() -> int:
    return storage.memory_stats()["allocated_bytes.all.current"]


def shapes_of(args) -> list:
    """Shapes of tensors, [] for numbers, as PyTorch shows them."""
    return [list(x._meta.shape) if isinstance(x, Tensor) else [] for x in args]


def _stack(frame) -> tuple[str, ...]:
    """``file(line): function`` of the frames outside of this package, innermost first."""
    found = []
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith((_PACKAGE, plans.SOURCE)):
            found.append(f"{code.co_filename}({frame.f_lineno}): {code.co_name}")
        frame = frame.f_back
    return tuple(found)


class record_function(ContextDecorator):  # noqa: N801  PyTorch's name
    """A range with a name, in the tables and traces of the profiler that is on, if one is.

    Args:
        name: what it is called there.
        args: a text to be shown with it.

    >>> from facula.profiler import profile, record_function
    >>> with profile() as prof:
    ...     with record_function("my part"):
    ...         _ = facula.ones(3) * 2
    >>> [e.name for e in prof.events() if e.name == "my part"]
    ['my part']
    >>> @record_function("a function")
    ... def f(x):
    ...     return x + 1
    """

    def __init__(self, name: str, args: str | None = None):
        self.name, self.args = name, args
        self._open: list = []

    def __enter__(self):
        if _active:
            own = _active[0]
            before = _allocated() if own.memory else None
            stack = _stack(sys._getframe(1)) if own.stacks else None
            self._open.append((own, time.perf_counter_ns(), stack, before))
        else:
            self._open.append(None)
        return self

    def __exit__(self, *exception):
        found = self._open.pop()
        if found is None or _active[:1] != [found[0]]:
            return
        own, start, stack, before = found
        shapes = [self.args] if self.args is not None and own.shapes else None
        end, thread = time.perf_counter_ns(), threading.get_native_id()
        # A range that began before the records did (those of a warm-up are dropped) has no place.
        if start >= own.start_ns:
            after = _allocated() if own.memory else None
            own.ranges.append((self.name, start, end, thread, shapes, stack, before, after))

    def _recreate_cm(self):
        return record_function(self.name, self.args)
