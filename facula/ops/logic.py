"""Truth values and the classification of floats."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, fail
from facula.ir.program import Value
from facula.ops.pointwise import copy_
from facula.ops.promote import as_value, together
from facula.ops.registry import PRIMITIVES, F, Op, op


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
    return Op(fn, f"logical_{name}", inplace=True, out=True, numbers=False)


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
