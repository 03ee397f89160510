"""Conversions between dtypes, none of them ever undefined.

Narrow floats are converted through float32, as PyTorch does. A float out of an integer's range
saturates at 32 or 64 bits, and narrower integers take the low bits of that, as C on x86 does.
"""

from __future__ import annotations

from facula.base.dtypes import (
    bfloat16,
    bool_,
    float16,
    float32,
    int16,
    int32,
    int64,
)
from facula.codegen.values import (
    REGISTER,
    Value,
    constant,
    mangle,
    splat,
    to_dtype,
    type_of,
)


def widen(w, v: Value, lanes: int) -> Value:
    """A value in ``lanes`` lanes: vectors as they are, scalars in every lane."""
    if v.lanes == lanes:
        return v
    if v.const is not None:
        return splat(v, lanes)
    t = type_of(v.dtype, lanes)
    one = w.pure(f"insertelement {t} poison, {v.typed}, i64 0", v.dtype, lanes, v)
    return w.pure(
        f"shufflevector {t} {one.text}, {t} poison, <{lanes} x i32> zeroinitializer",
        v.dtype, lanes, one,
    )  # fmt: skip


def like(w, number, v: Value, dtype=None) -> Value:
    """A constant in as many lanes as ``v`` has, of its dtype unless given."""
    c = constant(number, dtype or v.dtype)
    return splat(c, v.lanes) if v.lanes else c


def bits(w, v: Value, to) -> Value:
    """The same bits as another dtype of that size."""
    if REGISTER[v.dtype] == REGISTER[to]:
        return Value(v.text, to, v.lanes, v.depth)
    if to is bool_:
        return convert(w, v, bool_)
    if v.dtype is bool_:
        return w.pure(f"zext {v.typed} to {type_of(to, v.lanes)}", to, v.lanes, v)
    return w.pure(f"bitcast {v.typed} to {type_of(to, v.lanes)}", to, v.lanes, v)


def convert(w, v: Value, to) -> Value:
    """``v`` converted to the dtype ``to``."""
    source = v.dtype
    if source is to:
        return v
    if v.const is not None and not (source.kind == "f" and to.kind in "ui"):
        return like(w, to_dtype(v.const, float32) if to in _NARROW else v.const, v, to)
    if to is bool_:
        if source.kind == "f":
            v = convert(w, v, float32) if source in _NARROW else v
            return w.pure(f"fcmp une {v.typed}, {like(w, 0, v).text}", bool_, v.lanes, v)
        return w.pure(f"icmp ne {v.typed}, {like(w, 0, v).text}", bool_, v.lanes, v)
    if source.kind == "f":
        return _from_float(w, v, to)
    if to in _NARROW:
        return convert(w, convert(w, v, float32), to)
    unsigned = source.kind in "bu"
    if to.kind == "f":
        if source.itemsize == 1 and to is float32 and v.lanes:
            v = convert(w, v, int32)  # LLVM has good code for this one on all processors.
            unsigned = False
        how = "uitofp" if unsigned else "sitofp"
    elif source is not bool_ and to.itemsize == source.itemsize:
        return Value(v.text, to, v.lanes, v.depth)
    elif source is not bool_ and to.itemsize < source.itemsize:
        how = "trunc"
    else:
        how = "zext" if unsigned else "sext"
    return w.pure(f"{how} {v.typed} to {type_of(to, v.lanes)}", to, v.lanes, v)


_NARROW = (float16, bfloat16)


def _from_float(w, v, to):
    source = v.dtype
    if source is bfloat16:
        return convert(w, _bfloat16_to_float(w, v), to)
    if to is bfloat16:
        return _float_to_bfloat16(w, convert(w, v, float32))
    if float16 in (source, to) and float32 not in (source, to):
        return convert(w, convert(w, v, float32), to)
    if to.kind == "f":
        how = "fpext" if to.itemsize > source.itemsize else "fptrunc"
        return w.pure(f"{how} {v.typed} to {type_of(to, v.lanes)}", to, v.lanes, v)
    wide = int64 if to is int64 else int32
    name = f"llvm.fptosi.sat.{mangle(REGISTER[wide], v.lanes)}.{mangle(REGISTER[source], v.lanes)}"
    return convert(w, w.call(wide, name, v), to)


def _bfloat16_to_float(w, v):
    wide = w.pure(f"zext {v.typed} to {type_of(int32, v.lanes)}", int32, v.lanes, v)
    high = w.pure(f"shl {wide.typed}, {like(w, 16, wide).text}", int32, v.lanes, wide)
    return bits(w, high, float32)


def _float_to_bfloat16(w, v):
    """Rounded to nearest, ties to even; a NaN stays one, quiet."""

    def op(how, a, b):
        b = b if isinstance(b, Value) else like(w, b, a)
        return w.pure(f"{how} {a.typed}, {b.text}", a.dtype, a.lanes, a, b)

    whole = bits(w, v, int32)
    high = op("lshr", whole, 16)
    odd = op("and", high, 1)
    rounded = op("lshr", op("add", whole, op("add", odd, 0x7FFF)), 16)
    nan = w.pure(f"fcmp uno {v.typed}, {v.text}", bool_, v.lanes, v)
    chosen = w.choose(nan, op("or", high, 0x40), rounded)
    low = w.pure(f"trunc {chosen.typed} to {type_of(int16, v.lanes)}", bfloat16, v.lanes, chosen)
    return low
