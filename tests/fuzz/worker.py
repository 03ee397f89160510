"""Runs programs of ``calls`` and reports, one line each: what runs in a process of its own.

``python worker.py FIRST COUNT`` prints ``start SEED`` before and ``done SEED KIND TEXT`` after each
program; the last line without its ``done`` names the one that took the process down.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

#: Address space in bytes: huge sizes are to be refused, not to bring the machine down.
MEMORY = 8 << 30


def verdict(text, space) -> tuple[str, str]:
    """("ok" | "refused" | "fault", message) of a program."""
    from facula.base.errors import CompileError, FaculaError

    try:
        exec(compile(text, "<call>", "exec"), space)  # noqa: S102  our own programs
    except CompileError as error:
        return "fault", f"{type(error).__name__}: {error}"
    except (FaculaError, TypeError, ValueError, IndexError, MemoryError, OverflowError) as error:
        return "refused", type(error).__name__
    except RuntimeError as error:
        if type(error) is RuntimeError:
            return "refused", "RuntimeError"
        return "fault", f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001  whatever it is, it is to be reported
        return "fault", f"{type(error).__name__}: {error}"
    return "ok", ""


def main(first, count):
    from calls import program

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    for seed in range(first, first + count):
        print("start", seed, flush=True)
        with contextlib.redirect_stdout(sys.stderr):
            kind, message = verdict(program(seed), {})
        print("done", seed, kind, message.replace("\n", " ")[:300], flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
