"""``Compare``: measurements side by side, as a table."""

from __future__ import annotations

import statistics
from collections import defaultdict

from facula.utils.benchmark.measurement import Measurement, unit_of

_GREEN, _RED, _PLAIN = "\033[92m", "\033[91m", "\033[0m"


class Compare:
    """A table a label: a row for each sub-label, a column for each description.

    >>> from facula.utils.benchmark import Compare, Timer
    >>> x = facula.ones(100)
    >>> ms = [Timer("x + x", globals={"x": x}, label="add", sub_label="100",
    ...             description=d).timeit(10) for d in ("first", "second")]
    >>> print(str(Compare(ms)).splitlines()[0].strip("[- ]"))
    add
    """

    def __init__(self, results):
        self._results: list[Measurement] = []
        self._trim = self._color = self._warn = False
        self.extend_results(results)

    def extend_results(self, results) -> None:
        """More measurements.

        Raises:
            ValueError: something else is among them.
        """
        for r in results:
            if not isinstance(r, Measurement):
                raise ValueError(f"Expected an instance of `Measurement`, got {type(r)} instead.")
            self._results.append(r)

    def trim_significant_figures(self) -> None:
        """Show the figures only that mean something."""
        self._trim = True

    def colorize(self, rowwise=False) -> None:
        """Show the best of a row green and what takes half as much again red."""
        self._color = True

    def highlight_warnings(self) -> None:
        """Mark figures whose times are spread wide."""
        self._warn = True

    def print(self) -> None:  # noqa: A003  PyTorch's name
        """Print the tables."""
        print(str(self))

    def __str__(self):
        tables = defaultdict(list)
        for m in Measurement.merge(self._results):
            tables[m.title.partition(": ")[0] if m.task_spec.label else m.title].append(m)
        return "\n".join(self._table(title, own) for title, own in tables.items())

    def _table(self, title, own):
        unit, unit_name = unit_of(min(m.median for m in own))
        columns = list(dict.fromkeys(m.description or "" for m in own))
        envs = list(dict.fromkeys(m.env for m in own))
        rows = defaultdict(dict)
        for m in own:
            name = m.as_row_name if len(envs) == 1 else f"({m.env})  {m.as_row_name}"
            rows[m.num_threads, name][m.description or ""] = m
        first = max([len(name) for _, name in rows] + [len(title)])
        widths = [max(len(c), 10) for c in columns]
        lines, threads = [], None
        head = "  |  ".join([" " * first, *(c.rjust(w) for c, w in zip(columns, widths))])
        lines.append("[" + f" {title} ".center(len(head), "-") + "]")
        lines.append(head)
        for (count, name), cells in sorted(rows.items(), key=lambda item: item[0][0]):
            if count != threads:
                threads = count
                lines.append(f"{count} thread{'s' if count > 1 else ''}: ".ljust(len(head), "-"))
            best = min(m.median for m in cells.values())
            texts = [self._cell(cells.get(c), unit, w, best) for c, w in zip(columns, widths)]
            lines.append("  |  ".join([name.ljust(first), *texts]))
        lines.append(f"\nTimes are in {_UNIT_NAMES[unit_name]} ({unit_name}).\n")
        return "\n".join(lines)

    def _cell(self, m, unit, width, best):
        if m is None:
            return " " * width
        value = m.median / unit
        figures = m.significant_figures if self._trim else 4
        text = f"{value:.{figures}g}" if self._trim else f"{value:.1f}"
        if self._warn and m.has_warnings:
            spread = 100 * m.iqr / statistics.median(m.times)
            text = f"(! {spread:.0f}%) {text}"
        text = text.rjust(width)
        if self._color and m.median <= best * 1.01:
            return _GREEN + text + _PLAIN
        return _RED + text + _PLAIN if self._color and m.median > 1.5 * best else text


_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
