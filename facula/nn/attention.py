"""Which kernel computes ``scaled_dot_product_attention``: there is one, whatever is asked for."""

from contextlib import contextmanager
from enum import IntEnum

from facula.base.errors import ArgumentError, fail

__all__ = ["SDPBackend", "sdpa_kernel"]


class SDPBackend(IntEnum):
    """PyTorch's names of kernels."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends, set_priority=False):
    """A block in which these kernels are preferred; the result is the same with each.

    >>> with sdpa_kernel(SDPBackend.MATH):
    ...     pass
    """
    given = backends if isinstance(backends, (list, tuple)) else [backends]
    if not all(isinstance(b, SDPBackend) for b in given):
        fail(ArgumentError, "sdpa_kernel", f"expected SDPBackend or a list of them, got {backends}")
    yield {}
