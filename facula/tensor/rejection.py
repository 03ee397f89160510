"""Random numbers by rejection: gamma, Poisson and binomial ones, in rounds until all are accepted.

Gamma: Marsaglia and Tsang, "A simple method for generating gamma variables" (2000), differentiable
by implicit reparameterization (Figurnov, Mohamed and Mnih, 2018). Poisson and binomial: products
and waiting times for few events, Hörmann's transformed rejection (1993) for many.
"""

from __future__ import annotations

from facula.base.errors import ShapeError, fail
from facula.eager.grad_mode import no_grad
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.tensor.functions import function_of
from facula.tensor.lapack import differentiable

__all__ = ["binomial", "poisson"]

#: From here on the gamma quantile's slope is taken from Wilson and Hilferty's cube (1931).
_LARGE = 200.0


def _where(condition, a, b):
    return function_of(OPS["where"])(condition, a, b)


def _uniform(like, generator=None):
    """Uniform numbers in (0, 1], of the shape and dtype of a tensor."""
    x = like.new_empty(like.shape)
    return 1 - x.uniform_(0.0, 1.0, generator=generator)


# Gamma -------------------------------------------------------------------------------------------


def standard_gamma(alpha, generator=None) -> Tensor:
    """Gamma numbers of the shapes ``alpha`` and rate 1, of alpha's size; differentiable once."""
    with no_grad():
        y = _gamma_numbers(alpha.detach().double(), generator).to(alpha.dtype)

    def rule(gs, ys, xs):
        with no_grad():
            slope = _gamma_slope(xs[0].detach().double(), ys[0].detach().double())
        return (gs[0] * slope.to(alpha.dtype),)

    return differentiable("StandardGamma", rule, lambda a: y, (alpha,), (y,))


def _gamma_numbers(a, generator):
    boosted = _where(a < 1, a + 1, a)
    d = boosted - 1 / 3
    c = (9 * d).rsqrt()
    y, done = a.new_zeros(a.shape), a != a
    while not done.all().item():
        z = a.new_empty(a.shape).normal_(0.0, 1.0, generator=generator)
        v = (1 + c * z) ** 3
        inside = v > 0
        v = _where(inside, v, 1.0)
        bound = 0.5 * z * z + d - d * v + d * v.log()
        accepted = inside & (_uniform(a, generator).log() < bound) & ~done
        y, done = _where(accepted, d * v, y), done | accepted
    lift = _uniform(a, generator).log() / a
    return _where(a < 1, y * lift.exp(), y)


def _gamma_slope(a, x):
    """How the number ``x`` changes with its shape ``a`` at the same quantile.

    By the series of the distribution function, term by term differentiated and divided by the
    density; all terms there are positive but for one slowly changing factor.
    """
    large, safe = a > _LARGE, x.clamp(min=1e-300)
    z = 3 * a.sqrt() * ((safe / a).pow(1 / 3) - 1 + 1 / (9 * a))
    root = a.sqrt()
    cube = 1 - 1 / (9 * a) + z / (3 * root)
    far = cube**3 + 3 * a * cube.square() * (1 / (9 * a * a) - z / (6 * a * root))
    b, w = _where(large, 1.0, a), _where(large, 1.0, safe)
    term, factor = w / b, w.log() - (b + 1).digamma()
    total, k = term * factor, 1
    while True:
        term, factor = term * (w / (b + k)), factor - 1 / (b + k)
        step = term * factor
        total, k = total + step, k + 1
        if k % 16 == 0 and not ((step.abs() > 1e-14 * total.abs()) & (term > 0)).any().item():
            break
    return _where(large, far, -total)


# Poisson -----------------------------------------------------------------------------------------


def poisson(input, generator=None) -> Tensor:  # noqa: A002
    """Poisson numbers with the rates ``input``, of its dtype and shape.

    Raises:
        RuntimeError: a negative rate.
    """
    need_tensor("poisson", input)
    with no_grad():
        if input.numel() and (input < 0).any().item():
            fail(ShapeError, "poisson", "invalid Poisson rate, expected rate to be non-negative")
        rate = input.detach().double()
        y = _where(rate < 10, _few(rate.clamp(max=10.0), generator),
                   _many(rate.clamp(min=10.0), generator))  # fmt: skip
        return y.to(input.dtype)


def _few(rate, generator):
    """How many uniform numbers can be multiplied before the product falls below ``exp(-rate)``."""
    product, count, limit = _uniform(rate, generator), rate * 0, (-rate).exp()
    while (product > limit).any().item():
        going = product > limit
        count = count + going.double()
        product = _where(going, product * _uniform(rate, generator), product)
    return count


def _many(rate, generator):
    """Hörmann's PTRS, for rates of at least 10."""
    b = 0.931 + 2.53 * rate.sqrt()
    a = -0.059 + 0.02483 * b
    inverse, v_r, log_rate = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2), rate.log()
    y, done = rate * 0, rate != rate
    while not done.all().item():
        u, v = _uniform(rate, generator) - 0.5, _uniform(rate, generator)
        us = 0.5 - u.abs()
        k = ((2 * a / us + b) * u + rate + 0.43).floor()
        quick = (us >= 0.07) & (v <= v_r)
        out = (k < 0) | (us < 0.013) & (v > us)
        slow = (v * inverse / (a / (us * us) + b)).log() <= k * log_rate - rate - (
            k.clamp(min=0.0) + 1
        ).lgamma()
        accepted = (quick | ~out & slow) & ~done
        y, done = _where(accepted, k, y), done | accepted
    return y


# Binomial ----------------------------------------------------------------------------------------


def binomial(count, prob, generator=None) -> Tensor:
    """How many of ``count`` trials succeed with probability ``prob``; both of one float dtype.

    Raises:
        RuntimeError: negative counts, or probabilities outside of [0, 1].
    """
    need_tensor("binomial", count, prob)
    if count.dtype is not prob.dtype or not count.dtype.is_floating_point:
        fail(ShapeError, "binomial", "expected count and prob of the same floating dtype, got "
             f"{count.dtype.name} and {prob.dtype.name}")  # fmt: skip
    with no_grad():
        n, p = _together(count.detach().double(), prob.detach().double())
        if n.numel() and ((n < 0) | (p < 0) | (p > 1)).any().item():
            fail(
                ShapeError, "binomial", "expected counts of at least 0 and probabilities in [0, 1]"
            )
        n, flipped = n.floor(), p > 0.5
        q = _where(flipped, 1 - p, p)
        few = n * q < 10
        y = _where(few, _waiting(_where(few, n, 0.0), q, generator),
                   _transformed(_where(few, 40.0, n), _where(few, 0.5, q), generator))  # fmt: skip
        return _where(flipped, n - y, y).to(count.dtype)


def _together(a, b):
    """Two tensors expanded to one shape."""
    shape = function_of(OPS["add"])(a, b).shape
    return a.expand(shape), b.expand(shape)


def _waiting(n, p, generator):
    """Successes counted by the numbers of trials between them, for few of them."""
    position, count = n * 0, n * 0
    log_failure = _where(p > 0, (-p).log1p(), -1e-300)
    going = n > 0
    while going.any().item():
        position = position + (_uniform(n, generator).log() / log_failure).floor() + 1
        going = going & (position <= n)
        count = count + going.double()
    return count


def _transformed(n, p, generator):
    """Hörmann's BTRS, for ``n p`` of at least 10 and ``p`` of at most 1/2."""
    sigma = (n * p * (1 - p)).sqrt()
    b = 1.15 + 2.53 * sigma
    a, c = -0.0873 + 0.0248 * b + 0.01 * p, n * p + 0.5
    v_r, alpha, m = 0.92 - 4.2 / b, (2.83 + 5.1 / b) * sigma, ((n + 1) * p).floor()
    odds = (p / (1 - p)).log()
    y, done = n * 0, n != n
    while not done.all().item():
        u, v = _uniform(n, generator) - 0.5, _uniform(n, generator)
        us = 0.5 - u.abs()
        k = ((2 * a / us + b) * u + c).floor()
        inside = (k >= 0) & (k <= n)
        kk = k.clamp(min=0.0).minimum(n)
        bound = (m + 1).lgamma() + (n - m + 1).lgamma() - (kk + 1).lgamma()
        bound = bound - (n - kk + 1).lgamma() + (kk - m) * odds
        slow = (v * alpha / (a / (us * us) + b)).log() <= bound
        accepted = inside & ((us >= 0.07) & (v <= v_r) | slow) & ~done
        y, done = _where(accepted, k, y), done | accepted
    return y
