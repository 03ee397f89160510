"""Fuse: which values get memory ("roots"), and which roots are computed by one kernel.

A group's kernel loops over one *full* shape. Its roots are pointwise values of that shape,
reductions of it over one set of dimensions, and pointwise values of the kept dimensions. So a
softmax, a normalisation or a loss with everything pointwise around it is one group: one pass over
memory per level of reduction. Nodes of kind "opaque" form groups of their own.
"""

from __future__ import annotations

from facula.compiler.combine import lanes_of
from facula.compiler.epilogue import attach, taken
from facula.compiler.simplify import same_shape
from facula.compiler.views import (
    ZERO,
    Place,
    below_reshapes,
    below_views,
    is_one,
    only_ones_move,
    operand_maps,
    resolve,
)
from facula.ops.movement import contiguous_strides
from facula.ops.promote import is_zero

#: A fused kernel reads and writes at most this many buffers; more would spill their addresses.
MOST_BUFFERS = 24
#: Pointwise values used by several kernels are stored rather than recomputed from this cost on.
DEAR = 12
#: Of so many nodes, one upon the other, the last is stored: the passes go down them by recursion.
DEEPEST = 200
#: Those computed from so many memories of their own size are stored as well.
MANY_READS = 3
_COST = {
    "exp": 4,
    "log": 5,
    "tanh": 6,
    "erf": 6,
    "sigmoid": 5,
    "sin": 6,
    "cos": 6,
    "pow": 16,
    "div": 2,
    "sqrt": 2,
    "random_bits": 20,
    "lgamma": 20,
    "digamma": 20,
}


class Group:
    """Roots computed by one kernel."""

    def __init__(self, bit, full, reduced, opaque=None):
        self.bit, self.after = bit, 0  # its own bit; those of the groups it needs, transitively
        self.full, self.reduced, self.opaque = full, reduced, opaque
        self.roots: list = []
        self.reads: dict = {}  # id -> value: roots of other groups, and inputs
        self.epilogue = None  # the group that a product computes at its last store

    @property
    def kept(self):
        return [d for d in range(len(self.full)) if d not in (self.reduced or ())]

    def holds_all(self, v) -> bool:
        """Whether ``v`` has an element for each of the full shape (or else of the kept one)."""
        return same_shape(v.shape, self.full) and (v.node is None or v.node.op.kind != "reduce")

    def reductions(self):
        return [r for r in self.roots if r.node.op.kind == "reduce"]

    def map_of(self, v) -> tuple:
        """The index map of a value of the full shape, or (sizes of 1 aside) of the kept one."""
        if self.holds_all(v):
            return _identity(self.full)
        rest = iter(d for d in self.kept if not is_one(self.full[d]))
        return tuple(ZERO if is_one(n) else next(rest, None) for n in v.shape)


class Fusion:
    """The groups of a program, in an order of execution.

    Args:
        places: where the inputs lie, by id of the value.
        inplace: the inputs that values are written over, by id of the value.
    """

    def __init__(self, program, places, inplace=None):
        self.program, self.places, self.inplace = program, places, inplace or {}
        self.groups: list[Group] = []
        self.group_of: dict[int, Group] = {}
        self.roots: dict[int, object] = {}
        self.inputs = {id(v) for v in program.inputs}
        self._reads: dict[tuple, list] = {}
        self._choose_roots()
        for node in program.nodes:
            if node.op.kind == "opaque":
                self._opaque(node)
            for v in node.outputs:
                if id(v) in self.roots and node.op.kind != "opaque":
                    self._place(v)
        attach(self)
        self.sort()

    def sort(self):
        """Put the groups in an order of execution."""
        self.groups = _ordered(self.groups)

    def order(self, groups, last) -> bool:
        """Let ``last`` be executed after ``groups``; False if one of them needs it."""
        if any(last.bit & group.after for group in groups):
            return False
        for group in groups:
            last.after |= group.bit | group.after
        self._spread(last)
        return True

    def between(self, first, last) -> bool:
        """Whether a group that ``last`` needs needs ``first``."""
        return any(g.bit & last.after and first.bit & g.after for g in self.groups)

    def _spread(self, group):
        """Let those who need a group need what it needs."""
        for other in self.groups:
            if group.bit & other.after:
                other.after |= group.after

    # Roots

    def _choose_roots(self):
        program = self.program
        for v in program.outputs:
            self._materialise_output(v)
        for node in reversed(program.nodes):
            kind = node.op.kind
            if kind == "opaque":
                for v in node.outputs:
                    self.roots[id(v)] = v
                for i, v in enumerate(node.inputs):
                    if i or not (node.op.info.get("onto") and is_zero(v)):
                        self._materialise(v)
            elif kind == "gather":
                # Few elements are taken: pointwise ones are computed where they are.
                x = node.inputs[0]
                if x.node is None or x.node.op.kind != "pointwise":
                    self._materialise(x)
            elif kind == "reduce":
                self.roots[id(node.outputs[0])] = node.outputs[0]
            elif node.op.name == "windows":
                self._materialise_below(node.inputs[0])
            elif node.op.name == "reshape":
                x = node.inputs[0]
                if not only_ones_move(x.shape, node.outputs[0].shape):
                    self._materialise(x)
        self._dear_values()

    def _materialise_output(self, v):
        r = below_reshapes(v)
        if r.node is not None and r.node.op.kind in ("pointwise", "reduce", "gather", "opaque"):
            self.roots[id(r)] = r
        else:
            self.roots[id(v)] = v

    def _materialise(self, v):
        """Make sure that ``v`` has memory, or is a view of what has."""
        r = below_views(v)
        if r.node is not None and r.node.op.kind in ("source",):
            self.roots[id(v)] = v
            return
        if id(r) not in self.inputs or r.weak:
            self.roots[id(r)] = r
        if not self._is_view(v, r):
            # A chain that ends in a reshape of rows that are not side by side: it takes a copy.
            self.roots[id(v)] = v

    def _is_view(self, v, r):
        """Whether ``v``, a chain of movements of ``r``, is the memory of ``r`` seen in strides."""
        place = self.places.get(id(r)) or Place("temp", 0, r.dtype, contiguous_strides(r.shape))
        return resolve(v, {id(r): place}) is not None

    def _materialise_below(self, v):
        while v.node is not None and v.node.op.kind == "movement":
            v = v.node.inputs[0]
        if v.node is not None and v.node.op.kind != "source":
            self.roots[id(v)] = v

    def _dear_values(self):
        """Store values that would be dear to compute once a kernel, or read much to compute.

        A sum that grows from layer to layer would otherwise be summed up in each of them anew.
        """
        cost: dict[int, int] = {}
        depth: dict[int, int] = {}
        reads: dict[int, set] = {}  # the memories, as large as the value, that it is computed from
        uses = self._uses()
        for node in self.program.nodes:
            kind = node.op.kind
            own = _COST.get(node.op.name, 1) if kind == "pointwise" else 0
            total = own + sum(cost.get(id(v), 0) for v in node.inputs)
            read = set()
            if kind in ("pointwise", "movement") and node.op.name != "expand":
                for v in node.inputs:
                    read |= {id(v)} if self._is_read(v) else reads.get(id(v), set())
            for v in node.outputs:
                dear = kind == "pointwise" and (total >= DEAR or len(read) >= MANY_READS)
                deep = 1 + max((depth[id(x)] for x in node.inputs if id(x) in depth), default=0)
                deep = deep if kind in ("pointwise", "movement") else 0
                if id(v) not in self.roots and (
                    dear and _apart(uses[id(v)]) or kind == "pointwise" and deep >= DEEPEST
                ):
                    self.roots[id(v)] = v
                depth[id(v)] = 0 if id(v) in self.roots else deep
                cost[id(v)] = 0 if id(v) in self.roots else total
                reads[id(v)] = read

    def _is_read(self, v):
        return id(v) in self.roots or id(v) in self.inputs or v.node.op.kind == "gather"

    def _uses(self) -> dict[int, set]:
        """For each value, the kernels that need it: (stage, shape, reduced dimensions).

        Kernels written by hand divide a program into stages. A value that has no memory is needed
        wherever the values are that are computed from it.
        """
        stage: dict[int, int] = {}
        for node in self.program.nodes:
            own = max((stage.get(id(v), 0) for v in node.inputs), default=0)
            own += node.op.kind == "opaque"
            stage.update((id(v), own) for v in node.outputs)
        uses: dict[int, set] = {}
        for node in reversed(self.program.nodes):
            places = set()
            for v in node.outputs:
                if id(v) in self.roots:
                    reduces = node.op.kind == "reduce"
                    shape = node.inputs[0].shape if reduces else v.shape
                    dims = node.params["dims"] if reduces else None
                    places.add((stage[id(v)], shape, dims))
                else:
                    places |= uses.setdefault(id(v), set())
            for v in node.inputs:
                uses.setdefault(id(v), set()).update(places)
        return uses

    # Groups

    def _opaque(self, node):
        group = Group(1 << len(self.groups), (), None, node)
        group.roots = list(node.outputs)
        for v in node.inputs:
            under = self.memory_under(v)
            if id(under) in self.roots or id(under) in self.inputs:
                self._depend(group, under)
        self.groups.append(group)
        for v in node.outputs:
            self.group_of[id(v)] = group

    def memory_under(self, v):
        while id(v) not in self.roots and id(v) not in self.inputs and v.node.op.kind == "movement":
            v = v.node.inputs[0]
        return v

    def _depend(self, group, v):
        group.reads[id(v)] = v
        other = self.group_of.get(id(v))
        if other is not None and other is not group:
            group.after |= other.bit | other.after

    def _place(self, root):
        node = root.node
        is_reduction = node.op.kind == "reduce"
        full = node.inputs[0].shape if is_reduction else root.shape
        reduced = node.params["dims"] if is_reduction else None
        for group in reversed(self.groups):
            reads = self._joins(group, root, full, reduced)
            if reads is not None:
                break
        else:
            group = Group(1 << len(self.groups), full, reduced)
            self.groups.append(group)
            reads = self.reads_of(root, group)
        if is_reduction:
            group.reduced = reduced
        group.roots.append(root)
        self.group_of[id(root)] = group
        for v, _ in reads:
            if self.group_of.get(id(v)) is not group:
                self._depend(group, v)
        self._spread(group)

    def reads_of(self, root, group):
        """The memory that a root reads, as (value, index map)."""
        reduces = root.node.op.kind == "reduce"
        own = _identity(root.node.inputs[0].shape) if reduces else group.map_of(root)
        found = self._reads.get((id(root), own))
        if found is not None:
            return found
        found, seen = self._reads.setdefault((id(root), own), []), set()

        def walk(v, index_map):
            if (id(v), index_map) in seen:
                return
            seen.add((id(v), index_map))
            if id(v) in self.roots or id(v) in self.inputs:
                found.append((v, index_map))
            elif v.node is not None:
                for operand, m in zip(v.node.inputs, operand_maps(v.node, index_map)):
                    walk(operand, m)

        maps = [own] if reduces else operand_maps(root.node, own)
        for operand, m in zip(root.node.inputs, maps):
            walk(operand, m)
        return found

    def _joins(self, group, root, full, reduced):
        """What ``root`` reads, if it can be computed in ``group``'s kernel; else None."""
        if group.opaque is not None or not group.full:
            return None
        if reduced is not None:
            if not same_shape(full, group.full) or group.reduced not in (None, reduced):
                return None
            if group.reduced is None and taken(self, group):
                return None  # What it sums up is written in a product's time, not read twice.
            lanes = {lanes_of(r) for r in (root, *group.roots) if r.node.op.kind == "reduce"}
            if len(lanes - {None}) > 1:
                return None
        elif not same_shape(full, group.full):
            kept = [group.full[d] for d in group.kept]
            if group.reduced is None or not only_ones_move(root.shape, kept):
                return None
        reads = self.reads_of(root, group)
        related = False
        for v, index_map in reads:
            other = self.group_of.get(id(v))
            if other is group:
                if not self.aligned(group, v, index_map):
                    return None
                related = True
            elif other is not None and group.bit & other.after:
                return None
            elif id(v) in group.reads:
                related = True
        if not related or len(group.reads) + len(group.roots) + len(reads) > MOST_BUFFERS:
            return None
        return reads

    def aligned(self, group, v, index_map):
        """Whether reading ``v`` there touches what the same iteration has written."""
        return index_map == group.map_of(v)


def _identity(shape):
    return tuple(ZERO if is_one(n) else d for d, n in enumerate(shape))


def _apart(uses) -> bool:
    """Whether uses surely belong to several kernels."""
    return len({use[:2] for use in uses}) > 1 or len({use[2] for use in uses} - {None}) > 1


def _ordered(groups):
    """Groups so that each follows those it depends on; otherwise in their present order."""
    result, done = [], set()

    def visit(group):
        if id(group) in done:
            return
        done.add(id(group))
        for other in groups:
            if other.bit & group.after:
                visit(other)
        result.append(group)

    for group in groups:
        visit(group)
    return result
