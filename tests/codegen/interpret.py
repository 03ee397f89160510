"""Loops run one element at a time on NumPy scalars: the oracle of the code generator's tests.

Nothing here knows of registers, vectors or masks; only the order of a Reduce over a vector loop
(four accumulators of 64 bytes) is taken over from the language's definition.
"""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np

from facula.base.dtypes import bfloat16, bool_, float16, float32, float64, int64
from facula.codegen import maths
from facula.codegen.facts import Analysis
from facula.codegen.target import Target
from facula.ir import loops as L

NARROW = (float16, bfloat16)


def numpy_type(d):
    """The NumPy type that stands for one element; bfloat16 is a float32 of few bits."""
    return np.float32 if d is bfloat16 else np.dtype(d.name).type


def to_bfloat16(x) -> np.float32:
    """Rounded to nearest, ties to even."""
    with np.errstate(all="ignore"):
        x = np.float32(x)
    if x != x:
        return x
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return np.float32(struct.unpack("<f", struct.pack("<I", bits))[0])


def scalar(value, d):
    """A number as an element of that dtype."""
    if d is bfloat16:
        return to_bfloat16(value)
    if d.kind in "ui":
        bits = 8 * d.itemsize
        value = int(value) & ((1 << bits) - 1)
        if d.kind == "i" and value >> (bits - 1):
            value -= 1 << bits
    with np.errstate(all="ignore"):
        return numpy_type(d)(value)


class Buffer:
    """An array seen as elements; bfloat16 is held as uint16."""

    def __init__(self, array, d):
        self.array, self.dtype = array, d

    def get(self, i):
        if not 0 <= i < len(self.array):
            raise IndexError(f"{i} outside of {len(self.array)} elements")
        if self.dtype is bfloat16:
            bits = int(self.array[i]) << 16
            return np.float32(struct.unpack("<f", struct.pack("<I", bits))[0])
        return self.array[i]

    def set(self, i, value):
        if not 0 <= i < len(self.array):
            raise IndexError(f"{i} outside of {len(self.array)} elements")
        if self.dtype is bfloat16:
            self.array[i] = struct.unpack("<I", struct.pack("<f", value))[0] >> 16
        else:
            self.array[i] = value


def run(kernel: L.Kernel, arguments: dict) -> int:
    """Run a kernel on arrays and numbers by parameter name; returns its status."""
    state = _State(kernel)
    for p in kernel.params:
        value = arguments[p.name]
        if isinstance(p, L.Buffer):
            state.buffers[p] = Buffer(value, p.dtype)
        else:
            state.vars[p] = scalar(value, p.dtype)
    with np.errstate(all="ignore"):
        state.body(kernel.body)
    return state.status


class _State:
    def __init__(self, kernel):
        self.vars, self.buffers, self.locals = {}, {}, {}
        self.status, self.sums, self.memo = 0, {}, {}
        self.analysis = Analysis(Target(64))

    # Expressions

    def value(self, e):
        if isinstance(e, L.Const):
            return scalar(e.value, e.dtype)
        if isinstance(e, L.Var):
            return self.vars[e]
        if id(e) not in self.memo:
            self.memo[id(e)] = self.compute(e)
        return self.memo[id(e)]

    def compute(self, e):
        if isinstance(e, L.Thread):
            return np.int64(0)
        if isinstance(e, L.Cast):
            return self.cast(e)
        if isinstance(e, L.Load):
            if e.mask is not None and not self.value(e.mask):
                return self.value(e.other)
            return self.buffers[e.buffer].get(int(self.value(e.index)))
        if isinstance(e, L.Get):
            return self.locals[e.local][tuple(int(self.value(i)) for i in e.index)]
        if isinstance(e, maths.Rarely):
            cond, rare, common = e.args
            return self.value(rare if self.value(cond) else common)
        if isinstance(e, maths.Scaled):
            return self.value(e.args[3])
        args = [self.value(a) for a in e.args]
        if e.name in L.TRANSCENDENTAL:
            return self.lowered(e, args)
        return apply(e.name, args, e.args[-1].dtype if e.name == "select" else e.args[0].dtype)

    def lowered(self, e, args):
        d = float32 if e.dtype in NARROW else e.dtype
        holes = tuple(L.Var(f"a{i}", d) for i in range(len(args)))
        self.vars.update(zip(holes, (scalar(a, d) for a in args)))
        outer, self.memo = self.memo, {}
        expression = maths.lower(L.Op(e.name, holes, d))
        result = scalar(self.value(expression), e.dtype)
        self.memo = outer
        return result

    def cast(self, e):
        value, source = self.value(e.args[0]), e.args[0].dtype
        if not e.bits:
            return convert(value, source, e.dtype)
        if source is bfloat16:
            raw = struct.pack("<f", value)[2:]
        else:
            raw = np.array(value).tobytes()
        if e.dtype is bfloat16:
            return np.frombuffer(b"\0\0" + raw, np.float32)[0]
        return np.frombuffer(raw, numpy_type(e.dtype))[0]

    # Statements

    def body(self, statements):
        for s in statements:
            self.memo = {}
            getattr(self, "do_" + type(s).__name__.lower())(s)

    def do_loop(self, s):
        lo, hi, step = (int(self.value(x)) for x in (s.lo, s.hi, s.step))
        facts = self.analysis.vector(s) if s.kind == "vector" else None
        if facts is None or not facts.reductions:
            for i in range(lo, hi, step):
                self.vars[s.var] = np.int64(i)
                self.body(s.body)
            return
        outer, lanes = self.sums, facts.lanes
        parts = {x: {} for x in facts.reductions}
        for e, i in enumerate(range(lo, hi)):
            self.vars[s.var] = np.int64(i)
            place = e // lanes % 4, e % lanes
            self.sums = {x: (p, place) for x, p in parts.items()}
            self.body(s.body)
        self.sums = outer
        for x, op in facts.reductions.items():
            total = combine(parts[x], op, x.dtype, lanes)
            if total is not None:
                self.locals[x][()] = apply(op, [self.locals[x][()], total], x.dtype)

    def do_while(self, s):
        while self.value(s.cond):
            self.body(s.body)
            self.memo = {}

    def do_if(self, s):
        self.body(s.body if self.value(s.cond) else s.orelse)

    def do_let(self, s):
        self.vars[s.var] = self.value(s.value)

    def do_declare(self, s):
        self.locals[s.local] = np.full(s.local.shape, self.value(s.init), dtype=object)

    def do_assign(self, s):
        self.locals[s.local][tuple(int(self.value(i)) for i in s.index)] = self.value(s.value)

    def do_reduce(self, s):
        value, d = self.value(s.value), s.local.dtype
        if s.local in self.sums:
            parts, place = self.sums[s.local]
            known = parts.get(place)
            parts[place] = value if known is None else apply(s.op, [known, value], d)
        else:
            self.locals[s.local][()] = apply(s.op, [self.locals[s.local][()], value], d)

    def do_store(self, s):
        if s.mask is None or self.value(s.mask):
            self.buffers[s.buffer].set(int(self.value(s.index)), self.value(s.value))

    def do_check(self, s):
        if not self.value(s.cond):
            self.status = s.status

    def do_transpose(self, s):
        self.locals[s.local] = self.locals[s.local].T.copy()

    def do_prefetch(self, s):
        """It changes no value."""


def combine(parts, op, d, lanes):
    """Accumulators 0 and 1, 2 and 3, their results, then halves; absent places are neutral."""

    def two(a, b):
        return b if a is None else a if b is None else apply(op, [a, b], d)

    a = [[parts.get((k, lane)) for lane in range(lanes)] for k in range(4)]
    v = [two(two(w, x), two(y, z)) for w, x, y, z in zip(*a)]
    while len(v) > 1:
        half = len(v) // 2
        v = [two(x, y) for x, y in zip(v[:half], v[half:])]
    return v[0]


def convert(value, source, to):
    """C's conversion, with what is undefined there defined as ``codegen.casts`` says."""
    if to is bool_:
        return np.bool_(value != 0)
    if source.kind == "f" and to.kind in "ui":
        bits, value = 64 if to is int64 else 32, float(value)
        if value != value:
            return scalar(0, to)
        least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        whole = least if value < least else most if value > most else int(value)
        return scalar(min(max(whole, least), most), to)
    if to in NARROW:
        value = np.float32(value)
    return scalar(value, to)


def apply(name, args, d):
    """One op on scalars of a dtype."""
    if name == "select":
        return args[1] if args[0] else args[2]
    if name in L.COMPARISONS:
        return _compare(name, *args)
    if d in NARROW:
        return scalar(apply(name, [np.float32(a) for a in args], float32), d)
    if d.kind == "f":
        return _float(name, args, d)
    if d is bool_:
        return _bool(name, args)
    return scalar(_integer(name, [int(a) for a in args], d), d)


def _compare(name, a, b):
    if name == "ult":
        size = 8 * np.array(a).itemsize
        return np.bool_(int(a) % (1 << size) < int(b) % (1 << size))
    return np.bool_(
        {
            "eq": a == b, "ne": a != b, "lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b,
        }[name]
    )  # fmt: skip


def _bool(name, args):
    args = [bool(a) for a in args]
    if name == "not":
        return np.bool_(not args[0])
    if name in ("add", "or", "max"):
        return np.bool_(args[0] or args[1])
    if name == "xor":
        return np.bool_(args[0] != args[1])
    return np.bool_(args[0] and args[1])


def _float(name, args, d):
    t = numpy_type(d)
    a, b = args[0], args[1] if len(args) > 1 else None
    if name == "fma":
        return _fma(*args, d)
    nan = t("nan")
    pick = {
        "min": lambda: nan if a != a or b != b else min(a, b),
        "max": lambda: nan if a != a or b != b else max(a, b),
        "fmin": lambda: b if a != a else a if b != b else min(a, b),
        "fmax": lambda: b if a != a else a if b != b else max(a, b),
    }
    if name in pick:
        return pick[name]()
    function = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
        "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil,
        "trunc": np.trunc, "round": np.rint, "copysign": np.copysign,
    }[name]  # fmt: skip
    return t(function(*args))


def _fma(a, b, c, d):
    t = numpy_type(d)
    if not all(np.isfinite(x) for x in (a, b, c)):
        return t(np.float64(a) * np.float64(b) + np.float64(c))
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return t(a * b + c)
    try:
        near = float(exact)
    except OverflowError:
        return t(np.copysign(np.inf, float(exact > 0) - 0.5))
    if d is float64 or Fraction(near) == exact:
        return t(near)
    # Rounded to odd, a double is rounded to float32 as the exact number would be.
    if not struct.unpack("<Q", struct.pack("<d", near))[0] & 1:
        near = float(np.nextafter(near, np.inf if exact > Fraction(near) else -np.inf))
    return t(near)


def _low(x):
    """The lower 16 bits, signed."""
    return (x + 2**15) % 2**16 - 2**15


def _integer(name, args, d):
    bits = 8 * d.itemsize
    wrap = 1 << bits
    a, b = args[0], args[1] if len(args) > 1 else None
    if name in ("div", "rem"):
        if b == 0:
            return 0
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if name == "div" else a - b * quotient
    if name in ("shl", "shr", "lshr"):
        amount = b % wrap
        if name == "shl":
            return a << amount if amount < bits else 0
        if name == "lshr" or d.kind == "u":
            return a % wrap >> amount if amount < bits else 0
        return a >> min(amount, bits - 1)
    return {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "min": lambda: min(a, b),
        "max": lambda: max(a, b),
        "fmin": lambda: min(a, b),
        "fmax": lambda: max(a, b),
        "and": lambda: a & b,
        "or": lambda: a | b,
        "xor": lambda: a ^ b,
        "neg": lambda: -a,
        "abs": lambda: abs(a),
        "not": lambda: ~a,
        "fma": lambda: a * b + args[2],
        "dot2": lambda: _low(a) * _low(b) + (a >> 16) * (b >> 16) + args[2],
        "floor": lambda: a,
        "ceil": lambda: a,
        "trunc": lambda: a,
        "round": lambda: a,
    }[name]()
