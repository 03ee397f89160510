"""The older interface to :mod:`facula.profiler`: PyTorch's ``torch.autograd.profiler``."""

from __future__ import annotations

from facula.base.errors import UnsupportedError, fail
from facula.profiler.events import FunctionEvent, FunctionEventAvg, Interval
from facula.profiler.profiler import profile as _profile
from facula.profiler.recorder import record_function
from facula.profiler.table import EventList

__all__ = [
    "EventList",
    "FunctionEvent",
    "FunctionEventAvg",
    "Interval",
    "emit_itt",
    "emit_nvtx",
    "profile",
    "record_function",
]


class profile:  # noqa: N801  PyTorch's name
    """Records all that runs inside of the block; see :class:`facula.profiler.profile`.

    Args:
        enabled: False makes it a block that does nothing.
        use_cuda, use_device, use_kineto, use_cpu: accepted for PyTorch's sake.

    >>> import facula
    >>> with facula.autograd.profiler.profile() as prof:
    ...     _ = facula.ones(3) + 1
    >>> prof.key_averages()[0].count
    1
    """

    def __init__(
        self,
        enabled=True,
        *,
        use_cuda=False,
        use_device=None,
        record_shapes=False,
        with_flops=False,
        profile_memory=False,
        with_stack=False,
        with_modules=False,
        use_kineto=False,
        use_cpu=True,
        **others,
    ):
        self.enabled = enabled
        self._inner = _profile(
            record_shapes=record_shapes,
            with_flops=with_flops,
            profile_memory=profile_memory,
            with_stack=with_stack,
        )

    def __enter__(self):
        if self.enabled:
            self._inner.start()
        return self

    def __exit__(self, *exception):
        if self.enabled:
            self._inner.stop()

    @property
    def function_events(self) -> EventList:
        """All events by their start."""
        return self._inner.events()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all events."""
        return self.function_events.self_cpu_time_total

    def key_averages(self, group_by_input_shape=False, group_by_stack_n=0) -> EventList:
        """One entry a name."""
        return self.function_events.key_averages(group_by_input_shape, group_by_stack_n)

    def total_average(self) -> FunctionEventAvg:
        """All events as one."""
        return self.function_events.total_average()

    def table(self, *args, **kwargs) -> str:
        """The events as text."""
        return self.function_events.table(*args, **kwargs)

    def export_chrome_trace(self, path) -> None:
        """Write a trace for Perfetto and chrome://tracing."""
        self.function_events.export_chrome_trace(path)

    def export_stacks(self, path, metric="self_cpu_time_total") -> None:
        """Write stacks with their times, for flame graphs."""
        self.function_events.export_stacks(path, metric)


class _Emit:
    """A block whose ranges go to another tool, which this machine's build does not have."""

    tool = ""

    def __init__(self, enabled=True, record_shapes=False):
        self.enabled = enabled

    def __enter__(self):
        if self.enabled:
            fail(UnsupportedError, type(self).__name__, f"there is no {self.tool} for this device",
                 "facula.profiler.profile writes traces for Perfetto")  # fmt: skip
        return self

    def __exit__(self, *exception):
        return None


class emit_nvtx(_Emit):  # noqa: N801  PyTorch's name
    """Ranges for NVIDIA's tools: refused on a processor, nothing where ``enabled`` is False."""

    tool = "NVTX"


class emit_itt(_Emit):  # noqa: N801  PyTorch's name
    """Ranges for Intel's VTune: refused, nothing where ``enabled`` is False."""

    tool = "ITT"
