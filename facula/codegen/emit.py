"""Statements and expressions of Loops, written as LLVM text.

:func:`emit` is the entrance. An :class:`Emitter` writes one function: the kernel itself, or the
body of one of its parallel loops (``parallel``), which sees the outer function's values through
captures. ``vectors`` writes vector loops, ``memory`` loads and stores, ``arithmetic`` and
``casts`` the rest.
"""

from __future__ import annotations

from facula.base import config
from facula.base.dtypes import (
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
)
from facula.codegen import arithmetic, casts, maths, memory, parallel, vectors
from facula.codegen.facts import Analysis, post_order
from facula.codegen.module import Module
from facula.codegen.target import Target
from facula.codegen.values import PTR, Value, constant, lane_numbers, splat
from facula.codegen.writer import Writer
from facula.ir import loops as L
from facula.ir.verify_loops import verify

_ZERO = constant(0, int64)


def emit(kernel: L.Kernel, target: Target) -> str:
    """A kernel as LLVM text, without target triple and data layout.

    The function is ``i64 @<kernel.name>(ptr)``; its argument is the address of 8-byte words, one
    a parameter: a buffer's address, a size, a scalar's bits. If a scratch buffer is per thread,
    a last word is the number of bytes from one thread's to the next. It returns 0, or the status
    of a Check that failed.

    Raises:
        CompileError: with ``FACULA_VERIFY`` set, the kernel breaks a rule of the language.
    """
    if config.VERIFY:
        verify(kernel)
    module = Module(target)
    analysis = Analysis(target)
    em = Emitter(module, target, analysis, kernel.name)
    em.tile_lanes = vectors.tile_lanes(kernel.body, analysis)
    _parameters(em, kernel)
    checks = analysis.of(kernel.body).checks
    w = em.w
    if checks:
        w.scope.head += ["  %status = alloca i64, align 8", "  store i64 0, ptr %status, align 8"]
        em.status = Value("%status", PTR, 0, 0)
    em.body(kernel.body)
    result = "0"
    if checks:
        result = w.here("load i64, ptr %status, align 8", int64, 0).text
    w.line(f"ret i64 {result}")
    module.define(f"i64 @{kernel.name}(ptr %args) nounwind", w)
    return module.text()


def _parameters(em, kernel):
    """Read the argument words; those that nothing uses LLVM drops."""
    w = em.w
    args = Value("%args", PTR, 0, 0)

    def word(i, t, d):
        pointer = w.advance(args, constant(i, int64), "i64")
        return w.pure(f"load {t}, ptr {pointer.text}, align 8", d, 0, pointer)

    for i, p in enumerate(kernel.params):
        if isinstance(p, L.Buffer):
            em.buffers[p] = word(i, "ptr", PTR)
            if p.per_thread:
                em.thread_stride = word(len(kernel.params), "i64", int64)
        else:
            t = "double" if p.dtype is float64 else "i64"
            em.vars[p] = word(i, t, p.dtype)


class Emitter:
    """Writes one function.

    Attributes:
        vars, aliases, buffers: what names stand for; index expressions of Lets by alias.
        locals: the registers that hold a local now, a list.
        lanes: lanes of the vector loop around, or 0; ``along`` is its variable.
        mask, left: its lanes that count, and their number if they are the first; None if all.
        accumulators: in a reducing vector loop, the local that stands for each reduced one.
        tid: the number of the thread.
    """

    def __init__(self, module, target, analysis, name, parent=None):
        self.module, self.target, self.analysis, self.name = module, target, analysis, name
        self.parent = parent
        self.w = Writer(module)
        self.vars, self.aliases, self.buffers, self.locals = {}, {}, {}, {}
        self.lanes, self.varying, self.accumulators = 0, (), {}
        self.mask = self.left = self.along = None
        self.tid = _ZERO
        self.status = self.thread_stride = None
        self.captured = {}
        self.tile_lanes = parent.tile_lanes if parent else {}
        if parent:
            self.aliases = dict(parent.aliases)
            self.thread_stride = parent.thread_stride

    # Names

    def variable(self, var: L.Var) -> Value:
        v = self.vars.get(var)
        if v is None:
            if var in self.aliases:
                v = self.value(self.aliases[var], {})
                return v
            if self.parent is None:
                raise KeyError(f"loops: {var.name} is used where it is not bound")
            v = self.vars[var] = self.capture(self.parent.variable(var))
        return v

    def pointer(self, buffer: L.Buffer) -> Value:
        """The address of a buffer's first element, of this thread's if it is per thread."""
        v = self.buffers.get(buffer)
        if v is None:
            v = self.buffers[buffer] = self.capture(self.parent.buffers_address(buffer))
        if not buffer.per_thread:
            return v
        stride = self.thread_stride
        if self.parent:
            stride = self.capture(stride)
        return self.w.advance(v, self.w.mul(self.tid, stride), "i8")

    def buffers_address(self, buffer):
        """As in the argument words; captured from function to function."""
        v = self.buffers.get(buffer)
        return v if v is not None else self.capture(self.parent.buffers_address(buffer))

    def registers(self, local: L.Local) -> list:
        found = self.locals.get(local)
        if found is None:
            if self.parent is None:
                raise KeyError(f"loops: {local.name} is used where it is not declared")
            found = [self.capture(v) for v in self.parent.registers(local)]
            self.locals[local] = found
        return found

    def capture(self, v: Value) -> Value:
        """A value of the enclosing function, read from the environment."""
        if v.const is not None or v.text.startswith("@"):
            return v
        return parallel.capture(self, v)

    def stack(self) -> Value:
        """The address of a vector on the stack."""
        text = "  %stack = alloca [64 x i8], align 64"
        if text not in self.w.scopes[0].head:
            self.w.scopes[0].head.insert(0, text)
        return Value("%stack", PTR, 0, 0)

    # Expressions

    def value(self, e: L.Expr, memo: dict) -> Value:
        """The value of an expression; ``memo`` holds those of parts shared within a statement."""
        return _EXPRESSIONS[type(e)](self, e, memo)

    def evaluate(self, e: L.Expr, memo: dict | None = None) -> Value:
        """As :meth:`value`, of an expression of any depth."""
        memo = {} if memo is None else memo
        kind = type(e)
        if kind is L.Op or kind is L.Cast or kind is L.Load:
            for part in post_order(e):
                _EXPRESSIONS[type(part)](self, part, memo)
        return self.value(e, memo)

    def vector(self, v: Value) -> Value:
        """A linear value as a vector in registers, others as they are."""
        if not v.linear:
            return v
        w, lanes = self.w, self.lanes
        base, offset, stride = v.linear
        numbers = lane_numbers(int64, lanes)
        if stride.const != 1:
            wide = casts.widen(w, stride, lanes)
            numbers = w.pure(f"mul {wide.typed}, {numbers.text}", int64, lanes, wide)
        if offset:
            wide = splat(constant(offset, int64), lanes)
            numbers = w.pure(f"add {numbers.typed}, {wide.text}", int64, lanes, numbers)
        wide = casts.widen(w, base, lanes)
        return w.pure(f"add {wide.typed}, {numbers.text}", int64, lanes, wide, numbers)

    # Statements

    def body(self, statements):
        for s in statements:
            _STATEMENTS[type(s)](self, s)

    def serial(self, var, lo, hi, step, body):
        """The iterations one after the other, locals carried from each to the next."""
        names = self.carried(body)

        def run(index, values):
            self.vars[var] = index
            self.set_flat(names, values)
            self.body(body)
            return self.flat(names)

        stores = self.analysis.of(body).stores
        self.set_flat(names, self.w.loop(lo, hi, step, self.flat(names), run, stores))

    def constants(self, s) -> range:
        """The indices of an unrolled loop."""
        lo, hi, step = (self.evaluate(x).const for x in (s.lo, s.hi, s.step))
        if None in (lo, hi, step):
            raise ValueError(f"loops: bounds of unroll {s.var.name} are not constants")
        return range(lo, hi, step)

    def carried(self, body) -> list:
        """Locals from outside that a body assigns; accumulators for those reduced into."""
        facts = self.analysis.of(body)
        return [
            self.accumulators.get(x, x)
            for x in facts.assigned
            if x in self.locals and x not in facts.declared
        ]

    def flat(self, names) -> list:
        """The registers of locals, one after the other."""
        return [v for x in names for v in self.locals[x]]

    def set_flat(self, names, values):
        """Give locals their registers back, as :meth:`flat` lists them."""
        at = 0
        for x in names:
            size = len(self.locals[x])
            self.locals[x] = list(values[at : at + size])
            at += size


# Expressions ------------------------------------------------------------------------------------


def _const(em, e, memo):
    return constant(e.value, e.dtype)


def _var(em, e, memo):
    return em.variable(e)


def _thread(em, e, memo):
    return em.tid


def _memoised(compute):
    def run(em, e, memo):
        found = memo.get(id(e))
        if found is None:
            found = memo[id(e)] = compute(em, e, memo)
        return found

    return run


def _op(em, e, memo):
    if e.name in L.TRANSCENDENTAL:
        return _transcendental(em, e, memo)
    name, operands = e.name, e.args
    inner = operands[0]
    if name == "not" and type(inner) is L.Op and inner.args[0].dtype.kind == "f":
        # Of floats this is another comparison, true of NaN.
        if inner.name in ("lt", "le", "gt", "ge"):
            name, operands = f"not {inner.name}", inner.args
    args = [em.value(a, memo) for a in operands]
    w = em.w
    if e.dtype is int64 and e.name in ("add", "sub", "mul"):
        result = _index_arithmetic(w, e.name, *args)
        if result is not None:
            return result
    lanes = 0
    for i, a in enumerate(args):
        if a.linear:
            args[i] = a = em.vector(a)
        lanes = lanes or a.lanes
    if lanes:
        args = [casts.widen(w, a, lanes) for a in args]
    return arithmetic.apply(w, em.target, name, args)


def _index_arithmetic(w, name, a, b):
    """Sums and products of scalars and linear values; None if one is another vector."""
    if not a.linear and not b.linear:
        if a.lanes or b.lanes:
            return None
        return getattr(w, name)(a, b)
    if a.lanes and not a.linear or b.lanes and not b.linear:
        return None
    lanes = a.lanes or b.lanes
    if name == "mul":
        if a.linear and b.linear:
            return None
        (base, offset, stride), k = (a.linear, b) if a.linear else (b.linear, a)
        if k.const is None:
            parts = w.mul(w.add(base, constant(offset, int64)), k), 0, w.mul(stride, k)
        else:
            parts = w.mul(base, k), offset * k.const, w.mul(stride, k)
        return _linear(lanes, *parts)
    (x, xo, xs), (y, yo, ys) = _parts(a), _parts(b)
    offset = xo + yo if name == "add" else xo - yo
    op = w.add if name == "add" else w.sub
    return _linear(lanes, op(x, y), offset, op(xs, ys))


def _parts(v):
    return v.linear or (v, 0, _ZERO)


def _linear(lanes, base, offset, stride):
    depth = max(base.depth, stride.depth)
    return Value("", int64, lanes, depth, None, (base, offset, stride))


def _transcendental(em, e, memo):
    """Through an expression in arithmetic, which is made once for each function and dtype."""
    args = [em.vector(em.value(a, memo)) for a in e.args]
    dtype = float32 if e.dtype in (float16, bfloat16) else e.dtype
    args = [casts.convert(em.w, a, dtype) for a in args]
    key = e.name, dtype
    if key not in _LOWERED:
        holes = tuple(L.Var(f"a{i}", dtype) for i in range(len(args)))
        lowered = maths.lower(L.Op(e.name, holes, dtype))
        _LOWERED[key] = holes, maths.schedule(lowered)
    holes, schedule = _LOWERED[key]
    saved = {h: em.vars.get(h) for h in holes}
    em.vars.update(zip(holes, args))
    result = _scheduled(em, schedule, {})
    em.vars.update(saved)
    return casts.convert(em.w, result, e.dtype)


_LOWERED: dict = {}


def _scheduled(em, schedule, memo):
    """The value of the last expression; the others come before what is made of them."""
    for part in schedule:
        result = em.value(part, memo)
    return result


def _rarely(em, e, memo):
    cond, rare, common = e.args
    cond, common = (em.vector(em.value(a, memo)) for a in (cond, common))

    def run():
        # A copy: what is computed in the branch exists only there.
        value = _scheduled(em, maths.schedule(rare), dict(memo))
        return [em.w.choose(cond, value, common)]

    wanted = memory.any_lane(em.w, cond) if cond.lanes else cond
    return em.w.branch(wanted, run, None, [common])[0]


def _scaled(em, e, memo):
    x, n, keep = (em.vector(em.value(a, memo)) for a in e.first)
    size, d = 8 * x.lanes * x.dtype.itemsize, {8: int8, 16: int16}.get(x.lanes)
    if not em.target.scales or size not in (256, 512) or d is None:
        return _scheduled(em, maths.schedule(e.args[3]), memo)
    kept = constant(-1, d)
    if keep.const is None:
        kept = em.w.pure(f"bitcast {keep.typed} to {kept.type}", d, 0, keep)
    rounding = (constant(4, int32),) if size == 512 else ()
    name = f"llvm.x86.avx512.mask.scalef.p{'s' if x.dtype is float32 else 'd'}.{size}"
    return em.w.call(x.dtype, name, x, n, casts.like(em.w, 0.0, x), kept, *rounding)


def _cast(em, e, memo):
    v = em.vector(em.value(e.args[0], memo))
    return (casts.bits if e.bits else casts.convert)(em.w, v, e.dtype)


def _get(em, e, memo):
    registers = em.registers(e.local)
    if not e.index:
        return registers[0]
    number, lane = vectors.register(em, e.local, e.index, memo)
    v = registers[number]
    if lane is None:
        return v
    return em.w.pure(f"extractelement {v.typed}, i64 {lane}", v.dtype, 0, v)


_EXPRESSIONS = {
    L.Const: _const,
    L.Var: _var,
    L.Thread: _thread,
    L.Op: _memoised(_op),
    L.Cast: _memoised(_cast),
    L.Load: _memoised(memory.load),
    L.Get: _get,
    maths.Rarely: _memoised(_rarely),
    maths.Scaled: _memoised(_scaled),
}


# Statements -------------------------------------------------------------------------------------


def _loop(em, s):
    if s.kind == "vector":
        vectors.loop(em, s)
    elif s.kind == "unroll":
        for i in em.constants(s):
            em.vars[s.var] = constant(i, int64)
            em.body(s.body)
    elif s.kind == "parallel" and em.parent is None:
        parallel.loop(em, s)
    else:  # A parallel loop inside of another has its threads already.
        lo, hi, step = (em.evaluate(x) for x in (s.lo, s.hi, s.step))
        em.serial(s.var, lo, hi, step, s.body)


def _while(em, s):
    names = em.carried(s.body)

    def cond(values):
        em.set_flat(names, values)
        v = em.evaluate(s.cond)
        if v.lanes:
            raise ValueError("loops: the condition of while differs between lanes")
        return v

    def run(values):
        em.body(s.body)
        return em.flat(names)

    stores = em.analysis.of(s.body).stores
    em.set_flat(names, em.w.while_(em.flat(names), cond, run, stores))


def _if(em, s):
    cond = em.evaluate(s.cond)
    if cond.lanes:
        raise ValueError("loops: the condition of if differs between lanes; hint: use select")
    names = list(dict.fromkeys(em.carried(s.body) + em.carried(s.orelse)))
    before = em.flat(names)

    def run(body):
        em.set_flat(names, before)
        em.body(body)
        return em.flat(names)

    orelse = (lambda: run(s.orelse)) if s.orelse else None
    em.set_flat(names, em.w.branch(cond, lambda: run(s.body), orelse, before))


_AFFINE = ("add", "sub", "mul")


def _is_index(e) -> bool:
    if isinstance(e, L.Op):
        return e.name in _AFFINE and all(map(_is_index, e.args))
    return isinstance(e, (L.Var, L.Const, L.Thread))


def _let(em, s):
    if s.var.dtype is int64 and isinstance(s.value, L.Op) and _is_index(s.value):
        # Kept as an expression, so that addresses can take it apart by loop level.
        em.aliases[s.var] = s.value
        return
    em.vars[s.var] = em.evaluate(s.value)


def _declare(em, s):
    v = em.vector(em.evaluate(s.init))
    count = 1
    for n in s.local.shape:
        count *= n
    lanes = em.tile_lanes.get(s.local, 0)
    if lanes:
        count = count // s.local.shape[-1] * -(-s.local.shape[-1] // lanes)
    elif em.lanes and s.local in em.varying:
        lanes = em.lanes
    em.locals[s.local] = [casts.widen(em.w, v, lanes)] * count


def _assign(em, s):
    v = em.vector(em.evaluate(s.value))
    number, lane = vectors.register(em, s.local, s.index, {}) if s.index else (0, None)
    registers = em.registers(s.local)
    old = registers[number]
    if lane is not None:
        v = em.w.pure(
            f"insertelement {old.typed}, {v.typed}, i64 {lane}", old.dtype, old.lanes, old, v
        )
    set_register(em, s.local, number, v)


def set_register(em, local, number, v):
    """Assign one register, in the lanes that count if it holds a vector from outside."""
    registers = list(em.registers(local))
    old = registers[number]
    if v.lanes > old.lanes:
        raise ValueError(f"loops: {local.name} is assigned a different value in each lane")
    registers[number] = casts.widen(em.w, v, old.lanes)
    em.locals[local] = registers


def _reduce(em, s):
    local = em.accumulators.get(s.local, s.local)
    v = em.vector(em.evaluate(s.value))
    old = em.registers(local)[0]
    v = casts.widen(em.w, v, old.lanes) if old.lanes else v
    new = arithmetic.apply(em.w, em.target, s.op, [old, v])
    if em.mask is not None and local is not s.local:
        new = em.w.choose(em.mask, new, old)
    set_register(em, local, 0, new)


def _store(em, s):
    memory.store(em, s, {})


def _check(em, s):
    w = em.w
    cond = em.vector(em.evaluate(s.cond))
    if cond.const:
        return
    if cond.lanes:
        bad = arithmetic.apply(w, em.target, "not", [cond])
        if em.mask is not None:
            bad = w.pure(f"and {bad.typed}, {em.mask.text}", bool_, bad.lanes, bad, em.mask)
        bad = memory.any_lane(w, bad)
    else:
        bad = arithmetic.apply(w, em.target, "not", [cond])

    def fail():
        pointer = parallel.status(em)
        w.line(f"store atomic i64 {s.status}, ptr {pointer.text} monotonic, align 8")
        return ()

    w.branch(bad, fail)


def _transpose(em, s):
    vectors.transpose(em, s.local)


def _prefetch(em, s):
    memory.prefetch(em, s, {})


_STATEMENTS = {
    L.Loop: _loop,
    L.While: _while,
    L.If: _if,
    L.Let: _let,
    L.Declare: _declare,
    L.Assign: _assign,
    L.Reduce: _reduce,
    L.Store: _store,
    L.Check: _check,
    L.Transpose: _transpose,
    L.Prefetch: _prefetch,
}
