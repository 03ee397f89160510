"""Simplify: equal nodes become one, movements that move nothing vanish, unused nodes go.

The transpose of a product is the product of the transposes in reverse order: written so, it needs
no copy, as operands are read by strides (the gradient of a linear layer's weight). The gradients of
slices, each with zeros around and added up, are joined where they lie side by side. A copy is the
value that is copied, unless it is an output: values are not memory.

Only rewrites that cannot change a bit of any result are made here.
"""

from __future__ import annotations

from collections import Counter

from facula.ir import dims
from facula.ir.program import Node, Program, Value
from facula.ops.contraction import matmul_
from facula.ops.movement import cat_, pad_, permute_, reshape_
from facula.ops.pointwise import copy_


def simplify(program: Program) -> Program:
    """The program with fewer nodes."""
    writer = _Writer(program)
    seen: dict[int, Value] = {}
    for node in program.nodes:
        operands = tuple(seen.get(id(v), v) for v in node.inputs)
        product = _transposed_product(node, writer.uses)
        if product is not None:
            a, b = (seen.get(id(v), v) for v in product.inputs)
            new = [writer.turned(a, b, product.params, node.outputs[0])]
        else:
            new = writer.write(node.op, operands, node.params, node.outputs)
        for old, v in zip(node.outputs, new):
            seen[id(old)] = v
    result = writer.result
    result.outputs = [seen.get(id(v), v) for v in program.outputs]
    for j, v in enumerate(program.outputs):
        if v.node is not None and v.node.op is copy_:
            (result.outputs[j],) = writer.node(copy_, (result.outputs[j],), {}, (v,))
    return result.live()


class _Writer:
    """The program in the making. ``uses`` counts those of the old one's values."""

    def __init__(self, program):
        self.result = Program(program.name)
        self.result.inputs = list(program.inputs)
        self._known: dict[tuple, Node] = {}
        self.uses = Counter(id(v) for node in program.nodes for v in node.inputs)
        self.uses.update(map(id, program.outputs))

    def write(self, op, operands, params, like):
        """The values of a node, of the dtypes and shapes of ``like``."""
        operands, params = _merged(op, operands, params)
        shortcut = _shortcut(op, operands, params, like[0])
        if shortcut is None and op.name == "add":
            shortcut = self._joined(*operands)
        if shortcut is not None:
            return [shortcut]
        return self.node(op, operands, params, like)

    def node(self, op, operands, params, like):
        """As :meth:`write`, of a node that is needed as it is."""
        key = (op.name, tuple(map(id, operands)), _frozen(params))
        twin = self._known.get(key)
        if twin is None:
            twin = Node(op, operands, params, ())
            twin.outputs = tuple(Value(v.dtype, v.shape, twin, v.index, v.weak) for v in like)
            self.result.nodes.append(twin)
            self._known[key] = twin
        return twin.outputs

    def turned(self, a, b, params, like):
        """``transpose(b) @ transpose(a)`` in the shape of ``like``."""
        n = a.ndim
        order = (*range(n - 2), n - 1, n - 2)
        a, b = (self._of(permute_, v, order=order) for v in (a, b))
        return self._of(reshape_, self._of(matmul_, b, a, **params), shape=tuple(like.shape))

    def _joined(self, a, b):
        """The sum of two values with zeros around them, if they lie side by side."""
        parts = _surrounded(a), _surrounded(b)
        if None in parts or parts[0][1] != parts[1][1]:
            return None
        for (x, dim, before, end, _), (y, _, start, _, after) in (parts, parts[::-1]):
            if dims.same(end, start):
                pieces = [v for part in (x, y) for v in _pieces(part, dim)]
                whole = self._of(cat_, *pieces, dim=dim)
                if dims.same(before, 0) and dims.same(after, 0):
                    return whole
                around = {"before": before, "after": after, "between": 0, "value": 0}
                return self._of(pad_, whole, dim=dim, **around)
        return None

    def _of(self, op, *operands, **params):
        ((dtype, shape),) = op.infer(*operands, **params)
        return self.write(op, operands, params, (Value(dtype, shape, None, 0),))[0]


def _transposed_product(node, uses):
    """The node of a product of which ``node`` is nothing but the transpose, and its only use."""
    if node.op.name != "permute":
        return None
    v, order = node.inputs[0], node.params["order"]
    n = v.ndim
    if n < 2 or tuple(order) != (*range(n - 2), n - 1, n - 2):
        return None
    while v.node is not None and uses[id(v)] == 1:
        if v.node.op is matmul_:
            return v.node
        source = v.node.inputs[0] if v.node.op.name == "reshape" else None
        if source is None or source.ndim < 2 or not same_shape(source.shape[-2:], v.shape[-2:]):
            return None
        v = source
    return None


def _surrounded(v):
    """(What is surrounded by zeros, along which dimension, where it begins and ends, the rest)."""
    node = v.node
    if node is None or node.op is not pad_ or node.params["value"] or node.params["between"]:
        return None
    (x,), p = node.inputs, node.params
    return x, p["dim"], p["before"], p["before"] + x.shape[p["dim"]], p["after"]


def _pieces(v, dim):
    """What a value is joined of along a dimension."""
    joined = v.node is not None and v.node.op is cat_ and v.node.params["dim"] == dim
    return v.node.inputs if joined else (v,)


def _frozen(params):
    """Params as a key; 1, 1.0 and True, or 0.0 and -0.0, are different constants."""
    return tuple((k, repr(v)) for k, v in params.items())


def same_shape(a, b) -> bool:
    """Whether two shapes are equal whatever the symbols stand for."""
    return len(a) == len(b) and all(dims.same(n, m) for n, m in zip(a, b))


def _shortcut(op, operands, params, result):
    """The operand itself, where the node changes nothing."""
    name = op.name
    if name in ("expand", "reshape") and same_shape(result.shape, operands[0].shape):
        return operands[0]
    if name == "permute" and params["order"] == tuple(range(operands[0].ndim)):
        return operands[0]
    if name == "cast" and operands[0].dtype is params["dtype"] and not operands[0].weak:
        return operands[0]
    if name in ("detach", "copy"):
        return operands[0]
    return None


def _merged(op, operands, params):
    """A movement of a movement of the same kind as one."""
    if not operands or operands[0].node is None:
        return operands, params
    inner = operands[0].node
    if op.name == inner.op.name == "reshape":
        return inner.inputs, params
    if op.name == inner.op.name == "permute":
        order = tuple(inner.params["order"][d] for d in params["order"])
        return inner.inputs, {"order": order}
    return operands, params
