"""Runs Loops expressions on arrays: every op becomes one line of LLVM text, in vectors.

It is kept apart from ``facula.codegen`` on purpose: the maths library can be tested without the
rest of the code generator, at any number of lanes, and with true fused multiply-adds.
"""

from __future__ import annotations

import ctypes
import struct

import numpy as np

from facula.base.dtypes import bool_, float32, float64
from facula.codegen.maths import Rarely
from facula.ir import loops as L

TYPES = {
    "bool": "i1",
    "int32": "i32",
    "int64": "i64",
    "float32": "float",
    "float64": "double",
}
SUFFIX = {"float": "f32", "double": "f64", "i32": "i32", "i64": "i64", "i1": "i1"}
FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
INTEGER = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "shl": "shl",
    "shr": "ashr",
    "lshr": "lshr",
}
INTRINSIC = {
    "abs": "fabs",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
    "copysign": "copysign",
    "fma": "fma",
    "min": "minimum",
    "max": "maximum",
    "fmin": "minnum",
    "fmax": "maxnum",
}
FCMP = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
ICMP = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "ult": "ult"}


class Text:
    """Lines of LLVM text for expressions over vectors of ``lanes`` elements."""

    def __init__(self, lanes: int):
        self.lanes, self.lines, self.names, self.declared = lanes, [], {}, set()

    def type(self, dtype) -> str:
        return f"<{self.lanes} x {TYPES[dtype.name]}>"

    def line(self, text: str) -> str:
        self.lines.append(f"  %v{len(self.lines)} = {text}")
        return f"%v{len(self.lines) - 1}"

    def call(self, name: str, dtype, args) -> str:
        type_ = self.type(dtype)
        full = f"@llvm.{name}.v{self.lanes}{SUFFIX[TYPES[dtype.name]]}"
        self.declared.add(f"declare {type_} {full}({', '.join([type_] * len(args))})")
        return self.line(f"call {type_} {full}({', '.join(f'{type_} {a}' for a in args)})")

    def constant(self, e) -> str:
        kind = TYPES[e.dtype.name]
        if e.dtype.kind == "f":
            value = np.float32(e.value) if e.dtype is float32 else np.float64(e.value)
            word = f"0x{struct.unpack('<Q', struct.pack('<d', float(value)))[0]:016X}"
        else:
            word = str(int(e.value))
        return "<" + ", ".join([f"{kind} {word}"] * self.lanes) + ">"

    def value(self, e) -> str:
        """The name of ``e``'s value. An expression met twice is computed once."""
        if id(e) not in self.names:
            self.names[id(e)] = self.constant(e) if isinstance(e, L.Const) else self.write(e)
        return self.names[id(e)]

    def write(self, e) -> str:
        args = [self.value(a) for a in e.args]
        source = e.args[0].dtype
        if isinstance(e, L.Cast):
            return self.cast(e, source, args[0])
        if isinstance(e, Rarely):
            e = L.select(*e.args)
        type_ = self.type(source)
        name, is_float = e.name, source.kind == "f"
        if name == "select":
            t = self.type(e.dtype)
            return self.line(f"select {self.type(bool_)} {args[0]}, {t} {args[1]}, {t} {args[2]}")
        if name in L.COMPARISONS:
            how = f"fcmp {FCMP[name]}" if is_float else f"icmp {ICMP[name]}"
            return self.line(f"{how} {type_} {args[0]}, {args[1]}")
        if name == "neg":
            return self.line(
                f"fneg {type_} {args[0]}" if is_float else f"sub {type_} zeroinitializer, {args[0]}"
            )
        if name == "not":
            ones = "<" + ", ".join([f"{TYPES[source.name]} -1"] * self.lanes) + ">"
            return self.line(f"xor {type_} {args[0]}, {ones}")
        table = FLOAT if is_float else INTEGER
        if name in table:
            return self.line(f"{table[name]} {type_} {args[0]}, {args[1]}")
        return self.call(INTRINSIC[name], e.dtype, args)

    def cast(self, e, source, arg) -> str:
        how = {"ff": None, "fi": "fptosi", "if": "sitofp", "bi": "zext", "bf": "uitofp"}
        if e.bits:
            name = "bitcast"
        elif source.kind == e.dtype.kind:
            wider = e.dtype.itemsize > source.itemsize
            name = {"f": ("fptrunc", "fpext"), "i": ("trunc", "sext")}[source.kind][wider]
        else:
            name = how[source.kind + e.dtype.kind]
        return self.line(f"{name} {self.type(source)} {arg} to {self.type(e.dtype)}")


def text_of(expr, params, lanes: int) -> str:
    """A function ``f(inputs..., out, n)`` that evaluates ``expr`` over arrays."""
    t = Text(lanes)
    for i, p in enumerate(params):
        address = t.line(f"getelementptr {TYPES[p.dtype.name]}, ptr %p{i}, i64 %i")
        t.names[id(p)] = t.line(f"load {t.type(p.dtype)}, ptr {address}, align 1")
    result = t.value(expr)
    kind = TYPES[expr.dtype.name]
    names = ", ".join(f"ptr %p{i}" for i in range(len(params)))
    return "\n".join(
        [
            *sorted(t.declared),
            f"define void @f({names}, ptr %out, i64 %n) {{",
            "entry:\n  br label %loop",
            "loop:\n  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
            *t.lines,
            f"  %o = getelementptr {kind}, ptr %out, i64 %i",
            f"  store {t.type(expr.dtype)} {result}, ptr %o, align 1",
            f"  %next = add i64 %i, {lanes}",
            "  %more = icmp slt i64 %next, %n",
            "  br i1 %more, label %loop, label %done",
            "done:\n  ret void\n}",
        ]
    )


class Machine:
    """Compiles functions for this computer, or for it without some of its features."""

    def __init__(self, features: str | None = None):
        import llvmlite.binding as llvm

        self.llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.features = features or llvm.get_host_cpu_features().flatten()
        self.keep = []

    def target(self):
        target = self.llvm.Target.from_default_triple()
        return target.create_target_machine(
            cpu=self.llvm.get_host_cpu_name(), features=self.features, opt=2
        )

    def assembly(self, text: str) -> str:
        return self.target().emit_assembly(self.llvm.parse_assembly(text))

    def function(self, text: str, pointers: int):
        engine = self.llvm.create_mcjit_compiler(self.llvm.parse_assembly(text), self.target())
        engine.finalize_object()
        self.keep.append(engine)
        types = [ctypes.c_void_p] * pointers + [ctypes.c_int64]
        return ctypes.CFUNCTYPE(None, *types)(engine.get_function_address("f"))


_machine = None


def compile(build, *dtypes, lanes=None, machine=None):
    """A function on arrays that evaluates the expression ``build(*parameters)``.

    ``lanes`` defaults to 64 bytes of the first parameter.
    """
    global _machine
    machine = machine or _machine or Machine()
    _machine = _machine or machine
    params = [L.Var(f"x{i}", d) for i, d in enumerate(dtypes)]
    expr = build(*params)
    lanes = lanes or 64 // params[0].dtype.itemsize
    function = machine.function(text_of(expr, params, lanes), len(params) + 1)
    out_type = np.dtype(expr.dtype.name)

    def run(*arrays, out=None):
        arrays = [np.ascontiguousarray(a, d.numpy()) for a, d in zip(arrays, dtypes)]
        n = arrays[0].size
        if n % lanes:
            arrays = [np.concatenate([a.ravel(), a.ravel()[:1].repeat(-n % lanes)]) for a in arrays]
        if out is None or n % lanes:
            out = np.empty(arrays[0].size, out_type)
        function(*(a.ctypes.data for a in arrays), out.ctypes.data, arrays[0].size)
        return out[:n]

    run.text, run.native = text_of(expr, params, lanes), function
    return run


def transcendental(name: str, dtype=float64, **options):
    """The library's ``name`` on arrays of ``dtype``."""
    from facula.codegen import maths

    count = L.TRANSCENDENTAL[name]
    return compile(lambda *args: maths.lower(L.call(name, *args)), *[dtype] * count, **options)
