"""Fourier transforms: PyTorch's ``torch.fft``, of which there is what needs no complex numbers."""

from __future__ import annotations

from facula.base.errors import UnsupportedError, fail
from facula.tensor import arange, roll

__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]


def _complex(name):
    def function(*args, **kwargs):
        fail(UnsupportedError, f"fft.{name}", "the transform of real numbers is complex, and "
             "complex numbers are not supported", "numpy.fft works on tensor.numpy()")  # fmt: skip

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Refused: complex numbers are not supported."
    return function


for _name in (
    "fft", "fft2", "fftn", "ifft", "ifft2", "ifftn", "rfft", "rfft2", "rfftn", "irfft", "irfft2",
    "irfftn", "hfft", "ihfft",
):  # fmt: skip
    globals()[_name] = _complex(_name)


def fftfreq(n, d=1.0, *, dtype=None, device=None, requires_grad=False):
    """The frequencies of a transform of ``n`` samples, ``d`` apart: positive, then negative ones.

    >>> fftfreq(4).tolist()
    [0.0, 0.25, -0.5, -0.25]
    """
    x = ifftshift(arange(n, dtype=dtype, device=device) - n // 2)
    y = x * (1.0 / (n * d)) if dtype is None or x.is_floating_point() else x / (n * d)
    return y.requires_grad_(requires_grad)


def rfftfreq(n, d=1.0, *, dtype=None, device=None, requires_grad=False):
    """The frequencies, from 0 up, of a transform of ``n`` real samples, ``d`` apart."""
    y = arange(n // 2 + 1, dtype=dtype, device=device) * (1.0 / (n * d))
    return y.requires_grad_(requires_grad)


def _dims(x, dim):
    if dim is None:
        return tuple(range(x.ndim))
    return (dim,) if isinstance(dim, int) else tuple(dim)


def fftshift(input, dim=None):  # noqa: A002
    """The zero frequency moved to the middle."""
    dims = _dims(input, dim)
    return roll(input, tuple(input.shape[d] // 2 for d in dims), dims)


def ifftshift(input, dim=None):  # noqa: A002
    """The inverse of :func:`fftshift`."""
    dims = _dims(input, dim)
    return roll(input, tuple((input.shape[d] + 1) // 2 for d in dims), dims)
