"""Recurrent layers in ONNX: LSTM, GRU and RNN, written and read, a direction a node."""

from __future__ import annotations

import numpy as np

from facula.compiler.views import below_reshapes
from facula.ir.dims import Dim
from facula.onnx.errors import unsupported
from facula.onnx.operators import reads
from facula.onnx.table import maps
from facula.ops.recurrence import CELLS
from facula.ops.registry import F

#: cell -> operator, which of our gates its gates are (and the reverse), its attributes.
KINDS = {
    "lstm": ("LSTM", (0, 3, 1, 2), (0, 2, 3, 1), {}),
    "gru": ("GRU", (1, 0, 2), (1, 0, 2), {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", (0,), (0,), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", (0,), (0,), {"activations": ["Relu"]}),
}


@maps("recurrence")
def _recurrence(g, node, p, w, bias, *rest):
    cell = CELLS[node.params["cell"]]
    if len(rest) > cell.states:
        unsupported("recurrence cannot be exported over packed sequences")
    size, first = node.inputs[1].shape[1], node.params["batch_first"]
    if isinstance(size, Dim):
        unsupported("recurrence cannot be exported where the hidden size may change")
    kind, order, _, attributes = KINDS[cell.name]
    order = [int(k) for gate in order for k in range(gate * size, gate * size + size)]

    def rows(name):
        return g.op("Gather", name, g.vector(order), axis=0)

    x, w_ih, b_ih = _projected(g, node.inputs[0], p)
    d, count = node.outputs[0].dtype, cell.gates * size
    if w_ih is None:
        w_ih = g.array(np.eye(count, dtype=d.numpy()), d, "identity")
    b_ih = b_ih or g.array(np.zeros(count, d.numpy()), d, "zeros")
    both = g.op("Concat", rows(b_ih), rows(bias), axis=0)
    weights = [g.unsqueeze(v, 0) for v in (rows(w_ih), rows(w), both)]
    if first:
        x = g.op("Transpose", x, perm=[1, 0, 2])
    states = [g.unsqueeze(s, 0) for s in rest]
    y, *finals = g.op(
        kind, x, *weights, "", *states, outputs=1 + cell.states, hidden_size=size,
        direction="reverse" if node.params["reverse"] else "forward", **attributes,
    )  # fmt: skip
    y = g.squeeze(y, 1)
    y = g.op("Transpose", y, perm=[1, 0, 2]) if first else y
    return y, *(g.squeeze(s, 0) for s in finals)


def _projected(g, v, name):
    """Names of x, w and b such that p is ``x @ w.T + b``; p alone where it is nothing such."""
    total, b = v, None
    if v.node is not None and v.node.op.name == "add":
        total, other = v.node.inputs
        if other.node is None or other.node.op.name != "expand" or other.node.inputs[0].ndim != 1:
            return name, None, None
        b = g.names[id(other.node.inputs[0])]
    product = below_reshapes(total)
    if product.node is None or product.node.op.name != "matmul":
        return name, None, None
    x, turned = map(below_reshapes, product.node.inputs)
    if turned.node is None or turned.node.op.name != "permute" or turned.ndim != 2 or x.ndim != 3:
        return name, None, None
    return g.names[id(x)], g.names[id(turned.node.inputs[0])], b


@reads("LSTM", "GRU", "RNN")
def _layer(r, x, w, u, b=None, lengths=None, h=None, c=None, peepholes=None, *, kind,
           hidden_size=None, direction="forward", layout=0, activations=None, clip=None,
           input_forget=0, linear_before_reset=0, **ignored):  # fmt: skip
    """x [t, n, i], w [directions, gates, i], u [directions, gates, h], b [directions, 2 gates]."""
    count, size = int(w.shape[0]), u.shape[2]
    cell = _cell(kind, activations, count, linear_before_reset)
    if lengths is not None or peepholes is not None or clip or input_forget or layout or not cell:
        unsupported(f"{kind} with lengths, peepholes, clipping, another layout, other activations, "
                    "or a reset before the product")  # fmt: skip
    gates = CELLS[cell].gates

    def rows(v, first=0):
        parts = [F.narrow(v, 0, (first + k) * size, size) for k in KINDS[cell][2]]
        return F.cat(parts, 0)

    found = []
    zero = F.zeros_of((x.shape[1], size), x.dtype)
    for k in range(count):
        own, bias = [F.select(v, 0, k) for v in (w, u)], (None, None)
        if b is not None:
            bias = rows(F.select(b, 0, k)), rows(F.select(b, 0, k), gates)
        states = [zero if s is None else F.select(s, 0, k) for s in (h, c)[: CELLS[cell].states]]
        back = k == 1 or direction == "reverse"
        found.append(F.recurrent(x, states, *map(rows, own), *bias, None, cell, back))
    outputs, *finals = zip(*found)
    return F.stack(list(outputs), 1), *(F.stack(list(s), 0) for s in finals)


def _cell(kind, activations, count, linear_before_reset):
    """The name of the cell, None if there is none such."""
    usual = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
    names = tuple(a.decode() for a in activations or ()) or usual[kind] * count
    if kind == "RNN":
        one = {("Tanh",) * count: "rnn_tanh", ("Relu",) * count: "rnn_relu"}
        return one.get(names)
    if names != usual[kind] * count or kind == "GRU" and not linear_before_reset:
        return None
    return kind.lower()
