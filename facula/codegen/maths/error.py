"""The error function, its complement and its inverse."""

from __future__ import annotations

from facula.ir import loops as L

from .exponential import exp_within
from .parts import (
    absolute,
    at_most,
    constant,
    copysign,
    format_of,
    horner,
    polynomial,
)

#: Of the variable (a - c) / (a + c) in which exp(a^2) erfc(a) (a + c) is nearly a straight line.
ERFC_CENTRE = 3.0


def erfc_positive(a):
    """erfc of ``a`` >= 0, up to where it underflows.

    exp(-a^2) has the square as a pair: its rounding would be felt a^2 times.
    """
    square = a * a
    rest = L.fma(a, a, -square)
    e = exp_within(-square, -rest)
    inverse = constant(1.0, a) / (a + ERFC_CENTRE)
    t = (a - ERFC_CENTRE) * inverse
    return e * (polynomial(t, format_of(a).table("ERFC")) * inverse)


def erf_small(x):
    """erf for |x| < 1: an odd polynomial."""
    return L.fma(polynomial(x * x, format_of(x).table("ERF")), x, x)


def erfc(x):
    a = absolute(x)
    r = erfc_positive(at_most(a, {32: 10.1, 64: 27.3}[format_of(x).bits]))
    r = L.select(x < 0.0, 2.0 - r, r)
    return L.select(a < 0.5, 1.0 - erf_small(x), r)


def erf(x):
    """One polynomial up to 1, and from there what erfc leaves of 1."""
    fmt = format_of(x)
    a = absolute(x)
    if fmt.bits == 32:
        p = horner(at_most(a, 3.92), fmt.table("ERFC_ROOT"))
        p = p * p
        large = L.fma(-p, p, 1.0)
    else:
        large = 1.0 - erfc_positive(at_most(a, 6.0))
    return copysign(L.select(a < 1.0, erf_small(x), large), x)
