"""The error function, its complement and its inverse."""

from __future__ import annotations

from facula.ir import loops as L

from .exponential import exp_parts, saturating
from .logarithm import log
from .parts import (
    INF,
    Scaled,
    absolute,
    copysign,
    format_of,
    polynomial,
    sqrt,
)

#: Of the variable (a - c) / (a + c) in which exp(a^2) erfc(a) (a + c) is nearly a straight line.
ERFC_CENTRE = 3.0


def erfc_positive(a):
    """erfc of ``a`` >= 0, up to where it underflows.

    exp(-a^2) has the square as a pair: its rounding would be felt a^2 times. The exponential also
    takes in what the quotient's roundings lost, since it has a low part already.
    """
    square = a * a
    rest = L.fma(a, a, -square)
    denominator = a + ERFC_CENTRE
    inverse = 1.0 / denominator
    lost = a - (denominator - ERFC_CENTRE)
    missing = L.fma(-inverse, lost, L.fma(-inverse, denominator, 1.0))
    p, n = exp_parts(-square, missing - rest)
    t = (a - ERFC_CENTRE) * inverse
    keep = ~(a >= {32: 10.055, 64: 27.2261}[format_of(a).bits])
    return Scaled(p * (polynomial(t, format_of(a).table("ERFC")) * inverse), n, keep)


def erf_excess(x):
    """erf(x) / x - 1 for |x| < 1."""
    return polynomial(x * x, format_of(x).table("ERF"))


def erfc(x):
    a = absolute(x)
    r = erfc_positive(a)
    r = L.select(x < 0.0, 2.0 - r, r)
    # The difference 1 - x rounds only where it is large.
    return L.select(a < 1.0, L.fma(-x, erf_excess(x), 1.0 - x), r)


def erf(x):
    """One polynomial up to 1, and from there what erfc leaves of 1."""
    a = absolute(x)
    large = saturating(a, "ERFC_ROOT", {32: 3.92, 64: 5.93}[format_of(x).bits])
    return copysign(L.select(a < 1.0, L.fma(erf_excess(x), x, x), large), x)


def erfinv(x):
    """x times a function of w = -log(1 - x^2), or of its root in the tails (M. Giles, 2010)."""
    fmt = format_of(x)
    split, centre, tail_centre = {32: (5.0, 1.0, 3.0), 64: (8.4, 2.0, 4.45)}[fmt.bits]
    w = -log(L.fma(-x, x, 1.0))
    near = polynomial(w - centre, fmt.table("ERFINV"))
    tail = polynomial(sqrt(w) - tail_centre, fmt.table("ERFINV_TAIL"))
    factor = L.select(w < split, near, tail)
    # log gives infinity at 1 and NaN beyond.
    return copysign(x * L.select(w.eq(INF), w, factor), x)
