"""What goes wrong while writing or reading ONNX."""

from __future__ import annotations

import importlib

from facula.base.errors import FaculaError, UnsupportedError, fail


class OnnxError(FaculaError, RuntimeError):
    """A program that cannot be written as ONNX, or a file that is none."""


class MissingExtra(FaculaError, ImportError):
    """A package that an optional part needs; names the extra."""


def need_onnx():
    """The ``onnx`` package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "onnx: the package onnx is not installed; hint: pip install 'facula[onnx]'"
        ) from error


def unsupported(what: str, hint: str | None = None):
    """Raise for what is known but has no counterpart."""
    fail(UnsupportedError, "onnx", what, hint)
