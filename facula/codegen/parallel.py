"""Parallel loops: the body as a function of a chunk of the range.

The enclosing function puts what the body needs of it into an environment, 8 bytes a value, and
hands both to ``facula_parallel``. Which values are needed turns out while the body is written.
"""

from __future__ import annotations

from facula.base.dtypes import bool_, int64
from facula.codegen.values import BYTE, MEMORY, PTR, Value, constant

#: Chunks a thread, so that threads that are done early take over work of others.
_CHUNKS = 4
_ENV = Value("%env", PTR, 0, 0)
_ZERO, _ONE = constant(0, int64), constant(1, int64)


def loop(em, s):
    """Write a parallel loop of the kernel's own function."""
    w = em.w
    lo, hi, step = (em.evaluate(x) for x in (s.lo, s.hi, s.step))
    grain = em.evaluate(s.grain) if s.grain is not None else _ONE
    trips = _trips(w, lo, hi, step)
    some = w.compare("sgt", trips, _ZERO)
    if some.const is False:
        return
    # The division into chunks is done whether or not there is an iteration: it cannot trap.
    chunks = _chunks(em, trips, grain)
    each = _divide(w, trips, chunks)
    rest = w.sub(trips, w.mul(each, chunks))

    child = type(em)(em.module, em.target, em.analysis, em.name, parent=em)
    _chunk(child, s, *(child.capture(v) for v in (lo, step, each, rest)))
    name = f"{em.name}.par{len(em.module.functions)}"
    em.module.define(f"internal void @{name}(ptr %env, i64 %chunk, i64 %tid) nounwind", child.w)

    def run():
        env = _environment(w, child.captured)
        w.branch(
            w.compare("eq", chunks, _ONE),
            lambda: _call(w, f"@{name}(ptr {env}, i64 0, i64 0)"),
            lambda: _call(w, f"@facula_parallel(ptr @{name}, ptr {env}, i64 {chunks.text})"),
        )
        return ()

    em.module.declare("facula_parallel", "void", "ptr, ptr, i64")
    w.branch(some, run)
    for buffer in em.analysis.of(s.body).stores:
        w.wrote(buffer)


def _call(w, text):
    w.line(f"call void {text}")
    return ()


def _trips(w, lo, hi, step):
    """The number of iterations, 0 or less if there is none."""
    span = w.sub(hi, lo)
    if step.const == 1:
        return span
    return _divide(w, w.add(span, w.sub(step, _ONE)), step)


def _divide(w, a, b):
    """The quotient of scalars, the divisor positive; 0 or less for ``a`` of 0 or less."""
    if b.const == 1:
        return a
    if a.const is not None and b.const is not None:
        return constant(max(a.const, 0) // b.const, int64)
    return w.pure(f"sdiv i64 {a.text}, {b.text}", int64, 0, a, b)


def _chunks(em, trips, grain):
    """How many chunks: of ``grain`` iterations or more, some a thread, at least 1."""
    w = em.w
    threads = w.here(f"load i64, ptr {em.module.threads()}, align 8", int64, 0)
    several = w.compare("sgt", threads, _ONE)
    most = w.choose(several, w.mul(threads, constant(_CHUNKS, int64)), _ONE)
    grain = w.call(int64, "llvm.smax.i64", grain, _ONE) if grain.const is None else grain
    count = w.call(int64, "llvm.smin.i64", _divide(w, trips, grain), most)
    return w.call(int64, "llvm.smax.i64", count, _ONE)


def _chunk(child, s, lo, step, each, rest):
    """The body's function: chunk ``c`` has ``each`` iterations, and one more if ``c < rest``."""
    w = child.w
    chunk = Value("%chunk", int64, 0, 0)
    child.tid = Value("%tid", int64, 0, 0)
    extra = w.call(int64, "llvm.smin.i64", chunk, rest)
    begin = w.add(w.mul(chunk, each), extra)
    more = w.compare("slt", chunk, rest)
    size = w.add(each, w.pure(f"zext i1 {more.text} to i64", int64, 0, more))
    first = w.add(lo, w.mul(begin, step))
    last = w.add(first, w.mul(size, step))
    child.serial(s.var, first, last, step, s.body)
    w.line("ret void")


def _environment(w, captured):
    """Write captured values to the caller's stack; returns the address."""
    env = w.name()
    w.scopes[0].head.append(f"  {env} = alloca [{max(len(captured), 1)} x i64], align 8")
    base = Value(env, PTR, 0, 0)
    for slot, (v, _) in enumerate(captured.values()):
        pointer = w.advance(base, constant(slot, int64), "i64")
        if v.dtype is bool_:
            v = w.pure(f"zext {v.typed} to i8", BYTE, 0, v)
        w.line(f"store {v.typed}, ptr {pointer.text}, align 8")
    return env


def capture(em, v: Value) -> Value:
    """An outer value inside of a body's function, read from the environment at its entry."""
    found = em.captured.get(v.text)
    if found is not None:
        return found[1]
    w = em.w
    head = w.scopes[0].head
    pointer, inside = w.name(), Value(w.name(), v.dtype, v.lanes, 0)
    head.append(f"  {pointer} = getelementptr i64, ptr %env, i64 {len(em.captured)}")
    if v.dtype is bool_:
        raw = w.name()
        head.append(f"  {raw} = load i8, ptr {pointer}, align 8")
        head.append(f"  {inside.text} = trunc i8 {raw} to i1")
    else:
        head.append(f"  {inside.text} = load {MEMORY[v.dtype]}, ptr {pointer}, align 8")
    em.captured[v.text] = v, inside
    return inside


def status(em) -> Value:
    """The address of the kernel's status."""
    if em.parent is None:
        return em.status
    return em.capture(status(em.parent))
