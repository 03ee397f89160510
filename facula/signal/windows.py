"""Windows of ``M`` samples: PyTorch's ``torch.signal.windows``.

``sym`` False gives the first ``M`` samples of a symmetric window of ``M + 1``, for spectral
analysis. Source: Harris, "On the use of windows for harmonic analysis with the discrete Fourier
transform" (1978).
"""

from __future__ import annotations

import math

from facula.base.dtypes import float64, get_default_dtype
from facula.base.errors import ArgumentError, fail
from facula.tensor import arange, full, strided, zeros

__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]


def _window(name, M, sym, shape, dtype, requires_grad, layout=None):  # noqa: N803
    """``shape(n, last)`` of the positions ``n`` (float64) and that of the last sample."""
    if M < 0:
        fail(ArgumentError, name, f"requires non-negative window length, got M={M}")
    if layout is not None and layout is not strided:
        fail(ArgumentError, name, f"is implemented for strided tensors only, got: {layout}")
    dtype = get_default_dtype() if dtype is None else dtype
    if dtype.name not in ("float32", "float64"):
        fail(ArgumentError, name, f"expects float32 or float64 dtypes, got: {dtype}")
    if M == 0:
        x = zeros(0, dtype=dtype)
    elif M == 1:
        x = full((1,), 1.0, dtype=dtype)
    else:
        x = shape(arange(M, dtype=float64), M - 1 if sym else M).to(dtype)
    return x.requires_grad_(requires_grad)


def general_cosine(M, *, a, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """Sums of cosines with the weights ``a``, of alternating sign."""
    if not a:
        fail(ArgumentError, "general_cosine", "Coefficients cannot be empty")

    def shape(n, last):
        return sum((-1) ** k * w * (n * (2 * math.pi * k / last)).cos() for k, w in enumerate(a))

    return _window("general_cosine", M, sym, shape, dtype, requires_grad, layout)


def general_hamming(
    M,
    *,
    alpha=0.54,
    sym=True,
    dtype=None,
    layout=None,
    device=None,
    requires_grad=False,  # noqa: N803
):
    """``alpha - (1 - alpha) cos``."""
    return general_cosine(
        M, a=[alpha, 1.0 - alpha], sym=sym, dtype=dtype, requires_grad=requires_grad, layout=layout
    )


def hamming(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """Hamming's window."""
    return general_hamming(M, sym=sym, dtype=dtype, requires_grad=requires_grad, layout=layout)


def hann(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """Hann's window.

    >>> hann(5).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return general_hamming(
        M, alpha=0.5, sym=sym, dtype=dtype, requires_grad=requires_grad, layout=layout
    )


def blackman(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """Blackman's window."""
    return general_cosine(
        M, a=[0.42, 0.5, 0.08], sym=sym, dtype=dtype, requires_grad=requires_grad, layout=layout
    )


def nuttall(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """The least 4-term window of Blackman and Harris, after Nuttall."""
    a = [0.3635819, 0.4891775, 0.1365995, 0.0106411]
    return general_cosine(M, a=a, sym=sym, dtype=dtype, requires_grad=requires_grad, layout=layout)


def bartlett(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """A triangle."""
    return _window(
        "bartlett",
        M,
        sym,
        lambda n, last: 1 - (n * (2 / last) - 1).abs(),
        dtype,
        requires_grad,
        layout,
    )


def cosine(M, *, sym=True, dtype=None, layout=None, device=None, requires_grad=False):  # noqa: N803
    """Half a period of a sine."""
    return _window(
        "cosine",
        M,
        sym,
        lambda n, last: ((n + 0.5) * (math.pi / (last + 1))).sin(),
        dtype,
        requires_grad,
        layout,
    )


def gaussian(
    M,
    *,
    std=1.0,
    sym=True,
    dtype=None,
    layout=None,
    device=None,
    requires_grad=False,  # noqa: N803
):
    """Gauss's bell with the standard deviation ``std`` in samples."""
    if std <= 0:
        fail(ArgumentError, "gaussian", f"Standard deviation must be positive, got: {std} instead.")
    return _window(
        "gaussian",
        M,
        sym,
        lambda n, last: (-0.5 * ((n - last / 2) / std) ** 2).exp(),
        dtype,
        requires_grad,
        layout,
    )


def exponential(
    M, *, center=None, tau=1.0, sym=True, dtype=None, layout=None, device=None,  # noqa: N803
    requires_grad=False,
):  # fmt: skip
    """A decay on either side of ``center`` (the middle; symmetric windows have no other)."""
    if tau <= 0:
        fail(ArgumentError, "exponential", f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        fail(ArgumentError, "exponential", "Center must be None for symmetric windows")

    def shape(n, last):
        middle = last / 2 if center is None else center
        return (-(n - middle).abs() / tau).exp()

    return _window("exponential", M, sym, shape, dtype, requires_grad, layout)


def kaiser(
    M,
    *,
    beta=12.0,
    sym=True,
    dtype=None,
    layout=None,
    device=None,
    requires_grad=False,  # noqa: N803
):
    """Kaiser's window: ``I0(beta sqrt(1 - r**2)) / I0(beta)``."""
    if beta < 0:
        fail(ArgumentError, "kaiser", f"beta must be non-negative, got: {beta} instead.")

    def shape(n, last):
        r = n * (2 / last) - 1
        return _bessel(beta * (1 - r * r).clamp(0.0).sqrt()) / _bessel(
            full((), beta, dtype=float64)
        )

    return _window("kaiser", M, sym, shape, dtype, requires_grad, layout)


def _bessel(x):
    """The modified Bessel function of order 0, by its series: enough terms for |x| < 60."""
    quarter, term, total = x * x / 4, x * 0 + 1, x * 0 + 1
    for k in range(1, 90):
        term = term * quarter / (k * k)
        total = total + term
    return total


# PyTorch's older functions, periodic by default ---------------------------------------------------


def _older(function, **fixed):
    def window(
        window_length, periodic=True, *, dtype=None, layout=None, device=None, requires_grad=False,
        **named,
    ):  # fmt: skip
        return function(
            window_length,
            sym=not periodic,
            dtype=dtype,
            requires_grad=requires_grad,
            layout=layout,
            **fixed,
            **named,
        )

    window.__name__ = window.__qualname__ = function.__name__ + "_window"
    window.__doc__ = f"{function.__doc__.splitlines()[0]} ``periodic`` is the opposite of ``sym``."
    return window


hann_window, bartlett_window, blackman_window = _older(hann), _older(bartlett), _older(blackman)


def hamming_window(window_length, periodic=True, alpha=0.54, beta=0.46, *, dtype=None, layout=None,
                   device=None, requires_grad=False):  # fmt: skip
    """``alpha - beta cos``, periodic by default."""
    return general_cosine(window_length, a=[alpha, beta], sym=not periodic, dtype=dtype,
                          requires_grad=requires_grad, layout=layout)  # fmt: skip


def kaiser_window(window_length, periodic=True, beta=12.0, *, dtype=None, layout=None, device=None,
                  requires_grad=False):  # fmt: skip
    """Kaiser's window, periodic by default."""
    return kaiser(
        window_length,
        beta=beta,
        sym=not periodic,
        dtype=dtype,
        requires_grad=requires_grad,
        layout=layout,
    )
