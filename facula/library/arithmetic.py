"""Pointwise ops written in terms of others: clamping, interpolation, classification of floats."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail
from facula.ir.program import Value
from facula.ops.promote import as_value, to, together
from facula.ops.registry import F, Scalar, op


@op(
    inplace=True,
    out=True,
    aliases=("clip",),
    samples=lambda make: [
        ((make(3, 5), -1.0, 1.5), {}),
        ((make(3, 5), make(5)), {}),
        ((make(4),), {"max": 1}),
    ],
)
def clamp(input: Value, min: Value = None, max: Value = None):  # noqa: A002
    """``input`` limited to [min, max], either of which may be left out; NaN stays NaN."""
    if min is None and max is None:
        fail(ArgumentError, "clamp", "At least one of 'min' or 'max' must not be None")
    x = input
    if min is not None:
        a, b = together(x, min, name="clamp")
        x = F.where(F.lt(a, b), b, a)
    if max is not None:
        a, b = together(x, max, name="clamp")
        x = F.where(F.gt(a, b), b, a)
    return x


@op(inplace=True, out=True)
def clamp_min(input: Value, min: Value):  # noqa: A002
    """``input`` but at least ``min``."""
    return F.clamp(input, min)


@op(inplace=True, out=True)
def clamp_max(input: Value, max: Value):  # noqa: A002
    """``input`` but at most ``max``."""
    return F.clamp(input, None, max)


@op(inplace=True, out=True)
def square(input: Value):
    """``input * input``."""
    return input * input


@op(inplace=True, out=True, domain=(0.5, 3.0))
def reciprocal(input: Value):
    """``1 / input``; integers are converted to the default float."""
    return F.div(1, input)


@op(inplace=True, out=True)
def frac(input: Value):
    """The fractional part, with the sign of ``input``."""
    return input - F.trunc(input)


@op(inplace=True, out=True)
def addcmul(input: Value, tensor1: Value, tensor2: Value, *, value: Scalar = 1):
    """``input + value * tensor1 * tensor2``."""
    product = tensor1 * tensor2
    return input + (product if isinstance(value, int) and value == 1 else value * product)


@op(inplace=True, out=True, domain=(0.5, 3.0))
def addcdiv(input: Value, tensor1: Value, tensor2: Value, *, value: Scalar = 1):
    """``input + value * tensor1 / tensor2`` (floating point only)."""
    if not (tensor1.dtype.is_floating_point or tensor2.dtype.is_floating_point):
        fail(DtypeError, "addcdiv", "Integer division with addcdiv is no longer supported")
    ratio = tensor1 / tensor2
    return input + (ratio if isinstance(value, int) and value == 1 else value * ratio)


@op(inplace=True, out=True)
def lerp(input: Value, end: Value, weight: Value):
    """``input + weight * (end - input)``, exact at both ends."""
    w = as_value(weight)
    difference = end - input
    near = F.lt(F.abs(w), 0.5)
    return F.where(near, input + w * difference, end - difference * (1 - w))


@op(numbers=False, out=True)
def logaddexp(input: Value, other: Value):
    """``log(exp(input) + exp(other))`` without overflow."""
    a, b = together(input, other, floating=True, name="logaddexp")
    high, low = F.maximum(a, b), F.minimum(a, b)
    same_infinity = F.eq(a, b) & F.isinf(a)
    return F.where(same_infinity, a, high + F.log1p(F.exp(low - high)))


@op(numbers=False, inplace=True, out=True)
def hypot(input: Value, other: Value):
    """``sqrt(input**2 + other**2)``."""
    a, b = together(input, other, floating=True, name="hypot")
    return F.sqrt(a * a + b * b)


@op(inplace=True, out=True, spaces=("torch", "method", "special"), domain=(0.1, 0.9))
def logit(input: Value, eps=None):
    """``log(input / (1 - input))``; with ``eps``, input is first clamped to [eps, 1 - eps]."""
    x = input if input.dtype.is_floating_point else to(input, D.get_default_dtype())
    if eps is not None:
        x = F.clamp(x, eps, 1 - eps)
    return F.log(x / (1 - x))


@op(inplace=True, out=True, spaces=("torch", "method", "special"))
def sinc(input: Value):
    """``sin(pi x) / (pi x)``, and 1 at 0."""
    x = input if input.dtype.is_floating_point else to(input, D.get_default_dtype())
    y = x * 3.141592653589793
    zero = F.eq(y, 0)
    return F.where(zero, 1.0, F.sin(y) / F.where(zero, 1.0, y))


@op(inplace=True, out=True, spaces=("torch", "method", "special"), domain=(0.2, 3.0))
def xlogy(input: Value | Scalar, other: Value):
    """``input * log(other)``, and 0 where ``input`` is 0 (unless ``other`` is NaN)."""
    a, b = together(input, other, floating=True, name="xlogy")
    zero = F.eq(a, 0) & F.eq(b, b)
    return F.where(zero, 0.0, a * F.log(F.where(zero, 1.0, b)))


@op(inplace=True, out=True)
def nan_to_num(input: Value, nan=None, posinf=None, neginf=None):
    """NaN and infinities replaced: by 0 and the largest finite numbers unless given."""
    if not input.dtype.is_floating_point:
        return input
    high = {
        D.float16: 65504.0,
        D.bfloat16: 3.3895313892515355e38,
        D.float32: 3.4028234663852886e38,
        D.float64: 1.7976931348623157e308,
    }[input.dtype]
    y = F.where(F.isnan(input), 0.0 if nan is None else nan, input)
    y = F.where(F.eq(input, float("inf")), high if posinf is None else posinf, y)
    return F.where(F.eq(input, float("-inf")), -high if neginf is None else neginf, y)


@op(numbers=False, inplace=True, out=True)
def heaviside(input: Value, values: Value):
    """0 below zero, 1 above it, ``values`` at it."""
    a, b = together(input, values, name="heaviside")
    return F.where(F.eq(a, 0), b, to(F.gt(a, 0), a.dtype))


@op(inplace=True, out=True)
def deg2rad(input: Value):
    """Degrees to radians."""
    return input * 0.017453292519943295


@op(inplace=True, out=True)
def rad2deg(input: Value):
    """Radians to degrees."""
    return input * 57.29577951308232


@op(numbers=False)
def isclose(input: Value, other: Value, rtol=1e-05, atol=1e-08, equal_nan=False):
    """Bool: ``|input - other| <= atol + rtol * |other|``, and equal infinities."""
    if rtol < 0 or atol < 0:
        fail(ArgumentError, "isclose", f"rtol and atol must be at least 0, got {rtol} and {atol}")
    a, b = together(input, other, name="isclose")
    close = F.eq(a, b)
    if equal_nan:
        close = close | (F.isnan(a) & F.isnan(b))
    if not a.dtype.is_floating_point:
        a, b = to(a, D.float64), to(b, D.float64)
    distance = F.abs(a - b)
    return close | (F.isfinite(distance) & F.le(distance, atol + rtol * F.abs(b)))


@op(out=True)
def signbit(input: Value):
    """Bool: whether the sign bit is set (true for -0.0)."""
    if not input.dtype.is_floating_point:
        return F.lt(input, 0)
    return F.lt(F.copysign(1.0, input), 0)


@op(inplace=True, out=True, samples=lambda make: [((make(3, 5), make(5, dtype=D.bool_), 2.5), {})])
def masked_fill(input: Value, mask: Value, value: Value):
    """``input`` with ``value`` where the bool ``mask`` holds (it broadcasts)."""
    if mask.dtype is not D.bool_:
        fail(DtypeError, "masked_fill", f"only supports boolean masks, but got {mask.dtype.name}")
    if isinstance(value, Value) and value.ndim:
        fail(ShapeError, "masked_fill", "only supports a 0-dimensional value tensor, but got "
             f"tensor with {value.ndim} dimension(s).")  # fmt: skip
    return F.where(mask, to(as_value(value), input.dtype), input)


@op(inplace=True, out=True, domain=(0.5, 2.0))
def float_power(input: Value | Scalar, exponent: Value):
    """``input ** exponent`` in float64."""
    return F.pow(to(as_value(input), D.float64), exponent)
