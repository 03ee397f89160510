"""fmod: long division in a large base, exact for every pair of numbers.

With x = m 2^i and y = d 2^j, 1 <= m, d < 2, the remainder is (m 2^(i - j) mod d) 2^j. The power is
taken up in steps of 2^k: each multiplies what is left by 2^k, exactly, and subtracts the nearest
multiple of d, also exactly, since what is left again is a multiple of d's last place below d. That
nearest multiple may be off by one in the sixteenth decides nothing: only the last step's sign does.
"""

from __future__ import annotations

from facula.ir import loops as L

from .logarithm import normalised
from .parts import (
    INF,
    NAN,
    Rarely,
    absolute,
    bits,
    constant,
    copysign,
    format_of,
    nearest,
    power_of_two,
    shift_right,
)


def mantissa_and_exponent(a):
    """m in [1, 2) and the integer i, as a float, with a = m 2^i; a > 0, denormal or not."""
    fmt = format_of(a)
    scaled, unscale = normalised(a)
    word = bits(scaled)
    exponent = unscale(L.cast(shift_right(word, fmt.mantissa) - fmt.bias, fmt.dtype))
    ones = fmt.bias << fmt.mantissa
    return L.bitcast(word & ((1 << fmt.mantissa) - 1) | ones, fmt.dtype), exponent


def times_power(x, exponent):
    """x 2^n for an integral float n down to where denormals end, with no rounding before."""
    fmt = format_of(x)
    n = L.cast(exponent, fmt.integer)
    half = shift_right(n, 1)
    return x * power_of_two(half, fmt) * power_of_two(n - half, fmt)


def fmod(x, y):
    """One division where the quotient is exact but for the last unit, long division elsewhere."""
    a, b = absolute(x), absolute(y)
    r = L.fma(-L.unary("trunc", a / b), b, a)
    r = L.select(r < 0.0, r + b, r)
    close = a < b * 2.0 ** (format_of(x).mantissa - 2)
    r = copysign(L.select(a < b, a, r), x)
    return Rarely(~close, long_division(x, y), r)


def long_division(x, y):
    fmt = format_of(x)
    a, b = absolute(x), absolute(y)
    digits = fmt.mantissa - 5
    widest = 2 * fmt.bias + fmt.mantissa
    steps = widest // digits
    m, i = mantissa_and_exponent(a)
    d, j = mantissa_and_exponent(b)
    # Zero, infinite and NaN operands yield exponents that are wrong but still bounded.
    difference = i - j
    difference = L.select(difference < 0.0, constant(0.0, x), difference)
    whole = L.unary("floor", (difference + 0.5) * (1.0 / digits))
    first = L.cast(difference - whole * float(digits), fmt.integer)
    inverse = 1.0 / d

    def reduce(r):
        return L.fma(-nearest(r * inverse), d, r)

    r = reduce(m * power_of_two(first, fmt))
    one, base = constant(1.0, x), constant(2.0**digits, x)
    for step in range(steps):
        r = reduce(r * L.select(L.compare("gt", whole, float(step)), base, one))
    r = times_power(L.select(r < 0.0, r + d, r), j)
    r = copysign(L.select(a < b, a, r), x)
    return L.select((a < INF) & L.compare("gt", b, 0.0) & b.eq(b), r, constant(NAN, x))
