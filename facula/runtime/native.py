"""Python types and builtin functions made of machine code.

A type is a set of native functions behind CPython's slots (``PyType_FromSpec``, the stable
interface, so one description serves every version); a builtin is a native function behind a
``PyMethodDef``. Both are called by the interpreter directly, at about 50 ns where ctypes costs 500.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Sequence

from facula.base.errors import UnsupportedError, fail
from facula.runtime.jit import immortal

#: Bytes of every object's header: its count of references, then its type at :data:`TYPE`.
HEADER = object.__basicsize__
TYPE = HEADER - 8

# The stable interface's numbers of slots (CPython's typeslots.h).
BF_GETBUFFER, TP_DEALLOC, TP_TRAVERSE, TP_MEMBERS = 1, 52, 71, 72
# Types of members (structmember.h).
OBJECT, LONGLONG, SSIZE = 6, 17, 19
READONLY = 1
# Flags of types and methods.
HAVE_GC, DISALLOW_INSTANTIATION = 1 << 14, 1 << 7
METH_FASTCALL = 0x80


class _Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("function", ctypes.c_void_p)]


class _Member(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


class _Spec(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    ]


class _Method(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


def require_gil() -> None:
    """Refuse the free-threaded builds of CPython: the free lists of storage rely on the GIL.

    Raises:
        UnsupportedError: this is one.
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        fail(
            UnsupportedError,
            "runtime",
            "free-threaded builds of CPython are not supported",
            "use the ordinary build of the same version",
        )


def make_type(
    name: str,
    basicsize: int,
    slots: dict[int, int],
    members: Sequence[tuple[str, int, int, int, str | None]] = (),
    flags: int = 0,
) -> type:
    """A type whose instances only native code makes.

    Args:
        name: with its module, such as ``"facula.runtime.storage.Storage"``.
        basicsize: bytes of an instance.
        slots: number of a slot -> address of the native function.
        members: (name, type, offset, flags, documentation) of attributes read in place.
        flags: beyond those that every such type has.
    """
    described = (_Member * (len(members) + 1))()
    for i, (member, kind, offset, access, doc) in enumerate(members):
        described[i] = _Member(member.encode(), kind, offset, access, doc and doc.encode())
    filled = {**slots, TP_MEMBERS: ctypes.addressof(described)}
    table = (_Slot * (len(filled) + 1))(*(_Slot(s, f) for s, f in filled.items()))
    spec = _Spec(name.encode(), basicsize, 0, flags | DISALLOW_INSTANTIATION, table)
    # Older versions keep pointers into the description.
    immortal((described, table, spec))
    build = ctypes.pythonapi.PyType_FromSpec
    build.restype, build.argtypes = ctypes.py_object, [ctypes.c_void_p]
    return immortal(build(ctypes.addressof(spec)))


def method_def(name: str, function: int, doc: str | None = None) -> int:
    """Address of a ``PyMethodDef`` of a METH_FASTCALL function that is never freed."""
    method = _Method(name.encode(), function, METH_FASTCALL, doc and doc.encode())
    return ctypes.addressof(immortal(method))


def set_function(method: int, function: int) -> None:
    """Let all builtins of that ``PyMethodDef`` run another native function from now on."""
    _Method.from_address(method).function = function


def builtin(name: str, function: int, doc: str | None = None):
    """A builtin of the native function ``ptr (ptr self, ptr args, i64 nargs)``, self being null."""
    build = ctypes.pythonapi.PyCFunction_NewEx
    build.restype = ctypes.py_object
    build.argtypes = [ctypes.c_void_p] * 3
    return build(method_def(name, function, doc), None, None)
