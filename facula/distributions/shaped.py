"""Transforms of vectors, of matrices, and of parts of tensors."""

import math

from facula.distributions import constraints
from facula.distributions.maps import Transform
from facula.linalg import cholesky
from facula.nn.functional import pad, softplus
from facula.tensor import cat, eye, ones_like, stack, tril_indices

__all__ = [
    "CatTransform",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "SoftmaxTransform",
    "StackTransform",
    "StickBreakingTransform",
]


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
