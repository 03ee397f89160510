"""What the functions are built of: constants, polynomials, and pairs of floats.

All functions take expressions of float32 or float64 and give expressions of the same dtype. A
*pair* is an unevaluated sum of two floats, the second no larger than half a unit in the last place
of the first; it carries twice the digits where one rounding too many would be felt (T. J. Dekker,
A floating-point technique for extending the available precision, 1971).
"""

from __future__ import annotations

import math

from facula.base.dtypes import bool_, float32, float64, int32, int64
from facula.ir import loops as L

from . import coefficients


class Rarely(L.Expr):
    """``rare`` in the lanes where ``cond`` holds, else ``common``: a select with a branch.

    What only ``rare`` needs is not computed unless some lane wants it, so that a long way for few
    arguments costs the others nothing. The value is the same as that of a select.
    """

    __slots__ = ("args",)

    def __init__(self, cond, rare, common):
        self.args, self.dtype = (cond, rare, common), common.dtype

    @property
    def first(self):
        """What is computed before any of it is known not to be needed."""
        return self.args[::2]


ALWAYS = L.Const(True, bool_)


class Scaled(L.Expr):
    """``x * 2^n`` rounded once, or 0 where ``keep`` does not hold; n is an integral float.

    Where it is kept, n is within what takes numbers around 1 from 0 to infinity. One instruction on
    some processors, elsewhere ``args[3]``: the first power of two has one added to negative
    exponents for every digit, so that only the second product rounds, and one taken from others,
    so that there is one for 2^128. Numbers that vanish had better not be kept: processors take a
    hundred cycles over a product that vanishes, and masked scores, which are -inf, are many.
    """

    __slots__ = ("args",)

    def __init__(self, x, n, keep=ALWAYS):
        fmt = format_of(x)
        large = L.compare("gt", n, 0.0)
        up, down = (constant(fmt.magic + fmt.bias + k, x) for k in (fmt.mantissa + 1, -1))
        power = shift_left(bits(n + L.select(large, down, up)), fmt.mantissa)
        rest = L.select(large, constant(2.0, x), constant(0.5 * fmt.epsilon, x))
        product = L.select(keep, x * L.bitcast(power, x.dtype) * rest, constant(0.0, x))
        self.args, self.dtype = (x, n, keep, product), x.dtype

    @property
    def first(self):
        return self.args[:3]


INF = math.inf
NAN = math.nan


#: The number 1 in fixed point.
ONE = 1 << 256


class Format:
    """A binary floating-point format and the integer of its size."""

    def __init__(self, dtype, integer, mantissa: int, bias: int):
        self.dtype, self.integer = dtype, integer
        self.mantissa, self.bias = mantissa, bias
        self.bits = 8 * dtype.itemsize
        #: Added to a float of small magnitude, it leaves the nearest integer in the low bits.
        self.magic = 1.5 * 2.0**mantissa
        self.smallest_normal = 2.0 ** (1 - bias)
        self.epsilon = 2.0**-mantissa

    def round(self, value: int) -> float:
        """The number of this format nearest to a fixed-point ``value``."""
        value = value / ONE
        if self.dtype is float64:
            return value
        # Adding and taking away a number that is 2^29 times larger rounds to 24 bits.
        factor = value * (2.0**29 + 1.0)
        return factor - (factor - value)

    def split(self, value: int, pieces: int = 2) -> tuple[float, ...]:
        """A fixed-point ``value`` as a sum of numbers of this format, the largest first."""
        result = []
        for _ in range(pieces):
            result.append(self.round(value))
            value -= int(result[-1] * float(ONE))
        return tuple(result)

    def table(self, name: str) -> tuple:
        return getattr(coefficients, f"{name}_{self.bits}")


FORMATS = {
    float32: Format(float32, int32, 23, 127),
    float64: Format(float64, int64, 52, 1023),
}


def format_of(x) -> Format:
    return FORMATS[x.dtype]


# Fixed-point numbers with 256 bits after the point.
LN2, LN10, PI = coefficients.LN2, coefficients.LN10, coefficients.PI
HALF_PI = PI >> 1
LOG2_E = ONE * ONE // LN2
LOG10_E = ONE * ONE // LN10
LOG10_2 = ONE * LN2 // LN10


def constant(value, like):
    return L.Const(value, like.dtype)


def horner(x, coefficients):
    """``sum(c[k] * x**k)`` with one fused multiply-add a coefficient."""
    *rest, p = coefficients
    p = constant(p, x)
    for c in reversed(rest):
        p = L.fma(p, x, c)
    return p


def polynomial(x, coefficients, square=None):
    """``sum(c[k] * x**k)``, in two interleaved chains if it is long.

    Two chains cost one multiplication more than one and wait half as long: short ones are better
    off as they are, since other iterations fill the wait.
    """
    if x.dtype is float32 or len(coefficients) < 8:
        return horner(x, coefficients)
    square = square if square is not None else x * x
    return L.fma(horner(square, coefficients[1::2]), x, horner(square, coefficients[0::2]))


def at_most(x, bound):
    """The smaller of ``x`` and a constant; NaN stays. One instruction, other than ``min``."""
    bound = constant(bound, x)
    return L.select(bound < x, bound, x)


def at_least(x, bound):
    bound = constant(bound, x)
    return L.select(x < bound, bound, x)


def absolute(x):
    return L.unary("abs", x)


def copysign(x, sign):
    return L.binary("copysign", x, sign)


def sqrt(x):
    return L.unary("sqrt", x)


def nearest(x):
    """``x`` rounded to an integer, halves to even."""
    return L.unary("round", x)


def bits(x):
    """The bits of a float as an integer."""
    return L.bitcast(x, format_of(x).integer)


def is_normal(x):
    """Whether x is positive, finite and no denormal: one comparison of its bits."""
    fmt = format_of(x)
    lowest, count = 1 << fmt.mantissa, 2 * fmt.bias << fmt.mantissa
    return L.compare("ult", bits(x) - lowest, count)


def shift_left(x, count):
    return L.binary("shl", x, count)


def shift_right(x, count):
    """Arithmetic shift."""
    return L.binary("shr", x, count)


def power_of_two(n, fmt):
    """2^n of an integer ``n`` within the normal exponents."""
    return L.bitcast(shift_left(n + fmt.bias, fmt.mantissa), fmt.dtype)


# Pairs ------------------------------------------------------------------------------------------


def fast_sum(a, b):
    """``a + b`` as a pair, for ``|a| >= |b|`` or ``a == 0``."""
    s = a + b
    return s, b - (s - a)


def exact_sum(a, b):
    """``a + b`` as a pair (D. E. Knuth)."""
    s = a + b
    v = s - a
    return s, (a - (s - v)) + (b - v)


def exact_product(a, b):
    """``a * b`` as a pair."""
    p = a * b
    return p, L.fma(a, b, -p)


def pair_product(a, b):
    high, low = exact_product(a[0], b[0])
    return fast_sum(high, L.fma(a[0], b[1], L.fma(a[1], b[0], low)))


def pair_quotient(a, b):
    """``a / b`` to about two units of the pair's last place."""
    inverse = 1.0 / b[0]
    q = a[0] * inverse
    # What is left of the dividend, exact but for the products with the low parts.
    rest = L.fma(-q, b[0], a[0]) + L.fma(-q, b[1], a[1])
    return fast_sum(q, rest * inverse)
