"""Distributions of integers and of classes."""

import math

from facula.base.errors import ArgumentError, UnsupportedError, fail
from facula.distributions import constraints
from facula.distributions.continuous import Gamma
from facula.distributions.distribution import (
    Distribution,
    ExponentialFamily,
    clamp_probs,
    lazy_property,
    logits_to_probs,
    need_one,
    probs_to_logits,
    tensors,
)
from facula.nn.functional import (
    binary_cross_entropy_with_logits,
    logsigmoid,
    one_hot,
)
from facula.tensor import (
    Size,
    arange,
    bernoulli,
    binomial,
    broadcast_tensors,
    eye,
    lgamma,
    multinomial,
    nan,
    no_grad,
    poisson,
    where,
)

__all__ = [
    "Bernoulli", "Binomial", "Categorical", "ContinuousBernoulli", "Geometric", "Multinomial",
    "NegativeBinomial", "OneHotCategorical", "OneHotCategoricalStraightThrough", "Poisson",
]  # fmt: skip


class _Odds(Distribution):
    """Probabilities given as such or as logarithms of odds; the other is made when asked for."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}

    def __init__(self, probs, logits, validate_args, *more):
        need_one(type(self).__name__, probs=probs, logits=logits)
        name, given = ("probs", probs) if logits is None else ("logits", logits)
        found = tensors(given, *more)
        setattr(self, name, found[0])
        for key, value in zip(self._more, found[1:]):
            setattr(self, key, value)
        super().__init__(found[0].shape, validate_args=validate_args)

    _more: tuple = ()

    @property
    def _param(self):
        return vars(self)["probs"] if "probs" in vars(self) else vars(self)["logits"]

    @lazy_property
    def logits(self):
        """The logarithms of the odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self):
        """The probabilities."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def param_shape(self):
        """The shape of the parameter."""
        return self._param.shape

    def _expand_more(self, new, batch_shape):
        for key in self._more:
            setattr(new, key, getattr(self, key).expand(batch_shape))


class Bernoulli(_Odds, ExponentialFamily):
    """1 with the probability ``probs``, else 0.

    >>> from facula import tensor
    >>> Bernoulli(probs=0.25).log_prob(tensor(1.0)).exp().item()
    0.25
    """

    support, has_enumerate_support = constraints.boolean, True

    def __init__(self, probs=None, logits=None, validate_args=None):
        super().__init__(probs, logits, validate_args)

    @property
    def mean(self):
        return self.probs

    @property
    def mode(self):
        return where(self.probs == 0.5, nan, (self.probs >= 0.5).to(self.probs.dtype))

    @property
    def variance(self):
        return self.probs * (1 - self.probs)

    @no_grad()
    def sample(self, sample_shape=()):
        return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value):
        self._validate_sample(value)
        logits, value = broadcast_tensors(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")

    def entropy(self):
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand=True):
        values = arange(2, dtype=self._param.dtype).view(-1, *(1 for _ in self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class ContinuousBernoulli(_Odds, ExponentialFamily):
    """Density ``C(p) p^x (1 - p)^(1 - x)`` on [0, 1] (Loaiza-Ganem and Cunningham, 2019)."""

    support, has_rsample = constraints.unit_interval, True

    def __init__(self, probs=None, logits=None, lims=(0.499, 0.501), validate_args=None):
        self._lims = lims
        super().__init__(probs, logits, validate_args)

    def _expand_more(self, new, batch_shape):
        new._lims = self._lims

    def _off_middle(self):
        """Probabilities, those near 1/2 (where formulas are series) moved aside; and which."""
        p = clamp_probs(self.probs)
        near = (p > self._lims[0]) & (p < self._lims[1])
        return where(near, self._lims[0], p), near, p

    def _log_norm(self):
        p, near, own = self._off_middle()
        low, high = where(p <= 0.5, p, 0.0), where(p >= 0.5, p, 1.0)
        ratio = ((-p).log1p() - p.log()).abs().log()
        width = where(p <= 0.5, (-2.0 * low).log1p(), (2.0 * high - 1.0).log())
        square = (own - 0.5).square()
        return where(near, math.log(2.0) + (4 / 3 + 104 / 45 * square) * square, ratio - width)

    @property
    def mean(self):
        p, near, own = self._off_middle()
        y = p / (2 * p - 1) + 1 / ((-p).log1p() - p.log())
        x = own - 0.5
        return where(near, 0.5 + (1 / 3 + 16 / 45 * x.square()) * x, y)

    @property
    def stddev(self):
        return self.variance.sqrt()

    @property
    def variance(self):
        p, near, own = self._off_middle()
        y = p * (p - 1) / (1 - 2 * p).square() + 1 / ((-p).log1p() - p.log()).square()
        x = (own - 0.5).square()
        return where(near, 1 / 12 - (1 / 15 - 128 / 945 * x) * x, y)

    def icdf(self, value):
        p, near, _ = self._off_middle()
        y = ((-p + value * (2 * p - 1)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p())
        return where(near, value, y)

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        return self.icdf(self._param.new_empty(shape).uniform_(0.0, 1.0))

    sample = Distribution.sample

    def cdf(self, value):
        self._validate_sample(value)
        p, near, _ = self._off_middle()
        y = (p.pow(value) * (1 - p).pow(1 - value) + p - 1) / (2 * p - 1)
        return where(value <= 0, 0.0, where(value >= 1, 1.0, where(near, value, y)))

    def log_prob(self, value):
        self._validate_sample(value)
        logits, value = broadcast_tensors(self.logits, value)
        y = -binary_cross_entropy_with_logits(logits, value, reduction="none")
        return y + self._log_norm()

    def entropy(self):
        log0, log1 = (-self.probs).log1p(), self.probs.log()
        return self.mean * (log0 - log1) - self._log_norm() - log0


class Geometric(_Odds):
    """How many trials fail before one succeeds."""

    support = constraints.nonnegative_integer

    def __init__(self, probs=None, logits=None, validate_args=None):
        super().__init__(probs, logits, validate_args)
        if self._validate_args and probs is not None and not (self.probs > 0).all().item():
            fail(ArgumentError, "Geometric", "Expected parameter probs to be positive")

    @property
    def mean(self):
        return 1.0 / self.probs - 1.0

    @property
    def mode(self):
        return self.probs.new_zeros(self.probs.shape)

    @property
    def variance(self):
        return (1.0 / self.probs - 1.0) / self.probs

    @no_grad()
    def sample(self, sample_shape=()):
        u = self.probs.new_empty(self._extended_shape(sample_shape)).uniform_(1.2e-38, 1.0)
        return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value):
        self._validate_sample(value)
        value, probs = broadcast_tensors(value, self.probs)
        probs = where((probs == 1) & (value == 0), 0.0, probs)
        return value * (-probs).log1p() + self.probs.log()

    def entropy(self):
        return (
            binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs
        )


class Binomial(_Odds):
    """How many of ``total_count`` trials succeed."""

    arg_constraints = {"total_count": constraints.nonnegative_integer, **_Odds.arg_constraints}
    has_enumerate_support, _more = True, ("total_count",)

    def __init__(self, total_count=1, probs=None, logits=None, validate_args=None):
        super().__init__(probs, logits, validate_args, total_count)
        self.total_count = self.total_count.to(self._param.dtype)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self):
        """0 to total_count."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self):
        return self.total_count * self.probs

    @property
    def mode(self):
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self):
        return self.total_count * self.probs * (1 - self.probs)

    @no_grad()
    def sample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        return binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value):
        self._validate_sample(value)
        n, z = self.total_count, self.logits
        ways = lgamma(n + 1) - lgamma(value + 1) - lgamma(n - value + 1)
        # n softplus(z), written so that neither sign of a large z overflows.
        return ways + value * z - n * z.clamp(min=0) - n * (-z.abs()).exp().log1p()

    def entropy(self):
        y = self.log_prob(self.enumerate_support(False))
        return -(y.exp() * y).sum(0)

    def enumerate_support(self, expand=True):
        n = int(self.total_count.max().item())
        if not (self.total_count == n).all().item():
            fail(UnsupportedError, "Binomial", "Inhomogeneous total count not supported by "
                 "`enumerate_support`.")  # fmt: skip
        values = arange(1 + n, dtype=self._param.dtype).view(-1, *(1 for _ in self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class NegativeBinomial(_Odds):
    """How many trials succeed (with ``probs``) before ``total_count`` fail."""

    arg_constraints = {"total_count": constraints.nonnegative,
                       "probs": constraints.half_open_interval(0.0, 1.0),
                       "logits": constraints.real}  # fmt: skip
    support, _more = constraints.nonnegative_integer, ("total_count",)

    def __init__(self, total_count, probs=None, logits=None, validate_args=None):
        super().__init__(probs, logits, validate_args, total_count)
        self.total_count = self.total_count.to(self._param.dtype)

    @property
    def mean(self):
        return self.total_count * self.logits.exp()

    @property
    def mode(self):
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self):
        return self.mean / (-self.logits).sigmoid()

    @no_grad()
    def sample(self, sample_shape=()):
        rate = Gamma(self.total_count, (-self.logits).exp(), validate_args=False)
        return poisson(rate.sample(sample_shape))

    def log_prob(self, value):
        self._validate_sample(value)
        n = self.total_count
        y = n * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        norm = -lgamma(n + value) + lgamma(1.0 + value) + lgamma(n)
        return y - where(n + value == 0, 0.0, norm)


class Poisson(Distribution):
    """How many events happen at the rate ``rate``."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate, validate_args=None):
        (self.rate,) = tensors(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self):
        return self.rate

    @property
    def mode(self):
        return self.rate.floor()

    @property
    def variance(self):
        return self.rate

    @no_grad()
    def sample(self, sample_shape=()):
        return poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value):
        self._validate_sample(value)
        return value.xlogy(self.rate) - self.rate - lgamma(value + 1)


class Categorical(Distribution):
    """A class with the probabilities ``probs``, or ``softmax(logits)``, of the last dimension.

    >>> from facula import tensor
    >>> Categorical(tensor([1.0, 3.0])).probs.tolist()
    [0.25, 0.75]
    """

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    has_enumerate_support = True

    def __init__(self, probs=None, logits=None, validate_args=None):
        need_one("Categorical", probs=probs, logits=logits)
        given = logits if probs is None else probs
        if given.ndim < 1:
            fail(ArgumentError, "Categorical", "`probs` and `logits` must be at least "
                 "one-dimensional.")  # fmt: skip
        if probs is not None:
            self.probs = probs / probs.sum(-1, keepdim=True)
        else:
            self.logits = logits - logits.logsumexp(-1, keepdim=True)
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1], validate_args=validate_args)

    def _expand_more(self, new, batch_shape):
        new._num_events = self._num_events

    @lazy_property
    def logits(self):
        """The logarithms of the probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self):
        """The probabilities."""
        return logits_to_probs(self.logits)

    @property
    def _param(self):
        return vars(self)["probs"] if "probs" in vars(self) else vars(self)["logits"]

    @property
    def param_shape(self):
        """The shape of the parameter."""
        return self._param.shape

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self):
        """The classes."""
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self):
        return self._param.new_full(self._batch_shape, nan)

    @property
    def mode(self):
        return self.probs.argmax(-1)

    @property
    def variance(self):
        return self._param.new_full(self._batch_shape, nan)

    @no_grad()
    def sample(self, sample_shape=()):
        sample_shape = Size(sample_shape)
        rows = self.probs.reshape(-1, self._num_events)
        drawn = multinomial(rows, math.prod(sample_shape), True).t()
        return drawn.reshape(self._extended_shape(sample_shape))

    def log_prob(self, value):
        self._validate_sample(value)
        value = value.long().unsqueeze(-1)
        value, logits = broadcast_tensors(value, self.logits)
        return logits.gather(-1, value[..., :1]).squeeze(-1)

    def entropy(self):
        low = -3.4028234663852886e38
        return -(self.logits.clamp(min=low) * self.probs).sum(-1)

    def enumerate_support(self, expand=True):
        values = arange(self._num_events).view(-1, *(1 for _ in self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class _OfCategorical(Distribution):
    """What is built on a categorical distribution."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}

    @property
    def probs(self):
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self):
        """The logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def param_shape(self):
        """The shape of the parameter."""
        return self._categorical.param_shape

    def _expand_more(self, new, batch_shape):
        new._categorical = self._categorical.expand(batch_shape)


class OneHotCategorical(_OfCategorical):
    """A class as a vector with a single one."""

    support, has_enumerate_support = constraints.one_hot, True

    def __init__(self, probs=None, logits=None, validate_args=None):
        self._categorical = Categorical(probs, logits)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def mean(self):
        return self.probs

    @property
    def mode(self):
        return one_hot(self._categorical.mode, self.event_shape[-1]).to(self.probs.dtype)

    @property
    def variance(self):
        return self.probs * (1 - self.probs)

    @no_grad()
    def sample(self, sample_shape=()):
        drawn = self._categorical.sample(sample_shape)
        return one_hot(drawn, self.event_shape[-1]).to(self.probs.dtype)

    def log_prob(self, value):
        self._validate_sample(value)
        return self._categorical.log_prob(value.max(-1)[1])

    def entropy(self):
        return self._categorical.entropy()

    def enumerate_support(self, expand=True):
        n = self.event_shape[0]
        values = eye(n, dtype=self.probs.dtype).view(n, *(1 for _ in self.batch_shape), n)
        return values.expand(n, *self.batch_shape, n) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """As :class:`OneHotCategorical`, gradients passing through to the probabilities."""

    has_rsample = True

    def rsample(self, sample_shape=()):
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class Multinomial(_OfCategorical):
    """How often each class is drawn in ``total_count`` draws."""

    def __init__(self, total_count=1, probs=None, logits=None, validate_args=None):
        if not isinstance(total_count, int):
            fail(UnsupportedError, "Multinomial", "inhomogeneous total_count is not supported")
        self.total_count, self._categorical = total_count, Categorical(probs, logits)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def _expand_more(self, new, batch_shape):
        super()._expand_more(new, batch_shape)
        new.total_count = self.total_count

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self):
        """Counts with a sum of at most total_count."""
        return constraints.multinomial(self.total_count)

    @property
    def mean(self):
        return self.probs * self.total_count

    @property
    def variance(self):
        return self.total_count * self.probs * (1 - self.probs)

    @no_grad()
    def sample(self, sample_shape=()):
        drawn = self._categorical.sample((self.total_count, *Size(sample_shape)))
        return one_hot(drawn, self.event_shape[-1]).sum(0).to(self.probs.dtype)

    def log_prob(self, value):
        self._validate_sample(value)
        logits, value = broadcast_tensors(self.logits, value)
        zero = (value == 0) & (logits == -float("inf"))
        ways = lgamma(value.sum(-1) + 1) - lgamma(value + 1).sum(-1)
        return ways + (where(zero, 0.0, logits) * value).sum(-1)

    def entropy(self):
        n = self.total_count
        one = Binomial(n, probs=self.probs)
        counts = one.enumerate_support(False)[1:]
        weights = (one.log_prob(counts).exp() * lgamma(counts + 1)).sum((0, -1))
        return n * self._categorical.entropy() - math.lgamma(n + 1) + weights
