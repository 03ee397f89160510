"""The ``facula`` command.

One file a command. A command's module has ``add_arguments(parser)`` and ``run(args) -> int``
and is imported only when that command is called, so that ``facula --version`` costs nothing.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

#: Every command and the line that ``facula --help`` shows for it.
COMMANDS = {
    "demo": "train, export, check and serve a classifier of handwritten digits",
    "serve": "serve a model over HTTP (Open Inference Protocol v2)",
    "run": "run a PyTorch program, unchanged, on facula",
    "doctor": "say what this machine offers and what facula will use of it",
    "cache": "show or clear the cache of compiled kernels",
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of ``command`` alone filled in."""
    import facula

    parser = argparse.ArgumentParser(prog="facula", description=(facula.__doc__ or "").strip())
    parser.add_argument("--version", action="version", version=f"facula {facula.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        own = name == command
        module = importlib.import_module(f"facula.cli.{name}") if own else None
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=(module.__doc__ if module else summary),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status.

    A failure that a user can mend (a missing file or extra, a wrong option) is one line on
    stderr and status 1 or 2; anything else is a bug and keeps its traceback.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((a for a in argv if not a.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(argv)
        return args.run(args)
    except CommandError as error:
        print(f"facula {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (``| head``) went away; that is its right. Pointing stdout at
        # nothing keeps the interpreter from complaining once more while it shuts down.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class CommandError(Exception):
    """What went wrong, in a line for the user."""


def need_extra(extra: str, *modules: str) -> None:
    """Check that an extra's packages are installed.

    Raises:
        CommandError: one is missing; the message says how to install it.
    """
    import importlib.util

    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        raise CommandError(
            f"{', '.join(missing)} not installed; hint: pip install 'facula[{extra}]'"
        )
