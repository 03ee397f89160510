"""Constants: what a captured Program computes of inputs that stay the same, cut out of it.

:func:`split` makes two Programs of one. The *part* computes, of *fixed* inputs alone (parameters
and buffers that the Program only reads), what the *rest* then takes as further inputs: whatever
was computed of them, and the weights of products in the order in which the product's kernel reads
them. Neither changes a bit of a result, so what was kept from one call may serve the next.

Left where they are: movements, which cost nothing once fused, and what depends on positions or on
the sizes of other inputs.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.compiler.unify import substitution_in
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.program import Node, Program, Value
from facula.kernels import tiles
from facula.ops.contraction import matmul_, matmul_ready_
from facula.ops.movement import pad_, permute_, reshape_
from facula.ops.promote import to

#: A weight of fewer elements, or for fewer columns, is as quickly read as it lies; for more rows
#: than this, packing it each time takes no time that could be measured: 16 rows gain 1.2 to 1.4,
#: 64 1.05, 1024 nothing. One row of a result waits for memory, whatever the order.
_LEAST, _NARROW, _MOST_ROWS = 4096, 16, 256


class Split(NamedTuple):
    """Two Programs: their inputs are those of the original; the rest has the part's outputs too."""

    part: Program
    rest: Program


def split(program: Program, fixed, vector_bytes: int, fits) -> Split | None:
    """Cut a Program in two, or None where nothing is gained.

    Args:
        fixed: numbers of the inputs that stay the same.
        vector_bytes: of the machine's vectors, on which the order of packed weights depends.
        fits: asked of each value that would be kept, whether there is memory for it.
    """
    with dims.guarding(program.guards):
        cut = _Cut(program, fixed, vector_bytes, fits)
        rest = cut.rest()
    return Split(cut.part.live(), rest) if cut.part.outputs else None


class _Cut:
    """Attributes: ``values``, id of a constant -> the part's value; ``worth``, ids of those that
    are computed; ``kept``, id of a value of the part -> the rest's input, or None if refused."""

    def __init__(self, program, fixed, vector_bytes, fits):
        self.program, self.vector_bytes, self.fits = program, vector_bytes, fits
        self.part, self.result = Program(program.name), Program(program.name)
        self.part.inputs, self.result.inputs = list(program.inputs), list(program.inputs)
        self.part.guards = self.result.guards = program.guards
        inputs = [program.inputs[i] for i in sorted(fixed)]
        sizes = [n for v in inputs for n in v.shape if isinstance(n, Dim)]
        self.known = {name for n in sizes for name in n.symbols}
        self.table = substitution_in(program.guards, self.known)
        self.values = {id(v): v for v in inputs}
        self.touched, self.worth, self.kept = {id(v) for v in inputs}, set(), {}
        self.panels: dict = {}
        for node in program.nodes:
            self._constant(node)

    def _constant(self, node):
        """Write a node into the part if it is a constant."""
        if not all(id(v) in self.values for v in node.inputs):
            return
        params = {k: dims.substitute(p, self.table, True) for k, p in node.params.items()}
        if not self._known(tuple(params.values())):
            return
        operands = [self.values[id(v)] for v in node.inputs]
        made = self.part.apply(node.op, operands, params, node.op.infer(*operands, **params))
        ids = {id(v) for v in node.outputs}
        touched = any(id(v) in self.touched for v in node.inputs)
        free = node.op.kind == "movement" or node.op.name in ("detach", "copy")
        if touched:
            self.touched |= ids
            if not free or any(id(v) in self.worth for v in node.inputs):
                self.worth |= ids
        for old, new in zip(node.outputs, made):
            new.weak = old.weak
            self.values[id(old)] = new

    def _known(self, x) -> bool:
        if isinstance(x, tuple):
            return all(map(self._known, x))
        return not isinstance(x, Dim) or self.known.issuperset(x.symbols)

    # The rest

    def rest(self) -> Program:
        """The Program without what is kept."""
        wanted: set = set()
        ready = {}  # id of a node -> what takes its place

        def want(v):
            if self._kept(v) is None:
                wanted.add(id(v))

        for v in self.program.outputs:
            want(v)
        for node in reversed(self.program.nodes):
            if any(id(v) in wanted for v in node.outputs):
                ready[id(node)] = self._ready(node) or (node.op, node.inputs, node.params)
                for v in ready[id(node)][1]:
                    want(v)
        result, seen = self.result, {}
        for node in self.program.nodes:
            if id(node) in ready:
                op, operands, params = ready[id(node)]
                copy = Node(op, [self._kept(v) or seen.get(id(v), v) for v in operands], params, ())
                copy.call, olds = node.call, node.outputs
                copy.outputs = tuple(Value(v.dtype, v.shape, copy, v.index, v.weak) for v in olds)
                result.nodes.append(copy)
                seen.update((id(v), new) for v, new in zip(olds, copy.outputs))
        outputs = self.program.outputs
        result.outputs = [self._kept(v) or seen.get(id(v), v) for v in outputs]
        return result.live()

    def _kept(self, v):
        """The input of the rest that takes the place of ``v``, if one does."""
        if id(v) in self.worth and v.node.op.kind != "movement":
            return self._keep(self.values[id(v)])
        return None

    def _keep(self, value):
        """The rest's input for a value of the part; None if there is no memory for it."""
        if id(value) not in self.kept:
            self.kept[id(value)] = None
            if self.fits(value):
                self.part.outputs.append(value)
                self.kept[id(value)] = self.result.input(value.dtype, value.shape)
        return self.kept[id(value)]

    # Products

    def _ready(self, node):
        """(op, operands, params) of a product by a constant that is packed once."""
        if node.op is not matmul_ or node.inputs[0].ndim != 3:
            return None
        a, b = node.inputs
        one, k, n = b.shape
        d = a.dtype
        small = dims.hint(k) * dims.hint(n) < _LEAST or dims.hint(n) < _NARROW
        gains = not small and dims.hint(a.shape[1]) <= _MOST_ROWS and d.is_floating_point
        known = id(b) in self.touched and id(a) not in self.values
        if not known or not dims.same(one, 1) or not gains:
            return None
        value = self.values[id(b)]
        if id(value) not in self.panels:
            with P.building(self.part):
                self.panels[id(value)] = self._packed(value, tiles.accumulator(d))
        panels = self._keep(self.panels[id(value)])
        return panels and (matmul_ready_, [a, panels], {"columns": n})

    def _packed(self, b, d):
        """``[panel, k, column]`` of ``[1, k, n]``."""
        _, k, n = b.shape
        width = tiles.shape_for(self.vector_bytes, d).width
        count = (n + (width - 1)) // width
        b = to(reshape_(b, shape=(k, n)), d)
        b = pad_(b, dim=1, before=0, after=count * width - n, between=0, value=0)
        return permute_(reshape_(b, shape=(k, count, width)), order=(1, 0, 2))
