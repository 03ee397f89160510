"""Say what this machine offers and what facula will use of it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from facula.cli import machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print the report; status 1 if facula cannot run here."""
    report = examine()
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(render(report))
    return 0 if report["verdict"]["status"] == "ready" else 1


def examine() -> dict[str, dict[str, object]]:
    """The report: sections, each a dict from label to a JSON value."""
    import facula

    llvm = machine.llvm()
    cores, memory = machine.cores(), machine.memory()
    return {
        "machine": {
            "cpu": machine.cpu_model(),
            "cores": cores,
            "caches": machine.cpu_caches(),
            "memory": memory,
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "gpu": machine.gpu(),
        },
        "software": {
            "facula": facula.__version__,
            "python": platform.python_version(),
            "executable": sys.executable,
            "numpy": machine.package_version("numpy"),
            "llvmlite": llvm.get("llvmlite", ""),
            "llvm": llvm.get("version", ""),
            "extras": machine.extras(),
        },
        "facula will use": plans(llvm),
        "verdict": check(),
    }


def plans(llvm: dict[str, object]) -> dict[str, object]:
    """What facula's own settings come to on this machine."""
    import facula
    from facula.runtime import cache

    return {
        "target": llvm.get("error") or f"{llvm['cpu']} ({llvm['triple']})",
        "instructions": llvm.get("features", []),
        "threads": facula.get_num_threads(),
        "cache": {
            "folder": str(cache.directory()),
            "writable": os.access(cache.directory(), os.W_OK),
            **cache.stats(),
        },
        "settings": {k: v for k, v in sorted(os.environ.items()) if k.startswith("FACULA_")},
    }


def check() -> dict[str, object]:
    """Compute one small thing through the whole engine: the only proof that it works here."""
    import facula

    try:
        x = facula.tensor([1.0, 2.0, 3.0], requires_grad=True)
        (x * x + 1.0).sum().backward()
        ok = x.grad.tolist() == [2.0, 4.0, 6.0]
        return {"status": "ready" if ok else "broken: a gradient came out wrong"}
    except Exception as error:
        return {"status": f"broken: {type(error).__name__}: {error}"}


def render(report: dict[str, dict[str, object]]) -> str:
    """The report as aligned text."""
    lines = []
    for title, rows in report.items():
        lines += [title] + [f"  {label:<14}{show(label, value)}" for label, value in rows.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def show(label: str, value: object) -> str:
    """One value in words."""
    if label == "memory" and isinstance(value, dict):
        return ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in value.items())
    if label == "cores" and isinstance(value, dict):
        limit = value["cgroup"]
        return f"{value['allowed']} of {value['machine']}" + (
            f", the control group grants {limit:g}" if limit else ", no control group limit"
        )
    if label == "extras" and isinstance(value, dict):
        words = [f"{e}: {'lacks ' + ' '.join(m) if m else 'installed'}" for e, m in value.items()]
        return ("\n" + " " * 16).join(words) or "facula is not installed, only on the path"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none known"
    return str(value) or "not installed"
