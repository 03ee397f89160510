"""Special functions beyond the primitives: of the gamma function, the normal law, and Bessel's.

They are computed in double precision, whatever the input's.
"""

from __future__ import annotations

import math

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, ShapeError, UnsupportedError, fail
from facula.ir.program import Value
from facula.ops.promote import to, together
from facula.ops.registry import F, composite, op

#: ``B[2j] / (2j)!`` of the Euler-Maclaurin formula, j = 1, 2, ...
_BERNOULLI = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000,
)  # fmt: skip
#: Orders that functions of an integer may have: their kernels are written out for each.
_MOST = 100
#: Terms added one by one before the formula takes over.
_DIRECT = 10


def _few(name, parameter, n):
    if n > _MOST:
        fail(UnsupportedError, name, f"{parameter} of more than {_MOST} is not supported, got {n}")


def _power(x, n):
    """``x ** n`` for an int n > 0, by squaring."""
    half = _power(x, n // 2) if n > 1 else None
    if half is None:
        return x
    return half * half * x if n % 2 else half * half


def _hurwitz(s, q):
    """``sum((q + k) ** -s)`` over k = 0, 1, ...; an int s > 1, q >= 0.5 in float64."""
    total = _power(1.0 / q, s)
    for k in range(1, _DIRECT):
        total = total + _power(1.0 / (q + float(k)), s)
    a = q + float(_DIRECT)
    inverse = 1.0 / a
    last = _power(inverse, s)
    square = inverse * inverse
    factor, series = float(s), None
    for j, bernoulli in reversed(list(enumerate(_BERNOULLI))):
        # The ratio of rising factorials from one term to the next is (s + 2j + 1)(s + 2j + 2).
        rise = float((s + 2 * j + 1) * (s + 2 * j + 2))
        series = bernoulli + (0.0 if series is None else series * (square * rise))
    tail = _power(inverse, s - 1) / float(s - 1)
    return total + tail + last * (0.5 + series * (inverse * factor))


def _cotangent_derivative(n):
    """Coefficients of P with ``(d/dx)^n cot x = (-1)^n P(cot x)``."""
    p = [0.0, 1.0]
    for _ in range(n):
        slope = [k * c for k, c in enumerate(p)][1:]
        p = [0.0] * (len(slope) + 2)
        for k, c in enumerate(slope):
            p[k] += c
            p[k + 2] += c
    return p


def _polygamma_body(x, *, n):
    z = to(x, D.float64)
    left = F.lt(z, 0.5)
    sign = 1.0 if n % 2 else -1.0
    factorial = math.exp(min(math.lgamma(n + 1), 709.0))
    y = _hurwitz(n + 1, F.where(left, 1.0 - z, z)) * (sign * factorial)
    # Left of 1/2 by reflection. The polynomial has terms of one parity alone, so that at poles
    # no infinity meets another of the other sign, or a zero.
    angle = (z - F.round(z)) * math.pi
    cotangent = F.cos(angle) / F.sin(angle)
    square, p = cotangent * cotangent, _cotangent_derivative(n)
    series = None
    for c in reversed(p[(n + 1) % 2 :: 2]):
        series = c if series is None else series * square + c
    if (n + 1) % 2:
        series = series * cotangent
    mirrored = series * (-math.pi * (-math.pi) ** n) + (y if n % 2 == 0 else -y)
    return to(F.where(left, mirrored, y), x.dtype)


_polygamma = composite(
    "polygamma", _polygamma_body, lambda g, y, x, *, n: (g * F.polygamma(n + 1, x),)
)


@op(
    spaces=("torch", "special"),
    out=True,
    samples=lambda make: [((n, make(3, 5, low=-1.8, high=4.0)), {}) for n in (0, 1, 2, 5)],
)
def polygamma(n, input: Value):
    """The ``n``-th derivative of ``digamma``, elementwise; n is an int >= 0.

    Raises:
        RuntimeError: n is negative.
    """
    if isinstance(n, bool) or not isinstance(n, int):
        fail(ArgumentTypeError, "polygamma", f"n must be an int, got {type(n).__name__}")
    if n < 0:
        fail(ShapeError, "polygamma", "polygamma(n, x) does not support negative n.")
    _few("polygamma", "n", n)
    x = _floating(input)
    return F.digamma(x) if n == 0 else _polygamma(x, n=n)


@op(
    aliases=("multigammaln",),
    spaces=("torch", "method"),
    inplace=True,
    out=True,
    samples=lambda make: [((make(3, 5, low=2.0, high=6.0), p), {}) for p in (1, 3)],
)
def mvlgamma(input: Value, p):
    """The logarithm of the multivariate gamma function of dimension ``p``; input > (p - 1) / 2.

    Raises:
        RuntimeError: p is less than 1.
    """
    if isinstance(p, bool) or not isinstance(p, int):
        fail(ArgumentTypeError, "mvlgamma", f"p must be an int, got {type(p).__name__}")
    if p < 1:
        fail(ShapeError, "mvlgamma", "p has to be greater than or equal to 1")
    x = _floating(input)
    _few("mvlgamma", "p", p)
    total = F.lgamma(x)
    for j in range(1, p):
        total = total + F.lgamma(x - 0.5 * j)
    return total + p * (p - 1) / 4 * math.log(math.pi)


def _floating(x):
    return x if x.dtype.is_floating_point else to(x, D.get_default_dtype())


def _in_double(function):
    """A function of a float64 value, as one of any value; the result has the input's dtype."""

    def fn(input: Value):
        x = _floating(input)
        return to(function(to(x, D.float64)), x.dtype)

    fn.__name__, fn.__doc__ = function.__name__, function.__doc__
    return fn


# The normal law ----------------------------------------------------------------------------------


@op(spaces=("special",), out=True, domain=(0.1, 3.0))
def entr(input: Value):
    """``-input * log(input)``: 0 at 0, minus infinity below."""
    x = _floating(input)
    above = F.gt(x, 0)
    y = F.where(above, -x * F.log(F.where(above, x, 1.0)), float("-inf"))
    return F.where(F.eq(x, 0), 0.0, F.where(F.isnan(x), x, y))


@op(spaces=("special",), out=True)
@_in_double
def ndtr(x):
    """The standard normal distribution's function: the area left of ``input``."""
    return 0.5 * F.erfc(x * -math.sqrt(0.5))


def _normal_quantile(p):
    """Where the standard normal law has the area ``p`` to its left."""
    middle = F.erfinv(p * 2.0 - 1.0) * math.sqrt(2.0)
    # Near 0 and 1 the subtraction loses digits: a step by Newton on the logarithm of the tail.
    low = F.minimum(p, 1.0 - p)
    tail = F.lt(low, 0.01) & F.gt(low, 0.0)
    guarded = F.where(tail, low, 0.005)
    log = F.log(guarded)
    z = -F.sqrt(-2.0 * log - F.log(-2.0 * log * (2.0 * math.pi)))
    for _ in range(5):
        area = _scaled_erfc(z * -math.sqrt(0.5)) * 0.5
        z = z - (F.log(area) - z * z * 0.5 - log) * (area * math.sqrt(2.0 * math.pi))
    z = F.where(F.gt(p, 0.5), -z, z)
    return F.where(tail, z, middle)


@op(spaces=("special",), out=True, domain=(0.02, 0.98))
@_in_double
def ndtri(x):
    """The inverse of ``ndtr``: the number left of which the normal law has the area ``input``."""
    return _normal_quantile(x)


def _scaled_erfc(x):
    """``exp(x * x) * erfc(x)``: by its asymptotic series right of 10."""
    far = F.gt(x, 10.0)
    near = F.where(far, 0.0, x)
    z = F.where(far, x, 10.0)
    square, series = 0.5 / (z * z), 1.0
    for k in range(12, 0, -1):
        series = 1.0 - series * (square * float(2 * k - 1))
    return F.where(far, series / (z * math.sqrt(math.pi)), F.exp(near * near) * F.erfc(near))


@op(spaces=("special",), out=True)
@_in_double
def erfcx(x):
    """``exp(input * input) * erfc(input)``, without overflow on the right."""
    return F.where(F.isnan(x), x, _scaled_erfc(x))


@op(spaces=("special",), out=True)
@_in_double
def log_ndtr(x):
    """The logarithm of ``ndtr``, exact far to the left as well."""
    left = F.lt(x, -1.0)
    low, high = F.where(left, x, -1.0), F.where(left, 0.0, x)
    tail = F.log(_scaled_erfc(low * -math.sqrt(0.5)) * 0.5) - low * low * 0.5
    return F.where(left, tail, F.log1p(F.erfc(high * math.sqrt(0.5)) * -0.5))


@op(spaces=("special",), out=True, domain=(0.2, 3.0))
def xlog1py(input: Value, other: Value):
    """``input * log1p(other)``, and 0 where ``input`` is 0 (unless ``other`` is NaN)."""
    a, b = together(input, other, floating=True, name="xlog1py")
    zero = F.eq(a, 0) & F.eq(b, b)
    return F.where(zero, 0.0, a * F.log1p(F.where(zero, 1.0, b)))


# Modified Bessel functions of the first kind ------------------------------------------------------

#: Where the power series gives way to the asymptotic one, whose least term is exp(-2 x) of it.
_BESSEL_CUT = 18.0


def _bessel_i(order, x, scaled):
    """``I_order(x)``, or that times ``exp(-|x|)``; order 0 or 1."""
    size = F.abs(x)
    near = F.le(size, _BESSEL_CUT)
    z = F.where(near, x, 0.0)
    square, series = z * z * 0.25, 1.0
    for k in range(52, 0, -1):
        series = series * (square * (1.0 / (k * (k + order)))) + 1.0
    series = series * (z * 0.5) if order else series
    if scaled:
        series = series * F.exp(-F.abs(z))
    far = F.where(near, _BESSEL_CUT, size)
    inverse, tail = 1.0 / far, 1.0
    for k in range(30, 0, -1):
        tail = 1.0 - tail * (inverse * ((4.0 * order - (2 * k - 1) ** 2) / (8.0 * k)))
    tail = tail * F.rsqrt(far * (2 * math.pi))
    if not scaled:
        # In two halves, so that only a result that is too large overflows.
        half = F.exp(far * 0.5)
        tail = tail * half * half
    if order:
        tail = F.where(F.lt(x, 0), -tail, tail)
    return F.where(F.isnan(x), x, F.where(near, series, tail))


def _define_bessel(name, order, scaled, spaces, aliases=()):
    @_in_double
    def fn(x):
        return _bessel_i(order, x, scaled)

    fn.__doc__ = f"The modified Bessel function of the first kind, of order {order}" + (
        ", times ``exp(-|input|)``." if scaled else "."
    )
    return op(fn, name=name, spaces=spaces, aliases=aliases, inplace=name == "i0", out=True)


i0 = _define_bessel("i0", 0, False, ("torch", "method", "special"), ("modified_bessel_i0",))
i0e = _define_bessel("i0e", 0, True, ("special",))
i1 = _define_bessel("i1", 1, False, ("special",), ("modified_bessel_i1",))
i1e = _define_bessel("i1e", 1, True, ("special",))


@op(spaces=("special",), out=True)
def spherical_bessel_j0(input: Value):
    """``sin(input) / input``, and 1 at 0."""
    x = _floating(input)
    zero = F.eq(x, 0)
    y = F.where(zero, 1.0, F.sin(x) / F.where(zero, 1.0, x))
    return F.where(F.isinf(x), 0.0, y)
