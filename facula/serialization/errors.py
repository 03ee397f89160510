"""What can be wrong with a file: every fault of a file's content is one of these."""

from __future__ import annotations

import pickle

from facula.base.errors import FaculaError


class UnpicklingError(FaculaError, pickle.UnpicklingError):
    """The pickle in a file is damaged, or asks for something that is not on the allow list."""


class ArchiveError(FaculaError, RuntimeError):
    """A file that is no archive of ours, is cut short, or contradicts itself."""


class SafetensorError(FaculaError, ValueError):
    """A safetensors file that breaks the format, or a tensor that the format cannot hold."""
