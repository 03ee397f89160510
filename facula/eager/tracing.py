"""From a call to a Program: arguments sorted, the op's function run on values, the derivative.

A :class:`Site` is an op with one way of calling it (fresh results, in place, ``out=``) and its
caches. A :class:`Routine` is a Program with all that was made of it: executables by layout, and
the variants that are recorded, each with its backward Routine. Backward Programs are Routines as
well, which is what makes derivatives of any order one mechanism.
"""

from __future__ import annotations

from functools import lru_cache

from facula.base import dtypes as D
from facula.base.errors import AutogradError, DtypeError, FaculaError, ShapeError, fail
from facula.derivatives.reverse import derive
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.formulas import Formulas
from facula.ir.program import Program, Value
from facula.ops.pointwise import copy_
from facula.ops.promote import to
from facula.runtime.formulas import evaluate

NUMBERS = frozenset({float, int, bool})
_WEAK = {float: D.float64, int: D.int64, bool: D.bool_}


class Routine:
    """A Program and what was made of it.

    Attributes:
        executables: (layouts, computed outputs, into) -> Executable.
        recorded: which inputs want gradients -> :class:`Recorded`.
    """

    __slots__ = ("program", "executables", "recorded", "into", "inputs", "_guards")

    def __init__(self, program: Program, into=()):
        self.program, self.into = program, tuple(into)
        self._guards = (0, b"", ())  # how many were asked when they were written as formulas
        self.inputs = {id(v): i for i, v in enumerate(program.inputs)}
        self.executables: dict = {}
        self.recorded: dict = {}

    def holds(self, symbols) -> bool:
        """Whether the Program is valid for these sizes."""
        guards = self.program.guards
        count, code, names = self._guards
        if count != len(guards):
            formulas = Formulas()
            for (question, a, b), answer in guards.items():
                formulas.guard(question, a, b, answer)
            count, code, names = self._guards = len(guards), formulas.code(), tuple(formulas.names)
        return count == 0 or evaluate(code, names, symbols) is not None

    def record(self, wrt: tuple[int, ...], symbols) -> Recorded:
        """The variant whose inputs ``wrt`` want gradients, valid for these sizes."""
        variants = self.recorded.setdefault(wrt, [])
        for variant in variants:
            if variant.routine.holds(symbols):
                return variant
        # The first variant takes the Program as traced; one whose guards fail is traced again
        # with the sizes at hand as hints, and then holds for them.
        program = replay(self.program, symbols if variants else None)
        variants.append(Recorded(program, wrt, self.into))
        return variants[-1]


class Recorded:
    """A forward Routine that keeps what its backward Routine needs.

    Attributes:
        routine: the forward, with hidden outputs after the real ones.
        real: how many outputs are real.
        wrt: the inputs that have a gradient, in the order of the node's edges.
        requires: per real output whether it has a derivative.
        error: why there is no derivative, to be raised when it is asked for.
        makers: functions that make recorded plans, by all that their text depends on.
        kept: which of the forward's inputs are numbers, which of the values saved are tensors.
    """

    __slots__ = (
        "routine",
        "real",
        "wrt",
        "requires",
        "given",
        "error",
        "_program",
        "_backward",
        "sources",
        "makers",
        "kept",
    )

    def __init__(self, program, wrt, into):
        self._program, self.real = program, len(program.outputs)
        reach = _reachable(program, wrt)
        self.requires = tuple(id(v) in reach for v in program.outputs)
        self.given = tuple(j for j, r in enumerate(self.requires) if r)
        self.error, self._backward, self.wrt, self.sources = None, {}, wrt, ()
        self.makers: dict = {}
        if self.given:
            try:
                self._derive(self.given, True)
            except AutogradError as error:
                self.error = error
        self.routine = Routine(program, into)
        numbers = frozenset(i for i, v in enumerate(program.inputs) if v.weak)
        saved = [s for s in self.sources if s[0] != "cotangent" and s[-1] is not False]
        which = (k for k, s in enumerate(saved) if s[0] == "output" or s[1] not in numbers)
        self.kept = numbers, tuple(which)

    def _derive(self, given, keep_hidden):
        with dims.guarding(self._program.guards):
            derivative = derive(self._program, self.wrt, given, keep_hidden)
        if keep_hidden:
            self.wrt, self.sources = derivative.defined, tuple(derivative.sources)
            if not self.wrt:
                self.requires, self.given = (False,) * self.real, ()
        results = collect(derivative.program, tuple, derivative.program.outputs)
        self._backward[given] = (Routine(derivative.program), results, derivative)
        return self._backward[given]

    def backward(self, given) -> tuple:
        """(Routine, Results, Derivative) for cotangents of the outputs ``given``."""
        return self._backward.get(given) or self._derive(given, False)


def _reachable(program, wrt) -> set[int]:
    """Ids of the values through which a gradient flows to one of the inputs ``wrt``."""
    reach = {id(program.inputs[i]) for i in wrt}
    for node in program.nodes:
        if node.op.name != "detach" and any(id(v) in reach for v in node.inputs):
            reach.update(id(v) for v in node.outputs if v.dtype.is_floating_point)
    return reach


def concrete(x, symbols):
    """``x`` (a size, or params that contain sizes) with all symbols given their values."""
    if isinstance(x, Dim):
        return dims.evaluate(x, symbols)
    if isinstance(x, tuple):
        return tuple(concrete(y, symbols) for y in x)
    return x


def replay(program: Program, symbols=None) -> Program:
    """A copy of the Program; given symbols, with those sizes as hints and its guards asked anew."""
    copy = Program(program.name)
    if symbols is None:
        copy.inputs, copy.nodes = list(program.inputs), list(program.nodes)
        copy.outputs = list(program.outputs)
        copy.guards.update(program.guards)
        return copy
    fresh = {name: Dim.symbol(name, n) for name, n in symbols.items()}
    seen = {}
    with dims.guarding(copy.guards):
        for v in program.inputs:
            shape = tuple(dims.substitute(n, fresh) for n in v.shape)
            seen[id(v)] = copy.input(v.dtype, shape, v.weak)
        for node in program.nodes:
            operands = [seen[id(v)] for v in node.inputs]
            params = {k: dims.substitute(p, fresh) for k, p in node.params.items()}
            made = copy.apply(node.op, operands, params, node.op.infer(*operands, **params))
            copy.nodes[-1].call = node.call
            for old, new in zip(node.outputs, made):
                new.weak = old.weak
                seen[id(old)] = new
    copy.outputs = [seen[id(v)] for v in program.outputs]
    return copy


# From arguments to values ---------------------------------------------------------------------


class Results:
    """How the results of an op's function are made of a Program's outputs.

    Attributes:
        container: None for a single value, else the type of tuple.
        items: per value ("output", j), ("input", i) or ("none", None).
    """

    __slots__ = ("container", "items")

    def __init__(self, container, items):
        self.container, self.items = container, tuple(items)


def symbols_of(data) -> dict[str, int]:
    """The values of the size symbols for these inputs."""
    return symbols_of_metas([None if type(x) in NUMBERS else x._meta for x in data])


def symbols_of_metas(metas) -> dict[str, int]:
    """The same for metas; None stands for a number."""
    symbols: dict[str, int] = {}
    for i, m in enumerate(metas):
        if m is not None:
            symbols.update(zip(symbol_names(i, m.ndim), m.shape))
    return symbols


@lru_cache(None)
def symbol_names(i, ndim) -> list[str]:
    """Names of the sizes of input ``i``."""
    return [f"s{i}d{d}" for d in range(ndim)]


def trace(name, fn, build, data, into="", concrete_sizes=False):
    """Run ``fn`` on values that stand for ``data``: (Program, Results).

    Args:
        build: ``values -> (args, kwargs)`` of ``fn``.
        into: "self": the result replaces the first input; "out": the results are written to the
            last inputs, which ``fn`` does not see.
        concrete_sizes: sizes are ints, for what will run once, or without a kernel.
    """
    try:
        return _traced(name, fn, build, data, into, concrete_sizes)
    except FaculaError:
        if concrete_sizes:
            raise
    # Once more for the message: it is to show sizes, not symbols.
    _traced(name, fn, build, data, into, True)
    return fail(ShapeError, name, "holds for no sizes")


def _traced(name, fn, build, data, into, concrete_sizes):
    program = Program(name)
    for i, x in enumerate(data):
        if type(x) in NUMBERS:
            program.input(_WEAK[type(x)], (), weak=True)
            continue
        shape = x._meta.shape
        if not concrete_sizes:
            shape = tuple(n if n == 1 else Dim.symbol(f"s{i}d{d}", n) for d, n in enumerate(shape))
        program.input(x._meta.dtype, tuple(shape))
    with dims.guarding(program.guards), P.building(program):
        args, kwargs = build(program.inputs)
        container, values = _flatten(fn(*args, **kwargs), name)
        values = [_strong(v) for v in values]
        if into == "self":
            values = [fitting(name, values[0], program.inputs[0])]
        elif into == "out":
            targets = program.inputs[len(program.inputs) - len(values) :]
            values = [fitting(name, v, t) for v, t in zip(values, targets)]
    return program, collect(program, container, values, into)


def collect(program, container, values, into="") -> Results:
    """Make ``values`` the outputs of the Program, each once, inputs among them left out."""
    program.outputs = []
    inputs = {id(v): i for i, v in enumerate(program.inputs)}
    outputs: dict[int, int] = {}
    items = []
    for v in values:
        if v is None:
            items.append(("none", None))
        elif id(v) in inputs and not into:
            items.append(("input", inputs[id(v)]))
        else:
            if id(v) not in outputs:
                outputs[id(v)] = len(program.outputs)
                program.outputs.append(v)
            items.append(("output", outputs[id(v)]))
    program.live()
    return Results(container, items)


def _flatten(result, name):
    if isinstance(result, Value):
        return None, [result]
    if isinstance(result, (tuple, list)):
        return type(result), list(result)
    if type(result) in NUMBERS:
        return None, [to(result, D.of_scalar(result))]
    raise TypeError(f"{name}: the op's function returned {type(result).__name__}")


def _strong(v):
    """A value that is no longer a mere number."""
    if v is None or not v.weak:
        return v
    return to(v, D.get_default_dtype() if v.dtype is D.float64 else v.dtype)


def fitting(name, v, target) -> Value:
    """A result as the dtype of the tensor it is written to, refused where it does not fit."""
    if v.dtype.category > target.dtype.category:
        fail(
            DtypeError,
            name,
            f"result type {v.dtype.name} can't be cast to the desired output "
            f"type {target.dtype.name}",
        )
    if v.ndim != target.ndim or not all(a == b for a, b in zip(v.shape, target.shape)):
        fail(
            ShapeError,
            name,
            f"output with shape {list(target.shape)} doesn't match the "
            f"broadcast shape {list(v.shape)}",
        )
    v = to(v, target.dtype)
    return copy_(v) if v.node is None else v
