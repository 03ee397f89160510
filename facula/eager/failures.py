"""What to say when a check inside of a kernel failed: which index, of which dimension."""

from __future__ import annotations

import os
import traceback

from facula.base.errors import IndexRangeError, ShapeError, fail
from facula.eager.tracing import concrete


def reporter(program, symbols, metas):
    """The function that raises for a failed check of a node of ``program``.

    Kernels check index tensors, unless the primitive says something else. Values are read again
    here, on the host, to name the first one that is out of range.
    """

    def report(node, dimension, args):
        if isinstance(dimension, str):
            fail(ShapeError, program.name, dimension)
        if "refusal" in node.op.info:
            fail(ShapeError, program.name, node.op.info["refusal"])
        carrying = [i for i, m in enumerate(metas) if m != "shape"]
        places = {id(program.inputs[i]): a for a, i in enumerate(carrying)}
        size = _size(node, dimension, symbols)
        indices = [i for a in _integers_behind(node, places) for i in args[a].reshape(-1).tolist()]
        wrong = [i for i in indices if not -size <= i < size] or [i for i in indices if i < 0]
        which = f"index {wrong[0]}" if wrong else "an index"
        fail(
            IndexRangeError,
            program.name,
            f"{which} is out of bounds for dimension {dimension} with size {size}",
        )

    return report


def _integers_behind(node, places):
    """Argument numbers of the integer tensors that a node's indices are computed from."""
    found, seen, stack = [], set(), list(node.inputs[1:])
    while stack:
        v = stack.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        if id(v) in places and not v.weak and v.dtype.kind in "iu":
            found.append(places[id(v)])
        elif v.node is not None:
            stack.extend(v.node.inputs)
    return found


def _size(node, dimension, symbols):
    shape = node.inputs[0].shape if node.inputs else ()
    if not isinstance(dimension, int) or dimension >= len(shape):
        return 0
    return concrete(shape[dimension], symbols)


def user_line(error) -> str | None:
    """The innermost line of an error's traceback that is not facula's own."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith((_PACKAGE, "<facula"))
    ]
    if not frames:
        return None
    last = frames[-1]
    return f"{last.filename}:{last.lineno}, in {last.name}: {last.line}"


_PACKAGE = os.path.dirname(os.path.dirname(__file__))
