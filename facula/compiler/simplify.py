"""Simplify: equal nodes become one, movements that move nothing vanish, unused nodes go.

Only rewrites that cannot change a bit of any result are made here.
"""

from __future__ import annotations

from facula.ir import dims
from facula.ir.program import Node, Program, Value


def simplify(program: Program) -> Program:
    """The program with fewer nodes."""
    result = Program(program.name)
    result.inputs = list(program.inputs)
    seen: dict[int, Value] = {}
    known: dict[tuple, Node] = {}
    for node in program.nodes:
        operands = tuple(seen.get(id(v), v) for v in node.inputs)
        operands, params = _merged(node, operands)
        shortcut = _shortcut(node, operands, params)
        if shortcut is not None:
            seen[id(node.outputs[0])] = shortcut
            continue
        key = (node.op.name, tuple(map(id, operands)), _frozen(params))
        twin = known.get(key)
        if twin is None:
            twin = Node(node.op, operands, params, ())
            twin.outputs = tuple(
                Value(v.dtype, v.shape, twin, v.index, v.weak) for v in node.outputs
            )
            result.nodes.append(twin)
            known[key] = twin
        for old, new in zip(node.outputs, twin.outputs):
            seen[id(old)] = new
    result.outputs = [seen.get(id(v), v) for v in program.outputs]
    return result.live()


def _frozen(params):
    """Params as a key; 1, 1.0 and True, or 0.0 and -0.0, are different constants."""
    return tuple((k, repr(v)) for k, v in params.items())


def same_shape(a, b) -> bool:
    """Whether two shapes are equal whatever the symbols stand for."""
    return len(a) == len(b) and all(dims.same(n, m) for n, m in zip(a, b))


def _shortcut(node, operands, params):
    """The operand itself, where the node changes nothing."""
    name = node.op.name
    if name in ("expand", "reshape") and same_shape(node.outputs[0].shape, operands[0].shape):
        return operands[0]
    if name == "permute" and params["order"] == tuple(range(operands[0].ndim)):
        return operands[0]
    if name == "cast" and operands[0].dtype is params["dtype"] and not operands[0].weak:
        return operands[0]
    if name == "detach":
        return operands[0]
    return None


def _merged(node, operands):
    """A movement of a movement of the same kind as one."""
    if not operands or operands[0].node is None:
        return operands, node.params
    inner = operands[0].node
    if node.op.name == inner.op.name == "reshape":
        return inner.inputs, node.params
    if node.op.name == inner.op.name == "permute":
        order = tuple(inner.params["order"][d] for d in node.params["order"])
        return inner.inputs, {"order": order}
    return operands, node.params
