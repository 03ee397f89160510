"""Distributions of real numbers with scalar parameters."""

import math

from facula.base.errors import ArgumentError, fail
from facula.distributions import constraints
from facula.distributions.distribution import (
    HALF_LOG_2PI,
    ExponentialFamily,
    Simple,
    tensors,
)
from facula.tensor import (
    Tensor,
    digamma,
    erf,
    erfinv,
    igamma,
    inf,
    lgamma,
    nan,
    where,
)
from facula.tensor.rejection import standard_gamma

__all__ = [
    "Beta",
    "Cauchy",
    "Chi2",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "InverseGamma",
    "Laplace",
    "Normal",
    "Uniform",
]


class _Located(Simple):
    """``loc + scale * z`` of a standard ``z``."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support, has_rsample = constraints.real, True

    def __init__(self, loc, scale, validate_args=None):
        super().__init__(loc, scale, validate_args=validate_args)

    @property
    def mean(self):
        return self.loc

    @property
    def mode(self):
        return self.loc


class Normal(_Located, ExponentialFamily):
    """Gauss's distribution of mean ``loc`` and standard deviation ``scale``.

    >>> from facula import tensor
    >>> round(Normal(0.0, 1.0).log_prob(tensor(0.0)).item(), 4)
    -0.9189
    """

    @property
    def stddev(self):
        return self.scale

    @property
    def variance(self):
        return self.scale.square()

    def rsample(self, sample_shape=()):
        return self.loc + self._new("normal_", sample_shape, 0.0, 1.0) * self.scale

    def log_prob(self, value):
        self._validate_sample(value)
        z = (value - self.loc) / self.scale
        return -0.5 * z * z - self.scale.log() - HALF_LOG_2PI

    def cdf(self, value):
        self._validate_sample(value)
        return 0.5 * (1 + erf((value - self.loc) / (self.scale * math.sqrt(2))))

    def icdf(self, value):
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self):
        return 0.5 + HALF_LOG_2PI + self.scale.log()


class Laplace(_Located):
    """Density ``exp(-|x - loc| / scale) / (2 scale)``."""

    @property
    def variance(self):
        return 2 * self.scale.square()

    @property
    def stddev(self):
        return math.sqrt(2) * self.scale

    def rsample(self, sample_shape=()):
        u = self._new("uniform_", sample_shape, -1 + 1e-7, 1)
        return self.loc - self.scale * u.sign() * (-u.abs().clamp(max=1 - 1e-7)).log1p()

    def log_prob(self, value):
        self._validate_sample(value)
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value):
        self._validate_sample(value)
        d = value - self.loc
        return 0.5 - 0.5 * d.sign() * (-d.abs() / self.scale).expm1()

    def icdf(self, value):
        term = value - 0.5
        return self.loc - self.scale * term.sign() * (-2 * term.abs()).log1p()

    def entropy(self):
        return 1 + (2 * self.scale).log()


class Cauchy(_Located):
    """Density ``1 / (pi scale (1 + ((x - loc) / scale)^2))``; it has no mean."""

    @property
    def mean(self):
        return self.loc * nan

    @property
    def variance(self):
        return self.loc.new_full(self.loc.shape, inf)

    def rsample(self, sample_shape=()):
        return self.loc + self._new("cauchy_", sample_shape) * self.scale

    def log_prob(self, value):
        self._validate_sample(value)
        z = (value - self.loc) / self.scale
        return -math.log(math.pi) - self.scale.log() - (z * z).log1p()

    def cdf(self, value):
        self._validate_sample(value)
        return ((value - self.loc) / self.scale).atan() / math.pi + 0.5

    def icdf(self, value):
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self):
        return math.log(4 * math.pi) + self.scale.log()


class _Half(Simple):
    """The absolute value of a distribution around 0."""

    arg_constraints = {"scale": constraints.positive}
    support, has_rsample = constraints.nonnegative, True
    base: type

    def __init__(self, scale, validate_args=None):
        super().__init__(scale, validate_args=validate_args)

    def _whole(self):
        return self.base(self.scale.new_zeros(()), self.scale, validate_args=False)

    @property
    def mode(self):
        return self.scale.new_zeros(self.scale.shape)

    def rsample(self, sample_shape=()):
        return self._whole().rsample(sample_shape).abs()

    def log_prob(self, value):
        self._validate_sample(value)
        y = self._whole().log_prob(value) + math.log(2)
        return where(value >= 0, y, -inf)

    def cdf(self, value):
        self._validate_sample(value)
        return 2 * self._whole().cdf(value) - 1

    def icdf(self, value):
        return self._whole().icdf((value + 1) / 2)

    def entropy(self):
        return self._whole().entropy() - math.log(2)


class HalfNormal(_Half):
    """``|x|`` of a normal ``x`` of mean 0 and standard deviation ``scale``."""

    base = Normal

    @property
    def mean(self):
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self):
        return self.scale.square() * (1 - 2 / math.pi)


class HalfCauchy(_Half):
    """``|x|`` of a Cauchy ``x`` around 0."""

    base = Cauchy

    @property
    def mean(self):
        return self.scale.new_full(self.scale.shape, inf)

    @property
    def variance(self):
        return self.scale.square() * inf


class Uniform(Simple):
    """Even on [low, high)."""

    arg_constraints = {"low": constraints.dependent, "high": constraints.dependent}
    has_rsample = True

    def __init__(self, low, high, validate_args=None):
        super().__init__(low, high, validate_args=validate_args)
        if self._validate_args and not (self.low < self.high).all().item():
            fail(ArgumentError, "Uniform", "Uniform is not defined when low >= high")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        """[low, high]."""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self):
        return (self.high + self.low) / 2

    @property
    def mode(self):
        return nan * self.high

    @property
    def stddev(self):
        return (self.high - self.low) / math.sqrt(12)

    @property
    def variance(self):
        return (self.high - self.low).square() / 12

    def rsample(self, sample_shape=()):
        return self.low + self._new("uniform_", sample_shape) * (self.high - self.low)

    def log_prob(self, value):
        self._validate_sample(value)
        inside = (value >= self.low) & (value < self.high)
        return inside.to(self.low.dtype).log() - (self.high - self.low).log()

    def cdf(self, value):
        self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value):
        return value * (self.high - self.low) + self.low

    def entropy(self):
        return (self.high - self.low).log()


class Exponential(Simple, ExponentialFamily):
    """Density ``rate exp(-rate x)``."""

    arg_constraints = {"rate": constraints.positive}
    support, has_rsample = constraints.nonnegative, True

    def __init__(self, rate, validate_args=None):
        super().__init__(rate, validate_args=validate_args)

    @property
    def mean(self):
        return self.rate.reciprocal()

    @property
    def mode(self):
        return self.rate.new_zeros(self.rate.shape)

    @property
    def stddev(self):
        return self.rate.reciprocal()

    @property
    def variance(self):
        return self.rate.pow(-2)

    def rsample(self, sample_shape=()):
        return self._new("exponential_", sample_shape) / self.rate

    def log_prob(self, value):
        self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value):
        self._validate_sample(value)
        return -(-self.rate * value).expm1()

    def icdf(self, value):
        return -(-value).log1p() / self.rate

    def entropy(self):
        return 1.0 - self.rate.log()


class Gamma(Simple, ExponentialFamily):
    """Density ``rate^a x^(a - 1) exp(-rate x) / Gamma(a)`` with ``a`` the concentration.

    Samples are differentiable in both parameters (Figurnov, 2018).
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support, has_rsample = constraints.nonnegative, True

    def __init__(self, concentration, rate, validate_args=None):
        super().__init__(concentration, rate, validate_args=validate_args)

    @property
    def mean(self):
        return self.concentration / self.rate

    @property
    def mode(self):
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self):
        return self.concentration / self.rate.square()

    def rsample(self, sample_shape=()):
        a = self.concentration.expand(self._extended_shape(sample_shape))
        value = standard_gamma(a) / self.rate
        return value.clamp(min=1.1754943508222875e-38)

    def log_prob(self, value):
        self._validate_sample(value)
        a = self.concentration
        powers = (a - 1).xlogy(value) if isinstance(value, Tensor) else (a - 1) * math.log(value)
        return a.xlogy(self.rate) + powers - self.rate * value - lgamma(a)

    def cdf(self, value):
        self._validate_sample(value)
        return igamma(self.concentration, self.rate * value)

    def entropy(self):
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1.0 - a) * digamma(a)


class Chi2(Gamma):
    """The sum of ``df`` squares of standard normal numbers."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df, validate_args=None):
        df = tensors(df)[0]
        self.concentration, self.rate = 0.5 * df, df.new_full(df.shape, 0.5)
        self.df = df
        super(Simple, self).__init__(df.shape, validate_args=validate_args)

    def _expand_more(self, new, batch_shape):
        new.concentration = self.concentration.expand(batch_shape)
        new.rate = self.rate.expand(batch_shape)


class InverseGamma(Simple):
    """``1 / x`` of a gamma-distributed ``x``."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support, has_rsample = constraints.positive, True

    def __init__(self, concentration, rate, validate_args=None):
        super().__init__(concentration, rate, validate_args=validate_args)

    @property
    def mean(self):
        a = self.concentration
        return where(a > 1, self.rate / (a - 1), inf)

    @property
    def mode(self):
        return self.rate / (self.concentration + 1)

    @property
    def variance(self):
        a = self.concentration
        return where(a > 2, self.rate.square() / ((a - 1).square() * (a - 2)), inf)

    def rsample(self, sample_shape=()):
        return Gamma.rsample(self, sample_shape).reciprocal()

    def log_prob(self, value):
        self._validate_sample(value)
        a = self.concentration
        return a * self.rate.log() - (a + 1) * value.log() - self.rate / value - lgamma(a)

    def entropy(self):
        a = self.concentration
        return a + self.rate.log() + lgamma(a) - (1 + a) * digamma(a)


class Beta(Simple, ExponentialFamily):
    """Density ``x^(a - 1) (1 - x)^(b - 1) / B(a, b)`` on [0, 1]."""

    arg_constraints = {"concentration1": constraints.positive,
                       "concentration0": constraints.positive}  # fmt: skip
    support, has_rsample = constraints.unit_interval, True

    def __init__(self, concentration1, concentration0, validate_args=None):
        super().__init__(concentration1, concentration0, validate_args=validate_args)

    @property
    def mean(self):
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self):
        a, b = self.concentration1, self.concentration0
        both = (a > 1) & (b > 1)
        y = where(both, (a - 1) / (a + b - 2), where(a > b, 1.0, 0.0))
        return where((a < 1) & (b < 1) | (a == b) & ~both, nan, y)

    @property
    def variance(self):
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.square() * (total + 1))

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        x, y = (standard_gamma(c.expand(shape)) for c in (self.concentration1, self.concentration0))
        return (x / (x + y)).clamp(1.1754943508222875e-38, 1 - 6e-8)

    def log_prob(self, value):
        self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        norm = lgamma(a + b) - lgamma(a) - lgamma(b)
        return (a - 1).xlogy(value) + (b - 1).xlogy(1 - value) + norm

    def entropy(self):
        a, b = self.concentration1, self.concentration0
        total, norm = a + b, lgamma(a) + lgamma(b) - lgamma(a + b)
        return norm - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (total - 2) * digamma(total)
