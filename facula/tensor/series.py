"""Special functions by loops over tensors, as long as any element needs: incomplete gamma
functions, Hurwitz's zeta function, orthogonal polynomials. All in double precision.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, fail
from facula.eager.grad_mode import no_grad
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.library.special import _BERNOULLI
from facula.tensor.functions import fit, function_of
from facula.tensor.lapack import differentiable

__all__ = ["igamma", "igammac"]

_INF, _NAN, _TINY = float("inf"), float("nan"), 1e-300


def _where(condition, a, b):
    return function_of(OPS["where"])(condition, a, b)


def _together(name, a, b):
    """Two operands as float64 tensors of one shape, and the dtype of the result."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        fail(ArgumentTypeError, name, "expected a Tensor among the arguments, got "
             f"{type(a).__name__} and {type(b).__name__}")  # fmt: skip
    y = function_of(OPS["add"])(a, b).detach()
    dtype = y.dtype if y.is_floating_point() else D.get_default_dtype()
    pair = [
        x.double().expand(y.shape) if isinstance(x, Tensor) else y.new_full(
            y.shape, float(x), dtype=D.float64
        )
        for x in (a, b)
    ]  # fmt: skip
    return *pair, dtype


def _given(name, y, out):
    if out is None:
        return y
    fit(name, out, y.shape)
    return out.copy_(y)


# Incomplete gamma functions ----------------------------------------------------------------------


def _series(a, x):
    """``P(a, x)`` over its leading factor, for x < a + 1: a sum of falling terms."""
    term, k = 1 / a, 1
    total = term
    while True:
        term = term * (x / (a + k))
        total, k = total + term, k + 1
        if k % 16 == 0 and not (term > 1e-17 * total).any().item():
            return total


def _fraction(a, x):
    """``Q(a, x)`` over its leading factor, for x >= a + 1: Lentz's continued fraction."""
    b = x + 1 - a
    c, d, k = a * 0 + 1 / _TINY, 1 / b, 1
    total = d
    while True:
        step = -k * (k - a)
        b = b + 2
        d, c = step * d + b, b + step / c
        d, c = 1 / _where(d == 0, _TINY, d), _where(c == 0, _TINY, c)
        factor = d * c
        total, k = total * factor, k + 1
        if k % 16 == 0 and not ((factor - 1).abs() > 1e-16).any().item() or k > 100_000:
            return total


@no_grad()
def _parts(a, x):
    """``P(a, x)`` and ``Q(a, x) = 1 - P``."""
    proper = (a > 0) & (x > 0) & (a < _INF) & (x < _INF)
    a1, x1 = _where(proper, a, 1.0), _where(proper, x, 1.0)
    factor = (a1 * x1.log() - x1 - a1.lgamma()).exp()
    low = x1 < a1 + 1
    p = factor * _series(a1, _where(low, x1, a1))
    q = factor * _fraction(_where(low, 1.0, a1), _where(low, 3.0, x1))
    p, q = _where(low, p, 1 - q), _where(low, 1 - p, q)
    p = _where(proper, p, _where((x == 0) | (a == _INF), 0.0, 1.0))
    q = _where(proper, q, _where((x == 0) | (a == _INF), 1.0, 0.0))
    bad = (a < 0) | (x < 0) | (a != a) | (x != x) | (a == 0) & (x == 0)
    return _where(bad, _NAN, p), _where(bad, _NAN, q)


def _incomplete(name, which, sign):
    def function(input, other, *, out=None):  # noqa: A002
        need_tensor(name, input, other)
        a, x, dtype = _together(name, input, other)
        y = _parts(a.detach(), x.detach())[which]

        def rule(gs, ys, xs):
            a, x = xs
            return (None, gs[0] * sign * ((a - 1) * x.log() - x - a.lgamma()).exp())

        y = differentiable(name.title(), rule, lambda a, x: y, (a.detach(), x), (y,))
        return _given(name, y.to(dtype), out)

    function.__name__ = function.__qualname__ = name
    return function


igamma, igammac = _incomplete("igamma", 0, 1), _incomplete("igammac", 1, -1)
igamma.__doc__ = """The regularised lower incomplete gamma function ``P(input, other)``.

Differentiable in ``other`` alone, as in PyTorch. NaN where an argument is negative.
"""
igammac.__doc__ = "The regularised upper incomplete gamma function, ``1 - igamma(input, other)``."


def _changed(function):
    def method(self, other):
        return self.copy_(function(self, other))

    method.__name__ = method.__qualname__ = function.__name__ + "_"
    method.__doc__ = f"``{function.__name__}``, in place."
    return method


for _function in (igamma, igammac):
    setattr(Tensor, _function.__name__, _function)
    setattr(Tensor, _function.__name__ + "_", _changed(_function))


# Zeta --------------------------------------------------------------------------------------------


def _zeta(x, q):
    """``sum((q + k) ** -x)`` over k = 0, 1, ...: some terms, then Euler and Maclaurin's formula."""
    total, a, k = q.pow(-x), q, 0
    while True:
        going = a <= 9 if k >= 9 else a == a
        if k >= 9 and not going.any().item():
            break
        a = _where(going, a + 1, a)
        total, k = _where(going, total + a.pow(-x), total), k + 1
    last = a.pow(-x)
    total = total + last * a / (x - 1) - 0.5 * last
    factor, power = x, last / a
    for j, bernoulli in enumerate(_BERNOULLI):
        total = total + bernoulli * factor * power
        factor = factor * (x + (2 * j + 1)) * (x + (2 * j + 2))
        power = power / (a * a)
    return total


def zeta(input, other, *, out=None):  # noqa: A002
    """Hurwitz's zeta function ``sum((other + k) ** -input)``; either may be a number."""
    x, q, dtype = _together("zeta", input, other)
    with no_grad():
        pole = (q <= 0) & (q == q.floor())
        wild = (x < 1) | (q <= 0) & ~pole & (x != x.floor())
        proper = (x > 1) & ~pole & ~wild & (x == x) & (q == q)
        y = _zeta(_where(proper, x, 2.0), _where(proper, q, 1.0).clamp(min=-1e4))
        y = _where(proper, y, _where(wild | (x != x) | (q != q), _NAN, _INF))
    return _given("zeta", y.to(dtype), out)


# Orthogonal polynomials --------------------------------------------------------------------------


def _polynomial(name, title, first, step, shifted=False):
    """``p[0] = 1, p[1] = first(x), p[k + 1] = step(k, x, p[k], p[k - 1])`` at degrees ``n``."""

    def function(input, n, *, out=None):  # noqa: A002
        x, n, dtype = _together(name, input, n)
        with no_grad():
            n = n.trunc()
            z = 2 * x - 1 if shifted else x
            before, now = x * 0 + 1, first(z)
            y = _where(n == 0, before, _where(n == 1, now, 0.0))
            most = int(n.max().item()) if n.numel() else 0
            for k in range(1, most):
                before, now = now, step(k, z, now, before)
                y = _where(n == k + 1, now, y)
        return _given(name, y.to(dtype), out)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{title} of degree ``n`` at ``input``; 0 where n is negative.

    Either may be a number; a tensor of degrees broadcasts. Not differentiable, as in PyTorch.
    """
    return function


def _chebyshev(k, x, p, q):
    return 2 * x * p - q


def _define_polynomials():
    found = {}
    starts = {"t": lambda x: x, "u": lambda x: 2 * x, "v": lambda x: 2 * x - 1,
              "w": lambda x: 2 * x + 1}  # fmt: skip
    for letter, first in starts.items():
        for prefix, words in (("", "Chebyshev's"), ("shifted_", "The shifted Chebyshev")):
            name = f"{prefix}chebyshev_polynomial_{letter}"
            title = f"{words} polynomial {letter.upper()}"
            found[name] = _polynomial(name, title, first, _chebyshev, bool(prefix))
    others = {
        "hermite_polynomial_h": ("Hermite's polynomial (of physics)", lambda x: 2 * x,
                                 lambda k, x, p, q: 2 * x * p - 2 * k * q),
        "hermite_polynomial_he": ("Hermite's polynomial (of probability)", lambda x: x,
                                  lambda k, x, p, q: x * p - k * q),
        "laguerre_polynomial_l": ("Laguerre's polynomial", lambda x: 1 - x,
                                  lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)),
        "legendre_polynomial_p": ("Legendre's polynomial", lambda x: x,
                                  lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1)),
    }  # fmt: skip
    for name, (title, first, step) in others.items():
        found[name] = _polynomial(name, title, first, step)
    return found


#: Names of ``facula.special``.
SPECIAL = {"gammainc": igamma, "gammaincc": igammac, "zeta": zeta, **_define_polynomials()}
