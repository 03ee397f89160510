"""The exact maths library: transcendental ops written as straight-line arithmetic.

:func:`lower` is all that the code generator calls. ``docs/design/maths.md`` has the methods and
the measured error of every function.
"""

from __future__ import annotations

from facula.base.dtypes import float32, float64
from facula.ir import loops as L

from . import arcs, error, exponential, gamma, logarithm, power, remainder, trigonometric
from .parts import Rarely, Scaled

__all__ = ["Rarely", "Scaled", "lower", "schedule"]


FUNCTIONS = {
    **{
        name: getattr(module, name)
        for module, names in (
            (exponential, "exp exp2 expm1 sigmoid sinh cosh tanh"),
            (logarithm, "log log2 log10 log1p asinh acosh atanh"),
            (trigonometric, "sin cos tan"),
            (arcs, "asin acos atan atan2"),
            (error, "erf erfc erfinv"),
            (gamma, "lgamma digamma"),
            (power, "pow rsqrt"),
            (remainder, "fmod"),
        )
        for name in names.split()
    },
}


def lower(op: L.Op) -> L.Expr | None:
    """The arithmetic that computes ``op``, or None if it is no function of this library.

    Args:
        op: an op whose operands are float32 or float64 (narrower floats are the caller's to
            widen). Its operands appear in the result as they are, possibly many times.

    Returns:
        An expression of ops of ``loops.ARITHMETIC``, comparisons, ``select``, casts and
        :class:`Rarely` and :class:`Scaled`. It is a graph: sub-expressions are shared, meant to be
        computed once.
    """
    function = FUNCTIONS.get(op.name)
    if function is None or op.dtype not in (float32, float64):
        return None
    return function(*op.args)


def schedule(e: L.Expr) -> tuple:
    """The parts of an expression, each after its operands, the expression itself last.

    Parts that only the rare side of a :class:`Rarely` or the products of a :class:`Scaled` need are
    left out; those have a schedule of their own. Some expressions are too deep for recursion: fmod
    is a chain of hundreds.
    """
    done, order, stack = set(), [], [(e, False)]
    while stack:
        part, ready = stack.pop()
        if ready:
            order.append(part)
        elif id(part) not in done:
            done.add(id(part))
            stack.append((part, True))
            operands = getattr(part, "first", part.args)
            stack += [(x, False) for x in reversed(operands)]
    return tuple(order)
