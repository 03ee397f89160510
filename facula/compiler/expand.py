"""Expand: composite primitives become their bodies; arg-reductions become two reductions.

A composite primitive (``kind == "composite"``) exists to carry a gradient of its own through
differentiation; for the compiler it is nothing but the ordinary ops it stands for.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.ir import program as P
from facula.ir.program import Program, Value
from facula.ops.movement import reshape_
from facula.ops.promote import expand_to, to
from facula.ops.random import positions
from facula.ops.reduce import max_, min_, spread
from facula.ops.registry import F

FAR = (1 << 62) - 1


def expand(program: Program) -> Program:
    """A program without composites."""
    result = Program(program.name)
    result.inputs = list(program.inputs)
    seen: dict[int, Value] = {}
    with P.building(result):
        for node in program.nodes:
            operands = tuple(seen.get(id(v), v) for v in node.inputs)
            body = _body(node.op)
            if body is None:
                outputs = result.apply(
                    node.op, operands, node.params, [(v.dtype, v.shape) for v in node.outputs]
                )
            else:
                outputs = body(*operands, **node.params)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            for old, new in zip(node.outputs, outputs):
                seen[id(old)] = new
                new.weak = new.weak or old.weak
    result.outputs = [seen.get(id(v), v) for v in program.outputs]
    if any(_body(node.op) is not None for node in result.nodes):
        return expand(result)
    return result


def _body(op):
    if op.kind == "composite":
        return op.info["body"]
    return _ARG.get(op.name)


def _arg_extremum(primitive):
    """Index of the first extremum: the least index at which the extremum (or a NaN) stands."""

    def body(x, *, dims):
        (dim,) = dims
        extremum = spread(primitive(x, dims=dims), x.shape, dims)
        hit = x.eq(extremum)
        if x.dtype.is_floating_point:
            hit = hit | x.ne(x)
        ones = tuple(x.shape[dim] if d == dim else 1 for d in range(x.ndim))
        index = positions(shape=(x.shape[dim],))
        index = expand_to(reshape_(index, shape=ones), x.shape)
        return min_(F.where(hit, index, expand_to(to(FAR, D.int64), x.shape)), dims=dims)

    return body


_ARG = {"argmax": _arg_extremum(max_), "argmin": _arg_extremum(min_)}
