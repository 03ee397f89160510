"""LLVM's names of types and constants, and the values that emission passes about."""

from __future__ import annotations

import struct

from facula.base.dtypes import (
    bfloat16,
    bool_,
    dtype,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)

#: An address; no dtype of tensors, but handled as one here.
PTR = dtype("ptr", 8, "p", 0)
#: A bool in memory.
BYTE = dtype("byte", 1, "u", 1)

#: The type of one element in a register. bfloat16 is its bits: LLVM's own conversions differ
#: between processors (some flush denormals), so they are written out in integers (``casts``).
REGISTER = {
    bool_: "i1", uint8: "i8", int8: "i8", int16: "i16", int32: "i32", int64: "i64",
    float16: "half", bfloat16: "i16", float32: "float", float64: "double", PTR: "ptr", BYTE: "i8",
}  # fmt: skip
#: The type of one element in memory.
MEMORY = {**REGISTER, bool_: "i8"}
#: How intrinsics spell an element type in their names.
MANGLED = {"half": "f16", "float": "f32", "double": "f64", "ptr": "p0"}
INTEGER_OF_SIZE = {1: int8, 2: int16, 4: int32, 8: int64}

_types: dict = {}


def type_of(d: dtype, lanes: int) -> str:
    """The register type of ``lanes`` elements; 0 lanes is a scalar."""
    key = d, lanes
    found = _types.get(key)
    if found is None:
        found = _types[key] = f"<{lanes} x {REGISTER[d]}>" if lanes else REGISTER[d]
    return found


def memory_type(d: dtype, lanes: int) -> str:
    """As :func:`type_of`, in memory."""
    return f"<{lanes} x {MEMORY[d]}>" if lanes else MEMORY[d]


def mangle(element: str, lanes: int) -> str:
    """The part of an intrinsic's name that says its type: ``v8f32``."""
    element = MANGLED.get(element, element)
    return f"v{lanes}{element}" if lanes else element


class Value:
    """A value in a register.

    Attributes:
        text: its name or literal; empty for a linear value, which has no register of its own.
        dtype: its element type.
        lanes: number of elements in a vector; 0 if it is one scalar, the same in all lanes.
        depth: number of the scope that computes it.
        const: the number it is known to be, or None.
        linear: ``(base, offset, stride)``, a scalar, a number and a scalar: lane ``l`` is
            ``base + offset + l * stride``; or None.
    """

    __slots__ = ("text", "dtype", "lanes", "depth", "const", "linear")

    def __init__(self, text, dtype, lanes, depth, const=None, linear=None):
        self.text, self.dtype, self.lanes, self.depth = text, dtype, lanes, depth
        self.const, self.linear = const, linear

    @property
    def type(self) -> str:
        return type_of(self.dtype, self.lanes)

    @property
    def typed(self) -> str:
        return f"{type_of(self.dtype, self.lanes)} {self.text}"


_constants: dict = {}
_indices: dict = {}


def constant(number, d: dtype) -> Value:
    """The scalar constant of that dtype; integers wrap, floats round."""
    if d is int64 and number in _indices:
        return _indices[number]
    # As keys of a dictionary 1 and True are one, and so are 0.0 and -0.0.
    key = d, number, type(number), number == 0 and str(number)
    found = _constants.get(key)
    if found is None:
        number = to_dtype(number, d)
        found = _constants[key] = Value(literal(number, d), d, 0, 0, number)
        if d is int64:
            _indices[number] = found
    return found


def to_dtype(number, d: dtype):
    """A Python number as that dtype holds it."""
    if d.kind == "b":
        return bool(number)
    if d.kind in "ui":
        bits = 8 * d.itemsize
        number = int(number) & ((1 << bits) - 1)
        return number - (1 << bits) if d.kind == "i" and number >> (bits - 1) else number
    number = float(number)
    if d is float64:
        return number
    if d is bfloat16:
        return _bfloat16_value(_bfloat16_bits(number))
    code = "<f" if d is float32 else "<e"
    try:
        return struct.unpack(code, struct.pack(code, number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _bfloat16_bits(number: float) -> int:
    try:
        bits = struct.unpack("<I", struct.pack("<f", number))[0]
    except OverflowError:
        return 0x7F80 if number > 0 else 0xFF80
    if number != number:
        return 0x7FC0
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _bfloat16_value(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def literal(number, d: dtype) -> str:
    """A number in LLVM's spelling. Floats are written as bits: exact, and NaN has no other."""
    if d.kind == "b":
        return "true" if number else "false"
    if d.kind in "ui":
        return str(number)
    if d is bfloat16:
        return str(_bfloat16_bits(number))
    if d is float16:
        return "0xH" + struct.pack(">e", number).hex().upper()
    return "0x" + struct.pack(">d", number).hex().upper()


def splat(v: Value, lanes: int) -> Value:
    """A constant in all lanes."""
    text = "zeroinitializer" if v.text in ("0", "false") else f"splat ({v.typed})"
    return Value(text, v.dtype, lanes, 0, v.const)


def lane_numbers(d: dtype, lanes: int) -> Value:
    """The constant vector 0, 1, 2, ... of an integer dtype."""
    key = d, lanes, "lanes"
    found = _constants.get(key)
    if found is None:
        items = ", ".join(f"{REGISTER[d]} {i}" for i in range(lanes))
        found = _constants[key] = Value(f"<{items}>", d, lanes, 0)
    return found


def first_lanes(count: int, lanes: int) -> Value:
    """The constant mask that is true in the first ``count`` lanes."""
    items = ", ".join("i1 true" if i < count else "i1 false" for i in range(lanes))
    return Value(f"<{items}>", bool_, lanes, 0)
