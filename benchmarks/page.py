"""docs/benchmarks.md, from what was measured."""

from __future__ import annotations

from benchmarks.growth import AXES
from benchmarks.plots import TITLES
from benchmarks.programs import geometric_mean

HEAD = """# Benchmarks

Written by `make bench BENCH_ARGS=--write`, which runs for some {minutes} minutes;
`python -m benchmarks --list` names the themes, `--only` runs some of them, `--quick` a part in two
minutes. Every case is the same text for both libraries ([benchmarks/](../benchmarks/)), each in a
process of its own; rounds go over the processes in turns, and a figure is the median over all
rounds. Memory is the peak of the process above what the library takes by itself, data, parameters
and code included; facula's kernels come from its disk cache.

{machine}
"""


def write(results: dict, pictures: list[str], minutes: int) -> str:
    """The page."""
    machines = {r["machine"] for r in results.values()}
    lines = [HEAD.format(minutes=minutes, machine="\n".join(sorted(machines)))]
    for theme, section in SECTIONS.items():
        if theme in results:
            lines += section(results[theme]["found"])
            lines[-1:] += [
                f"\n![{p.partition('.')[0]}](benchmarks/{p})"
                for p in pictures
                if p.startswith((f"{theme}.", f"{theme}-"))
            ]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def table(head, rows) -> list[str]:
    """Lines of a Markdown table."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'|'.join('---' if i == 0 else '---:' for i in range(len(head)))}|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


def duration(ms: float) -> str:
    """A time with its unit, in three figures."""
    for unit, size in (("s", 1e3), ("ms", 1.0), ("µs", 1e-3)):
        if ms >= size:
            return f"{ms / size:.3g} {unit}"
    return f"{1e6 * ms:.3g} ns"


def _cell(found, spec, what="ms"):
    row = found.get(spec, {})
    if "error" in row:
        return "not installed" if row["error"] == "not installed" else "failed"
    if what not in row:
        return ""
    return duration(row[what]) if what == "ms" else f"{row[what]:.3g}"


def _ratio(found, ours, theirs, what="ms"):
    """Theirs (the best of several) by ours, or None."""
    others = [found[s][what] for s in theirs if what in found.get(s, {})]
    if what not in found.get(ours, {}) or not others:
        return None
    return min(others) / found[ours][what]


def _shown(ratio):
    return "" if ratio is None else f"{ratio:.2f}"


def _programs(found) -> list[str]:
    modes = ("torch:eager", "torch:compile", "torch:step")
    rows, eager, captured = [], [], []
    for name, own in found.items():
        a, b = _ratio(own, "facula:eager", modes[:1]), _ratio(own, "facula:step", modes)
        eager.append(a)
        captured.append(b)
        cells = [_cell(own, s) for s in ("facula:eager", "facula:step", *modes)]
        rows.append((name, *cells, _shown(a), _shown(b)))
    means = [geometric_mean([r for r in kept if r]) for kept in (eager, captured)]
    lows = [min((r for r in kept if r), default=float("nan")) for kept in (eager, captured)]
    rows.append(("**geometric mean**", *[""] * 5, *(f"**{m:.2f}**" for m in means)))
    rows.append(("least", *[""] * 5, *(f"{m:.2f}" for m in lows)))
    titles = [TITLES[s] for s in ("facula:eager", "facula:step", *modes)]
    lines = [
        "## Programs",
        "",
        "The last two columns are PyTorch's time by ours: eager against eager, and captured",
        "against the fastest of PyTorch's three ways.",
        "",
        *table(("a step or pass", *titles, "eager by eager", "captured by the best"), rows),
        "",
    ]
    rows = []
    for name, own in found.items():
        ratio = _ratio(own, "facula:step", ("torch:eager",), "mib")
        memory = [_cell(own, s, "mib") for s in ("facula:eager", "facula:step", "torch:eager")]
        rows.append((name, *memory, _shown(ratio and 1 / ratio)))
    head = (
        "",
        "facula eager, MiB",
        "captured, MiB",
        "PyTorch eager, MiB",
        "captured by PyTorch",
    )
    return [*lines, "### Memory", "", *table(head, rows)]


def _kernels(found) -> list[str]:
    rows = []
    counts = sorted({int(n) for own in found.values() for n in own})
    for name, own in found.items():
        cells = [name]
        for n in counts:
            times = own.get(str(n), own.get(n, {}))
            cells += [_cell(times, s) for s in ("facula:eager", "torch:eager")]
            cells.append(_shown(_ratio(times, "facula:eager", ("torch:eager",))))
        rows.append(cells)
    head = ["", *(h for n in counts for h in (f"facula, {n} threads", "PyTorch", "ratio"))]
    head = [h.replace("1 threads", "1 thread") for h in head]
    return ["## Operations", "", "Eager calls; the ratio is PyTorch's time by ours.", "",
            *table(head, rows)]  # fmt: skip


def _inference(found) -> list[str]:
    specs = list(dict.fromkeys(s for own in found.values() for s in own))
    rows = []
    for name, own in found.items():
        others = [s for s in specs if not s.startswith("facula")]
        ratio = _ratio(own, "facula:compile", others)
        rows.append((name, *(_cell(own, s) for s in specs), _shown(ratio)))
    head = ("a pass", *(TITLES[s] for s in specs), "best other by captured")
    return ["## Inference", "", "ONNX Runtime and OpenVINO run the file that PyTorch exports.", "",
            *table(head, rows)]  # fmt: skip


def _growth(found) -> list[str]:
    rows = []
    for axis, points in found.items():
        for n, own in points.items():
            specs = ("facula:eager", "facula:step", "torch:eager")
            rows.append((f"{axis} {n}", *(_cell(own, s) for s in specs),
                         *(_cell(own, s, "mib") for s in specs)))  # fmt: skip
    head = ("training step", "facula, eager", "captured", "PyTorch, eager", "MiB, facula",
            "captured", "PyTorch")  # fmt: skip
    what = "; ".join(f"{axis}: {text}" for axis, (text, _) in AXES.items())
    return ["## Growth", "", f"{what}.", "", *table(head, rows)]


def _startup(found) -> list[str]:
    rows = [
        (library, f"{r['import_s']:.3f} s", f"{r['first_sum_s']:.3f} s")
        for library, r in found["imports"].items()
    ]
    lines = ["## Start", "", *table(("", "import", "import and a first sum"), rows), ""]
    rows = []
    for name, own in found["first"].items():
        for spec, r in own.items():
            cells = (
                (r["error"], "") if "error" in r else (f"{r[k]:.2f} s" for k in ("cold", "warm"))
            )
            rows.append((name, TITLES[spec], *cells))
    lines += table(("first step after the import", "", "cold cache", "warm cache"), rows)
    count = found["new sizes"]
    return [
        *lines,
        "",
        f"Kernels compiled for a batch, a length and an image's size never seen: {count}.",
    ]


def _roofline(found) -> list[str]:
    peaks, sizes = found["peaks"], found["footprints"]
    speeds = ", ".join(
        f"{rate / 1e9:.0f} ({size >> 10} KiB)" if size < 1 << 20
        else f"{rate / 1e9:.0f} ({size >> 20} MiB)"
        for size, rate in list(zip(sizes, peaks["bytes"]))[::2]
    )  # fmt: skip
    rows = []
    for k in found["kernels"]:
        rates = (f"{k[what] / k['us'] / 1e3:.3g}" for what in ("flops", "bytes"))
        rows.append(
            (k["case"], f"`{k['kernel']}`", duration(k["us"] / 1e3), *rates, _percent(k["share"]))
        )
    return [
        "## Share of the machine's limit",
        "",
        "The best of twenty runs of each kernel of ours, on all threads, by",
        "[the profiler](profiling.md). The machine's peaks: "
        f"{peaks['flops']['float32'] / 1e9:.0f} GFLOP/s in float32;",
        f"{speeds} GB/s,",
        "by the bytes in use. More than 100 % is possible where an algorithm saves operations, or",
        "where what is read lies in a nearer cache than all of it would fit.",
        "",
        *table(("case", "kernel", "time", "GFLOP/s", "GB/s", "of the limit"), rows),
    ]


def _percent(share):
    return f"{100 * share:.0f} %"


SECTIONS = {
    "programs": _programs,
    "inference": _inference,
    "kernels": _kernels,
    "growth": _growth,
    "startup": _startup,
    "roofline": _roofline,
}
