"""Kernels as text, one statement a line: for people, golden files and ``explain``."""

from __future__ import annotations

from facula.ir import loops as L


def text(kernel: L.Kernel) -> str:
    """The whole kernel."""
    params = ", ".join(_param(p) for p in kernel.params)
    lines = [f"kernel {kernel.name}({params})"]
    for statement in kernel.body:
        _statement(statement, 1, lines)
    return "\n".join(lines)


def statement_text(s) -> str:
    """One statement, on its own line without what is nested in it."""
    lines = []
    _statement(s, 0, lines)
    return lines[0]


def _param(p):
    if isinstance(p, L.Buffer):
        if p.scratch is None:
            return f"{p.name}: {p.dtype.name}[] {p.access}"
        where = "thread scratch" if p.per_thread else "scratch"
        return f"{p.name}: {p.dtype.name}[{expr(p.scratch)}] {where}"
    return f"{p.name}: " + ("size" if p.dtype is L.int64 else p.dtype.name)


def expr(e) -> str:
    """One expression."""
    if isinstance(e, L.Const):
        return repr(e.value)
    if isinstance(e, L.Var):
        return e.name
    if isinstance(e, L.Thread):
        return "thread"
    if isinstance(e, L.Cast):
        return f"{'bits' if e.bits else 'cast'}.{e.dtype.name}({expr(e.args[0])})"
    if isinstance(e, L.Load):
        masked = "" if e.mask is None else f" if {expr(e.mask)} else {expr(e.other)}"
        return f"{e.buffer.name}[{expr(e.index)}{masked}]"
    if isinstance(e, L.Get):
        return e.local.name + _index(e.index)
    return f"{e.name}({', '.join(expr(a) for a in e.args)})"


def _index(index):
    return f"[{', '.join(expr(i) for i in index)}]" if index else ""


def _statement(s, depth, lines):
    def say(line):
        lines.append("  " * depth + line)

    def inner(body):
        for statement in body:
            _statement(statement, depth + 1, lines)

    if isinstance(s, L.Loop):
        step = "" if isinstance(s.step, L.Const) and s.step.value == 1 else f" by {expr(s.step)}"
        grain = "" if s.grain is None else f" grain {expr(s.grain)}"
        say(f"{s.kind} {s.var.name} in {expr(s.lo)} .. {expr(s.hi)}{step}{grain}")
        inner(s.body)
    elif isinstance(s, L.While):
        say(f"while {expr(s.cond)}")
        inner(s.body)
    elif isinstance(s, L.If):
        say(f"if {expr(s.cond)}")
        inner(s.body)
        if s.orelse:
            say("else")
            inner(s.orelse)
    elif isinstance(s, L.Let):
        say(f"let {s.var.name}: {s.var.dtype.name} = {expr(s.value)}")
    elif isinstance(s, L.Declare):
        shape = "".join(f"[{n}]" for n in s.local.shape)
        say(f"local {s.local.name}: {s.local.dtype.name}{shape} = {expr(s.init)}")
    elif isinstance(s, L.Assign):
        say(f"{s.local.name}{_index(s.index)} = {expr(s.value)}")
    elif isinstance(s, L.Reduce):
        say(f"{s.local.name} {s.op}= {expr(s.value)}")
    elif isinstance(s, L.Store):
        mask = "" if s.mask is None else f" if {expr(s.mask)}"
        say(f"{s.buffer.name}[{expr(s.index)}] = {expr(s.value)}{mask}")
    elif isinstance(s, L.Check):
        say(f"check {expr(s.cond)} else {s.status}")
    elif isinstance(s, L.Prefetch):
        say(f"prefetch {s.buffer.name}[{expr(s.index)}]")
    else:
        say(f"transpose {s.local.name}")
