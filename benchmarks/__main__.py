"""Facula against PyTorch and others, on this machine.

    python -m benchmarks [--list] [--quick] [--only THEME[:WORD] ...] [--write]

What a theme finds replaces what it found before in ``benchmarks/results/``; ``--write`` makes
``docs/benchmarks.md`` and its pictures (for which matplotlib is needed) of all that is there.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from pathlib import Path

from benchmarks.measure import ROOT, Settings
from benchmarks.page import SECTIONS, write

RESULTS = ROOT / "benchmarks" / "results"


def machine(threads: int) -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    libraries = [
        f"{title} {importlib.metadata.version(package)}"
        for title, package in (
            ("PyTorch", "torch"), ("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino"),
            ("JAX", "jax"),
        )
        if importlib.util.find_spec(package)
    ]  # fmt: skip
    return (
        f"{name}, {threads} threads, Python {platform.python_version()}; "
        f"{', '.join(libraries) or 'no other library'}."
    )


def run(theme: str, words, settings: Settings, threads: int) -> None:
    """Run one theme and keep what it finds; where only some cases ran, beside the others."""
    start = time.perf_counter()
    found = importlib.import_module(f"benchmarks.{theme}").run(settings, threads, words)
    path = RESULTS / f"{theme}.json"
    if words and path.exists() and theme != "startup":
        before = json.loads(path.read_text())["found"]
        if "kernels" in before and "peaks" in before:
            cases = {k["case"] for k in found["kernels"]}
            found["kernels"] += [k for k in before["kernels"] if k["case"] not in cases]
        else:
            found = {**before, **json.loads(json.dumps(found))}
    seconds = time.perf_counter() - start
    kept = {"machine": machine(threads), "seconds": seconds, "found": found}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1))
    print("\n".join(SECTIONS[theme](json.loads(path.read_text())["found"])))
    print(f"\n({theme}: {seconds:.0f} s)\n", flush=True)


def publish(suffix="svg") -> None:
    """Write the page and the pictures of all results that are there."""
    results = {
        theme: json.loads((RESULTS / f"{theme}.json").read_text())
        for theme in SECTIONS
        if (RESULTS / f"{theme}.json").exists()
    }
    pictures = []
    if importlib.util.find_spec("matplotlib"):
        from benchmarks.plots import draw

        found = {theme: r["found"] for theme, r in results.items()}
        pictures = draw(found, ROOT / "docs" / "benchmarks", suffix)
    minutes = max(round(sum(r["seconds"] for r in results.values()) / 60), 1)
    (ROOT / "docs" / "benchmarks.md").write_text(write(results, pictures, minutes))


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name the themes and their cases")
    told = "these themes, or of one the cases that have the word"
    parser.add_argument("--only", nargs="+", default=[], metavar="THEME[:WORD]", help=told)
    parser.add_argument("--quick", action="store_true", help="a part, in two minutes")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0, help="of one timing")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    if args.list:
        for theme in SECTIONS:
            module = importlib.import_module(f"benchmarks.{theme}")
            cases = getattr(module, "CASES", getattr(module, "NAMES", ()))
            print(f"{theme}\n  " + "\n  ".join(cases or ("(no cases of its own)",)))
        return 0
    settings = Settings(
        args.rounds or (2 if args.quick else 3),
        args.seconds or (0.2 if args.quick else 0.7),
        args.quick,
    )
    chosen: dict[str, list[str]] = {}
    for wanted in args.only or SECTIONS:
        theme, _, word = wanted.partition(":")
        if theme not in SECTIONS:
            parser.error(f"no theme {theme!r}; there are {', '.join(SECTIONS)}")
        chosen.setdefault(theme, []).extend([word] if word else [])
    for theme, words in chosen.items():
        run(theme, words, settings, args.threads)
    if args.write:
        publish()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
