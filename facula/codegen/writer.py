"""Text of one LLVM function: scopes, value numbering and loops.

There are no optimisation passes after this text, so it is written clean at once. Every loop body
is a *scope* with a buffer of lines of its own, pasted into the enclosing one when the loop is
done. A pure operation is written into the outermost scope that has all of its operands, which
comes before the loop: this is all there is to loop-invariant code motion. A scope remembers the
text of what it computed: the same text again is the same value.
"""

from __future__ import annotations

from facula.base.dtypes import bool_, int64
from facula.codegen.values import PTR, Value, constant, type_of


class Scope:
    """Lines of straight or nested code that share a place to be executed.

    ``kind`` is "function", "body" (of a loop), "guarded" (between a loop and the test whether it
    runs at all), "branch" or "while". Loads leave bodies only: the others may not be executed.
    ``start`` labels its first block, ``label`` the one being written; ``stores`` holds the buffers
    written while the scope repeats.
    """

    __slots__ = ("kind", "lines", "head", "start", "label", "values", "stores")

    def __init__(self, kind, label, stores=()):
        self.kind, self.start, self.label, self.stores = kind, label, label, stores
        self.lines, self.head, self.values = [], [], {}


class Writer:
    """The function being written."""

    def __init__(self, module):
        self.module = module
        self.scopes = [Scope("function", "entry")]
        self.scope = self.scopes[0]
        self.depth = 0
        self.barrier = 0
        self.versions, self.loads = {}, {}  # loads: what vectors were read from, by their names
        self.count = 0

    # Lines

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def new_label(self) -> str:
        self.count += 1
        return f"b{self.count}"

    def line(self, text: str):
        self.scope.lines.append("  " + text)

    def start_block(self, label: str):
        self.scope.lines.append(label + ":")
        self.scope.label = label

    def push(self, kind, label, stores=()) -> Scope:
        self.scope = Scope(kind, label, stores)
        self.scopes.append(self.scope)
        self.depth += 1
        if kind == "branch":
            self.barrier = self.depth
        return self.scope

    def pop(self) -> Scope:
        done = self.scopes.pop()
        self.scope = self.scopes[-1]
        self.depth -= 1
        if done.kind == "branch":
            self.barrier = max(
                (i for i, s in enumerate(self.scopes) if s.kind == "branch"), default=0
            )
        return done

    def paste(self, scope: Scope):
        """Append a scope's lines, which may end in a block of another label."""
        self.scope.lines += scope.head
        self.scope.lines += scope.lines

    # Values

    def pure(self, text, dtype, lanes, *operands) -> Value:
        """The value of an operation without effects; it may be executed early."""
        depth = 0
        for v in operands:
            if v.depth > depth:
                depth = v.depth
        at = depth if depth > self.barrier else self.barrier
        scopes = self.scopes
        for d in range(at, depth - 1, -1):
            found = scopes[d].values.get(text)
            if found is not None:
                return found
        self.count += 1
        value = Value(f"%v{self.count}", dtype, lanes, at)
        scope = scopes[at]
        scope.lines.append(f"  {value.text} = {text}")
        scope.values[text] = value
        return value

    def here(self, text, dtype, lanes) -> Value:
        """The value of an operation that must be executed at this place."""
        value = Value(self.name(), dtype, lanes, self.depth)
        self.line(f"{value.text} = {text}")
        return value

    def read(self, text, dtype, lanes, buffer, *operands) -> Value:
        """The value of a load: as far out as no store, branch or untaken loop is passed."""
        depth = max(v.depth for v in operands)
        at = self.depth
        scopes = self.scopes
        while at > depth and scopes[at].kind == "body" and buffer not in scopes[at].stores:
            at -= 1
        key = f"{text} @{self.versions.get(buffer, 0)}"
        for d in range(self.depth, depth - 1, -1):
            found = scopes[d].values.get(key)
            if found is not None:
                return found
        value = Value(self.name(), dtype, lanes, at)
        scopes[at].lines.append(f"  {value.text} = {text}")
        scopes[at].values[key] = value
        return value

    def wrote(self, buffer):
        """Loads of the buffer seen so far are out of date."""
        self.versions[buffer] = self.versions.get(buffer, 0) + 1

    def outer(self, v: Value) -> Value:
        """A value computed in a scope just closed, as one of the present scope."""
        return v if v.depth <= self.depth else Value(v.text, v.dtype, v.lanes, self.depth, v.const)

    def call(self, result, name, *arguments, lanes=None) -> Value:
        """A call of an intrinsic without effects; the arguments give its type's name."""
        lanes = arguments[0].lanes if lanes is None else lanes
        types = ", ".join(a.type for a in arguments)
        self.module.declare(name, type_of(result, lanes), types)
        args = ", ".join(a.typed for a in arguments)
        return self.pure(
            f"call {type_of(result, lanes)} @{name}({args})", result, lanes, *arguments
        )

    # Integers: scalar arithmetic of indices, folded

    def add(self, a: Value, b: Value) -> Value:
        if a.const is not None and b.const is not None:
            return constant(a.const + b.const, int64)
        if a.const == 0:
            return b
        if b.const == 0:
            return a
        if a.const is not None or (b.const is None and b.depth < a.depth):
            a, b = b, a
        return self.pure(f"add i64 {a.text}, {b.text}", int64, 0, a, b)

    def sub(self, a: Value, b: Value) -> Value:
        if b.const is not None:
            return self.add(a, constant(-b.const, int64))
        return self.pure(f"sub i64 {a.text}, {b.text}", int64, 0, a, b)

    def mul(self, a: Value, b: Value) -> Value:
        if a.const is not None:
            a, b = b, a
        if b.const is not None:
            if a.const is not None:
                return constant(a.const * b.const, int64)
            if b.const == 1:
                return a
            if b.const == 0:
                return b
            if b.const > 0 and b.const & (b.const - 1) == 0:
                shift = b.const.bit_length() - 1
                return self.pure(f"shl i64 {a.text}, {shift}", int64, 0, a)
        return self.pure(f"mul i64 {a.text}, {b.text}", int64, 0, a, b)

    def compare(self, how: str, a: Value, b: Value) -> Value:
        """``icmp how`` of scalar int64; ``how`` is signed."""
        if a.const is not None and b.const is not None:
            x, y = a.const, b.const
            return constant({"slt": x < y, "sgt": x > y, "eq": x == y, "ne": x != y}[how], bool_)
        return self.pure(f"icmp {how} i64 {a.text}, {b.text}", bool_, 0, a, b)

    def choose(self, cond: Value, a: Value, b: Value) -> Value:
        """``select`` of values of one type, the condition a scalar or a vector as they are."""
        if cond.const is not None:
            return a if cond.const else b
        if a.text == b.text:
            return a
        return self.pure(f"select {cond.typed}, {a.typed}, {b.typed}", a.dtype, a.lanes, cond, a, b)

    def advance(self, pointer: Value, index: Value, element: str) -> Value:
        """The address ``index`` elements after ``pointer``.

        No ``inbounds``: sums of indices are split into parts, and parts may leave the buffer.
        """
        if index.const == 0:
            return pointer
        return self.pure(
            f"getelementptr {element}, ptr {pointer.text}, {index.typed}",
            PTR, index.lanes, pointer, index,
        )  # fmt: skip

    # Control flow

    def loop(self, lo, hi, step, carried, body, stores=()):
        """``for i in range(lo, hi, step)`` over scalar int64 values.

        Args:
            carried: values at the start of what iterations hand on.
            body: called with the index and the carried values, returns their next values.
            stores: buffers that the loop writes.

        Returns:
            The carried values after the loop.
        """
        runs = self.compare("sgt" if step.const is not None and step.const < 0 else "slt", lo, hi)
        if runs.const is False:
            return carried
        for buffer in stores:
            self.wrote(buffer)
        guarded = runs.const is None
        head, out = self.new_label(), self.new_label()
        before = self.scope.label
        if guarded:
            self.push("guarded", self.new_label())
        scope = self.push("body", head, stores)
        index = Value(self.name(), int64, 0, self.depth)
        phis = [Value(self.name(), v.dtype, v.lanes, self.depth) for v in carried]
        ends = body(index, phis)
        after = self.pure(f"add i64 {index.text}, {step.text}", int64, 0, index, step)
        how = "slt" if step.const is None or step.const > 0 else "sgt"
        more = self.pure(f"icmp {how} i64 {after.text}, {hi.text}", bool_, 0, after, hi)
        self.line(f"br i1 {more.text}, label %{head}, label %{out}")
        self.pop()
        guard = self.pop() if guarded else None
        # What was moved out of the loop is in the lines by now: only here does the block end.
        source, enter = before, head
        if guarded and guard.lines:
            source = enter = guard.label
        if guarded:
            self.line(f"br i1 {runs.text}, label %{enter}, label %{out}")
        else:
            self.line(f"br label %{head}")
        if source != before:
            self.scope.lines += [source + ":", *guard.lines, f"  br label %{head}"]
        self._phis(scope, [index, *phis], source, [lo, *carried], scope.label, [after, *ends])
        self.paste(scope)
        self.start_block(out)
        if not guarded:
            return [self.outer(v) for v in ends]
        return [self.join(v, before, e, scope.label) for v, e in zip(carried, ends)]

    def _phis(self, scope, phis, source, firsts, latch, lasts):
        """The head of a loop's block, entered from ``source`` and from ``latch``."""
        scope.head.append(scope.start + ":")
        for phi, first, last in zip(phis, firsts, lasts):
            scope.head.append(
                f"  {phi.text} = phi {phi.type} [ {first.text}, %{source} ],"
                f" [ {last.text}, %{latch} ]"
            )

    def join(self, a: Value, label_a: str, b: Value, label_b: str) -> Value:
        """A phi of two values where two blocks meet; to be written at a block's start."""
        if a.text == b.text:
            return self.outer(a)
        return self.here(
            f"phi {a.type} [ {a.text}, %{label_a} ], [ {b.text}, %{label_b} ]", a.dtype, a.lanes
        )

    def branch(self, cond: Value, then, orelse=None, values=()):
        """Run ``then`` or ``orelse``; each returns its values, ``values`` are those of neither.

        Returns:
            The values after the two meet again.
        """
        if cond.const is not None:
            chosen = then if cond.const else orelse
            return chosen() if chosen else values
        yes, out = self.new_label(), self.new_label()
        no = self.new_label() if orelse else out
        before = self.scope.label
        self.line(f"br i1 {cond.text}, label %{yes}, label %{no}")
        results = []
        for label, run in ((yes, then), (no, orelse)):
            if run is None:
                results.append((values, before))
                continue
            scope = self.push("branch", label)
            scope.head.append(label + ":")
            ends = run()
            self.line(f"br label %{out}")
            self.pop()
            self.paste(scope)
            results.append((ends, scope.label))
        self.start_block(out)
        (a, label_a), (b, label_b) = results
        return [self.join(x, label_a, y, label_b) for x, y in zip(a, b)]

    def while_(self, carried, cond, body, stores=()):
        """``while cond(values): values = body(values)``; returns the values at the end."""
        for buffer in stores:
            self.wrote(buffer)
        head, inside, out = self.new_label(), self.new_label(), self.new_label()
        before = self.scope.label
        scope = self.push("while", head, stores)
        phis = [Value(self.name(), v.dtype, v.lanes, self.depth) for v in carried]
        holds = cond(phis)
        self.line(f"br i1 {holds.text}, label %{inside}, label %{out}")
        self.start_block(inside)
        ends = body(phis)
        self.line(f"br label %{head}")
        self.pop()
        self.line(f"br label %{head}")
        self._phis(scope, phis, before, carried, scope.label, ends)
        self.paste(scope)
        self.start_block(out)
        return [self.outer(v) for v in phis]
