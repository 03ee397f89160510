"""Readers of ONNX operators on elements, shapes and positions: ``(reader, *inputs, **attributes)``.

An input that is left out is None; inputs may be known values (see ``known``).
"""

from __future__ import annotations

import inspect

from facula.base import dtypes as D
from facula.base.errors import fail
from facula.ir import dims
from facula.ir.dims import Dim
from facula.library.selection import wrapped
from facula.onnx.errors import OnnxError, unsupported
from facula.onnx.graph import BY_TYPE
from facula.onnx.known import Constant, Sizes, ints, objects
from facula.ops.indexing import gather_, index_get_, index_put_, scatter_, take_
from facula.ops.movement import slice_
from facula.ops.promote import broadcast_shapes, expand_to, to
from facula.ops.random import positions
from facula.ops.registry import F

READERS: dict = {}


def reads(*names: str, raw: bool = False):
    """Declare the reader of the operators of these names.

    Args:
        raw: inputs are given as they are known; otherwise as values of the Program.
    """

    def add(function):
        with_kind = "kind" in inspect.signature(function).parameters

        def reader(name):
            def read(r, *inputs, **attributes):
                if not raw:
                    inputs = tuple(None if x is None else r.tensor(x) for x in inputs)
                if with_kind:
                    attributes["kind"] = name
                return function(r, *inputs, **attributes)

            return read

        for name in names:
            assert name not in READERS, name
            READERS[name] = reader(name)
        return function

    return add


# Elements ----------------------------------------------------------------------------------------

UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
    "Atan": "atan", "Atanh": "atanh", "BitwiseNot": "bitwise_not", "Ceil": "ceil", "Cos": "cos",
    "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "HardSwish": "hardswish",
    "IsNaN": "isnan", "Log": "log", "Mish": "mish", "Neg": "neg", "Not": "logical_not",
    "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid",
    "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus", "Softsign": "softsign",
    "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
BINARY = {
    "Add": "add", "And": "logical_and", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor", "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge",
    "Less": "lt", "LessOrEqual": "le", "Mul": "mul", "Or": "logical_or", "Pow": "pow",
    "Sub": "sub", "Xor": "logical_xor",
}  # fmt: skip


@reads(*UNARY)
def _unary(r, x, *, kind):
    return getattr(F, UNARY[kind])(x)


@reads(*BINARY)
def _binary(r, a, b, *, kind):
    y = getattr(F, BINARY[kind])(a, b)
    return to(y, a.dtype) if kind == "Pow" else y


@reads("Div")
def _div(r, a, b):
    return F.div(a, b, rounding_mode=None if a.dtype.is_floating_point else "trunc")


@reads("Mod")
def _mod(r, a, b, *, fmod=0):
    return F.fmod(a, b) if fmod else F.remainder(a, b)


@reads("BitShift")
def _shift(r, a, b, *, direction):
    name = {"LEFT": "bitwise_left_shift", "RIGHT": "bitwise_right_shift"}[direction]
    return getattr(F, name)(a, b)


@reads("Max", "Min", "Sum", "Mean")
def _variadic(r, *xs, kind):
    name = {"Max": "maximum", "Min": "minimum", "Sum": "add", "Mean": "add"}[kind]
    total = xs[0]
    for x in xs[1:]:
        total = getattr(F, name)(total, x)
    return total / len(xs) if kind == "Mean" else total


@reads("Where")
def _where(r, c, a, b):
    return F.where(c, a, b)


@reads("Clip")
def _clip(r, x, low=None, high=None):
    return x if low is None and high is None else F.clamp(x, low, high)


@reads("IsInf")
def _isinf(r, x, *, detect_negative=1, detect_positive=1):
    high, low = F.eq(x, float("inf")), F.eq(x, -float("inf"))
    return F.isinf(x) if detect_negative and detect_positive else low if detect_negative else high


@reads("LeakyRelu", "Elu", "Celu", "ThresholdedRelu")
def _relu_like(r, x, *, kind, alpha=None):
    alpha = alpha if alpha is not None else 0.01 if kind == "LeakyRelu" else 1.0
    if kind == "ThresholdedRelu":
        return F.where(F.gt(x, alpha), x, 0.0)
    return getattr(F, {"LeakyRelu": "leaky_relu", "Elu": "elu", "Celu": "celu"}[kind])(x, alpha)


@reads("Selu")
def _selu(r, x, *, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875):
    return F.where(F.gt(x, 0), x, F.expm1(F.minimum(x, 0.0)) * alpha) * gamma


@reads("PRelu")
def _prelu(r, x, slope):
    return F.where(F.lt(x, 0), x * slope, x)


@reads("Gelu")
def _gelu(r, x, *, approximate="none"):
    return F.gelu(x, approximate)


@reads("HardSigmoid")
def _hard_sigmoid(r, x, *, alpha=0.2, beta=0.5):
    return F.clamp(x * alpha + beta, 0.0, 1.0)


@reads("Cast")
def _cast(r, x, *, to, saturate=1):
    if to not in BY_TYPE:
        unsupported(f"Cast to data type {to}")
    return _as(x, BY_TYPE[to])


@reads("CastLike")
def _cast_like(r, x, like, *, saturate=1):
    return _as(x, like.dtype)


def _as(x, dtype):
    return F.ne(x, 0) if dtype is D.bool_ and x.dtype is not D.bool_ else to(x, dtype)


@reads("Identity", raw=True)
def _identity(r, x):
    return x


@reads("Dropout")
def _dropout(r, x, ratio=None, training=None, *, seed=0):
    return x


# Constants and shapes ----------------------------------------------------------------------------


@reads("Constant", raw=True)
def _constant(r, *, value=None, value_int=None, value_ints=None, value_float=None):
    if value_int is not None or value_ints is not None:
        whole = value_int if value_ints is None else list(value_ints)
        array = objects(whole) if isinstance(whole, list) else objects([whole]).reshape(())
        return Sizes(array)
    if value_float is not None:
        return to(value_float, D.float32)
    if value is None:
        fail(OnnxError, "onnx.load", "a Constant of a kind that is not known")
    return value


@reads("Shape", raw=True)
def _shape(r, x, *, start=0, end=None):
    shape = x.array.shape if isinstance(x, (Constant, Sizes)) else x.shape
    return Sizes(objects(list(shape)[start:end]))


@reads("Size", raw=True)
def _size(r, x):
    shape = x.array.shape if isinstance(x, (Constant, Sizes)) else x.shape
    return Sizes(objects([dims.product(shape)]).reshape(()))


@reads("ConstantOfShape", raw=True)
def _constant_of_shape(r, shape, *, value=None):
    shape = ints(shape, "the shape of ConstantOfShape")
    number = 0.0 if value is None else value.array.item()
    dtype = D.float32 if value is None else value.dtype
    known = dtype is D.int64 and len(shape) == 1 and not isinstance(shape[0], Dim)
    return Sizes(objects([number] * shape[0])) if known else expand_to(to(number, dtype), shape)


@reads("Range", raw=True)
def _range(r, start, limit, delta):
    first, last, step = (r.number(x) for x in (start, limit, delta))
    if first is None or last is None or not isinstance(step, int) or isinstance(first, float):
        fail(OnnxError, "onnx.load", "the length of a Range depends on data")
    count = -((first - last) // step) if step > 0 else -((last - first) // -step)
    return positions(shape=(count,)) * step + r.tensor(Sizes(objects([first]).reshape(())))


@reads("Reshape", raw=True)
def _reshape(r, x, shape, *, allowzero=0):
    x, shape = r.tensor(x), ints(shape, "the shape of Reshape")
    if not allowzero:
        shape = [x.shape[i] if isinstance(n, int) and n == 0 else n for i, n in enumerate(shape)]
    return F.reshape(x, tuple(shape))


@reads("Flatten")
def _flatten(r, x, *, axis=1):
    axis = axis + x.ndim if axis < 0 else axis
    return F.reshape(x, (dims.product(x.shape[:axis]), dims.product(x.shape[axis:])))


@reads("Squeeze", raw=True)
def _squeeze(r, x, axes=None):
    return F.squeeze(r.tensor(x), None if axes is None else tuple(ints(axes, "axes")))


@reads("Unsqueeze", raw=True)
def _unsqueeze(r, x, axes):
    x, axes = r.tensor(x), ints(axes, "axes")
    rank = x.ndim + len(axes)
    for d in sorted(a % rank for a in axes):
        x = F.unsqueeze(x, d)
    return x


@reads("Transpose")
def _transpose(r, x, *, perm=None):
    return F.permute(x, tuple(range(x.ndim))[::-1] if perm is None else tuple(perm))


@reads("Expand", raw=True)
def _expand(r, x, shape):
    x = r.tensor(x)
    return expand_to(x, broadcast_shapes(x.shape, tuple(ints(shape, "the shape of Expand"))))


@reads("Tile", raw=True)
def _tile(r, x, repeats):
    return F.repeat(r.tensor(x), *ints(repeats, "the repeats of Tile"))


@reads("Concat")
def _concat(r, *xs, axis):
    return F.cat(list(xs), axis)


@reads("Split", raw=True)
def _split(r, x, split=None, *, axis=0, num_outputs=None):
    x = r.tensor(x)
    if split is None:
        if num_outputs is None:
            unsupported("Split without sizes and without num_outputs")
        n = x.shape[axis]
        return F.split(x, -(-n // num_outputs), axis)
    return F.split(x, ints(split, "the sizes of Split"), axis)


@reads("Slice", raw=True)
def _slice(r, x, starts, ends, axes=None, steps=None):
    x = r.tensor(x)
    starts, ends = ints(starts, "the starts of Slice"), ints(ends, "the ends of Slice")
    axes = list(range(len(starts))) if axes is None else ints(axes, "axes")
    steps = [1] * len(starts) if steps is None else ints(steps, "the steps of Slice")
    for start, end, d, step in zip(starts, ends, axes, steps):
        x = _sliced(x, start, end, d % x.ndim, step)
    return x


def _sliced(x, start, end, d, step):
    n = x.shape[d]
    if isinstance(step, int) and step < 0:
        # From the other side: position i is n - 1 - i there.
        x = F.flip(x, d)
        start, end = (_clamped(v, -1, n - 1, n) for v in (start, end))
        return _sliced(x, n - 1 - start, n - 1 - end, d, -step)
    start, end = (_clamped(v, 0, n, n) for v in (start, end))
    length = end - start
    length = (length + step - 1) // step if length > 0 else 0
    if dims.same(start, 0) and dims.same(length, n):
        return x
    return slice_(x, dim=d, start=start, length=length, step=step)


def _clamped(v, low, high, n):
    v = v + n if v < 0 and v > -(1 << 31) else v
    return low if v < low else high if v > high else v


@reads("Pad", raw=True)
def _pad(r, x, pads, value=None, axes=None, *, mode="constant"):
    x, pads = r.tensor(x), ints(pads, "the pads of Pad")
    axes = range(x.ndim) if axes is None else [a % x.ndim for a in ints(axes, "axes")]
    count = len(pads) // 2
    pairs = [(0, 0)] * x.ndim
    for i, d in enumerate(axes):
        pairs[d] = (pads[i], pads[count + i])
    number = r.number(value, 0)
    if number is None:
        unsupported("Pad with a value that depends on data")
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    flat = [p for pair in reversed(pairs) for p in pair]
    return F.pad(x, flat, modes[mode], number if mode == "constant" else None)


@reads("Trilu", raw=True)
def _trilu(r, x, k=None, *, upper=1):
    return (F.triu if upper else F.tril)(r.tensor(x), r.number(k, 0))


# Positions ---------------------------------------------------------------------------------------


@reads("Gather", raw=True)
def _gather(r, x, index, *, axis=0):
    x = r.tensor(x)
    axis = axis % x.ndim
    number = r.number(index) if not hasattr(index, "node") else None
    if number is not None and getattr(index, "array", number).ndim == 0:
        return F.select(x, axis, number)
    return take_(x, wrapped(r.tensor(index), x, axis), dim=axis)


@reads("GatherElements")
def _gather_elements(r, x, index, *, axis=0):
    axis = axis % x.ndim
    return gather_(x, wrapped(index, x, axis), dim=axis)


@reads("ScatterElements")
def _scatter_elements(r, x, index, src, *, axis=0, reduction="none"):
    axis = axis % x.ndim
    names = {"none": "set", "add": "add", "mul": "mul", "min": "min", "max": "max"}
    return scatter_(x, wrapped(index, x, axis), src, dim=axis, reduce=names[reduction])


def _rows(x, index):
    """Index tuples, one a row, none negative."""
    k = index.shape[-1]
    columns = [F.narrow(index, index.ndim - 1, d, 1) for d in range(int(k))]
    columns = [wrapped(c, x, d) for d, c in enumerate(columns)]
    whole = columns[0] if len(columns) == 1 else F.cat(columns, index.ndim - 1)
    return F.reshape(whole, (dims.product(index.shape[:-1]), k))


@reads("GatherND")
def _gather_nd(r, x, index, *, batch_dims=0):
    if batch_dims:
        unsupported("GatherND with batch_dims")
    y = index_get_(x, _rows(x, index))
    return F.reshape(y, (*index.shape[:-1], *x.shape[int(index.shape[-1]) :]))


@reads("ScatterND")
def _scatter_nd(r, x, index, src, *, reduction="none"):
    if reduction not in ("none", "add"):
        unsupported(f"ScatterND with reduction {reduction!r}")
    rows = _rows(x, index)
    src = F.reshape(src, (rows.shape[0], *x.shape[int(index.shape[-1]) :]))
    return index_put_(x, rows, src, accumulate=reduction == "add")


@reads("OneHot", raw=True)
def _one_hot(r, index, depth, values, *, axis=-1):
    depth, index, values = r.number(depth), to(r.tensor(index), D.int64), r.tensor(values)
    if depth is None:
        fail(OnnxError, "onnx.load", "the depth of OneHot depends on data")
    index = F.where(F.lt(index, 0), index + depth, index)
    hit = F.eq(F.unsqueeze(index, -1), positions(shape=(int(depth),)))
    y = F.where(hit, F.select(values, 0, 1), F.select(values, 0, 0))
    return F.movedim(y, -1, axis)
