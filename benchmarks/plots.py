"""The pictures of docs/benchmarks.md, from what was measured."""

from __future__ import annotations

from pathlib import Path

#: One colour a library and mode, everywhere: ours warm, PyTorch's cold, others grey to green.
COLOURS = {
    "facula:eager": "#f0a500",
    "facula:step": "#c8401e",
    "facula:compile": "#c8401e",
    "torch:eager": "#8fb8de",
    "torch:compile": "#4a86c5",
    "torch:step": "#1f4e8c",
    "onnxruntime": "#7a7a7a",
    "openvino": "#5aa469",
    "jax": "#9467bd",
}
TITLES = {
    "facula:eager": "facula, eager",
    "facula:step": "facula, captured step",
    "facula:compile": "facula, captured",
    "torch:eager": "PyTorch, eager",
    "torch:compile": "PyTorch, torch.compile",
    "torch:step": "PyTorch, whole step compiled",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "jax": "JAX",
}


def draw(results: dict, folder: Path, suffix="svg") -> list[str]:
    """Write a picture for each theme that was measured; the names of the files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
            "axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True,
            "legend.frameon": False, "svg.hashsalt": "facula",
            "figure.constrained_layout.use": True,
        }
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, painter in PAINTERS.items():
        theme = name.partition("-")[0]
        if results.get(theme):
            figure = painter(plt, results[theme])
            figure.savefig(
                folder / f"{name}.{suffix}",
                metadata={"Date": None} if suffix == "svg" else None,
                dpi=80,
            )
            plt.close(figure)
            made.append(f"{name}.{suffix}")
    return made


def _bars(plt, rows, specs, label, log=True):
    """Horizontal bars, a group for each row: ``[(name, {spec: value})]``."""
    height = 0.8 / len(specs)
    figure, axes = plt.subplots(figsize=(8.5, 0.6 + len(rows) * (0.14 * len(specs) + 0.12)))
    for k, spec in enumerate(specs):
        at = [i + (k - (len(specs) - 1) / 2) * height for i in range(len(rows))]
        values = [found.get(spec) or 0 for _, found in rows]
        axes.barh(at, values, height * 0.92, color=COLOURS[spec], label=TITLES[spec])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    if log:
        axes.set_xscale("log")
        _plain_ticks(plt, axes.xaxis)
    axes.set_xlabel(label)
    figure.legend(loc="outside upper center", ncols=min(len(specs), 3))
    return figure, axes


def _plain_ticks(plt, axis):
    """Numbers as they are, not powers of ten."""
    ticker = plt.matplotlib.ticker
    axis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _measured(found, what):
    return {spec: row[what] for spec, row in found.items() if what in row}


def _programs(plt, results):
    specs = ["facula:eager", "facula:step", "torch:compile", "torch:step"]
    rows = []
    for name, found in results.items():
        ms = _measured(found, "ms")
        if "torch:eager" in ms:
            rows.append((name, {s: ms["torch:eager"] / ms[s] for s in specs if s in ms}))
    specs = [s for s in specs if any(s in found for _, found in rows)]
    figure, axes = _bars(plt, rows, specs, "speed, PyTorch eager = 1 (more is better)")
    axes.axvline(1, color="#444444", linewidth=1)
    return figure


def _memory(plt, results):
    specs = ["facula:eager", "facula:step", "torch:eager"]
    rows = [(name, _measured(found, "mib")) for name, found in results.items()]
    label = "peak memory of the process above its library's, MiB (less is better)"
    return _bars(plt, rows, specs, label)[0]


def _kernels(plt, results):
    rows = [
        (name, {int(n): _measured(found, "ms") for n, found in by_threads.items()})
        for name, by_threads in results.items()
    ]
    figure, axes = plt.subplots(figsize=(8.5, 0.8 + 0.19 * len(rows)))
    counts = sorted({n for _, found in rows for n in found})
    for n, colour, marker in zip(counts, ("#c8401e", "#1f4e8c"), "os"):
        points = [
            (found[n]["torch:eager"] / found[n]["facula:eager"], i)
            for i, (_, found) in enumerate(rows)
            if len(found.get(n, ())) == 2
        ]
        label = f"{n} thread{'s' if n > 1 else ''}"
        axes.scatter(*zip(*points), s=22, color=colour, marker=marker, label=label, zorder=3)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(1, color="#444444", linewidth=1)
    axes.set_xscale("log")
    _plain_ticks(plt, axes.xaxis)
    axes.set_xlabel("speed, PyTorch = 1 (more is better)")
    axes.legend(loc="lower right")
    return figure


def _inference(plt, results):
    rows = [(name, _measured(found, "ms")) for name, found in results.items()]
    specs = [s for s in COLOURS if any(s in found for _, found in rows)]
    return _bars(plt, rows, specs, "milliseconds a pass (less is better)")[0]


def _growth(plt, results):
    from benchmarks.growth import AXES

    figure, axes = plt.subplots(2, len(results), figsize=(2.6 * len(results), 5.2), squeeze=False)
    for column, (axis, points) in enumerate(results.items()):
        sizes = sorted(points, key=int)
        for row, what in enumerate(("ms", "mib")):
            own = axes[row][column]
            for spec in ("facula:eager", "facula:step", "torch:eager"):
                found = [
                    (int(n), points[n][spec][what])
                    for n in sizes
                    if what in points[n].get(spec, {}) and points[n][spec][what] > 0
                ]
                if found:
                    own.plot(
                        *zip(*found), marker="o", markersize=3.5, color=COLOURS[spec],
                        label=TITLES[spec] if row == column == 0 else None,
                    )  # fmt: skip
            own.set_xscale("log", base=2)
            own.set_yscale("log")
            own.set_xticks([int(n) for n in sizes], sizes, rotation=45)
            own.minorticks_off()
            _plain_ticks(plt, own.yaxis)
            own.set_title(AXES[axis][0].replace(", ", ",\n") if row == 0 else "", fontsize=8)
            own.set_xlabel(axis if row else "")
        axes[0][0].set_ylabel("milliseconds a step")
        axes[1][0].set_ylabel("peak memory, MiB")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _roofline(plt, results):
    figure, axes = plt.subplots(figsize=(8.5, 5))
    peaks, sizes = results["peaks"], results["footprints"]
    top = peaks["flops"]["float32"]
    for size, dashes in ((sizes[0], ":"), (1 << 20, "-."), (1 << 23, "--"), (sizes[-1], "-")):
        rate = peaks["bytes"][sizes.index(size)]
        xs = [2**-5, top / rate, 2**11]
        where = f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"
        axes.plot(xs, [x * rate / 1e9 for x in xs[:2]] + [top / 1e9], dashes, color="#888888",
                  linewidth=1, label=f"limit, {where} in use ({rate / 1e9:.0f} GB/s)")  # fmt: skip
    seen: dict = {}
    for k in results["kernels"]:
        if k["flops"]:
            seen[k["case"]] = seen.get(k["case"], 0) + 1
            x, y = k["flops"] / k["bytes"], k["flops"] / k["us"] / 1e3
            axes.scatter(x, y, s=20, color=COLOURS["facula:step"], zorder=3)
            if seen[k["case"]] == 1:
                axes.annotate(
                    k["case"], (x, y), (4, -3), textcoords="offset points", fontsize=6.5
                )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(plt.matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_xlabel("operations a byte moved")
    axes.set_ylabel("GFLOP/s")
    axes.legend(loc="lower right")
    return figure


PAINTERS = {
    "programs": _programs,
    "programs-memory": _memory,
    "inference": _inference,
    "kernels": _kernels,
    "growth": _growth,
    "roofline": _roofline,
}
