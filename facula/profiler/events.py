"""Events: what was recorded as a tree of named times, and their averages."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field

from facula.profiler.costs import costs_of


@dataclass(frozen=True)
class Interval:
    """Start and end in microseconds, on the clock of ``time.perf_counter``."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """The length."""
        return self.end - self.start


@dataclass(eq=False)
class FunctionEvent:
    """One thing that took time: a range, the launch of an op, or a kernel. Times are microseconds.

    Attributes:
        name: of a kernel, the ops fused in it and the dtypes it reads: ``add_mul[f32,f32]``.
        kind: "range", "op" or "kernel".
        time_range, thread: when and where.
        input_shapes, stack: noted if wanted (``record_shapes``, ``with_stack``).
        cpu_children, cpu_parent: what it contains, and what contains it.
        flops, bytes: operations done and bytes moved, of its kernels.
        limit: microseconds that these take at the machine's peaks; 0 unless ``with_flops``.
        cpu_memory_usage: bytes allocated less bytes freed; 0 unless ``profile_memory``.
    """

    id: int
    name: str
    kind: str
    time_range: Interval
    thread: int
    input_shapes: list = field(default_factory=list)
    stack: tuple = ()
    flops: int = 0
    bytes: int = 0
    limit: float = 0.0
    cpu_memory_usage: int = 0
    cpu_children: list = field(default_factory=list)
    cpu_parent: FunctionEvent | None = None

    count = 1
    is_async = is_remote = is_legacy = False

    @property
    def key(self) -> str:
        return self.name

    @property
    def cpu_time_total(self) -> float:
        return self.time_range.elapsed_us()

    cpu_time = cpu_time_total

    @property
    def self_cpu_time_total(self) -> float:
        return self.cpu_time_total - sum(c.cpu_time_total for c in self.cpu_children)

    @property
    def self_cpu_memory_usage(self) -> int:
        return self.cpu_memory_usage - sum(c.cpu_memory_usage for c in self.cpu_children)

    def __repr__(self):
        return (
            f"<FunctionEvent {self.name}: {self.kind}, {self.cpu_time_total:.3f} us, "
            f"thread {self.thread}>"
        )


class FunctionEventAvg:
    """Events of one name taken together; attributes as of :class:`FunctionEvent`, summed."""

    SUMMED = (
        "cpu_time_total", "self_cpu_time_total", "cpu_memory_usage", "self_cpu_memory_usage",
        "flops", "bytes", "limit", "count",
    )  # fmt: skip

    def __init__(self, first=None):
        self.key = self.name = first.key if first is not None else "Total"
        self.kind = first.kind if first is not None else "total"
        self.input_shapes = first.input_shapes if first is not None else []
        self.stack = first.stack if first is not None else ()
        for name in self.SUMMED:
            setattr(self, name, 0)

    def add(self, other) -> FunctionEventAvg:
        """Take in one more event, or the average of some."""
        for name in self.SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    __iadd__ = add

    @property
    def cpu_time(self) -> float:
        """Microseconds of one."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def roofline(self) -> float:
        """The share of the machine's peak that the kernels reach: least time by time taken."""
        return self.limit / self.cpu_time_total if self.cpu_time_total else 0.0

    def __repr__(self):
        return (
            f"<FunctionEventAvg {self.key}: {self.count} times, {self.cpu_time:.3f} us each, "
            f"self {self.self_cpu_time_total:.3f} us>"
        )


def events_of(recorder, limits=False) -> list[FunctionEvent]:
    """All events of a recorder by start, with their parents and children."""
    found: list[FunctionEvent] = []

    def add(name, kind, start, end, thread, shapes=None, stack=None):
        made = FunctionEvent(
            0, name, kind, Interval(start / 1e3, end / 1e3), thread, shapes or [], stack or ()
        )
        found.append(made)
        return made

    for name, start, end, thread, shapes, stack, before, after in recorder.ranges:
        made = add(name, "range", start, end, thread, shapes, stack)
        if before is not None:
            made.cpu_memory_usage = after - before
    known: dict = {}
    for report, notes, thread, shapes, stack, memory in recorder.launches:
        times = struct.unpack(f"{len(notes) // 8}q", notes)
        made = add(report.name, "op", times[0], times[-1], thread, shapes, stack)
        if id(report) not in known:
            known[id(report)] = _described(report, len(times) - 3, limits)
        kernels, result_bytes = known[id(report)]
        if memory is not None:
            made.cpu_memory_usage = result_bytes
        for (name, flops, nbytes, limit), start, end in zip(kernels, times[1:], times[2:]):
            kernel = add(name, "kernel", start, end, thread, None, stack)
            kernel.flops, kernel.bytes, kernel.limit = flops, nbytes, limit
    return _nested(found)


def _described(report, steps, limits):
    """((name, flops, bytes, least microseconds) of each kernel, bytes of the results)."""
    from facula.profiler import roofline

    results = sum(m.nbytes for m in report.metas or () if hasattr(m, "nbytes"))
    costs = costs_of(report.keep)
    if len(costs) != steps:
        return [(f"{report.name} step {i}", 0, 0, 0.0) for i in range(steps)], results
    return [
        (
            c.name,
            c.flops,
            c.bytes,
            1e6 * roofline.limit(c.flops, c.bytes, c.dtype) if limits else 0.0,
        )
        for c in costs
    ], results


def _nested(found):
    """Set parents, and add what children did to what contains them."""
    kinds = {"range": 0, "op": 1, "kernel": 2}
    threads = defaultdict(list)
    for e in found:
        threads[e.thread].append(e)
    for own in threads.values():
        own.sort(key=lambda e: (e.time_range.start, -e.time_range.end, kinds[e.kind]))
        above: list[FunctionEvent] = []
        for e in own:
            while above and above[-1].time_range.end < e.time_range.end:
                above.pop()
            if above:
                e.cpu_parent = above[-1]
                above[-1].cpu_children.append(e)
            above.append(e)
        for e in reversed(own):
            if e.cpu_parent is not None:
                e.cpu_parent.flops += e.flops
                e.cpu_parent.bytes += e.bytes
                e.cpu_parent.limit += e.limit
    found.sort(key=lambda e: (e.time_range.start, -e.time_range.end, kinds[e.kind]))
    for i, e in enumerate(found):
        e.id = i
    return found


def averages(events, by_shape=False, stack_frames=0) -> list[FunctionEventAvg]:
    """One entry a name, and if wanted a shape of inputs, so many frames of the stack."""
    found: dict = {}
    for e in events:
        shapes = str(e.input_shapes) if by_shape else None
        key = e.name, e.kind, shapes, e.stack[:stack_frames]
        if key not in found:
            found[key] = FunctionEventAvg(e)
            found[key].stack = e.stack[:stack_frames]
            if not by_shape:
                found[key].input_shapes = []
        found[key].add(e)
    return list(found.values())
