"""Pointwise primitives of two and three operands, and the ops that are little more than them."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, fail
from facula.ir import loops as L
from facula.ir.program import Value
from facula.ops.pointwise import no_bool, pointwise
from facula.ops.promote import as_value, broadcast, to, together
from facula.ops.registry import PRIMITIVES, F, Op, Scalar, op

# Two operands ---------------------------------------------------------------------------------

_BOOL_ARITHMETIC = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and"}


def _arithmetic(name, loops_name=None):
    """The Loops op of that name; on bools, the logical counterpart."""

    def emit(a, b):
        if a.dtype.kind == "b" and name in _BOOL_ARITHMETIC:
            return L.binary(_BOOL_ARITHMETIC[name], a, b)
        return L.binary(loops_name or name, a, b)

    return emit


add_ = pointwise(
    "add", lambda np, a, b: a + b, lambda g, y, a, b: (g, g), _arithmetic("add"), arity=2
)
sub_ = pointwise(
    "sub", lambda np, a, b: a - b, lambda g, y, a, b: (g, -g), _arithmetic("sub"), arity=2
)
mul_ = pointwise(
    "mul", lambda np, a, b: a * b, lambda g, y, a, b: (g * b, g * a), _arithmetic("mul"), arity=2
)
div_ = pointwise(
    "div",
    lambda np, a, b: a / b,
    lambda g, y, a, b: (g / b, -(g * y / b)),
    _arithmetic("div"),
    arity=2,
)
idiv_ = pointwise(
    "idiv", lambda np, a, b: np.floor_divide(a, b), None, lambda a, b: _floor_div(a, b), arity=2
)
pow_ = pointwise(
    "pow",
    lambda np, a, b: np.power(a, b),
    lambda g, y, a, b: (
        g * F.where(b.eq(0), 0.0, b * F.pow(a, b - 1)),
        g * F.where(a.eq(0) & b.ge(0), 0.0, y * F.log(a)),
    ),
    arity=2,
)
atan2_ = pointwise(
    "atan2",
    lambda np, a, b: np.arctan2(a, b),
    lambda g, y, a, b: (g * b / (a * a + b * b), -(g * a / (a * a + b * b))),
    arity=2,
)
fmod_ = pointwise(
    "fmod",
    lambda np, a, b: np.fmod(a, b),
    lambda g, y, a, b: (g, -(g * F.trunc(a / b))),
    lambda a, b: L.call("fmod" if a.dtype.kind == "f" else "rem", a, b),
    arity=2,
)


def _ties(g, a, b, wins):
    """Cotangents of max and min: to the winner, halved between equals."""
    half = g * 0.5
    tie = a.eq(b)
    return (
        F.where(tie, half, F.where(wins, g, 0.0)),
        F.where(tie, half, F.where(wins, 0.0, g)),
    )


maximum_ = pointwise(
    "maximum",
    lambda np, a, b: np.maximum(a, b),
    lambda g, y, a, b: _ties(g, a, b, a.gt(b)),
    _arithmetic("maximum", "max"),
    arity=2,
)
minimum_ = pointwise(
    "minimum",
    lambda np, a, b: np.minimum(a, b),
    lambda g, y, a, b: _ties(g, a, b, a.lt(b)),
    _arithmetic("minimum", "min"),
    arity=2,
)
fmax_ = pointwise(
    "fmax",
    lambda np, a, b: np.fmax(a, b),
    lambda g, y, a, b: (F.where(a.ge(b) | b.ne(b), g, 0.0), F.where(a.ge(b) | b.ne(b), 0.0, g)),
    lambda a, b: L.call("fmax" if a.dtype.kind == "f" else "max", a, b),
    arity=2,
)
fmin_ = pointwise(
    "fmin",
    lambda np, a, b: np.fmin(a, b),
    lambda g, y, a, b: (F.where(a.le(b) | b.ne(b), g, 0.0), F.where(a.le(b) | b.ne(b), 0.0, g)),
    lambda a, b: L.call("fmin" if a.dtype.kind == "f" else "min", a, b),
    arity=2,
)
copysign_ = pointwise(
    "copysign",
    lambda np, a, b: np.copysign(a, b),
    lambda g, y, a, b: (F.where(a.eq(0), 0.0, g * (y / a)), None),
    arity=2,
)
for _name, _meaning in {
    "and": lambda np, a, b: a & b,
    "or": lambda np, a, b: a | b,
    "xor": lambda np, a, b: a ^ b,
    "shl": lambda np, a, b: np.left_shift(a, b),
    "shr": lambda np, a, b: np.right_shift(a, b),
}.items():
    pointwise(_name, _meaning, arity=2)
_COMPARISONS = {
    "eq": lambda np, a, b: np.equal(a, b),
    "ne": lambda np, a, b: np.not_equal(a, b),
    "lt": lambda np, a, b: np.less(a, b),
    "le": lambda np, a, b: np.less_equal(a, b),
    "gt": lambda np, a, b: np.greater(a, b),
    "ge": lambda np, a, b: np.greater_equal(a, b),
}
for _name, _meaning in _COMPARISONS.items():
    pointwise(_name, _meaning, result=D.bool_, arity=2)
pointwise("not", lambda np, x: np.invert(x))

where_ = pointwise(
    "where",
    lambda np, c, a, b: np.where(c, a, b),
    lambda g, y, c, a, b: (None, F.where(c, g, 0.0), F.where(c, 0.0, g)),
    lambda c, a, b: L.select(c, a, b),
    arity=3,
)


def _floor_div(a, b):
    """Integer quotient rounded towards minus infinity."""
    quotient = L.binary("div", a, b)
    if a.dtype.kind == "u":
        return quotient
    zero = L.Const(0, a.dtype)
    inexact = L.compare("ne", L.binary("sub", a, L.binary("mul", quotient, b)), zero)
    signs_differ = L.compare("lt", L.binary("xor", a, b), zero)
    return L.select(
        inexact & signs_differ, L.binary("sub", quotient, L.Const(1, a.dtype)), quotient
    )


def binary_op(
    name,
    primitive,
    floating=False,
    spaces=("torch", "method"),
    aliases=(),
    domain=(-3.0, 3.0),
    integers_only=False,
    bools=True,
    numbers=True,
    doc="",
):
    """The op of a primitive of two operands, with promotion and broadcasting."""

    def fn(input: Value, other: Value):
        a, b = together(input, other, floating=floating, name=name)
        if integers_only and a.dtype.is_floating_point:
            fail(DtypeError, name, f"expected integers or bools, got {a.dtype.name}")
        if not bools:
            no_bool(name, a)
        return primitive(a, b)

    def integers(make):
        pair = {"dtype": D.int32, "low": 0, "high": 9}
        return [((make(3, 5, **pair), make(5, **pair)), {})]

    fn.__doc__ = doc or f"Elementwise ``{name}(input, other)`` with broadcasting and promotion."
    samples = integers if integers_only else None
    if integers_only:
        fn.__annotations__["input"] = "Value | Scalar"
    return Op(
        fn, name, spaces, aliases, inplace=True, out=True, numbers=numbers, domain=domain,
        samples=samples,
    )  # fmt: skip


mul = binary_op("mul", mul_, aliases=("multiply",))
maximum = binary_op("maximum", maximum_, numbers=False)
minimum = binary_op("minimum", minimum_, numbers=False)
fmax = binary_op("fmax", fmax_, numbers=False)
fmin = binary_op("fmin", fmin_, numbers=False)
atan2 = binary_op("atan2", atan2_, floating=True, aliases=("arctan2",), numbers=False)
fmod = binary_op("fmod", fmod_, bools=False)
copysign = binary_op("copysign", copysign_, floating=True)
bitwise_and = binary_op("bitwise_and", PRIMITIVES["and"], integers_only=True)
bitwise_or = binary_op("bitwise_or", PRIMITIVES["or"], integers_only=True)
bitwise_xor = binary_op("bitwise_xor", PRIMITIVES["xor"], integers_only=True)
bitwise_left_shift = binary_op("bitwise_left_shift", PRIMITIVES["shl"], integers_only=True)
bitwise_right_shift = binary_op("bitwise_right_shift", PRIMITIVES["shr"], integers_only=True)
for _name, _aliases in {
    "eq": (),
    "ne": ("not_equal",),
    "lt": ("less",),
    "le": ("less_equal",),
    "gt": ("greater",),
    "ge": ("greater_equal",),
}.items():
    binary_op(_name, PRIMITIVES[_name], aliases=_aliases)


def _refuse_bool(name, a):
    if a.dtype is D.bool_:
        fail(
            DtypeError,
            name,
            "Subtraction, the `-` operator, with two bool tensors is not supported",
            "use ^ or logical_xor",
        )


def _scaled(b, alpha):
    return b if isinstance(alpha, (int, float)) and alpha == 1 else b * alpha


@op(inplace=True, out=True)
def add(input: Value, other: Value, *, alpha: Scalar = 1):
    """``input + alpha * other``, elementwise with broadcasting and promotion."""
    a, b = together(input, _scaled(other, alpha), name="add")
    return add_(a, b)


@op(inplace=True, out=True, aliases=("subtract",))
def sub(input: Value, other: Value, *, alpha: Scalar = 1):
    """``input - alpha * other``, elementwise with broadcasting and promotion."""
    a, b = together(input, _scaled(other, alpha), name="sub")
    _refuse_bool("sub", a)
    return sub_(a, b)


@op(inplace=True)
def rsub(input: Value, other: Value, *, alpha: Scalar = 1):
    """``other - alpha * input``."""
    return F.sub(other, input, alpha=alpha)


@op(inplace=True, out=True, aliases=("divide", "true_divide"), domain=(0.5, 3.0))
def div(input: Value, other: Value, *, rounding_mode=None):
    """``input / other``; ``rounding_mode`` None, "trunc" or "floor" (integers stay integers)."""
    if rounding_mode is None:
        return div_(*together(input, other, floating=True, name="div"))
    if rounding_mode == "floor":
        return F.floor_divide(input, other)
    if rounding_mode != "trunc":
        raise RuntimeError(
            f"div: expected rounding_mode to be one of None, 'trunc' or 'floor', got "
            f"{rounding_mode!r}"
        )
    a, b = together(input, other, name="div")
    if a.dtype.is_floating_point:
        return F.trunc(div_(a, b))
    no_bool("div", a)
    return _truncated(a, b)


_truncated = pointwise(
    "tdiv",
    lambda np, a, b: np.trunc(np.divide(a, b)).astype(a.dtype),
    None,
    lambda a, b: L.binary("div", a, b),
    arity=2,
)


@op(inplace=True, out=True, domain=(0.5, 3.0))
def floor_divide(input: Value, other: Value):
    """``floor(input / other)``."""
    a, b = together(input, other, name="floor_divide")
    if a.dtype.is_floating_point:
        # As Python: exact remainder first, so that the quotient is not rounded up.
        quotient = div_(a - F.remainder(a, b), b)
        exact = F.where(b.eq(0), div_(a, b), F.round(quotient))
        return exact
    no_bool("floor_divide", a)
    return idiv_(a, b)


@op(inplace=True, out=True, domain=(0.5, 3.0))
def remainder(input: Value | Scalar, other: Value):
    """The remainder of division with the sign of ``other``, as Python's ``%``."""
    a, b = together(input, other, name="remainder")
    if a.dtype.is_floating_point:
        r = fmod_(a, b)
        wrong_sign = r.ne(0) & (r.lt(0) ^ b.lt(0))
        return F.where(wrong_sign, r + b, r)
    no_bool("remainder", a)
    return a - idiv_(a, b) * b


@op(inplace=True, out=True, domain=(0.5, 2.0))
def pow(input: Value | Scalar, exponent: Value):  # noqa: A001  the public name
    """``input ** exponent``, elementwise with broadcasting and promotion."""
    a, b = together(input, exponent, name="pow")
    if a.dtype.is_floating_point:
        return pow_(a, b)
    no_bool("pow", a)
    return _integer_power(a, b)


_integer_power = pointwise(
    "ipow",
    lambda np, a, b: np.where(
        b < 0, np.where(np.abs(a) == 1, np.power(a, np.abs(b)), 0), np.power(a, np.abs(b))
    ),
    None,
    lambda a, b: _power_by_squaring(a, b),
    arity=2,
)


def _power_by_squaring(a, b):
    """``a ** b`` of integers, exact modulo the type's range, negative powers towards zero."""
    one, zero = L.Const(1, a.dtype), L.Const(0, a.dtype)
    negative = L.compare("lt", b, zero)
    odd = L.compare("ne", L.binary("and", b, one), zero)
    result, base, left = one, a, b
    for _ in range(6):
        bit = L.compare("ne", L.binary("and", left, one), zero)
        result = L.select(bit, L.binary("mul", result, base), result)
        base = L.binary("mul", base, base)
        left = L.binary("lshr", left, one)
    unit = L.select(L.compare("eq", a, one), one, zero)
    if a.dtype.kind == "i":
        minus = L.Const(-1, a.dtype)
        unit = L.select(L.compare("eq", a, minus), L.select(odd, minus, one), unit)
    return L.select(negative, unit, result)


@op(
    out=True,
    spaces=("torch", "method"),
    samples=lambda make: [
        ((make(3, 5, dtype=D.bool_), make(3, 5), make(5)), {}),
        ((make(4, dtype=D.bool_), make(4), 0.5), {}),
    ],
)
def where(condition: Value, input: Value, other: Value):
    """``input`` where ``condition`` (bool) holds, else ``other``, with broadcasting."""
    a, b = together(input, other, name="where")
    c = as_value(condition)
    if c.dtype is not D.bool_:
        if c.dtype is not D.uint8:
            fail(
                DtypeError,
                "where",
                f"expected condition to be a boolean tensor, got {c.dtype.name}",
            )
        c = to(c, D.bool_)
    if a.weak and b.weak and not c.weak:
        # Two numbers picked by a tensor make a tensor, of the dtype that numbers stand for.
        dtype = D.get_default_dtype() if a.dtype is D.float64 else a.dtype
        a, b = to(a, dtype), to(b, dtype)
    c, a, b = broadcast(c, a, b, name="where")
    return where_(c, a, b)
