"""What distributions share: shapes, parameters, checks of arguments and values."""

import math
import warnings
from numbers import Number

from facula.base.errors import ArgumentError, ShapeError, fail
from facula.distributions import constraints
from facula.tensor import Size, Tensor, no_grad, tensor
from facula.tensor import broadcast_tensors as _broadcast

__all__ = ["Distribution", "ExponentialFamily"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
EULER = 0.57721566490153286060


def tensors(*values):
    """Numbers and tensors as tensors of one shape; numbers take the tensors' dtype."""
    own = next((v.dtype for v in values if isinstance(v, Tensor) and v.is_floating_point()), None)
    own = own or next((v.dtype for v in values if isinstance(v, Tensor)), None)
    made = [v if isinstance(v, Tensor) else tensor(float(v), dtype=own) for v in values]
    return _broadcast(*made) if len(made) > 1 else tuple(made)


def sum_rightmost(x, n):
    """The sum over the last ``n`` dimensions."""
    return x if n == 0 else x.sum(tuple(range(-n, 0)))


def clamp_probs(probs):
    """Probabilities off 0 and 1 by the dtype's epsilon, so that their logarithms are finite."""
    eps = 1.1920928955078125e-07 if probs.dtype.itemsize < 8 else 2.220446049250313e-16
    return probs.clamp(eps, 1 - eps)


def probs_to_logits(probs, is_binary=False):
    """The logarithms of probabilities, or of their odds."""
    p = clamp_probs(probs)
    return p.log() - (-p).log1p() if is_binary else p.log()


def logits_to_probs(logits, is_binary=False):
    """The inverse of :func:`probs_to_logits`."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


class lazy_property:  # noqa: N801  reads as a decorator
    """An attribute computed when first asked for."""

    def __init__(self, wrapped):
        self.wrapped, self.__doc__ = wrapped, wrapped.__doc__

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = vars(instance)[self.wrapped.__name__] = self.wrapped(instance)
        return value


class Distribution:
    """A batch of distributions: ``batch_shape`` of them, of events of shape ``event_shape``.

    A subclass names its parameters in ``arg_constraints`` and has ``rsample`` or ``sample``,
    ``log_prob``, ``mean``, ``variance``, ... as far as there are such.

    Args:
        validate_args: whether parameters and values are checked (they are by default).

    Raises:
        ValueError: a parameter or a value is not in its set.
    """

    has_rsample = has_enumerate_support = False
    _validate_args = __debug__
    arg_constraints: dict = {}
    support: object = None

    @staticmethod
    def set_default_validate_args(value):
        """Whether distributions check their arguments unless told otherwise."""
        if value not in (True, False):
            fail(ArgumentError, "Distribution", f"expected a bool, got {value!r}")
        Distribution._validate_args = value

    def __init__(self, batch_shape=(), event_shape=(), validate_args=None):
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        for name, constraint in self.arg_constraints.items():
            lazy = isinstance(getattr(type(self), name, None), lazy_property)
            if constraints.is_dependent(constraint) or lazy and name not in vars(self):
                continue
            value = getattr(self, name)
            if not constraint.check(value).all().item():
                fail(ArgumentError, type(self).__name__, f"Expected parameter {name} of shape "
                     f"{tuple(value.shape)} to satisfy the constraint {constraint!r}, but found "
                     f"invalid values:\n{value}")  # fmt: skip

    @property
    def batch_shape(self):
        """The shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self):
        """The shape of one event."""
        return self._event_shape

    @property
    def mean(self):
        """The mean."""
        raise NotImplementedError(f"{type(self).__name__} does not implement mean")

    @property
    def mode(self):
        """The most probable value."""
        raise NotImplementedError(f"{type(self).__name__} does not implement mode")

    @property
    def variance(self):
        """The variance."""
        raise NotImplementedError(f"{type(self).__name__} does not implement variance")

    @property
    def stddev(self):
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape=()):
        """Draws of shape ``sample_shape + batch_shape + event_shape``, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape=()):
        """As :meth:`sample`, differentiable with respect to the parameters."""
        raise NotImplementedError(f"{type(self).__name__} does not implement rsample")

    def sample_n(self, n):
        """``sample((n,))``."""
        warnings.warn("sample_n(n) is deprecated; use .sample((n,))", UserWarning, stacklevel=2)
        return self.sample((n,))

    def log_prob(self, value):
        """The logarithm of the density or probability at ``value``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement log_prob")

    def cdf(self, value):
        """The probability of at most ``value``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement cdf")

    def icdf(self, value):
        """The inverse of :meth:`cdf`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement icdf")

    def entropy(self):
        """The entropy, in nats."""
        raise NotImplementedError(f"{type(self).__name__} does not implement entropy")

    def perplexity(self):
        """``exp(entropy())``."""
        return self.entropy().exp()

    def enumerate_support(self, expand=True):
        """All values of a discrete distribution, along a new first dimension."""
        raise NotImplementedError(f"{type(self).__name__} does not implement enumerate_support")

    def expand(self, batch_shape, _instance=None):
        """The same distribution with its batch broadcast to ``batch_shape``."""
        new = _instance or type(self).__new__(type(self))
        batch_shape = Size(batch_shape)
        for name in self.arg_constraints:
            value = vars(self).get(name)
            if not isinstance(value, Tensor):
                continue
            own = value.ndim - len(self.batch_shape)
            shape = tuple(value.shape)[value.ndim - own :] if own > 0 else ()
            vars(new)[name] = value.expand((*batch_shape, *shape))
        self._expand_more(new, batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _expand_more(self, new, batch_shape):
        """What a subclass holds beside its parameters, expanded into ``new``."""

    def _extended_shape(self, sample_shape=()):
        return (*Size(sample_shape), *self._batch_shape, *self._event_shape)

    def _validate_sample(self, value):
        if not self._validate_args:
            return
        if not isinstance(value, Tensor):
            fail(ArgumentError, type(self).__name__, "The value argument to log_prob must be a "
                 f"Tensor, got {type(value).__name__}")  # fmt: skip
        first = value.ndim - len(self._event_shape)
        if tuple(value.shape[max(first, 0) :]) != tuple(self._event_shape):
            fail(ArgumentError, type(self).__name__, "The right-most size of value must match "
                 f"event_shape: {tuple(value.shape)} vs {tuple(self._event_shape)}.")  # fmt: skip
        whole = (*self._batch_shape, *self._event_shape)
        for i, j in zip(reversed(value.shape), reversed(whole)):
            if i != 1 and j != 1 and i != j:
                fail(ArgumentError, type(self).__name__, "Value is not broadcastable with "
                     f"batch_shape+event_shape: {tuple(value.shape)} vs {whole}.")  # fmt: skip
        support = self.support
        if support is None or constraints.is_dependent(support):
            return
        if not support.check(value).all().item():
            fail(ArgumentError, type(self).__name__, f"Expected value argument (Tensor of shape "
                 f"{tuple(value.shape)}) to be within the support ({support!r}) of the "
                 f"distribution, but found invalid values:\n{value}")  # fmt: skip

    def _get_checked_instance(self, cls, _instance=None):
        return type(self).__new__(type(self)) if _instance is None else _instance

    def __repr__(self):
        given = [n for n in self.arg_constraints if n in vars(self)]
        parts = [
            f"{n}: {v if v.numel() == 1 else tuple(v.shape)}"
            for n, v in ((n, vars(self)[n]) for n in given)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"


class ExponentialFamily(Distribution):
    """A distribution whose density is ``exp(t(x) . theta - F(theta) + k(x))``."""


class Simple(Distribution):
    """Scalar parameters, broadcast together: the class lists them in ``arg_constraints``."""

    def __init__(self, *values, validate_args=None):
        names = list(self.arg_constraints)
        numbers = all(isinstance(v, Number) for v in values)
        for name, value in zip(names, tensors(*values)):
            setattr(self, name, value)
        shape = () if numbers else getattr(self, names[0]).shape
        super().__init__(shape, validate_args=validate_args)

    def _new(self, fill, sample_shape, *args):
        """A draw of a fill, such as ``normal_``, in the shape and dtype of the first parameter."""
        like = getattr(self, next(iter(self.arg_constraints)))
        return getattr(like.new_empty(self._extended_shape(sample_shape)), fill)(*args)

    def _rand(self, sample_shape):
        """Uniform numbers in (0, 1), ends excluded."""
        tiny = 1.1754943508222875e-38
        return self._new("uniform_", sample_shape).clamp(min=tiny)


def need_one(name, **given):
    """Exactly one of two arguments must be given.

    Raises:
        ValueError: none or both are.
    """
    if sum(v is not None for v in given.values()) != 1:
        fail(ArgumentError, name, f"Either {' or '.join(f'`{k}`' for k in given)} must be "
             "specified, but not both.")  # fmt: skip


def need_shape(name, ok, what):
    """Refuse shapes that do not fit."""
    if not ok:
        fail(ShapeError, name, what)
