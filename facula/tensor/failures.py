"""What to say when a check inside of a kernel failed: which index, of which dimension."""

from __future__ import annotations

from facula.base.errors import IndexRangeError, fail
from facula.tensor.tracing import concrete


def reporter(program, symbols, metas):
    """The function that raises for a failed check of a node of ``program``.

    Kernels check index tensors only. The values are read again here, on the host, to name the
    first one that is out of range.
    """
    carrying = [i for i, m in enumerate(metas) if m != "shape"]
    inputs = {id(v): a for a, v in enumerate(program.inputs[i] for i in carrying)}

    def report(node, dimension, args):
        name = node.op.name
        size = _size(node, dimension, symbols)
        for v in node.inputs[1:]:
            while v.node is not None and id(v) not in inputs and len(v.node.inputs) == 1:
                v = v.node.inputs[0]
            place = inputs.get(id(v))
            if place is None or v.weak or v.dtype.kind not in "iu":
                continue
            for value in args[place].reshape(-1).tolist():
                if size is not None and not -size <= value < size:
                    fail(IndexRangeError, program.name, f"index {value} is out of bounds for "
                         f"dimension {dimension} with size {size}")  # fmt: skip
        fail(IndexRangeError, program.name, f"index out of range in dimension {dimension}"
             + (f" with size {size}" if size is not None else "") + f" ({name})")  # fmt: skip

    return report


def _size(node, dimension, symbols):
    shape = node.inputs[0].shape if node.inputs else ()
    if not isinstance(dimension, int) or dimension >= len(shape):
        return None
    return concrete(shape[dimension], symbols)
