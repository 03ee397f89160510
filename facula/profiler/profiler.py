"""``profile``: records what runs, over the steps that a schedule names."""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from enum import Enum

from facula.base.errors import ArgumentError, UnsupportedError, fail
from facula.optim import optimizer as optimizers
from facula.profiler import trace
from facula.profiler.events import events_of
from facula.profiler.recorder import Recorder, record_function
from facula.profiler.table import EventList


class ProfilerActivity(Enum):
    """What can be recorded; there is one kind of device."""

    CPU = 0


class ProfilerAction(Enum):
    """What happens in a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """What :class:`profile` can record."""
    return {ProfilerActivity.CPU}


def schedule(*, wait, warmup, active, repeat=0, skip_first=0, skip_first_wait=0):
    """A schedule: so many steps of nothing, of warming up, of recording; again and again.

    Args:
        repeat: cycles; 0 for no end.
        skip_first: steps before the first cycle.
        skip_first_wait: if not 0, the first cycle begins without its ``wait``.

    >>> plan = schedule(wait=1, warmup=1, active=2, repeat=1)
    >>> [plan(i).name for i in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    if min(wait, warmup, repeat, skip_first) < 0 or active <= 0:
        fail(
            ArgumentError,
            "schedule",
            "expected wait, warmup, repeat and skip_first at least 0 and active at least 1, got "
            f"wait={wait}, warmup={warmup}, active={active}, repeat={repeat}, "
            f"skip_first={skip_first}",
        )
    cycle = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        if step < skip_first:
            return ProfilerAction.NONE
        step += (wait if skip_first_wait else 0) - skip_first
        if repeat and step // cycle >= repeat:
            return ProfilerAction.NONE
        place = step % cycle
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        last = place == cycle - 1
        return ProfilerAction.RECORD_AND_SAVE if last else ProfilerAction.RECORD

    return action


def _always(step: int) -> ProfilerAction:
    return ProfilerAction.RECORD


def tensorboard_trace_handler(dir_name, worker_name=None, use_gzip=False):
    """For ``on_trace_ready``: a trace file in the folder at the end of each cycle.

    Raises:
        RuntimeError: the folder cannot be made.
    """
    os.makedirs(dir_name, exist_ok=True)

    def handler(prof):
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        name = f"{worker}.{time.time_ns()}.pt.trace.json{'.gz' if use_gzip else ''}"
        prof.export_chrome_trace(os.path.join(dir_name, name))

    return handler


class profile:  # noqa: N801  PyTorch's name
    """Records launches of ops, the kernels in them and named ranges; a context manager.

    Every launch is an event with the name of the op (of a captured function, its name; of a
    backward pass, ``<op>_backward``). Inside of it each kernel is one, which says what was fused
    and of which dtypes it reads: ``add_mul_tanh[f32,f32]``. While recording, a launch costs about
    a microsecond more; otherwise nothing.

    Args:
        activities: accepted for PyTorch's sake: ``ProfilerActivity.CPU``.
        schedule: ``step -> ProfilerAction``, see :func:`schedule`; steps are ranges then. Else
            everything is recorded.
        on_trace_ready: called with the profiler at the end of each cycle.
        record_shapes: note the shapes of inputs.
        profile_memory: note the bytes that tensors take.
        with_stack: note the lines of the program that a launch comes from.
        with_flops: show operations, bytes moved and the share of this machine's roofline.
        acc_events: keep the events of all cycles, not of the last alone.

    >>> import facula
    >>> from facula.profiler import ProfilerActivity, profile
    >>> x = facula.ones(1000, 1000)
    >>> with profile(activities=[ProfilerActivity.CPU], with_flops=True) as prof:
    ...     y = facula.softmax(x, dim=-1)
    >>> kernel = prof.events()[-1]
    >>> kernel.kind, kernel.bytes
    ('kernel', 8000000)
    >>> "% of roofline" in prof.key_averages().table(sort_by="self_cpu_time_total")
    True
    """

    def __init__(
        self,
        *,
        activities=None,
        schedule=None,
        on_trace_ready=None,
        record_shapes=False,
        profile_memory=False,
        with_stack=False,
        with_flops=False,
        with_modules=False,
        experimental_config=None,
        acc_events=False,
    ):
        for activity in activities or ():
            if activity not in supported_activities():
                fail(UnsupportedError, "profile", f"{activity} cannot be recorded")
        self._schedule = schedule or _always
        self.on_trace_ready = on_trace_ready
        self.record_shapes, self.profile_memory = record_shapes, profile_memory
        self.with_stack, self.with_flops, self.acc_events = with_stack, with_flops, acc_events
        self.step_num, self.current_action = 0, self._schedule(0)
        self._recorder: Recorder | None = None
        self._done: list[Recorder] = []
        self._events: EventList | None = None
        self._range: record_function | None = None
        self._hooks: list = []
        self._metadata: dict = {}

    # When

    def start(self) -> None:
        """Begin with step 0."""
        self._enter_action(ProfilerAction.NONE)
        self._open_step()

    def stop(self) -> None:
        """End; what was recorded since the last cycle's end is a cycle."""
        self._close_step()
        if self.current_action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE):
            self._save()
        elif self._recorder is not None:
            self._end_recording()
        self.current_action = ProfilerAction.NONE

    def step(self) -> None:
        """Tell that a step of the program ended, and the next begins."""
        self._close_step()
        before = self.current_action
        self.step_num += 1
        self.current_action = self._schedule(self.step_num)
        if before is ProfilerAction.RECORD_AND_SAVE:
            self._save()
            before = ProfilerAction.NONE
        self._enter_action(before)
        self._open_step()

    def _enter_action(self, before):
        now = self.current_action
        if now is ProfilerAction.NONE:
            if before is not ProfilerAction.NONE:
                warnings.warn("profiler: a cycle was cut short; it is dropped", stacklevel=3)
                self._end_recording()
            return
        if self._recorder is None:
            self._recorder = Recorder(self.record_shapes, self.profile_memory, self.with_stack)
            self._recorder.start()
            self._hook_optimizers()
        if now is not ProfilerAction.WARMUP and before in (
            ProfilerAction.NONE,
            ProfilerAction.WARMUP,
        ):
            self._recorder.clear()

    def _open_step(self):
        if self._recorder is not None and self._schedule is not _always:
            self._range = record_function(f"ProfilerStep#{self.step_num}")
            self._range.__enter__()

    def _close_step(self):
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None

    def _save(self):
        made = self._end_recording()
        self._done = [*self._done, made] if self.acc_events else [made]
        self._events = None
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    def _end_recording(self):
        made, self._recorder = self._recorder, None
        made.stop()
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        return made

    def _hook_optimizers(self):
        """A range around the step of every optimizer."""
        open_ranges: list = []

        def before(optimizer, args, kwargs):
            name = type(optimizer).__name__
            open_ranges.append(record_function(f"Optimizer.step#{name}.step").__enter__())

        def after(optimizer, args, kwargs):
            if open_ranges:
                open_ranges.pop().__exit__(None, None, None)

        self._hooks = [
            optimizers.register_optimizer_step_pre_hook(before),
            optimizers.register_optimizer_step_post_hook(after),
        ]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()

    # What

    def events(self) -> EventList:
        """All events of the last cycle (of all, with ``acc_events``), by their start.

        Raises:
            RuntimeError: nothing was recorded yet.
        """
        if self._events is None:
            if not self._done:
                raise RuntimeError("Profiler hasn't finished running: no cycle has ended")
            found, counters = [], []
            for recorder in self._done:
                found += events_of(recorder, self.with_flops)
                counters += _counters(recorder)
            self._events = EventList(found, self.profile_memory, self.with_flops, counters)
        return self._events

    def key_averages(self, group_by_input_shape=False, group_by_stack_n=0) -> EventList:
        """Events of one name as one entry; ``.table(sort_by=...)`` shows them."""
        return self.events().key_averages(group_by_input_shape, group_by_stack_n)

    def export_chrome_trace(self, path) -> None:
        """Write a trace for Perfetto (ui.perfetto.dev) and chrome://tracing."""
        trace.write(path, self.events(), self._metadata)

    def export_stacks(self, path, metric="self_cpu_time_total") -> None:
        """Write stacks with their times, for flame graphs; needs ``with_stack``."""
        self.events().export_stacks(path, metric)

    def add_metadata(self, key: str, value: str) -> None:
        """Put a text into the trace under that name."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """Put what the JSON text stands for into the trace under that name."""
        self._metadata[key] = json.loads(value)

    def export_memory_timeline(self, path, device=None) -> None:
        """Write ``[[microseconds], [bytes allocated]]`` as JSON; needs ``profile_memory``."""
        counters = self.events().counters
        columns = [list(column) for column in zip(*counters)] or [[], []]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(columns, file)


def _counters(recorder):
    """(microseconds, bytes allocated) over the time of a recorder."""
    found = []
    for _, start, end, _, _, _, before, after in recorder.ranges:
        if before is not None:
            found += [(start / 1e3, before), (end / 1e3, after)]
    for _, notes, _, _, _, allocated in recorder.launches:
        if allocated is not None:
            found.append((int.from_bytes(notes[-8:], "little", signed=True) / 1e3, allocated))
    return sorted(found)
