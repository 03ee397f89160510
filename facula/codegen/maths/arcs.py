"""asin, acos, atan and atan2: one polynomial each, around which quadrants are put together."""

from __future__ import annotations

from facula.ir import loops as L

from .parts import (
    HALF_PI,
    PI,
    absolute,
    bits,
    constant,
    copysign,
    format_of,
    horner,
    sqrt,
)


def asin_parts(x):
    """s and w with asin|x| = s + w for |x| <= 1/2, else pi/2 - 2 (s + w); and which it is."""
    fmt = format_of(x)
    a = absolute(x)
    far = L.compare("gt", a, 0.5)
    square = L.select(far, L.fma(a, -0.5, 0.5), a * a)
    s = L.select(far, sqrt(square), a)
    return s, square * s * horner(square, fmt.table("ASIN")), far


def asin(x):
    s, w, far = asin_parts(x)
    high, low = format_of(x).split(HALF_PI)
    r = L.select(far, L.fma(s + (w - low / 2), -2.0, high), s + w)
    return copysign(r, x)


def acos(x):
    """2 asin(sqrt((1 - x) / 2)) near 1, pi less that near -1, and pi/2 - asin(x) between."""
    s, w, far = asin_parts(x)
    fmt = format_of(x)
    high, low = fmt.split(HALF_PI)
    signed_s, signed_w = copysign(s, x), copysign(w, x)
    near = high - (signed_s - (low - signed_w))
    high, low = fmt.split(PI)
    negative = L.fma(s + (w - low / 2), -2.0, high)
    return L.select(far, L.select(x < 0.0, negative, (s + w) * 2.0), near)


def atan_of_ratio(numerator, denominator):
    """atan of a ratio in [0, 1]."""
    u = numerator / denominator
    square = u * u
    return L.fma(square * u, horner(square, format_of(u).table("ATAN")), u)


def atan(x):
    a = absolute(x)
    far = L.compare("gt", a, 1.0)
    one = constant(1.0, x)
    r = atan_of_ratio(L.select(far, one, a), L.select(far, a, one))
    high, low = format_of(x).split(HALF_PI)
    return copysign(L.select(far, high - (r - low), r), x)


def atan2(y, x):
    """The angle of the point (x, y): atan of the smaller coordinate over the larger, turned."""
    fmt = format_of(x)
    a, b = absolute(x), absolute(y)
    steep = L.compare("gt", b, a)
    small, large = L.select(steep, a, b), L.select(steep, b, a)
    # Equal coordinates have the ratio 1, infinite ones too; at the origin it is 0.
    equal = small.eq(large)
    small = L.select(equal, constant(1.0, x), small)
    small = L.select(large.eq(0.0), constant(0.0, x), small)
    large = L.select(equal, constant(1.0, x), large)
    r = atan_of_ratio(small, large)
    left = bits(x) < 0
    (half_high, half_low), (pi_high, pi_low) = fmt.split(HALF_PI), fmt.split(PI)
    zero = constant(0.0, x)
    high = L.select(left, constant(pi_high, x), zero)
    low = L.select(left, constant(pi_low, x), zero)
    high = L.select(steep, constant(half_high, x), high)
    low = L.select(steep, constant(half_low, x), low)
    r = L.select(steep ^ left, -r, r)
    return copysign(high + (r + low), y)
