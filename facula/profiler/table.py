"""Lists of events and of averages, and the text tables of them."""

from __future__ import annotations

from facula.base.errors import ArgumentError, fail
from facula.profiler import trace
from facula.profiler.events import FunctionEventAvg, averages

SORTS = (
    "cpu_time", "cpu_time_total", "self_cpu_time_total", "cpu_memory_usage",
    "self_cpu_memory_usage", "count", "flops", "bytes", "limit", "roofline",
)  # fmt: skip


class EventList(list):
    """Events, or their averages, with the views that PyTorch gives of them.

    Attributes:
        memory, flops: whether these were recorded, and are shown.
        counters: (microseconds, bytes allocated) over the time.
    """

    def __init__(self, events=(), memory=False, flops=False, counters=()):
        super().__init__(events)
        self.memory, self.flops, self.counters = memory, flops, list(counters)

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all events, each counted once."""
        return sum(e.self_cpu_time_total for e in self)

    def key_averages(self, group_by_input_shape=False, group_by_stack_n=0) -> EventList:
        """One entry a name (and shapes of inputs, and the innermost lines of the call)."""
        found = averages(self, group_by_input_shape, group_by_stack_n)
        return EventList(found, self.memory, self.flops)

    def total_average(self) -> FunctionEventAvg:
        """All events as one."""
        total = FunctionEventAvg()
        for e in self:
            total.add(e)
        return total

    def export_chrome_trace(self, path) -> None:
        """Write a file for Perfetto (ui.perfetto.dev) and chrome://tracing; ``.gz`` is packed."""
        trace.write(path, self)

    def export_stacks(self, path, metric="self_cpu_time_total") -> None:
        """Write lines ``outer;...;inner microseconds``, as tools for flame graphs read them.

        Raises:
            ArgumentError: another metric.
        """
        _need(metric, ("self_cpu_time_total",), "export_stacks")
        with open(path, "w", encoding="utf-8") as file:
            for e in self:
                value = int(getattr(e, metric))
                if e.stack and value > 0:
                    frames = [f.replace(";", "_").replace(" ", "_") for f in reversed(e.stack)]
                    file.write(f"{';'.join(frames)} {value}\n")

    def table(
        self,
        sort_by=None,
        row_limit=100,
        max_src_column_width=75,
        max_name_column_width=55,
        max_shapes_column_width=80,
        header=None,
        top_level_events_only=False,
    ) -> str:
        """The events as text, a line each.

        Args:
            sort_by: an attribute, largest first; one of ``SORTS``.
            row_limit: lines at most; -1 for all.
            header: a line to stand above.
            top_level_events_only: leave out what another event contains.

        Raises:
            ArgumentError: ``sort_by`` is something else.
        """
        rows = list(self)
        if sort_by is not None:
            _need(sort_by, SORTS, "table")
            rows.sort(key=lambda e: getattr(e, sort_by), reverse=True)
        if top_level_events_only:
            rows = [e for e in rows if getattr(e, "cpu_parent", None) is None]
        rows = rows if row_limit < 0 else rows[:row_limit]
        columns = self._columns(max_name_column_width, max_shapes_column_width)
        if any(e.stack for e in rows):
            columns.append(
                ("Source Location", lambda e: _cut(_first(e.stack), max_src_column_width))
            )
        total = _microseconds(self.self_cpu_time_total)
        text = _aligned([name for name, _ in columns], [[f(e) for _, f in columns] for e in rows])
        above = [header] if header else []
        return "\n".join([*above, text, f"Self CPU time total: {total}", ""])

    def _columns(self, name_width, shape_width):
        whole = self.self_cpu_time_total or 1.0
        columns = [
            ("Name", lambda e: _cut(e.key, name_width)),
            ("Self CPU %", lambda e: f"{100 * e.self_cpu_time_total / whole:.2f}%"),
            ("Self CPU", lambda e: _microseconds(e.self_cpu_time_total)),
            ("CPU total %", lambda e: f"{100 * e.cpu_time_total / whole:.2f}%"),
            ("CPU total", lambda e: _microseconds(e.cpu_time_total)),
            ("CPU time avg", lambda e: _microseconds(e.cpu_time_total / e.count)),
        ]
        if self.memory:
            columns += [
                ("CPU Mem", lambda e: _bytes(e.cpu_memory_usage)),
                ("Self CPU Mem", lambda e: _bytes(e.self_cpu_memory_usage)),
            ]
        columns.append(("# of Calls", lambda e: str(e.count)))
        if any(e.input_shapes for e in self):
            columns.append(("Input Shapes", lambda e: _cut(str(e.input_shapes), shape_width)))
        if self.flops:
            columns += [
                ("MFLOPs", lambda e: f"{e.flops / 1e6:.3f}"),
                ("GFLOP/s", lambda e: _rate(e.flops, e)),
                ("MB moved", lambda e: f"{e.bytes / 1e6:.3f}"),
                ("GB/s", lambda e: _rate(e.bytes, e)),
                ("% of roofline", lambda e: _share(e)),
            ]
        return columns

    def __str__(self):
        return self.table()


def _need(name, known, what):
    if name not in known:
        fail(ArgumentError, what, f"expected one of {', '.join(known)}, got {name!r}")


def _first(stack):
    return stack[0] if stack else ""


def _rate(amount, e):
    return f"{amount / e.cpu_time_total / 1e3:.1f}" if amount and e.cpu_time_total else "--"


def _share(e):
    return f"{100 * e.limit / e.cpu_time_total:.1f}%" if e.limit and e.cpu_time_total else "--"


def _cut(text, width):
    return text if width is None or len(text) <= width else text[: width - 3] + "..."


def _microseconds(t):
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if abs(t) >= size:
            return f"{t / size:.3f}{unit}"
    return f"{t:.3f}us"


def _bytes(n):
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if abs(n) >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n} B"


def _aligned(names, rows):
    widths = [max(map(len, column)) for column in zip(names, *rows)]
    line = "  ".join("-" * w for w in widths)

    def text(cells):
        first, *rest = (c.rjust(w) for c, w in zip(cells, widths))
        return "  ".join([cells[0].ljust(len(first)), *rest]).rstrip()

    return "\n".join([line, text(names), line, *map(text, rows), line])
