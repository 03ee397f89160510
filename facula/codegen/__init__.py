"""Loops to LLVM text: ``emit(kernel, target)``. Imports only ``base`` and ``ir``."""

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from facula.codegen.emit import emit
from facula.codegen.target import Target

__all__ = ["Target", "emit", "fingerprint"]


@lru_cache(None)
def fingerprint(*layers: str) -> str | None:
    """A hash of the source that decides on the text of a kernel; None if there are no files.

    Args:
        layers: further folders of the engine that decide on it, where its Loops are not known.
    """
    digest = blake2b(digest_size=16)
    engine = Path(__file__).parent.parent
    files = [f for x in ("codegen", "ir", *layers) for f in sorted((engine / x).rglob("*.py"))]
    try:
        for path in files:
            digest.update(path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest() if files else None
