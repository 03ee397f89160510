"""Reductions and normalisations that leave elements out: PyTorch's ``torch.masked``.

Where ``mask`` is False an element does not count. It has a dtype bool (others: what is not 0) and
broadcasts to the input. A result over no elements is what the operation gives for none: 0 for a
sum, -inf for a maximum, NaN for a mean.

>>> import facula
>>> x = facula.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 7.0]])
>>> facula.masked.mean(x, 1, mask=facula.tensor([True, False, True]))
tensor([2.5000, 5.0000])
"""

from __future__ import annotations

import math

import facula
from facula.base.errors import ArgumentError, DimensionError, DtypeError, fail

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp",
    "logsumexp", "mean", "median", "norm", "normalize", "prod", "softmax", "softmin", "std",
    "sum", "var",
]  # fmt: skip


def _mask_of(name, input, mask):
    """The mask as bools of the input's shape, or None."""
    if mask is None:
        return None
    if mask.ndim > input.ndim:
        fail(
            DimensionError,
            name,
            "expected broadcastable mask (got mask dimensionality higher than of the input)",
        )
    mask = mask if mask.dtype is facula.bool else mask != 0
    return mask.expand(input.shape)


def _filled(name, input, mask, value):
    """The input with ``value`` where it does not count."""
    mask = _mask_of(name, input, mask)
    return input if mask is None else input.masked_fill(~mask, value)


def _dims(name, dim, ndim):
    """The dims as a tuple of numbers from 0 on; None: all."""
    if dim is None:
        return tuple(range(ndim))
    wanted, found = (dim,) if isinstance(dim, int) else tuple(dim), []
    most = max(ndim, 1)
    for d in wanted:
        if not -most <= d < most:
            fail(
                DimensionError,
                name,
                f"Dimension out of range (expected to be in range of [{-most}, {most - 1}], "
                f"but got {d})",
            )
        if d % most in found:
            fail(ArgumentError, name, f"dim={d % most} appears multiple times in the list of dims")
        found.append(d % most)
    return tuple(found)


def _lowest(dtype):
    if dtype.is_floating_point:
        return -math.inf
    return False if dtype is facula.bool else facula.iinfo(dtype).min


def _highest(dtype):
    if dtype.is_floating_point:
        return math.inf
    return True if dtype is facula.bool else facula.iinfo(dtype).max


def _as(input, dtype):
    return input if dtype is None else input.to(dtype)


def sum(input, dim=None, *, keepdim=False, dtype=None, mask=None):  # noqa: A001
    """The sum of the elements that count, over all dimensions or ``dim``."""
    dims = _dims("sum", dim, input.ndim)
    x = _filled("sum", _as(input, dtype), mask, 0)
    return facula.sum(x, dims, keepdim=keepdim) if input.ndim else facula.sum(x)


def prod(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The product of the elements that count, over all dimensions or ``dim``."""
    dims = _dims("prod", dim, input.ndim)
    x = _filled("prod", _as(input, dtype), mask, 1)
    if not input.ndim:
        return facula.prod(x)
    for d in sorted(dims, reverse=True):
        x = facula.prod(x, d, keepdim=keepdim)
    return x


def amax(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The largest element that counts, over all dimensions or ``dim``."""
    dims, x = _dims("amax", dim, input.ndim), _as(input, dtype)
    return facula.amax(_filled("amax", x, mask, _lowest(x.dtype)), dims, keepdim=keepdim)


def amin(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The smallest element that counts, over all dimensions or ``dim``."""
    dims, x = _dims("amin", dim, input.ndim), _as(input, dtype)
    return facula.amin(_filled("amin", x, mask, _highest(x.dtype)), dims, keepdim=keepdim)


def argmax(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """Where the largest element that counts is: a number of the input's dtype."""
    x = _as(input, dtype)
    found = facula.argmax(_filled("argmax", x, mask, _lowest(x.dtype)), dim, keepdim=keepdim)
    return found.to(x.dtype)


def argmin(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """Where the smallest element that counts is: a number of the input's dtype."""
    x = _as(input, dtype)
    found = facula.argmin(_filled("argmin", x, mask, _highest(x.dtype)), dim, keepdim=keepdim)
    return found.to(x.dtype)


def cumsum(input, dim, *, dtype=None, mask=None):
    """Running sums along ``dim``; elements that do not count add nothing."""
    (d,) = _dims("cumsum", dim, input.ndim)
    return facula.cumsum(_filled("cumsum", _as(input, dtype), mask, 0), d)


def cumprod(input, dim, *, dtype=None, mask=None):
    """Running products along ``dim``; elements that do not count change nothing."""
    (d,) = _dims("cumprod", dim, input.ndim)
    return facula.cumprod(_filled("cumprod", _as(input, dtype), mask, 1), d)


def _counts(name, input, dim, keepdim, mask):
    return sum(facula.ones_like(input, dtype=facula.int64), dim, keepdim=keepdim, mask=mask)


def mean(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """The mean of the elements that count.

    Raises:
        DtypeError: the result's dtype is none of floating point.
    """
    dtype = dtype or input.dtype
    if not dtype.is_floating_point:
        fail(
            DtypeError,
            "mean",
            "the result must be of floating point, got "
            f"{dtype.name if dtype is not facula.bool else 'bool'}",
            "give a floating-point dtype",
        )
    total = sum(input, dim, keepdim=keepdim, dtype=dtype, mask=mask)
    return total / _counts("mean", input, dim, keepdim, mask)


def median(input, dim=-1, *, keepdim=False, dtype=None, mask=None):
    """The median (the lower of two) of the elements that count along ``dim``."""
    x = _as(input, dtype)
    (d,) = _dims("median", dim, input.ndim)
    if mask is None:
        return facula.median(x, d, keepdim=keepdim).values
    if not x.dtype.is_floating_point:
        fail(DtypeError, "median", "expected an input of floating point with a mask")
    return facula.nanmedian(_filled("median", x, mask, math.nan), d, keepdim=keepdim).values


def norm(input, ord=2.0, dim=None, *, keepdim=False, dtype=None, mask=None):  # noqa: A002
    """The vector norm of the elements that count."""
    neutral = math.inf if ord is not None and ord < 0 else 0.0
    x = _filled("norm", _as(input, dtype), mask, neutral)
    dims = _dims("norm", dim, input.ndim)
    return facula.linalg.vector_norm(x, 2.0 if ord is None else ord, dims, keepdim=keepdim)


def _moment(name, input, dim, unbiased, correction, keepdim, dtype, mask):
    """The variance of the elements that count."""
    if unbiased is not None and correction is not None:
        fail(ArgumentError, name, "unbiased and correction cannot both be given")
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    dtype = dtype or input.dtype
    x = input.to(dtype if dtype.is_floating_point else facula.float32)
    count = _counts(name, x, dim, True, mask)
    centre = sum(x, dim, keepdim=True, mask=mask) / count
    apart = x - centre
    total = sum(apart * apart, dim, keepdim=keepdim, mask=mask)
    count = count if keepdim else _counts(name, x, dim, False, mask)
    return total / facula.clamp(count - correction, min=0)


def var(input, dim=None, unbiased=None, *, correction=None, keepdim=False, dtype=None, mask=None):
    """The variance of the elements that count, by ``their number - correction`` (1)."""
    return _moment("var", input, dim, unbiased, correction, keepdim, dtype, mask)


def std(input, dim=None, unbiased=None, *, correction=None, keepdim=False, dtype=None, mask=None):
    """The standard deviation of the elements that count."""
    return facula.sqrt(_moment("std", input, dim, unbiased, correction, keepdim, dtype, mask))


def softmax(input, dim, *, dtype=None, mask=None):
    """Softmax along ``dim`` of the elements that count; 0 elsewhere."""
    (d,) = _dims("softmax", dim, input.ndim)
    return facula.softmax(_filled("softmax", _as(input, dtype), mask, -math.inf), d)


def log_softmax(input, dim, *, dtype=None, mask=None):
    """The logarithm of :func:`softmax`; -inf elsewhere."""
    (d,) = _dims("log_softmax", dim, input.ndim)
    return facula.log_softmax(_filled("log_softmax", _as(input, dtype), mask, -math.inf), d)


def softmin(input, dim, *, dtype=None, mask=None):
    """Softmax of the negatives of the elements that count; 0 elsewhere."""
    (d,) = _dims("softmin", dim, input.ndim)
    x = _filled("softmin", _as(input, dtype), mask, math.inf)
    return facula.nn.functional.softmin(x, d)


def normalize(input, ord, dim, *, eps=1e-12, dtype=None, mask=None):  # noqa: A002
    """The elements that count by their norm along ``dim`` (at least ``eps``); 0 elsewhere."""
    x = _as(input, dtype)
    size = norm(x, ord, dim, keepdim=True, mask=mask)
    return _filled("normalize", x, mask, 0) / facula.clamp(size, min=eps)


def logsumexp(input, dim=None, *, keepdim=False, dtype=None, mask=None):
    """``log(sum(exp))`` over the elements that count, of all dimensions or ``dim``."""
    dims = _dims("logsumexp", dim, input.ndim)
    x = _filled("logsumexp", _as(input, dtype), mask, -math.inf)
    return facula.logsumexp(x, dims, keepdim=keepdim)


def logaddexp(input, other, *, dtype=None, input_mask=None, other_mask=None):
    """``log(exp(input) + exp(other))`` of the elements of each that count."""
    a = _filled("logaddexp", _as(input, dtype), input_mask, -math.inf)
    b = _filled("logaddexp", _as(other, dtype), other_mask, -math.inf)
    return facula.logaddexp(a, b)
