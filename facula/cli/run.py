"""Run a PyTorch program, unchanged, on facula: its ``import torch`` is served by facula.

facula run train.py --epochs 3
facula run -m package.train --epochs 3
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys

from facula.cli import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", dest="module", action="store_true", help="PROGRAM names a module")
    parser.add_argument("program", metavar="PROGRAM", help="a Python file (or module with -m)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's arguments")


def run(args: argparse.Namespace) -> int:
    from facula import compat

    compat.install()
    sys.argv = [args.program, *args.arguments]
    # The import path starts as `python PROGRAM` (or `python -m`) would have it.
    if args.module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(args.program, run_name="__main__", alter_sys=True)
        return 0
    if not os.path.isfile(args.program):
        raise CommandError(f"no such file: {args.program}")
    sys.path.insert(0, os.path.dirname(os.path.abspath(args.program)))
    runpy.run_path(args.program, run_name="__main__")
    return 0
