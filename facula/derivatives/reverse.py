"""Reverse-mode differentiation of Programs.

:func:`reverse` appends, to the program being built, the nodes that compute cotangents.
:func:`derive` makes of a forward Program its backward Program, and decides what the forward has
to keep for it: inputs and outputs are kept by reference, results of reductions and hand-written
kernels are kept as additional ("hidden") outputs, everything pointwise in between is recomputed,
because a fused kernel computes it for less than a pass over memory costs.
"""

from __future__ import annotations

from facula.base.errors import AutogradError, fail
from facula.ir import program as P
from facula.ir.program import Program, Value
from facula.ops.promote import expand_to, to
from facula.ops.registry import F

_RECOMPUTED = ("pointwise", "movement", "source")


def reverse(outputs, cotangents, wrt, nodes=None) -> list[Value | None]:
    """Cotangents of the values ``wrt``, given those of ``outputs`` (None: no contribution).

    Works inside of ``building(program)``: nodes are appended to that program. ``nodes`` are those
    that lead from ``wrt`` to ``outputs``; all of the program's where left out. What the nodes of
    one call contribute is summed before it is added to what others did, as the tape does it.
    """
    nodes = list(P.current().nodes if nodes is None else nodes)
    reach = _depends_on(nodes, wrt)
    found: dict[int, Value] = {}
    within: dict[int, Value] = {}  # what the call in progress has contributed so far

    def add(key, g, sums):
        have = sums.get(key)
        sums[key] = g if have is None else F.add(have, g)

    def own(key):
        if key in within:
            add(key, within.pop(key), found)
        return found.get(key)

    for y, g in zip(outputs, cotangents):
        if g is not None and id(y) in reach:
            add(id(y), g, found)
    call = None
    for node in reversed(nodes):
        if node.call is not call:
            for key in list(within):
                own(key)
            call = node.call
        gs = [own(id(v)) for v in node.outputs]
        if all(g is None for g in gs) or not any(id(v) in reach for v in node.inputs):
            continue
        for v, g in zip(node.inputs, _cotangents(node, gs)):
            if g is not None and id(v) in reach and v.dtype.is_floating_point:
                add(id(v), g, found if call is None else within)
    for key in list(within):
        own(key)
    return [found.get(id(v)) for v in wrt]


def pull(function, operands, cotangents) -> list[Value | None]:
    """Cotangents of the operands of a function, given those of its results."""
    since = len(P.current().nodes)
    outputs = list(function(*operands))
    return reverse(outputs, cotangents, operands, P.current().nodes[since:])


def _depends_on(nodes, wrt):
    """Ids of all values that depend on one of ``wrt`` in a differentiable dtype."""
    reach = {id(v) for v in wrt if v.dtype.is_floating_point}
    for node in nodes:
        if any(id(v) in reach for v in node.inputs):
            reach.update(id(v) for v in node.outputs if v.dtype.is_floating_point)
    return reach


def _cotangents(node, gs):
    op, found = node.op, None
    if len(node.outputs) > 1:
        gs = tuple(zeros_like(v) if g is None else g for g, v in zip(gs, node.outputs))
    if op.gradient is not None:
        one = len(node.outputs) == 1
        g, y = (gs[0], node.outputs[0]) if one else (gs, node.outputs)
        found = op.gradient(g, y, *node.inputs, **node.params)
    if found is None and op.info.get("pulled"):
        # A gradient that differentiates ordinary ops itself.
        found = op.info["pulled"](pull, gs, node.outputs, *node.inputs, **node.params)
    if found is None:
        fail(
            AutogradError,
            op.name,
            "the derivative is not implemented",
            "compute this part under no_grad or with detach()",
        )
    return found


def zeros_like(v: Value) -> Value:
    """Zeros of the shape and dtype of a value."""
    return expand_to(to(0, v.dtype), v.shape)


class Derivative:
    """A backward Program and where each of its inputs comes from.

    Attributes:
        program: its outputs are the cotangents of ``wrt`` (those in ``defined``).
        sources: one per input: ("input", i, with_data), ("output", j), ("cotangent", j).
            Every forward input is there, so that all symbols of sizes are known; those without
            data only give their shape. Hidden results count as outputs after the real ones.
        defined: which of ``wrt`` have a cotangent at all.
    """

    __slots__ = ("program", "sources", "wrt", "defined")

    def __init__(self, program, sources, wrt, defined):
        self.program, self.sources, self.wrt, self.defined = program, sources, wrt, defined


def derive(forward: Program, wrt: tuple[int, ...], given: tuple[int, ...], keep_hidden: bool):
    """The derivative of ``forward`` for its inputs ``wrt``, given cotangents of outputs ``given``.

    With ``keep_hidden`` results worth keeping are appended to ``forward.outputs``; without, the
    backward Program recomputes what it cannot find among the forward's inputs and outputs.
    """
    back = Program(forward.name + "_backward")
    back.guards = forward.guards
    cotangents = {j: Value(forward.outputs[j].dtype, forward.outputs[j].shape) for j in given}
    with P.building(back):
        again = _with_cheap_values(back, forward)
        grads = reverse(
            [forward.outputs[j] for j in given],
            [cotangents[j] for j in given],
            [forward.inputs[i] for i in wrt],
            forward.nodes,
        )
    defined = tuple(i for i, g in zip(wrt, grads) if g is not None)
    back.outputs = [g for g in grads if g is not None]
    kept = _kept_values(forward, back, keep_hidden, again)
    sources, inputs = _sources(forward, kept, cotangents)
    _replace(back, again | kept)
    back.inputs = inputs
    back.live()
    used = {id(v) for node in back.nodes for v in node.inputs} | {id(v) for v in back.outputs}
    sources = [
        ("input", s[1], s[2] and id(v) in used) if s[0] == "input" else s
        for s, v in zip(sources, inputs)
    ]
    # Cotangents stay where they are not needed: callers give one for every output in ``given``.
    pruned = [(s, v) for s, v in zip(sources, inputs) if s[0] != "output" or id(v) in used]
    back.inputs = [v for _, v in pruned]
    return Derivative(back, [s for s, _ in pruned], wrt, defined)


def _with_cheap_values(back, forward):
    """The forward's nodes, and next to them how to compute values again; these by the others' id.

    A normalised value follows from its operand and the kept statistics: it is not kept itself.
    """
    again, given = {}, set(map(id, forward.outputs))
    for node in forward.nodes:
        back.nodes.append(node)
        first, *others = node.outputs
        if "again" in node.op.info and id(first) not in given:
            again[id(first)] = node.op.info["again"](*node.inputs, *others, **node.params)
    return again


def _kept_values(forward, back, keep_hidden, again):
    """Forward values the backward needs: id -> (value, output index)."""
    own = {id(node) for node in forward.nodes}
    outputs = {id(v): j for j, v in enumerate(forward.outputs)}
    inputs = {id(v) for v in forward.inputs}
    kept, seen = {}, set()

    def visit(v, from_backward):
        v = again.get(id(v), v)
        if id(v) in inputs or v.node is None or (id(v), from_backward) in seen:
            return
        seen.add((id(v), from_backward))
        if id(v) in outputs:
            kept[id(v)] = (v, outputs[id(v)])
            return
        is_forward = id(v.node) in own
        if is_forward and keep_hidden and v.node.op.kind not in _RECOMPUTED:
            outputs[id(v)] = len(forward.outputs)
            forward.outputs.append(v)
            kept[id(v)] = (v, outputs[id(v)])
            return
        for operand in v.node.inputs:
            visit(operand, from_backward and not is_forward)

    for g in back.outputs:
        visit(g, True)
    return kept


def _sources(forward, kept, cotangents):
    sources, inputs = [], []
    for i, v in enumerate(forward.inputs):
        sources.append(("input", i, True))
        inputs.append(v)
    for v, j in kept.values():
        sources.append(("output", j))
        inputs.append(Value(v.dtype, v.shape))
    for j, v in cotangents.items():
        sources.append(("cotangent", j))
        inputs.append(v)
    fresh = {id(old): new for (old, _), new in zip(kept.values(), inputs[len(forward.inputs) :])}
    for key in kept:
        kept[key] = fresh[key]
    return sources, inputs


def _replace(back, kept):
    """Make the nodes read kept values from the backward's inputs.

    Nodes are copied, since the forward Program shares them.
    """
    mapping = dict(kept)
    nodes = []

    def now(v):
        v = mapping.get(id(v), v)  # What is computed again may have been copied in turn.
        return mapping.get(id(v), v)

    for node in back.nodes:
        operands = tuple(map(now, node.inputs))
        if all(a is b for a, b in zip(operands, node.inputs)):
            nodes.append(node)
            continue
        copy = P.Node(node.op, operands, node.params, ())
        copy.outputs = tuple(Value(v.dtype, v.shape, copy, v.index, v.weak) for v in node.outputs)
        for old, new in zip(node.outputs, copy.outputs):
            if id(old) not in kept:
                mapping[id(old)] = new
        nodes.append(copy)
    back.nodes = nodes
    back.outputs = [now(v) for v in back.outputs]
