"""exp, exp2, expm1, sigmoid, and the hyperbolic functions, which are made of the same parts."""

from __future__ import annotations

from facula.ir import loops as L

from .parts import (
    LN2,
    LOG2_E,
    absolute,
    at_least,
    at_most,
    bits,
    constant,
    copysign,
    format_of,
    horner,
    polynomial,
    shift_left,
)

#: exp of these and of all beyond is infinite or zero; the same for exp2.
EXP_RANGE = {32: (-104.0, 89.0), 64: (-746.0, 710.0)}
EXP2_RANGE = {32: (-151.0, 128.5), 64: (-1076.0, 1024.5)}


def nearest_power(x, per_unit, offset):
    """The integer n nearest to ``x * per_unit``, as a float, and 2^(n + k).

    ``offset`` is ``magic + bias + k``, a constant or an expression. Adding it leaves the exponent's
    bits in the low bits of the sum, and a shift brings those to their place while all other bits
    fall out. It must be that ``n + k`` is the exponent of a normal number.
    """
    fmt = format_of(x)
    shifted = L.fma(x, per_unit, offset)
    power = L.bitcast(shift_left(bits(shifted), fmt.mantissa), fmt.dtype)
    return shifted - offset, power


def wide_power(x, per_unit):
    """n as above, and two factors of 2^n, for n from below the denormals to above the largest.

    The first is a normal number throughout and the second a constant of two, by which the product
    over- or underflows with a single rounding.
    """
    fmt = format_of(x)
    deep = fmt.mantissa + 9
    is_low = x < (2 - fmt.bias + deep) / per_unit
    base = fmt.magic + fmt.bias
    offset = L.select(is_low, constant(base + deep, x), constant(base - 1, x))
    n, power = nearest_power(x, per_unit, offset)
    return n, power, L.select(is_low, constant(2.0**-deep, x), constant(2.0, x))


def remainder(x, n, low=None):
    """``x + low - n ln 2``. The product with the upper part of ln 2 cancels without rounding."""
    high_ln2, low_ln2 = format_of(x).split(LN2)
    r = L.fma(n, -low_ln2, L.fma(n, -high_ln2, x))
    return r if low is None else r + low


def exp_of_remainder(r):
    """exp(r) for |r| <= ln(2) / 2."""
    return L.fma(r, polynomial(r, (1.0, *format_of(r).table("EXP"))), 1.0)


def exp_within(x, low=None):
    """exp of ``x``, or of the pair of it and ``low``, within EXP_RANGE."""
    n, power, rest = wide_power(x, format_of(x).round(LOG2_E))
    return exp_of_remainder(remainder(x, n, low)) * power * rest


def exp(x):
    low, high = EXP_RANGE[format_of(x).bits]
    return exp_within(at_least(at_most(x, high), low))


def exp2(x):
    fmt = format_of(x)
    low, high = EXP2_RANGE[fmt.bits]
    x = at_least(at_most(x, high), low)
    n, power, rest = wide_power(x, 1.0)
    r = x - n
    return L.fma(r, polynomial(r, fmt.table("EXP2")), 1.0) * power * rest


def sigmoid(x):
    """1 / (1 + exp(-x)); for negative x as exp(x) / (1 + exp(x)), which does not overflow.

    exp(-|x|) = s + u s with s = 2^n. Both sums are taken from these parts, so that neither inherits
    a rounding of the other, and most of what the denominator's rounding would cost the numerator
    makes good: relative to 1 it is between 1/2 and 1 of what was lost.
    """
    fmt = format_of(x)
    y = at_least(-absolute(x), EXP_RANGE[fmt.bits][0])
    # All exponents are negative: lifted by a constant they are normal.
    lift = fmt.mantissa + 1
    n, power = nearest_power(y, fmt.round(LOG2_E), fmt.magic + fmt.bias + lift)
    s = power * 2.0**-lift
    r = remainder(y, n)
    u = r * polynomial(r, (1.0, *fmt.table("EXP")))
    us, whole = u * s, s + 1.0
    denominator = whole + us
    lost = us - (denominator - whole)
    numerator = L.fma(L.fma(lost, -0.8, u), s, s)
    return L.select(x < 0.0, numerator, constant(1.0, x)) / denominator


def expm1_parts(x, keep=0):
    """p and 2^(n - keep) with exp(x) = (1 + p) 2^n, |p| < 0.42, n an integer."""
    fmt = format_of(x)
    n, power = nearest_power(x, fmt.round(LOG2_E), fmt.magic + fmt.bias - keep)
    r = remainder(x, n)
    square = r * r
    return L.fma(square, polynomial(r, fmt.table("EXPM1"), square), r), power


def expm1(x):
    fmt = format_of(x)
    low = -(fmt.mantissa + 3) * fmt.round(LN2)
    clamped = at_least(at_most(x, EXP_RANGE[fmt.bits][1]), low)
    # One factor of two is kept back: at the upper end 2^n alone would overflow.
    p, half = expm1_parts(clamped, keep=1)
    result = L.fma(p, half, half - 0.5) * 2.0
    return L.select(absolute(x) < fmt.epsilon / 4, x, result)


def saturating(a, table, top):
    """1 - p(a)^4, where p is a polynomial for a <= ``top``.

    The fourth root of what is missing to 1 is so flat that a short polynomial meets it, and the
    errors of that hardly show in the result.
    """
    p = horner(at_most(a, top), format_of(a).table(table))
    p = p * p
    return L.fma(-p, p, 1.0)


def tanh(x):
    """An odd polynomial near 0 and what is missing to 1 elsewhere."""
    fmt = format_of(x)
    square = x * x
    a = absolute(x)
    small = L.fma(square * x, horner(square, fmt.table("TANH")), x)
    if fmt.bits == 32:
        split, large = 1.375, saturating(a, "TANH_ROOT", 9.02)
    else:
        # 2 / (exp(2 |x|) + 1); beyond 20 the result rounds to 1.
        y = at_most(a + a, 40.0)
        n, power = nearest_power(y, fmt.round(LOG2_E), fmt.magic + fmt.bias)
        e = exp_of_remainder(remainder(y, n)) * power
        split, large = 0.55, 1.0 - constant(2.0, x) / (e + 1.0)
    return copysign(L.select(a < split, small, large), x)


def sinh_and_cosh(x):
    """Halves of sinh |x| and cosh |x|, of parts that do not overflow before the result does.

    |x| = n ln 2 + r, and the addition theorems: sinh and cosh of n ln 2 are sums of two powers of
    two, those of r are short polynomials.
    """
    fmt = format_of(x)
    y = at_most(absolute(x), {32: 89.6, 64: 710.7}[fmt.bits])
    n, power = nearest_power(y, fmt.round(LOG2_E), fmt.magic + fmt.bias - 2)
    # 2^(-n - 2), or zero where that would be denormal.
    field = L.Const(2 * (fmt.bias - 2) << fmt.mantissa, fmt.integer) - bits(power)
    field = L.select(field < 0, L.Const(0, fmt.integer), field)
    inverse = L.bitcast(field, fmt.dtype)
    r = remainder(y, n)
    square = r * r
    sinh_r = L.fma(square * r, polynomial(square, fmt.table("SINH")), r)
    cosh_r = square * polynomial(square, fmt.table("COSH"))  # less 1
    sinh_n, cosh_n = power - inverse, power + inverse
    return (
        L.fma(sinh_r, cosh_n, cosh_r * sinh_n) + sinh_n,
        L.fma(sinh_r, sinh_n, cosh_r * cosh_n) + cosh_n,
    )


def sinh(x):
    half, _ = sinh_and_cosh(x)
    tiny = absolute(x) < format_of(x).epsilon / 4
    return copysign(L.select(tiny, x, half * 2.0), x)


def cosh(x):
    _, half = sinh_and_cosh(x)
    return half * 2.0
