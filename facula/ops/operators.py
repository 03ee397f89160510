"""Operators and methods of values in a trace, derived from the registry."""

from __future__ import annotations

from facula.ir.program import Value
from facula.ops.registry import OPS, F

BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
    "matmul": "matmul",
}
COMPARE = ("lt", "le", "gt", "ge")


def _forward(name):
    return lambda self, other: getattr(F, name)(self, other)


def _reflected(name):
    return lambda self, other: getattr(F, name)(other, self)


def attach(cls) -> None:
    """Give ``cls`` the operators and, as methods, all ops that have the space "method".

    ``==`` stays identity on values (they are keys); ``x.eq(y)`` compares.
    """
    for operator, name in BINARY.items():
        setattr(cls, f"__{operator}__", _forward(name))
        setattr(cls, f"__r{operator}__", _reflected(name))
    for name in COMPARE:
        setattr(cls, f"__{name}__", _forward(name))
    cls.__neg__ = lambda self: F.neg(self)
    cls.__invert__ = lambda self: F.bitwise_not(self)
    for op in list(OPS.values()):
        if "method" in op.spaces:
            for name in (op.name, *op.aliases):
                setattr(cls, name, _method(op))


def _method(op):
    def method(self, *args, **kwargs):
        return op(self, *args, **kwargs)

    method.__name__, method.__doc__ = op.name, op.__doc__
    return method


def attach_to_values() -> None:
    """Called once all op files are imported, and again by packages that declare more."""
    attach(Value)
