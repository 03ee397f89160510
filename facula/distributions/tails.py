"""Distributions of real numbers with heavy tails, and of angles."""

import math

from facula.distributions import constraints
from facula.distributions.distribution import (
    Simple,
)
from facula.special import i0e, i1e
from facula.tensor import (
    digamma,
    inf,
    lgamma,
    nan,
    no_grad,
    rand_like,
    where,
)
from facula.tensor.rejection import standard_gamma

__all__ = [
    "FisherSnedecor",
    "GeneralizedPareto",
    "Pareto",
    "StudentT",
    "VonMises",
]


class StudentT(Simple):
    """Student's distribution of ``df`` degrees of freedom."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real,
                       "scale": constraints.positive}  # fmt: skip
    support, has_rsample = constraints.real, True

    def __init__(self, df, loc=0.0, scale=1.0, validate_args=None):
        super().__init__(df, loc, scale, validate_args=validate_args)

    @property
    def mean(self):
        return where(self.df > 1, self.loc, nan)

    @property
    def mode(self):
        return self.loc

    @property
    def variance(self):
        wide = where(self.df > 1, inf, nan)
        return where(self.df > 2, self.scale.square() * self.df / (self.df - 2), wide)

    def rsample(self, sample_shape=()):
        z = self._new("normal_", sample_shape, 0.0, 1.0)
        chi = 2 * standard_gamma((self.df / 2).expand(z.shape))
        return self.loc + self.scale * z * (chi / self.df).rsqrt()

    def log_prob(self, value):
        self._validate_sample(value)
        y = (value - self.loc) / self.scale
        norm = self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi)
        norm = norm + lgamma(0.5 * self.df) - lgamma(0.5 * (self.df + 1.0))
        return -0.5 * (self.df + 1.0) * (y.square() / self.df).log1p() - norm

    def entropy(self):
        half, more = self.df / 2, (self.df + 1) / 2
        log_beta = lgamma(half) + math.lgamma(0.5) - lgamma(half + 0.5)
        return (self.scale.log() + more * (digamma(more) - digamma(half)) + 0.5 * self.df.log()
                + log_beta)  # fmt: skip


class FisherSnedecor(Simple):
    """The ratio of two chi-squared numbers, each over its degrees of freedom."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support, has_rsample = constraints.positive, True

    def __init__(self, df1, df2, validate_args=None):
        super().__init__(df1, df2, validate_args=validate_args)

    @property
    def mean(self):
        return where(self.df2 > 2, self.df2 / (self.df2 - 2), nan)

    @property
    def mode(self):
        y = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 > 2, y, nan)

    @property
    def variance(self):
        a, b = self.df1, self.df2
        y = 2 * b.square() * (a + b - 2) / (a * (b - 2).square() * (b - 4))
        return where(b > 4, y, nan)

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        x, y = (standard_gamma((d / 2).expand(shape)) for d in (self.df1, self.df2))
        return (x / self.df1 / (y / self.df2)).clamp(min=1.1754943508222875e-38)

    def log_prob(self, value):
        self._validate_sample(value)
        a, b = self.df1 * 0.5, self.df2 * 0.5
        ratio = self.df1 / self.df2
        t = lgamma(a + b) - lgamma(a) - lgamma(b)
        return t + a * ratio.log() + (a - 1) * value.log() - (a + b) * (ratio * value).log1p()


class Pareto(Simple):
    """Density ``alpha scale^alpha / x^(alpha + 1)`` above ``scale``."""

    arg_constraints = {"scale": constraints.positive, "alpha": constraints.positive}
    has_rsample = True

    def __init__(self, scale, alpha, validate_args=None):
        super().__init__(scale, alpha, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        """From scale up."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self):
        return where(self.alpha > 1, self.alpha * self.scale / (self.alpha - 1), inf)

    @property
    def mode(self):
        return self.scale

    @property
    def variance(self):
        a = self.alpha
        return where(a > 2, self.scale.square() * a / ((a - 1).square() * (a - 2)), inf)

    def rsample(self, sample_shape=()):
        return self.scale * (self._new("exponential_", sample_shape) / self.alpha).exp()

    def log_prob(self, value):
        self._validate_sample(value)
        return self.alpha.log() + self.alpha * self.scale.log() - (self.alpha + 1) * value.log()

    def cdf(self, value):
        self._validate_sample(value)
        return 1 - (self.scale / value).pow(self.alpha)

    def icdf(self, value):
        return self.scale / (1 - value).pow(1 / self.alpha)

    def entropy(self):
        return (self.scale / self.alpha).log() + 1 + self.alpha.reciprocal()


class GeneralizedPareto(Simple):
    """Density ``(1 + c z)^(-1 / c - 1) / scale`` with ``z = (x - loc) / scale``."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive,
                       "concentration": constraints.real}  # fmt: skip
    has_rsample = True

    def __init__(self, loc, scale, concentration, validate_args=None):
        super().__init__(loc, scale, concentration, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        """From loc up, or to where the density ends."""
        top = self.loc - self.scale / self.concentration
        return constraints.interval(self.loc, where(self.concentration < 0, top, inf))

    @property
    def mean(self):
        c = self.concentration
        return where(c < 1, self.loc + self.scale / (1 - c), inf)

    @property
    def mode(self):
        return self.loc

    @property
    def variance(self):
        c = self.concentration
        return where(c < 0.5, self.scale.square() / ((1 - c).square() * (1 - 2 * c)), inf)

    def _apart(self):
        """The concentration, and where it is 0 in effect."""
        zero = self.concentration.abs() < 1e-7
        return where(zero, 1.0, self.concentration), zero

    def icdf(self, value):
        c, zero = self._apart()
        log = (-value).log1p()
        return self.loc + self.scale * where(zero, -log, (-c * log).expm1() / c)

    def rsample(self, sample_shape=()):
        return self.icdf(self._new("uniform_", sample_shape))

    def log_prob(self, value):
        self._validate_sample(value)
        z, (c, zero) = (value - self.loc) / self.scale, self._apart()
        y = where(zero, z, (1 + 1 / c) * (c * z).log1p())
        return -self.scale.log() - y

    def cdf(self, value):
        self._validate_sample(value)
        z, (c, zero) = (value - self.loc) / self.scale, self._apart()
        return -where(zero, -z, -(c * z).log1p() / c).expm1()

    def entropy(self):
        return self.scale.log() + self.concentration + 1


class VonMises(Simple):
    """The normal distribution of angles: density ``exp(k cos(x - loc)) / (2 pi I0(k))``.

    Samples by the rejection of Best and Fisher (1979), without gradients.
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc, concentration, validate_args=None):
        super().__init__(loc, concentration, validate_args=validate_args)

    @property
    def mean(self):
        return self.loc

    @property
    def mode(self):
        return self.loc

    @property
    def variance(self):
        return 1 - i1e(self.concentration) / i0e(self.concentration)

    @no_grad()
    def sample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        k = self.concentration.double().expand(shape)
        tau = 1 + (1 + 4 * k * k).sqrt()
        rho = (tau - (2 * tau).sqrt()) / (2 * k)
        r = where(k < 1e-5, 1 / k + k, (1 + rho * rho) / (2 * rho))
        x, done = k.new_zeros(shape), k.new_zeros(shape) != 0
        while not done.all().item():
            u, v, w = rand_like(k), rand_like(k), rand_like(k)
            z = (math.pi * u).cos()
            f = (1 + r * z) / (r + z)
            c = k * (r - f)
            accept = (c * (2 - c) - v > 0) | ((c / v).log() + 1 - c >= 0)
            angle = (w - 0.5).sign() * f.clamp(-1, 1).acos()
            x, done = where(accept & ~done, angle, x), done | accept
        x = (x + math.pi + self.loc.double()) % (2 * math.pi) - math.pi
        return x.to(self.loc.dtype)

    def log_prob(self, value):
        self._validate_sample(value)
        k = self.concentration
        return k * ((value - self.loc).cos() - 1) - math.log(2 * math.pi) - i0e(k).log()
