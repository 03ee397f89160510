"""Order statistics, sums that skip NaN, differences, integrals, covariances."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.library.shape import index_along
from facula.ops import results
from facula.ops.promote import as_value, expand_to, need_float, to
from facula.ops.reduce import argmax_, need_elements, reduced, size_value, sum_, wrap_dims
from facula.ops.registry import F, Scalar, op
from facula.ops.scan import sort_

# Extrema -----------------------------------------------------------------------------------------


def _rows(name, input, dim):
    """(``input`` with at least one dimension, the wrapped ``dim``)."""
    dim = wrap_dim(name, dim, input.ndim)
    return (F.reshape(input, (1,)) if input.ndim == 0 else input), dim


def _picked(input, dim, index, keepdim, kind, scalar=False):
    """(values, indices) at the position ``index`` (with ``dim`` of size 1) along ``dim``."""
    values = F.gather(input, dim, index)
    if scalar:
        return kind(F.reshape(values, ()), F.reshape(index, ()))
    if not keepdim:
        values, index = F.squeeze(values, dim), F.squeeze(index, dim)
    return kind(values, index)


def _extremum(name, input, dim, keepdim):
    x, dim = _rows(name, input, dim)
    need_elements(name, x, (dim,))
    index = getattr(F, "argmax" if name == "max" else "argmin")(x, dim, True)
    return _picked(x, dim, index, keepdim, getattr(results, name), input.ndim == 0)


@op(spaces=(), out=True, samples=lambda make: [((make(3, 4), 1), {}), ((make(3, 4), 0, True), {})])
def max_along(input: Value, dim, keepdim=False):
    """The largest elements along ``dim`` and their positions: (values, indices)."""
    return _extremum("max", input, dim, keepdim)


@op(spaces=(), out=True, samples=lambda make: [((make(3, 4), 1), {}), ((make(3, 4), 0, True), {})])
def min_along(input: Value, dim, keepdim=False):
    """The smallest elements along ``dim`` and their positions: (values, indices)."""
    return _extremum("min", input, dim, keepdim)


@op(out="exact")
def aminmax(input: Value, *, dim=None, keepdim=False):
    """The smallest and the largest elements, of all or along ``dim``: (min, max)."""
    dim = () if dim is None else dim
    return results.aminmax(F.amin(input, dim, keepdim), F.amax(input, dim, keepdim))


# Order statistics --------------------------------------------------------------------------------


def _sorted(x, dim):
    return sort_(x, dim=dim, descending=False)


def _at(ranked, dim, k):
    """The elements at the ranks ``k`` (with ``dim`` of size 1)."""
    return F.gather(ranked, dim, k)


def _ones_along(x, dim):
    return tuple(1 if d == dim else n for d, n in enumerate(x.shape))


def _middle(name, input, dim, keepdim, skip):
    x, dim = _rows(name, input, dim)
    need_elements(name, x, (dim,))
    _, order = _sorted(x, dim)
    n = size_value(x.shape[dim], D.int64)
    rank = expand_to(F.floor_divide(n - 1, 2), _ones_along(x, dim))
    if x.dtype.is_floating_point:
        nan = F.isnan(x)
        if skip:
            count = F.sum(F.logical_not(nan), dim, True)
            rank = F.maximum(F.floor_divide(count - 1, 2), 0)
            index = _at(order, dim, rank)
        else:
            # The first NaN, if there is one, is the median.
            first = argmax_(to(nan, D.uint8), dims=(dim,))
            first = F.unsqueeze(first, dim)
            index = F.where(F.any(nan, dim, True), first, _at(order, dim, rank))
    else:
        index = _at(order, dim, rank)
    return _picked(x, dim, index, keepdim, getattr(results, name), input.ndim == 0)


def _middle_of_all(name, input, skip):
    if input.dtype.is_floating_point and sizes.product(input.shape) == 0:
        return F.zeros_of((), input.dtype) + float("nan")
    return _middle(name, F.reshape(input, (sizes.product(input.shape),)), 0, False, skip)[0]


@op(spaces=(), out=True, samples=lambda make: [((make(3, 5), 1), {}), ((make(3, 4), 0, True), {})])
def median_along(input: Value, dim, keepdim=False):
    """The lower median along ``dim``: (values, indices)."""
    return _middle("median", input, dim, keepdim, False)


@op(spaces=(), out=True, samples=lambda make: [((make(3, 5), 1), {})])
def nanmedian_along(input: Value, dim, keepdim=False):
    """The lower median of what is no NaN along ``dim``: (values, indices)."""
    return _middle("nanmedian", input, dim, keepdim, True)


@op(spaces=())
def median_all(input: Value):
    """The lower median of all elements."""
    return _middle_of_all("median", input, False)


@op(spaces=())
def nanmedian_all(input: Value):
    """The lower median of all elements that are no NaN."""
    return _middle_of_all("nanmedian", input, True)


@op(
    out="exact apart",
    samples=lambda make: [((make(3, 5), 2, 1), {}), ((make(3, 5), 1, 0, True), {})],
)
def kthvalue(input: Value, k, dim=-1, keepdim=False):
    """The ``k``-th smallest elements along ``dim``: (values, indices)."""
    x, dim = _rows("kthvalue", input, dim)
    if k < 1 or k > x.shape[dim]:
        fail(ShapeError, "kthvalue", f"selected number k out of range for dimension {dim}: {k}")
    _, order = _sorted(x, dim)
    index = F.narrow(order, dim, k - 1, 1)
    return _picked(x, dim, index, keepdim, results.kthvalue, input.ndim == 0)


@op(out="exact apart", samples=lambda make: [((make(3, 7, dtype=D.int64), 1), {})])
def mode(input: Value, dim=-1, keepdim=False):
    """The smallest of the most frequent elements along ``dim``: (values, indices)."""
    x, dim = _rows("mode", input, dim)
    need_elements("mode", x, (dim,))
    key = to(x, D.uint8) if x.dtype is D.bool_ else x
    values, order = _sorted(F.movedim(key, dim, -1), x.ndim - 1)
    # In a sorted row, an element occurs where it would be inserted after, less before, its equals.
    after = F.searchsorted(values, values, right=True)
    count = after - F.searchsorted(values, values)
    best = F.argmax(count, -1, True)
    last = F.gather(after, -1, best) - 1
    index = F.movedim(F.gather(order, -1, last), -1, dim)
    return _picked(x, dim, index, keepdim, results.mode, input.ndim == 0)


def _quantile(name, input, q, dim, keepdim, interpolation, skip):
    need_float(input, name)
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        fail(ShapeError, name, "interpolation must be one of linear, lower, higher, midpoint or "
             f"nearest, but got {interpolation}")  # fmt: skip
    q = as_value(q)
    if q.ndim > 1:
        fail(ShapeError, name, "q must be a scalar or 1D tensor")
    if not q.weak and q.dtype is not input.dtype:
        fail(DtypeError, name, "q tensor must be same dtype as the input tensor")
    q = to(q, input.dtype)
    x = input
    if dim is None:
        x, place = F.reshape(x, (sizes.product(x.shape),)), 0
    else:
        x, place = _rows(name, x, dim)
    need_elements(name, x, (place,))
    values = F.movedim(x, place, -1)
    nan = F.isnan(values)
    values = F.sort(values, -1)[0]
    rows = F.unsqueeze(F.reshape(q, (1,)) if q.ndim == 0 else q, 0)
    lead = tuple(values.shape[:-1])
    shape = (*lead, rows.shape[1])
    count = F.sum(F.logical_not(nan), -1, True)
    last = (
        count - 1
        if skip
        else F.zeros_of((*lead, 1), D.int64) + (F.size_of(values, values.ndim - 1) - 1)
    )
    rank = expand_to(F.reshape(rows, (1,) * len(lead) + (rows.shape[1],)), shape) * to(
        F.maximum(last, 0), input.dtype
    )
    low = F.floor(rank) if interpolation != "nearest" else F.round(rank)
    low = F.ceil(rank) if interpolation == "higher" else low
    y = F.gather(values, -1, to(low, D.int64))
    if interpolation in ("linear", "midpoint"):
        above = F.gather(values, -1, to(F.ceil(rank), D.int64))
        weight = F.zeros_of(shape, input.dtype) + 0.5 if interpolation == "midpoint" else rank - low
        y = F.lerp(y, above, weight)
    bad = F.eq(count, 0) if skip else F.any(nan, -1, True)
    y = F.where(bad, float("nan"), y)
    y = F.movedim(y, -1, 0)
    if keepdim:
        ones = (1,) * input.ndim if dim is None else _ones_along(x, place)
        y = F.reshape(y, (y.shape[0], *(ones if input.ndim else ())))
    return F.squeeze(y, 0) if q.ndim == 0 else y


@op(out="exact", samples=lambda make: [((make(3, 5), 0.3, 1), {}), ((make(3, 5), 0.5), {})])
def quantile(input: Value, q: Value, dim=None, keepdim=False, *, interpolation="linear"):
    """The quantiles ``q`` (a number, or a vector: a new first dimension) over all or ``dim``."""
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@op(out="exact", samples=lambda make: [((make(3, 5), 0.3, 1), {})])
def nanquantile(input: Value, q: Value, dim=None, keepdim=False, *, interpolation="linear"):
    """As ``quantile``, of what is no NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


@op(samples=lambda make: [((make(3, 4),), {})], out="exact")
def msort(input: Value):
    """Sorted along the first dimension."""
    return F.sort(input, 0)[0]


@op(samples=lambda make: [((make(3, 4), 1), {})])
def argsort(input: Value, dim=-1, descending=False, stable=False):
    """The positions that sort ``input`` along ``dim``."""
    return F.sort(input, dim, descending)[1]


# Sums --------------------------------------------------------------------------------------------


@op(out=True)
def nansum(input: Value, dim=None, keepdim=False, *, dtype=None):
    """The sum over ``dim`` of what is no NaN."""
    if input.dtype.is_floating_point:
        input = F.where(F.isnan(input), to(0, input.dtype), input)
    return F.sum(input, dim, keepdim, dtype=dtype)


@op(out=True)
def nanmean(input: Value, dim=None, keepdim=False, *, dtype=None):
    """The mean over ``dim`` of what is no NaN."""
    x = input if dtype is None else to(input, dtype)
    need_float(x, "nanmean")
    dims = wrap_dims("nanmean", dim, x.ndim)
    kept = F.logical_not(F.isnan(x))
    count = reduced(sum_, to(kept, x.dtype), dims, keepdim)
    return F.nansum(x, dim, keepdim) / count


def _shifted(x, dim, by, fill):
    """Elements moved ``by`` places towards the end of ``dim``."""
    from_start = F.narrow(x, dim, 0, x.shape[dim] - by)
    shape = tuple(by if d == dim else n for d, n in enumerate(x.shape))
    return F.cat([expand_to(to(fill, x.dtype), shape), from_start], dim)


@op(out=True, samples=lambda make: [((make(3, 5), 1), {}), ((make(4, 3), 0), {})])
def logcumsumexp(input: Value, dim):
    """The logarithm of running sums of exponentials, by doubling: log2(n) steps, no overflow."""
    need_float(input, "logcumsumexp")
    x, dim = _rows("logcumsumexp", input, dim)
    step = 1
    while step < x.shape[dim]:
        other = _shifted(x, dim, step, float("-inf"))
        both = F.eq(x, float("-inf")) & F.eq(other, float("-inf"))
        x = F.where(both, x, F.logaddexp(F.where(both, 0.0, x), F.where(both, 0.0, other)))
        step *= 2
    return F.reshape(x, ()) if input.ndim == 0 else x


# Differences and integrals -----------------------------------------------------------------------


@op(out=True, samples=lambda make: [((make(3, 5),), {}), ((make(3, 5), 2, 0), {})])
def diff(input: Value, n=1, dim=-1, prepend: Value = None, append: Value = None):
    """The ``n``-th differences of neighbours along ``dim``."""
    if input.ndim == 0:
        fail(ShapeError, "diff", "expects input to be at least one-dimensional")
    if n < 0:
        fail(ShapeError, "diff", f"order must be non-negative but got {n}")
    dim = wrap_dim("diff", dim, input.ndim)
    if n == 0:
        return F.clone(input)
    parts = [x for x in (prepend, input, append) if x is not None]
    x = F.cat(parts, dim) if len(parts) > 1 else input
    for _ in range(n):
        m = x.shape[dim]
        if m == 0:
            break
        a, b = F.narrow(x, dim, 1, m - 1), F.narrow(x, dim, 0, m - 1)
        x = a ^ b if x.dtype is D.bool_ else a - b
    return F.clone(x) if x is input else x


def _panels(name, y, x, dx, dim):
    """(mean heights, widths) between neighbours along ``dim``."""
    dim = wrap_dim(name, dim, y.ndim)
    m = y.shape[dim]
    heights = (F.narrow(y, dim, 1, m - 1) + F.narrow(y, dim, 0, m - 1)) / 2
    if x is None:
        return heights * dx, dim
    widths = F.diff(x, 1, -1 if x.ndim == 1 else dim)
    if x.ndim == 1:
        widths = F.reshape(widths, (-1, *(1,) * (y.ndim - 1 - dim)))
    return heights * widths, dim


@op(spaces=("torch",), aliases=("trapz",), samples=lambda make: [((make(3, 5),), {})])
def trapezoid(y: Value, x: Value = None, *, dx: Scalar = 1, dim=-1):
    """The integral of samples ``y`` along ``dim`` by the trapezoid rule."""
    panels, dim = _panels("trapezoid", y, x, dx, dim)
    return F.sum(panels, dim)


@op(spaces=("torch",), samples=lambda make: [((make(3, 5),), {})])
def cumulative_trapezoid(y: Value, x: Value = None, *, dx: Scalar = 1, dim=-1):
    """The running integral of samples ``y`` along ``dim`` by the trapezoid rule."""
    panels, dim = _panels("cumulative_trapezoid", y, x, dx, dim)
    return F.cumsum(panels, dim)


# Covariances -------------------------------------------------------------------------------------


@op(
    samples=lambda make: [((make(3, 6),), {}), ((make(6),), {}), ((make(3, 6),), {"correction": 0})]
)
def cov(input: Value, *, correction=1, fweights: Value = None, aweights: Value = None):
    """The covariance matrix of variables (rows) over observations (columns)."""
    if input.ndim > 2:
        fail(ShapeError, "cov", "expected input to have two or fewer dimensions but got an input "
             f"with {input.ndim} dimensions")  # fmt: skip
    x = F.reshape(input, (1, -1)) if input.ndim < 2 else input
    if not x.dtype.is_floating_point:
        x = to(x, D.get_default_dtype())
    if fweights is not None and fweights.dtype.is_floating_point:
        fail(DtypeError, "cov", "expected fweights to have integral dtype but got fweights with "
             f"{fweights.dtype.name} dtype", "aweights= takes floats")  # fmt: skip
    w = None
    for weight in (fweights, aweights):
        if weight is not None:
            if weight.ndim > 1 or not sizes.product(weight.shape) == x.shape[1]:
                fail(ShapeError, "cov", f"expected weights of {x.shape[1]} observations, got shape "
                     f"{tuple(weight.shape)}")  # fmt: skip
            w = to(weight, x.dtype) if w is None else w * to(weight, x.dtype)
    if w is None:
        total = size_value(x.shape[1], x.dtype)
        centred = x - F.mean(x, 1, True)
        weighted = centred
        norm = total - correction
    else:
        total = F.sum(w)
        centred = x - F.sum(x * w, 1, True) / total
        weighted = centred * w
        if aweights is None or correction == 0:
            norm = total - correction
        else:
            norm = total - correction * F.sum(w * to(aweights, x.dtype)) / total
    y = F.matmul(weighted, F.t(centred)) / F.maximum(norm, to(0, x.dtype))
    return F.reshape(y, ()) if x.shape[0] == 1 else y


@op(samples=lambda make: [((make(3, 6),), {}), ((make(6),), {})])
def corrcoef(input: Value):
    """The matrix of Pearson's correlation coefficients of variables (rows)."""
    if input.ndim > 2:
        fail(ShapeError, "corrcoef", "expected input to have two or fewer dimensions but got an "
             f"input with {input.ndim} dimensions")  # fmt: skip
    c = F.cov(input)
    if c.ndim == 0:
        return c / c
    s = F.sqrt(F.diagonal(c))
    return F.clamp(c / F.unsqueeze(s, 1) / F.unsqueeze(s, 0), -1.0, 1.0)


@op(inplace=True, out=True, samples=lambda make: [((make(3, 4), 2.0, 0, 1.0), {})])
def renorm(input: Value, p, dim, maxnorm):
    """Slices along ``dim`` scaled down to a ``p``-norm of at most ``maxnorm``."""
    if input.ndim < 2:
        fail(ShapeError, "renorm", "input needs at least 2 dimensions")
    if p <= 0 or maxnorm < 0:
        fail(ArgumentError, "renorm", f"expected p > 0 and maxnorm >= 0, got {p} and {maxnorm}")
    dim = wrap_dim("renorm", dim, input.ndim)
    others = tuple(d for d in range(input.ndim) if d != dim)
    norm = F.vector_norm(input, p, others, True)
    scale = F.where(F.gt(norm, maxnorm), maxnorm / (norm + 1e-7), 1.0)
    return input * to(scale, input.dtype)


@op(samples=lambda make: [((make(4),), {}), ((make(4), 3, True), {})], spaces=("torch",))
def vander(x: Value, N=None, increasing=False):  # noqa: N803
    """The matrix of powers of a vector, from the highest down unless ``increasing``."""
    if x.ndim != 1:
        fail(ShapeError, "vander", "x must be a one-dimensional tensor.")
    n = x.shape[0] if N is None else N
    base = expand_to(F.unsqueeze(x, 1), (x.shape[0], n))
    place = index_along(base, 1)
    power = place if increasing else size_value(n, D.int64) - 1 - place
    if not x.dtype.is_floating_point:
        base = to(base, D.int64)
    return F.pow(base, to(power, base.dtype))
