"""Random state: PyTorch's ``torch.random``."""

from __future__ import annotations

from contextlib import contextmanager

from facula.tensor.sampling import (
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)

__all__ = [
    "default_generator",
    "fork_rng",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "seed",
    "set_rng_state",
]


@contextmanager
def fork_rng(devices=None, enabled=True, device_type="cpu"):
    """Restore the random state after the block.

    >>> import facula
    >>> with fork_rng():
    ...     _ = facula.rand(3)
    """
    if not enabled:
        yield
        return
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
