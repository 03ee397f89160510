"""Distributions made of others: by transforms, by taking dimensions together, and mixtures."""

import math

from facula.base.errors import ArgumentError, fail
from facula.distributions import constraints
from facula.distributions.continuous import Exponential, Normal, Uniform
from facula.distributions.discrete import Bernoulli, Categorical
from facula.distributions.distribution import (
    EULER,
    Distribution,
    clamp_probs,
    sum_rightmost,
    tensors,
)
from facula.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    StickBreakingTransform,
    Transform,
)
from facula.nn.functional import softplus
from facula.tensor import Size, broadcast_shapes, broadcast_tensors, digamma, lgamma, no_grad, where

__all__ = [
    "Gumbel", "Independent", "Kumaraswamy", "LogNormal", "LogisticNormal", "MixtureSameFamily",
    "RelaxedBernoulli", "RelaxedOneHotCategorical", "TransformedDistribution", "Weibull",
]  # fmt: skip


class Independent(Distribution):
    """The last batch dimensions of a distribution taken as parts of its event.

    >>> from facula import ones, zeros
    >>> tuple(Independent(Normal(zeros(3), ones(3)), 1).log_prob(zeros(3)).shape)
    ()
    """

    def __init__(self, base_distribution, reinterpreted_batch_ndims, validate_args=None):
        n, batch = reinterpreted_batch_ndims, base_distribution.batch_shape
        if n > len(batch):
            fail(ArgumentError, "Independent", f"Expected reinterpreted_batch_ndims <= "
                 f"len(base_distribution.batch_shape), actual {n} vs {len(batch)}")  # fmt: skip
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, n
        shape = (*batch, *base_distribution.event_shape)
        cut = len(batch) - n
        super().__init__(shape[:cut], shape[cut:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        own = self.event_shape[: self.reinterpreted_batch_ndims]
        base = self.base_dist.expand((*batch_shape, *own))
        return type(self)(base, self.reinterpreted_batch_ndims, validate_args=False)

    @property
    def has_rsample(self):
        return self.base_dist.has_rsample

    @property
    def has_enumerate_support(self):
        return self.reinterpreted_batch_ndims == 0 and self.base_dist.has_enumerate_support

    @property
    def support(self):
        base = self.base_dist.support
        n = self.reinterpreted_batch_ndims
        return constraints.independent(base, n) if n else base

    @property
    def mean(self):
        return self.base_dist.mean

    @property
    def mode(self):
        return self.base_dist.mode

    @property
    def variance(self):
        return self.base_dist.variance

    def sample(self, sample_shape=()):
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape=()):
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value):
        return sum_rightmost(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self):
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def enumerate_support(self, expand=True):
        return self.base_dist.enumerate_support(expand)

    def __repr__(self):
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


class TransformedDistribution(Distribution):
    """What becomes of a distribution's values under transforms.

    >>> from facula import tensor
    >>> d = TransformedDistribution(Normal(0.0, 1.0), [ExpTransform()])
    >>> round(d.log_prob(tensor(1.0)).item(), 4)
    -0.9189
    """

    def __init__(self, base_distribution, transforms, validate_args=None):
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not all(isinstance(t, Transform) for t in self.transforms):
            fail(ArgumentError, "TransformedDistribution", "transforms must be a Transform or a "
                 f"list of Transforms, got {transforms}")  # fmt: skip
        base = base_distribution
        shape = (*base.batch_shape, *base.event_shape)
        whole = ComposeTransform(self.transforms)
        need = whole.domain.event_dim
        if len(shape) < need:
            fail(ArgumentError, "TransformedDistribution", "base_distribution needs to have shape "
                 f"with size at least {need}, but got {shape}.")  # fmt: skip
        out = tuple(whole.forward_shape(shape))
        back = tuple(whole.inverse_shape(out))
        if back != shape:
            base = base.expand(back[: len(back) - len(base.event_shape)])
        more = need - len(base.event_shape)
        self.base_dist = Independent(base, more) if more > 0 else base
        event = whole.codomain.event_dim + max(len(base.event_shape) - need, 0)
        cut = len(out) - event
        super().__init__(out[:cut], out[cut:], validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = type(self).__new__(type(self)) if _instance is None else _instance
        whole = ComposeTransform(self.transforms)
        shape = tuple(whole.inverse_shape((*batch_shape, *self.event_shape)))
        cut = len(shape) - len(self.base_dist.event_shape)
        vars(new).update(transforms=self.transforms, base_dist=self.base_dist.expand(shape[:cut]))
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def has_rsample(self):
        return self.base_dist.has_rsample

    @property
    def support(self):
        if not self.transforms:
            return self.base_dist.support
        last = self.transforms[-1].codomain
        more = len(self.event_shape) - last.event_dim
        return constraints.independent(last, more) if more > 0 else last

    def _through(self, x):
        for t in self.transforms:
            x = t(x)
        return x

    @no_grad()
    def sample(self, sample_shape=()):
        return self._through(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape=()):
        return self._through(self.base_dist.rsample(sample_shape))

    def log_prob(self, value):
        self._validate_sample(value)
        dim, total, y = len(self.event_shape), 0.0, value
        for t in reversed(self.transforms):
            x = t.inv(y)
            dim += t.domain.event_dim - t.codomain.event_dim
            slope = t.log_abs_det_jacobian(x, y)
            total = total - sum_rightmost(slope, dim - t.domain.event_dim)
            y = x
        return total + sum_rightmost(
            self.base_dist.log_prob(y), dim - len(self.base_dist.event_shape)
        )

    def _monotone(self, value):
        sign = 1
        for t in self.transforms:
            sign = sign * t.sign
        if isinstance(sign, int) and sign == 1:
            return value
        return sign * (value - 0.5) + 0.5

    def cdf(self, value):
        for t in reversed(self.transforms):
            value = t.inv(value)
        self._validate_args and self.base_dist._validate_sample(value)
        return self._monotone(self.base_dist.cdf(value))

    def icdf(self, value):
        return self._through(self.base_dist.icdf(self._monotone(value)))

    def __repr__(self):
        given = list(self.arg_constraints)
        return f"{type(self).__name__}({', '.join(f'{n}: {getattr(self, n)}' for n in given)})"


class LogNormal(TransformedDistribution):
    """``exp`` of a normal number."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive

    def __init__(self, loc, scale, validate_args=None):
        super().__init__(Normal(loc, scale, validate_args=validate_args), ExpTransform(),
                         validate_args=validate_args)  # fmt: skip

    @property
    def loc(self):
        """The mean of the logarithm."""
        return self.base_dist.loc

    @property
    def scale(self):
        """The standard deviation of the logarithm."""
        return self.base_dist.scale

    @property
    def mean(self):
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self):
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self):
        s = self.scale.square()
        return s.expm1() * (2 * self.loc + s).exp()

    def entropy(self):
        return self.base_dist.entropy() + self.loc


class Gumbel(TransformedDistribution):
    """The distribution of maxima: ``loc - scale log(-log u)``."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc, scale, validate_args=None):
        self.loc, self.scale = tensors(loc, scale)
        # The negative of an exponential number's logarithm.
        zero, one = self.loc * 0, self.scale * 0 + 1
        transforms = [ExpTransform().inv, AffineTransform(loc=self.loc, scale=-self.scale)]
        super().__init__(Exponential(one + zero, validate_args=False), transforms,
                         validate_args=validate_args)  # fmt: skip

    def expand(self, batch_shape, _instance=None):
        return Gumbel(self.loc.expand(batch_shape), self.scale.expand(batch_shape), False)

    def log_prob(self, value):
        self._validate_sample(value)
        y = (self.loc - value) / self.scale
        return (y - y.exp()) - self.scale.log()

    @property
    def mean(self):
        return self.loc + self.scale * EULER

    @property
    def mode(self):
        return self.loc

    @property
    def stddev(self):
        return math.pi / math.sqrt(6) * self.scale

    @property
    def variance(self):
        return self.stddev.square()

    def entropy(self):
        return self.scale.log() + (1 + EULER)


class Weibull(TransformedDistribution):
    """``scale e^(1 / concentration)`` of an exponential number ``e``."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive

    def __init__(self, scale, concentration, validate_args=None):
        self.scale, self.concentration = tensors(scale, concentration)
        base = Exponential(self.scale * 0 + 1, validate_args=False)
        transforms = [PowerTransform(self.concentration.reciprocal()),
                      AffineTransform(loc=0, scale=self.scale)]  # fmt: skip
        super().__init__(base, transforms, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        scale, concentration = (x.expand(batch_shape) for x in (self.scale, self.concentration))
        return Weibull(scale, concentration, False)

    @property
    def mean(self):
        return self.scale * lgamma(1 + self.concentration.reciprocal()).exp()

    @property
    def mode(self):
        c = self.concentration
        y = ((c - 1) / c).pow(c.reciprocal())
        return where(c > 1, self.scale * y, 0.0)

    @property
    def variance(self):
        r = self.concentration.reciprocal()
        return self.scale.square() * (lgamma(1 + 2 * r).exp() - (2 * lgamma(1 + r)).exp())

    def entropy(self):
        r = self.concentration.reciprocal()
        return EULER * (1 - r) + (self.scale * r).log() + 1


class Kumaraswamy(TransformedDistribution):
    """Density ``a b x^(a - 1) (1 - x^a)^(b - 1)`` on [0, 1]."""

    arg_constraints = {"concentration1": constraints.positive,
                       "concentration0": constraints.positive}  # fmt: skip
    support = constraints.unit_interval

    def __init__(self, concentration1, concentration0, validate_args=None):
        self.concentration1, self.concentration0 = tensors(concentration1, concentration0)
        base = Uniform(self.concentration0 * 0, self.concentration0 * 0 + 1, validate_args=False)
        transforms = [
            PowerTransform(self.concentration0.reciprocal()), AffineTransform(loc=1.0, scale=-1.0),
            PowerTransform(self.concentration1.reciprocal()),
        ]  # fmt: skip
        super().__init__(base, transforms, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        a, b = self.concentration1.expand(batch_shape), self.concentration0.expand(batch_shape)
        return Kumaraswamy(a, b, False)

    def _moment(self, n):
        """``E[x^n]``."""
        arg = 1 + n / self.concentration1
        b = self.concentration0
        return (lgamma(arg) + lgamma(b) - lgamma(arg + b)).exp() * b

    @property
    def mean(self):
        return self._moment(1)

    @property
    def mode(self):
        a, b = self.concentration1, self.concentration0
        log = a.reciprocal() * ((a - 1).log() - (a * b - 1).log())
        return where((a < 1) | (b < 1), float("nan"), log.exp())

    @property
    def variance(self):
        return self._moment(2) - self.mean.square()

    def entropy(self):
        a, b = self.concentration1, self.concentration0
        harmonic = digamma(b + 1) + EULER
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()


class _LogitRelaxedBernoulli(Distribution):
    """The logarithm of the odds of a relaxed Bernoulli number (Maddison, 2017)."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support, has_rsample = constraints.real, True

    def __init__(self, temperature, probs=None, logits=None, validate_args=None):
        self.temperature = temperature
        self._bernoulli = Bernoulli(probs, logits, validate_args=validate_args)
        super().__init__(self._bernoulli.batch_shape, validate_args=False)

    @property
    def probs(self):
        """The probabilities."""
        return self._bernoulli.probs

    @property
    def logits(self):
        """The logarithms of the odds."""
        return self._bernoulli.logits

    def _expand_more(self, new, batch_shape):
        new.temperature, new._bernoulli = self.temperature, self._bernoulli.expand(batch_shape)

    def rsample(self, sample_shape=()):
        probs = clamp_probs(self.probs.expand(self._extended_shape(sample_shape)))
        u = clamp_probs(probs.detach().new_empty(probs.shape).uniform_())
        return (u.log() - (-u).log1p() + probs.log() - (-probs).log1p()) / self.temperature

    def log_prob(self, value):
        self._validate_sample(value)
        logits, value = broadcast_tensors(self.logits, value)
        diff = logits - value * self.temperature
        return self.temperature.log() + diff - 2 * softplus(diff)


class RelaxedBernoulli(TransformedDistribution):
    """A Bernoulli number made continuous, on (0, 1) (Maddison, 2017; Jang, 2017)."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, temperature, probs=None, logits=None, validate_args=None):
        base = _LogitRelaxedBernoulli(tensors(temperature)[0], probs, logits)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)

    @property
    def temperature(self):
        """How far it is from discrete."""
        return self.base_dist.temperature

    @property
    def probs(self):
        """The probabilities."""
        return self.base_dist.probs

    @property
    def logits(self):
        """The logarithms of the odds."""
        return self.base_dist.logits


class _ExpRelaxedCategorical(Distribution):
    """The logarithm of a relaxed one-hot vector."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support, has_rsample = constraints.real_vector, True

    def __init__(self, temperature, probs=None, logits=None, validate_args=None):
        self.temperature = temperature
        self._categorical = Categorical(probs, logits, validate_args=validate_args)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @property
    def probs(self):
        """The probabilities."""
        return self._categorical.probs

    @property
    def logits(self):
        """The logarithms of the probabilities."""
        return self._categorical.logits

    def _expand_more(self, new, batch_shape):
        new.temperature, new._categorical = self.temperature, self._categorical.expand(batch_shape)

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        u = clamp_probs(self.logits.detach().new_empty(shape).uniform_())
        scores = (self.logits - (-u.log()).log()) / self.temperature
        return scores - scores.logsumexp(-1, keepdim=True)

    def log_prob(self, value):
        self._validate_sample(value)
        n = self._event_shape[-1]
        logits, value = broadcast_tensors(self.logits, value)
        scale = (self.temperature * 0 + n).lgamma() + self.temperature.log() * (n - 1)
        score = logits - value * self.temperature
        return (score - score.logsumexp(-1, keepdim=True)).sum(-1) + scale


class RelaxedOneHotCategorical(TransformedDistribution):
    """A one-hot vector made continuous: a point of the simplex (Maddison, 2017; Jang, 2017)."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex

    def __init__(self, temperature, probs=None, logits=None, validate_args=None):
        base = _ExpRelaxedCategorical(tensors(temperature)[0], probs, logits)
        super().__init__(base, ExpTransform(), validate_args=validate_args)

    @property
    def temperature(self):
        """How far it is from discrete."""
        return self.base_dist.temperature

    @property
    def probs(self):
        """The probabilities."""
        return self.base_dist.probs

    @property
    def logits(self):
        """The logarithms of the probabilities."""
        return self.base_dist.logits


class LogisticNormal(TransformedDistribution):
    """A point of the simplex by stick breaking of a normal vector."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc, scale, validate_args=None):
        base = Normal(loc, scale, validate_args=validate_args)
        if not base.batch_shape:
            base = base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self):
        """The mean of the normal vector."""
        return self.base_dist.base_dist.loc

    @property
    def scale(self):
        """The standard deviation of the normal vector."""
        return self.base_dist.base_dist.scale


class MixtureSameFamily(Distribution):
    """A mixture: a component of the last batch dimension, picked by a categorical distribution."""

    def __init__(self, mixture_distribution, component_distribution, validate_args=None):
        if not isinstance(mixture_distribution, Categorical):
            fail(ArgumentError, "MixtureSameFamily", "The Mixture distribution needs to be an "
                 "instance of distributions.Categorical")  # fmt: skip
        batch = component_distribution.batch_shape
        n = mixture_distribution._num_events
        if not batch or batch[-1] != n:
            fail(ArgumentError, "MixtureSameFamily", f"`mixture_distribution` has {n} components, "
                 f"`component_distribution` a batch of {tuple(batch)}")  # fmt: skip
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        broadcast_shapes(tuple(mixture_distribution.batch_shape), tuple(batch[:-1]))
        self._event_ndims = len(component_distribution.event_shape)
        super().__init__(batch[:-1], component_distribution.event_shape, validate_args)

    def expand(self, batch_shape, _instance=None):
        n = self._mixture_distribution._num_events
        component = self._component_distribution.expand((*batch_shape, n))
        return type(self)(self._mixture_distribution.expand(batch_shape), component, False)

    @property
    def mixture_distribution(self):
        """The distribution of the component."""
        return self._mixture_distribution

    @property
    def component_distribution(self):
        """The components."""
        return self._component_distribution

    @property
    def support(self):
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    def _weights(self):
        probs = self._mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1 for _ in self._event_shape))

    @property
    def mean(self):
        return (self._weights() * self._component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self):
        dim, p, parts = -1 - self._event_ndims, self._weights(), self._component_distribution
        within = (p * parts.variance).sum(dim)
        return within + (p * (parts.mean - self.mean.unsqueeze(dim)).square()).sum(dim)

    def log_prob(self, value):
        self._validate_sample(value)
        value = value.unsqueeze(-1 - self._event_ndims)
        parts = self._component_distribution.log_prob(value)
        return (parts + self._mixture_distribution.logits).logsumexp(-1)

    def cdf(self, value):
        value = value.unsqueeze(-1 - self._event_ndims)
        parts = self._component_distribution.cdf(value)
        return (parts * self._mixture_distribution.probs).sum(-1)

    @no_grad()
    def sample(self, sample_shape=()):
        sample_shape = Size(sample_shape)
        dim = len(sample_shape) + len(self._batch_shape)
        which = self._mixture_distribution.expand(self._batch_shape).sample(sample_shape)
        parts = self._component_distribution.sample(sample_shape)
        index = which.reshape(*which.shape, *(1 for _ in range(self._event_ndims + 1)))
        index = index.expand(*which.shape, 1, *self._event_shape)
        return parts.gather(dim, index).squeeze(dim)

    def __repr__(self):
        parts = self._mixture_distribution, self._component_distribution
        return f"MixtureSameFamily(\n  {parts[0]},\n  {parts[1]})"
