"""Settings that hold for the whole process, read from the environment at first."""

from __future__ import annotations

import os


def flag(name: str, default: bool = False) -> bool:
    """Whether an environment variable is set to something true."""
    value = os.environ.get(name)
    return default if value is None else value.lower() not in ("", "0", "false", "no")


#: Verify every Program and Kernel after each pass (slow; on in the tests).
VERIFY = flag("FACULA_VERIFY")

#: Let convolutions take Winograd's algorithm: ``facula.backends.cpu.winograd`` sets it.
WINOGRAD = flag("FACULA_WINOGRAD", True)

#: Bytes that one captured function may keep of constants: ``facula.backends.cpu.kept`` sets it.
KEPT = int(os.environ.get("FACULA_KEPT", 1 << 30))
