"""Whether a kernel is well formed: what ``docs/design/loops.md`` demands and can be seen in it.

The rules that only a run could show (iterations that depend on each other, indices out of range)
are the kernel writer's to keep.
"""

from __future__ import annotations

from facula.base.dtypes import bool_, int32, int64
from facula.base.errors import CompileError
from facula.ir import loops as L
from facula.ir.print_loops import expr as show
from facula.ir.print_loops import statement_text

_FLOAT = {"sqrt", "copysign"} | set(L.TRANSCENDENTAL)
_INTEGER = {"rem", "shl", "shr", "lshr", "ult", "dot2"}
_BITS = {"and", "or", "xor", "not"}
_BOOL = _BITS | {"add", "mul", "min", "max", "fmin", "fmax", "select", *L.COMPARISONS}


def verify(kernel: L.Kernel) -> None:
    """Check a kernel.

    Raises:
        CompileError: it breaks a rule; the message shows the statement and names the rule.

    >>> from facula.base.dtypes import float32
    >>> k = L.Builder("k")
    >>> y, n = k.buffer("y", float32, "w"), k.size("n")
    >>> with k.vector(0, n) as i:
    ...     k.store(y, i, y[i])
    >>> verify(k.kernel())
    Traceback (most recent call last):
    ...
    facula.base.errors.CompileError: loops: kernel k: y is read, but its access is "w"
      in: y[i0] = y[i0]
    """
    _Verifier(kernel).body(kernel.body)


class _Verifier:
    def __init__(self, kernel):
        self.kernel = kernel
        self.bound = {p for p in kernel.params if isinstance(p, L.Var)}
        self.buffers = {p for p in kernel.params if isinstance(p, L.Buffer)}
        self.locals = {}  # local -> the loops around its declaration
        self.loops = []
        self.statement = None
        self.known, self.constants = set(), set()
        self.reduced, self.read = {}, set()  # in the vector loop around
        names = [p.name for p in kernel.params]
        if len(set(names)) < len(names):
            self.fail("two parameters have one name")
        for p in kernel.params:
            if isinstance(p, L.Buffer) and p.scratch is not None:
                self.value(p.scratch, int64)

    def fail(self, what):
        where = f"\n  in: {statement_text(self.statement)}" if self.statement is not None else ""
        raise CompileError(f"loops: kernel {self.kernel.name}: {what}{where}")

    def inside(self, kind):
        return next((s for s in self.loops if s.kind == kind), None)

    # Statements

    def body(self, statements):
        outer_bound, outer_locals = set(self.bound), dict(self.locals)
        for s in statements:
            self.statement, self.known = s, set()
            getattr(self, "do_" + type(s).__name__.lower())(s)
        self.bound, self.locals = outer_bound, outer_locals

    def do_loop(self, s):
        for e in (s.lo, s.hi, s.step):
            self.value(e, int64)
            if s.kind == "unroll" and not self.constant(e):
                self.fail("an unrolled loop's bounds are not constants")
        if s.grain is not None:
            self.value(s.grain, int64)
        if s.kind not in ("serial", "parallel", "vector", "unroll"):
            self.fail(f"no kind of loop is called {s.kind!r}")
        if isinstance(s.step, L.Const) and (
            s.step.value == 0 or s.kind == "parallel" and s.step.value < 0
        ):
            self.fail(f"a step of {s.step.value}")
        if s.kind == "vector":
            if self.inside("vector"):
                self.fail("a vector loop inside of another")
            if not (isinstance(s.step, L.Const) and s.step.value == 1):
                self.fail("a vector loop's step is 1")
        if s.kind == "parallel" and self.inside("vector"):
            self.fail("a parallel loop inside of a vector loop")
        if s.var in self.bound:
            self.fail(f"{s.var.name} is bound already")
        self.bound.add(s.var)
        if s.kind == "unroll":
            self.constants.add(s.var)
        if s.kind == "vector":
            self.reduced, self.read = {}, set()
        self.loops.append(s)
        self.body(s.body)
        self.loops.pop()
        both = [x.name for x in self.reduced if x in self.read] if s.kind == "vector" else []
        if both:
            self.fail(f"{both[0]} is reduced and read in one vector loop")
        self.bound.discard(s.var)

    def do_while(self, s):
        self.value(s.cond, bool_)
        self.body(s.body)

    def do_if(self, s):
        self.value(s.cond, bool_)
        if self.inside("vector"):
            self.fail("an if inside of a vector loop; hint: use select or masks")
        self.body(s.body)
        self.body(s.orelse)

    def do_let(self, s):
        self.value(s.value, s.var.dtype)
        if s.var in self.bound:
            self.fail(f"{s.var.name} is bound already")
        self.bound.add(s.var)
        if self.constant(s.value):
            self.constants.add(s.var)

    def do_declare(self, s):
        self.value(s.init, s.local.dtype)
        if any(not isinstance(n, int) or n < 1 for n in s.local.shape):
            self.fail(f"the shape of {s.local.name} is not of positive constants")
        self.locals[s.local] = tuple(self.loops)

    def do_assign(self, s):
        self.local(s.local, s.index)
        self.value(s.value, s.local.dtype)
        self.writable(s.local)
        vector = self.inside("vector")
        if vector and vector not in self.locals[s.local] and not _along(s.index, vector.var):
            self.fail(f"{s.local.name} is from outside of the vector loop; hint: use reduce")

    def do_reduce(self, s):
        self.local(s.local, ())
        self.value(s.value, s.local.dtype)
        self.writable(s.local)
        if s.op not in L.REDUCTIONS:
            self.fail(f"no reduction is called {s.op!r}")
        vector = self.inside("vector")
        if vector and vector not in self.locals[s.local]:
            if self.reduced.setdefault(s.local, s.op) != s.op:
                self.fail(f"{s.local.name} is reduced by two ops in one vector loop")
        if s.op in ("and", "or") and s.local.dtype.kind == "f":
            self.fail(f"{s.op} of {s.local.dtype.name}")

    def do_store(self, s):
        self.buffer(s.buffer)
        if s.buffer.access == "r":
            self.fail(f'{s.buffer.name} is written, but its access is "r"')
        self.value(s.index, int64)
        self.value(s.value, s.buffer.dtype)
        if s.mask is not None:
            self.value(s.mask, bool_)

    def do_check(self, s):
        self.value(s.cond, bool_)
        if not isinstance(s.status, int) or s.status == 0:
            self.fail("a check's status is a number other than 0")

    def do_transpose(self, s):
        if s.local not in self.locals:
            self.fail(f"{s.local.name} is not declared here")
        if len(s.local.shape) != 2 or s.local.shape[0] != s.local.shape[1]:
            self.fail(f"{s.local.name} is no square tile")
        if self.inside("vector"):
            self.fail("a transpose inside of a vector loop")

    def do_prefetch(self, s):
        self.buffer(s.buffer)
        self.value(s.index, int64)

    def constant(self, e):
        """Whether an expression is a number once loops are unrolled."""
        if isinstance(e, L.Op):
            return all(map(self.constant, e.args))
        return isinstance(e, L.Const) or e in self.constants

    def writable(self, local):
        parallel = [s for s in self.loops if s.kind == "parallel"]
        if any(s not in self.locals[local] for s in parallel):
            self.fail(f"{local.name} is from outside of the parallel loop")

    # Expressions

    def value(self, e, dtype=None):
        """Check an expression, and its dtype if one is expected."""
        if dtype is not None and e.dtype is not dtype:
            self.fail(f"expected {dtype.name}, got {e.dtype.name}: {show(e)}")
        waiting = [e]  # operands first; a list, since chains may be longer than Python's stack
        while waiting:
            last = waiting[-1]
            if id(last) in self.known:
                waiting.pop()
                continue
            unknown = [c for c in L.children(last) if id(c) not in self.known]
            if unknown:
                waiting += unknown
                continue
            self.known.add(id(last))
            self.one(last)

    def one(self, e):
        """Check an expression whose operands are checked."""
        if isinstance(e, L.Var) and e not in self.bound:
            self.fail(f"{e.name} is not bound here")
        if isinstance(e, L.Load):
            self.load(e)
        elif isinstance(e, L.Get):
            self.local(e.local, e.index)
            self.read.add(e.local)
        elif isinstance(e, L.Cast):
            if e.bits and e.dtype.itemsize != e.args[0].dtype.itemsize:
                self.fail(f"bits of another size: {show(e)}")
        elif isinstance(e, L.Op):
            self.op(e)

    def load(self, e):
        self.buffer(e.buffer)
        if e.buffer.access == "w":
            self.fail(f'{e.buffer.name} is read, but its access is "w"')
        self.value(e.index, int64)
        if e.mask is not None:
            self.value(e.mask, bool_)
            self.value(e.other, e.buffer.dtype)

    def op(self, e):
        name, first = e.name, e.args[0].dtype
        count = 2 if name in L.COMPARISONS else 3 if name == "select" else None
        count = count or L.ARITHMETIC.get(name) or L.TRANSCENDENTAL.get(name)
        if count is None:
            self.fail(f"no op is called {name!r}")
        if len(e.args) != count:
            self.fail(f"{name} of {len(e.args)} operands, expected {count}")
        operands = e.args
        if name == "select":
            self.value(operands[0], bool_)
            operands = operands[1:]
            first = operands[0].dtype
        if any(a.dtype is not first for a in operands):
            self.fail(f"operands of several dtypes: {show(e)}")
        if e.dtype is not (bool_ if name in L.COMPARISONS else first):
            self.fail(f"{name} of {first.name} gives no {e.dtype.name}")
        kind = first.kind
        fits = name in _BOOL if kind == "b" else name not in (_INTEGER | _BITS)
        if kind in "ui":
            fits = name not in _FLOAT
        if not fits or name == "dot2" and first is not int32:
            self.fail(f"{name} of {first.name}: {show(e)}")

    def buffer(self, buffer):
        if buffer not in self.buffers:
            self.fail(f"{buffer.name} is no parameter of the kernel")

    def local(self, local, index):
        if local not in self.locals:
            self.fail(f"{local.name} is not declared here")
        if len(index) != len(local.shape):
            self.fail(f"{local.name} has {len(local.shape)} dimensions, got {len(index)} indices")
        for i in index:
            self.value(i, int64)


def _along(index, var) -> bool:
    """Whether a tile's last index is made of a vector loop's variable."""

    def mentions(e):
        return e is var or any(mentions(c) for c in L.children(e))

    return bool(index) and mentions(index[-1])
