"""Surroundings: what a captured function reads of Python around it, and whether that has changed.

Looked at are the variables of its closure, the globals that it names, the object of which it is a
method, objects among its arguments, and what these hold: modules, containers, plain attributes,
functions of the user's. All that is no tensor is a constant of a capture, so the capture holds only
while it is the same. A look at everything is dear: :meth:`Surroundings.number` repeats it only if
a change was counted (``base.changes``), or a variable or container holds another object.
"""

from __future__ import annotations

import dis
import types
from collections import deque
from functools import cache, lru_cache, partial
from operator import is_

from facula.base.changes import Watched, count
from facula.eager.dispatch import PLAIN
from facula.eager.tensor import Tensor
from facula.runtime import guards

_PLAIN = PLAIN | {float, complex, bytes}
#: Containers of more items are told by identity and length.
MOST_ITEMS = 256
_REGISTRIES = ("_parameters", "_buffers", "_modules")
_MISSING = guards.NOTHING
#: In the paths of optimizers' states, which are made by the first step.
MADE = ".state"


class Surroundings:
    """What a function and some objects reach.

    Attributes:
        found: path -> what is there, of the last look.
        cursors: objects reached that give other values each time they are asked.
    """

    def __init__(self, *roots):
        self.roots = roots
        self.known: dict = {}
        self.same = None

    def number(self) -> int:
        """Equal numbers mean equal surroundings."""
        if self.same is None or not self.same():
            self.look()
        return self.current

    def look(self):
        """Look at everything."""
        changes = count.changes
        self.found, self.held, self.cursors, self.reached = {}, [], [], []
        self.cells, self.names, self.contents, self.seen = [], [], [], set()
        self.metas, self.slots = [], []
        for i, root in enumerate(self.roots):
            self._walk(getattr(root, "__name__", f"argument {i}"), root)
        key = tuple(self.found.items())
        if key not in self.known:
            self.known[key] = len(self.known), self.held
        self.current = self.known[key][0]
        self.part = guards.Part(self._checks(changes))
        self.same = guards.guard(0, self.part)

    def _checks(self, changes):
        """What says that the last look would find the same."""
        yield "attribute", count, "changes", changes
        for cell, v in self.cells:
            yield "cell", cell, v
        for d, name, v in self.names:
            yield "item", d, name, v
        for x, name, v in self.slots:
            yield "attribute", x, name, v
        for x, m in self.metas:
            yield "slot", x, "_meta", m
        for c, items in self.contents:
            kind = "list" if type(c) is list else "dict" if type(c) in (dict, Watched) else None
            yield (kind, c, tuple(items)) if kind else ("call", partial(_equal, c, items))

    # Looking

    def _walk(self, path, x):
        kind = type(x)
        if kind in _PLAIN:
            self.found[path] = (kind, repr(x)) if kind in (float, complex) else (kind, x)
            return
        self.found[path] = (kind, len(x)) if kind is tuple else (kind, id(x))
        if id(x) in self.seen:
            return
        self.seen.add(id(x))
        self.held.append(x)
        if isinstance(x, (Tensor, type, types.ModuleType, types.BuiltinFunctionType)):
            return
        if kind in (tuple, list, set, frozenset, dict, deque) or isinstance(x, dict):
            self._container(path, x)
        elif kind is types.FunctionType:
            self._function(path, x)
        elif kind is types.MethodType:
            self._walk(path, x.__func__)
            self._walk(f"{path}.__self__", x.__self__)
        elif kind is partial:
            self._walk(path + ".func", x.func)
            self._walk(path + ".args", x.args)
            self._walk(path + ".keywords", x.keywords)
        elif isinstance(getattr(x, "_modules", None), dict):
            self._module(path, x)
        elif isinstance(getattr(x, "param_groups", None), list):
            self._optimizer(path, x)
        elif hasattr(kind, "__next__") or _draws(kind):
            self.cursors.append(path)
        elif not kind.__module__.startswith("facula"):
            self._object(path, x)

    def _container(self, path, x):
        if len(x) > MOST_ITEMS:
            self.found[path] = (type(x), id(x), len(x))
            return
        pairs = x.items() if isinstance(x, dict) else enumerate(x)
        if not isinstance(x, (tuple, frozenset)):
            self.contents.append((x, [*x, *(x.values() if isinstance(x, dict) else ())]))
        for k, v in list(pairs):
            self._walk(f"{path}[{k!r}]", v)

    def _function(self, path, fn):
        if (fn.__module__ or "").startswith("facula."):
            return
        code = fn.__code__
        for name, cell in zip(code.co_freevars, fn.__closure__ or ()):
            self.cells.append((cell, _content(cell)))
            self._walk(name, _content(cell))
        for name in _names(code):
            v = fn.__globals__.get(name, _MISSING)
            self.names.append((fn.__globals__, name, v))
            if v is not _MISSING:
                self._walk(name, v)
        self._walk(path + ".__defaults__", fn.__defaults__)
        self._walk(path + ".__kwdefaults__", fn.__kwdefaults__)

    def _module(self, path, module):
        self.reached.append(module)
        own = vars(module)
        for name, v in own.items():
            if name in _REGISTRIES:
                for k, x in v.items():
                    self._walk(f"{path}.{k}", x)
                    if isinstance(x, Tensor):
                        self.found[f"{path}.{k}"] = (id(x), x._meta.requires_grad)
                        self.metas.append((x, x._meta))
            elif name != "training" and name in _fields(type(module)):
                # Hooks: to add and to remove them is counted.
                for k, hook in enumerate(v.values() if isinstance(v, dict) else v):
                    self._walk(f"{path}.{name}[{k}]", hook)
            else:
                self._walk(f"{path}.{name}", v)
        forward = type(module).forward
        if not type(module).__module__.startswith("facula."):
            self._walk(f"{path}.__class__.forward", forward)

    def _optimizer(self, path, x):
        """Its groups and its state; numbers in these are read by each call."""
        self.contents.append((x.param_groups, list(x.param_groups)))
        for i, group in enumerate(x.param_groups):
            self._walk(f"{path}.param_groups[{i}]['params']", group["params"])
            self.found[f"{path}.param_groups[{i}]"] = id(group)
        self.found[f"{path}.states"] = id(x.state)
        self.held += [*x.param_groups, x.state]
        for i, state in enumerate(x.state.values()):
            for name, v in state.items():
                if isinstance(v, Tensor):
                    self.found[f"{path}{MADE}[{i}][{name!r}]"] = id(v)
                    self.held.append(v)

    def changed_since(self, before):
        """The path of something that is not what it was in ``before``, or None.

        A state that an optimizer had not made before does not count.
        """
        for path in {**before, **self.found}:
            if before.get(path) != self.found.get(path) and not (
                MADE in path and path not in before
            ):
                return path
        return None

    def modules(self) -> list:
        """The outermost modules reached below the root; layers of the library's are no gain."""
        reached = [
            m
            for m in self.reached
            if m is not self.roots[0] and type(m).forward.__qualname__ != "Module.forward"
        ]
        inner = {id(m) for module in reached for m in module._modules.values()}
        return [
            m
            for m in reached
            if id(m) not in inner and (m._modules or not type(m).__module__.startswith("facula."))
        ]

    def undoing(self):
        """A function that puts back what variables, containers and objects hold at the moment."""
        cells, names, contents, slots = self.cells, self.names, self.contents, self.slots
        own = [(vars(m), dict(vars(m))) for m in self.reached]

        def undo():
            for cell, v in cells:
                if _content(cell) is not v and v is not _MISSING:
                    cell.cell_contents = v
            for d, name, v in names:
                if v is _MISSING:
                    d.pop(name, None)
                elif d.get(name) is not v:
                    d[name] = v
            for x, name, v in slots:
                if getattr(x, name, _MISSING) is not v:
                    delattr(x, name) if v is _MISSING else setattr(x, name, v)
            for c, items in contents:
                if not _equal(c, items):
                    half = len(items) // 2
                    new = zip(items[:half], items[half:]) if isinstance(c, dict) else items
                    c.clear()
                    c.extend(new) if isinstance(c, (list, deque)) else c.update(new)
            for d, items in own:
                if d != items:
                    d.clear()
                    d.update(items)
                    count.changes += 1

        return undo

    def _object(self, path, x):
        own = getattr(x, "__dict__", None)
        if isinstance(own, dict) and len(own) <= MOST_ITEMS:
            self.contents.append((own, [*own, *own.values()]))
            for name, v in list(own.items()):
                self._walk(f"{path}.{name}", v)
        for name in _slots(type(x)):
            v = getattr(x, name, _MISSING)
            self.slots.append((x, name, v))
            self._walk(f"{path}.{name}", v)
        call = next((vars(t)["__call__"] for t in type(x).__mro__ if "__call__" in vars(t)), None)
        if type(call) is types.FunctionType:
            self._walk(f"{path}.__call__", call)


@cache
def _fields(kind) -> frozenset:
    """The names of what every module has, of the base of all of them."""
    base = next((c for c in kind.__mro__ if c.__module__ == "facula.nn.modules.module"), None)
    return frozenset() if base is None else frozenset(vars(base()))


@cache
def _slots(kind) -> list:
    """The names of the slots of a class's objects."""
    member = types.MemberDescriptorType
    return [n for c in kind.__mro__ for n, v in vars(c).items() if isinstance(v, member)]


@lru_cache(4096)
def _names(code):
    """The names of a function's globals, those of functions defined inside of it included.

    ``co_names`` would not do: it has the names of attributes as well, and a global that happens to
    be called like one of them is not read.
    """
    names = {i.argval: None for i in dis.get_instructions(code) if i.opname in _GLOBALS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(_names(constant)))
    return names


_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "STORE_NAME", "DELETE_GLOBAL"}


def _draws(kind) -> bool:
    """Whether it is a class of generators of random numbers, Python's or NumPy's."""
    names = {"random": ("Random", "SystemRandom"), "numpy": ("RandomState", "Generator")}
    return kind.__name__ in names.get(kind.__module__.split(".")[0], ())


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def _equal(container, items) -> bool:
    """Whether a container holds these very objects."""
    now = [*container, *container.values()] if isinstance(container, dict) else [*container]
    return len(now) == len(items) and all(map(is_, now, items))
