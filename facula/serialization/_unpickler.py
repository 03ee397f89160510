"""A reader of pickles that runs no code: an interpreter of the opcodes that carry data.

A pickle is a program for a small stack machine, and Python's own reader gives it every function
that can be imported. This one knows the opcodes that build data, and calls what is in the table
of ``_globals`` or on the user's list, nothing else. It works on a buffer of known length, so a
length in the pickle is compared with what is there before anything is allocated.
"""

from __future__ import annotations

import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from types import FunctionType

from facula.base.errors import FaculaError
from facula.serialization import _globals, _safe
from facula.serialization.errors import UnpicklingError
from facula.tensor import Tensor, pickling

_MARK = object()
_HIGHEST_PROTOCOL = 5

#: opcode -> method, filled by the decorator below.
_OPCODES: dict[int, object] = {}


def _opcode(*codes: bytes):
    def add(method):
        for code in codes:
            _OPCODES[code[0]] = method
        return method

    return add


def _constant(code: bytes, make):
    """An opcode that pushes a value and has no argument."""
    _OPCODES[code[0]] = lambda self: self.stack.append(make())


def _number(code: bytes, layout: str):
    """An opcode that pushes a number of fixed width."""
    _OPCODES[code[0]] = lambda self: self.stack.append(self.unpack(layout))


def _text(code: bytes, layout: str):
    """An opcode that pushes text of given length."""
    _OPCODES[code[0]] = lambda self: self.stack.append(
        str(self.take(self.unpack(layout)), "utf-8", "surrogatepass")
    )


def _bytes(code: bytes, layout: str, make=bytes):
    """An opcode that pushes bytes of given length."""
    _OPCODES[code[0]] = lambda self: self.stack.append(make(self.take(self.unpack(layout))))


def _get(code: bytes, layout: str):
    """An opcode that pushes what the memo holds."""
    _OPCODES[code[0]] = lambda self: self.stack.append(self.memo[self.unpack(layout)])


def _put(code: bytes, layout: str):
    """An opcode that keeps the top of the stack in the memo."""

    def put(self):
        self.memo[self.unpack(layout)] = self.stack[-1]

    _OPCODES[code[0]] = put


def _tuple_of(code: bytes, count: int):
    def build(self):
        self.stack.append(tuple(reversed([self.stack.pop() for _ in range(count)])))

    _OPCODES[code[0]] = build


class Unpickler:
    """Reads objects from a buffer, one after another.

    Args:
        buffer: the bytes.
        persistent_load: gives the object for a persistent id (a tuple that the file chose).
        at: where the first pickle begins; :meth:`load` leaves it behind what it has read.
    """

    def __init__(self, buffer, persistent_load, at: int = 0):
        self._buffer = memoryview(buffer).cast("B")
        self._persistent_load = persistent_load
        self.at = at
        # What this file has been given and may call, by identity.
        self._callable: dict[int, object] = {}

    def load(self):
        """The next object.

        Raises:
            UnpicklingError: damaged, or names what is not allowed.
        """
        self.stack: list = []
        self.memo: dict = {}
        start = self.at
        try:
            while True:
                code = self._buffer[self.at]
                self.at += 1
                if code == pickle.STOP[0]:
                    (result,) = self.stack
                    return result
                method = _OPCODES.get(code)
                if method is None:
                    raise UnpicklingError(
                        f"load: the opcode {bytes([code])!r} is not one that data needs"
                    )
                method(self)
        except FaculaError:
            raise
        except (OSError, MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever a hostile file provokes, in our code or the user's
            raise UnpicklingError(
                f"load: the pickle is damaged at byte {self.at - start}: "
                f"{type(error).__name__}: {error}"
            ) from error

    # -- reading ----------------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if not 0 <= count <= len(self._buffer) - self.at:
            raise UnpicklingError(f"load: the pickle ends within {count} bytes of data")
        self.at += count
        return self._buffer[self.at - count : self.at]

    def unpack(self, layout: str):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """The text up to the next newline."""
        # Names are short; a bound keeps a file without newlines from costing a search each.
        text = bytes(self._buffer[self.at : self.at + 1024])
        end = text.find(b"\n")
        if end < 0:
            raise UnpicklingError("load: the pickle has an unterminated line")
        self.at += end + 1
        return text[:end].decode("utf-8")

    def pop_mark(self) -> list:
        """All that lies above the last mark."""
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise UnpicklingError("load: the pickle lacks a mark")
        items = stack[at + 1 :]
        del stack[at:]
        return items

    # -- what may be named and called -------------------------------------------------------------

    def find(self, module: str, name: str):
        """The object of that name, if the file may have it."""
        # Protocol 2 writes the names that Python 2 had.
        module, name = NAME_MAPPING.get((module, name), (module, name))
        module = IMPORT_MAPPING.get(module, module)
        value = _globals.resolve(module, name)
        listed = _safe.lookup(module, name)
        if value is None and listed is None:
            if (module, name) in _globals.MISSING:
                raise UnpicklingError(
                    f"load: the file uses {module}.{name}, of which Facula has no counterpart"
                )
            raise UnpicklingError(
                f"load: the file asks for the global {module}.{name}, which is not on the allow "
                f"list; hint: if you trust whoever wrote the file, allow it with "
                f"facula.serialization.add_safe_globals([{name}])"
            )
        if value is None:
            value = listed
        # Tensor classes in the table are data, an argument of the function that makes tensors.
        if listed is not None or isinstance(value, FunctionType) or value is _globals.device:
            self._callable[id(value)] = value
        return value

    def call(self, function, args) -> None:
        """Push the result of a call; the function must be one that :meth:`find` gave out."""
        if id(function) not in self._callable or not isinstance(args, tuple):
            raise UnpicklingError(
                f"load: the pickle calls an object of type {type(function).__name__}, "
                "which is not a function on the allow list"
            )
        self.stack.append(function(*args))

    def new(self, cls, args, kwargs) -> None:
        """Push ``cls.__new__``; for classes on the user's list alone."""
        if not (isinstance(cls, type) and _safe.is_listed(cls)):
            raise UnpicklingError(
                f"load: the pickle makes an instance of {cls!r}, which is not on the allow list"
            )
        self.stack.append(cls.__new__(cls, *args, **kwargs))

    def fill(self, target, items: list) -> None:
        """``target[key] = value`` for a list of alternating keys and values."""
        if not (type(target) in (dict, OrderedDict, Counter) or _safe.is_listed(type(target))):
            raise UnpicklingError(f"load: the pickle sets items of a {type(target).__name__}")
        if len(items) % 2:
            raise UnpicklingError("load: the pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            _globals.check_key(key)
            target[key] = value

    def extend(self, target, items: list) -> None:
        if not (type(target) is list or _safe.is_listed(type(target))):
            raise UnpicklingError(f"load: the pickle appends to a {type(target).__name__}")
        target.extend(items)


# -- the opcodes: data ----------------------------------------------------------------------------

_constant(pickle.NONE, lambda: None)
_constant(pickle.NEWTRUE, lambda: True)
_constant(pickle.NEWFALSE, lambda: False)
_constant(pickle.EMPTY_TUPLE, tuple)
_constant(pickle.EMPTY_LIST, list)
_constant(pickle.EMPTY_DICT, dict)
_constant(pickle.EMPTY_SET, set)
_constant(pickle.MARK, lambda: _MARK)
_number(pickle.BININT, "<i")
_number(pickle.BININT1, "<B")
_number(pickle.BININT2, "<H")
_number(pickle.BINFLOAT, ">d")
_text(pickle.SHORT_BINUNICODE, "<B")
_text(pickle.BINUNICODE, "<I")
_text(pickle.BINUNICODE8, "<Q")
_bytes(pickle.SHORT_BINBYTES, "<B")
_bytes(pickle.BINBYTES, "<I")
_bytes(pickle.BINBYTES8, "<Q")
_bytes(pickle.BYTEARRAY8, "<Q", bytearray)
_get(pickle.BINGET, "<B")
_get(pickle.LONG_BINGET, "<I")
_put(pickle.BINPUT, "<B")
_put(pickle.LONG_BINPUT, "<I")
_tuple_of(pickle.TUPLE1, 1)
_tuple_of(pickle.TUPLE2, 2)
_tuple_of(pickle.TUPLE3, 3)


@_opcode(pickle.LONG1, pickle.LONG4)
def _long(self: Unpickler):
    wide = self._buffer[self.at - 1] == pickle.LONG4[0]
    data = self.take(self.unpack("<I" if wide else "<B"))
    self.stack.append(int.from_bytes(data, "little", signed=True))


@_opcode(pickle.MEMOIZE)
def _memoize(self: Unpickler):
    self.memo[len(self.memo)] = self.stack[-1]


@_opcode(pickle.TUPLE)
def _tuple(self: Unpickler):
    self.stack.append(tuple(self.pop_mark()))


@_opcode(pickle.LIST)
def _list(self: Unpickler):
    self.stack.append(self.pop_mark())


@_opcode(pickle.FROZENSET)
def _frozenset(self: Unpickler):
    self.stack.append(_globals.make_frozenset(self.pop_mark()))


@_opcode(pickle.DICT)
def _dict(self: Unpickler):
    items = self.pop_mark()
    self.stack.append({})
    self.fill(self.stack[-1], items)


@_opcode(pickle.APPEND)
def _append(self: Unpickler):
    value = self.stack.pop()
    self.extend(self.stack[-1], [value])


@_opcode(pickle.APPENDS)
def _appends(self: Unpickler):
    items = self.pop_mark()
    self.extend(self.stack[-1], items)


@_opcode(pickle.ADDITEMS)
def _add_items(self: Unpickler):
    items = self.pop_mark()
    if type(self.stack[-1]) is not set:
        raise UnpicklingError("load: the pickle adds elements to something else than a set")
    self.stack[-1].update(_globals.make_set(items))


@_opcode(pickle.SETITEM)
def _set_item(self: Unpickler):
    value, key = self.stack.pop(), self.stack.pop()
    self.fill(self.stack[-1], [key, value])


@_opcode(pickle.SETITEMS)
def _set_items(self: Unpickler):
    items = self.pop_mark()
    self.fill(self.stack[-1], items)


@_opcode(pickle.POP)
def _pop(self: Unpickler):
    self.stack.pop()


@_opcode(pickle.POP_MARK)
def _pop_mark(self: Unpickler):
    self.pop_mark()


@_opcode(pickle.DUP)
def _dup(self: Unpickler):
    self.stack.append(self.stack[-1])


@_opcode(pickle.PROTO)
def _proto(self: Unpickler):
    protocol = self.unpack("<B")
    if protocol > _HIGHEST_PROTOCOL:
        raise UnpicklingError(f"load: pickle protocol {protocol} is not known")


@_opcode(pickle.FRAME)
def _frame(self: Unpickler):
    # Frames only tell how much to read ahead, and all of it is here already.
    self.unpack("<Q")


# -- the opcodes: names and calls -----------------------------------------------------------------


@_opcode(pickle.GLOBAL)
def _global(self: Unpickler):
    module, name = self.line(), self.line()
    self.stack.append(self.find(module, name))


@_opcode(pickle.STACK_GLOBAL)
def _stack_global(self: Unpickler):
    name, module = self.stack.pop(), self.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise UnpicklingError("load: the pickle names a global with something else than text")
    self.stack.append(self.find(module, name))


@_opcode(pickle.REDUCE)
def _reduce(self: Unpickler):
    args, function = self.stack.pop(), self.stack.pop()
    self.call(function, args)


@_opcode(pickle.NEWOBJ)
def _newobj(self: Unpickler):
    args, cls = self.stack.pop(), self.stack.pop()
    self.new(cls, args, {})


@_opcode(pickle.NEWOBJ_EX)
def _newobj_ex(self: Unpickler):
    kwargs, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
    self.new(cls, args, kwargs)


@_opcode(pickle.BINPERSID)
def _binpersid(self: Unpickler):
    self.stack.append(self._persistent_load(self.stack.pop()))


@_opcode(pickle.BUILD)
def _build(self: Unpickler):
    """Give the object on the stack its state, as its class provides for it."""
    state, target = self.stack.pop(), self.stack[-1]
    cls = type(target)
    if cls is OrderedDict and type(state) is dict:
        # Where a state dict keeps its ``_metadata``. Data must not hide a method.
        if any(type(name) is not str or hasattr(OrderedDict, name) for name in state):
            raise UnpicklingError("load: the pickle sets a method of a dict")
        target.__dict__.update(state)
    elif isinstance(target, Tensor) and not _safe.is_listed(cls):
        pickling.set_attributes(target, state)
    elif not _safe.is_listed(cls):
        raise UnpicklingError(
            f"load: the pickle sets the state of a {cls.__name__}, which is not on the allow list"
        )
    elif hasattr(target, "__setstate__"):
        target.__setstate__(state)
    else:
        own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        if own:
            target.__dict__.update(own)
        for name, value in (slots or {}).items():
            setattr(target, name, value)
