"""Epilogue: a pointwise group that the product it reads, of matrices or a convolution, computes.

It is computed at the product's last store, of results rounded as they would be stored, in a
register's time instead of a pass over memory; what it gives are the same bits. The product itself
is stored only if others read it. A group qualifies if it reads each element of the product where
it computes that element: through pointwise nodes and reshapes alone.

What is added into zeros by an index, as the gradient of an embedding, takes a group over that is
an *update*: ``x - t`` (or ``x + t``) over an input x, where t is a function of the sum's element
and of numbers alone. Where t is 0 (of the sign that makes a difference to no x) for a sum of 0,
which is asked when the kernel runs, rows that the index does not name stay as they are.
"""

from __future__ import annotations

import pickle

from facula.base import dtypes as D
from facula.compiler.evaluate import Scope
from facula.compiler.schedule import Run, Schedule
from facula.compiler.views import Place, is_one, reshape_groups
from facula.ir import dims
from facula.ir import loops as L
from facula.ops.movement import contiguous_strides
from facula.ops.promote import is_zero

#: Products with an epilogue read and write at most this many buffers besides their own.
_MOST_BUFFERS = 16


def taken(fusion, group) -> bool:
    """Whether a product is going to compute a group, as far as its roots are known."""
    products = [fusion.group_of.get(key) for key in group.reads]
    return any(
        p is not None and p.opaque is not None and len(p.roots) == 1 and _takes(p.opaque)
        and p.opaque.op.name != "index_add" and _fits(fusion, p, group, p.roots[0])
        for p in products
    )  # fmt: skip


def attach(fusion) -> None:
    """Let products take over groups."""
    for product in [g for g in fusion.groups if g.opaque is not None and _takes(g.opaque)]:
        (c,) = product.roots
        fits = _updates if c.node.op.name == "index_add" else _fits
        for group in fusion.groups:
            if id(c) in group.reads and fits(fusion, product, group, c):
                _join(fusion, product, group)
                break


def _fits(fusion, product, group, c) -> bool:
    if group.opaque is not None or group.reduced is not None or not group.full:
        return False
    if len(group.reads) + len(group.roots) > _MOST_BUFFERS:
        return False
    if any(id(r) in fusion.inplace or not group.holds_all(r) for r in group.roots):
        return False
    if fusion.between(product, group):
        return False
    sizes = _sizes(c)
    if not _columns_stay(reshape_groups(sizes, group.full), len(sizes) - 1):
        return False
    return all(_follows(fusion, root, c) for root in group.roots)


def _updates(fusion, product, group, c) -> bool:
    """Whether a group is an update of an input by ``c``."""
    if len(group.roots) != 1 or fusion.between(product, group):
        return False
    (root,) = group.roots
    if root.node.op.name not in ("sub", "add") or not root.dtype.is_floating_point:
        return False
    x, t = root.node.inputs
    if x is not fusion.inplace.get(id(root)) or id(x) in product.reads:
        return False

    def depends(v):
        """Whether ``v`` is a function of ``c``'s element and of numbers alone."""
        if v is c or v.weak or v.node is not None and v.node.op.name == "constant":
            return True
        if v.node is None or id(v) in fusion.roots:
            return False
        number = v.node.op.name == "expand" and not v.node.inputs[0].ndim
        return (number or v.node.op.kind == "pointwise") and all(map(depends, v.node.inputs))

    return depends(t)


def _takes(node) -> bool:
    """Whether a node's kernel computes an epilogue."""
    if node.op.name == "index_add":
        return node.params["dim"] == 0 and is_zero(node.inputs[0])
    if node.op.name == "conv_input":  # One kernel alone: none for each remainder by a stride.
        return all(s == 1 for s in node.params["stride"])
    return node.op.name in ("matmul", "conv")


def _sizes(c):
    """A product's own dimensions: batch, rows and columns; or image, channel and three of space;
    or rows and columns of what is added up."""
    if c.node.op.name == "index_add":
        return c.shape[0], dims.product(c.shape[1:])
    if c.node.op.name == "matmul":
        *batch, m, n = c.shape
        return dims.product(batch), m, n
    n, o, *space = c.shape
    return n, o, *(1,) * (3 - len(space)), *space


def _columns_stay(pairs, last) -> bool:
    """Whether a product's columns run along one dimension."""
    return all(last not in ours or len(theirs) == 1 for ours, theirs in pairs)


def _follows(fusion, root, c) -> bool:
    """Whether ``root`` reads of ``c`` nothing but its own element, and gathers nothing."""
    seen: dict = {}

    def walk(v, straight):
        """Whether all is well below ``v``, which ``straight`` pointwise nodes and reshapes use."""
        if v is c:
            return straight
        if v.node is None or v is not root and id(v) in fusion.roots or id(v) in fusion.inputs:
            return True
        key = id(v), straight
        if key not in seen:
            kind, name = v.node.op.kind, v.node.op.name
            on = straight and (kind == "pointwise" or name == "reshape")
            seen[key] = kind != "gather" and all(walk(x, on) for x in v.node.inputs)
        return seen[key]

    return walk(root, True)


def _join(fusion, product, group) -> None:
    product.epilogue = group
    product.roots += group.roots
    product.reads.update(
        (k, v) for k, v in group.reads.items() if fusion.group_of.get(k) is not product
    )
    product.after = (product.after | group.after) & ~product.bit
    fusion.groups.remove(group)
    for root in group.roots:
        fusion.group_of[id(root)] = product
    for other in fusion.groups:
        if (group.bit | product.bit) & other.after:
            other.after = other.after & ~group.bit | product.bit | product.after


class Epilogue:
    """What a product's kernel is given: called with its builder, it adds parameters and gives the
    function from an element's sum and indices to the value that is stored.

    Attributes:
        name: what it does, for the kernel's name.
        target: the place of what the product's kernel stores itself, of the product's shape.
        reads, writes: places of what else is read and written.
        key: kernels with epilogues of the same key are the same, whatever they are bound to.
    """

    def __init__(self, product, fusion, places, numbers, name):
        self.name = name
        group, self.c = product.epilogue, product.roots[0]
        self.roots, self.full, self.numbers = group.roots, group.full, numbers
        self.places = places
        place = places.get(id(self.c))
        self.main = self.c if place is not None else self.roots[0]
        own = places[id(self.main)]
        strides = contiguous_strides(self.c.shape)
        self.target = Place(own.kind, own.number, own.dtype, strides, own.offset)
        seen = {id(self.c): Place("temp", -1, self.c.dtype, strides), **places}
        self.sizes = _sizes(self.c)
        self.runs = Schedule(group, fusion, seen, numbers, "").runs
        self.pairs = self._pairs()
        if not _columns_stay(self.pairs, len(self.sizes) - 1):
            self.runs = [Run([d], n, False) for d, n in enumerate(self.full) if not is_one(n)]
            self.pairs = self._pairs()
        self.joined = self._join_pixels()
        self._try()

    def _join_pixels(self) -> bool:
        """Whether all pixels of a convolution's channel run along one dimension: then its kernel
        may take them as one row, whose number is the last index."""
        space = range(2, len(self.sizes))
        rows = {d for d in space if not is_one(self.sizes[d])}
        for ours, theirs in self.pairs:
            if rows and rows <= set(ours):
                ours[:] = [*(d for d in ours if d < 2), *space]
                return len(theirs) == 1
        return not rows

    def _pairs(self):
        return reshape_groups(self.sizes, [run.size for run in self.runs])

    def _try(self):
        """Write it once by itself: which parameters does it have, what are they bound to?"""
        k = L.Builder("none")
        finish, index = self(k), [L.Var(f"i{d}", L.int64) for d in range(len(self.sizes))]
        with k.block() as body:
            value = finish(L.Var("sum", self.c.dtype), *index)
            value = value, self.c.node.op.name == "index_add" and self.still()
        self.key = pickle.dumps((k.params, body, value, self.target.dtype, self.name), 5)
        self.bindings = self.scope.bindings
        names = {p.name: p.access for p in k.params if isinstance(p, L.Buffer)}
        memory = {name: b[1:3] for name, b in self.bindings.items() if b[0] == "memory"}
        self.reads = {where for name, where in memory.items() if "r" in names[name]}
        self.writes = {where for name, where in memory.items() if "w" in names[name]}

    def __call__(self, k):
        scope = self.scope = Scope(k.name, self.places, self.numbers)
        scope.k = k
        scope.pending = set(map(id, self.roots))

        def finish(value, *index):
            scope.known.clear()
            with scope.fresh_values():
                scope.known[id(self.c)] = k.let(L.cast(value, self.c.dtype), "v")
                at = self._position(scope, index)
                for root in self.roots:
                    scope.known[id(root)] = scope.element(root, at)
                    if root is not self.main:
                        scope.store(self.places[id(root)], at, scope.known[id(root)])
                return scope.known[id(self.main)]

        return finish

    def still(self):
        """Of an update: whether it changes nothing where the sum is 0, with the numbers at hand.

        -0 is left as it is by the subtraction of 0 and the addition of -0, as all numbers are, and
        by no others.
        """
        (root,), scope = self.roots, self.scope
        x = root.node.inputs[0]
        if self.places[id(root)].memory != self.places[id(x)].memory:
            return L.Const(False, D.bool_)
        scope.known.clear()
        with scope.fresh_values():
            scope.known[id(self.c)] = L.Const(0.0, self.c.dtype)
            scope.known[id(x)] = L.Const(-0.0, x.dtype)
            value = scope.element(root, [L.Const(0, L.int64)] * len(self.full))
        whole = {2: D.int16, 4: D.int32, 8: D.int64}[root.dtype.itemsize]
        return L.bitcast(value, whole).eq(-1 << 8 * whole.itemsize - 1)

    def _position(self, scope, index):
        """The index in the group's shape of an element of the product."""
        at = [L.Const(0, L.int64)] * len(self.full)
        for ours, theirs in self.pairs:
            flat = L.Const(0, L.int64)
            for d in ours:
                flat = flat * scope.size(self.sizes[d]) + index[d]
            for run in reversed([self.runs[r] for r in theirs[1:]]):
                size = scope.size(run.size)
                at[run.members[-1]] = scope.k.let(flat % size, "q")
                flat = scope.k.let(flat // size, "q")
            if theirs:
                at[self.runs[theirs[0]].members[-1]] = flat
        return at
