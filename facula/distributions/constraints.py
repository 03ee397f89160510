"""Sets of values: what parameters and samples of distributions have to be.

``constraint.check(value)`` gives a bool for each event, the last ``event_dim`` dimensions of which
are judged as one.
"""

from facula.base.errors import ArgumentError, fail
from facula.linalg import cholesky_ex, eigvalsh
from facula.tensor import Tensor
from facula.tensor import cat as _cat
from facula.tensor import stack as _stack

__all__ = [
    "Constraint", "MixtureSameFamilyConstraint", "boolean", "cat", "corr_cholesky", "dependent",
    "dependent_property", "greater_than", "greater_than_eq", "half_open_interval", "independent",
    "integer_interval", "interval", "is_dependent", "less_than", "lower_cholesky",
    "lower_triangular", "multinomial", "nonnegative", "nonnegative_integer", "one_hot", "positive",
    "positive_definite", "positive_integer", "positive_semidefinite", "real", "real_vector",
    "simplex", "square", "stack", "symmetric", "unit_interval",
]  # fmt: skip


class Constraint:
    """A set of values.

    Attributes:
        is_discrete: whether its values are isolated.
        event_dim: how many last dimensions make one value.
    """

    is_discrete = False
    event_dim = 0

    def check(self, value):
        """Bool: which events are in the set."""
        raise NotImplementedError

    def __repr__(self):
        return type(self).__name__.lstrip("_") + "()"


class _Rule(Constraint):
    """A set told by a function of a value."""

    def __init__(self, name, rule, is_discrete=False, event_dim=0):
        self._name, self._rule = name, rule
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def check(self, value):
        return self._rule(value)

    def __repr__(self):
        return self._name


class _Dependent(Constraint):
    """A set that depends on other parameters, so that it cannot be checked alone."""

    def __init__(self, *, is_discrete=False, event_dim=0):
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, *, is_discrete=False, event_dim=0):
        return _Dependent(is_discrete=is_discrete, event_dim=event_dim)

    def check(self, value):
        fail(ArgumentError, "constraints", "Cannot determine validity of dependent constraint")


def is_dependent(constraint):
    """Whether a constraint depends on other parameters."""
    return isinstance(constraint, (_Dependent, dependent_property))


class dependent_property(property, Constraint):  # noqa: N801  the public name
    """A property that is a constraint: ``@dependent_property(is_discrete=False, event_dim=0)``."""

    def __init__(self, fn=None, *, is_discrete=False, event_dim=0):
        super().__init__(fn)
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, fn):
        return dependent_property(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def _all(x, n):
    """``x`` with the last ``n`` dimensions judged together."""
    for _ in range(n):
        x = x.all(-1)
    return x


def _is_whole(x):
    return x == x.round() if x.is_floating_point() else x == x


class independent(Constraint):  # noqa: N801  the public name
    """A constraint whose last further dimensions are judged together."""

    def __init__(self, base_constraint, reinterpreted_batch_ndims):
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims

    @property
    def is_discrete(self):
        return self.base_constraint.is_discrete

    @property
    def event_dim(self):
        return self.base_constraint.event_dim + self.reinterpreted_batch_ndims

    def check(self, value):
        return _all(self.base_constraint.check(value), self.reinterpreted_batch_ndims)

    def __repr__(self):
        return f"Independent({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


class interval(Constraint):  # noqa: N801  the public name
    """[lower_bound, upper_bound]."""

    _words = "Interval"

    def __init__(self, lower_bound, upper_bound):
        self.lower_bound, self.upper_bound = lower_bound, upper_bound

    def check(self, value):
        return (value >= self.lower_bound) & (value <= self.upper_bound)

    def __repr__(self):
        low, high = (
            tuple(x.shape) if isinstance(x, Tensor) and x.ndim else x
            for x in (self.lower_bound, self.upper_bound)
        )
        return f"{self._words}(lower_bound={low}, upper_bound={high})"


class half_open_interval(interval):  # noqa: N801  the public name
    """[lower_bound, upper_bound)."""

    _words = "HalfOpenInterval"

    def check(self, value):
        return (value >= self.lower_bound) & (value < self.upper_bound)


class integer_interval(interval):  # noqa: N801  the public name
    """The integers of [lower_bound, upper_bound]."""

    _words, is_discrete = "IntegerInterval", True

    def check(self, value):
        return _is_whole(value) & super().check(value)


class greater_than(Constraint):  # noqa: N801  the public name
    """(lower_bound, inf]."""

    def __init__(self, lower_bound):
        self.lower_bound = lower_bound

    def check(self, value):
        return value > self.lower_bound

    def __repr__(self):
        return f"GreaterThan(lower_bound={self.lower_bound})"


class greater_than_eq(greater_than):  # noqa: N801  the public name
    """[lower_bound, inf)."""

    def check(self, value):
        return value >= self.lower_bound

    def __repr__(self):
        return f"GreaterThanEq(lower_bound={self.lower_bound})"


class less_than(Constraint):  # noqa: N801  the public name
    """[-inf, upper_bound)."""

    def __init__(self, upper_bound):
        self.upper_bound = upper_bound

    def check(self, value):
        return value < self.upper_bound

    def __repr__(self):
        return f"LessThan(upper_bound={self.upper_bound})"


class multinomial(Constraint):  # noqa: N801  the public name
    """Vectors of non-negative integers with a sum of at most ``upper_bound``."""

    is_discrete, event_dim = True, 1

    def __init__(self, upper_bound):
        self.upper_bound = upper_bound

    def check(self, value):
        return (value >= 0).all(-1) & (value.sum(-1) <= self.upper_bound)


class _Joined(Constraint):
    """Parts of a tensor along ``dim``, each with its own constraint."""

    def __init__(self, cseq, dim=0, lengths=None):
        self.cseq, self.dim = list(cseq), dim
        self.lengths = [1] * len(self.cseq) if lengths is None else list(lengths)

    @property
    def is_discrete(self):
        return any(c.is_discrete for c in self.cseq)


class cat(_Joined):  # noqa: N801  the public name
    """Constraints of parts that were concatenated."""

    @property
    def event_dim(self):
        return max(c.event_dim for c in self.cseq)

    def check(self, value):
        checks, start = [], 0
        for c, length in zip(self.cseq, self.lengths):
            checks.append(c.check(value.narrow(self.dim, start, length)))
            start += length
        return _cat(checks, self.dim)


class stack(_Joined):  # noqa: N801  the public name
    """Constraints of parts that were stacked."""

    @property
    def event_dim(self):
        dim = max(c.event_dim for c in self.cseq)
        return dim + 1 if self.dim + dim < 0 else dim

    def check(self, value):
        parts = value.unbind(self.dim)
        return _stack([c.check(v) for v, c in zip(parts, self.cseq)], self.dim)


class MixtureSameFamilyConstraint(Constraint):
    """The support of a mixture: that of any component."""

    def __init__(self, base_constraint):
        self.base_constraint = base_constraint

    @property
    def is_discrete(self):
        return self.base_constraint.is_discrete

    @property
    def event_dim(self):
        return self.base_constraint.event_dim

    def check(self, value):
        dim = value.ndim - self.event_dim
        return self.base_constraint.check(value.unsqueeze(dim)).all(dim)


def _symmetric(x):
    near = (x - x.mT).abs() <= 1e-6 + 1e-5 * x.mT.abs()
    return near.all(-2).all(-1)


def _corr_cholesky(x):
    tolerance = 1.2e-7 * x.shape[-1] * 10
    norms = (x * x).sum(-1).sqrt()
    return ((norms - 1.0).abs() < tolerance).all(-1) & _lower_cholesky(x)


def _lower_cholesky(x):
    return (x.tril() == x).all(-2).all(-1) & (x.diagonal(0, -2, -1) > 0).all(-1)


def _positive_definite(x):
    return _symmetric(x) & (cholesky_ex(x).info == 0)


dependent = _Dependent()
real = _Rule("Real()", lambda x: x == x)
real_vector = independent(real, 1)
positive, nonnegative = greater_than(0.0), greater_than_eq(0.0)
unit_interval = interval(0.0, 1.0)
boolean = _Rule("Boolean()", lambda x: (x == 0) | (x == 1), is_discrete=True)
nonnegative_integer = _Rule("IntegerGreaterThan(lower_bound=0)",
                            lambda x: _is_whole(x) & (x >= 0), is_discrete=True)  # fmt: skip
positive_integer = _Rule("IntegerGreaterThan(lower_bound=1)",
                         lambda x: _is_whole(x) & (x >= 1), is_discrete=True)  # fmt: skip
one_hot = _Rule("OneHot()", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1),
                is_discrete=True, event_dim=1)  # fmt: skip
simplex = _Rule("Simplex()", lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6),
                event_dim=1)  # fmt: skip
lower_triangular = _Rule("LowerTriangular()", lambda x: (x.tril() == x).all(-2).all(-1),
                         event_dim=2)  # fmt: skip
lower_cholesky = _Rule("LowerCholesky()", _lower_cholesky, event_dim=2)
corr_cholesky = _Rule("CorrCholesky()", _corr_cholesky, event_dim=2)
square = _Rule("Square()", lambda x: (x[..., 0, 0] == x[..., 0, 0]) & (x.shape[-1] == x.shape[-2]),
               event_dim=2)  # fmt: skip
symmetric = _Rule("Symmetric()", _symmetric, event_dim=2)
positive_definite = _Rule("PositiveDefinite()", _positive_definite, event_dim=2)
positive_semidefinite = _Rule("PositiveSemidefinite()",
                              lambda x: _symmetric(x) & (eigvalsh(x) >= 0).all(-1),
                              event_dim=2)  # fmt: skip
