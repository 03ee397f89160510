"""Fills: ops whose result takes only its shape from the input. Creation functions are built on
them (memory, then a fill in place), so that a new size never compiles. Random ones included.

Random ops get ``seed`` and ``offset``, two int64 numbers drawn from a Generator at each call;
element ``i`` uses counter ``offset + i``.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, fail
from facula.ir.program import Value
from facula.ops import random as R
from facula.ops.promote import as_value, expand_to, to
from facula.ops.registry import F, Scalar, op

INPLACE = {"spaces": (), "inplace": True}


@op(samples=lambda make: [((make(3, 5), 2.5), {})], **INPLACE)
def fill(input: Value, value: Value):
    """Every element ``value``."""
    return expand_to(to(as_value(value), input.dtype), input.shape)


@op(**INPLACE)
def zero(input: Value):
    """Every element 0."""
    return expand_to(to(0, input.dtype), input.shape)


@op(samples=lambda make: [((make(7), 1.5, 0.25), {}), ((make(7), 1, 2), {})], **INPLACE)
def count(input: Value, start: Scalar, step: Scalar):
    """``start + step * i`` for the flat position ``i``."""
    i = R.positions(shape=tuple(input.shape))
    if input.dtype.is_floating_point:
        wide = to(i, D.float64)
        return to(
            to(as_value(start), D.float64) + wide * to(as_value(step), D.float64), input.dtype
        )
    return to(to(as_value(start), D.int64) + i * to(as_value(step), D.int64), input.dtype)


@op(samples=lambda make: [((make(7), -1.0, 2.0, 7), {})], **INPLACE)
def between(input: Value, start: Scalar, end: Scalar, steps: Scalar):
    """``steps`` values from ``start`` to ``end``, evenly spaced, each half from its own end."""
    wide = D.float64
    a, b = to(as_value(start), wide), to(as_value(end), wide)
    n = to(as_value(steps), wide)
    i = to(R.positions(shape=tuple(input.shape)), wide)
    step = (b - a) / F.maximum(n - 1, 1.0)
    first = F.lt(i, F.floor(n / 2))
    value = F.where(first | F.le(n, 1.0), a + i * step, b - (n - 1 - i) * step)
    if not input.dtype.is_floating_point:
        value = F.trunc(value)
    return to(value, input.dtype)


@op(samples=lambda make: [((make(4, 5),), {})], **INPLACE)
def identity(input: Value):
    """Ones on the diagonal of a matrix, zeros elsewhere."""
    i = R.positions(shape=tuple(input.shape))
    n = F.size_of(input, 1)
    return to(F.eq(F.floor_divide(i, n), F.remainder(i, n)), input.dtype)


@op(random=True, **INPLACE)
def uniform(input: Value, low: Scalar = 0.0, high: Scalar = 1.0, *, seed: Scalar, offset: Scalar):
    """Uniform in [low, high)."""
    _need_float("uniform_", input)
    work = D.float64 if input.dtype is D.float64 else D.float32
    u = R.uniform(input.shape, work, seed, offset)
    a, b = to(as_value(low), work), to(as_value(high), work)
    return to(u * (b - a) + a, input.dtype)


@op(random=True, **INPLACE)
def normal(input: Value, mean: Scalar = 0.0, std: Scalar = 1.0, *, seed: Scalar, offset: Scalar):
    """Normal with that mean and standard deviation."""
    _need_float("normal_", input)
    work = D.float64 if input.dtype is D.float64 else D.float32
    z = R.normal(input.shape, work, seed, offset)
    return to(z * to(as_value(std), work) + to(as_value(mean), work), input.dtype)


@op(random=True, **INPLACE)
def integers(input: Value, low: Scalar, high: Scalar, *, seed: Scalar, offset: Scalar):
    """Integers from [low, high): 64 random bits modulo the range."""
    lowest, highest = to(as_value(low), D.int64), to(as_value(high), D.int64)
    first = to(R.bits(input.shape, seed, offset, 0), D.int64)
    second = to(R.bits(input.shape, seed, offset, 1), D.int64)
    word = F.bitwise_and(F.bitwise_left_shift(first, 31) ^ second, (1 << 62) - 1)
    return to(F.remainder(word, highest - lowest) + lowest, input.dtype)


@op(random=True, **INPLACE)
def bernoulli_of(input: Value, p: Value, *, seed: Scalar, offset: Scalar):
    """1 with probability ``p`` (a number, or a tensor that broadcasts), else 0."""
    u = R.uniform(input.shape, D.float32, seed, offset)
    return to(F.lt(u, p), input.dtype)


@op(random=True, **INPLACE)
def exponential(input: Value, lambd: Scalar = 1.0, *, seed: Scalar, offset: Scalar):
    """Exponential with that rate."""
    _need_float("exponential_", input)
    u = R.uniform(input.shape, D.float32, seed, offset)
    return to(-F.log(1.0 - u) / to(as_value(lambd), D.float32), input.dtype)


@op(random=True, **INPLACE)
def cauchy(
    input: Value, median: Scalar = 0.0, sigma: Scalar = 1.0, *, seed: Scalar, offset: Scalar
):
    """Cauchy with that median and half-width."""
    u = R.uniform(input.shape, D.float32, seed, offset)
    y = F.tan((u - 0.5) * 3.141592653589793)
    return to(to(as_value(median), D.float32) + y * to(as_value(sigma), D.float32), input.dtype)


@op(random=True, **INPLACE)
def log_normal(
    input: Value, mean: Scalar = 1.0, std: Scalar = 2.0, *, seed: Scalar, offset: Scalar
):
    """The exponential of a normal."""
    z = R.normal(input.shape, D.float32, seed, offset)
    return to(F.exp(z * to(as_value(std), D.float32) + to(as_value(mean), D.float32)), input.dtype)


@op(random=True, **INPLACE)
def geometric(input: Value, p: Scalar, *, seed: Scalar, offset: Scalar):
    """The number of trials up to the first success of probability ``p``."""
    u = R.uniform(input.shape, D.float32, seed, offset)
    return to(F.ceil(F.log(1.0 - u) / F.log1p(-to(as_value(p), D.float32))), input.dtype)


def _need_float(name, x):
    if not x.dtype.is_floating_point:
        fail(DtypeError, name, f"expected a floating-point tensor, got {x.dtype.name}")


# Noise in networks -------------------------------------------------------------------------------


def _kept(x, shape, p, seed, offset):
    """``x`` divided by the probability of being kept where kept, else 0."""
    u = R.uniform(shape, D.float32, seed, offset)
    keep = expand_to(F.ge(u, p), x.shape)
    left = 1.0 - p
    # The inner where keeps 0 * inf from making NaN at p = 1.
    scale = F.where(F.gt(left, 0.0), F.reciprocal(F.where(F.gt(left, 0.0), left, 1.0)), 0.0)
    return F.where(keep, x * scale, 0.0)


@op(spaces=(), random=True)
def dropout_train(input: Value, p: Scalar = 0.5, *, seed: Scalar, offset: Scalar):
    """Elements set to 0 with probability ``p``, the others divided by ``1 - p``."""
    return _kept(input, input.shape, as_value(p), seed, offset)


@op(spaces=(), random=True)
def feature_dropout_train(
    input: Value, p: Scalar = 0.5, channel_dims=2, *, seed: Scalar, offset: Scalar
):
    """Whole channels (all but the first ``channel_dims`` dimensions) dropped together."""
    shape = tuple(n if d < channel_dims else 1 for d, n in enumerate(input.shape))
    return _kept(input, shape, as_value(p), seed, offset)


@op(spaces=(), random=True)
def alpha_dropout_train(input: Value, p: Scalar = 0.5, *, seed: Scalar, offset: Scalar):
    """Dropout that keeps mean and variance of SELU's outputs (Klambauer et al., 2017)."""
    p = as_value(p)
    low = -1.7580993408473766
    u = R.uniform(input.shape, D.float32, seed, offset)
    a = F.rsqrt((1.0 - p) * (1.0 + p * (low * low)))
    b = -a * p * low
    y = F.where(F.ge(u, p), input, low) * to(a, input.dtype) + to(b, input.dtype)
    # Nothing is left of an input that is dropped as a whole, and there is no scale for it.
    return F.where(F.eq(p, 1.0), input * 0, y)


@op(spaces=(), random=True)
def rrelu_train(input: Value, lower: Scalar, upper: Scalar, *, seed: Scalar, offset: Scalar):
    """Leaky ReLU with a random slope from [lower, upper) per element."""
    u = R.uniform(input.shape, D.float32, seed, offset)
    slope = to(as_value(lower) + u * (as_value(upper) - as_value(lower)), input.dtype)
    return F.where(F.ge(input, 0), input, input * slope)


@op(spaces=(), random=True)
def gumbel_noise(input: Value, *, seed: Scalar, offset: Scalar):
    """Standard Gumbel numbers of the input's shape."""
    u = R.uniform(input.shape, D.float32, seed, offset)
    return to(-F.log(-F.log(F.clamp(u, 1e-10, 0.99999994))), input.dtype)
