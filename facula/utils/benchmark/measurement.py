"""``Measurement``: times of one statement, and what may be said of them."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass

from facula.base.errors import ArgumentError, fail

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


@dataclass(frozen=True)
class TaskSpec:
    """What was measured."""

    stmt: str
    setup: str = "pass"
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def title(self) -> str:
        """A name for people."""
        if self.label is not None:
            return self.label + (f": {self.sub_label}" if self.sub_label else "")
        return self.stmt if "\n" not in self.stmt else self.stmt.splitlines()[0] + " ..."

    def summarize(self) -> str:
        """What was measured, as a few lines."""
        parts = [self.title, self.description or ""]
        if self.setup not in ("", "pass"):
            parts.append(f"setup: {self.setup}")
        return "\n".join(p for p in parts if p)


@dataclass(repr=False)
class Measurement:
    """Times of blocks of runs.

    Attributes:
        number_per_run: runs of a block.
        raw_times: seconds of each block.
        task_spec: what was measured.
    """

    number_per_run: int
    raw_times: list[float]
    task_spec: TaskSpec
    metadata: dict | None = None

    @property
    def times(self) -> list[float]:
        """Seconds of one run, a block each."""
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.times)

    @property
    def iqr(self) -> float:
        """The distance of the quartiles."""
        if len(self.raw_times) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.times, n=4, method="inclusive")
        return high - low

    @property
    def significant_figures(self) -> int:
        """Figures of the median that mean something, by the spread of the times: 1 to 5."""
        if len(self.raw_times) < 2 or not self.iqr:
            return 5
        spread = 1.349 * self.iqr / math.sqrt(len(self.raw_times))
        return min(max(round(-math.log10(spread / self.median)) + 1, 1), 5)

    @property
    def has_warnings(self) -> bool:
        return not self.meets_confidence()

    def meets_confidence(self, threshold: float = 0.25) -> bool:
        """Whether the quartiles lie that close, by the median."""
        return self.iqr / self.median < threshold

    # What Compare sorts by

    @property
    def title(self) -> str:
        return self.task_spec.title

    @property
    def env(self) -> str:
        return self.task_spec.env or "Unspecified env"

    @property
    def as_row_name(self) -> str:
        return self.task_spec.sub_label or self.task_spec.stmt

    @property
    def num_threads(self) -> int:
        return self.task_spec.num_threads

    @property
    def description(self) -> str | None:
        return self.task_spec.description

    @staticmethod
    def merge(measurements) -> list[Measurement]:
        """Measurements of the same thing as one each."""
        groups = defaultdict(list)
        for m in measurements:
            groups[m.task_spec].append(m)
        return [
            Measurement(1, [t for m in own for t in m.times], spec, own[0].metadata)
            for spec, own in groups.items()
        ]

    def __repr__(self):
        unit, name = unit_of(self.median)
        n, runs = len(self.raw_times), self.number_per_run
        shown = f"{self.median / unit:.2f} {name}"
        if n > 1:
            body = f"  Median: {shown}\n  IQR:    {self.iqr / unit:.2f} {name}\n"
            body += f"  {n} measurements, {runs} runs per measurement, "
        else:
            body = f"  {shown}\n  1 measurement, {runs} runs, "
        count = self.num_threads
        return (
            f"<{type(self).__module__}.Measurement object>\n{self.task_spec.summarize()}\n{body}"
            f"{count} thread{'s' if count > 1 else ''}"
        )


def unit_of(seconds: float) -> tuple[float, str]:
    """The unit in which a time is a number of few digits."""
    if seconds < 0:
        fail(ArgumentError, "unit_of", f"expected seconds, got {seconds}")
    return next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
