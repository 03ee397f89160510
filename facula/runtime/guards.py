"""Guards: whether objects are still the ones that they were, asked in native code at some ns each.

A :class:`Part` is a list of checks, made once and joined with others into a :func:`guard`, a
builtin that is called with arguments and says whether all checks hold. A check compares addresses:

    ("same", i, x)            argument i is x
    ("type", i, kind)         its type is
    ("argument", i, slot, x)  its slot is x; it is known to be a tensor
    ("apart", i, slot, k)     arguments i and k, tensors, do not share what is in the slot
    ("others", i, slot, xs)   the slot of argument i, a tensor, is none of a tuple
    ("slot", t, slot, x)      the slot of the tensor t is x
    ("version", s, n)         the version of the storage s is n
    ("unlike", t, slot, x)    it is not x
    ("below", t, slot, kind, inner_slot, x)  what is in the slot is of that type, and its slot is x
    ("cell", c, x)            the cell holds x
    ("attribute", o, name, x), ("item", d, key, x), ("list", l, xs), ("dict", d, keys and values)
    ("call", f)               f() is True

``NOTHING`` stands for what is not there. All that is named is kept alive, so that an address
belongs to one object only.
"""

from __future__ import annotations

import struct

from facula.runtime import launch, native, storage

NOTHING = object()
_KINDS = ("same", "argument", "slot", "unlike", "below", "attribute", "item", "list", "dict",
          "apart", "others", "call")  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(_KINDS)}
_pack = struct.Struct("6q").pack


class Part:
    """Some checks, packed."""

    __slots__ = ("words", "keep")

    def __init__(self, checks):
        checks = list(checks)
        slots = launch.slots()
        self.words = b"".join([_packed(slots, *check) for check in checks])
        self.keep = checks


def guard(arguments: int, *parts: Part):
    """A builtin that says whether the checks of all parts hold for so many arguments."""
    words = b"".join([part.words for part in parts])
    head = struct.pack("2q", arguments, len(words) // 48)
    return launch.guard(head + words, [part.keep for part in parts])


def _address(x):
    return 0 if x is NOTHING else id(x)


def _packed(slots, kind, subject, *rest):
    number, a = _NUMBERS.get(kind), subject if isinstance(subject, int) else id(subject)
    if kind == "type":
        return _pack(_NUMBERS["argument"], a, native.TYPE, 0, 0, id(rest[0]))
    if kind == "version":
        return _pack(_NUMBERS["slot"], a, native.HEADER + storage.VERSION, 0, 0, rest[0])
    if kind == "cell":
        return _pack(_NUMBERS["slot"], a, native.HEADER, 0, 0, _address(rest[0]))
    if kind in ("same", "list", "dict"):
        return _pack(number, a, 0, 0, 0, id(rest[0]))
    if kind == "call":
        return _pack(number, a, 0, 0, 0, id(True))
    if kind in ("attribute", "item"):
        return _pack(number, a, id(rest[0]), 0, 0, _address(rest[1]))
    slot = slots[rest[0]]
    if kind == "apart":
        return _pack(number, a, slot, rest[1], 0, 0)
    if kind == "below":
        kind, name, x = rest[1:]
        return _pack(number, a, slot, slots[name], id(kind), id(x))
    return _pack(number, a, slot, 0, 0, id(rest[1]))
