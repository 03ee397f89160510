"""``utils.benchmark``: timers, measurements, comparisons."""

import pytest

import facula
from facula.base.errors import ArgumentError, UnsupportedError
from facula.utils.benchmark import Compare, Measurement, TaskSpec, Timer


def measured(times, **spec):
    return Measurement(1, list(times), TaskSpec("f()", **spec))


def test_statistics():
    m = measured([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (m.median, m.mean, m.iqr) == (3.0, 22.0, 2.0)
    assert m.has_warnings and not measured([1.0, 1.0, 1.01]).has_warnings
    assert (
        measured([1.0, 1.1, 0.9]).significant_figures
        < measured([1.0, 1.0, 1.0]).significant_figures
    )
    assert Measurement(10, [1.0], TaskSpec("f")).median == 0.1


def test_blocks_and_callbacks():
    calls, blocks = [0], []

    def count():
        calls[0] += 1

    m = Timer(count).blocked_autorange(lambda n, s: blocks.append((n, s)), min_run_time=0.002)
    assert len(blocks) == len(m.raw_times) >= 2 and calls[0] >= m.number_per_run * len(blocks)
    assert sum(s for _, s in blocks) >= 0.002
    m = Timer("x + 1", globals={"x": facula.ones(3)}).adaptive_autorange(max_run_time=0.02)
    assert m.median > 0


def test_threads_are_set_for_the_time():
    seen, before = [], facula.get_num_threads()
    Timer(lambda: seen.append(facula.get_num_threads()), num_threads=2).timeit(3)
    assert set(seen) == {2} and facula.get_num_threads() == before
    with pytest.raises(ArgumentError):
        Timer("pass", num_threads=0).timeit(1)


def test_refusals():
    with pytest.raises(UnsupportedError):
        Timer("1;", language="c++")
    with pytest.raises(UnsupportedError):
        Timer().collect_callgrind()
    with pytest.raises(ValueError):
        Compare([1.0])


def test_compare():
    rows = [
        measured([1e-3 * k] * 3, label="add", sub_label=size, description=name)
        for k, (size, name) in enumerate(
            [("8", "ours"), ("8", "theirs"), ("16", "ours"), ("16", "theirs")], 1
        )
    ]
    table = Compare(rows)
    table.trim_significant_figures()
    text = str(table)
    assert "ours" in text and "theirs" in text and "1 thread:" in text
    assert text.index("8 ") < text.index("16") and "milliseconds" in text
    table.colorize()
    table.highlight_warnings()
    assert "\033[92m" in str(table)
    assert "f()" in repr(rows[0]) or "add: 8" in repr(rows[0])
