"""Distributions of vectors and matrices."""

import math

from facula.base.errors import ArgumentError, fail
from facula.distributions import constraints
from facula.distributions.continuous import Beta
from facula.distributions.distribution import (
    HALF_LOG_2PI,
    Distribution,
    ExponentialFamily,
    lazy_property,
)
from facula.linalg import cholesky, solve_triangular
from facula.tensor import (
    Tensor,
    arange,
    broadcast_shapes,
    cat,
    cholesky_inverse,
    cholesky_solve,
    digamma,
    eye,
    lgamma,
    nan,
    tensor,
    where,
)
from facula.tensor.rejection import standard_gamma

__all__ = ["Dirichlet", "LKJCholesky", "LowRankMultivariateNormal", "MultivariateNormal", "Wishart"]


def _log_det_half(lower):
    """Half the logarithm of the determinant of ``lower lowerᵀ``."""
    return lower.diagonal(0, -2, -1).log().sum(-1)


def _mahalanobis(lower, x):
    """``xᵀ (lower lowerᵀ)⁻¹ x`` of a batch of vectors."""
    shape = broadcast_shapes(tuple(lower.shape[:-2]), tuple(x.shape[:-1]))
    n = x.shape[-1]
    b = x.expand((*shape, n)).unsqueeze(-1)
    z = solve_triangular(lower.expand((*shape, n, n)), b, upper=False)
    return z.squeeze(-1).square().sum(-1)


def _lower_of_precision(precision):
    """The Cholesky factor of the inverse of a matrix."""
    flipped = cholesky(precision.flip((-2, -1))).flip((-2, -1)).mT
    unit = eye(precision.shape[-1], dtype=precision.dtype).expand(flipped.shape)
    return solve_triangular(flipped, unit, upper=False)


class MultivariateNormal(Distribution):
    """Gauss's distribution of vectors, of a covariance, its inverse, or its Cholesky factor.

    >>> from facula import eye, zeros
    >>> round(MultivariateNormal(zeros(2), eye(2)).log_prob(zeros(2)).item(), 4)
    -1.8379
    """

    arg_constraints = {
        "loc": constraints.real_vector, "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }  # fmt: skip
    support, has_rsample = constraints.real_vector, True

    def __init__(self, loc, covariance_matrix=None, precision_matrix=None, scale_tril=None,
                 validate_args=None):  # fmt: skip
        if loc.ndim < 1:
            fail(ArgumentError, "MultivariateNormal", "loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix,
                 "scale_tril": scale_tril}  # fmt: skip
        given = {k: v for k, v in given.items() if v is not None}
        if len(given) != 1:
            fail(ArgumentError, "MultivariateNormal", "Exactly one of covariance_matrix or "
                 "precision_matrix or scale_tril may be specified.")  # fmt: skip
        ((name, matrix),) = given.items()
        if matrix.ndim < 2:
            fail(ArgumentError, "MultivariateNormal", f"{name} must be at least two-dimensional")
        batch = broadcast_shapes(tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        setattr(self, name, matrix.expand((*batch, *matrix.shape[-2:])))
        self.loc = loc.expand((*batch, loc.shape[-1]))
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)
        if scale_tril is not None:
            self._lower = scale_tril
        elif covariance_matrix is not None:
            self._lower = cholesky(covariance_matrix)
        else:
            self._lower = _lower_of_precision(precision_matrix)

    def _expand_more(self, new, batch_shape):
        new._lower = self._lower

    @lazy_property
    def scale_tril(self):
        """The Cholesky factor of the covariance."""
        return self._lower.expand((*self._batch_shape, *self._event_shape * 2))

    @lazy_property
    def covariance_matrix(self):
        """The covariance."""
        return (self._lower @ self._lower.mT).expand((*self._batch_shape, *self._event_shape * 2))

    @lazy_property
    def precision_matrix(self):
        """The inverse of the covariance."""
        return cholesky_inverse(self._lower).expand((*self._batch_shape, *self._event_shape * 2))

    @property
    def mean(self):
        return self.loc

    @property
    def mode(self):
        return self.loc

    @property
    def variance(self):
        y = self._lower.square().sum(-1)
        return y.expand((*self._batch_shape, *self._event_shape))

    def rsample(self, sample_shape=()):
        z = self.loc.new_empty(self._extended_shape(sample_shape)).normal_()
        return self.loc + (self._lower @ z.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value):
        self._validate_sample(value)
        m = _mahalanobis(self._lower, value - self.loc)
        return -0.5 * m - self._event_shape[0] * HALF_LOG_2PI - _log_det_half(self._lower)

    def entropy(self):
        y = self._event_shape[0] * (0.5 + HALF_LOG_2PI) + _log_det_half(self._lower)
        return y if len(self._batch_shape) == 0 else y.expand(self._batch_shape)


class LowRankMultivariateNormal(Distribution):
    """A normal distribution of covariance ``W Wᵀ + diag(d)``, by Woodbury's identity."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support, has_rsample = constraints.real_vector, True

    def __init__(self, loc, cov_factor, cov_diag, validate_args=None):
        n = loc.shape[-1]
        if cov_factor.ndim < 2 or cov_factor.shape[-2] != n or cov_diag.shape[-1] != n:
            fail(ArgumentError, "LowRankMultivariateNormal", f"cov_factor must be a batch of "
                 f"matrices with shape {n} x m and cov_diag a batch of vectors of {n}, got "
                 f"{tuple(cov_factor.shape)} and {tuple(cov_diag.shape)}")  # fmt: skip
        batch = broadcast_shapes(tuple(loc.shape[:-1]), tuple(cov_factor.shape[:-2]),
                                 tuple(cov_diag.shape[:-1]))  # fmt: skip
        self.loc = loc.expand((*batch, n))
        self.cov_diag = cov_diag.expand((*batch, n))
        self.cov_factor = cov_factor.expand((*batch, n, cov_factor.shape[-1]))
        super().__init__(batch, (n,), validate_args=validate_args)

    @lazy_property
    def _capacitance(self):
        w = self.cov_factor
        inner = w.mT @ (w / self.cov_diag.unsqueeze(-1))
        return cholesky(inner + eye(w.shape[-1], dtype=w.dtype))

    @property
    def mean(self):
        return self.loc

    @property
    def mode(self):
        return self.loc

    @property
    def variance(self):
        return self.cov_factor.square().sum(-1) + self.cov_diag

    @lazy_property
    def covariance_matrix(self):
        """The covariance."""
        return self.cov_factor @ self.cov_factor.mT + self.cov_diag.diag_embed()

    @lazy_property
    def scale_tril(self):
        """The Cholesky factor of the covariance."""
        return cholesky(self.covariance_matrix)

    @lazy_property
    def precision_matrix(self):
        """The inverse of the covariance."""
        w = self.cov_factor / self.cov_diag.unsqueeze(-1)
        a = solve_triangular(self._capacitance, w.mT, upper=False)
        return self.cov_diag.reciprocal().diag_embed() - a.mT @ a

    def rsample(self, sample_shape=()):
        shape = self._extended_shape(sample_shape)
        w = self.loc.new_empty((*shape[:-1], self.cov_factor.shape[-1])).normal_()
        d = self.loc.new_empty(shape).normal_()
        return self.loc + (self.cov_factor @ w.unsqueeze(-1)).squeeze(-1) + self.cov_diag.sqrt() * d

    def _log_det(self):
        return 2 * _log_det_half(self._capacitance) + self.cov_diag.log().sum(-1)

    def log_prob(self, value):
        self._validate_sample(value)
        d = value - self.loc
        inner = (self.cov_factor.mT @ (d / self.cov_diag).unsqueeze(-1)).squeeze(-1)
        m = (d.square() / self.cov_diag).sum(-1) - _mahalanobis(self._capacitance, inner)
        return -self._event_shape[0] * HALF_LOG_2PI - 0.5 * (self._log_det() + m)

    def entropy(self):
        return self._event_shape[0] * (0.5 + HALF_LOG_2PI) + 0.5 * self._log_det()


class Dirichlet(ExponentialFamily):
    """Points of the simplex: normalised gamma numbers of the shapes ``concentration``."""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support, has_rsample = constraints.simplex, True

    def __init__(self, concentration, validate_args=None):
        if concentration.ndim < 1:
            fail(ArgumentError, "Dirichlet", "`concentration` parameter must be at least "
                 "one-dimensional.")  # fmt: skip
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    @property
    def mean(self):
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self):
        less = (self.concentration - 1).clamp(min=0.0)
        total = less.sum(-1, True)
        corner = self.concentration == self.concentration.amax(-1, True)
        return where(total > 0, less / where(total > 0, total, 1.0), corner.to(less.dtype))

    @property
    def variance(self):
        total = self.concentration.sum(-1, True)
        a = self.concentration
        return a * (total - a) / (total.square() * (total + 1))

    def rsample(self, sample_shape=()):
        y = standard_gamma(self.concentration.expand(self._extended_shape(sample_shape)))
        y = y.clamp(min=1.1754943508222875e-38)
        return y / y.sum(-1, True)

    def log_prob(self, value):
        self._validate_sample(value)
        a = self.concentration
        return (a - 1.0).xlogy(value).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)

    def entropy(self):
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        norm = lgamma(a).sum(-1) - lgamma(total)
        return norm - (k - total) * digamma(total) - ((a - 1.0) * digamma(a)).sum(-1)


class Wishart(Distribution):
    """The distribution of ``X Xᵀ`` of ``df`` columns of a multivariate normal (Wishart, 1928).

    Samples are made by Bartlett's decomposition.
    """

    arg_constraints = {
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky, "df": constraints.greater_than(0),
    }  # fmt: skip
    support, has_rsample = constraints.positive_definite, True

    def __init__(self, df, covariance_matrix=None, precision_matrix=None, scale_tril=None,
                 validate_args=None):  # fmt: skip
        given = [m for m in (covariance_matrix, precision_matrix, scale_tril) if m is not None]
        if len(given) != 1:
            fail(ArgumentError, "Wishart", "Exactly one of covariance_matrix or precision_matrix "
                 "or scale_tril may be specified.")  # fmt: skip
        if scale_tril is not None:
            lower = scale_tril
        elif covariance_matrix is not None:
            lower = cholesky(covariance_matrix)
        else:
            lower = _lower_of_precision(precision_matrix)
        n = lower.shape[-1]
        df = df if isinstance(df, Tensor) else tensor(float(df), dtype=lower.dtype)
        batch = broadcast_shapes(tuple(df.shape), tuple(lower.shape[:-2]))
        self.df, self.scale_tril = df.expand(batch), lower.expand((*batch, n, n))
        if not (self.df > n - 1).all().item():
            fail(ArgumentError, "Wishart", f"Value of df={df} expected to be greater than "
                 f"ndim - 1 = {n - 1}.")  # fmt: skip
        super().__init__(batch, (n, n), validate_args=validate_args)

    @lazy_property
    def covariance_matrix(self):
        """The scale matrix."""
        return self.scale_tril @ self.scale_tril.mT

    @lazy_property
    def precision_matrix(self):
        """The inverse of the scale matrix."""
        return cholesky_inverse(self.scale_tril)

    @property
    def mean(self):
        return self.df[..., None, None] * self.covariance_matrix

    @property
    def mode(self):
        factor = self.df - self.covariance_matrix.shape[-1] - 1
        return where(factor <= 0, nan, factor)[..., None, None] * self.covariance_matrix

    @property
    def variance(self):
        v = self.covariance_matrix
        d = v.diagonal(0, -2, -1)
        return self.df[..., None, None] * (v.square() + d.unsqueeze(-1) * d.unsqueeze(-2))

    def rsample(self, sample_shape=()):
        n, shape = self._event_shape[-1], self._extended_shape(sample_shape)
        half = (self.df.unsqueeze(-1) - arange(n, dtype=self.df.dtype)) / 2
        diagonal = (2 * standard_gamma(half.expand(shape[:-1]))).sqrt()
        below = self.df.new_empty(shape).normal_().tril(-1)
        x = self.scale_tril @ (below + diagonal.diag_embed())
        return x @ x.mT

    def _log_norm(self):
        n, df = self._event_shape[-1], self.df
        return -df * (n * math.log(2.0) / 2 + _log_det_half(self.scale_tril)) - (df / 2).mvlgamma(n)

    def log_prob(self, value):
        self._validate_sample(value)
        n = self._event_shape[-1]
        inner = cholesky_solve(value, self.scale_tril).diagonal(0, -2, -1).sum(-1)
        logdet = 2 * _log_det_half(cholesky(value))
        return self._log_norm() + (self.df - n - 1) / 2 * logdet - inner / 2

    def entropy(self):
        n, df = self._event_shape[-1], self.df
        steps = arange(n, dtype=df.dtype)
        psi = digamma((df.unsqueeze(-1) - steps) / 2).sum(-1)
        logdet = psi + n * math.log(2.0) + 2 * _log_det_half(self.scale_tril)
        return -self._log_norm() - (df - n - 1) / 2 * logdet + n * df / 2


class LKJCholesky(Distribution):
    """Cholesky factors of correlation matrices of density ``det^(concentration - 1)``.

    Samples by the onion method (Lewandowski, Kurowicka and Joe, 2009), without gradients.
    """

    arg_constraints = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim, concentration=1.0, validate_args=None):
        if dim < 2:
            fail(ArgumentError, "LKJCholesky", f"Expected dim to be an integer greater than or "
                 f"equal to 2. Found dim={dim}.")  # fmt: skip
        self.dim = dim
        made = concentration if isinstance(concentration, Tensor) else tensor(float(concentration))
        self.concentration = made
        super().__init__(made.shape, (dim, dim), validate_args)
        self._beta = self._make_beta(made)

    def _make_beta(self, concentration):
        offset = arange(self.dim - 1, dtype=concentration.dtype)
        first = concentration.new_zeros(1)
        offset = cat([first, offset])
        marginal = concentration + 0.5 * (self.dim - 2)
        return Beta(offset + 0.5, marginal.unsqueeze(-1) - 0.5 * offset, validate_args=False)

    def _expand_more(self, new, batch_shape):
        new.dim = self.dim
        new._beta = new._make_beta(self.concentration.expand(batch_shape))

    def sample(self, sample_shape=()):
        y = self._beta.sample(sample_shape).unsqueeze(-1)
        u = self.concentration.new_empty(self._extended_shape(sample_shape)).normal_().tril(-1)
        norm = u.square().sum(-1, True).sqrt()
        u = u / where(norm == 0, 1.0, norm)
        w = y.sqrt() * u * (arange(self.dim).unsqueeze(-1) > 0).to(u.dtype)
        rest = (1 - w.square().sum(-1)).clamp(min=1.1754943508222875e-38).sqrt()
        return w + rest.diag_embed()

    def log_prob(self, value):
        self._validate_sample(value)
        n, c = self.dim, self.concentration
        diagonal = value.diagonal(0, -2, -1)[..., 1:]
        order = arange(2, n + 1, dtype=c.dtype)
        order = 2 * (c - 1).unsqueeze(-1) + n - order
        unnormalised = (order * diagonal.log()).sum(-1)
        alpha = c + 0.5 * (n - 1)
        norm = 0.5 * (n - 1) * math.log(math.pi) + (alpha - 0.5).mvlgamma(n - 1)
        return unnormalised - (norm - lgamma(alpha) * (n - 1))
