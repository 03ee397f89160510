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
    if float16 in (source, to) and not w.module.target.converts_half:
        return (_half_to_float if source is float16 else _float_to_half)(w, v)
    if to.kind == "f":
        how = "fpext" if to.itemsize > source.itemsize else "fptrunc"
        return w.pure(f"{how} {v.typed} to {type_of(to, v.lanes)}", to, v.lanes, v)
    wide = int64 if to is int64 else int32
    name = f"llvm.fptosi.sat.{mangle(REGISTER[wide], v.lanes)}.{mangle(REGISTER[source], v.lanes)}"
    return convert(w, w.call(wide, name, v), to)


def _op(w, how, a, b):
    """An instruction on ``a`` and a value or number."""
    b = b if isinstance(b, Value) else like(w, b, a)
    return w.pure(f"{how} {a.typed}, {b.text}", a.dtype, a.lanes, a, b)


def _low(w, v, to):
    """The low 16 bits of an int32 as a dtype of that size."""
    low = w.pure(f"trunc {v.typed} to {type_of(int16, v.lanes)}", int16, v.lanes, v)
    return bits(w, low, to)


def _bfloat16_to_float(w, v):
    wide = w.pure(f"zext {v.typed} to {type_of(int32, v.lanes)}", int32, v.lanes, v)
    return bits(w, _op(w, "shl", wide, 16), float32)


def _float_to_bfloat16(w, v):
    """Rounded to nearest, ties to even; a NaN stays one, quiet."""
    whole = bits(w, v, int32)
    high = _op(w, "lshr", whole, 16)
    odd = _op(w, "and", high, 1)
    rounded = _op(w, "lshr", _op(w, "add", whole, _op(w, "add", odd, 0x7FFF)), 16)
    nan = w.pure(f"fcmp uno {v.typed}, {v.text}", bool_, v.lanes, v)
    return _low(w, w.choose(nan, _op(w, "or", high, 0x40), rounded), bfloat16)


def _half_to_float(w, v):
    """The exponent moved over and corrected by a multiplication, which also does denormals."""
    short = bits(w, v, int16)
    wide = w.pure(f"zext {short.typed} to {type_of(int32, v.lanes)}", int32, v.lanes, short)
    sign = _op(w, "shl", _op(w, "and", wide, 0x8000), 16)
    moved = _op(w, "shl", _op(w, "and", wide, 0x7FFF), 13)
    finite = bits(w, _op(w, "fmul", bits(w, moved, float32), 2.0**112), int32)
    limit = like(w, 0x7C00 << 13, moved)
    special = w.pure(f"icmp uge {moved.typed}, {limit.text}", bool_, v.lanes, moved)
    magnitude = w.choose(special, _op(w, "or", moved, 0x7F800000), finite)
    return bits(w, _op(w, "or", magnitude, sign), float32)


def _float_to_half(w, v):
    """Rounded to nearest, ties to even: by a carry into the bits kept, or, where the result is
    denormal, by the addition of 0.5, whose last bit is the last of a denormal."""
    whole = bits(w, v, int32)
    magnitude = _op(w, "and", whole, 0x7FFFFFFF)
    sign = _op(w, "and", _op(w, "lshr", whole, 16), 0x8000)
    odd = _op(w, "and", _op(w, "lshr", magnitude, 13), 1)
    carried = _op(w, "add", magnitude, _op(w, "add", odd, 0xFFF - (112 << 23)))
    normal = _op(w, "lshr", carried, 13)
    shifted = bits(w, _op(w, "fadd", bits(w, magnitude, float32), 0.5), int32)
    denormal = _op(w, "sub", shifted, 126 << 23)

    def where(how, limit, a, b):
        limit = like(w, limit, magnitude)
        return w.choose(
            w.pure(f"icmp {how} {magnitude.typed}, {limit.text}", bool_, v.lanes, magnitude), a, b
        )

    result = where("ult", 113 << 23, denormal, normal)
    infinite = where("ugt", 0x7F800000, like(w, 0x7E00, whole), like(w, 0x7C00, whole))
    result = where("uge", 0x477FF000, infinite, result)
    return _low(w, _op(w, "or", result, sign), float16)
