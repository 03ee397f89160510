"""Show or clear the cache of compiled kernels."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("show", "clear"), default="show")


def run(args: argparse.Namespace) -> int:
    from facula.runtime import cache

    if args.action == "clear":
        removed = cache.clear()
        print(f"removed {removed} objects from {cache.directory()}")
        return 0
    stats = cache.stats()
    print(f"folder   {cache.directory()}")
    print(f"objects  {stats['entries']}")
    print(f"size     {stats['bytes'] / 2**20:.1f} MiB of at most {stats['limit'] / 2**20:.0f} MiB")
    return 0
