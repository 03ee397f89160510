"""Bounds on what one client may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Every bound is a positive number.

    Raises:
        ValueError: one is not.
    """

    #: Largest request body; beyond it the answer is 413.
    body_bytes: int = 64 << 20
    #: Most seconds that a client may take to send its body; beyond it the answer is 408.
    body_seconds: float = 30.0
    #: Largest first dimension of an input, and most elements of all inputs together.
    batch: int = 4096
    elements: int = 16 << 20
    #: Threads that run models. A kernel spreads over the cores by itself: few are enough.
    workers: int = 2
    #: Requests that may be running or waiting; beyond them the answer is 503.
    pending: int = 128

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"limits: {field.name} must be positive, got {value!r}")
