"""lgamma and digamma, by their asymptotic series after a shift of small arguments past 8.

Both are computed in float64, also of float32.
"""

from __future__ import annotations

import math

from facula.base.dtypes import float32, float64
from facula.ir import loops as L

from .logarithm import log
from .parts import (
    FORMATS,
    INF,
    NAN,
    absolute,
    constant,
    copysign,
    horner,
    nearest,
    polynomial,
)

SHIFT = 8
#: log(2 pi) / 2
HALF_LOG_TWO_PI = 0.91893853320467274178
#: B_2, B_4, ... as fractions.
BERNOULLI = (
    (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510),
    (43867, 798), (-174611, 330),
)  # fmt: skip
#: The series of lgamma in 1/z, 1/z^3, ..., and of digamma in 1/z^2, 1/z^4, ...
LGAMMA_SERIES = [a / (b * 2 * k * (2 * k - 1)) for k, (a, b) in enumerate(BERNOULLI, 1)]
DIGAMMA_SERIES = [-a / (b * 2 * k) for k, (a, b) in enumerate(BERNOULLI, 1)]


def in_float64(function):
    """``function`` for float32 too."""

    def widened(x):
        if x.dtype is float32:
            return L.cast(function(L.cast(x, float64)), float32)
        return function(x)

    return widened


def sinpi(x):
    """sin(pi x) for |x| <= 1/2."""
    return x * horner(x * x, FORMATS[float64].table("SINPI"))


@in_float64
def lgamma(x):
    """log|Gamma(x)|; for negative x by Gamma(-a) Gamma(a) = -pi / (a sin(pi a)).

    Between 0.7 and 2.6 it is a polynomial times its zeros 1 and 2. Arguments up to 8 are brought
    there: log Gamma(a) = log Gamma(a - k) + log((a - 1) ... (a - k)), or with k = -1 for small a.
    One logarithm serves both that product and the reflection.
    """
    a = absolute(x)
    negative, small, large = x < 0.0, a < 0.7, L.compare("ge", a, float(SHIFT))
    one = constant(1.0, x)
    base, product = L.select(small, a + 1.0, a), one
    for k in range(1, SHIFT - 1):
        down = L.compare("ge", a, 1.6 + k)
        base = L.select(down, a - float(k), base)
        product = product * L.select(down, a - float(k), one)
    zeros = (base - 1.0) * (base - 2.0)
    near = zeros * polynomial(base - 1.65, FORMATS[float64].table("LGAMMA"))

    inverse = 1.0 / a
    series = horner(inverse * inverse, LGAMMA_SERIES) * inverse
    far = L.fma(a - 0.5, log(a) - 1.0, series + (HALF_LOG_TWO_PI - 0.5))
    main = L.select(large, far, near)

    product = L.select(large, one, product)
    sine = absolute(sinpi(a - nearest(a))) * (1 / math.pi)
    reflected = L.select(small, sine, product * a * sine)
    value = log(L.select(negative, reflected, L.select(small, a, product)))
    r = main + L.select(small & ~negative, -value, value)
    r = L.select(negative, -r, r)
    return L.select(a.eq(INF) | (negative & sine.eq(0.0)), constant(INF, x), r)


@in_float64
def digamma(x):
    """The derivative of lgamma; for negative x by digamma(-a) = digamma(1 + a) + pi cot(pi a).

    The shift subtracts 1/a + 1/(a + 1) + ... + 1/(a + 7), gathered into one fraction. Negative x
    go without the first term, which is just what leads from digamma(a) to digamma(1 + a).
    """
    a = absolute(x)
    negative, shifted = x < 0.0, a < SHIFT
    zero, one = constant(0.0, x), constant(1.0, x)
    above = L.select(negative, zero, one)
    below = L.select(negative, one, a)
    for k in range(1, SHIFT):
        term = a + float(k)
        above, below = L.fma(above, term, below), below * term
    above = L.select(shifted, above, L.select(negative, -one, zero))
    below = L.select(shifted, below, a)
    z = L.select(shifted, a + float(SHIFT), a)
    inverse = 1.0 / z
    square = inverse * inverse
    series = L.fma(horner(square, DIGAMMA_SERIES), square, inverse * -0.5)
    r = log(z) + (series - above / below)
    f = a - nearest(a)
    distance = absolute(f)
    cotangent = sinpi(0.5 - distance) / sinpi(f) * math.pi
    r = L.select(negative, r + cotangent, r)
    r = L.select(negative & f.eq(0.0), constant(NAN, x), r)
    r = L.select(x.eq(0.0), copysign(constant(INF, x), -x), r)
    return L.select(x.eq(-INF), constant(NAN, x), r)
