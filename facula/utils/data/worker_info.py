"""Which worker this is, for datasets that divide their work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WorkerInfo:
    """A worker's own view of itself; see :func:`get_worker_info`.

    Attributes:
        id: this worker's number, from 0.
        num_workers: how many there are.
        seed: what this worker's random generators were seeded with: a seed drawn for the loader
            plus the worker's number.
        dataset: this worker's copy of the dataset.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a :class:`DataLoader`: which one this is. Elsewhere: None."""
    return _info


def set_worker_info(info: WorkerInfo) -> None:
    """Make this process a worker; called once, when it starts."""
    global _info
    _info = info
