"""Cells of recurrences as arithmetic in Loops: forward as declared, backward derived from it."""

from __future__ import annotations

import functools

from facula.compiler.simplify import simplify
from facula.derivatives.reverse import pull
from facula.ir import loops as L
from facula.kernels.rnn import Arithmetic
from facula.ops.recurrence import CELLS, cell_backward, traced


@functools.cache
def arithmetic(name: str, dtype) -> Arithmetic:
    """The cell for kernels of the dtype."""
    cell = CELLS[name]

    def ahead(p, u, states):
        kept = cell.keep(p, u)
        return kept, list(cell.step(kept, states))

    def back(kept, states, cotangents):
        dp, du, dstates = cell_backward(pull, cell, kept, states, cotangents)
        return dp + du + dstates

    n, k, s = cell.gates, cell.kept, cell.states
    forward = simplify(traced(ahead, n, n, s, dtype=dtype))
    program = traced(back, k, s, s, dtype=dtype)
    present = [v is not None for v in program.outputs]
    program.outputs = [v for v in program.outputs if v is not None]
    backward = simplify(program.live())
    results = iter(backward.outputs)
    outputs = [next(results) if there else None for there in present]
    shares = all(a is b for a, b in zip(outputs[:n], outputs[n : 2 * n]))

    def run_forward(p, u, states):
        found = written(forward, [*p, *u, *states], forward.outputs)
        return found[:k], found[k:]

    def run_backward(kept, states, cotangents):
        found = written(backward, [*kept, *states, *cotangents], outputs)
        return found[:n], found[n : 2 * n], found[2 * n :]

    return Arithmetic(name, n, k, s, run_forward, run_backward, shares)


def written(program, expressions, outputs) -> list:
    """Expressions of values of a program of pointwise nodes, None for None."""
    known = {id(v): e for v, e in zip(program.inputs, expressions)}
    for node in program.nodes:
        (y,) = node.outputs
        if node.op.name == "constant":
            value = node.params["value"]
            known[id(y)] = L.Const(float(value) if y.dtype.kind == "f" else value, y.dtype)
        elif node.op.kind == "movement":  # Of numbers: none moves.
            known[id(y)] = known[id(node.inputs[0])]
        else:
            known[id(y)] = node.op.emit(*(known[id(v)] for v in node.inputs), **node.params)
    return [None if v is None else known[id(v)] for v in outputs]
