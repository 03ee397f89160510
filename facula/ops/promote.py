"""Bringing operands together: constants, type promotion, broadcasting."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, DtypeError, ShapeError, fail
from facula.ir.program import Value
from facula.ops.registry import PRIMITIVES, F, Primitive


def meaning_dtype(dtype: D.dtype) -> str:
    """The NumPy dtype in which meanings stand for a dtype (float32 for bfloat16)."""
    return "float32" if dtype is D.bfloat16 else dtype.name


def _constant_infer(*, value, dtype):
    return [(dtype, ())]


constant = Primitive(
    "constant",
    "source",
    _constant_infer,
    lambda np, *, value, dtype: np.asarray(value).astype(meaning_dtype(dtype)),
)


def as_value(x) -> Value:
    """A value of a Python number (weak) or of a value."""
    if isinstance(x, Value):
        return x
    if isinstance(x, (bool, int, float)):
        value = constant(value=x, dtype=D.float64 if isinstance(x, float) else D.of_scalar(x))
        value.weak = True
        return value
    raise ArgumentTypeError(f"expected a tensor or a number, got {type(x).__name__}")


def is_zero(value) -> bool:
    """Whether a value is 0 throughout, as the targets that gradients are added to."""
    while value.node is not None and value.node.op.name in ("expand", "reshape"):
        value = value.node.inputs[0]
    node = value.node
    return node is not None and node.op.name == "constant" and node.params["value"] == 0


def result_dtype(*values) -> D.dtype:
    """The dtype that values (and Python numbers) promote to together."""
    groups = ([], [], [])
    for v in values:
        weak = not isinstance(v, Value) or v.weak
        d = D.of_scalar(v) if not isinstance(v, Value) else v.dtype
        if weak and d is D.float64:
            d = D.get_default_dtype()
        groups[2 if weak else 0 if v.shape else 1].append(d)
    return D.result_type(*groups)


def wide(x) -> Value:
    """Half precision as float32, in which it is worked on; other dtypes as they are."""
    return to(x, D.float32) if x.dtype in (D.float16, D.bfloat16) else x


def to(x, dtype: D.dtype) -> Value:
    """``x`` as a strong value of ``dtype``."""
    if not isinstance(dtype, D.dtype):
        fail(
            ArgumentTypeError,
            "dtype",
            f"argument 'dtype' must be a dtype, not {type(dtype).__name__}",
        )
    if not isinstance(x, Value):
        return constant(value=_fit(x, dtype), dtype=dtype)
    if x.dtype is dtype and not x.weak:
        return x
    node = x.node
    if node is not None and node.op is constant:
        return constant(value=_fit(node.params["value"], dtype), dtype=dtype)
    return PRIMITIVES["cast"](x, dtype=dtype)


def _fit(number, dtype):
    if dtype.kind == "b":
        return bool(number)
    if dtype.kind == "f":
        return float(number)
    if isinstance(number, float) and number != number or number in (float("inf"), -float("inf")):
        return 0
    number = int(number)
    bits = 8 * dtype.itemsize
    number &= (1 << bits) - 1
    return number - (1 << bits) if dtype.kind == "i" and number >> (bits - 1) else number


def promoted(*xs, floating=False) -> list[Value]:
    """All operands as values of their common dtype (the default float, if ``floating`` asks).

    Numbers among themselves stay numbers, in double precision, as they are in Python.
    """
    if all(not isinstance(x, Value) or x.weak for x in xs):
        return _numbers(xs, floating)
    dtype = result_dtype(*xs)
    if floating and not dtype.is_floating_point:
        dtype = D.get_default_dtype()
    return [to(x, dtype) for x in xs]


def _numbers(xs, floating):
    values = [as_value(x) for x in xs]
    kinds = {v.dtype.kind for v in values}
    dtype = D.float64 if floating or "f" in kinds else D.int64 if "i" in kinds else D.bool_
    result = []
    for v in values:
        if v.dtype is not dtype:
            v = to(v, dtype)
            v.weak = True
        result.append(v)
    return result


def broadcast_shapes(*shapes, name="broadcast") -> tuple:
    """The shape that all of the shapes broadcast to.

    Raises:
        ShapeError: sizes that differ, neither being 1.
    """
    ndim = max((len(s) for s in shapes), default=0)
    result = [1] * ndim
    for shape in shapes:
        for i, n in enumerate(shape, ndim - len(shape)):
            if n == 1 or n == result[i]:
                continue
            if not result[i] == 1:
                fail(
                    ShapeError,
                    name,
                    f"The size of tensor a ({result[i]}) must match the size of tensor b ({n}) at "
                    f"non-singleton dimension {i}",
                    "sizes broadcast only where they are equal or one of them is 1",
                )
            result[i] = n
    return tuple(result)


def expand_to(x: Value, shape) -> Value:
    """``x`` repeated to ``shape`` (leading dimensions added, sizes of 1 repeated)."""
    shape = tuple(shape)
    if len(shape) == x.ndim and all(a is b or a == b for a, b in zip(x.shape, shape)):
        return x
    return PRIMITIVES["expand"](x, shape=shape)


def broadcast(*xs, name="broadcast") -> list[Value]:
    """All values expanded to their common shape."""
    shape = broadcast_shapes(*(x.shape for x in xs), name=name)
    return [expand_to(x, shape) for x in xs]


def together(*xs, floating=False, name="op") -> list[Value]:
    """Promoted and broadcast operands of a pointwise op."""
    return broadcast(*promoted(*xs, floating=floating), name=name)


def need_float(x: Value, name: str) -> None:
    """Refuse integers where an op is defined for floating point alone."""
    if not x.dtype.is_floating_point:
        fail(DtypeError, name, f"expected a floating-point tensor, got {x.dtype.name}")


def unbroadcast(g: Value, shape) -> Value:
    """Sum a cotangent over the dimensions along which its value was repeated."""
    extra = g.ndim - len(shape)
    dims = list(range(extra))
    dims += [
        i + extra
        for i, n in enumerate(shape)
        if isinstance(n, int)
        and n == 1
        and not (isinstance(g.shape[i + extra], int) and g.shape[i + extra] == 1)
    ]
    if not dims:
        return g
    return F.reshape(PRIMITIVES["reduce_sum"](g, dims=tuple(dims)), shape)
