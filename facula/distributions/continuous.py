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
from facula.special import i0e, i1e
from facula.tensor import (
    Tensor,
    digamma,
    erf,
    erfinv,
    igamma,
    inf,
    lgamma,
    nan,
    no_grad,
    rand_like,
    where,
)
from facula.tensor.rejection import standard_gamma

__all__ = [
    "Beta", "Cauchy", "Chi2", "Exponential", "FisherSnedecor", "Gamma", "GeneralizedPareto",
    "HalfCauchy", "HalfNormal", "InverseGamma", "Laplace", "Normal", "Pareto", "StudentT",
    "Uniform", "VonMises",
]  # fmt: skip


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
