"""The softmax family: rows kept in a numerically safe form, one kernel each way."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import wrap_dim
from facula.ir.program import Value
from facula.ops.promote import to, wide
from facula.ops.reduce import max_, spread, sum_, wrap_dims
from facula.ops.registry import F, composite, op

BOTH = ("torch", "method", "nn.functional", "special")


def _softmax(x, *, dim):
    w = wide(x)
    e = F.exp(w - spread(max_(w, dims=(dim,)), w.shape, (dim,)))
    # One division a row: the sum is at least 1, so that its reciprocal costs no range.
    return to(e * spread(1.0 / sum_(e, dims=(dim,)), w.shape, (dim,)), x.dtype)


def _softmax_gradient(g, y, x, *, dim):
    g, s = wide(g), wide(y)
    total = sum_(g * s, dims=(dim,))
    return (to((g - spread(total, s.shape, (dim,))) * s, x.dtype),)


def _log_softmax(x, *, dim):
    w = wide(x)
    shifted = w - spread(max_(w, dims=(dim,)), w.shape, (dim,))
    return to(shifted - spread(F.log(sum_(F.exp(shifted), dims=(dim,))), w.shape, (dim,)), x.dtype)


def _log_softmax_gradient(g, y, x, *, dim):
    g, y = wide(g), wide(y)
    total = sum_(g, dims=(dim,))
    return (to(g - F.exp(y) * spread(total, y.shape, (dim,)), x.dtype),)


softmax_ = composite("softmax", _softmax, _softmax_gradient)
log_softmax_ = composite("log_softmax", _log_softmax, _log_softmax_gradient)


def _along(primitive, name, input, dim, dtype):
    x = input if dtype is None else to(input, dtype)
    if not x.dtype.is_floating_point:
        raise RuntimeError(f"{name}: not implemented for {x.dtype.name}; hint: pass dtype=")
    if dim is None:
        dim = 0 if x.ndim in (0, 1, 3) else 1
    dim = wrap_dim(name, dim, x.ndim)
    if x.ndim == 0:
        return F.reshape(primitive(F.reshape(x, (1,)), dim=0), ())
    return primitive(x, dim=dim)


@op(
    spaces=BOTH,
    out=True,
    samples=lambda make: [((make(4, 5), 1), {}), ((make(4, 5, 3), 1), {})],
)
def softmax(input: Value, dim=None, _stacklevel=3, dtype=None):
    """``exp(input) / sum(exp(input))`` along ``dim``."""
    return _along(softmax_, "softmax", input, dim, dtype)


@op(
    spaces=BOTH,
    out=True,
    samples=lambda make: [((make(4, 5), 1), {}), ((make(4, 5, 3), 1), {})],
)
def log_softmax(input: Value, dim=None, _stacklevel=3, dtype=None):
    """``log(softmax(input))`` along ``dim``."""
    return _along(log_softmax_, "log_softmax", input, dim, dtype)


@op(spaces=("nn.functional",), samples=lambda make: [((make(4, 5), 1), {})])
def softmin(input: Value, dim=None, _stacklevel=3, dtype=None):
    """``softmax(-input)`` along ``dim``."""
    return F.softmax(-input, dim, dtype=dtype)


def _logsumexp(x, *, dims):
    high = max_(x, dims=dims)
    high = F.where(F.isinf(high), 0.0, high)
    return F.log(sum_(F.exp(x - spread(high, x.shape, dims)), dims=dims)) + high


logsumexp_ = composite(
    "logsumexp",
    _logsumexp,
    lambda g, y, x, *, dims: (spread(g, x.shape, dims) * F.exp(x - spread(y, x.shape, dims)),),
)


@op(
    out=True,
    spaces=("torch", "method", "special"),
    samples=lambda make: [((make(4, 5), 1), {}), ((make(4, 5), (0, 1), True), {})],
)
def logsumexp(input: Value, dim, keepdim=False):
    """``log(sum(exp(input)))`` over ``dim`` without overflow."""
    x = input if input.dtype.is_floating_point else to(input, D.get_default_dtype())
    dims = wrap_dims("logsumexp", dim, x.ndim)
    if not dims:
        return x + 0
    y = logsumexp_(x, dims=dims)
    return (
        F.reshape(y, tuple(1 if d in dims else n for d, n in enumerate(x.shape))) if keepdim else y
    )
