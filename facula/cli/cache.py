"""Show or clear the cache of compiled kernels."""

from __future__ import annotations

import argparse

from facula.cli import CommandError
from facula.cli.doctor import show_bytes
from facula.runtime import cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("show", "clear"), default="show")


def run(args: argparse.Namespace) -> int:
    if cache.directory() is None:
        raise CommandError("the cache is turned off (FACULA_CACHE_DIR is empty)")
    if args.action == "clear":
        removed = cache.clear()
        print(f"removed {removed} objects from {cache.directory()}")
        return 0
    stats = cache.stats()
    print(f"folder   {cache.directory()}")
    print(f"objects  {stats['entries']}")
    print(f"size     {show_bytes(stats['bytes'])} of at most {show_bytes(stats['limit'])}")
    return 0
