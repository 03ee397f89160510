"""Loops: the kernel language. Nested loops over buffers, of scalars, with the loops' kinds said.

A :class:`Kernel` is a list of parameters and a body of statements; ``docs/design/loops.md`` is its
specification. The same tree is printed (:func:`text`), verified (``ir.verify_loops``) and turned
into LLVM text by ``codegen``. What makes it short: a kernel is written for *one element*, and a
loop's kind says how its iterations run:

``serial``    one after the other; the only kind over which locals are carried in order.
``parallel``  independent of each other, on any thread in any order.
``vector``    independent of each other but for :class:`Reduce`, in vector lanes.
``unroll``    as serial, repeated in the text; bounds are constants.

Every value has a dtype of ``base.dtypes``; indices and sizes are int64, conditions are bool.
Buffers are flat: an index counts elements.
"""

from __future__ import annotations

from contextlib import contextmanager

from facula.base.dtypes import bool_, dtype, float64, int64, of_scalar

#: op name -> number of operands. Comparisons give bool, all others the dtype of their operands.
ARITHMETIC = {
    **dict.fromkeys("add sub mul div rem min max fmin fmax copysign".split(), 2),
    **dict.fromkeys("and or xor shl shr lshr".split(), 2),
    **dict.fromkeys("neg abs sqrt floor ceil trunc round not".split(), 1),
    "fma": 3,
    "dot2": 3,
}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "ult")
#: Ops that ``codegen.maths`` writes in terms of the arithmetic above.
TRANSCENDENTAL = {
    **dict.fromkeys("exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan".split(), 1),
    **dict.fromkeys("sinh cosh tanh asinh acosh atanh erf erfc erfinv rsqrt sigmoid".split(), 1),
    **dict.fromkeys("lgamma digamma".split(), 1),
    **dict.fromkeys("pow atan2 fmod".split(), 2),
}
REDUCTIONS = ("add", "mul", "min", "max", "and", "or")


class Expr:
    """A value of one element. Operators build new expressions; nothing is computed."""

    __slots__ = ("dtype",)
    args: tuple = ()

    def __add__(self, other):
        return binary("add", self, other)

    def __radd__(self, other):
        return binary("add", other, self)

    def __sub__(self, other):
        return binary("sub", self, other)

    def __rsub__(self, other):
        return binary("sub", other, self)

    def __mul__(self, other):
        return binary("mul", self, other)

    def __rmul__(self, other):
        return binary("mul", other, self)

    def __truediv__(self, other):
        return binary("div", self, other)

    def __rtruediv__(self, other):
        return binary("div", other, self)

    def __floordiv__(self, other):
        """Quotient of non-negative integers."""
        return binary("div", self, other)

    def __mod__(self, other):
        """Remainder of non-negative operands (sizes and indices)."""
        return binary("rem", self, other)

    def __neg__(self):
        return unary("neg", self)

    def __and__(self, other):
        return binary("and", self, other)

    def __or__(self, other):
        return binary("or", self, other)

    def __xor__(self, other):
        return binary("xor", self, other)

    def __invert__(self):
        return unary("not", self)

    def __lt__(self, other):
        return compare("lt", self, other)

    def __le__(self, other):
        return compare("le", self, other)

    def __gt__(self, other):
        return compare("gt", self, other)

    def __ge__(self, other):
        return compare("ge", self, other)

    # ``==`` stays identity, since expressions are keys of dictionaries: use eq() and ne().
    def eq(self, other):
        return compare("eq", self, other)

    def ne(self, other):
        return compare("ne", self, other)


class Const(Expr):
    """A number known now."""

    __slots__ = ("value",)

    def __init__(self, value, dtype):
        self.value, self.dtype = value, dtype


class Var(Expr):
    """A loop's index, a let-bound value, or a size or scalar parameter."""

    __slots__ = ("name",)

    def __init__(self, name: str, dtype: dtype):
        self.name, self.dtype = name, dtype


class Op(Expr):
    """``name(*args)``: arithmetic, a comparison, ``select(c, a, b)`` or a transcendental."""

    __slots__ = ("name", "args")

    def __init__(self, name, args, dtype):
        self.name, self.args, self.dtype = name, tuple(args), dtype


class Cast(Expr):
    """Conversion with C's rules; float to bool is ``!= 0``. ``bits`` reinterprets instead."""

    __slots__ = ("args", "bits")

    def __init__(self, value, dtype, bits=False):
        self.args, self.dtype, self.bits = (value,), dtype, bits


class Load(Expr):
    """``buffer[index]``; where ``mask`` is false, ``other`` and no access to memory."""

    __slots__ = ("buffer", "index", "mask", "other")

    def __init__(self, buffer, index, mask=None, other=None):
        self.buffer, self.index, self.mask, self.other = buffer, index, mask, other
        self.dtype = buffer.dtype


class Get(Expr):
    """The present value of a local, or of one element of a register tile."""

    __slots__ = ("local", "index")

    def __init__(self, local, index=()):
        self.local, self.index, self.dtype = local, tuple(index), local.dtype


class Thread(Expr):
    """The number of the running thread, 0 outside of parallel loops."""

    __slots__ = ()

    def __init__(self):
        self.dtype = int64


class Buffer:
    """A parameter: the address of elements. ``access`` is "r", "w" or "rw".

    Scratch (``scratch`` is its number of elements, an expression of sizes) is provided at launch,
    uninitialised; with ``per_thread`` every thread sees one of its own.
    """

    __slots__ = ("name", "dtype", "access", "scratch", "per_thread")

    def __init__(self, name, dtype, access="r", scratch=None, per_thread=False):
        self.name, self.dtype, self.access = name, dtype, access
        self.scratch, self.per_thread = scratch, per_thread

    def __getitem__(self, index):
        return Load(self, as_expr(index, int64))

    def load(self, index, mask=None, other=None):
        if mask is not None and other is None:
            other = Const(0, self.dtype)
        other = as_expr(other, self.dtype) if other is not None else None
        return Load(self, as_expr(index, int64), mask, other)


class Local:
    """A mutable register, or with a ``shape`` of constants a tile of registers."""

    __slots__ = ("name", "dtype", "shape")

    def __init__(self, name, dtype, shape=()):
        self.name, self.dtype, self.shape = name, dtype, tuple(shape)

    def get(self):
        return Get(self)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        return Get(self, [as_expr(i, int64) for i in index])


# Statements ------------------------------------------------------------------------------------


class Loop:
    """``for var in range(lo, hi, step)``. ``grain``: fewest iterations a parallel chunk has."""

    __slots__ = ("var", "lo", "hi", "step", "kind", "body", "grain")

    def __init__(self, var, lo, hi, step, kind, body, grain=None):
        self.var, self.lo, self.hi, self.step = var, lo, hi, step
        self.kind, self.body, self.grain = kind, body, grain


class While:
    """Repeat ``body`` as long as ``cond``, evaluated before each round, holds."""

    __slots__ = ("cond", "body")

    def __init__(self, cond, body):
        self.cond, self.body = cond, body


class If:
    """Run ``body`` or ``orelse``. Not inside of vector loops: use ``select`` or masks there."""

    __slots__ = ("cond", "body", "orelse")

    def __init__(self, cond, body, orelse):
        self.cond, self.body, self.orelse = cond, body, orelse


class Let:
    """Bind a name to a value computed once, here."""

    __slots__ = ("var", "value")

    def __init__(self, var, value):
        self.var, self.value = var, value


class Declare:
    """Bring a local into being, every register holding ``init``."""

    __slots__ = ("local", "init")

    def __init__(self, local, init):
        self.local, self.init = local, init


class Assign:
    """``local[index] = value``."""

    __slots__ = ("local", "index", "value")

    def __init__(self, local, index, value):
        self.local, self.index, self.value = local, tuple(index), value


class Reduce:
    """``local = op(local, value)``, also across the lanes of a vector loop.

    The order is fixed by the trip count alone: element ``e`` of a vector loop goes to
    accumulator ``(e // lanes) % 4``, lane ``e % lanes``, with lanes = 64 bytes / itemsize.
    """

    __slots__ = ("local", "op", "value")

    def __init__(self, local, op, value):
        self.local, self.op, self.value = local, op, value


class Store:
    """``buffer[index] = value``, where ``mask`` (if any) holds."""

    __slots__ = ("buffer", "index", "value", "mask")

    def __init__(self, buffer, index, value, mask=None):
        self.buffer, self.index, self.value, self.mask = buffer, index, value, mask


class Check:
    """Where ``cond`` is false the kernel ends with ``status``, after having run to its end.

    It guards nothing by itself: clamp or mask what the check is about.
    """

    __slots__ = ("cond", "status")

    def __init__(self, cond, status):
        self.cond, self.status = cond, status


class Transpose:
    """Swap rows and columns of a square tile whose side is the lane count."""

    __slots__ = ("local",)

    def __init__(self, local):
        self.local = local


class Prefetch:
    """Bring the line of memory that holds ``buffer[index]`` near; no effect on any value.

    The index may lie outside of the buffer. In a vector loop it is the first lane's.
    """

    __slots__ = ("buffer", "index")

    def __init__(self, buffer, index):
        self.buffer, self.index = buffer, index


class Kernel:
    """A named kernel: parameters in the order of its argument words, and its body."""

    __slots__ = ("name", "params", "body", "__weakref__")

    def __init__(self, name, params, body):
        self.name, self.params, self.body = name, params, body


def as_expr(value, like: dtype | None = None) -> Expr:
    """An expression of a Python number (of dtype ``like``, if given) or of an expression."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Local):
        return Get(value)
    if isinstance(value, (bool, int, float)):
        return Const(value, like or of_scalar(value))
    raise TypeError(f"loops: expected an expression or a number, got {value!r}")


#: What index arithmetic of constants gives.
FOLD = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b if b else None,
    "rem": lambda a, b: a % b if b else None,
    "min": min,
    "max": max,
}


def _pair(a, b):
    """Both operands as expressions of one dtype; a number takes the dtype of the other."""
    if not isinstance(a, (Expr, Local)):
        b = as_expr(b)
        return as_expr(a, b.dtype), b
    a = as_expr(a)
    b = as_expr(b, a.dtype)
    if a.dtype is not b.dtype:
        raise TypeError(f"loops: operands of dtypes {a.dtype} and {b.dtype}; hint: cast one")
    return a, b


def binary(name, a, b) -> Expr:
    """``name(a, b)``, folded where both are index constants or one is neutral."""
    a, b = _pair(a, b)
    if a.dtype is int64:
        const = isinstance(a, Const), isinstance(b, Const)
        if all(const) and name in FOLD:
            folded = FOLD[name](a.value, b.value)
            if folded is not None:
                return Const(folded, int64)
        if const[1] and (name, b.value) in (
            ("add", 0),
            ("sub", 0),
            ("mul", 1),
            ("div", 1),
            ("shl", 0),
        ):
            return a
        if const[0] and (name, a.value) in (("add", 0), ("mul", 1)):
            return b
        if name == "mul" and (const[0] and a.value == 0 or const[1] and b.value == 0):
            return Const(0, int64)
    return Op(name, (a, b), a.dtype)


def unary(name, a) -> Expr:
    a = as_expr(a)
    return Op(name, (a,), a.dtype)


def compare(name, a, b) -> Expr:
    a, b = _pair(a, b)
    return Op(name, (a, b), bool_)


def select(cond, a, b) -> Expr:
    """``a`` where ``cond``, else ``b``; both are evaluated."""
    a, b = _pair(a, b)
    return Op("select", (cond, a, b), a.dtype)


def fma(a, b, c) -> Expr:
    """``a * b + c``, rounded once."""
    a, b = _pair(a, b)
    return Op("fma", (a, b, as_expr(c, a.dtype)), a.dtype)


def minimum(a, b) -> Expr:
    """The smaller operand; NaN if either is."""
    return binary("min", a, b)


def maximum(a, b) -> Expr:
    """The larger operand; NaN if either is."""
    return binary("max", a, b)


def cast(value, to: dtype) -> Expr:
    """``value`` converted to ``to``."""
    value = as_expr(value)
    if value.dtype is to:
        return value
    if isinstance(value, Const):
        kind = bool if to.kind == "b" else float if to.kind == "f" else int
        return Const(kind(value.value), to)
    return Cast(value, to)


def bitcast(value, to: dtype) -> Expr:
    """The bits of ``value`` read as ``to``, of the same size."""
    return Cast(value, to, bits=True)


def call(name, *args) -> Expr:
    """A transcendental, or any op by its name."""
    args = [as_expr(a) for a in args]
    return Op(name, args, bool_ if name in COMPARISONS else args[0].dtype)


def idiv_ceil(a, b) -> Expr:
    """``ceil(a / b)`` of non-negative integers."""
    a = as_expr(a, int64)
    return (a + (b - 1)) // b


class Builder:
    """Writes a kernel from the outside in; the ``with`` blocks are its loops.

    >>> from facula.base.dtypes import float32
    >>> from facula.ir.print_loops import text
    >>> k = Builder("double")
    >>> x, y, n = k.buffer("x", float32), k.buffer("y", float32, "w"), k.size("n")
    >>> with k.vector(0, n) as i:
    ...     k.store(y, i, x[i] * 2.0)
    >>> print(text(k.kernel()))
    kernel double(x: float32[] r, y: float32[] w, n: size)
      vector i0 in 0 .. n
        y[i0] = mul(x[i0], 2.0)
    """

    def __init__(self, name: str):
        self.name, self.params, self.body = name, [], []
        self._count = 0

    # Parameters

    def buffer(self, name, dtype, access="r") -> Buffer:
        self.params.append(Buffer(name, dtype, access))
        return self.params[-1]

    def scratch(self, name, dtype, elements, per_thread=False) -> Buffer:
        elements = as_expr(elements, int64)
        self.params.append(Buffer(name, dtype, "rw", elements, per_thread))
        return self.params[-1]

    def size(self, name) -> Var:
        self.params.append(Var(name, int64))
        return self.params[-1]

    def scalar(self, name, dtype=float64) -> Var:
        """A number given at each call: float64 or int64."""
        self.params.append(Var(name, dtype))
        return self.params[-1]

    def kernel(self) -> Kernel:
        return Kernel(self.name, tuple(self.params), tuple(self.body))

    # Statements

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count - 1}"

    @contextmanager
    def block(self):
        """A body gathered apart: yields the list that statements go to."""
        outer, self.body = self.body, []
        try:
            yield self.body
        finally:
            self.body = outer

    @contextmanager
    def loop(self, lo, hi, step=1, kind="serial", grain=None):
        var = Var(self.fresh("i"), int64)
        with self.block() as body:
            yield var
        lo, hi, step = (as_expr(v, int64) for v in (lo, hi, step))
        grain = None if grain is None else as_expr(grain, int64)
        self.body.append(Loop(var, lo, hi, step, kind, tuple(body), grain))

    def serial(self, lo, hi, step=1):
        return self.loop(lo, hi, step, "serial")

    def parallel(self, lo, hi, step=1, grain=1):
        return self.loop(lo, hi, step, "parallel", grain)

    def vector(self, lo, hi):
        return self.loop(lo, hi, 1, "vector")

    def unroll(self, lo, hi, step=1):
        return self.loop(lo, hi, step, "unroll")

    @contextmanager
    def while_(self, cond):
        with self.block() as body:
            yield
        self.body.append(While(cond, tuple(body)))

    @contextmanager
    def if_(self, cond):
        with self.block() as body:
            yield
        self.body.append(If(cond, tuple(body), ()))

    @contextmanager
    def else_(self):
        """The other branch of the ``if_`` just before."""
        last = self.body[-1]
        if not isinstance(last, If) or last.orelse:
            raise ValueError("loops: else_ must follow an if_")
        with self.block() as body:
            yield
        last.orelse = tuple(body)

    def let(self, value, name="t") -> Var:
        value = as_expr(value)
        var = Var(self.fresh(name), value.dtype)
        self.body.append(Let(var, value))
        return var

    def local(self, dtype, init=0, shape=(), name="r") -> Local:
        local = Local(self.fresh(name), dtype, shape)
        self.body.append(Declare(local, as_expr(init, dtype)))
        return local

    def assign(self, local, *index_and_value):
        *index, value = index_and_value
        index = [as_expr(i, int64) for i in index]
        self.body.append(Assign(local, index, as_expr(value, local.dtype)))

    def reduce(self, local, op, value):
        self.body.append(Reduce(local, op, as_expr(value, local.dtype)))

    def store(self, buffer, index, value, mask=None):
        index, value = as_expr(index, int64), as_expr(value, buffer.dtype)
        self.body.append(Store(buffer, index, value, mask))

    def check(self, cond, status: int):
        self.body.append(Check(cond, status))

    def transpose(self, local):
        self.body.append(Transpose(local))

    def prefetch(self, buffer, index):
        self.body.append(Prefetch(buffer, as_expr(index, int64)))


def children(e: Expr) -> tuple:
    """The expressions an expression is made of."""
    if isinstance(e, Load):
        return tuple(c for c in (e.index, e.mask, e.other) if c is not None)
    if isinstance(e, Get):
        return e.index
    return e.args
