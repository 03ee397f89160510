"""log, log2, log10, log1p, and the inverse hyperbolic functions, which are logarithms of sums."""

from __future__ import annotations

from facula.ir import loops as L

from .parts import (
    INF,
    LN2,
    LOG2_E,
    LOG10_2,
    LOG10_E,
    NAN,
    ONE,
    Rarely,
    absolute,
    at_least,
    bits,
    constant,
    copysign,
    exact_product,
    exact_sum,
    format_of,
    is_normal,
    pair_quotient,
    polynomial,
    shift_left,
    shift_right,
    sqrt,
)

#: Bits of sqrt(0.5), by the size of the format: mantissas are taken from there to sqrt(2).
SQRT_HALF = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}


def split_exponent(x):
    """Integer e and mantissa m in [sqrt(0.5), sqrt(2)) with x = m 2^e, for normal x > 0."""
    fmt = format_of(x)
    word = bits(x)
    e = shift_right(word - SQRT_HALF[fmt.bits], fmt.mantissa)
    return e, L.bitcast(word - shift_left(e, fmt.mantissa), fmt.dtype)


def normalised(x):
    """``x`` with denormals brought into the normal range, and how to take that out of exponents."""
    fmt = format_of(x)
    small = x < fmt.smallest_normal
    shift = float(fmt.mantissa + 1)
    return L.select(small, x * 2.0**shift, x), lambda e: L.select(small, e - shift, e)


def with_special(x, result):
    """The values at and beyond the ends of the domain: log(0), negative ones, infinity, NaN."""
    edge = L.select(x.eq(0.0), constant(-INF, x), constant(NAN, x))
    result = L.select(L.compare("gt", x, 0.0), result, edge)
    return L.select(x.eq(INF), x, result)


def logarithm(x, table, unit, per_octave):
    """log(x) in any base: ``unit`` is the logarithm of e in it, ``per_octave`` that of 2."""
    fmt = format_of(x)

    def of_normal(x, unscale=lambda e: e):
        e, m = split_exponent(x)
        e = unscale(L.cast(e, fmt.dtype))
        t = m - 1.0
        square = t * t
        p = polynomial(t, fmt.table(table), square)
        (high, low), (e_high, e_low) = fmt.split(unit), fmt.split(per_octave)
        if high == 1.0:
            # Natural logarithm: the term t itself is exact.
            return L.fma(e, e_high, t + L.fma(square, p, e * e_low))
        y = L.fma(square, p, t * low)
        y = y if e_low == 0.0 else L.fma(e, e_low, y)
        return L.fma(e, e_high, L.fma(t, high, y))

    rest = with_special(x, of_normal(*normalised(x)))
    return Rarely(~is_normal(x), rest, of_normal(x))


def log(x):
    return logarithm(x, "LOG", ONE, LN2)


def log2(x):
    return logarithm(x, "LOG2", LOG2_E, ONE)


def log10(x):
    return logarithm(x, "LOG10", LOG10_E, LOG10_2)


def log_of_sum(u, low, octaves=0.0):
    """``log(u + low) + octaves * log(2)`` for normal ``u`` and a much smaller ``low``.

    Near 1 the result keeps the relative precision of ``u - 1 + low``.
    """
    fmt = format_of(u)
    e, m = split_exponent(u)
    # 2^-e, or zero at the largest e, where ``low`` does not count.
    bounded = L.select(e < fmt.bias, e, L.Const(fmt.bias, fmt.integer))
    unscale = L.bitcast(shift_left(fmt.bias - bounded, fmt.mantissa), fmt.dtype)
    t = L.fma(low, unscale, m - 1.0)
    e = L.cast(e, fmt.dtype) + octaves
    e_high, e_low = fmt.split(LN2)
    square = t * t
    p = L.fma(square, polynomial(t, fmt.table("LOG"), square), e * e_low)
    return L.fma(e, e_high, t + p)


def log1p(x):
    """log of the sum 1 + x, taken exactly as a pair."""
    result = log_of_sum(*exact_sum(x, constant(1.0, x)))
    result = L.select(x.eq(-1.0), constant(-INF, x), copysign(result, x))
    result = L.select(x < -1.0, constant(NAN, x), result)
    return L.select(x < INF, result, x)


def root_of_pair(high, low):
    """The square root of a pair >= 0 as a pair."""
    fmt = format_of(high)
    s = sqrt(high)
    rest = L.fma(-s, s, high) + low
    # The bound keeps zero from being divided by zero.
    return s, rest * (0.5 / at_least(s, fmt.smallest_normal))


def log_with_root(a, sign):
    """log(a + sqrt(a^2 + sign)) for a >= 0, with the sum as a pair."""
    high, low = exact_product(a, a)
    total, rest = exact_sum(high, constant(sign, a))
    root, root_low = root_of_pair(total, rest + low)
    u, u_low = exact_sum(a, root)
    # Far out the root is a, and a^2 may overflow. Halves throughout leave room for a + a.
    big = L.compare("gt", a, 2.0 ** (format_of(a).mantissa // 2 + 4))
    u = L.select(big, a, u * 0.5)
    u_low = L.select(big, constant(0.0, a), (u_low + root_low) * 0.5)
    return log_of_sum(u, u_low, octaves=1.0)


def asinh(x):
    a = absolute(x)
    r = copysign(log_with_root(a, 1.0), x)
    # x itself where its square vanishes beside 1, and at infinity and NaN.
    inner = (a < INF) & L.compare("gt", a, format_of(x).epsilon)
    return L.select(inner, r, x)


def acosh(x):
    r = L.select(x < INF, log_with_root(x, -1.0), x)
    return L.select(x < 1.0, constant(NAN, x), r)


def atanh(x):
    """Half the logarithm of (1 + |x|) / (1 - |x|), the quotient as a pair."""
    a = absolute(x)
    one = constant(1.0, x)
    r = log_of_sum(*pair_quotient(exact_sum(a, one), exact_sum(-a, one))) * 0.5
    r = L.select(a < 1.0, r, L.select(a.eq(1.0), constant(INF, x), constant(NAN, x)))
    return copysign(r, x)
