"""sin, cos and tan, exact in their reduction for every argument, however large.

The argument is an integer M times a power of two. Of 2/pi only those binary digits matter that
M times them brings near the binary point: higher ones give whole turns, lower ones nothing
(M. Payne, R. Hanek, Radian reduction for trigonometric functions, 1983). The window of digits is
taken out of constants by selects and shifts, so that no lane needs a branch or a table, and the
product is kept in fixed point: two bits of quadrant, the rest its fraction.
"""

from __future__ import annotations

import math

from facula.base.dtypes import float32, float64, int32, int64
from facula.ir import loops as L

from .coefficients import TWO_OVER_PI
from .parts import (
    HALF_PI,
    INF,
    NAN,
    ONE,
    Rarely,
    absolute,
    bits,
    constant,
    exact_product,
    exact_sum,
    fast_sum,
    format_of,
    pair_product,
    pair_quotient,
    polynomial,
    shift_left,
    shift_right,
)

#: Up to here three pieces of pi/2 are exact enough; by the size of the format.
NEAR = {32: 1e5, 64: 1e9}
MASK_32 = (1 << 32) - 1


def int64_constant(word: int) -> L.Const:
    """64 bits as the signed integer they stand for."""
    return L.Const(word - (1 << 64) if word >> 63 else word, int64)


def digits_after(zeros: int, count: int) -> list[int]:
    """``count`` words of 64 bits: so many zeros, then the binary digits of 2/pi."""
    total = 0
    for word in TWO_OVER_PI:
        total = total << 64 | word
    length = 64 * len(TWO_OVER_PI) + zeros
    return [total >> (length - 64 * (i + 1)) & ((1 << 64) - 1) for i in range(count)]


def window(words, position, count):
    """``count`` words of 64 bits, beginning ``position`` bits into the constants ``words``.

    The words are chosen by one bit of the position after another, the highest first.
    """
    chosen = [int64_constant(w) for w in words]
    levels = (len(words) - count - 1).bit_length()
    for level in reversed(range(levels)):
        step = 1 << level
        bit = (position & (64 * step)).ne(0)
        chosen = [L.select(bit, chosen[i + step], chosen[i]) for i in range(step + count)]
    left = position & 63
    right = left ^ 63
    return [
        shift_left(chosen[i], left) | logical(logical(chosen[i + 1], 1), right)
        for i in range(count)
    ]


def logical(x, count):
    """Logical shift to the right."""
    return L.binary("lshr", x, count)


def mantissa_and_position(x):
    """M and s with ``|x| = M * 2^s`` but for a constant exponent, 0 <= s < a power of two.

    Numbers below a half have s = 0 and a meaningless M: the caller does not use them.
    """
    fmt = format_of(x)
    word = bits(absolute(x))
    exponent = shift_right(word, fmt.mantissa)
    lowest, highest = fmt.bias - 1, 2 * fmt.bias - 1
    bounded = L.select(exponent < lowest, L.Const(lowest, fmt.integer), exponent)
    bounded = L.select(bounded < highest, bounded, L.Const(highest, fmt.integer))
    implicit = 1 << fmt.mantissa
    m = (word & (implicit - 1)) | implicit
    # The uppermost binade has one bit more of M in place of a position more.
    return L.select(exponent < highest + 1, m, m + m), bounded - lowest


def quadrant_of(turns):
    """The nearest integer to a fixed-point number with two bits before the point, modulo 4."""
    return logical(turns + (1 << 61), 62)


def reduce_32(x):
    """|x| minus a multiple n of pi/2, as a pair of float32, and n modulo 4 as int32."""
    m, position = mantissa_and_position(x)
    m = L.cast(m, int64) & ((1 << 25) - 1)
    high, low = window(digits_after(26, 4), L.cast(position, int64), 2)
    turns = m * high + logical(m * logical(low, 32), 32)
    n = L.cast(quadrant_of(turns), int32)
    # The fraction of the quadrant as a signed number, exact to far beyond float32.
    fraction = L.cast(shift_left(turns, 2), float64) * (math.pi / 2**65)
    r = L.cast(fraction, float32)
    return r, L.cast(fraction - L.cast(r, float64), float32), n


def times_words(m, words):
    """The product of m < 2^54 and 192 bits of fraction, modulo 2^64: its first 128 bits.

    Products of 32 bits by 32 are all that vector units have.
    """
    m_low, m_high = m & MASK_32, logical(m, 32)
    (a_low, a_high), (b_low, b_high), (c_low, c_high) = (
        (w & MASK_32, logical(w, 32)) for w in words
    )
    # Every sum below stays under 2^64: the upper half of m has 22 bits.
    tail = m_high * c_high + logical(m_high * c_low, 32) + logical(m_low * c_high, 32)
    low = m_low * b_low
    middle = logical(low, 32) + ((m_low * b_high) & MASK_32) + ((m_high * b_low) & MASK_32)
    high = m_high * b_high + logical(m_low * b_high, 32) + logical(m_high * b_low, 32)
    low = shift_left(middle, 32) | (low & MASK_32)
    high = high + logical(middle, 32)
    total = low + tail
    carry = L.select(L.compare("ult", total, low), L.Const(1, int64), L.Const(0, int64))
    first = m_low * a_low + shift_left(m_low * a_high + m_high * a_low, 32)
    return first + high + carry, total


def reduce_64(x):
    """|x| minus a multiple n of pi/2, as a pair of float64, and n modulo 4 as int64."""
    m, position = mantissa_and_position(x)
    turns, rest = times_words(m, window(digits_after(55, 19), position, 3))
    n = quadrant_of(turns)
    fraction = shift_left(turns, 2) | logical(rest, 62)
    rest = logical(shift_left(rest, 2), 12)
    # Each piece is exact in float64. The first two may cancel, and then the third shows.
    upper = L.cast(shift_right(fraction, 32), float64) * 2.0**-32
    middle = L.cast(fraction & MASK_32, float64) * 2.0**-64
    high, low = fast_sum(upper, middle)
    high, low = fast_sum(high, low + L.cast(rest, float64) * 2.0**-116)
    half_pi = tuple(constant(v, x) for v in format_of(x).split(HALF_PI))
    return *pair_product((high, low), half_pi), n


def nearest_multiple(x):
    """The integer n nearest to x / (pi/2), as a float, and a word that ends in its bits."""
    fmt = format_of(x)
    shifted = L.fma(x, fmt.round(ONE * ONE // HALF_PI), fmt.magic)
    return shifted - fmt.magic, bits(shifted)


def reduce_near(x):
    """x minus a multiple n of pi/2, as a pair, and n, for |x| up to NEAR.

    Of pi/2 there are three pieces. The product with the first cancels without rounding, since what
    is left has no digits below the last of that piece; the second may cancel nearly all of it.
    """
    n, word = nearest_multiple(x)
    first, second, third = format_of(x).split(HALF_PI, 3)
    product, rest = exact_product(n, constant(-second, x))
    high, low = exact_sum(L.fma(n, -first, x), product)
    return high, low + L.fma(n, -third, rest), word


def reduce_near_rounded(x):
    """The same as one float, whose two roundings sin and cos can bear."""
    n, word = nearest_multiple(x)
    r = x
    for piece in format_of(x).split(HALF_PI, 3):
        r = L.fma(n, -piece, r)
    return r, word


def reduce_far(x):
    """r as a pair and n modulo 4 for x of any size beyond 1, both with the sign of x."""
    high, low, n = reduce_32(x) if x.dtype is float32 else reduce_64(x)
    n = L.cast(n, format_of(x).integer)
    negative = x < 0.0
    return (
        L.select(negative, -high, high),
        L.select(negative, -low, low),
        L.select(negative, -n, n),
    )


def sine_and_cosine(r, low=None):
    """Of r, or of the pair (r, low), within a little more than pi/4; each as a pair."""
    fmt = format_of(r)
    square = r * r
    half = square * 0.5
    # The sum 1 - r^2/2 is kept exact, since its rounding would be among the larger errors.
    head = 1.0 - half
    cosine = L.fma(square * square, polynomial(square, fmt.table("COS")), (1.0 - head) - half)
    sine = square * r * polynomial(square, fmt.table("SIN"))
    if low is not None:
        sine, cosine = sine + low, L.fma(-r, low, cosine)
    return (r, sine), (head, cosine)


def of_any_size(function, reduction, x):
    """``function`` of n and of sine and cosine of the reduced argument, as one of x."""
    *r, n = reduction(x)
    near = function(n, *sine_and_cosine(*r))
    *r, n = reduce_far(x)
    far = function(n, *sine_and_cosine(*r))
    a = absolute(x)
    far = L.select(a < INF, far, constant(NAN, x))
    return Rarely(L.compare("gt", a, NEAR[format_of(x).bits]), far, near)


def turned(value, n):
    """``value`` with its sign changed if the second bit of n is set."""
    fmt = format_of(value)
    return L.bitcast(bits(value) ^ shift_left(n & 2, fmt.bits - 2), fmt.dtype)


def exchanged(n, a, b):
    """The pair ``b`` if n is odd, else ``a``."""
    odd = (n & 1).ne(0)
    return [L.select(odd, y, x) for x, y in zip(a, b)]


def sin(x):
    def turn(n, sine, cosine):
        high, low = exchanged(n, sine, cosine)
        return turned(high + low, n)

    # The sums make +0 of -0.
    return L.select(x.eq(0.0), x, of_any_size(turn, reduce_near_rounded, x))


def cos(x):
    def turn(n, sine, cosine):
        high, low = exchanged(n, cosine, sine)
        return turned(high + low, n + 1)

    return of_any_size(turn, reduce_near_rounded, x)


def tan(x):
    def turn(n, sine, cosine):
        above, below = exchanged(n, sine, cosine), exchanged(n, cosine, sine)
        high, low = pair_quotient(fast_sum(*above), fast_sum(*below))
        # tan(r + pi/2) = -1 / tan(r).
        return turned(high + low, n + n)

    return L.select(x.eq(0.0), x, of_any_size(turn, reduce_near, x))
