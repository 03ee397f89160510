"""Kullback and Leibler's divergence: ``E_p[log p - log q]``, by formulas registered for pairs."""

import math

from facula.distributions.composed import Gumbel, Independent, LogNormal, TransformedDistribution
from facula.distributions.continuous import (
    Beta,
    Cauchy,
    Exponential,
    Gamma,
    HalfNormal,
    Laplace,
    Normal,
    Uniform,
)
from facula.distributions.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    Geometric,
    OneHotCategorical,
    Poisson,
)
from facula.distributions.distribution import EULER, sum_rightmost
from facula.distributions.multivariate import (
    Dirichlet,
    LowRankMultivariateNormal,
    MultivariateNormal,
    _log_det_half,
    _mahalanobis,
)
from facula.distributions.tails import Pareto
from facula.linalg import solve_triangular
from facula.tensor import digamma, inf, lgamma, where

__all__ = ["kl_divergence", "register_kl"]

_FORMULAS: dict = {}


def register_kl(type_p, type_q):
    """A decorator: the function computes the divergence of such a pair, or of subclasses."""

    def decorator(function):
        _FORMULAS[type_p, type_q] = function
        return function

    return decorator


def kl_divergence(p, q):
    """``E_p[log p - log q]``, of the batch's shape.

    Raises:
        NotImplementedError: there is no formula for such a pair.

    >>> from facula.distributions import Normal
    >>> kl_divergence(Normal(0.0, 1.0), Normal(1.0, 1.0)).item()
    0.5
    """
    fits = [
        (type(p).__mro__.index(a) + type(q).__mro__.index(b), function)
        for (a, b), function in _FORMULAS.items()
        if isinstance(p, a) and isinstance(q, b)
    ]
    if not fits:
        raise NotImplementedError(
            f"No KL(p || q) is implemented for p type {type(p).__name__} and q type "
            f"{type(q).__name__}"
        )
    return min(fits, key=lambda fit: fit[0])[1](p, q)


def _x_log_ratio(p, q):
    """``p log(p / q)``, 0 where p is 0 and infinite where only q is."""
    y = where(p == 0, 0.0, p * (where(p == 0, 1.0, p) / where(q == 0, 1.0, q)).log())
    return where((q == 0) & (p != 0), inf, y)


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p, q):
    return _x_log_ratio(p.probs, q.probs) + _x_log_ratio(1 - p.probs, 1 - q.probs)


@register_kl(Binomial, Binomial)
def _binomial(p, q):
    if (p.total_count < q.total_count).any().item():
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is not "
                                  "implemented")  # fmt: skip
    y = p.total_count * (p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p())
    return where(p.total_count > q.total_count, inf, y)


@register_kl(Categorical, Categorical)
def _categorical(p, q):
    t = p.probs * (p.logits - q.logits)
    t = where(q.probs == 0, inf, t)
    return where(p.probs == 0, 0.0, t).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot(p, q):
    return _categorical(p._categorical, q._categorical)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p, q):
    first = p.mean * (p.logits - q.logits)
    return first + p._log_norm() + (-p.probs).log1p() - q._log_norm() - (-q.probs).log1p()


@register_kl(Geometric, Geometric)
def _geometric(p, q):
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p, q):
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Normal, Normal)
def _normal(p, q):
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p, q):
    return _normal(p._whole(), q._whole())


@register_kl(LogNormal, LogNormal)
def _log_normal(p, q):
    return _normal(p.base_dist, q.base_dist)


@register_kl(Laplace, Laplace)
def _laplace(p, q):
    ratio, far = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + far / q.scale + ratio * (-far / p.scale).exp() - 1


@register_kl(Cauchy, Cauchy)
def _cauchy(p, q):
    top = (p.scale + q.scale).square() + (p.loc - q.loc).square()
    return top.log() - (4 * p.scale * q.scale).log()


@register_kl(Uniform, Uniform)
def _uniform(p, q):
    y = ((q.high - q.low) / (p.high - p.low)).log()
    return where((q.low > p.low) | (q.high < p.high), inf, y)


@register_kl(Exponential, Exponential)
def _exponential(p, q):
    ratio = q.rate / p.rate
    return -ratio.log() + ratio - 1


@register_kl(Pareto, Pareto)
def _pareto(p, q):
    y = q.alpha * (p.scale / q.scale).log() - (q.alpha / p.alpha).log() + q.alpha / p.alpha - 1
    return where(p.scale < q.scale, inf, y)


@register_kl(Gamma, Gamma)
def _gamma(p, q):
    a, b = p.concentration, q.concentration
    y = b * (p.rate / q.rate).log() + lgamma(b) - lgamma(a)
    return y + (a - b) * digamma(a) + (q.rate - p.rate) * (a / p.rate)


@register_kl(Beta, Beta)
def _beta(p, q):
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    y = lgamma(c) + lgamma(d) + lgamma(a + b) - lgamma(c + d) - lgamma(a) - lgamma(b)
    y = y + (a - c) * digamma(a) + (b - d) * digamma(b)
    return y + (c + d - a - b) * digamma(a + b)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p, q):
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    y = lgamma(total) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1)
    return y + ((a - b) * (digamma(a) - digamma(total).unsqueeze(-1))).sum(-1)


@register_kl(Gumbel, Gumbel)
def _gumbel(p, q):
    ratio, shift = p.scale / q.scale, (q.loc - p.loc) / q.scale
    return -ratio.log() - shift + ratio * EULER + (shift + lgamma(1 + ratio)).exp() - (1 + EULER)


def _vectors(p_lower, q_lower, d):
    n = d.shape[-1]
    shape = (*(p_lower @ q_lower).shape[:-2], n, n)
    m = solve_triangular(q_lower.expand(shape), p_lower.expand(shape), upper=False)
    y = _log_det_half(q_lower) - _log_det_half(p_lower)
    return y + 0.5 * (m.square().sum((-2, -1)) + _mahalanobis(q_lower, d) - n)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p, q):
    return _vectors(p._lower, q._lower, q.loc - p.loc)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_kl(LowRankMultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _low_rank(p, q):
    return _vectors(p.scale_tril, q.scale_tril, q.loc - p.loc)


@register_kl(Normal, Laplace)
def _normal_laplace(p, q):
    d = p.loc - q.loc
    z = d / p.scale
    near = math.sqrt(2 / math.pi) * p.scale * (-0.5 * z * z).exp() + d * (z / math.sqrt(2)).erf()
    return (
        (q.scale / p.scale).log() + near / q.scale + math.log(2) - 0.5 * math.log(2 * math.pi) - 0.5
    )


@register_kl(Uniform, Normal)
def _uniform_normal(p, q):
    width, middle = p.high - p.low, (p.high + p.low - 2 * q.loc) / 2
    y = 0.5 * math.log(2 * math.pi) + q.scale.log() - width.log()
    return y + (width.square() / 12 + middle.square()) / (2 * q.scale.square())


@register_kl(Exponential, Gamma)
def _exponential_gamma(p, q):
    ratio = q.rate / p.rate
    b = q.concentration
    return -b * ratio.log() + ratio + lgamma(b) + b * EULER - (1 + EULER)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p, q):
    return -p.entropy() - q.rate.log() + q.rate * p.concentration / p.rate


@register_kl(Independent, Independent)
def _independent(p, q):
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("KL between Independents of different reinterpreted_batch_ndims")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p, q):
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("KL between TransformedDistributions of different transforms")
    return kl_divergence(p.base_dist, q.base_dist)
