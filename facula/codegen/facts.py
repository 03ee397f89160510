"""What must be known of a loop before its text is written: found by reading it once."""

from __future__ import annotations

from facula.base.dtypes import bool_, int64
from facula.codegen.target import REDUCTION_BYTES
from facula.ir import loops as L


def post_order(e: L.Expr) -> list:
    """The ops, casts and loads that a value is made of, each after its operands.

    Indices are left out: they are taken apart where the access is written. With all parts known
    in this order no visit of an expression recurs, however long a chain of ops is.
    """
    done, order, stack = set(), [], [e]
    while stack:
        part = stack.pop()
        if part is None:  # All operands of the next one are done.
            order.append(stack.pop())
            continue
        kind = type(part)
        if kind is L.Op or kind is L.Cast:
            operands = part.args
        elif kind is L.Load:
            operands = () if part.mask is None else (part.mask, part.other)
        else:
            continue
        if id(part) not in done:
            done.add(id(part))
            stack += (part, None)
            stack += [x for x in reversed(operands) if type(x) in _MADE]
    return order


_MADE = (L.Op, L.Cast, L.Load)
#: What an access that is no vector counts for, in instructions.
_SCATTERED = 8
#: What one counts for whose lanes are every second element.
_BY_TWO = 3
#: Most lanes of a loop that has to load elements one by one: longer vectors are only longer code.
_ONE_BY_ONE = 16
_UNKNOWN = L.Cast(L.Const(0, int64), int64)


def _turns(s) -> int:
    """How often an unrolled loop repeats its body after the first time."""
    known = isinstance(s.lo, L.Const) and isinstance(s.hi, L.Const)
    return max(s.hi.value - s.lo.value - 1, 0) if known else 4


class Facts:
    """Of a body: locals assigned and declared, buffers stored to, whether it checks or reduces."""

    __slots__ = ("assigned", "declared", "stores", "checks", "reduces", "parallel")

    def __init__(self):
        self.assigned, self.declared, self.stores = {}, set(), {}
        self.checks = self.reduces = self.parallel = False

    def include(self, other: Facts):
        self.assigned.update(other.assigned)
        self.declared |= other.declared
        self.stores.update(other.stores)
        self.checks |= other.checks
        self.reduces |= other.reduces
        self.parallel |= other.parallel


class Analysis:
    """Facts of all bodies of a kernel, each found once."""

    def __init__(self, target):
        self.target = target
        self._facts = {}
        self._vectors = {}

    def of(self, body: tuple) -> Facts:
        """Facts of a body with all that is nested in it."""
        found = self._facts.get(id(body))
        if found is not None:
            return found
        facts = Facts()
        for s in body:
            if isinstance(s, (L.Assign, L.Reduce, L.Transpose)):
                facts.assigned[s.local] = None
                facts.reduces |= isinstance(s, L.Reduce)
            elif isinstance(s, L.Declare):
                facts.declared.add(s.local)
            elif isinstance(s, L.Store):
                facts.stores[s.buffer] = None
            elif isinstance(s, L.Check):
                facts.checks = True
            elif isinstance(s, L.If):
                facts.include(self.of(s.body))
                facts.include(self.of(s.orelse))
            elif isinstance(s, (L.Loop, L.While)):
                facts.include(self.of(s.body))
                facts.parallel |= isinstance(s, L.Loop) and s.kind == "parallel"
        self._facts[id(body)] = facts
        return facts

    def vector(self, loop: L.Loop) -> VectorFacts:
        """Facts of a vector loop."""
        found = self._vectors.get(id(loop))
        if found is None:
            found = self._vectors[id(loop)] = VectorFacts(loop, self)
        return found


class VectorFacts:
    """Of a vector loop: what varies over its lanes, and how many of them it has.

    Attributes:
        varying: variables and locals whose value differs between lanes.
        reductions: the outer locals it reduces into, with their op.
        tiles: outer tiles whose registers are vectors along the loop's variable.
        lanes: elements a vector.
        narrowest: bytes of the smallest elements in memory.
        cost: about how many instructions one iteration is.
    """

    def __init__(self, loop: L.Loop, analysis: Analysis):
        facts = analysis.of(loop.body)
        self.varying = {loop.var}
        self.reductions, self.tiles = {}, {}
        self._declared, self._var, self._lets = facts.declared, loop.var, {}
        self._target, self._most = analysis.target, REDUCTION_BYTES
        known = -1
        while known != len(self.varying):  # Locals carry variation around serial loops.
            known = len(self.varying)
            self.itemsize, self.cost, self.narrowest = 1, 0, 8
            self._values, self._variations, self._indices = {}, {}, set()
            self._body(loop.body)
        self.itemsize = max(self.itemsize, *(t.dtype.itemsize for t in self.tiles), 1)
        self.lanes = min(analysis.target.lanes(self.itemsize), self._most)
        if self.reductions:
            # What else is read does not matter: lanes are part of the order of a sum.
            summed = [x.dtype.itemsize for x in self.reductions if x.dtype.kind == "f"]
            self.lanes = REDUCTION_BYTES // max(summed, default=self.itemsize)

    def _body(self, body):
        for s in body:
            if isinstance(s, L.Let):
                self._lets[s.var] = s.value
                if self._value(s.value):
                    self.varying.add(s.var)
            elif isinstance(s, L.Declare):
                self._assigned(s.local, self._value(s.init))
            elif isinstance(s, L.Assign):
                self._assigned(s.local, self._value(s.value))
                self._tile(s)
            elif isinstance(s, L.Reduce):
                self._value(s.value)
                self._assigned(s.local, True)
                if s.local not in self._declared:
                    self.reductions[s.local] = s.op
                self.cost += 1
            elif isinstance(s, L.Store):
                self._access(s)
                self._value(s.value)
                self._widest(s.buffer.dtype)
            elif isinstance(s, L.Check):
                self._value(s.cond)
                self.cost += 8
            elif isinstance(s, L.While):
                self._value(s.cond)
                self._body(s.body)
            elif isinstance(s, L.Loop):
                before = self.cost
                self._body(s.body)
                if s.kind == "unroll":
                    self.cost += (self.cost - before) * _turns(s)

    def _widest(self, d):
        self.itemsize = max(self.itemsize, d.itemsize)

    def _assigned(self, local, varies):
        if varies:
            self.varying.add(local)
            self._widest(local.dtype)

    def _tile(self, e):
        """Note a tile whose last index runs along the lanes."""
        if e.index and e.local not in self._declared and self._varies(e.index[-1]):
            self.tiles[e.local] = None

    def _access(self, e):
        if e.mask is not None:
            self._value(e.mask)
        self._index(e.index)
        self.narrowest = min(self.narrowest, e.buffer.dtype.itemsize)
        stride, itemsize = self._stride(e.index), e.buffer.dtype.itemsize
        if stride == 2 and self._target.masks_memory(itemsize):
            self.cost += _BY_TWO
        elif stride not in (0, 1, -1):
            self.cost += _SCATTERED
            if not self._target.gathers(itemsize):
                self._most = _ONE_BY_ONE

    def _stride(self, e):
        """What an index grows by from lane to lane, None if that is no constant."""
        if not self._varies(e):
            return 0
        if isinstance(e, L.Var):
            return 1 if e is self._var else self._stride(self._lets.get(e, _UNKNOWN))
        if not isinstance(e, L.Op) or e.name not in ("add", "sub", "mul"):
            return None
        a, b = e.args
        if e.name == "mul":
            if isinstance(a, L.Const):
                a, b = b, a
            stride = self._stride(a) if isinstance(b, L.Const) else None
            return None if stride is None else stride * b.value
        x, y = self._stride(a), self._stride(b)
        if x is None or y is None:
            return None
        return x + y if e.name == "add" else x - y

    def _index(self, e):
        """Indices are no data, but what they load is."""
        kind = type(e)
        if kind is L.Var or kind is L.Const or id(e) in self._indices:
            return
        self._indices.add(id(e))
        if isinstance(e, (L.Load, L.Cast)):
            self._value(e)
            return
        for c in L.children(e):
            self._index(c)

    def _varies(self, e) -> bool:
        """Whether an expression differs between lanes."""
        kind = type(e)
        if kind is L.Var:
            return e in self.varying
        if kind is L.Const:
            return False
        found = self._variations.get(id(e))
        if found is None:
            found = kind is L.Get and (e.local in self.varying or e.local in self.tiles)
            for c in L.children(e):
                found = found or self._varies(c)
            self._variations[id(e)] = found
        return found

    def _value(self, e) -> bool:
        """As :meth:`_varies`, of data: takes in the dtypes of all parts that differ."""
        values = self._values
        found = values.get(id(e))
        if found is None:
            for part in post_order(e):
                if id(part) not in values:
                    values[id(part)] = self._look(part)
            found = values.get(id(e))
            if found is None:  # No op, cast or load.
                found = values[id(e)] = self._look(e)
        return found

    def _look(self, e):
        if isinstance(e, L.Var):
            varies = e in self.varying
        elif isinstance(e, L.Get):
            self._tile(e)
            varies = self._varies(e)
        elif isinstance(e, L.Load):
            self._access(e)
            varies = self._varies(e.index)
            if e.mask is not None:
                varies |= self._value(e.mask) | self._value(e.other)
        else:
            self.cost += 25 if isinstance(e, L.Op) and e.name in L.TRANSCENDENTAL else 1
            varies = False
            for c in e.args:
                varies |= self._value(c)
            if varies and isinstance(e, L.Cast):
                self._widest(e.args[0].dtype)
        # Integer arithmetic on the loop's own variable is not data until it is stored or cast.
        if varies and e.dtype is not bool_ and (e.dtype is not int64 or isinstance(e, L.Load)):
            self._widest(e.dtype)
        return varies
