"""One op of Loops on values of equal lanes, for every dtype; none is ever undefined.

Division by zero gives 0 for integers, the smallest integer divided by -1 itself, a shift by the
width or more what shifting one by one would. float16 and bfloat16 are computed in float32 and
rounded after each op, as PyTorch does.
"""

from __future__ import annotations

import math

from facula.base.dtypes import bfloat16, bool_, float16, float32, float64, int16, int32
from facula.codegen.casts import convert, like
from facula.codegen.values import REGISTER, Value, mangle, type_of

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_ORDERED = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge",
            "not lt": "uge", "not le": "ugt", "not gt": "ule", "not ge": "ult"}  # fmt: skip
_INTRINSIC = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "abs": "fabs",
              "round": "roundeven", "copysign": "copysign", "fma": "fma"}  # fmt: skip
#: What ops on bool mean: addition is "or", as in PyTorch.
_BOOL = {"add": "or", "max": "or", "fmax": "or", "mul": "and", "min": "and", "fmin": "and"}
_FOLD_FLOAT = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b if b else None,
}
_FOLD_INT = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else 0,
    "rem": lambda a, b: a - b * ((abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1))
    if b else 0,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}  # fmt: skip
_FOLD_COMPARE = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def apply(w, target, name: str, args: list) -> Value:
    """``name(*args)``: comparisons, ``select`` and arithmetic."""
    first = args[0]
    if name == "select":
        return w.choose(*args)
    folded = _fold(w, name, args)
    if folded is not None:
        return folded
    kind = first.dtype.kind
    if name in _ORDERED or name == "ult":
        return _compare(w, name, *args)
    if kind == "f":
        return _float_op(w, target, name, args)
    if kind == "b":
        return _bool_op(w, name, args)
    return _integer_op(w, name, args)


def _fold(w, name, args):
    if any(a.const is None for a in args):
        return None
    kind = args[0].dtype.kind
    numbers = [a.const for a in args]
    if name in _FOLD_COMPARE:
        return like(w, _FOLD_COMPARE[name](*numbers), args[0], bool_)
    # One double operation rounded to a narrower float is that float's own operation.
    table = _FOLD_FLOAT if kind == "f" else _FOLD_INT if kind in "ui" else {}
    if name not in table:
        return None
    result = table[name](*numbers)
    return None if result is None else like(w, result, args[0])


def _op(w, how, a, b, result=None):
    return w.pure(f"{how} {a.typed}, {b.text}", result or a.dtype, a.lanes, a, b)


def _compare(w, name, a, b):
    kind = a.dtype.kind
    if kind == "f":
        if a.dtype in (float16, bfloat16):
            a, b = convert(w, a, float32), convert(w, b, float32)
        return _op(w, f"fcmp {_ORDERED[name]}", a, b, bool_)
    if name in ("eq", "ne"):
        how = name
    elif name == "ult":
        how = "ult"
    else:
        how = ("s" if kind == "i" else "u") + name
    return _op(w, f"icmp {how}", a, b, bool_)


# Floats


def _float_op(w, target, name, args):
    first = args[0]
    if first.dtype in (float16, bfloat16):
        wide = [convert(w, a, float32) for a in args]
        return convert(w, _float_op(w, target, name, wide), first.dtype)
    if name in _FLOAT:
        b = args[1]
        if b.const == 1.0 and name in ("mul", "div"):
            return first
        if name == "div" and b.const is not None and _is_power_of_two(b.const):
            return _op(w, "fmul", first, like(w, 1.0 / b.const, b))  # The same to the last bit.
        return _op(w, _FLOAT[name], first, b)
    if name == "neg":
        return w.pure(f"fneg {first.typed}", first.dtype, first.lanes, first)
    if name in _INTRINSIC:
        return w.call(first.dtype, f"llvm.{_INTRINSIC[name]}.{_mangled(first)}", *args)
    return _float_minmax(w, target, name, *args)


def _is_power_of_two(number):
    """Whether a float is one, and its reciprocal too in all dtypes but float16."""
    return abs(math.frexp(number)[0]) == 0.5 and 2.0**-100 < abs(number) < 2.0**100


def _mangled(v):
    return mangle(REGISTER[v.dtype], v.lanes)


def _float_minmax(w, target, name, a, b):
    if target.minimum_propagates:
        op = {"min": "minimum", "max": "maximum", "fmin": "minnum", "fmax": "maxnum"}[name]
        return w.call(a.dtype, f"llvm.{op}.{_mangled(a)}", a, b)
    # One x86 instruction is exactly ``a < b ? a : b``, which gives b if either is NaN.
    how = "fcmp olt" if name in ("min", "fmin") else "fcmp ogt"
    if a.const is not None:
        a, b = b, a
    if b.const is not None and b.const == b.const:
        if name in ("min", "max"):
            return w.choose(_op(w, how, b, a, bool_), b, a)
        return w.choose(_op(w, how, a, b, bool_), a, b)
    if name in ("min", "max"):
        least = w.choose(_op(w, how, a, b, bool_), a, b)
        return w.choose(_op(w, "fcmp uno", a, a, bool_), a, least)
    least = w.choose(_op(w, how, b, a, bool_), b, a)
    return w.choose(_op(w, "fcmp uno", a, a, bool_), b, least)


# Booleans and integers


def _bool_op(w, name, args):
    if name == "not":
        return _op(w, "xor", args[0], like(w, True, args[0]))
    return _op(w, _BOOL.get(name, name), *args)


def _integer_op(w, name, args):
    a = args[0]
    if len(args) == 1:
        return _integer_unary(w, name, a)
    if name == "fma":
        return _op(w, "add", _op(w, "mul", a, args[1]), args[2])
    if name == "dot2":
        return _op(w, "add", _dot2(w, *args[:2]), args[2])
    b = args[1]
    if name in ("add", "sub", "mul", "and", "or", "xor"):
        return _op(w, name, a, b)
    if name in ("min", "max", "fmin", "fmax"):
        op = ("s" if a.dtype.kind == "i" else "u") + name[-3:]
        return w.call(a.dtype, f"llvm.{op}.{_mangled(a)}", a, b)
    if name in ("div", "rem"):
        return _divide(w, name, a, b)
    return _shift(w, name, a, b)


def _integer_unary(w, name, a):
    if name == "neg":
        return _op(w, "sub", like(w, 0, a), a)
    if name == "not":
        return _op(w, "xor", a, like(w, -1, a))
    if name == "abs":
        if a.dtype.kind == "u":
            return a
        least = _op(w, "sub", like(w, 0, a), a)
        return w.call(a.dtype, f"llvm.smax.{_mangled(a)}", a, least)
    return a  # floor, ceil, trunc and round of integers


def _divide(w, name, a, b):
    unsigned = a.dtype.kind == "u"
    op = ("u" if unsigned else "s") + name
    if b.const is not None:
        if b.const == 0:
            return like(w, 0, a)
        if b.const == 1:
            return a if name == "div" else like(w, 0, a)
        if b.const != -1:
            return _op(w, op, a, b)
    if a.lanes and a.dtype.itemsize <= 4:
        return _divide_as_floats(w, name, a, b)
    zero, one = like(w, 0, a), like(w, 1, a)
    bad = _op(w, "icmp eq", b, zero, bool_)
    if unsigned:
        result = _op(w, op, a, w.choose(bad, one, b))
    else:
        negating = _op(w, "icmp eq", b, like(w, -1, a), bool_)
        unsafe = _op(w, "or", bad, negating)
        result = _op(w, op, a, w.choose(unsafe, one, b))
        other = _op(w, "sub", zero, a) if name == "div" else zero
        result = w.choose(negating, other, result)
    return w.choose(bad, zero, result)


def _divide_as_floats(w, name, a, b):
    """Vectors of narrow integers: processors have no such instruction, but floats are exact.

    The quotient of n-bit integers is at least 2**-n (relatively) away from an integer that it
    does not equal, so rounding to more than n bits never reaches one.
    """
    narrow = a.dtype.itemsize < 4
    wide = float32 if narrow else float64
    zero, one = like(w, 0, a), like(w, 1, a)
    unsafe = bad = _op(w, "icmp eq", b, zero, bool_)
    if not narrow:
        # The one quotient that is out of range is that of the smallest integer and -1.
        negating = _op(w, "icmp eq", b, like(w, -1, b), bool_)
        unsafe = _op(w, "or", bad, negating)
    safe = w.choose(unsafe, one, b)
    quotient = _op(w, "fdiv", convert(w, a, wide), convert(w, safe, wide))
    type_ = type_of(int32, a.lanes)
    whole = w.pure(f"fptosi {quotient.typed} to {type_}", int32, a.lanes, quotient)
    whole = convert(w, whole, a.dtype)
    if name == "rem":
        whole = _op(w, "sub", a, _op(w, "mul", whole, safe))
    if not narrow:
        whole = w.choose(negating, _op(w, "sub", zero, a) if name == "div" else zero, whole)
    return w.choose(bad, zero, whole)


#: Instructions that multiply vectors of int16 and add neighbours, by lanes of the result. With a
#: sum LLVM makes one instruction of them where there is one.
_PAIRS = {4: "sse2.pmadd.wd", 8: "avx2.pmadd.wd", 16: "avx512.pmaddw.d.512"}


def _dot2(w, a, b):
    """The sum of the products of lower and of upper halves."""
    target, lanes = w.module.target, a.lanes
    if target.arch == "x86" and lanes in _PAIRS and 4 * lanes <= target.vector_bytes:
        halves = type_of(int16, 2 * lanes)
        a, b = (w.pure(f"bitcast {v.typed} to {halves}", int16, 2 * lanes, v) for v in (a, b))
        return w.call(int32, f"llvm.x86.{_PAIRS[lanes]}", a, b, lanes=lanes)
    sixteen = like(w, 16, a)
    high = _op(w, "mul", *(_op(w, "ashr", v, sixteen) for v in (a, b)))
    low = (_op(w, "ashr", _op(w, "shl", v, sixteen), sixteen) for v in (a, b))
    return _op(w, "add", _op(w, "mul", *low), high)


def _shift(w, name, a, b):
    width = 8 * a.dtype.itemsize
    how = {"shl": "shl", "lshr": "lshr", "shr": "ashr" if a.dtype.kind == "i" else "lshr"}[name]
    if b.const is not None and 0 <= b.const < width:
        return a if b.const == 0 else _op(w, how, a, b)
    if how == "ashr":
        most = w.call(a.dtype, f"llvm.umin.{_mangled(a)}", b, like(w, width - 1, b))
        return _op(w, how, a, most)
    fits = _op(w, "icmp ult", b, like(w, width, b), bool_)
    amount = _op(w, "and", b, like(w, width - 1, b))
    return w.choose(fits, _op(w, how, a, amount), like(w, 0, a))
