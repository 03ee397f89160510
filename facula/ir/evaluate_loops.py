"""Index expressions as numbers, once sizes are known: how much scratch memory a launch needs."""

from __future__ import annotations

from facula.ir import loops as L


def evaluate(e, sizes: dict) -> int:
    """The value of an index expression for given sizes, by name."""
    if isinstance(e, int):
        return e
    if isinstance(e, L.Const):
        return e.value
    if isinstance(e, L.Var):
        return sizes[e.name]
    return L.FOLD[e.name](*(evaluate(a, sizes) for a in e.args))
