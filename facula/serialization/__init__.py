"""Tensors in files: ``save`` and ``load`` in PyTorch's format, and :mod:`.safetensors`."""

from facula.serialization._io import load, save
from facula.serialization._safe import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)
from facula.serialization.errors import ArchiveError, SafetensorError, UnpicklingError

__all__ = [
    "ArchiveError",
    "SafetensorError",
    "UnpicklingError",
    "add_safe_globals",
    "clear_safe_globals",
    "get_safe_globals",
    "load",
    "safe_globals",
    "save",
]
