"""Pointwise primitives and the ops that are little more than one of them."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, ShapeError, fail
from facula.ir import loops as L
from facula.ir.program import Value
from facula.ops.promote import as_value, meaning_dtype, to
from facula.ops.registry import F, Op, Primitive, op

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
    # Next to its poles a rounded reflection would leave few digits of single precision.
    emit=lambda x: L.cast(L.call("digamma", L.cast(x, D.float64)), x.dtype),
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


#: The same elements in memory of their own.
copy_ = pointwise("copy", lambda np, x: np.array(x), lambda g, y, x: (g,), lambda x: x)
#: The same elements without a derivative.
detach_ = pointwise("detach", lambda np, x: x, lambda g, y, x: (None,), lambda x: x)


@op(spaces=())
def stop(input: Value):
    """The same values, treated as constants by differentiation (inside of composites)."""
    return detach_(input)
