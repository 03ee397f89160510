"""Plans: Python functions that run a Program on tensors of given metas, and record it.

A plan is written as source text and compiled once per text, so that a call executes no loop over
arguments and no test whose answer is known: the text depends only on the structure (how many
arguments, which are kept for backward), the constants are closure variables.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

from facula.eager import engine
from facula.eager.failures import reporter
from facula.eager.meta import contiguous, meta
from facula.eager.tensor import Tensor
from facula.eager.tracing import concrete
from facula.ir.program import Program
from facula.runtime import launch

#: Sequence numbers of nodes: they fall, so that the newest node is the first of a heap.
next_order = itertools.count(0, -1).__next__


class Bound:
    """A Routine for concrete metas.

    Attributes:
        launch: the builtin for the computed outputs, or None.
        items: per output ("output", position among the computed), ("input", i) or
            ("alias", (i, meta, byte offset)).
        computed: how many outputs ``launch`` returns.
        makers: functions ``make(...)`` of plans already written, by all that their text depends
            on; shared by all sizes.
    """

    __slots__ = ("launch", "items", "computed", "makers")

    def __init__(self, launch, items, computed, makers):
        self.launch, self.items, self.computed, self.makers = launch, items, computed, makers


def bind(routine, symbols, metas, requires=(), alias=False) -> Bound:
    """Executable and builtin for inputs of the given metas.

    Args:
        metas: per input a Meta, None (a number), or "shape" (no data).
        requires: per output whether it requires grad; False where left out.
        alias: outputs that are views of inputs may share their memory.
    """
    program = routine.program
    aliases = [_alias(v, routine.inputs, symbols, metas) for v in program.outputs] if alias else ()
    return prepare(routine, metas, aliases).bind(symbols, metas, requires, aliases)


def prepare(routine, metas, aliases=()) -> Prepared:
    """What is bound for inputs of such metas, where some outputs may be aliases."""
    layouts = tuple([m if m is None or m == "shape" else m.layout for m in metas])
    key = layouts, tuple([found is None for found in aliases])
    prepared = routine.executables.get(key)
    if prepared is None:
        prepared = routine.executables[key] = Prepared(routine, layouts, aliases)
    return prepared


class Prepared:
    """An Executable for certain outputs of a Routine; ``items`` has None for all others."""

    __slots__ = ("items", "executable", "fresh", "dtypes", "makers", "strided")

    def __init__(self, routine, layouts, aliases):
        program, into, self.makers = routine.program, routine.into, {}
        computed = [j for j in range(len(program.outputs)) if not aliases or aliases[j] is None]
        targets = [into[j] if j < len(into) else None for j in computed]
        self.fresh = [j for j, target in zip(computed, targets) if target is None]
        self.dtypes = [program.outputs[j].dtype for j in self.fresh]
        self.items = [None] * len(program.outputs)
        for j, target in zip(computed, targets):
            self.items[j] = ("output", self.fresh.index(j)) if target is None else ("input", target)
        self.strided = [layout not in (None, "shape") for layout in layouts]
        self.executable = None
        if computed:
            share()
            part = _restricted(program, computed)
            self.executable = engine.Executable(part, layouts, targets)

    def bind(self, symbols, metas, requires=(), aliases=()) -> Bound:
        """As the function of this name, for metas of the same layouts."""
        items, executable = self.items, self.executable
        if aliases:
            items = [item or found for item, found in zip(items, aliases)]
        if executable is None:
            return Bound(None, items, 0, self.makers)

        def metas_of(shapes):
            grads = [j < len(requires) and requires[j] for j in self.fresh]
            return map(contiguous, shapes, self.dtypes, grads)

        strides = [m.strides if strided else None for m, strided in zip(metas, self.strided)]
        report = None
        if executable.checked:
            report = reporter(executable.compiled.program, symbols, metas)
        function = executable.bind(symbols, strides, metas_of, report)
        return Bound(function, items, len(self.fresh), self.makers)


@lru_cache(1)
def share():
    """The builtin ``share(tensor, meta, byte_offset)``: a tensor over the same memory.

    The first call also tells the launcher of which class results are.
    """
    launch.register_tensor(Tensor)
    return launch.share()


def _restricted(program, computed):
    """The Program with only some of its outputs."""
    part = Program(program.name)
    part.inputs, part.nodes = list(program.inputs), list(program.nodes)
    part.outputs, part.guards = [program.outputs[j] for j in computed], program.guards
    return part.live()


def _alias(v, inputs, symbols, metas):
    """The output as an input, or as a view of one, or None where it has to be computed."""
    chain = []
    while id(v) not in inputs:
        node = v.node
        if node is None or node.op.view is None:
            return None
        chain.append(node)
        v = node.inputs[0]
    i = inputs[id(v)]
    own = metas[i]
    if own is None or own == "shape":
        return None
    if not chain:
        return ("input", i)
    seen = view_through(reversed(chain), own, symbols)
    if seen is None:
        return None
    new, offset = seen
    return ("alias", (i, new, offset))


def view_through(nodes, own, symbols):
    """(Meta, byte offset) of a tensor of meta ``own`` after movements, or None."""
    shape, strides, offset = tuple(own.shape), own.strides, 0
    for node in nodes:
        seen = node.op.view(
            shape, strides, **{k: concrete(p, symbols) for k, p in node.params.items()}
        )
        if seen is None:
            return None
        shape, strides, more = seen
        offset += more
    new = meta(shape, strides, own.dtype, False, own.device)
    return new, offset * own.dtype.itemsize


# Source text ----------------------------------------------------------------------------------


#: The file name of generated functions in tracebacks.
SOURCE = "<facula>"


@lru_cache(4096)
def compiled(text: str):
    """The function ``make(...)`` that the text defines."""
    space: dict = {}
    exec(compile(text, SOURCE, "exec"), space)  # noqa: S102  our own text, of structure alone
    return space["make"]


def _results(bound, data, results, outputs):
    """The expressions of the values that a call gives; those of aliases are numbered."""
    values, aliases = [], itertools.count()
    for kind, what in (bound.items[j] if k == "output" else (k, j) for k, j in results.items):
        if kind == "none":
            values.append("None")
        elif kind == "input":
            values.append(data[what])
        elif kind == "output":
            values.append(outputs[what])
        else:
            values.append(f"share({data[what[0]]}, *C[{next(aliases)}])")
    return values


def _aliases(bound, results):
    """(Meta, byte offset) of each result that is a view of an input."""
    items = (bound.items[j] for kind, j in results.items if kind == "output")
    return [what[1:] for kind, what in items if kind == "alias"]


def _call(bound, data):
    """The statement that launches, and the names of what it gives."""
    names = [f"y{k}" for k in range(bound.computed)]
    if bound.launch is None:
        return [], names
    left = ", ".join(names) + " = " if names else ""
    return [f"{left}launch({', '.join(data)})"], names


def _packed(container, values):
    """The expression of the op's result."""
    if container is None:
        return values[0]
    inside = ", ".join(values)
    if container is tuple:
        return f"({inside},)" if values else "()"
    return f"cls({inside})" if hasattr(container, "_fields") else f"cls([{inside}])"


def maker(slots, body, names):
    """A function that makes the function of these parameters and statements, given constants.

    Args:
        names: of the constants, which are the maker's parameters.
    """
    inner = "".join(f"        {line}\n" for line in body)
    head = f"def make({', '.join(names)}):\n    def plan({', '.join(slots)}):\n"
    return compiled(f"{head}{inner}    return plan\n")


def plain(bound, slots, data, results, change=None):
    """The plan that only computes.

    Args:
        slots: names of the plan's parameters.
        data: expressions of the inputs, by number; None where an input carries no data.
        change: how the first input is changed in place, if it is.
    """
    # A text depends on which results are aliases of which inputs, and on no more of the sizes.
    kinds = tuple([(k, what[0] if k == "alias" else what) for k, what in bound.items])
    key = (slots, data, results, change and change.key, kinds)
    make = bound.makers.get(key)
    if make is None:
        make = bound.makers[key] = _plain_source(bound, slots, data, results, change)
    constants = change.constants.values() if change else ()
    return make(bound.launch, share(), results.container, _aliases(bound, results), *constants)


def _plain_source(bound, slots, data, results, change):
    """What makes the plan of :func:`plain`; where that is the builtin itself, no text is."""
    carried = [e for e in data if e is not None]
    whole = [f"y{k}" for k in range(bound.computed)]
    values = _results(bound, data, results, whole)
    same = carried == list(slots) and values == whole != []
    if same and change is None and results.container is (None if len(whole) == 1 else tuple):
        return lambda launch, *others: launch
    lines, _ = _call(bound, carried)
    if change is not None:
        lines = [*change.before(slots, data), *lines, *change.after(data)]
    body = [*lines, f"return {_packed(results.container, values)}"]
    names = ("launch", "share", "cls", "C", *(change.constants if change else ()))
    return maker(slots, body, names)


class Change:
    """The first input changed in place: what is checked before and done after.

    Attributes:
        metas: of the inputs.
        constants: ``check``, ``apart``, ``rebase``, ``constant``, ``mode`` and ``name``.
        forgets: the result depends on nothing that has a history, the input has one.
        recorded: a node is made; operands that share the input's memory are always copied, so
            that backward finds them as they were.
    """

    __slots__ = ("metas", "constants", "forgets", "recorded", "key")

    def __init__(self, metas, constants, forgets, recorded):
        self.metas, self.constants = metas, constants
        self.forgets, self.recorded = forgets, recorded
        self.key = (metas[0].requires_grad, forgets, recorded)  # what the statements depend on

    def before(self, slots, data):
        """Statements ahead of the call."""
        x = data[0]
        check = f"check({x}, name)"
        lines = [f"if capture.trace is not None: capture.trace.changing({x})"]
        lines.append(check if self.metas[0].requires_grad else f"if {x}._base is not None: {check}")
        for e, m in zip(data[1:], self.metas[1:]):
            if m is not None and e in slots:
                lines.append(
                    f"if {e}._storage is {x}._storage: {e} = apart({x}, {e}, {self.recorded})"
                )
        for slot in slots:
            if any(e.startswith(slot + "[") for e in data):
                lines.append(f"{slot} = apart({x}, {slot}, {self.recorded})")
        return lines

    def after(self, data):
        """Statements behind the call."""
        if not self.forgets:
            return []
        return ["if mode.grad is not False:", f"    rebase({data[0]}, constant(), None)"]


def recorded(bound, slots, data, results, variant, other, back, tape, change=None):
    """The plan that computes and records a node.

    Args:
        variant: the :class:`tracing.Recorded` whose forward is bound.
        other: what to do where ``mode.grad`` is not simply True.
        back: the :class:`tape.Backward` that nodes refer to.
        tape: the module of that name.
        change: how the first input is changed in place, if it is.
    """
    key = (slots, data, change and change.key)
    make = variant.makers.get(key)
    constants = {
        "launch": bound.launch,
        "share": share(),
        "cls": results.container,
        "mode": tape.mode,
        "quiet": other.quiet,
        "loud": other.loud,
        "new": object.__new__,
        "Node": tape.ProgramNode if back.count == 1 else tape.WideNode,
        "back": back,
        "order": next_order,
        "clone": tape.clone,
        "rebase": tape.rebase,
    }
    if change is not None:
        constants.update(change.constants)
    if make is None:
        body = _recorded_body(bound, slots, data, results, variant, back, change)
        make = variant.makers[key] = maker(slots, body, constants)
    return make(*constants.values())


def _recorded_body(bound, slots, data, results, variant, back, change):
    """The statements of a recorded plan: the same for all sizes."""
    lines, names = _call(bound, [e for e in data if e is not None])
    values = _results(bound, data, results, names)
    outputs = [_output_name(bound, j, data, names) for j in range(len(bound.items))]
    before = change.before(slots, data) if change else []
    saved, versions, keeps_old = _saved(variant, data, outputs, back, change is not None)
    if keeps_old:
        before.append(f"old = clone({data[0]})")
    edges = []
    for i in variant.wrt:
        edges += [f"{data[i]}._grad_fn or {data[i]}", f"{data[i]}._output_nr"]
    body = [
        "state = mode.grad",
        "if state is not True:",
        f"    return (quiet[0] if state is False else loud)({', '.join(slots)})",
        *before,
        "node = new(Node)",
        "node.edges = " + _tuple(edges),
        *lines,
        "node.back = back",
        "node.saved = " + _tuple(saved),
        "node.versions = " + _tuple(versions),
        "node.order = order()",
        "node.hooks = None",
    ]
    if change is not None:
        body.append(f"rebase({data[0]}, node, {0 if variant.wrt[0] == 0 else None})")
    else:
        for j, needed in enumerate(variant.requires):
            if needed:
                body.append(f"{outputs[j]}._grad_fn = node")
                if j:
                    body.append(f"{outputs[j]}._output_nr = {j}")
    return [*body, f"return {_packed(results.container, values)}"]


def _saved(variant, data, outputs, back, changes):
    """(expressions of what is saved, of the versions, whether the changed input's old value is)."""
    saved, versions, keeps_old = [], [], False
    for source in variant.sources:
        if source[0] == "input" and source[2]:
            expression = data[source[1]]
            if changes and source[1] == 0:
                keeps_old, expression = True, "old"
            saved.append(expression)
            if source[1] not in back.numbers:
                versions.append(f"{expression}._storage.version")
        elif source[0] == "output":
            name = outputs[source[1]]
            # A node that held its own result would never be freed by counting references.
            real = source[1] < variant.real
            saved.append(f"share({name}, {name}._meta, 0)" if real else name)
            versions.append(f"{name}._storage.version")
    return saved, versions, keeps_old


def _tuple(expressions):
    return f"({', '.join(expressions)},)" if expressions else "()"


def _output_name(bound, j, data, names):
    kind, what = bound.items[j]
    if kind == "output":
        return names[what]
    if kind == "input":
        return data[what]
    raise AssertionError("an output that is recorded shares no memory")
