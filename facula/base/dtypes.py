"""Element types and the rules by which they combine.

A :class:`dtype` is an immutable singleton. Promotion follows PyTorch: within a category (bool,
integer, float) the wider type wins, the higher category wins over the lower, and operands of
lower *rank of participation* (Python scalars, then 0-dim tensors) only decide the category.
"""

from __future__ import annotations


class dtype:  # noqa: N801  the public name of the field
    """An element type.

    Attributes:
        name: the canonical name, such as ``"float32"``.
        itemsize: size of one element in bytes.
        kind: ``"b"`` (bool), ``"u"`` (unsigned), ``"i"`` (signed) or ``"f"`` (floating point).
    """

    __slots__ = ("name", "itemsize", "kind", "rank")

    def __init__(self, name: str, itemsize: int, kind: str, rank: int):
        self.name, self.itemsize, self.kind, self.rank = name, itemsize, kind, rank

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return False

    @property
    def is_signed(self) -> bool:
        return self.kind in "if"

    @property
    def category(self) -> int:
        """0 for bool, 1 for integers, 2 for floating point: the higher one wins in promotion."""
        return {"b": 0, "u": 1, "i": 1, "f": 2}[self.kind]

    def numpy(self):
        """The NumPy dtype of the same layout.

        Raises:
            TypeError: bfloat16, which NumPy does not have.
        """
        import numpy

        if self is bfloat16:
            raise TypeError("numpy: bfloat16 has no NumPy dtype; hint: convert with .float() first")
        return numpy.dtype(self.name)

    def __repr__(self) -> str:
        return f"facula.{self.name}"

    def __reduce__(self):
        return (by_name, (self.name,))


bool_ = dtype("bool", 1, "b", 0)
uint8 = dtype("uint8", 1, "u", 1)
int8 = dtype("int8", 1, "i", 2)
int16 = dtype("int16", 2, "i", 3)
int32 = dtype("int32", 4, "i", 4)
int64 = dtype("int64", 8, "i", 5)
float16 = dtype("float16", 2, "f", 6)
bfloat16 = dtype("bfloat16", 2, "f", 7)
float32 = dtype("float32", 4, "f", 8)
float64 = dtype("float64", 8, "f", 9)

ALL = (bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64)
FLOATS = tuple(d for d in ALL if d.kind == "f")
INTEGERS = tuple(d for d in ALL if d.kind in "ui")
_BY_NAME = {d.name: d for d in ALL}
ALIASES = {
    "half": float16,
    "float": float32,
    "double": float64,
    "short": int16,
    "int": int32,
    "long": int64,
}

_default = float32


def by_name(name: str) -> dtype:
    """The dtype of that canonical name."""
    return _BY_NAME[name]


def get_default_dtype() -> dtype:
    """The floating-point dtype that new float tensors get; float32 unless set."""
    return _default


def set_default_dtype(d: dtype) -> None:
    """Set the dtype of new floating-point tensors.

    Raises:
        TypeError: ``d`` is no floating-point dtype.
    """
    global _default
    if not isinstance(d, dtype) or not d.is_floating_point:
        raise TypeError(f"set_default_dtype: expected a floating-point dtype, got {d!r}")
    _default = d


def promote_types(a: dtype, b: dtype) -> dtype:
    """The smallest dtype to which both convert, as PyTorch defines it.

    >>> promote_types(uint8, int8)
    facula.int16
    >>> promote_types(float16, bfloat16)
    facula.float32
    """
    if a is b:
        return a
    if a.category != b.category:
        return a if a.category > b.category else b
    low, high = (a, b) if a.rank < b.rank else (b, a)
    if low is uint8 and high is int8:
        return int16
    if low is float16 and high is bfloat16:
        return float32
    return high


def of_scalar(value) -> dtype:
    """The dtype a Python number stands for: bool, int64 or the default float."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, int):
        return int64
    if isinstance(value, float):
        return _default
    raise TypeError(f"expected a Python number, got {type(value).__name__}")


def result_type(dimensioned, zero_dim=(), scalars=()) -> dtype:
    """Promotion over three groups of dtypes, the first taking part most strongly.

    A later group changes the result only if its category is higher than that of the groups
    before it, and then brings its own dtype (a float scalar beside integers: the default float).
    """
    result = None
    for group in (dimensioned, zero_dim, scalars):
        own = None
        for d in group:
            own = d if own is None else promote_types(own, d)
        if own is not None and (result is None or own.category > result.category):
            result = own
    if result is None:
        raise ValueError("result_type: expected at least one operand")
    return result


def from_numpy(d) -> dtype:
    """The dtype of the same layout as a NumPy dtype.

    Raises:
        TypeError: there is none.
    """
    name = getattr(d, "name", str(d))
    if name in _BY_NAME:
        return _BY_NAME[name]
    raise TypeError(
        f"numpy: dtype {name} has no counterpart; hint: convert the array with astype first"
    )
