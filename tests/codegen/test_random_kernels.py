"""Kernels put together at random, run natively and by the interpreter.

Every iteration writes a place of its own, so that any kind of loop is legal anywhere; values come
from buffers of all dtypes at indices of all shapes, through any op that the dtype takes.
"""

from __future__ import annotations

import numpy as np
from harness import check, sample
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from test_ops import takes

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.ir.print_loops import text

KINDS = ("serial", "parallel", "vector", "unroll")
COUNTS = (0, 1, 2, 3, 5, 8, 15, 16, 17, 33, 70)
SIZE = 97


class Maker:
    """Draws one kernel; ``x`` has a buffer of every dtype to read from."""

    def __init__(self, draw):
        self.draw = draw
        self.k = L.Builder("random")
        self.x = {d: self.k.buffer(f"x_{d.name}", d) for d in D.ALL}
        self.sizes = [self.k.size(f"n{i}") for i in range(3)]
        self.counts = [draw(st.sampled_from(COUNTS)) for _ in range(3)]
        self.out_dtype = draw(st.sampled_from(D.ALL))
        self.y = self.k.buffer("y", self.out_dtype, "rw")
        self.vars, self.locals, self.assignable, self.vector = [], [], [], False

    def pick(self, *options):
        return self.draw(st.sampled_from(options))

    def number(self, most):
        return self.draw(st.integers(0, most))

    # Expressions

    def index(self):
        """An int64 within the buffers, or a flag that says when it is, and the index."""
        terms = L.Const(self.number(9), D.int64)
        for v in self.vars:
            factor = self.pick(0, 1, 1, -1, 2, self.sizes[0])
            terms = terms + v * factor
        if self.number(3) == 0:
            terms = terms + L.cast(self.x[D.int32].load(self.clamped(terms)), D.int64)
        return terms

    def clamped(self, index):
        return L.maximum(L.minimum(index, L.Const(SIZE - 1, D.int64)), L.Const(0, D.int64))

    def load(self, d):
        index = self.index()
        if self.number(2):
            inside = L.call("ult", index, L.Const(SIZE, D.int64))
            return self.x[d].load(index, inside, self.number(2))
        small = L.Const(self.number(20), D.int64)
        for v in self.vars:  # The sum of three is at most 69 * 3: in range only if masked.
            small = L.minimum(small + v, L.Const(SIZE - 1, D.int64)) if self.number(1) else small
        return self.x[d][small]

    def value(self, d, depth):
        if depth == 0:
            options = ["load", "const"]
            options += ["local"] if any(r.dtype is d for r in self.locals) else []
            options += ["var"] if d is D.int64 and self.vars else []
            kind = self.pick(*options)
            if kind == "const":
                return L.Const(self.pick(0, 1, 2, 3), d)
            if kind == "local":
                return self.pick(*[r for r in self.locals if r.dtype is d]).get()
            return self.load(d) if kind == "load" else self.pick(*self.vars)
        kind = self.pick("op", "op", "cast", "select", "leaf")
        if kind == "leaf":
            return self.value(d, 0)
        if kind == "select":
            return L.select(self.cond(), self.value(d, depth - 1), self.value(d, depth - 1))
        if kind == "cast":
            return L.cast(self.value(self.pick(*D.ALL), depth - 1), d)
        # Which zero is the smaller is not said, so that results would differ.
        avoided = ("min", "max", "fmin", "fmax") if d.kind == "f" else ()
        name = self.pick(*[n for n in L.ARITHMETIC if takes(n, d) and n not in avoided])
        return L.Op(name, [self.value(d, depth - 1) for _ in range(L.ARITHMETIC[name])], d)

    def cond(self):
        d = self.pick(*D.ALL)
        return L.call(self.pick("lt", "ge", "eq", "ne"), self.value(d, 0), self.value(d, 0))

    # Statements

    def nest(self, depth, place):
        """Loops down to ``depth`` more levels; ``place`` is the number of iterations so far."""
        if depth == 0:
            self.leaf(place)
            return
        level = 3 - depth
        if depth == 1 and not self.vector and self.counts[level] and self.number(2) == 0:
            self.sum(place * self.counts[level], self.counts[level], self.sizes[level])
            return
        kind = self.pick(*KINDS)
        if kind in ("vector", "parallel") and self.vector:
            kind = "serial"
        if kind == "unroll":
            self.counts[level] = min(self.counts[level], 3)
        fixed = kind == "unroll" or self.number(2) == 0
        count = L.Const(self.counts[level], D.int64) if fixed else self.sizes[level]
        with self.k.loop(0, count, 1, kind) as i:
            self.vector |= kind == "vector"
            self.vars.append(i)
            before, assignable = list(self.locals), self.assignable
            if kind in ("vector", "parallel"):
                self.assignable = []
            if self.number(1):
                d = self.pick(D.float32, D.int64, D.int16)
                self.locals.append(self.k.local(d, self.number(3)))
                self.assignable = [*self.assignable, self.locals[-1]]
            self.nest(depth - 1, place * self.counts[level] + i)
            self.locals, self.assignable = before, assignable
            self.vars.pop()
            self.vector &= kind != "vector"

    def sum(self, place, count, size):
        """A loop that reduces one or two locals, in place of the innermost loop."""
        k, sums = self.k, []
        for _ in range(1 + self.number(1)):
            d = self.pick(*D.ALL)
            ops = ("add", "mul") if d.kind == "f" else L.REDUCTIONS
            sums.append((k.local(d, self.number(2)), self.pick(*ops)))
        with k.vector(0, self.pick(L.Const(count, D.int64), size)) as i:
            self.vars.append(i)
            for s, op in sums:
                k.reduce(s, op, self.value(s.dtype, 2))
            self.vars.pop()
        for s, _ in sums:
            k.store(self.y, place, L.cast(s.get(), self.out_dtype))

    def leaf(self, place):
        k = self.k
        if self.assignable and self.number(1):
            r = self.pick(*self.assignable)
            k.assign(r, self.value(r.dtype, 1))
        if not self.vector and self.number(2) == 0:
            with k.if_(self.cond()):
                self.write(place)
            with k.else_():
                self.write(place)
        else:
            self.write(place)

    def write(self, place):
        mask = self.cond() if self.number(3) == 0 else None
        self.k.store(self.y, place, self.value(self.out_dtype, 3), mask)


@settings(
    max_examples=200, deadline=None, derandomize=True, database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(st.data())
def test_random_kernel(data):
    maker = Maker(data.draw)
    maker.nest(3, L.Const(0, D.int64))
    kernel = maker.k.kernel()
    a, b, c = maker.counts
    if a * b * c > 3000:
        return
    arguments = {f"x_{d.name}": sample(d, SIZE, 3) for d in D.ALL}
    arguments["x_int32"] = np.arange(SIZE, dtype=np.int32) % 11
    arguments |= {f"n{i}": n for i, n in enumerate(maker.counts)}
    arguments["y"] = sample(maker.out_dtype, max(a * b * c, 1), 5)
    note(f"{text(kernel)}\nsizes {maker.counts}")
    check(kernel, arguments)
