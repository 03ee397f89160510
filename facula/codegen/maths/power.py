"""pow, which is exp2(y log2|x|) with a logarithm of more digits, and the inverse square root."""

from __future__ import annotations

from facula.base.dtypes import float32, float64
from facula.ir import loops as L

from .exponential import exp2, nearest_power
from .logarithm import normalised, split_exponent
from .parts import (
    FORMATS,
    INF,
    LOG2_E,
    NAN,
    ONE,
    Rarely,
    absolute,
    at_least,
    at_most,
    bits,
    constant,
    exact_product,
    exact_sum,
    fast_sum,
    format_of,
    horner,
    is_normal,
    pair_product,
    pair_quotient,
    polynomial,
    shift_right,
    sqrt,
)

WIDE = FORMATS[float64]


def at_ends(a, log):
    """log2 of zero, infinity and NaN among ``log`` of the absolute value ``a``."""
    log = L.select(a < INF, log, a)
    return L.select(a.eq(0.0), constant(-INF, a), log)


def magnitude_32(a, y):
    """a^y of float32 in float64: with its 53 digits no rounding but the last is felt."""
    a, y = L.cast(a, float64), L.cast(y, float64)
    e, m = split_exponent(a)
    t = m - 1.0
    high, low = WIDE.split(LOG2_E)
    p = L.fma(t, horner(t, WIDE.table("POW_LOG2")), high + low) * t
    log = at_ends(a, L.cast(e, float64) + p)
    z = L.select(a.eq(1.0), constant(0.0, a), y * log)
    # Far enough out for float32 to overflow or vanish.
    z = at_least(at_most(z, 200.0), -200.0)
    n, power = nearest_power(z, 1.0, 0)
    r = z - n
    p = L.fma(r, polynomial(r, WIDE.table("POW_EXP2")), 1.0)
    return L.cast(p * power, float32)


def log2_pair(a):
    """log2 of a positive float64 as a pair, to some 65 bits.

    With s = (m - 1) / (m + 1), log(m) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), where the sum is 1 and
    a little: only its first two terms need to be pairs.
    """
    scaled, unscale = normalised(a)
    e, m = split_exponent(scaled)
    zero = constant(0.0, a)
    s = pair_quotient((m - 1.0, zero), fast_sum(constant(1.0, a), m))
    square = pair_product(s, s)
    third = tuple(constant(v, a) for v in WIDE.split(ONE // 3))
    rest = square[0] * horner(square[0], WIDE.table("POW_LOG"))
    high, low = fast_sum(third[0], rest)
    w = pair_product(square, (high, low + third[1]))
    s = pair_product(s, tuple(constant(v, a) for v in WIDE.split(2 * LOG2_E)))
    sw = pair_product(s, w)
    high, low = fast_sum(s[0], sw[0])
    high, tail = exact_sum(unscale(L.cast(e, float64)), high)
    return fast_sum(high, tail + (low + (s[1] + sw[1])))


def magnitude_64(a, y):
    log, log_low = log2_pair(a)
    log = at_ends(a, log)
    inner = (absolute(log) < INF) & log.ne(0.0)
    z, z_low = exact_product(y, log)
    z_low = L.fma(y, log_low, z_low)
    z = L.select(a.eq(1.0), constant(0.0, a), z)
    # Only where nothing over- or underflows does the low part count; elsewhere it may be NaN.
    z_low = L.select((absolute(z) < 1076.0) & inner, z_low, constant(0.0, a))
    return exp2(z, z_low)


def pow(x, y):
    a = absolute(x)
    r = magnitude_32(a, y) if x.dtype is float32 else magnitude_64(a, y)
    floor = L.unary("floor", y)
    half = y * 0.5
    integer = floor.eq(y)
    odd = integer & L.unary("floor", half).ne(half)
    r = L.select(odd, L.binary("copysign", r, x), r)
    undefined = (x < 0.0) & L.compare("gt", x, -INF) & ~integer
    r = L.select(undefined, constant(NAN, x), r)
    return L.select(y.eq(0.0) | x.eq(1.0), constant(1.0, x), r)


#: Halved bits of a float taken from these are its inverse square root within 3.5 %.
INVERSE_ROOT = {32: 0x5F375A86, 64: 0x5FE6EB50C7B537A9}


def rsqrt(x):
    """1 / sqrt(x) without a division: a guess from the bits, and two steps that cube its error.

    With e = 1 - x y^2, the inverse root is y (1 - e)^(-1/2) = y (1 + e / 2 + 3 e^2 / 8 + ...).
    """
    fmt = format_of(x)
    guess = L.Const(INVERSE_ROOT[fmt.bits], fmt.integer) - shift_right(bits(x), 1)
    y = L.bitcast(guess, fmt.dtype)
    for _ in range(2 if fmt.bits == 32 else 3):
        e = L.fma(-(x * y), y, 1.0)
        y = L.fma(y * e, L.fma(e, 0.375, 0.5), y)
    return Rarely(~is_normal(x), constant(1.0, x) / sqrt(x), y)
