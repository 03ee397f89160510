"""Formulas (``ir.formulas``) computed by native code."""

from __future__ import annotations

from facula.base.errors import OutOfMemoryError, fail
from facula.ir.formulas import OPERATIONS
from facula.runtime import jit, native


@jit.once
def _native():
    native.require_gil()
    words = {name.upper(): number for number, name in enumerate(OPERATIONS)}
    found = jit.load(jit.source("formulas.ll", words), ["formulas_evaluate"], optimize=2)
    return native.builtin("evaluate", found["formulas_evaluate"])


def evaluate(code: bytes, names: tuple, values: dict) -> tuple | None:
    """The results for the values of the inputs by name; None where a guard has another answer.

    Raises:
        KeyError: a name without a value.
        OutOfMemoryError: a number of more than 64 bits, as no sizes have that fit into memory.

    >>> from facula.ir.dims import Dim
    >>> from facula.ir.formulas import Formulas
    >>> f, n = Formulas(), Dim.symbol("n", 8)
    >>> f.want(3 * n + 1), f.want(n // 4)
    (0, 1)
    >>> evaluate(f.code(), tuple(f.names), {"n": 10})
    (31, 2)
    """
    try:
        return _native()(code, names, values)
    except OverflowError:
        fail(OutOfMemoryError, "sizes", f"{values} need more memory than any machine has")
