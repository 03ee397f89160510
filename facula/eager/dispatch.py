"""Eager dispatch: from a call of an op to a plan, and the cache between them.

A :class:`Site` is an op together with one way of calling it. The generated functions look a plan
up by the metas of tensors, the types of numbers and the values of everything else, and call it;
what they do not find, :meth:`Site.first` makes: arguments sorted, Program traced (or found: sizes
are symbols), executable compiled (or found), plan bound to the sizes.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from inspect import Parameter

from facula.base import dtypes as D
from facula.base.errors import ArgumentTypeError, FaculaError, fail
from facula.eager import views
from facula.eager.grad_mode import capture
from facula.eager.recipes import Recipe, drawing, kinds_of
from facula.eager.tensor import TENSORS, Tensor
from facula.eager.tracing import NUMBERS, Routine, symbols_of, trace
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.program import Value
from facula.ops.registry import Primitive
from facula.runtime import random

#: Plans kept at most, over all ops; then all are forgotten. Programs and kernels stay.
MAX_PLANS = 20_000
MAX_TRACES = 4_000
#: Recipes for arguments of one kind. Where these do not do, sizes are likely to decide everything.
MOST_RECIPES = 8

_tables: list[dict] = []
_sites: list[weakref.ref] = []
_counts = {"plans": 0, "traces": 0}


def table() -> dict:
    """A cache that is emptied when there are too many plans."""
    new: dict = {}
    _tables.append(new)
    return new


def _every_table(traces=True) -> list[dict]:
    """All caches: those of sites that are still in use, and the tables made apart."""
    sites = [(r, r()) for r in _sites]
    _sites[:] = [r for r, site in sites if site is not None]
    alive = [site for _, site in sites if site is not None]
    more = [t for site in alive for t in (site.traces, site.recipes)] if traces else []
    return [*_tables, *(site.rows for site in alive), *more]


def forget() -> None:
    """Empty all caches of plans and traces."""
    for one in _every_table():
        one.clear()
    _counts.update(plans=0, traces=0)


def forget_all() -> None:
    """Forget captures as well, as after a change of the default dtype."""
    forget()
    for function in forgetting:
        function()


#: What :func:`forget_all` calls.
forgetting: list = []


@contextmanager
def outside():
    """Run the block outside of the capture in progress: what it makes are constants there."""
    trace, capture.trace = capture.trace, None
    try:
        with P.building(None):
            yield
    finally:
        capture.trace = trace
        if trace is not None:
            # The trace must not find the plans that were made meanwhile.
            for one in _every_table():
                one.clear()


def hide_plans() -> list:
    """Empty all caches for a while, so that every call is seen; returns what was in them."""
    tables = _every_table()
    hidden = [(one, dict(one)) for one in tables]
    for one in tables:
        one.clear()
    return hidden


def restore_plans(hidden) -> None:
    """Undo :func:`hide_plans`."""
    for one in _every_table():
        one.clear()
    for one, content in hidden:
        one.update(content)


def count(what, most) -> None:
    """Note one more entry; empty the caches when there are too many.

    Too many plans are forgotten alone: Programs and their executables are worth more.
    """
    _counts[what] += 1
    if _counts[what] <= most:
        return
    if what == "traces":
        forget()
        return
    for one in _every_table(traces=False):
        one.clear()
    _counts["plans"] = 0


# Keys -----------------------------------------------------------------------------------------

PLAIN = frozenset({int, bool, str, type(None), D.dtype})
#: Python's types as dtypes.
PYTHON_TYPES = {bool: D.bool_, int: D.int64, float: D.float64}


def key_of(x):
    """What of an argument for a tensor decides the plan: its meta, or the type of a number."""
    kind = type(x)
    if kind in NUMBERS:
        return kind
    if isinstance(x, Tensor):
        TENSORS.add(kind)
        return x._meta
    if isinstance(x, (list, tuple)):
        return (kind, *map(key_of, x))
    return static_key(x)


def static_key(x):
    """A constant argument as a part of a key. Equal numbers of different types differ."""
    kind = type(x)
    if kind in PLAIN:
        return x
    if kind is float:
        # Zeros of both signs are equal, and a NaN is not: their text tells them apart.
        return (float, x) if x and x == x else (float, repr(x))
    if kind is tuple or kind is list or isinstance(x, (list, tuple)):
        return tuple(x) if PLAIN.issuperset(map(type, x)) else tuple(map(static_key, x))
    if isinstance(x, Tensor):
        return ("item", static_key(x.item()))
    if isinstance(x, dict):
        return tuple((k, static_key(v)) for k, v in x.items())
    return x


def plain_argument(x):
    """A constant argument as ops expect it: no tensors, no NumPy numbers, no lists."""
    kind = type(x)
    if kind in PLAIN or kind is float:
        return x
    if isinstance(x, Tensor):
        return x.item()
    if isinstance(x, list):
        return tuple(map(plain_argument, x))
    if isinstance(x, tuple):
        items = map(plain_argument, x)
        return kind(*items) if hasattr(kind, "_fields") else tuple(items)
    if hasattr(x, "item") and hasattr(x, "dtype") and not isinstance(x, Value):
        return x.item()
    return PYTHON_TYPES.get(x, x) if type(x) is type else x


def data_argument(x):
    """An argument for a tensor: NumPy numbers become Python's, the rest stays."""
    if isinstance(x, Tensor) or type(x) in NUMBERS or x is None or isinstance(x, (str, Value)):
        return x
    if isinstance(x, (list, tuple)):
        return type(x)(map(data_argument, x)) if type(x) in (list, tuple) else x
    if getattr(x, "shape", None) == () and hasattr(x, "item"):
        return x.item()
    return x


def has_values(args) -> bool:
    """Whether any argument belongs to a trace."""
    return any(isinstance(a, Value) or isinstance(a, (list, tuple)) and has_values(a) for a in args)


def _is_inside(args) -> bool:
    """Whether a call is of an op's own arithmetic: only numbers of users are values as well."""
    return any(
        isinstance(a, Value) and not a.weak or isinstance(a, (list, tuple)) and _is_inside(a)
        for a in args
    )


# Sites ----------------------------------------------------------------------------------------


class Structure:
    """A call's arguments sorted.

    Attributes:
        data: tensors and numbers that are inputs of the Program, in order.
        skeleton: per parameter ("data", i), ("list", type, items) or ("static", value).
        expressions: per datum, how to get it from the plan's parameters.
        key: what the trace depends on.
        symbols: the values of the sizes; set where a Routine was looked for.
    """

    __slots__ = ("data", "skeleton", "expressions", "key", "counted", "symbols")

    def __init__(self):
        self.data, self.skeleton, self.expressions, self.key = [], [], [], []
        self.counted = 0

    def build(self, values, call, skeleton=None):
        """The call's arguments with values in the place of data."""

        def filled(item):
            if item[0] == "data":
                return values[item[1]]
            if item[0] == "list":
                return item[1](filled(x) for x in item[2])
            return item[1]

        skeleton = self.skeleton if skeleton is None else skeleton
        return call([filled(item) for item in skeleton] + list(values[self.counted :]))


class Site:
    """An op and one way of calling it: fresh results, or in place (``into="self"``).

    Attributes:
        parameters: of the op's function, without seed and offset of random ops.
        slots: indices of the parameters that take tensors or changing numbers.
        strict: so many of the first arguments have to be tensors.
    """

    def __init__(self, name, fn, parameters, dynamic, into="", view=False, random=False, strict=0):
        self.name, self.fn, self.into, self.view, self.random = name, fn, into, view, random
        self.parameters, self.strict = list(parameters), strict
        self.slots = [i for i, p in enumerate(self.parameters) if p.name in dynamic]
        self.rows, self.traces, self.recipes = {}, {}, {}
        _sites.append(weakref.ref(self))

    def arguments(self, args):
        """``fn``'s (args, kwargs) of a list of arguments in the order of the parameters.

        Random ops take a generator from the user and (seed, offset), which follow in ``args``.
        """
        positional, named = [], {}
        if self.random:
            n = len(self.parameters)
            named.update(zip(("seed", "offset"), args[n:]))
            args = args[: n - 1]
        for p, a in zip(self.parameters, args):
            if p.kind is p.VAR_POSITIONAL:
                positional += a
            elif p.kind is p.KEYWORD_ONLY:
                named[p.name] = a
            else:
                positional.append(a)
        return positional, named

    def first(self, key, args):
        """Make the plan for these arguments, remember it under ``key``, and call it."""
        trace = capture.trace
        if trace is not None and trace.cuts:
            return trace.call(self, args)
        if P.current() is not None or has_values(args):
            return self.inline(args)

        place = self.rows, key
        plan, args = self.planned(key if type(key) is tuple else (key,), args, place)
        count("plans", MAX_PLANS)
        self.rows[key] = plan
        return plan(*[args[i] for i in self.slots])

    def inline(self, args):
        """The call inside of a trace: its nodes are appended to the Program in progress."""
        if capture.trace is not None and not _is_inside(args):
            return capture.trace.call(self, args)
        positional, named = self.arguments(args)
        return self.fn(*positional, **named)

    def first_of_two(self, a, b, key_a, key_b):
        """As ``first`` for two operands, in a table of two levels."""
        trace = capture.trace
        if trace is not None and trace.cuts:
            return trace.call(self, (a, b))
        if P.current() is not None or has_values((a, b)):
            return self.inline((a, b))

        place = self.rows.setdefault(key_a, {}), key_b
        plan, args = self.planned((key_a, key_b), (a, b), place)
        count("plans", MAX_PLANS)
        self.rows.setdefault(key_a, {})[key_b] = plan
        return plan(*args)

    # Making plans

    def sort(self, args) -> Structure:
        """Split arguments into data and constants."""
        s = Structure()
        names = {i: f"s{k}" for k, i in enumerate(self.slots)}
        for i, a in enumerate(args):
            if i in names:
                self.check(i, a)
                default = self.parameters[i].default
                s.skeleton.append(self._sorted(s, a, names[i], default))
            else:
                s.skeleton.append(("static", a))
                s.key.append(static_key(a))
        s.counted = len(s.data)
        return s

    def check(self, i, a):
        """Refuse what is neither a tensor nor a number for parameter ``i``, or no list of them."""
        p = self.parameters[i]
        note = str(p.annotation)
        if a is p.default or p.annotation is p.empty:
            return
        if "Tensors" in note:
            expected = "tuple of Tensors"
            fits = isinstance(a, Tensor) or (
                isinstance(a, (list, tuple)) and all(isinstance(x, Tensor) for x in a)
            )
        else:
            expected = "Tensor" if "Value" in note else "Number"
            needed = i < self.strict or self.into == "self" and i == 0
            number = type(a) in NUMBERS or isinstance(a, Dim)
            fits = isinstance(a, (Tensor, Value)) or number and not needed
        if not fits:
            fail(
                ArgumentTypeError,
                self.name,
                f"argument {p.name!r} (position {i + 1}) must be {expected}, not "
                f"{type(a).__name__}",
            )

    def _sorted(self, s, a, expression, default):
        if isinstance(a, Tensor):
            m = a._meta
            s.key.append((m.dtype, m.ndim, m.ones))
        elif type(a) in NUMBERS and a is not default:
            s.key.append(type(a))
        elif isinstance(a, (list, tuple)):
            s.key.append((type(a), len(a)))
            items = [self._sorted(s, x, f"{expression}[{k}]", None) for k, x in enumerate(a)]
            return ("list", type(a), items)
        elif a is None or a is default or isinstance(a, str):
            s.key.append(("static", static_key(a)))
            return ("static", a)
        else:
            fail(
                ArgumentTypeError,
                self.name,
                f"expected a Tensor or a number, got {type(a).__name__}",
            )
        s.data.append(a)
        s.expressions.append(expression)
        return ("data", len(s.data) - 1)

    def tensors(self, s, args) -> list:
        """The tensors among the data; a call without any is refused."""
        tensors = [x for x in s.data if type(x) not in NUMBERS]
        if not tensors and not self.random:
            fail(
                ArgumentTypeError,
                self.name,
                "expected a Tensor as an argument, got "
                f"{', '.join(type(a).__name__ for a in args)}",
            )
        return tensors

    def planned(self, key, args, place):
        """The plan for arguments with this key, and the arguments as it takes them."""
        metas: list = []
        ints: list | None = [] if self.view else None
        kinds = kinds_of(key, metas, ints)
        recipes = self.recipes.get(kinds)
        if recipes is None:
            recipes = self.recipes[kinds] = []
        for recipe in recipes:
            plan = recipe and recipe(metas, ints, place)
            if plan is not None:
                return plan, args
        args = [
            data_argument(a) if i in self.slots else plain_argument(a) for i, a in enumerate(args)
        ]
        general = len(recipes) < MOST_RECIPES
        recipe = self.recipe(args, metas, ints if general else None)
        if recipe.routine is None:
            self.recipes[kinds] = [None] * MOST_RECIPES
        elif general:
            recipes.append(recipe)
        return recipe(metas, ints, place), args

    def recipe(self, args, metas, ints):
        """What makes plans for arguments like these; of a view op, whose ints are symbols.

        Where the ints are None, or no symbols do, it has no Routine, and is for these alone.
        """
        s = self.sort(args)
        tensors = self.tensors(s, args)
        if self.view and len(tensors) == 1:
            exact = views.recipe(self, s, symbolic=False)
            found = None if exact is None or ints is None else self._view_recipe(s)
            if found is not None and found.seen(metas, ints) == exact.seen(metas, ints):
                return found
            if exact is not None:
                return exact
        draw = None
        if self.random:
            s.data += [1, 1]
            s.key += [int, int]
            s.expressions += ["r0", "r1"]
        routine, results = self.routine(s)
        if self.random:
            generator = random.default_generator if args[-1] is None else args[-1]
            draw = drawing(routine.program, generator)
        return Recipe(self, s, routine, results, draw=draw)

    def _view_recipe(self, s):
        try:
            return views.recipe(self, s)
        except (FaculaError, TypeError, ValueError, IndexError):
            return None  # It needs to know its ints.

    def routine(self, s):
        """The Routine and Results for sorted arguments: found, or traced now."""
        s.symbols = symbols = symbols_of(s.data)
        key = tuple(s.key)
        entries = self.traces.setdefault(key, [])
        for routine, results in entries:
            if routine.holds(symbols):
                return routine, results
        program, results = trace(
            self.name, self.fn, lambda values: s.build(values, self.arguments), s.data, self.into
        )
        count("traces", MAX_TRACES)
        into = (0,) if self.into == "self" else ()
        entries.append((Routine(program, into), results))
        return entries[-1]


def make_plan(site, s, routine, results, recording=True):
    """The plan for a routine and data, recorded if an input wants gradients."""
    metas = [None if type(x) in NUMBERS else x._meta for x in s.data]
    return Recipe(site, s, routine, results, recording).plan(metas, s.symbols)


# Primitives -----------------------------------------------------------------------------------

_primitive_sites: dict = table()
_primitive_views: dict = table()


def call_primitive(primitive: Primitive, inputs, params):
    """A primitive on tensors, as the gradients of views use it."""
    if capture.trace is not None:
        return capture.trace.primitive(primitive, inputs, params)
    if primitive.view is not None and isinstance(inputs[0], Tensor):
        x = inputs[0]
        key = (primitive.name, static_key(params), x._meta)
        view = _primitive_views.get(key)
        if view is None:
            view = _primitive_views[key] = views.of_primitive(primitive, x, params)
            count("plans", MAX_PLANS)
        return view(x)
    key = (primitive.name, len(inputs), static_key(params))
    site = _primitive_sites.get(key)
    if site is None:
        site = _primitive_sites[key] = _primitive_site(primitive, len(inputs), params)
    key = tuple(map(key_of, inputs))
    plan = site.rows.get(key)
    return site.first(key, inputs) if plan is None else plan(*inputs)


def _primitive_site(primitive, arity, params):
    names = [f"x{i}" for i in range(arity)]
    parameters = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in names]

    def fn(*inputs):
        return primitive(*inputs, **params)

    return Site(primitive.name, fn, parameters, frozenset(names))
