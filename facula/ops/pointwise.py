"""Pointwise primitives and the ops that are little more than one of them."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, ShapeError, fail
from facula.ir import loops as L
from facula.ir.program import Value
from facula.ops.promote import as_value, broadcast, meaning_dtype, to, together
from facula.ops.registry import PRIMITIVES, F, Op, Primitive, Scalar, op

LN2, LN10, TWO_OVER_SQRT_PI, HALF_SQRT_PI = (
    0.6931471805599453,
    2.302585092994046,
    1.1283791670955126,
    0.8862269254527580,
)


def _same_shapes(name, values):
    first = values[0]
    for v in values[1:]:
        if v.ndim != first.ndim or any(a is not b and a != b for a, b in zip(v.shape, first.shape)):
            fail(ShapeError, name, f"shapes differ: {first.shape} and {v.shape}")
    return first.shape


def pointwise(name, meaning, gradient=None, emit=None, result=None, arity=1):
    """A primitive of one element of each operand; ``result`` is its dtype if another."""

    def infer(*values, **params):
        shape = _same_shapes(name, values)
        own = values[-1].dtype
        if result is None and any(v.dtype is not own for v in values[name == "where" :]):
            fail(DtypeError, name, f"dtypes differ: {[v.dtype.name for v in values]}")
        return [(params.get("dtype") or result or own, shape)]

    def default_emit(*exprs, **params):
        return L.call(name, *exprs)

    return Primitive(name, "pointwise", infer, meaning, gradient, emit or default_emit, arity=arity)


def no_bool(name, *values):
    """Refuse bools, where an op is one of numbers alone."""
    if all(v.dtype is D.bool_ for v in values):
        fail(
            DtypeError,
            name,
            "bool tensors are not supported",
            "convert with .int(), or use logical_not, logical_and, logical_xor, ...",
        )


def unary(
    name,
    meaning,
    gradient,
    *,
    emit=None,
    floating=True,
    bools=True,
    spaces=("torch", "method"),
    domain=(-3.0, 3.0),
    aliases=(),
    doc="",
):
    """A pointwise primitive of one operand and its op.

    ``floating`` promotes integers to float; without ``bools`` these are refused.
    """
    primitive = pointwise(name, meaning, gradient, emit)

    def fn(input: Value):
        if not isinstance(input, Value):
            input = as_value(input)
        if not input.dtype.is_floating_point:
            if floating:
                input = to(input, D.get_default_dtype())
            elif not bools:
                no_bool(name, input)
        return primitive(input)

    fn.__doc__ = doc or f"Elementwise ``{name}(input)``, of the shape of ``input``."
    return Op(fn, name, spaces, aliases, inplace=True, out=True, domain=domain)


exp = unary("exp", lambda np, x: np.exp(x), lambda g, y, x: (g * y,))
exp2 = unary("exp2", lambda np, x: np.exp2(x), lambda g, y, x: (g * y * LN2,))
expm1 = unary("expm1", lambda np, x: np.expm1(x), lambda g, y, x: (g * (y + 1),))
log = unary("log", lambda np, x: np.log(x), lambda g, y, x: (g / x,), domain=(0.1, 5.0))
log2 = unary("log2", lambda np, x: np.log2(x), lambda g, y, x: (g / (x * LN2),), domain=(0.1, 5.0))
log10 = unary(
    "log10", lambda np, x: np.log10(x), lambda g, y, x: (g / (x * LN10),), domain=(0.1, 5.0)
)
log1p = unary(
    "log1p", lambda np, x: np.log1p(x), lambda g, y, x: (g / (x + 1),), domain=(-0.9, 5.0)
)
sin = unary("sin", lambda np, x: np.sin(x), lambda g, y, x: (g * F.cos(x),))
cos = unary("cos", lambda np, x: np.cos(x), lambda g, y, x: (-(g * F.sin(x)),))
tan = unary("tan", lambda np, x: np.tan(x), lambda g, y, x: (g * (y * y + 1),), domain=(-1.2, 1.2))
asin = unary(
    "asin",
    lambda np, x: np.arcsin(x),
    lambda g, y, x: (g * F.rsqrt(1 - x * x),),
    domain=(-0.9, 0.9),
    aliases=("arcsin",),
)
acos = unary(
    "acos",
    lambda np, x: np.arccos(x),
    lambda g, y, x: (-(g * F.rsqrt(1 - x * x)),),
    domain=(-0.9, 0.9),
    aliases=("arccos",),
)
atan = unary(
    "atan", lambda np, x: np.arctan(x), lambda g, y, x: (g / (x * x + 1),), aliases=("arctan",)
)
sinh = unary("sinh", lambda np, x: np.sinh(x), lambda g, y, x: (g * F.cosh(x),))
cosh = unary("cosh", lambda np, x: np.cosh(x), lambda g, y, x: (g * F.sinh(x),))
tanh = unary("tanh", lambda np, x: np.tanh(x), lambda g, y, x: (g * (1 - y * y),))
asinh = unary(
    "asinh",
    lambda np, x: np.arcsinh(x),
    lambda g, y, x: (g * F.rsqrt(x * x + 1),),
    aliases=("arcsinh",),
)
acosh = unary(
    "acosh",
    lambda np, x: np.arccosh(x),
    lambda g, y, x: (g * F.rsqrt(x * x - 1),),
    domain=(1.1, 5.0),
    aliases=("arccosh",),
)
atanh = unary(
    "atanh",
    lambda np, x: np.arctanh(x),
    lambda g, y, x: (g / (1 - x * x),),
    domain=(-0.9, 0.9),
    aliases=("arctanh",),
)
SPECIAL = ("torch", "method", "special")
erf = unary(
    "erf",
    lambda np, x: _scipy("erf")(x),
    lambda g, y, x: (g * TWO_OVER_SQRT_PI * F.exp(-(x * x)),),
    spaces=SPECIAL,
)
erfc = unary(
    "erfc",
    lambda np, x: _scipy("erfc")(x),
    lambda g, y, x: (g * -TWO_OVER_SQRT_PI * F.exp(-(x * x)),),
    spaces=SPECIAL,
)
erfinv = unary(
    "erfinv",
    lambda np, x: _scipy("erfinv")(x),
    lambda g, y, x: (g * HALF_SQRT_PI * F.exp(y * y),),
    spaces=SPECIAL,
    domain=(-0.9, 0.9),
)
lgamma = unary(
    "lgamma",
    lambda np, x: _scipy("gammaln")(x),
    lambda g, y, x: (g * F.digamma(x),),
    domain=(0.2, 6.0),
)
digamma = unary(
    "digamma",
    lambda np, x: _scipy("psi")(x),
    lambda g, y, x: (g * F.polygamma(1, x),),
    spaces=SPECIAL,
    domain=(0.2, 6.0),
)
sqrt = unary("sqrt", lambda np, x: np.sqrt(x), lambda g, y, x: (g / (y * 2),), domain=(0.1, 5.0))
rsqrt = unary(
    "rsqrt",
    lambda np, x: 1 / np.sqrt(x),
    lambda g, y, x: (g * y * y * y * -0.5,),
    domain=(0.1, 5.0),
)
sigmoid = unary(
    "sigmoid",
    lambda np, x: 1 / (1 + np.exp(-x)),
    lambda g, y, x: (g * (1 - y) * y,),
    spaces=("torch", "method", "nn.functional"),
)


def _scipy(name):
    import scipy.special

    return getattr(scipy.special, name)


def _zero(g, y, x):
    return (g * 0,)


def _integers_unchanged(name):
    return lambda x: L.unary(name, x) if x.dtype.kind == "f" else x


neg = unary(
    "neg",
    lambda np, x: np.negative(x),
    lambda g, y, x: (-g,),
    floating=False,
    bools=False,
    aliases=("negative",),
)
abs_ = unary(
    "abs",
    lambda np, x: np.abs(x),
    lambda g, y, x: (g * F.sign(x),),
    floating=False,
    bools=False,
    aliases=("absolute",),
    emit=lambda x: x if x.dtype.kind == "u" else L.unary("abs", x),
)
floor = unary(
    "floor",
    lambda np, x: np.floor(x).astype(x.dtype),
    _zero,
    floating=False,
    bools=False,
    emit=_integers_unchanged("floor"),
)
ceil = unary(
    "ceil",
    lambda np, x: np.ceil(x).astype(x.dtype),
    _zero,
    floating=False,
    bools=False,
    emit=_integers_unchanged("ceil"),
)
trunc = unary(
    "trunc",
    lambda np, x: np.trunc(x).astype(x.dtype),
    _zero,
    floating=False,
    bools=False,
    emit=_integers_unchanged("trunc"),
    aliases=("fix",),
)


def _sign(x):
    if x.dtype.kind == "b":
        return x
    zero, one = L.Const(0, x.dtype), L.Const(1, x.dtype)
    positive = L.select(L.compare("gt", x, zero), one, zero)
    if x.dtype.kind == "u":
        return positive
    minus = L.Const(-1, x.dtype)
    return L.select(L.compare("lt", x, zero), minus, positive)


sign = unary(
    "sign",
    lambda np, x: np.where(np.isnan(x), 0, np.sign(x * 1)).astype(x.dtype),
    _zero,
    floating=False,
    emit=_sign,
    aliases=("sgn",),
)

_round = pointwise("round", lambda np, x: np.round(x), _zero, _integers_unchanged("round"))


@op(inplace=True, out=True)
def round(input: Value, *, decimals=0):  # noqa: A001  the public name
    """Round to ``decimals`` decimal places, halves to even."""
    no_bool("round", input)
    if decimals == 0 or not input.dtype.is_floating_point:
        return _round(input)
    scale = 10.0 ** abs(decimals)
    return _round(input * scale) / scale if decimals > 0 else _round(input / scale) * scale


cast = pointwise(
    "cast",
    lambda np, x, *, dtype: x.astype(meaning_dtype(dtype)),
    lambda g, y, x, *, dtype: (to(g, x.dtype) if x.dtype.is_floating_point else None,),
    emit=lambda x, *, dtype: L.cast(x, dtype),
)


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
    return Op(fn, name, spaces, aliases, inplace=True, out=True, domain=domain, samples=samples)


mul = binary_op("mul", mul_, aliases=("multiply",))
maximum = binary_op("maximum", maximum_)
minimum = binary_op("minimum", minimum_)
fmax = binary_op("fmax", fmax_)
fmin = binary_op("fmin", fmin_)
atan2 = binary_op("atan2", atan2_, floating=True, aliases=("arctan2",))
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
        exact = F.where(b.eq(0), div_(a, b), _round(quotient))
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
    c, a, b = broadcast(c, a, b, name="where")
    return where_(c, a, b)


#: The same elements in memory of their own.
copy_ = pointwise("copy", lambda np, x: np.array(x), lambda g, y, x: (g,), lambda x: x)
#: The same elements without a derivative.
detach_ = pointwise("detach", lambda np, x: x, lambda g, y, x: (None,), lambda x: x)


@op(spaces=())
def stop(input: Value):
    """The same values, treated as constants by differentiation (inside of composites)."""
    return detach_(input)


@op(aliases=("asbool",), spaces=())
def truth(input: Value):
    """Bool: whether elements are nonzero."""
    return input if input.dtype is D.bool_ else F.ne(input, 0)


@op(inplace=True, out=True)
def logical_not(input: Value):
    """Elementwise not, of truth values."""
    return PRIMITIVES["not"](F.truth(input))


def _logical(name):
    def fn(input: Value, other: Value):
        a, b = together(F.truth(as_value(input)), F.truth(as_value(other)), name=f"logical_{name}")
        return PRIMITIVES[name](a, b)

    fn.__doc__ = f"Elementwise ``{name}`` of truth values, with broadcasting; bool."
    return Op(fn, f"logical_{name}", inplace=True, out=True)


logical_and, logical_or, logical_xor = _logical("and"), _logical("or"), _logical("xor")


@op(
    inplace=True,
    out=True,
    samples=lambda make: [((make(5, dtype=D.int32),), {}), ((make(5, dtype=D.bool_),), {})],
)
def bitwise_not(input: Value):
    """Elementwise complement of integers, not of bools."""
    if input.dtype.is_floating_point:
        fail(DtypeError, "bitwise_not", f"expected integers or bools, got {input.dtype.name}")
    return PRIMITIVES["not"](input)


@op()
def isnan(input: Value):
    """Bool: whether elements are NaN."""
    return F.ne(input, input)


@op()
def isinf(input: Value):
    """Bool: whether elements are plus or minus infinity."""
    return F.eq(F.abs(input), float("inf")) if input.dtype.is_floating_point else F.ne(input, input)


@op()
def isfinite(input: Value):
    """Bool: whether elements are neither NaN nor infinite."""
    if not input.dtype.is_floating_point:
        return F.eq(input, input)
    return F.lt(F.abs(input), float("inf"))


@op(spaces=("torch", "method"))
def clone(input: Value, *, memory_format=None):
    """A copy of the tensor, through which gradients flow."""
    return copy_(input)
