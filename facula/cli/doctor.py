"""Say what this machine offers and what facula will use of it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from facula.cli import machine
from facula.runtime import cache, host


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
    return {
        "machine": {
            "cpu": machine.cpu_model(),
            "cores": machine.cores(),
            "caches": host.cache_sizes(),
            "memory": machine.memory(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "gpu": machine.gpu(),
        },
        "software": {
            "facula": facula.__version__,
            "python": platform.python_version(),
            "executable": sys.executable,
            "numpy": machine.package_version("numpy"),
            "llvmlite": machine.package_version("llvmlite"),
            "llvm": llvm.get("llvm", ""),
            "extras": machine.extras(),
        },
        "facula will use": plans(llvm),
        "verdict": check(),
    }


def plans(llvm: dict[str, object]) -> dict[str, object]:
    """What facula's own settings come to on this machine."""
    import facula

    return {
        "target": llvm.get("error") or f"{llvm['cpu']} ({llvm['triple']})",
        "instructions": llvm.get("features", []),
        "vector width": f"{llvm.get('vector_bits', 'unknown')} bits",
        "threads": facula.get_num_threads(),
        "cache": cache_state(),
        "settings": {k: v for k, v in sorted(os.environ.items()) if k.startswith("FACULA_")},
    }


def cache_state() -> dict[str, object]:
    """The cache of compiled kernels: where it is, whether it works, what it holds."""
    folder = cache.directory()
    if folder is None:
        return {"folder": None}
    # The folder is made at the first write: until then its nearest parent tells.
    present = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    return {"folder": str(folder), "writable": os.access(present, os.W_OK), **cache.stats()}


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
    if label in ("memory", "caches") and isinstance(value, dict):
        return ", ".join(f"{name} {show_bytes(size)}" for name, size in value.items()) or "unknown"
    if label == "cache" and isinstance(value, dict):
        return show_cache(value)
    if label == "cores" and isinstance(value, dict):
        limit = value["cgroup"]
        allowed = f"{value['allowed']} of {value['machine']} ({value['physical']} physical)"
        granted = f"the control group grants {limit:g}" if limit else "no control group limit"
        return f"{allowed}, {granted}"
    if label == "extras" and isinstance(value, dict):
        words = [f"{e}: {'lacks ' + ' '.join(m) if m else 'installed'}" for e, m in value.items()]
        return ("\n" + " " * 16).join(words) or "facula is not installed, only on the path"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none known"
    return str(value) or "not installed"


def show_bytes(size: float) -> str:
    """A size in the unit that fits.

    >>> show_bytes(48 * 1024)
    '48 KiB'
    """
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def show_cache(state: dict) -> str:
    if state["folder"] is None:
        return "off (FACULA_CACHE_DIR is empty)"
    broken = "" if state["writable"] else ", NOT WRITABLE: every process compiles anew"
    held = f"{state['entries']} objects, {show_bytes(state['bytes'])}"
    return f"{state['folder']}: {held} of at most {show_bytes(state['limit'])}{broken}"
