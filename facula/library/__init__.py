"""Ops written in terms of the engine's: one traced composite each, so one kernel each way where its
structure allows. Importing the package declares all. What a composite may use is what a user may.
"""

from facula.library import (  # noqa: F401  imported for their declarations
    activation,
    arithmetic,
    attention,
    conv,
    copies,
    fill,
    grid,
    joining,
    linear_algebra,
    loss,
    norm,
    pooling,
    recurrence,
    selection,
    shape,
    softmax,
    special,
    statistics,
)
from facula.ops import OPS, PRIMITIVES, F, Op, Primitive, op, operators

operators.attach_to_values()

__all__ = ["OPS", "PRIMITIVES", "F", "Op", "Primitive", "op"]
