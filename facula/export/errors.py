"""What goes wrong while exporting a function or loading an archive."""

from __future__ import annotations

from facula.base.errors import FaculaError


class ExportError(FaculaError, RuntimeError):
    """A function that no Program without side effects stands for, and why."""


class ArchiveError(FaculaError, ValueError):
    """An archive that is damaged, of another format, or says what cannot be."""
