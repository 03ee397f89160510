"""Train a classifier of handwritten digits, export it, check the export, and serve it.

The program is ``examples/digits.py``, which the wheel carries: read it, copy it, start from it.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import facula
from facula.cli import CommandError, need_extra


def load_example(name: str):
    """Import one of the example programs as a module.

    Raises:
        CommandError: this installation does not carry it.
    """
    package = Path(facula.__file__).parent
    # In a wheel the examples lie inside of the package, in a source tree beside it.
    for folder in (package / "examples", package.parent / "examples"):
        path = folder / f"{name}.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(f"facula.examples.{name}", path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            # A dataclass looks its module up by name while it is being made.
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
            return module
    raise CommandError(f"the example {name}.py is not part of this installation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    load_example("digits").add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    need_extra("demo", "sklearn", "matplotlib", "onnxruntime", "starlette", "uvicorn")
    return load_example("digits").run(args)
