"""The user's list of classes and functions that files may name beyond Facula's own."""

from __future__ import annotations

import contextlib

from facula.base.errors import ArgumentTypeError, fail

_safe: dict[str, object] = {}


def full_name(value) -> str:
    """The dotted name by which a pickle refers to a class or function."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _entry(entry) -> tuple[str, object]:
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1], entry[0]
    if not callable(entry) or not hasattr(entry, "__qualname__"):
        fail(
            ArgumentTypeError,
            "add_safe_globals",
            f"expected classes and functions, or pairs (object, name), got {entry!r}",
        )
    return full_name(entry), entry


def add_safe_globals(safe_globals) -> None:
    """Let files name these classes and functions, and thereby call them.

    Args:
        safe_globals: classes and functions, or pairs ``(object, "dotted.name")`` for what a file
            calls by another name.

    Only allow what may be called with any arguments at all: whoever wrote the file chooses them.
    """
    _safe.update([_entry(entry) for entry in safe_globals])


def get_safe_globals() -> list:
    """The classes and functions allowed so far, in the form :func:`add_safe_globals` takes."""
    return [value if name == full_name(value) else (value, name) for name, value in _safe.items()]


def clear_safe_globals() -> None:
    """Empty the list."""
    _safe.clear()


class safe_globals(contextlib.ContextDecorator):  # noqa: N801  PyTorch's name
    """Within the block, files may name these classes and functions as well.

    >>> from facula.serialization import get_safe_globals, safe_globals
    >>> from fractions import Fraction
    >>> with safe_globals([Fraction]):
    ...     print(get_safe_globals())
    [<class 'fractions.Fraction'>]
    >>> get_safe_globals()
    []
    """

    def __init__(self, safe_globals):
        self._entries = list(safe_globals)
        self._before: list[dict] = []

    def __enter__(self):
        self._before.append(dict(_safe))
        add_safe_globals(self._entries)
        return self

    def __exit__(self, *error):
        before = self._before.pop()
        _safe.clear()
        _safe.update(before)


def lookup(module: str, name: str):
    """What the list has under that name, or None."""
    return _safe.get(f"{module}.{name}")


def is_listed(value) -> bool:
    """Whether this very object is on the list."""
    return any(value is entry for entry in _safe.values())
