"""Normalisations, variance, and norms: statistics over dimensions, fused with what uses them."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.promote import is_zero, to, wide
from facula.ops.reduce import size_value, spread, sum_, with_ones, wrap_dims
from facula.ops.registry import F, Scalar, composite, op


def moments(x: Value, dims) -> tuple[Value, Value]:
    """Mean and (biased) variance over ``dims``, the dimensions removed."""
    count = size_value(sizes.product(x.shape[d] for d in dims), x.dtype)
    mean = sum_(x, dims=dims) / count
    d = x - spread(mean, x.shape, dims)
    return mean, sum_(d * d, dims=dims) / count


def _normalized(x, *, dims, eps):
    """(x - mean) / sqrt(var + eps), and the mean and 1 / sqrt(var + eps)."""
    w = wide(x)
    mean, var = moments(w, dims)
    rstd = F.rsqrt(var + eps)
    return _standardised(x, mean, rstd, dims=dims), mean, rstd


def _standardised(x, mean, rstd, *, dims, eps=None):
    y = (wide(x) - spread(mean, x.shape, dims)) * spread(rstd, x.shape, dims)
    return to(y, x.dtype)


def _normalized_gradient(gs, ys, x, *, dims, eps):
    g, g_mean, g_rstd = gs
    _, mean, rstd = ys
    w, g = wide(x), wide(g)
    count = size_value(sizes.product(x.shape[d] for d in dims), w.dtype)
    d = w - spread(mean, w.shape, dims)
    xhat = d * spread(rstd, w.shape, dims)
    gm, gx = sum_(g, dims=dims) / count, sum_(g * xhat, dims=dims) / count
    inner = g - spread(gm, w.shape, dims) - xhat * spread(gx, w.shape, dims)
    grad = inner * spread(rstd, w.shape, dims)
    # The statistics are outputs as well: of second derivatives and of batch norm's averages.
    if not is_zero(g_mean):
        grad = grad + spread(g_mean / count, w.shape, dims)
    if not is_zero(g_rstd):
        grad = grad - d * spread(g_rstd * rstd * rstd * rstd / count, w.shape, dims)
    return (to(grad, x.dtype),)


#: Standardised values, and the mean and reciprocal standard deviation (``dims`` removed).
normalized_ = composite("normalized", _normalized, _normalized_gradient, again=_standardised)


def _affine(y, weight, bias, shape=None):
    dtype = y.dtype
    if weight is not None:
        y = y * (weight if shape is None else F.reshape(weight, shape))
    if bias is not None:
        y = y + (bias if shape is None else F.reshape(bias, shape))
    return to(y, dtype)


@op(
    spaces=("torch", "nn.functional"),
    samples=lambda make: [
        ((make(3, 5), (5,), make(5), make(5)), {}),
        ((make(2, 3, 4), (3, 4)), {}),
    ],
)
def layer_norm(input: Value, normalized_shape, weight: Value = None, bias: Value = None, eps=1e-05):
    """Each sample standardised over its last dimensions, then scaled and shifted.

    Source: Ba, Kiros and Hinton, "Layer Normalization" (2016).
    """
    shape = tuple(normalized_shape)
    k = len(shape)
    if k == 0 or k > input.ndim or not tuple(input.shape[input.ndim - k :]) == shape:
        fail(
            ShapeError,
            "layer_norm",
            f"Given normalized_shape={list(shape)}, expected input with "
            f"shape [*, {', '.join(map(str, shape))}], but got input of size{list(input.shape)}",
        )
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and not tuple(p.shape) == shape:
            fail(
                ShapeError,
                "layer_norm",
                f"Expected {name} to be of same shape as "
                f"normalized_shape, but got {name} of shape {list(p.shape)}",
            )
    dims = tuple(range(input.ndim - k, input.ndim))
    y, _, _ = normalized_(input, dims=dims, eps=eps)
    return _affine(y, weight, bias)


@op(spaces=("torch", "nn.functional"), samples=lambda make: [((make(3, 5), (5,), make(5)), {})])
def rms_norm(input: Value, normalized_shape, weight: Value = None, eps=None):
    """Each sample divided by the root of its mean square, then scaled."""
    k = len(tuple(normalized_shape))
    if k == 0 or not tuple(input.shape[input.ndim - k :]) == tuple(normalized_shape):
        fail(
            ShapeError,
            "rms_norm",
            f"Given normalized_shape={list(normalized_shape)}, got input "
            f"of size{list(input.shape)}",
        )
    x = wide(input)
    if eps is None:
        eps = 2.220446049250313e-16 if x.dtype is D.float64 else 1.1920928955078125e-07
    mean = F.mean(x * x, tuple(range(input.ndim - k, input.ndim)), True)
    return _affine(to(x * F.rsqrt(mean + eps), input.dtype), weight, None)


@op(
    spaces=(),
    samples=lambda make: [((make(4, 3, 5), make(3), make(3)), {}), ((make(6, 3), None, None), {})],
)
def batch_norm_train(input: Value, weight: Value = None, bias: Value = None, eps=1e-05):
    """Batch norm by the batch's own statistics: (output, mean, unbiased variance)."""
    dims = (0, *range(2, input.ndim))
    y, mean, rstd = normalized_(input, dims=dims, eps=eps)
    shape = (1, -1, *(1,) * (input.ndim - 2))
    var = F.reciprocal(rstd * rstd) - eps
    count = size_value(sizes.product(input.shape[d] for d in dims), var.dtype)
    var = var * (count / (count - 1))
    return _affine(y, weight, bias, shape), F.stop(mean), F.stop(var)


@op(
    spaces=(),
    samples=lambda make: [
        (
            (
                make(4, 3, 5),
                make(3, grad=False),
                make(3, low=0.5, high=2.0, grad=False),
                make(3),
                make(3),
            ),
            {},
        )
    ],
)
def batch_norm_eval(
    input: Value, mean: Value, var: Value, weight: Value = None, bias: Value = None, eps=1e-05
):
    """Batch norm by given statistics, a scale and a shift per channel."""
    shape = (1, -1, *(1,) * (input.ndim - 2))
    scale = F.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return input * F.reshape(scale, shape) + F.reshape(shift, shape)


@op(
    spaces=("torch", "nn.functional"),
    samples=lambda make: [((make(2, 6, 4), 3, make(6), make(6)), {})],
)
def group_norm(input: Value, num_groups, weight: Value = None, bias: Value = None, eps=1e-05):
    """Channels standardised in groups, sample by sample (Wu and He, 2018)."""
    if num_groups <= 0:
        fail(ShapeError, "group_norm", f"num_groups must be at least 1, got {num_groups}")
    if input.ndim < 2 or not input.shape[1] % num_groups == 0:
        fail(
            ShapeError,
            "group_norm",
            f"Expected number of channels in input to be divisible by "
            f"num_groups, but got input of shape {list(input.shape)} and num_groups={num_groups}",
        )
    n, c = input.shape[:2]
    x = F.reshape(input, (n, num_groups, c // num_groups, *input.shape[2:]))
    y, _, _ = normalized_(x, dims=tuple(range(2, x.ndim)), eps=eps)
    shape = (1, -1, *(1,) * (input.ndim - 2))
    return _affine(F.reshape(y, tuple(input.shape)), weight, bias, shape)


@op(spaces=("nn.functional",), samples=lambda make: [((make(2, 6, 4, 3), 3), {})])
def local_response_norm(input: Value, size, alpha=1e-4, beta=0.75, k=1.0):
    """Normalisation over neighbouring channels (Krizhevsky et al., 2012)."""
    from_, total = F.pad_channels(input * input, size // 2, (size - 1) // 2), None
    for i in range(size):
        part = F.narrow(from_, 1, i, input.shape[1])
        total = part if total is None else total + part
    return input / F.pow(total * (alpha / size) + k, beta)


@op(spaces=())
def pad_channels(input: Value, before, after):
    """Zeros before and after along dimension 1."""
    return F.pad(input, (0, 0) * (input.ndim - 2) + (before, after))


@op(spaces=(), inplace=True, samples=lambda make: [((make(4), make(4), 0.1), {})])
def running(input: Value, new: Value, momentum: Scalar):
    """``(1 - momentum) * input + momentum * new``."""
    return input * (1 - momentum) + new * momentum


# Variance and norms ------------------------------------------------------------------------------


def _correction(unbiased, correction):
    if correction is not None:
        return correction
    return 0 if unbiased is False else 1


def _variance(name, input, dim, unbiased, correction, keepdim):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if not input.dtype.is_floating_point:
        fail(DtypeError, name, "std and var only support floating point and complex dtypes")
    dims = wrap_dims(name, dim, input.ndim)
    x = wide(input)
    if not dims:
        x, dims = F.reshape(x, (1,)), (0,)
    count = sizes.product(x.shape[d] for d in dims)
    mean = sum_(x, dims=dims) / size_value(count, x.dtype)
    d = x - spread(mean, x.shape, dims)
    left = size_value(count, x.dtype) - float(_correction(unbiased, correction))
    var = sum_(d * d, dims=dims) / F.maximum(left, 0.0)
    if keepdim and input.ndim:
        var, mean = (F.reshape(v, with_ones(input.shape, dims)) for v in (var, mean))
    return to(var, input.dtype), to(mean, input.dtype)


@op(out=True, samples=lambda make: [((make(4, 5),), {}), ((make(4, 5), 1), {})])
def var(input: Value, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The variance over ``dim``, divided by the count less ``correction`` (default 1)."""
    return _variance("var", input, dim, unbiased, correction, keepdim)[0]


@op(out=True, samples=lambda make: [((make(4, 5),), {}), ((make(4, 5), 1), {})])
def std(input: Value, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """The standard deviation: the root of ``var``."""
    return F.sqrt(_variance("std", input, dim, unbiased, correction, keepdim)[0])


@op(spaces=("torch",), samples=lambda make: [((make(4, 5), 1), {})])
def var_mean(input: Value, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """(variance, mean) over ``dim``."""
    return _variance("var_mean", input, dim, unbiased, correction, keepdim)


@op(spaces=("torch",), samples=lambda make: [((make(4, 5), 1), {})])
def std_mean(input: Value, dim=None, unbiased=None, keepdim=False, *, correction=None):
    """(standard deviation, mean) over ``dim``."""
    v, m = _variance("std_mean", input, dim, unbiased, correction, keepdim)
    return F.sqrt(v), m


@op(
    spaces=("linalg",),
    out=True,
    samples=lambda make: [((make(4, 5),), {}), ((make(4, 5), 1, 1), {}), ((make(4, 5), 2.5), {})],
)
def vector_norm(x: Value, ord=2, dim=None, keepdim=False, *, dtype=None):  # noqa: A002
    """The vector norm ``(sum |x|^ord)^(1/ord)`` over ``dim``; ``ord`` may be inf, -inf, 0."""
    x = x if dtype is None else to(x, dtype)
    if not x.dtype.is_floating_point:
        fail(DtypeError, "vector_norm", f"expected a floating point tensor, got {x.dtype.name}")
    dim = tuple(range(x.ndim)) if dim is None else dim
    a = F.abs(x)
    if ord == float("inf"):
        return F.amax(a, dim, keepdim)
    if ord == float("-inf"):
        return F.amin(a, dim, keepdim)
    if ord == 0:
        return F.sum(to(F.ne(x, 0), x.dtype), dim, keepdim)
    if ord == 1:
        return F.sum(a, dim, keepdim)
    if ord == 2:
        return _root_of_squares(x, wrap_dims("norm", dim, x.ndim), keepdim)
    dims = wrap_dims("norm", dim, x.ndim)
    y = norm_of_powers_(x, dims=dims, ord=float(ord))
    return F.reshape(y, with_ones(x.shape, dims)) if keepdim else y


def _norm_of_powers(x, *, dims, ord):  # noqa: A002
    return F.pow(sum_(F.pow(F.abs(x), ord), dims=dims), 1.0 / ord)


def _norm_of_powers_gradient(g, y, x, *, dims, ord):  # noqa: A002
    """The slope; where an element or the norm is 0 it is taken as 0."""
    none, zero = F.eq(y, 0), F.eq(x, 0)
    ratio = F.where(none, 0.0, g * F.pow(F.where(none, 1.0, y), 1.0 - ord))
    slope = F.where(zero, 0.0, F.sign(x) * F.pow(F.abs(F.where(zero, 1.0, x)), ord - 1.0))
    return (slope * spread(ratio, x.shape, dims),)


norm_of_powers_ = composite("norm_of_powers", _norm_of_powers, _norm_of_powers_gradient)


def _norm2(x, *, dims):
    return F.sqrt(sum_(x * x, dims=dims))


def _norm2_gradient(g, y, x, *, dims):
    """x / |x|, and 0 at the origin."""
    ratio = F.where(F.eq(y, 0), 0.0, g / F.where(F.eq(y, 0), 1.0, y))
    return (x * spread(ratio, x.shape, dims),)


norm2_ = composite("norm2", _norm2, _norm2_gradient)


def _root_of_squares(x, dims, keepdim):
    if not dims:
        return F.abs(x)
    y = norm2_(x, dims=dims)
    return F.reshape(y, with_ones(x.shape, dims)) if keepdim else y


@op(out=True, samples=lambda make: [((make(4, 5),), {}), ((make(4, 5), 1, 1), {})])
def norm(input: Value, p="fro", dim=None, keepdim=False, *, dtype=None):
    """The vector norm of order ``p`` over ``dim`` ("fro": 2)."""
    if p == "nuc":
        fail(
            ArgumentError,
            "norm",
            "the nuclear norm needs a singular value decomposition",
            "use linalg.matrix_norm",
        )
    return F.vector_norm(input, 2 if p in ("fro", None) else p, dim, keepdim, dtype=dtype)


@op(spaces=("nn.functional",), out=True, samples=lambda make: [((make(4, 5),), {})])
def normalize(input: Value, p=2.0, dim=1, eps: Scalar = 1e-12):
    """``input / max(|input|_p, eps)`` along ``dim``."""
    dim = wrap_dim("normalize", dim, input.ndim)
    return input / F.maximum(F.vector_norm(input, p, dim, True), eps)


@op(samples=lambda make: [((make(4, 5), make(4, 5)), {})])
def dist(input: Value, other: Value, p=2):
    """The p-norm of ``input - other``."""
    return F.vector_norm(input - other, p)
