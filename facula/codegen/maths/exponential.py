"""exp, exp2, expm1, sigmoid, and the hyperbolic functions, which are made of the same parts."""

from __future__ import annotations

from facula.ir import loops as L

from .parts import (
    LN2,
    LOG2_E,
    Scaled,
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
EXP_RANGE = {32: (-104.7, 89.0), 64: (-746.0, 710.0)}
EXP2_RANGE = {32: (-151.0, 128.5), 64: (-1076.0, 1024.5)}


def nearest_power(x, per_unit, shift):
    """The integer n nearest to ``x * per_unit``, as a float, and 2^(n + shift).

    Adding ``magic + bias + shift`` leaves the exponent's bits in the low bits of the sum, and a
    shift brings those to their place while all other bits fall out. ``n + shift`` must be the
    exponent of a normal number.
    """
    fmt = format_of(x)
    offset = fmt.magic + fmt.bias + shift
    shifted = L.fma(x, per_unit, offset)
    power = L.bitcast(shift_left(bits(shifted), fmt.mantissa), fmt.dtype)
    return shifted - offset, power


def reduced(x, shift=0):
    """r and 2^(n + shift) with ``x = r + n ln 2`` and |r| <= ln(2) / 2.

    The product of n and the upper part of ln 2 cancels without rounding.
    """
    fmt = format_of(x)
    n, power = nearest_power(x, fmt.round(LOG2_E), shift)
    high_ln2, low_ln2 = fmt.split(LN2)
    return L.fma(n, -low_ln2, L.fma(n, -high_ln2, x)), power


def exp_parts(x, low=None):
    """p and n with ``exp(x + low) = p 2^n``, p around 1, as floats."""
    fmt = format_of(x)
    n = L.fma(x, fmt.round(LOG2_E), fmt.magic) - fmt.magic
    high_ln2, low_ln2 = fmt.split(LN2)
    r = L.fma(n, -low_ln2, L.fma(n, -high_ln2, x))
    r = r if low is None else r + low
    return L.fma(r, polynomial(r, (1.0, *fmt.table("EXP"))), 1.0), n


def exp(x):
    lowest, highest = EXP_RANGE[format_of(x).bits]
    return Scaled(*exp_parts(at_most(x, highest)), ~(x <= lowest))


def exp2(x, low=None):
    """2^(x + low)."""
    fmt = format_of(x)
    lowest, highest = EXP2_RANGE[fmt.bits]
    keep, x = ~(x <= lowest), at_most(x, highest)
    n = x + fmt.magic - fmt.magic
    r = x - n
    r = r if low is None else r + low
    return Scaled(L.fma(r, polynomial(r, fmt.table("EXP2")), 1.0), n, keep)


def sigmoid(x):
    """1 / (1 + exp(-x)); for negative x as exp(x) / (1 + exp(x)), which does not overflow.

    exp(-|x|) = s + u s with s = 2^n. Both sums are taken from these parts, so that neither inherits
    a rounding of the other, and most of what the denominator's rounding would cost the numerator
    makes good: relative to 1 it is between 1/2 and 1 of what was lost.
    """
    fmt = format_of(x)
    lift = fmt.mantissa + 1
    # The power for the lowest argument is zero.
    r, power = reduced(at_least(-absolute(x), EXP_RANGE[fmt.bits][0]), lift)
    s = power * 2.0**-lift
    u = r * polynomial(r, (1.0, *fmt.table("EXP")))
    us, whole = u * s, s + 1.0
    denominator = whole + us
    lost = us - (denominator - whole)
    numerator = L.fma(L.fma(lost, -0.8, u), s, s)
    return L.select(x < 0.0, numerator, constant(1.0, x)) / denominator


def expm1(x):
    """2^n (1 + p) - 1 with p = expm1(r), both terms halved: at the upper end 2^n overflows."""
    fmt = format_of(x)
    low = -(fmt.mantissa + 3) * fmt.round(LN2)
    r, half = reduced(at_least(at_most(x, EXP_RANGE[fmt.bits][1]), low), -1)
    square = r * r
    p = L.fma(square, horner(r, fmt.table("EXPM1")), r)
    result = L.fma(p, half, half - 0.5) * 2.0
    return L.select(absolute(x) < fmt.epsilon / 4, x, result)


def saturating(a, table, top):
    """1 - p(a)^4, where p is a polynomial for a <= ``top``.

    The fourth root of what is missing to 1 is so flat that a short polynomial meets it, and the
    errors of that hardly show in the result.
    """
    p = polynomial(at_most(a, top), format_of(a).table(table))
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
        e = Scaled(*exp_parts(at_most(a + a, 40.0)))
        split, large = 0.55, 1.0 - constant(2.0, x) / (e + 1.0)
    return copysign(L.select(a < split, small, large), x)


def sinh_and_cosh(x):
    """Halves of sinh |x| and cosh |x|, of parts that do not overflow before the result does.

    |x| = n ln 2 + r, and the addition theorems: sinh and cosh of n ln 2 are sums of two powers of
    two, those of r are short polynomials.
    """
    fmt = format_of(x)
    y = at_most(absolute(x), {32: 89.6, 64: 710.7}[fmt.bits])
    r, power = reduced(y, -2)
    # 2^(-n - 2), or zero where that would be denormal.
    field = L.Const(2 * (fmt.bias - 2) << fmt.mantissa, fmt.integer) - bits(power)
    field = L.select(field < 0, L.Const(0, fmt.integer), field)
    inverse = L.bitcast(field, fmt.dtype)
    square = r * r
    sinh_r = L.fma(square * r, polynomial(square, fmt.table("SINH")), r)
    cosh_r = square * polynomial(square, fmt.table("COSH"))  # less 1
    sinh_n, cosh_n = power - inverse, power + inverse
    return (
        L.fma(sinh_r, cosh_n, cosh_r * sinh_n) + sinh_n,
        L.fma(sinh_r, sinh_n, L.fma(cosh_r, cosh_n, inverse)) + power,
    )


def sinh(x):
    half, _ = sinh_and_cosh(x)
    tiny = absolute(x) < format_of(x).epsilon / 4
    return copysign(L.select(tiny, x, half * 2.0), x)


def cosh(x):
    _, half = sinh_and_cosh(x)
    return half * 2.0
