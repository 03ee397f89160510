"""How reductions combine: their op in Loops, what they start from, what they are summed in."""

from __future__ import annotations

from facula.base import dtypes as D

_BOOL = {"or": "or", "and": "and", "add": "or", "mul": "and", "max": "or", "min": "and"}


def operator(root):
    """The Loops op that a reduction combines by."""
    combine = root.node.op.info["combine"]
    return _BOOL[combine] if root.dtype is D.bool_ else combine


def accumulator(dtype):
    """The dtype in which elements of ``dtype`` are combined."""
    return D.float32 if dtype in (D.float16, D.bfloat16) else dtype


def neutral(root):
    """The number that changes nothing when it is combined with another."""
    combine, dtype = root.node.op.info["combine"], root.dtype
    if dtype is D.bool_:
        return _BOOL[combine] == "and"
    if combine in ("add", "mul"):
        value = 0 if combine == "add" else 1
        return float(value) if dtype.kind == "f" else value
    if dtype.kind == "f":
        return float("-inf") if combine == "max" else float("inf")
    bits = 8 * dtype.itemsize
    if dtype.kind == "u":
        return 0 if combine == "max" else (1 << bits) - 1
    return -(1 << (bits - 1)) if combine == "max" else (1 << (bits - 1)) - 1


def exact(root) -> bool:
    """Whether every order gives the same bits."""
    return root.dtype.kind != "f"


def lanes_of(root):
    """What decides on the lanes a reduction has, so on its order; None if order is nothing."""
    return None if exact(root) else accumulator(root.dtype).itemsize
