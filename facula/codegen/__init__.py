"""Loops to LLVM text: ``emit(kernel, target)``. Imports only ``base`` and ``ir``."""

from facula.codegen.emit import emit
from facula.codegen.target import Target

__all__ = ["Target", "emit"]
