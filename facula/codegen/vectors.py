"""Vector loops: full vectors, then one under a mask, so that all elements see the same code.

Short loops of constant length, and loops that run along a register tile, are unrolled. Loops with
a Reduce keep four accumulators of 64 bytes: element ``e`` always goes to the same place of the
same accumulator, however the loop is cut, and they are added up in one order.
"""

from __future__ import annotations

from facula.base.dtypes import bool_, int64
from facula.codegen import arithmetic, casts, memory
from facula.codegen.target import ACCUMULATORS
from facula.codegen.values import (
    INTEGER_OF_SIZE,
    Value,
    constant,
    first_lanes,
    lane_numbers,
    mangle,
    splat,
)
from facula.ir import loops as L

_ONE = constant(1, int64)
#: Loops of at most so many vectors are unrolled.
_UNROLLED = 8
#: A body of more instructions than this, most of them waiting for others, runs on two vectors.
_LONG = 24
#: A body of more than this is written once at all, every vector under a mask: the mask is little
#: beside it, and a third of the text is a third of the time to compile.
_VERY_LONG = 100


def tile_lanes(body, analysis) -> dict:
    """Lanes of the register tiles that vector loops run along; others have scalar registers."""
    loops = []
    found = {}

    def visit(statements):
        for s in statements:
            if isinstance(s, L.Loop) and s.kind == "vector":
                facts = analysis.vector(s)
                if facts.tiles:
                    loops.append(facts)
            if isinstance(s, (L.Loop, L.While, L.If)):
                visit(s.body)
            if isinstance(s, L.If):
                visit(s.orelse)
            if isinstance(s, L.Transpose):
                found[s.local] = s.local.shape[-1]

    visit(body)
    # All loops along one tile agree: on the lanes of one that reduces, else on the fewest.
    for facts in sorted(loops, key=lambda f: (not f.reductions, f.lanes)):
        for tile in facts.tiles:
            lanes = found.setdefault(tile, facts.lanes)
            if lanes != facts.lanes and facts.reductions:
                raise ValueError(f"loops: {tile.name} is reduced with {lanes} lanes")
            facts.lanes = lanes
    return found


def register(em, local, index, memo):
    """Which register of a tile an index means, and which of its lanes (None: all of them)."""
    values = [em.value(i, memo) for i in index]
    lanes = em.tile_lanes.get(local, 0)
    last = values[-1]
    if lanes and last.linear:
        base, offset, stride = last.linear
        fits = em.lanes == lanes and stride.const == 1 and base.const is not None
        column = base.const + offset if fits else 1
        if column % lanes:
            raise ValueError(f"loops: vectors of {local.name} are not addressed as such")
        lane = None
    else:
        column = last.const
        lane = column % lanes if lanes and column is not None else None
    number = 0
    for n, v in zip(local.shape[:-1], values):
        if v.const is None or not 0 <= v.const < n:
            raise ValueError(f"loops: an index of {local.name} is no constant within its shape")
        number = number * n + v.const
    if column is None or not 0 <= column < local.shape[-1]:
        raise ValueError(f"loops: an index of {local.name} is no constant within its shape")
    width = lanes or 1
    return number * -(-local.shape[-1] // width) + column // width, lane


def loop(em, s):
    """Write a vector loop."""
    if em.lanes:
        raise ValueError("loops: a vector loop inside of another")
    facts = em.analysis.vector(s)
    lo, hi = em.evaluate(s.lo), em.evaluate(s.hi)
    em.lanes, em.varying, em.along = facts.lanes, facts.varying, s.var
    sums = {x: _Sum(em, x, op) for x, op in facts.reductions.items()}
    count = hi.const - lo.const if None not in (hi.const, lo.const) else None
    if count is not None and (facts.tiles or count <= _UNROLLED * facts.lanes):
        _unrolled(em, s, sums, lo, count)
    elif facts.tiles:
        raise ValueError(f"loops: {s.var.name} runs along a tile, but not between constants")
    else:
        _Cut(em, s, facts, sums, lo, hi).write()
    em.lanes, em.mask, em.left, em.varying, em.accumulators = 0, None, None, (), {}
    for x in sums.values():
        x.finish(em)


def _iterate(em, s, base, offset, accumulators, mask=None, left=None):
    """The body for the lanes from ``base + offset`` on, the first ``left`` if not all."""
    em.vars[s.var] = Value("", int64, em.lanes, base.depth, None, (base, offset, _ONE))
    em.mask, em.left = mask, left
    em.accumulators = accumulators
    em.body(s.body)


def _unrolled(em, s, sums, lo, count):
    lanes = em.lanes
    starts = range(0, count, lanes)
    masks = [
        None if start + lanes <= count else first_lanes(count - start, lanes) for start in starts
    ]
    if len(starts) > 1 and not sums:
        _Jam(em, s, [(lo, start, mask, {}) for start, mask in zip(starts, masks)]).run(s.body)
        return
    for i, (start, mask) in enumerate(zip(starts, masks)):
        chosen = {x: t.parts[i % ACCUMULATORS] for x, t in sums.items()}
        _iterate(em, s, lo, start, chosen, mask)


class _Jam:
    """Several vectors of a loop at once, one statement after the other.

    So what the vectors have in common, such as a scalar that all are multiplied with, is in a
    register for a short time, and processors, which look a hundred instructions ahead, find
    another vector's where one's wait for each other. Each vector has variables, locals and
    accumulators of its own.
    """

    def __init__(self, em, s, places):
        self.em = em
        self.inside = em.analysis.of(s.body).declared
        self.copies = []
        for base, offset, mask, accumulators in places:
            v = Value("", int64, em.lanes, base.depth, None, (base, offset, _ONE))
            self.copies.append(({s.var: v}, {}, mask, accumulators))

    def run(self, body):
        em = self.em
        for s in body:
            if isinstance(s, L.Loop) and s.kind == "unroll":
                for i in em.constants(s):
                    for variables, *_ in self.copies:
                        variables[s.var] = constant(i, int64)
                    self.run(s.body)
                continue
            for variables, registers, mask, accumulators in self.copies:
                em.vars.update(variables)
                em.locals.update(registers)
                em.mask, em.left, em.accumulators = mask, None, accumulators
                em.body((s,))
                if isinstance(s, L.Let) and s.var in em.vars:
                    variables[s.var] = em.vars[s.var]
                for x in self.inside:
                    if x in em.locals:
                        registers[x] = em.locals[x]


class _Cut:
    """A vector loop of any length: a main loop of full vectors, then the rest under masks."""

    def __init__(self, em, s, facts, sums, lo, hi):
        self.em, self.s, self.facts, self.sums = em, s, facts, sums
        self.lo, self.hi = lo, hi
        self.stores = em.analysis.of(s.body).stores
        self.names = [p for t in sums.values() for p in t.parts]
        masks = em.target.masks_memory(facts.narrowest)
        if facts.cost > _VERY_LONG and masks:
            self.together = 0
        elif facts.cost > _LONG:
            self.together = 2
        elif sums:
            self.together = ACCUMULATORS
        else:
            self.together = 4 if facts.cost <= 2 else 2 if facts.cost <= 8 else 1

    def write(self):
        em, w, lanes = self.em, self.em.w, self.em.lanes
        count = w.sub(self.hi, self.lo)
        if count.const is None and not (self.lo.const == 0 and isinstance(self.s.hi, L.Var)):
            # Sizes are not negative, but differences may be.
            count = w.call(int64, "llvm.smax.i64", count, constant(0, int64))
        stride = lanes * self.together
        if not stride:
            full = constant(0, int64)
        elif count.const is None:
            full = w.pure(f"and i64 {count.text}, {-stride}", int64, 0, count)
        else:
            full = constant(count.const & -stride, int64)
        end = w.add(self.lo, full)
        step = constant(stride, int64)
        if stride:
            em.set_flat(
                self.names,
                w.loop(self.lo, end, step, em.flat(self.names), self._main, self.stores),
            )
        if self.together == 1:
            self._last(end)
        else:
            step = constant(lanes, int64)
            em.set_flat(
                self.names,
                w.loop(end, self.hi, step, em.flat(self.names), self._rest, self.stores),
            )
        if self.sums:
            self._turn_back(count)

    def _main(self, base, values):
        em = self.em
        em.set_flat(self.names, values)
        places = [
            (base, k * em.lanes, None, {x: t.parts[k] for x, t in self.sums.items()})
            for k in range(self.together)
        ]
        _Jam(em, self.s, places).run(self.s.body)
        self._rotate(self.together)
        return em.flat(self.names)

    def _last(self, end):
        w = self.em.w
        remains = w.compare("slt", end, self.hi)
        before = self.em.flat(self.names)
        after = w.branch(remains, lambda: self._rest(end, before), None, before)
        self.em.set_flat(self.names, after)

    def _rest(self, base, values):
        """Up to one vector, the lanes that are left."""
        em = self.em
        em.set_flat(self.names, values)
        chosen = {x: t.parts[0] for x, t in self.sums.items()}
        left = self._left(base)
        _iterate(em, self.s, base, 0, chosen, self._mask(left), left)
        self._rotate(1)
        return em.flat(self.names)

    def _left(self, base):
        """How many elements there are from ``base`` on, or as many as a vector has."""
        w = self.em.w
        left = w.sub(self.hi, base)
        if self.together != 1:
            left = w.call(int64, "llvm.smin.i64", left, constant(self.em.lanes, int64))
        return left

    def _mask(self, left):
        w, lanes = self.em.w, self.em.lanes
        d = INTEGER_OF_SIZE[self.facts.itemsize]
        wide = casts.widen(w, casts.convert(w, left, d), lanes)
        numbers = lane_numbers(d, lanes)
        return w.pure(f"icmp ult {numbers.typed}, {wide.text}", bool_, lanes, wide)

    def _rotate(self, count):
        """The next vector's accumulator comes first."""
        em = self.em
        for t in self.sums.values():
            held = [em.locals[p] for p in t.parts]
            for k, p in enumerate(t.parts):
                em.locals[p] = held[(k + count) % ACCUMULATORS]

    def _turn_back(self, count):
        """Undo one rotation for every vector of ``count`` elements, full or not."""
        em, w, lanes = self.em, self.em.w, self.em.lanes
        most = w.add(count, constant(lanes - 1, int64))
        vectors = w.pure(f"lshr i64 {most.text}, {lanes.bit_length() - 1}", int64, 0, most)
        for by in (1, 2):
            bit = w.pure(f"and i64 {vectors.text}, {by}", int64, 0, vectors)
            odd = w.pure(f"icmp ne i64 {bit.text}, 0", bool_, 0, bit)
            for t in self.sums.values():
                old = [em.locals[p][0] for p in t.parts]
                for k, p in enumerate(t.parts):
                    em.locals[p] = [w.choose(odd, old[(k - by) % ACCUMULATORS], old[k])]


class _Sum:
    """The accumulators of a local that a vector loop reduces into."""

    def __init__(self, em, local, op):
        self.local, self.op = local, op
        # Adding -0.0 changes nothing at all, where 0.0 would turn -0.0 into 0.0.
        self.neutral = splat(constant(_neutral(op, local.dtype), local.dtype), em.lanes)
        self.parts = [L.Local(f"{local.name}.{k}", local.dtype) for k in range(ACCUMULATORS)]
        for p in self.parts:
            em.locals[p] = [self.neutral]

    def finish(self, em):
        """Combine the accumulators, then halves of vectors, then the local's own value."""
        a, b, c, d = (em.locals.pop(p)[0] for p in self.parts)
        v = self._two(em, self._two(em, a, b), self._two(em, c, d))
        if v.dtype is bool_:
            how = {"add": "or", "max": "or", "mul": "and", "min": "and"}.get(self.op, self.op)
            v = em.w.call(bool_, f"llvm.vector.reduce.{how}.{mangle('i1', v.lanes)}", v, lanes=0)
        else:
            while v.lanes > 2:
                half = v.lanes // 2
                v = self._two(em, _slice(em.w, v, 0, half), _slice(em.w, v, half, half))
            v = self._two(
                em,
                *(em.w.pure(f"extractelement {v.typed}, i64 {i}", v.dtype, 0, v) for i in (0, 1)),
            )
        old = em.registers(self.local)[0]
        em.locals[self.local] = [arithmetic.apply(em.w, em.target, self.op, [old, v])]

    def _two(self, em, a, b):
        if a.text == self.neutral.text:
            return b
        if b.text == self.neutral.text:
            return a
        return arithmetic.apply(em.w, em.target, self.op, [a, b])


def _neutral(op, d):
    if op == "add":
        return -0.0 if d.kind == "f" else 0
    if op in ("mul", "or"):
        return int(op == "mul")
    if op == "and":
        return True if d.kind == "b" else -1 & (2 ** (8 * d.itemsize) - 1)
    if d.kind == "f":
        return float("inf") if op == "min" else float("-inf")
    if d.kind == "b":
        return op == "min"
    bits = 8 * d.itemsize - (d.kind == "i")
    least = -(1 << bits) if d.kind == "i" else 0
    return (1 << bits) - 1 if op == "min" else least


def _slice(w, v, start, size):
    order = ", ".join(f"i32 {i}" for i in range(start, start + size))
    return w.pure(
        f"shufflevector {v.typed}, {v.type} poison, <{size} x i32> <{order}>", v.dtype, size, v
    )


def transpose(em, local):
    """Swap rows and columns of a tile: halves, then quarters ..., at last single elements."""
    n = em.tile_lanes.get(local, 0)
    rows = list(em.registers(local))
    if local.shape != (n, n):
        raise ValueError(f"loops: {local.name} is no square tile of whole vectors")
    size = n // 2
    loaded = [memory.loaded(em, v) for v in rows]
    if size > 2 and all(loaded):
        # The two halves that the first step joins are loaded as such: no shuffle, and of the
        # registers half are in use at a time.
        halves = [[memory.short(em, *place, k, size) for place in loaded] for k in (0, size)]
        order = range(n)
        rows = [_shuffle(em.w, h[i], h[i + size], order) for h in halves for i in range(size)]
        size //= 2
    while size:
        for i in range(n):
            if i & size:
                continue
            a, b = rows[i], rows[i + size]
            low = [j if not j & size else n + j - size for j in range(n)]
            high = [j + size if not j & size else n + j for j in range(n)]
            rows[i], rows[i + size] = (_shuffle(em.w, a, b, order) for order in (low, high))
        size //= 2
    em.locals[local] = rows


def _shuffle(w, a, b, order):
    items = ", ".join(f"i32 {i}" for i in order)
    return w.pure(
        f"shufflevector {a.typed}, {b.typed}, <{len(order)} x i32> <{items}>",
        a.dtype, len(order), a, b,
    )  # fmt: skip
