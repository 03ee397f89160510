"""Pointwise primitives in ONNX."""

from __future__ import annotations

import math

from facula.base import dtypes as D
from facula.onnx.table import maps

#: Primitives that are one operator, in floating point.
DIRECT = {
    "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin",
    "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf", "sqrt": "Sqrt",
    "sigmoid": "Sigmoid",
}  # fmt: skip
#: Those of two operands, which ONNX broadcasts itself.
BINARY = {
    "sub": "Sub", "div": "Div", "tdiv": "Div", "pow": "Pow", "lt": "Less", "le": "LessOrEqual",
    "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
}  # fmt: skip
#: Those that are logical on bools: (operator on numbers, operator on bools).
LOGICAL = {
    "add": ("Add", "Or"), "mul": ("Mul", "And"), "maximum": ("Max", "Or"),
    "minimum": ("Min", "And"), "and": ("BitwiseAnd", "And"), "or": ("BitwiseOr", "Or"),
    "xor": ("BitwiseXor", "Xor"),
}  # fmt: skip


def dtype_of(node) -> D.dtype:
    """The dtype of the last operand: of the values, not of a condition."""
    return node.inputs[-1].dtype


def number_of(v):
    """The number that a value is everywhere, or None."""
    while v.node is not None and v.node.op.name in ("expand", "reshape", "cast"):
        v = v.node.inputs[0]
    return v.node.params["value"] if v.node is not None and v.node.op.name == "constant" else None


@maps(*DIRECT)
def _direct(g, node, x):
    return g.op(DIRECT[node.op.name], x)


@maps(*BINARY)
def _binary(g, node, a, b):
    if dtype_of(node) is D.bool_ and node.op.name != "eq":
        a, b = g.cast(a, D.int32), g.cast(b, D.int32)
    return g.op(BINARY[node.op.name], a, b)


@maps(*LOGICAL)
def _logical(g, node, a, b):
    return g.op(LOGICAL[node.op.name][dtype_of(node) is D.bool_], a, b)


@maps("ne")
def _ne(g, node, a, b):
    return g.op("Not", g.op("Equal", a, b))


@maps("not")
def _not(g, node, x):
    return g.op("Not" if dtype_of(node) is D.bool_ else "BitwiseNot", x)


@maps("copy", "detach")
def _same(g, node, x):
    return x


@maps("cast")
def _cast(g, node, x):
    return g.cast(x, node.params["dtype"])


@maps("exp2")
def _exp2(g, node, x):
    return g.op("Pow", g.constant(2.0, dtype_of(node)), x)


@maps("expm1")
def _expm1(g, node, x):
    # 2 exp(x / 2) sinh(x / 2), which does not cancel near 0.
    half = g.op("Mul", x, g.constant(0.5, dtype_of(node)))
    twice = g.op("Mul", g.op("Exp", half), g.constant(2.0, dtype_of(node)))
    return g.op("Mul", twice, g.op("Sinh", half))


@maps("log2", "log10")
def _log_to_base(g, node, x):
    base = {"log2": 2.0, "log10": 10.0}[node.op.name]
    return g.op("Mul", g.op("Log", x), g.constant(1 / math.log(base), dtype_of(node)))


@maps("log1p")
def _log1p(g, node, x):
    return g.op("Log", g.op("Add", x, g.constant(1.0, dtype_of(node))))


#: log(erfc(z) exp(z^2) / t) as a polynomial in t = 1 / (1 + z / 2), z >= 0: a Chebyshev fit with a
#: relative error of erfc below 1.2e-7 everywhere (Press et al., Numerical Recipes, 6.2).
_ERFC = (-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398,
         1.48851587, -0.82215223, 0.17087277)  # fmt: skip


@maps("erfc")
def _erfc(g, node, x):
    """``1 - erf(x)`` up to 1; beyond, where that cancels, by the fit."""
    d = dtype_of(node)
    one = g.constant(1.0, d)
    z = g.op("Max", x, one)
    half = g.op("Mul", z, g.constant(0.5, d))
    t = g.op("Reciprocal", g.op("Add", half, one))
    fit = g.constant(_ERFC[-1], d)
    for coefficient in _ERFC[-2::-1]:
        fit = g.op("Add", g.op("Mul", fit, t), g.constant(coefficient, d))
    tail = g.op("Mul", t, g.op("Exp", g.op("Sub", fit, g.op("Mul", z, z))))
    return g.op("Where", g.op("Greater", x, one), tail, g.op("Sub", one, g.op("Erf", x)))


@maps("rsqrt")
def _rsqrt(g, node, x):
    return g.op("Reciprocal", g.op("Sqrt", x))


@maps("neg")
def _neg(g, node, x):
    if dtype_of(node).kind == "u":
        return g.op("Sub", g.constant(0, dtype_of(node)), x)
    return g.op("Neg", x)


@maps("abs", "sign")
def _abs(g, node, x):
    if dtype_of(node) is D.bool_:
        return x
    return g.op({"abs": "Abs", "sign": "Sign"}[node.op.name], x)


@maps("floor", "ceil", "round")
def _rounded(g, node, x):
    if not dtype_of(node).is_floating_point:
        return x
    return g.op({"floor": "Floor", "ceil": "Ceil", "round": "Round"}[node.op.name], x)


@maps("trunc")
def _trunc(g, node, x):
    if not dtype_of(node).is_floating_point:
        return x
    return g.op("Mul", g.op("Sign", x), g.op("Floor", g.op("Abs", x)))


@maps("idiv")
def _floor_divided(g, node, a, b):
    # The remainder has the divisor's sign, so that what is left divides exactly.
    return g.op("Div", g.op("Sub", a, g.op("Mod", a, b)), b)


@maps("fmod")
def _fmod(g, node, a, b):
    return g.op("Mod", a, b, fmod=1)


@maps("ipow")
def _integer_power(g, node, a, b):
    """Negative powers are 0, except of 1 and -1, whose powers are those of the absolute power."""
    power = g.op("Pow", a, g.op("Abs", b) if dtype_of(node).kind == "i" else b)
    if dtype_of(node).kind != "i":
        return power
    zero, one = g.constant(0, dtype_of(node)), g.constant(1, dtype_of(node))
    vanishes = g.op("And", g.op("Less", b, zero), g.op("Not", g.op("Equal", g.op("Abs", a), one)))
    return g.op("Where", vanishes, zero, power)


@maps("shl", "shr")
def _shift(g, node, a, b):
    """By a power of two, which are exact; ONNX shifts unsigned integers only."""
    power = g.op("Pow", g.constant(2, D.int64), g.cast(b, D.int64))
    power = g.cast(power, dtype_of(node))
    if node.op.name == "shl":
        return g.op("Mul", a, power)
    return g.op("Div", g.op("Sub", a, g.op("Mod", a, power)), power)


@maps("fmax", "fmin")
def _ignoring_nan(g, node, a, b):
    plain = g.op({"fmax": "Max", "fmin": "Min"}[node.op.name], a, b)
    if not dtype_of(node).is_floating_point:
        return plain
    return g.op("Where", g.op("IsNaN", a), b, g.op("Where", g.op("IsNaN", b), a, plain))


@maps("copysign")
def _copysign(g, node, a, b):
    zero = g.constant(0.0, dtype_of(node))
    # The reciprocal tells -0 from 0.
    below = g.op("Or", g.op("Less", b, zero), g.op("Less", g.op("Reciprocal", b), zero))
    size = g.op("Abs", a)
    return g.op("Where", below, g.op("Neg", size), size)


@maps("atan2")
def _atan2(g, node, y, x):
    """``atan(y / x)``, half a turn away where x is negative; axes apart."""
    d = dtype_of(node)
    zero, pi = g.constant(0.0, d), g.constant(math.pi, d)
    half = g.constant(math.pi / 2, d)
    turn = g.op("Where", g.op("Less", y, zero), g.op("Neg", pi), pi)
    angle = g.op("Atan", g.op("Div", y, x))
    angle = g.op("Where", g.op("Less", x, zero), g.op("Add", angle, turn), angle)
    on_axis = g.op("Mul", g.op("Sign", y), half)
    return g.op("Where", g.op("Equal", x, zero), on_axis, angle)


@maps("where")
def _where(g, node, c, a, b):
    asked = node.inputs[0].node
    if asked is not None and asked.op.name == "le" and number_of(node.inputs[1]) == 0:
        # where(x <= 0, 0, x)
        x = node.inputs[2]
        if asked.inputs[0] is x and number_of(asked.inputs[1]) == 0:
            return g.op("Relu", g.names[id(x)])
    if dtype_of(node) is D.bool_:
        # The same without a choice between bools, which few runtimes know.
        return g.op("Or", g.op("And", c, a), g.op("And", g.op("Not", c), b))
    return g.op("Where", c, a, b)
