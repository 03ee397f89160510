"""Program: a typed graph of primitive ops in single-assignment form.

A :class:`Program` has inputs, nodes in an order in which every node follows its operands, and
outputs. Shapes hold integers and symbolic sizes (``ir.dims``). ``docs/design/program.md`` is the
specification; :func:`verify` checks it, ``str(program)`` prints it.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager

from facula.base.dtypes import dtype
from facula.ir import dims
from facula.ir.dims import Guards

_active = threading.local()


class Value:
    """A tensor of a Program: what a node, or the outside, provides.

    ``weak`` marks a Python number given at each call: shape (), and in promotion only its
    category counts. The operators and methods of tensors are attached by ``ops.operators``.
    """

    __slots__ = ("dtype", "shape", "node", "index", "weak")

    def __init__(self, dtype: dtype, shape: tuple, node=None, index=0, weak=False):
        self.dtype, self.shape, self.node = dtype, tuple(shape), node
        self.index, self.weak = index, weak

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim=None):
        return self.shape if dim is None else self.shape[dim]


class Node:
    """One primitive applied to values. ``params`` are constants: numbers, sizes, tuples.

    ``call`` is the same for the nodes of one call of an op, in a trace of many.
    """

    __slots__ = ("op", "inputs", "params", "outputs", "call")

    def __init__(self, op, inputs, params, outputs):
        self.op, self.inputs, self.params = op, tuple(inputs), params
        self.outputs, self.call = outputs, None


class Program:
    """Inputs, nodes, outputs, and the guards under which it was traced."""

    def __init__(self, name: str = "program"):
        self.name = name
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.outputs: list[Value] = []
        self.guards = Guards()

    def input(self, dtype, shape, weak=False) -> Value:
        value = Value(dtype, shape, weak=weak)
        self.inputs.append(value)
        return value

    def apply(self, op, inputs, params, results) -> tuple[Value, ...]:
        """Append a node; ``results`` are the (dtype, shape) of its outputs."""
        node = Node(op, inputs, params, ())
        node.outputs = tuple(Value(d, s, node, i) for i, (d, s) in enumerate(results))
        self.nodes.append(node)
        return node.outputs

    def live(self) -> Program:
        """Remove the nodes that no output depends on; in place, returns self."""
        needed, keep = {id(v.node) for v in self.outputs if v.node}, []
        for node in reversed(self.nodes):
            if id(node) in needed:
                keep.append(node)
                needed.update(id(v.node) for v in node.inputs if v.node)
        self.nodes = keep[::-1]
        return self

    def __str__(self):
        return text(self)


@contextmanager
def building(program: Program | None):
    """Make ``program`` the one that primitives append to inside of the block (None: none)."""
    outer = getattr(_active, "program", None)
    _active.program = program
    try:
        yield program
    finally:
        _active.program = outer


def current() -> Program | None:
    """The program being built by this thread, if any."""
    return getattr(_active, "program", None)


def text(program: Program) -> str:
    """The program, one node a line."""
    names: dict[int, str] = {}

    def typed(v):
        return f"{v.dtype.name}[{', '.join(map(str, v.shape))}]"

    for i, v in enumerate(program.inputs):
        names[id(v)] = f"x{i}"
    head = ", ".join(
        f"x{i}: {'number ' if v.weak else ''}{typed(v)}" for i, v in enumerate(program.inputs)
    )
    lines = [f"program {program.name}({head})"]
    for node in program.nodes:
        for v in node.outputs:
            names[id(v)] = f"v{len(names) - len(program.inputs)}"
        left = ", ".join(f"{names[id(v)]}: {typed(v)}" for v in node.outputs)
        operands = [names[id(v)] for v in node.inputs]
        operands += [f"{k}={v}" for k, v in node.params.items()]
        lines.append(f"  {left} = {node.op.name}({', '.join(operands)})")
    lines.append(f"  return {', '.join(names[id(v)] for v in program.outputs)}")
    if program.guards:
        asked = (f"{a} {q} {b}: {answer}" for (q, a, b), answer in program.guards.items())
        lines.append(f"  guards {'; '.join(asked)}")
    return "\n".join(lines)


def verify(program: Program) -> None:
    """Check the order, the operands and the types of every node.

    Raises:
        AssertionError: with the offending node; always a bug of a pass.
    """
    known = {id(v) for v in program.inputs}
    with dims.guarding(None):  # sizes that the guards say are equal are equal
        for node in program.nodes:
            for v in node.inputs:
                assert id(v) in known, f"{node.op.name}: an operand is defined later or nowhere"
            results = node.op.infer(*node.inputs, **node.params)
            assert len(results) == len(node.outputs), f"{node.op.name}: number of outputs"
            for v, (d, s) in zip(node.outputs, results):
                assert v.dtype is d, f"{node.op.name}: dtype {v.dtype}, expected {d}"
                assert len(v.shape) == len(s), f"{node.op.name}: shape {v.shape}, expected {s}"
                known.add(id(v))
    for v in program.outputs:
        assert id(v) in known, "an output is defined nowhere"
