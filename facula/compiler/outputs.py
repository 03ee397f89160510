"""Outputs: every output of a program gets memory of its own.

An output that is an input, or that another output already is, is copied; one that is written into
an input's memory is computed there directly only if nothing reads that input afterwards, and if
its kernel does without operands that are complete: if it is pointwise, or scatters into that input.
"""

from __future__ import annotations

from facula.compiler.views import below_reshapes
from facula.ir.program import Program
from facula.ops.pointwise import copy_


def is_onto(node, source) -> bool:
    """Whether a node's result is the input ``source``, changed in places."""
    return bool(node.op.info.get("onto")) and below_reshapes(node.inputs[0]) is source


def own_outputs(program: Program, into) -> Program:
    """The program with ``copy`` nodes where outputs would share memory. In place."""
    taken = {id(v) for v in program.inputs}
    for j, v in enumerate(program.outputs):
        base = below_reshapes(v)
        target = into[j] if j < len(into) else None
        plain = base.node is None or base.node.op.kind in ("movement", "source")
        elsewhere = plain or base is not v or base.node.op.kind == "opaque"
        if not plain and target is not None and is_onto(base.node, program.inputs[target]):
            elsewhere = False
        if id(base) in taken or plain or target is not None and elsewhere:
            (v,) = program.apply(copy_, (v,), {}, [(v.dtype, v.shape)])
            program.outputs[j] = base = v
        taken.add(id(base))
    return program
