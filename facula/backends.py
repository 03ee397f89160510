"""Switches of back ends: those of this one, and PyTorch's, which are noted and change nothing."""

from __future__ import annotations

from facula.base import config
from facula.base.errors import ArgumentTypeError, fail
from facula.eager import dispatch


class _Processor:
    """The back end that there is.

    Attributes:
        winograd: whether convolutions of 3 x 3 or 2 x 2 taps with stride 1 may be computed by
            Winograd's algorithm, in float32 and narrower dtypes: twice as fast, and sums have
            about three times the rounding error (docs/design/decisions.md). True at first, or what
            the environment's ``FACULA_WINOGRAD`` says. Functions captured before keep theirs.
        kept: bytes that one captured function may keep between calls, of what it computes of
            parameters and buffers alone: packed weights, above all. 0: nothing is kept. A
            gibibyte at first, or what ``FACULA_KEPT`` says. Functions captured before keep theirs.
    """

    @property
    def kept(self) -> int:
        return config.KEPT

    @kept.setter
    def kept(self, value):
        if type(value) is not int or value < 0:
            fail(ArgumentTypeError, "backends.cpu.kept", f"expected bytes, got {value!r}")
        config.KEPT = value

    @property
    def winograd(self) -> bool:
        return config.WINOGRAD

    @winograd.setter
    def winograd(self, value):
        if not isinstance(value, bool):
            got = type(value).__name__
            fail(ArgumentTypeError, "backends.cpu.winograd", f"expected a bool, got {got}")
        if value != config.WINOGRAD:
            config.WINOGRAD = value
            dispatch.forget_all()  # Plans hold the kernels that were chosen.


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


cpu = _Processor()
cudnn = _Backend(enabled=False, benchmark=False, deterministic=True, allow_tf32=False)
cuda = _Backend(matmul=_Backend(allow_tf32=False))
mps, mkl, mkldnn, openmp = _Backend(), _Backend(), _Backend(enabled=False), _Backend()

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
