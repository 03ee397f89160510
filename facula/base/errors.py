"""Typed errors: the op, what is wrong, what was expected and got, then a hint.

They derive from the exception classes that PyTorch raises, so that ``except RuntimeError`` and
``except IndexError`` in existing programs keep working.
"""

from __future__ import annotations


class FaculaError(Exception):
    """The common base; never raised itself."""


class ShapeError(FaculaError, RuntimeError):
    """Sizes or ranks that do not fit together."""


class DtypeError(FaculaError, RuntimeError):
    """An element type the op does not take."""


class ArgumentError(FaculaError, ValueError):
    """An argument outside of its domain."""


class ArgumentTypeError(FaculaError, TypeError):
    """An argument of the wrong Python type."""


class DimensionError(FaculaError, IndexError):
    """A dimension number out of range."""


class IndexRangeError(FaculaError, IndexError):
    """An index, in a tensor or a subscript, outside of the dimension it selects from."""


class AutogradError(FaculaError, RuntimeError):
    """A derivative that cannot be had: freed graph, tensor changed in place, no grad."""


class CompileError(FaculaError, RuntimeError):
    """Our own generated code was refused: always a bug of the engine."""


class OutOfMemoryError(FaculaError, MemoryError, RuntimeError):
    """Storage could not be had; tells the size asked for."""


class UnsupportedError(FaculaError, NotImplementedError):
    """What is known but not built."""


def fail(kind, op: str, what: str, hint: str | None = None):
    """Raise ``kind`` with the house's wording: ``op: what; hint: ...``.

    >>> fail(ShapeError, "matmul", "inner dimensions differ: (3, 4) and (5, 6)")
    Traceback (most recent call last):
    facula.base.errors.ShapeError: matmul: inner dimensions differ: (3, 4) and (5, 6)
    """
    raise kind(f"{op}: {what}" + (f"; hint: {hint}" if hint else ""))


def wrap_dim(op: str, dim: int, ndim: int) -> int:
    """The dimension number in ``[0, ndim)``; a 0-dim tensor counts as having one dimension.

    Raises:
        DimensionError: out of range.
    """
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        fail(ArgumentTypeError, op, f"dim must be an int, got {type(dim).__name__}")
    span = max(ndim, 1)
    if not -span <= dim < span:
        fail(
            DimensionError,
            op,
            f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], "
            f"but got {dim})",
        )
    return dim + span if dim < 0 else int(dim)


class CaptureError(FaculaError, RuntimeError):
    """A function that cannot be captured as one Program, and why."""
