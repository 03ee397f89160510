"""GPUs by CUDA, of which this build has none: PyTorch's ``torch.cuda`` as on a CPU build."""

from __future__ import annotations

from facula.base.errors import UnsupportedError, fail

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "init",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "memory_allocated",
    "max_memory_allocated",
    "set_device",
    "synchronize",
]


def is_available() -> bool:
    """False."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def is_bf16_supported() -> bool:
    """False."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: there is no such random state."""


def manual_seed_all(seed: int) -> None:
    """Nothing: there is no such random state."""


def empty_cache() -> None:
    """Nothing: there is no such memory."""


def memory_allocated(device=None) -> int:
    """0."""
    return 0


def max_memory_allocated(device=None) -> int:
    """0."""
    return 0


def _refuse(name):
    fail(UnsupportedError, f"cuda.{name}", "this build has no CUDA device",
         "ask cuda.is_available() first")  # fmt: skip


def init() -> None:
    """Refused: there is no device."""
    _refuse("init")


def current_device() -> int:
    """Refused: there is no device."""
    return _refuse("current_device")


def set_device(device) -> None:
    """Refused: there is no device."""
    _refuse("set_device")


def synchronize(device=None) -> None:
    """Refused: there is no device."""
    _refuse("synchronize")
