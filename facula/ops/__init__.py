"""The instruction set: primitives, and the ops that their derivatives are written in.

Ops composed of these are declared in ``facula.library``.
"""

from facula.ops import (  # noqa: F401  imported for their declarations
    attention,
    binary,
    contraction,
    indexing,
    logic,
    movement,
    operators,
    pointwise,
    pool,
    promote,
    random,
    recurrence,
    reduce,
    scan,
)
from facula.ops.registry import OPS, PRIMITIVES, F, Op, Primitive, op

operators.attach_to_values()

__all__ = ["OPS", "PRIMITIVES", "F", "Op", "Primitive", "op"]
