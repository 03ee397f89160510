"""The processor: PyTorch's ``torch.cpu``, and the memory of tensors."""

from __future__ import annotations

from contextlib import contextmanager

from facula.runtime.storage import (
    empty_cache,
    memory_stats,
    reset_peak_memory_stats,
    set_cache_limit,
)

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "is_available",
    "max_memory_allocated",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "set_cache_limit",
    "set_device",
    "stream",
    "synchronize",
]


def is_available() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1: all processors together are one device."""
    return 1


def current_device() -> str:
    """Always "cpu"."""
    return "cpu"


def set_device(device) -> None:
    """Accepted for PyTorch's sake: there is one."""


def synchronize(device=None) -> None:
    """Nothing: every op is done when it returns."""


@contextmanager
def stream(stream):
    """Accepted for PyTorch's sake: a block that changes nothing."""
    yield


def memory_allocated() -> int:
    """Bytes in use by tensors."""
    return memory_stats()["allocated_bytes.all.current"]


def max_memory_allocated() -> int:
    """The most bytes that tensors have used at once, since the peak was reset."""
    return memory_stats()["allocated_bytes.all.peak"]


def memory_reserved() -> int:
    """Bytes in use or kept for reuse."""
    return memory_stats()["reserved_bytes.all.current"]
