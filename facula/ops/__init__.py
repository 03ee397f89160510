"""The instruction set: primitives, and ops written in terms of them. Importing it declares all."""

from facula.ops import (  # noqa: F401  imported for their declarations
    activation,
    arithmetic,
    attention,
    binary,
    contraction,
    conv,
    copies,
    fill,
    indexing,
    joining,
    linear_algebra,
    logic,
    loss,
    movement,
    norm,
    operators,
    pointwise,
    pool,
    promote,
    random,
    reduce,
    scan,
    selection,
    shape,
    softmax,
    special,
    statistics,
)
from facula.ops.registry import OPS, PRIMITIVES, F, Op, Primitive, op

operators.attach_to_values()

__all__ = ["OPS", "PRIMITIVES", "F", "Op", "Primitive", "op"]
