"""What each primitive is in ONNX: functions ``(graph, node, *names) -> name(s)`` by primitive.

The functions stand in ``pointwise``, ``movement``, ``contraction`` and ``selection``. What has a
body and no entry is replaced by it. What is left over is in :data:`UNMAPPED`, with the reason.
"""

from __future__ import annotations

from facula.ops.registry import PRIMITIVES

MAPPINGS: dict = {}
#: Composites whose mapping fits some nodes only; the others are replaced by their bodies.
CONDITIONS: dict = {}

#: Primitives that cannot be written, and why. A test holds that nothing is in neither table.
UNMAPPED = {
    "random_bits": "ONNX has no counter-based random stream",
    "erfinv": "no operator, and no short formula of the precision",
    "lgamma": "no operator, and no short formula of the precision",
    "digamma": "no operator, and no short formula of the precision",
    "cumprod": "no operator",
    "cummax": "no operator",
    "cummin": "no operator",
    "conv_weight": "a gradient, which inference does not compute",
    "recurrence_gradient": "a gradient, which inference does not compute",
    "attention_gradient": "a gradient, which inference does not compute",
    "max_pool_gradient": "a gradient, which inference does not compute",
    "bags": "no operator sums rows in bags of any length",
    "compact": "a part of nonzero, whose size follows from elements",
}


def maps(*names: str, when=None):
    """Declare the mapping of the primitives of these names, where ``when(node)`` holds."""

    def add(function):
        for name in names:
            assert name in PRIMITIVES and name not in MAPPINGS, name
            MAPPINGS[name] = function
            if when is not None:
                CONDITIONS[name] = when
        return function

    return add


def has_mapping(node) -> bool:
    """Whether the node can be written as it is."""
    name = node.op.name
    return name in MAPPINGS and (name not in CONDITIONS or CONDITIONS[name](node))
