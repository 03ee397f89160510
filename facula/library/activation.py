"""Activations: pointwise, each one kernel forward and one backward."""

from __future__ import annotations

from facula.base.errors import ArgumentError, ShapeError, fail, wrap_dim
from facula.ir.program import Value
from facula.ops.promote import need_float
from facula.ops.registry import F, Scalar, op

NN = ("nn.functional",)
BOTH = ("torch", "method", "nn.functional")
SQRT_HALF, TANH_SCALE = 0.7071067811865476, 0.7978845608028654


@op(inplace=True, spaces=BOTH)
def relu(input: Value, inplace=False):
    """``max(input, 0)``; NaN stays NaN."""
    return F.where(F.le(input, 0), 0, input)


@op(inplace=True, spaces=NN)
def relu6(input: Value, inplace=False):
    """``min(max(input, 0), 6)``."""
    return _limited(input, 0, 6)


def _limited(x, low, high):
    """``x`` in [low, high], its slope 0 at the bounds themselves."""
    return F.where(F.le(x, low), low, F.where(F.ge(x, high), high, x))


@op(inplace=True, spaces=NN)
def hardtanh(input: Value, min_val=-1.0, max_val=1.0, inplace=False):
    """``input`` limited to [min_val, max_val]."""
    if min_val > max_val:
        fail(ArgumentError, "hardtanh", f"min_val {min_val} is larger than max_val {max_val}")
    return _limited(input, min_val, max_val)


@op(inplace=True, spaces=NN)
def leaky_relu(input: Value, negative_slope: Scalar = 0.01, inplace=False):
    """``input`` where positive, else ``negative_slope * input``."""
    return F.where(F.gt(input, 0), input, input * negative_slope)


@op(spaces=BOTH, samples=lambda make: [((make(2, 3, 4), make(3)), {}), ((make(5), make(1)), {})])
def prelu(input: Value, weight: Value):
    """``leaky_relu`` with a learned slope, one in all or one a channel (dimension 1)."""
    if weight.ndim == 1 and not weight.shape[0] == 1:
        if input.ndim < 2 or not input.shape[1] == weight.shape[0]:
            fail(
                ShapeError,
                "prelu",
                f"Mismatch of parameter numbers and input channel size. "
                f"Found parameter numbers = {weight.shape[0]} and shape {tuple(input.shape)}.",
            )
        weight = F.reshape(weight, (-1, *(1,) * (input.ndim - 2)))
    elif weight.ndim == 1:
        weight = F.reshape(weight, (1,) * input.ndim)
    return F.where(F.gt(input, 0), input, weight * input)


@op(inplace=True, spaces=NN)
def elu(input: Value, alpha: Scalar = 1.0, inplace=False):
    """``input`` where positive, else ``alpha * (exp(input) - 1)``."""
    return F.where(F.gt(input, 0), input, F.expm1(F.clamp(input, None, 0.0)) * alpha)


@op(inplace=True, spaces=("torch", "nn.functional"))
def selu(input: Value, inplace=False):
    """Self-normalising ELU (Klambauer et al., 2017)."""
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    return F.where(F.gt(input, 0), input, F.expm1(F.clamp(input, None, 0.0)) * alpha) * scale


@op(inplace=True, spaces=("torch", "nn.functional"))
def celu(input: Value, alpha: Scalar = 1.0, inplace=False):
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``."""
    low = F.expm1(F.clamp(input / alpha, None, 0.0)) * alpha
    return F.where(F.gt(input, 0), input, low)


@op(spaces=NN, out=True)
def gelu(input: Value, approximate="none"):
    """Gaussian error linear unit, exact ("none") or by tanh ("tanh")."""
    need_float(input, "gelu")
    if approximate == "none":
        return input * 0.5 * (1 + F.erf(input * SQRT_HALF))
    if approximate != "tanh":
        raise RuntimeError("gelu: approximate argument must be either none or tanh.")
    inner = TANH_SCALE * (input + 0.044715 * input * input * input)
    return input * 0.5 * (1 + F.tanh(inner))


@op(inplace=True, spaces=NN)
def silu(input: Value, inplace=False):
    """``input * sigmoid(input)``."""
    need_float(input, "silu")
    return input * F.sigmoid(input)


@op(inplace=True, spaces=NN)
def mish(input: Value, inplace=False):
    """``input * tanh(softplus(input))``."""
    return input * F.tanh(F.softplus(input))


@op(spaces=NN, out=True)
def softplus(input: Value, beta: Scalar = 1.0, threshold: Scalar = 20.0):
    """``log(1 + exp(beta * input)) / beta``; linear where ``beta * input`` exceeds threshold."""
    x = input * beta
    return F.where(F.gt(x, threshold), input, F.log1p(F.exp(F.minimum(x, threshold))) / beta)


@op(spaces=NN, out=True)
def logsigmoid(input: Value):
    """``log(sigmoid(input))`` without overflow."""
    return F.minimum(input, 0.0) - F.log1p(F.exp(-F.abs(input)))


@op(spaces=NN)
def softsign(input: Value):
    """``input / (1 + |input|)``."""
    return input / (1 + F.abs(input))


@op(spaces=NN)
def tanhshrink(input: Value):
    """``input - tanh(input)``."""
    return input - F.tanh(input)


@op(spaces=("torch", "nn.functional"), out=True)
def hardshrink(input: Value, lambd: Scalar = 0.5):
    """``input``, but 0 within ``lambd`` of 0."""
    return F.where(F.le(F.abs(input), lambd), 0.0, input)


@op(spaces=NN, out=True)
def softshrink(input: Value, lambd=0.5):
    """``input`` moved towards 0 by ``lambd`` >= 0, and 0 within."""
    if lambd < 0:
        fail(ArgumentError, "softshrink", f"lambd must be at least 0, but got {lambd}")
    away = F.where(F.gt(input, lambd), input - lambd, input + lambd)
    return F.where(F.le(F.abs(input), lambd), input * 0.0, away)


@op(inplace=True, spaces=NN)
def hardsigmoid(input: Value, inplace=False):
    """``relu6(input + 3) / 6``."""
    return _limited(input + 3.0, 0.0, 6.0) / 6.0


@op(inplace=True, spaces=NN)
def hardswish(input: Value, inplace=False):
    """``input * relu6(input + 3) / 6``."""
    return input * _limited(input + 3.0, 0.0, 6.0) / 6.0


@op(inplace=True, spaces=NN, samples=lambda make: [((make(3, 5), 0.5, -1.0), {})])
def threshold(input: Value, threshold: Scalar, value: Scalar, inplace=False):
    """``input`` where above ``threshold``, else ``value``."""
    return F.where(F.gt(input, threshold), input, value)


@op(spaces=NN, samples=lambda make: [((make(3, 6),), {}), ((make(4, 6), 0), {})])
def glu(input: Value, dim=-1):
    """First half times the sigmoid of the second, along ``dim``."""
    dim = wrap_dim("glu", dim, input.ndim)
    n = input.shape[dim]
    if not n % 2 == 0:
        fail(ShapeError, "glu", f"Halving dimension must be even, but dimension {dim} is size {n}")
    half = n // 2
    return F.narrow(input, dim, 0, half) * F.sigmoid(F.narrow(input, dim, half, half))


def need_probability(name, p):
    """Refuse a dropout probability outside of [0, 1]."""
    if not 0 <= p <= 1:
        fail(ArgumentError, name, f"dropout probability has to be between 0 and 1, but got {p}")
