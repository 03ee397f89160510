"""Differentiable maps with inverses and the logarithms of their Jacobians' determinants."""

import math
import operator
import weakref
from functools import reduce

from facula.base.errors import ArgumentError, fail
from facula.distributions import constraints
from facula.distributions.distribution import sum_rightmost
from facula.linalg import cholesky
from facula.nn.functional import pad, softplus
from facula.tensor import Tensor, cat, eye, ones_like, stack, tril_indices, zeros_like

__all__ = [
    "AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform", "CorrCholeskyTransform",
    "CumulativeDistributionTransform", "ExpTransform", "IndependentTransform",
    "LowerCholeskyTransform", "PositiveDefiniteTransform", "PowerTransform", "ReshapeTransform",
    "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform", "StackTransform",
    "StickBreakingTransform", "TanhTransform", "Transform", "identity_transform",
]  # fmt: skip


class Transform:
    """A map with ``_call``, ``_inverse`` and ``log_abs_det_jacobian(x, y)``.

    Attributes:
        domain, codomain: constraints.
        bijective: whether there is one x for every y.
        sign: of the derivative, where it is one number.

    Args:
        cache_size: 1 keeps the last pair, so that ``inv`` of a result is what it came from.
    """

    bijective = False
    domain: constraints.Constraint = constraints.real
    codomain: constraints.Constraint = constraints.real

    def __init__(self, cache_size=0):
        if cache_size not in (0, 1):
            fail(ArgumentError, "Transform", "cache_size must be 0 or 1")
        self._cache_size, self._cached, self._inv = cache_size, (None, None), None

    @property
    def event_dim(self):
        """The dimensions of an event, the same on both sides."""
        if self.domain.event_dim == self.codomain.event_dim:
            return self.domain.event_dim
        return fail(ArgumentError, "Transform", "Please use either .domain.event_dim or "
                    ".codomain.event_dim")  # fmt: skip

    @property
    def inv(self):
        """The inverse, as a transform."""
        found = None if self._inv is None else self._inv()
        if found is None:
            found = _Inverse(self)
            self._inv = weakref.ref(found)
        return found

    @property
    def sign(self):
        """The sign of the derivative."""
        raise NotImplementedError(f"{type(self).__name__} has no sign")

    def with_cache(self, cache_size=1):
        """The same map with another cache."""
        if self._cache_size == cache_size:
            return self
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        new._cache_size, new._cached, new._inv = cache_size, (None, None), None
        return new

    def __call__(self, x):
        if self._cache_size and self._cached[0] is x:
            return self._cached[1]
        y = self._call(x)
        if self._cache_size:
            self._cached = (x, y)
        return y

    def _inv_call(self, y):
        if self._cache_size and self._cached[1] is y:
            return self._cached[0]
        x = self._inverse(y)
        if self._cache_size:
            self._cached = (x, y)
        return x

    def _call(self, x):
        raise NotImplementedError

    def _inverse(self, y):
        raise NotImplementedError

    def log_abs_det_jacobian(self, x, y):
        """``log |det dy/dx|``, one number an event."""
        raise NotImplementedError

    def forward_shape(self, shape):
        """The shape of y for that of x."""
        return shape

    def inverse_shape(self, shape):
        """The shape of x for that of y."""
        return shape

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__

    def __repr__(self):
        return type(self).__name__ + "()"


class _Inverse(Transform):
    """The inverse of a transform."""

    def __init__(self, transform):
        super().__init__(transform._cache_size)
        self._base = transform

    @property
    def domain(self):
        return self._base.codomain

    @property
    def codomain(self):
        return self._base.domain

    @property
    def bijective(self):
        return self._base.bijective

    @property
    def sign(self):
        return self._base.sign

    @property
    def inv(self):
        return self._base

    def with_cache(self, cache_size=1):
        return (
            self if self._base._cache_size == cache_size else self._base.with_cache(cache_size).inv
        )

    def __eq__(self, other):
        return isinstance(other, _Inverse) and self._base == other._base

    __hash__ = object.__hash__

    def __call__(self, x):
        return self._base._inv_call(x)

    def _inv_call(self, y):
        return self._base(y)

    def log_abs_det_jacobian(self, x, y):
        return -self._base.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape):
        return self._base.inverse_shape(shape)

    def inverse_shape(self, shape):
        return self._base.forward_shape(shape)

    def __repr__(self):
        return f"{self._base!r}.inv"


class ComposeTransform(Transform):
    """Transforms one after the other."""

    def __init__(self, parts, cache_size=0):
        super().__init__(cache_size)
        self.parts = [p.with_cache(cache_size) for p in parts] if cache_size else list(parts)

    @property
    def domain(self):
        if not self.parts:
            return constraints.real
        need = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            need = max(
                need + part.domain.event_dim - part.codomain.event_dim, part.domain.event_dim
            )
        own = self.parts[0].domain
        return constraints.independent(own, need - own.event_dim) if need > own.event_dim else own

    @property
    def codomain(self):
        if not self.parts:
            return constraints.real
        need = self.parts[0].domain.event_dim
        for part in self.parts:
            need = max(need + part.codomain.event_dim - part.domain.event_dim,
                       part.codomain.event_dim)  # fmt: skip
        own = self.parts[-1].codomain
        return constraints.independent(own, need - own.event_dim) if need > own.event_dim else own

    @property
    def bijective(self):
        return all(p.bijective for p in self.parts)

    @property
    def sign(self):
        return reduce(operator.mul, (p.sign for p in self.parts), 1)

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x

    def _inv_call(self, y):
        for part in reversed(self.parts):
            y = part._inv_call(y)
        return y

    def log_abs_det_jacobian(self, x, y):
        if not self.parts:
            return zeros_like(x)
        xs = [x]
        for part in self.parts[:-1]:
            xs.append(part(xs[-1]))
        xs.append(y)
        terms, dim = [], self.domain.event_dim
        for part, a, b in zip(self.parts, xs, xs[1:]):
            terms.append(
                sum_rightmost(part.log_abs_det_jacobian(a, b), dim - part.domain.event_dim)
            )
            dim += part.codomain.event_dim - part.domain.event_dim
        return reduce(operator.add, terms)

    def forward_shape(self, shape):
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape):
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def __eq__(self, other):
        return isinstance(other, ComposeTransform) and self.parts == other.parts

    __hash__ = object.__hash__

    def __repr__(self):
        return "ComposeTransform(\n    " + ",\n    ".join(map(repr, self.parts)) + "\n)"


identity_transform = ComposeTransform([])


class IndependentTransform(Transform):
    """A transform whose last further dimensions are one event."""

    def __init__(self, base_transform, reinterpreted_batch_ndims, cache_size=0):
        super().__init__(cache_size)
        self.base_transform = base_transform.with_cache(cache_size)
        self.reinterpreted_batch_ndims = n = reinterpreted_batch_ndims
        self.domain = constraints.independent(base_transform.domain, n)
        self.codomain = constraints.independent(base_transform.codomain, n)
        self.bijective = base_transform.bijective

    @property
    def sign(self):
        return self.base_transform.sign

    def _call(self, x):
        return self.base_transform(x)

    def _inverse(self, y):
        return self.base_transform._inv_call(y)

    def log_abs_det_jacobian(self, x, y):
        return sum_rightmost(self.base_transform.log_abs_det_jacobian(x, y),
                             self.reinterpreted_batch_ndims)  # fmt: skip

    def forward_shape(self, shape):
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape):
        return self.base_transform.inverse_shape(shape)


class ReshapeTransform(Transform):
    """Events of the shape ``in_shape`` as ``out_shape``."""

    bijective, sign = True, 1

    def __init__(self, in_shape, out_shape, cache_size=0):
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            fail(ArgumentError, "ReshapeTransform", "in_shape, out_shape have different numbers of "
                 "elements")  # fmt: skip
        self.domain = constraints.independent(constraints.real, len(self.in_shape))
        self.codomain = constraints.independent(constraints.real, len(self.out_shape))

    def _call(self, x):
        return x.reshape(self.forward_shape(tuple(x.shape)))

    def _inverse(self, y):
        return y.reshape(self.inverse_shape(tuple(y.shape)))

    def log_abs_det_jacobian(self, x, y):
        return x.new_zeros(x.shape[: x.ndim - len(self.in_shape)])

    def forward_shape(self, shape):
        return (*_lead(shape, self.in_shape), *self.out_shape)

    def inverse_shape(self, shape):
        return (*_lead(shape, self.out_shape), *self.in_shape)


def _lead(shape, event):
    cut = len(shape) - len(event)
    if cut < 0 or tuple(shape[cut:]) != tuple(event):
        fail(ArgumentError, "ReshapeTransform", f"Shape mismatch: expected {event} but got {shape}")
    return shape[:cut]


class ExpTransform(Transform):
    """``y = exp(x)``."""

    codomain, bijective, sign = constraints.positive, True, 1

    def _call(self, x):
        return x.exp()

    def _inverse(self, y):
        return y.log()

    def log_abs_det_jacobian(self, x, y):
        return x

    def __eq__(self, other):
        return isinstance(other, ExpTransform)

    __hash__ = object.__hash__


class PowerTransform(Transform):
    """``y = x ** exponent`` of positive numbers."""

    domain = codomain = constraints.positive
    bijective = True

    def __init__(self, exponent, cache_size=0):
        super().__init__(cache_size)
        self.exponent = exponent

    @property
    def sign(self):
        return self.exponent.sign()

    def _call(self, x):
        return x.pow(self.exponent)

    def _inverse(self, y):
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x, y):
        return (self.exponent * y / x).abs().log()


class SigmoidTransform(Transform):
    """``y = 1 / (1 + exp(-x))``."""

    codomain, bijective, sign = constraints.unit_interval, True, 1

    def _call(self, x):
        return x.sigmoid().clamp(1.1754943508222875e-38, 1 - 6e-8)

    def _inverse(self, y):
        y = y.clamp(1.1754943508222875e-38, 1 - 6e-8)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x, y):
        return -softplus(-x) - softplus(x)

    def __eq__(self, other):
        return isinstance(other, SigmoidTransform)

    __hash__ = object.__hash__


class SoftplusTransform(Transform):
    """``y = log(1 + exp(x))``."""

    codomain, bijective, sign = constraints.positive, True, 1

    def _call(self, x):
        return softplus(x)

    def _inverse(self, y):
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x, y):
        return -softplus(-x)

    def __eq__(self, other):
        return isinstance(other, SoftplusTransform)

    __hash__ = object.__hash__


class TanhTransform(Transform):
    """``y = tanh(x)``; use ``cache_size=1`` where inverses of results are needed."""

    codomain, bijective, sign = constraints.interval(-1.0, 1.0), True, 1

    def _call(self, x):
        return x.tanh()

    def _inverse(self, y):
        return y.atanh()

    def log_abs_det_jacobian(self, x, y):
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))

    def __eq__(self, other):
        return isinstance(other, TanhTransform)

    __hash__ = object.__hash__


class AbsTransform(Transform):
    """``y = |x|``, whose inverse takes the positive x."""

    codomain = constraints.positive

    def _call(self, x):
        return x.abs()

    def _inverse(self, y):
        return y

    def __eq__(self, other):
        return isinstance(other, AbsTransform)

    __hash__ = object.__hash__


class AffineTransform(Transform):
    """``y = loc + scale * x``."""

    bijective = True

    def __init__(self, loc, scale, event_dim=0, cache_size=0):
        super().__init__(cache_size)
        self.loc, self.scale = loc, scale
        if event_dim:
            self.domain = self.codomain = constraints.independent(constraints.real, event_dim)

    @property
    def sign(self):
        if isinstance(self.scale, Tensor):
            return self.scale.sign()
        return (self.scale > 0) - (self.scale < 0)

    def _call(self, x):
        return self.loc + self.scale * x

    def _inverse(self, y):
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x, y):
        if isinstance(self.scale, Tensor):
            size = self.scale.abs().log() + zeros_like(x)
        else:
            size = zeros_like(x) + math.log(abs(self.scale))
        return sum_rightmost(size, self.event_dim)

    def __eq__(self, other):
        def same(a, b):
            return a is b or bool((a == b) if isinstance(a == b, bool) else (a == b).all().item())

        return (
            isinstance(other, AffineTransform)
            and same(self.loc, other.loc)
            and same(self.scale, other.scale)
        )

    __hash__ = object.__hash__


class SoftmaxTransform(Transform):
    """``y = softmax(x)``, whose inverse is the logarithm: not one-to-one."""

    domain, codomain = constraints.real_vector, constraints.simplex

    def _call(self, x):
        return x.softmax(-1)

    def _inverse(self, y):
        return y.log()

    def __eq__(self, other):
        return isinstance(other, SoftmaxTransform)

    __hash__ = object.__hash__


class StickBreakingTransform(Transform):
    """Real vectors to points of the simplex of one more dimension, one-to-one."""

    domain, codomain, bijective = constraints.real_vector, constraints.simplex, True

    def _offset(self, x):
        return (x.shape[-1] + 1 - ones_like(x).cumsum(-1)).log()

    def _call(self, x):
        z = (x - self._offset(x)).sigmoid().clamp(1.1754943508222875e-38, 1 - 6e-8)
        return pad(z, [0, 1], value=1) * pad((1 - z).cumprod(-1), [1, 0], value=1)

    def _inverse(self, y):
        part = y[..., :-1]
        rest = (1 - part.cumsum(-1)).clamp(min=1.1754943508222875e-38)
        offset = y.shape[-1] - ones_like(part).cumsum(-1)
        return part.log() - rest.log() + offset.log()

    def log_abs_det_jacobian(self, x, y):
        x = x - self._offset(x)
        return (-x - softplus(-x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape):
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape):
        return (*shape[:-1], shape[-1] - 1)

    def __eq__(self, other):
        return isinstance(other, StickBreakingTransform)

    __hash__ = object.__hash__


class LowerCholeskyTransform(Transform):
    """Square matrices to lower triangles with a positive diagonal."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x):
        return x.tril(-1) + x.diagonal(0, -2, -1).exp().diag_embed()

    def _inverse(self, y):
        return y.tril(-1) + y.diagonal(0, -2, -1).log().diag_embed()

    def __eq__(self, other):
        return isinstance(other, LowerCholeskyTransform)

    __hash__ = object.__hash__


class PositiveDefiniteTransform(Transform):
    """Square matrices to positive definite ones."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x):
        lower = LowerCholeskyTransform()(x)
        return lower @ lower.mT

    def _inverse(self, y):
        return LowerCholeskyTransform().inv(cholesky(y))

    def __eq__(self, other):
        return isinstance(other, PositiveDefiniteTransform)

    __hash__ = object.__hash__


class CorrCholeskyTransform(Transform):
    """Real vectors to Cholesky factors of correlation matrices."""

    domain, codomain, bijective = constraints.real_vector, constraints.corr_cholesky, True

    def _call(self, x):
        n = round((1 + math.sqrt(1 + 8 * x.shape[-1])) / 2)
        r = _filled(x.tanh().clamp(-1 + 2.4e-7, 1 - 2.4e-7), n)
        rest = (1 - r.square()).sqrt().cumprod(-1)
        r = r + eye(n, dtype=r.dtype)
        return r * pad(rest[..., :-1], [1, 0], value=1)

    def _inverse(self, y):
        below = 1 - (y * y).cumsum(-1)
        below = pad(below[..., :-1], [1, 0], value=1)
        t = _picked(y) / _picked(below).sqrt()
        return (t.log1p() - t.neg().log1p()) / 2

    def log_abs_det_jacobian(self, x, y):
        below = 1 - (y * y).cumsum(-1)
        logs = 0.5 * _picked(below, -2).log().sum(-1) if y.shape[-1] > 2 else 0.0
        return logs - 2 * (x + softplus(-2 * x) - math.log(2.0)).sum(-1)

    def forward_shape(self, shape):
        n = round((1 + math.sqrt(1 + 8 * shape[-1])) / 2)
        return (*shape[:-1], n, n)

    def inverse_shape(self, shape):
        return (*shape[:-2], shape[-1] * (shape[-1] - 1) // 2)


def _filled(x, n):
    """A vector as the strictly lower triangle of ``n`` by ``n`` matrices, row by row."""
    i, j = tril_indices(n, n, -1)
    flat = x.new_zeros((*x.shape[:-1], n * n))
    return flat.index_add(-1, i * n + j, x).reshape(*x.shape[:-1], n, n)


def _picked(m, diagonal=-1):
    """The lower triangle of matrices, row by row."""
    n = m.shape[-1]
    i, j = tril_indices(n, n, diagonal)
    return m.flatten(-2).index_select(-1, i * n + j)


class CumulativeDistributionTransform(Transform):
    """``y = distribution.cdf(x)``."""

    codomain, bijective, sign = constraints.unit_interval, True, 1

    def __init__(self, distribution, cache_size=0):
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self):
        return self.distribution.support

    def _call(self, x):
        return self.distribution.cdf(x)

    def _inverse(self, y):
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x, y):
        return self.distribution.log_prob(x)


class _Parts(Transform):
    """Transforms of parts of a tensor along ``dim``."""

    def __init__(self, tseq, dim=0, lengths=None, cache_size=0):
        super().__init__(cache_size)
        self.transforms = [t.with_cache(cache_size) for t in tseq] if cache_size else list(tseq)
        self.dim = dim
        self.lengths = [1] * len(self.transforms) if lengths is None else list(lengths)

    @property
    def bijective(self):
        return all(t.bijective for t in self.transforms)

    def _split(self, x):
        raise NotImplementedError

    def _join(self, parts):
        raise NotImplementedError

    def _call(self, x):
        return self._join([t(p) for t, p in zip(self.transforms, self._split(x))])

    def _inverse(self, y):
        return self._join([t._inv_call(p) for t, p in zip(self.transforms, self._split(y))])

    def log_abs_det_jacobian(self, x, y):
        pairs = zip(self.transforms, self._split(x), self._split(y))
        return self._join([t.log_abs_det_jacobian(a, b) for t, a, b in pairs])


class CatTransform(_Parts):
    """Transforms of parts that were concatenated; ``lengths`` are the sizes of the parts."""

    @property
    def domain(self):
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @property
    def codomain(self):
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)

    def _split(self, x):
        return x.split(self.lengths, self.dim)

    def _join(self, parts):
        return cat(parts, self.dim)


class StackTransform(_Parts):
    """Transforms of parts that were stacked."""

    def __init__(self, tseq, dim=0, cache_size=0):
        super().__init__(tseq, dim, None, cache_size)

    @property
    def domain(self):
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @property
    def codomain(self):
        return constraints.stack([t.codomain for t in self.transforms], self.dim)

    def _split(self, x):
        return x.unbind(self.dim)

    def _join(self, parts):
        return stack(parts, self.dim)
