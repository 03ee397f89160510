"""``facula.compile``: functions and modules captured as Programs, one per structure of their call.

What a capture assumed is checked at every call: the structure, dtypes and ranks of arguments, the
questions asked about sizes, whether gradients are recorded, the modules reached (their training
flags, parameters and plain attributes) and the plain variables of the function's closure. Where
an assumption fails the function is captured anew; where it cannot be captured at all it runs as it
is, after a warning that says why.
"""

from __future__ import annotations

import functools
import warnings

from facula.base.errors import ArgumentTypeError, fail
from facula.eager import capture, dispatch, recipes
from facula.eager.capture import CaptureError, Trace, Traced, capturing, flatten, unflatten
from facula.eager.grad_mode import mode
from facula.eager.tensor import Tensor
from facula.eager.tracing import Results, Routine, symbols_of
from facula.ir import dims
from facula.runtime import random

_PLAIN = (int, float, bool, str, type(None), tuple)
#: Captures of one function kept; beyond, it runs as it is.
MOST_CAPTURES = 64
#: Plans of one function kept, one per sizes of its arguments; then all are forgotten.
MOST_PLANS = 4096


def compile(model=None, *, fullgraph=False, dynamic=None, backend="facula", mode=None,  # noqa: A001
            options=None, disable=False):  # fmt: skip
    """A function or module captured and fused, forward and backward.

    Args:
        model: a function of tensors, or a module; left out, a decorator is returned.
        fullgraph: raise :class:`CaptureError` instead of running uncaptured.
        dynamic, backend, mode, options: accepted for PyTorch's sake; sizes are always dynamic.
        disable: return ``model`` as it is.

    >>> import facula
    >>> f = facula.compile(lambda x: (x * 2 + 1).relu().sum())
    >>> f(facula.ones(3)).item()
    9.0
    """
    if model is None:
        return lambda m: compile(m, fullgraph=fullgraph, disable=disable)
    if not callable(model):
        fail(ArgumentTypeError, "compile", f"expected a function or module, got {type(model)}")
    if disable:
        return model
    if hasattr(model, "_modules") and hasattr(model, "forward"):
        return _module(model, fullgraph)
    compiled = Captured(model, fullgraph)

    @functools.wraps(model)
    def function(*args, **kwargs):
        return compiled(*args, **kwargs)

    function.captured = compiled
    return function


def _module(model, fullgraph):
    """A module whose call is captured; everything else is the original's."""
    compiled = Captured(model.__call__, fullgraph, model)

    class OptimizedModule(type(model)):
        def __call__(self, *args, **kwargs):
            return compiled(*args, **kwargs)

    OptimizedModule.__name__ = "OptimizedModule"
    shell = object.__new__(OptimizedModule)
    shell.__dict__ = model.__dict__  # one state, whichever of the two it is reached through
    return shell


class Captured:
    """A function and its captures."""

    def __init__(self, fn, fullgraph, module=None):
        self.fn, self.fullgraph, self.module = fn, fullgraph, module
        self.plans: dict = {}
        self.entries: dict = {}
        self.count, self.given_up = 0, None

    def __call__(self, *args, **kwargs):
        if self.given_up is not None or capture.active():
            return self.fn(*args, **kwargs)
        leaves: list = []
        structure = flatten((args, kwargs), leaves)
        modules = self._modules(leaves)
        state = tuple(map(_snapshot, modules)), _closure(self.fn), mode.grad is not False
        key = (structure, tuple(map(_exact, leaves)), state)
        plan = self.plans.get(key)
        if plan is None:
            try:
                plan = self._plan(structure, leaves, state)
            except CaptureError as error:
                if self.fullgraph:
                    raise
                self.given_up = str(error)
                warnings.warn(f"{error} (running uncaptured)", stacklevel=2)
                return self.fn(*args, **kwargs)
            if len(self.plans) >= MOST_PLANS:
                self.plans.clear()
            self.plans[key] = plan
        return plan(leaves)

    def _modules(self, leaves):
        found = [] if self.module is None else [self.module]
        found += [x for x in leaves if hasattr(x, "_modules")]
        code = getattr(self.fn, "__code__", None)
        if code is not None:
            for cell in self.fn.__closure__ or ():
                if hasattr(_content(cell), "_modules"):
                    found.append(_content(cell))
            for name in code.co_names:
                value = self.fn.__globals__.get(name)
                if hasattr(value, "_modules") and not isinstance(value, type):
                    found.append(value)
        own = getattr(self.fn, "__self__", None)
        if self.module is None and hasattr(own, "_modules"):
            found.append(own)
        return [m for module in found for m in module.modules()]

    def _plan(self, structure, leaves, state):
        key = (structure, tuple(map(_general, leaves)), state)
        for entry in self.entries.setdefault(key, []):
            if entry.holds(leaves):
                return entry.plan(leaves)
        if self.count >= MOST_CAPTURES:
            raise CaptureError(f"compile: more than {MOST_CAPTURES} captures of one function")
        self.count += 1
        entry = _Entry(self.fn, structure, leaves)
        self.entries[key].append(entry)
        return entry.plan(leaves)


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _exact(x):
    """Of an argument, what a plan is bound to."""
    if isinstance(x, Tensor):
        return x._meta
    return float if type(x) is float else _static(x)


def _general(x):
    """Of an argument, what a capture depends on."""
    if isinstance(x, Tensor):
        m = x._meta
        return m.dtype, m.ones, m.ndim, m.requires_grad
    return float if type(x) is float else _static(x)


def _static(x):
    return (type(x), x) if isinstance(x, _PLAIN) else (type(x), id(x))


def _snapshot(module):
    """What of a module's state a capture depends on."""
    d = module.__dict__
    plain = tuple((k, v) for k, v in d.items() if isinstance(v, _PLAIN) and _hashable(v))
    held = tuple(map(id, d["_parameters"].values())), tuple(map(id, d["_buffers"].values()))
    return id(module), plain, held


def _closure(fn):
    """The plain variables that a function reads from around it."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return ()
    cells = tuple(_held(_content(c)) for c in fn.__closure__ or ())
    names = tuple(_held(fn.__globals__.get(n)) for n in code.co_names)
    return cells, names


def _held(x):
    return x if isinstance(x, _PLAIN) and _hashable(x) else id(x)


def _hashable(x):
    if isinstance(x, tuple):
        return all(isinstance(y, _PLAIN) and _hashable(y) for y in x)
    return True


class _Entry:
    """One capture: a Routine, the tensors it reads and changes, and how its result is built."""

    def __init__(self, fn, structure, leaves):
        trace = Trace(getattr(fn, "__name__", "captured"))
        entered = []
        for x in leaves:
            if isinstance(x, Tensor) or type(x) is float:
                entered.append(trace.argument(x) if isinstance(x, Tensor) else trace.number(x))
            else:
                entered.append(x)
        with capturing(trace):
            args, kwargs = unflatten(structure, iter(entered))
            result = fn(*args, **kwargs)
            self.results, self.outputs = [], []
            self.structure = flatten(result, self.results)
            self._collect(trace)
        self.trace = trace
        self.captured = trace.captured
        self.order = self._order()

    def _collect(self, trace):
        """Program outputs: results, then the new values of what was changed in place."""
        program, into, values = trace.program, [], []
        inputs = {id(v): i for i, v in enumerate(program.inputs)}
        for k, x in enumerate(self.results):
            if not isinstance(x, Traced):
                continue
            value = x._value
            if id(value) in inputs:
                self.results[k] = ("input", inputs[id(value)])
                continue
            if not any(value is v for v in values):
                values.append(value)
            position = next(j for j, v in enumerate(values) if v is value)
            self.results[k] = ("output", position)
        into = [None] * len(values)
        for t in trace.mutated:
            values.append(trace.values[id(t)])
            into.append(inputs[id(trace.entry[id(t)])])
        program.outputs = values
        program.live()
        self.routine = Routine(program, into)
        self.real = len(into) - len(trace.mutated)

    def holds(self, leaves) -> bool:
        """Whether the capture is valid for arguments of these sizes."""
        return self.routine.holds(symbols_of(self._everything(leaves)))

    def plan(self, leaves):
        """A function of the leaves that runs the Program for their sizes."""
        where = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) or type(x) is float]
        captured, order = self.captured, self.order
        everything = self._everything(leaves)
        drawn = dims.evaluate(self.trace.drawn, symbols_of(everything))
        items = [("output", j) for j in range(self.real)]
        site = _Site(self.trace.program.name, self.routine, Results(tuple, items), len(everything))
        call = site.plan(everything)
        results, structure, random_ = self.results, self.structure, self.trace.seed is not None

        def run(leaves):
            given = [leaves[i] for i in where]
            if random_:
                given += recipes.signed(*random.default_generator.next(drawn))
            inputs = [captured[j] if kind == "captured" else given[j] for kind, j in order]
            values = call(*inputs)
            made = iter(
                x
                if not isinstance(x, tuple) or len(x) != 2 or x[0] not in ("input", "output")
                else values[x[1]]
                if x[0] == "output"
                else inputs[x[1]]
                for x in results
            )
            return unflatten(structure, made)

        return run

    def _order(self):
        """Where each input of the Program comes from: ("given", i) or ("captured", i)."""
        entry = {id(v): k for k, v in enumerate(self.trace.entry.values())}
        order, given = [], 0
        for v in self.routine.program.inputs:
            if id(v) in entry:
                order.append(("captured", entry[id(v)]))
            else:
                order.append(("given", given))
                given += 1
        return order

    def _everything(self, leaves):
        """The Program's inputs for these arguments; seed and offset stand as 1."""
        data = [x for x in leaves if isinstance(x, Tensor) or type(x) is float] + [1, 1]
        return [self.captured[j] if kind == "captured" else data[j] for kind, j in self.order]


class _Site(dispatch.Site):
    """A captured Program as a site: its slots are the Program's inputs."""

    def __init__(self, name, routine, results, count):
        super().__init__(name, None, (), frozenset())
        self.slots = list(range(count))
        self.made = routine, results

    def plan(self, args, recording=True):
        s = dispatch.Structure()
        s.data = list(args)
        s.expressions = [f"s{k}" for k in range(len(args))]
        s.counted, s.symbols = len(args), symbols_of(args)
        routine, results = self.made
        return dispatch.make_plan(self, s, routine, results, recording)
