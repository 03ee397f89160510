"""Special functions beyond the primitives: derivatives of the logarithm of the gamma function."""

from __future__ import annotations

import math

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, ShapeError, fail
from facula.ir.program import Value
from facula.ops.promote import to
from facula.ops.registry import F, composite, op

#: ``B[2j] / (2j)!`` of the Euler-Maclaurin formula, j = 1, 2, ...
_BERNOULLI = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000, 43867 / 5109094217170944000,
)  # fmt: skip
#: Terms added one by one before the formula takes over.
_DIRECT = 10


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
    x = input if input.dtype.is_floating_point else to(input, D.get_default_dtype())
    return F.digamma(x) if n == 0 else _polygamma(x, n=n)
