"""The exact maths library: transcendental ops written as straight-line arithmetic.

:func:`lower` is all that the code generator calls. ``docs/design/maths.md`` has the methods and
the measured error of every function.
"""

from __future__ import annotations

from facula.base.dtypes import float32, float64
from facula.ir import loops as L

from . import error, exponential, logarithm, power, trigonometric
from .parts import constant, sqrt


def rsqrt(x):
    return constant(1.0, x) / sqrt(x)


FUNCTIONS = {
    "rsqrt": rsqrt,
    **{n: getattr(exponential, n) for n in "exp exp2 expm1 sigmoid tanh".split()},
    **{n: getattr(logarithm, n) for n in "log log2 log10 log1p".split()},
    **{n: getattr(trigonometric, n) for n in "sin cos tan".split()},
    **{n: getattr(error, n) for n in "erf erfc".split()},
    **{n: getattr(power, n) for n in "pow".split()},
}


def lower(op: L.Op) -> L.Expr | None:
    """The arithmetic that computes ``op``, or None if it is no function of this library.

    Args:
        op: an op whose operands are float32 or float64 (narrower floats are the caller's to
            widen). Its operands appear in the result as they are, possibly many times.

    Returns:
        An expression of ops of ``loops.ARITHMETIC``, comparisons, ``select`` and casts. It is a
        graph: sub-expressions are shared and are meant to be computed once.
    """
    function = FUNCTIONS.get(op.name)
    if function is None or op.dtype not in (float32, float64):
        return None
    return function(*op.args)
