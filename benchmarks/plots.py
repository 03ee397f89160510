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


def _bars(plt, rows, specs, label, base=None):
    """Horizontal bars from ``base``, a group for each row: ``[(name, {spec: value})]``."""
    height = 0.8 / len(specs)
    figure, axes = plt.subplots(figsize=(8.5, 0.9 + len(rows) * (0.14 * len(specs) + 0.12)))
    values = [v for _, found in rows for v in found.values()]
    low = base or min(values) / 1.5
    for k, spec in enumerate(specs):
        at = [i + (k - (len(specs) - 1) / 2) * height for i in range(len(rows))]
        own = [found.get(spec, low) - low for _, found in rows]
        axes.barh(at, own, height * 0.92, left=low, color=COLOURS[spec], label=TITLES[spec])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xscale("log")
    axes.set_xlim(min(low, *values) / 1.1 if base else low, max(values) * 1.1)
    _plain_ticks(plt, axes.xaxis)
    if base:
        axes.axvline(base, color="#444444", linewidth=1)
    axes.set_xlabel(label)
    figure.legend(loc="outside upper center", ncols=min(len(specs), 3))
    return figure


def _speeds(plt, results, specs):
    """Bars of the speed in other ways, PyTorch eager being 1."""
    rows = []
    for name, found in results.items():
        ms = _measured(found, "ms")
        if "torch:eager" in ms:
            rows.append((name, {s: ms["torch:eager"] / ms[s] for s in specs if s in ms}))
    specs = [s for s in specs if any(s in found for _, found in rows)]
    return _bars(plt, rows, specs, "speed, PyTorch eager = 1 (more is better)", base=1)


def _plain_ticks(plt, axis):
    """Numbers as they are, not powers of ten."""
    ticker = plt.matplotlib.ticker
    axis.set_major_locator(ticker.LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _measured(found, what):
    return {spec: row[what] for spec, row in found.items() if what in row}


def _programs(plt, results):
    return _speeds(plt, results, ["facula:eager", "facula:step", "torch:compile", "torch:step"])


def _memory(plt, results):
    specs = ["facula:eager", "facula:step", "torch:eager"]
    rows = [(name, _measured(found, "mib")) for name, found in results.items()]
    label = "peak memory of the process above its library's, MiB (less is better)"
    return _bars(plt, rows, specs, label)


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
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _inference(plt, results):
    specs = ["facula:eager", "facula:compile", "torch:compile", "onnxruntime", "openvino", "jax"]
    return _speeds(plt, results, specs)


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
    """The share of the limit, by what the limit is."""
    peaks, sizes = results["peaks"], results["footprints"]
    rows = results["kernels"]
    figure, axes = plt.subplots(figsize=(8.5, 0.9 + 0.21 * len(rows)))
    colours = {"operations": "#c8401e", "memory": "#1f4e8c"}
    for i, k in enumerate(rows):
        place = min(sum(n < k["bytes"] for n in sizes), len(sizes) - 1)
        computing = k["flops"] / peaks["flops"]["float32"] > k["bytes"] / peaks["bytes"][place]
        kind, amount, unit = (
            ("operations", k["flops"], "GFLOP/s") if computing else ("memory", k["bytes"], "GB/s")
        )
        axes.barh(i, 100 * k["share"], 0.7, color=colours[kind])
        rate = f" {amount / k['us'] / 1e3:.3g} {unit}"
        axes.text(
            100 * k["share"],
            i,
            rate,
            va="center",
            fontsize=7,
            zorder=4,
            bbox={"color": "white", "pad": 0.6},
        )
    names = [f"{k['case']}:  {k['kernel']}" for k in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(100, color="#444444", linewidth=1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("% of the machine's limit")
    patches = [plt.Rectangle((0, 0), 1, 1, color=c) for c in colours.values()]
    figure.legend(
        patches, [f"limited by {k}" for k in colours], loc="outside upper center", ncols=2
    )
    return figure


PAINTERS = {
    "programs": _programs,
    "programs-memory": _memory,
    "inference": _inference,
    "kernels": _kernels,
    "growth": _growth,
    "roofline": _roofline,
}
