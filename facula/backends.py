"""Switches of PyTorch's back ends. Programs set them; here they are noted and change nothing."""

from __future__ import annotations


class _Backend:
    """A back end of PyTorch's that this build does not have."""

    def __init__(self, **switches):
        vars(self).update(switches)

    def is_available(self) -> bool:
        """False."""
        return False

    def is_built(self) -> bool:
        """False."""
        return False


cudnn = _Backend(enabled=False, benchmark=False, deterministic=True, allow_tf32=False)
cuda = _Backend(matmul=_Backend(allow_tf32=False))
mps, mkl, mkldnn, openmp = _Backend(), _Backend(), _Backend(enabled=False), _Backend()

__all__ = ["cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
