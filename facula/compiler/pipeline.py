"""The compiler as a list of passes: a Program in, kernels and their bindings out."""

from __future__ import annotations

from facula.base import config
from facula.compiler import opaque
from facula.compiler.calls import Compiled, call
from facula.compiler.epilogue import Epilogue
from facula.compiler.expand import expand
from facula.compiler.fuse import Fusion
from facula.compiler.outputs import is_onto, own_outputs
from facula.compiler.schedule import Schedule
from facula.compiler.simplify import same_shape, simplify
from facula.compiler.unify import unify
from facula.compiler.views import Place, below_reshapes
from facula.ir import dims
from facula.ir.dims import Dim
from facula.ir.program import Program, verify
from facula.ops.movement import contiguous_strides


def compile_program(program: Program, layouts, into=()) -> Compiled:
    """Compile for the given input layouts (see ``tensor.engine``), for all sizes."""
    into = list(into) + [None] * (len(program.outputs) - len(into))
    with dims.guarding(dims.STRUCTURAL):
        for run in (unify, expand, simplify, lambda p: own_outputs(p, into)):
            program = run(program)
            if config.VERIFY:
                verify(program)
        return _Lowering(program, layouts, into).compiled()


class _Lowering:
    def __init__(self, program, layouts, into):
        self.program, self.into = program, into
        self.temps: list = []
        self.numbers = {id(v): i for i, v in enumerate(program.inputs) if v.weak}
        self.places = {
            id(v): Place("input", i, v.dtype, _strides(i, v.shape, layouts[i]))
            for i, v in enumerate(program.inputs)
            if layouts[i] is not None and layouts[i] != "shape"
        }
        written = [(v, program.inputs[i]) for v, i in zip(program.outputs, into) if i is not None]
        inplace = {id(r): x for v, x in written for r in (v, below_reshapes(v))}
        self.fusion = Fusion(program, self.places, inplace)
        self.copies: list = []
        self._place_outputs()
        self._place_temps()

    def _place_outputs(self):
        for j, v in enumerate(self.program.outputs):
            root = below_reshapes(v)
            root = root if id(root) in self.fusion.roots else v
            target = self.into[j]
            if target is None:
                place = Place("output", j, v.dtype, contiguous_strides(root.shape))
            else:
                source = self.program.inputs[target]
                place = self.places[id(source)]
                if not self._safe(root, source):
                    temp = self._temp(v)
                    self.copies.append((v, temp, place))
                    place = temp
                if root is not v:
                    place = Place(
                        *place.memory, v.dtype, contiguous_strides(root.shape), place.offset
                    )
            self.places[id(root)] = place
        self.fusion.sort()

    def _safe(self, root, source):
        """Whether ``root`` can be written over the input ``source``, other readers first."""
        group = self.fusion.group_of[id(root)]
        readers = [g for g in self.fusion.groups if id(source) in g.reads and g is not group]
        if group.opaque is not None:  # Scatters into it, or updates it.
            if root is group.roots[0] and not self._scatters(group.opaque, source):
                return False
            return self.fusion.order(readers, group)
        if any(r is root for r in group.reductions()):
            return False
        # Of a kernel that reduces, what is written after its only pass and read there alone.
        after = [] if group.reduced is None else group.reductions()
        for other in group.roots:
            early = group.reduced is not None and (group.holds_all(other) or other in after)
            for v, index_map in self.fusion.reads_of(other, group):
                if v is source and (early or not self.fusion.aligned(group, v, index_map)):
                    return False
                if other in after and self.fusion.group_of.get(id(v)) is group:
                    return False
        return self.fusion.order(readers, group)

    def _scatters(self, node, source):
        """Whether a node may scatter right into ``source``, which its other operands are not."""
        solid = same_shape(self.places[id(source)].strides, contiguous_strides(source.shape))
        others = map(self.fusion.memory_under, node.inputs[1:])
        return is_onto(node, source) and solid and all(v is not source for v in others)

    def _temp(self, v):
        return self._between(v.dtype, v.shape)

    def _place_temps(self):
        """Memory for roots that another kernel, or a later pass of their own, reads."""
        read_outside = set()
        for group in self.fusion.groups:
            read_outside |= {
                key for key in group.reads if self.fusion.group_of.get(key) is not group
            }
        for group in self.fusion.groups:
            for root in group.roots:
                if group.opaque is not None:
                    # Results that only backward wants are not written unless it comes.
                    inside = group.opaque.op.info.get("spare", False)
                    # A product that its epilogue alone reads stays in registers.
                    if group.epilogue is not None and not group.opaque.op.info.get("onto"):
                        inside = inside or root is group.roots[0]
                else:
                    inside = not group.holds_all(root)
                if id(root) not in self.places and (id(root) in read_outside or not inside):
                    self.places[id(root)] = self._temp(root)

    def compiled(self) -> Compiled:
        calls = []
        for number, group in enumerate(self.fusion.groups):
            for made in self._calls_of(group):
                made.group = number
                calls.append(made)
        for root, temp, place in self.copies:
            calls.append(opaque.copy(root, temp, place))
        outputs = [(v.dtype, v.shape) for v in self.program.outputs]
        return Compiled(calls, self.temps, outputs, self.program, self.fusion.groups)

    def _calls_of(self, group):
        if group.opaque is not None:
            if group.epilogue is not None:
                name = _name(group.epilogue)
                epilogue = Epilogue(group, self.fusion, self.places, self.numbers, name)
                return opaque.lower_product(group.opaque, self.places, epilogue, self._between)
            return opaque.lower(group.opaque, self.places, self._between)
        schedule = Schedule(group, self.fusion, self.places, self.numbers, _name(group))
        kernel = schedule.kernel()
        return [call(kernel, schedule.scope.bindings, schedule.scope.checks)]

    def _between(self, dtype, shape):
        """Memory between the kernels of one node."""
        self.temps.append((dtype, dims.product(shape)))
        return Place("temp", len(self.temps) - 1, dtype, contiguous_strides(shape))


def _strides(i, shape, layout):
    if layout == "C":
        return contiguous_strides(shape)
    return tuple(
        s if s in (0, 1) and not isinstance(s, str) else Dim.symbol(f"t{i}d{d}", 7919 + d)
        for d, s in enumerate(layout)
    )


def _name(group):
    """What the kernel computes, for people: the ops of its roots and what lies between."""
    names, seen = [], set()

    def walk(v, depth):
        if v.node is None or id(v) in seen or depth > 6:
            return
        seen.add(id(v))
        if v.node.op.kind in ("pointwise", "reduce") and v.node.op.name not in ("cast", "copy"):
            names.append(v.node.op.name.removeprefix("reduce_"))
        for x in v.node.inputs:
            if id(x) not in group.reads:
                walk(x, depth + 1)

    for root in group.roots:
        walk(root, 0)
    return "_".join(dict.fromkeys(reversed(names[:8]))) or "copy"
