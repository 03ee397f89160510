"""Replay: a capture made runnable, with what its calls do besides the Program's kernels.

An :class:`Entry` is one capture of a function. What it found in its trace becomes: inputs (leaves
of the arguments, tensors captured on the way, gradients looked up at each call, numbers read at
each call, the random stream), outputs (results, gradients for ``grad``, new values of what was
changed in place), and events of Python's. A :class:`Plan` is an entry bound to sizes.
"""

from __future__ import annotations

from operator import attrgetter, is_

from facula.eager import dispatch, recipes, tape, views
from facula.eager.capture import CaptureError, Trace, Traced, capturing
from facula.eager.constants import Constants
from facula.eager.events import roll_back
from facula.eager.grad_mode import capture, mode
from facula.eager.meta import Size
from facula.eager.standins import Pending
from facula.eager.structures import flatten, unflatten
from facula.eager.tensor import Tensor
from facula.eager.tracing import Results, Routine, concrete, symbol_names, symbols_of
from facula.ir import dims
from facula.ir.dims import Dim
from facula.runtime import guards, random

_meta, _storage = attrgetter("_meta"), attrgetter("_storage")


class Stale(Exception):
    """What a plan assumed does not hold; nothing has happened."""


class Shared(Exception):
    """Arguments share memory with what the capture changes; nothing has happened."""


class _Gone(tape.Node):
    """The history of what was differentiated inside of a captured call."""

    __slots__ = ()

    def name(self) -> str:
        return "CapturedBackward0"

    def apply(self, gs):
        self.saved = None
        return self.need_saved()


_gone = tape.start(_Gone(), ())


class Entry:
    """One capture.

    Attributes:
        routine: the Program; its outputs are ``real`` results, then gradients, then new values.
        sources: where each input comes from, see ``Trace.sources``; also ("grad", tensor).
        results: leaves of the result, of the trace ("output", j), ("item", j), ("input", i), or
            ("view", (i, movements, whether gradients pass)).
        sets: (tensor, output) of the gradients set; ``given_sets`` of arguments, by number.
        clears: tensors whose gradient is None afterwards.
        guards: (tensor, whether its gradient was None).
    """

    def __init__(self, fn, structure, leaves, trace=None):
        self.trace = trace = trace or Trace(getattr(fn, "__name__", "captured"))
        entered = [
            trace.argument(x)
            if isinstance(x, Tensor)
            else trace.number(x)
            if type(x) is float
            else x
            for x in leaves
        ]
        try:
            with capturing(trace):
                args, kwargs = unflatten(structure, iter(entered))
                result = fn(*args, **kwargs)
                _refuse_changed((args, kwargs), structure, entered)
                self.results: list = []
                self.structure = flatten(result, self.results)
                self._collect(trace, leaves)
        except BaseException:
            roll_back(trace.undo)
            raise
        finally:
            for g in trace.grads.values():
                g.x._grad = g.before
        self.events, self.drawn = trace.events, trace.drawn
        self.random = trace.seed is not None
        self.first = True  # the events of the next call have happened in the trace
        #: The result, a tensor or a tuple, is what the kernels give; Python has nothing to do.
        self.pure = (
            self.structure in (None, (tuple, *[None] * self.real))
            and (self.structure is None) == (self.real == 1)
            and self.results == [("output", j) for j in range(self.real)]
            and (self.records or not any(self.requires))
            and not (self.sets or self.clears or self.given_sets or self.events)
        )

    # What the trace left

    def _collect(self, trace, leaves):
        program = trace.program
        self.outputs: list = []
        self.requires: list[bool] = []
        changed = [(trace.entry[id(t)], trace.values[id(t)]) for t in trace.mutated]
        for x, start in trace.arguments:
            if isinstance(x, Traced) and trace.lift(x) is not start:
                changed.append((start, x._value))
        inputs = {id(v): i for i, v in enumerate(program.inputs)}
        kept = {id(v) for v in program.inputs} - {id(start) for start, _ in changed}
        self._results(trace, inputs, kept)
        self.records = any(self.requires) and not trace.differentiated
        if self.records and trace.written_backward:
            raise CaptureError(f"compile: {trace.written_backward} has a backward of its own")
        self._grads(trace, leaves)
        self.real = len(self.outputs)
        into = [None] * self.real + [inputs[id(start)] for start, _ in changed]
        program.outputs = [*self.outputs, *(value for _, value in changed)]
        program.live()
        self.routine, self.mutates = Routine(program, into), bool(changed)
        looked_up = {id(g.before): g.x for g in trace.grads.values() if g.before is not None}
        self.sources = []
        for v in program.inputs:
            kind, what = trace.sources[id(v)]
            if kind == "captured" and id(what) in looked_up:
                kind, what = "grad", looked_up[id(what)]
            self.sources.append((kind, what))
        self.state = [what for kind, what in self.sources if kind == "captured"]
        self.general = [_general(x) for x in self.state]
        self.constants = Constants(self.routine, self._fixed())
        self.watched = None

    def _fixed(self):
        """The inputs whose elements no call changes: none of what computes gradients."""
        written = {i for i in self.routine.into if i is not None}
        if self.records or self.sets or self.given_sets:
            return {}
        found = enumerate(self.sources)
        return {i: x for i, (kind, x) in found if kind == "captured" and i not in written}

    def _results(self, trace, inputs, kept):
        for k, x in enumerate(self.results):
            kind = "output"
            if isinstance(x, Pending):
                x, kind = x.tensor, "item"
            if isinstance(x, Traced):
                value, shown = trace.lift(x), kind == "output" and _shown(trace, x)
                if shown:
                    start, *how = shown
                    self.results[k] = ("view", (inputs[id(start)], *how))
                    continue
                # An argument that was changed is still the argument; its history is a new one.
                own = (start for t, start in trace.arguments if t is x and not t.requires_grad)
                start = next(own, value if id(value) in kept else None)
                if start is not None and kind == "output":
                    self.results[k] = ("input", inputs[id(start)])
                    continue
                j = next((j for j, v in enumerate(self.outputs) if v is value), None)
                self.results[k] = (kind, self._output(value, x) if j is None else j)
            elif any(isinstance(y, (Traced, Pending)) for y in getattr(x, "__dict__", {}).values()):
                raise CaptureError(f"compile: a tensor is returned inside of a {type(x).__name__}")
            elif trace.events and type(x) in (int, float):
                raise CaptureError("compile: a number that may change is returned; return a tensor")

    def _output(self, value, x):
        self.outputs.append(value)
        self.requires.append(x._meta.requires_grad)
        return len(self.outputs) - 1

    def _grads(self, trace, leaves):
        """What happens to the gradients of tensors, and what that depends on."""
        self.sets, self.clears, self.given_sets, self.guards = [], [], [], []
        for g in trace.grads.values():
            after = g.x._grad
            if g.first == "read" or g.first == "seen" and after is not g.before:
                self.guards.append((g.x, g.before is None))
            if after is g.before:
                continue
            if isinstance(after, Traced):
                self.sets.append((g.x, self._output(trace.lift(after), after)))
            elif after is None:
                self.clears.append(g.x)
            else:
                raise CaptureError("compile: a tensor that was not computed is made a gradient")
        for i, ((x, _), given) in enumerate(zip(trace.arguments, tensors_and_numbers(leaves))):
            if not isinstance(x, Traced) or x._grad is given._grad:
                continue
            if given._grad is not None or not isinstance(x._grad, Traced):
                raise CaptureError("compile: the gradient of an argument is changed")
            self.given_sets.append((i, self._output(trace.lift(x._grad), x._grad)))

    # Its calls

    def everything(self, data):
        """The Program's inputs for these tensors and numbers among the arguments' leaves."""
        numbers = [x for e in self.events for x in e.values]
        get = {
            "argument": data.__getitem__,
            "captured": lambda x: x,
            "grad": lambda x: x._grad,
            "number": numbers.__getitem__,
            "random": lambda k: 1,
        }
        return [get[kind](what) for kind, what in self.sources]

    def fits(self, data) -> bool:
        """Whether the capture is valid for tensors like these."""
        return (
            self.holds()
            and [_general(x) for x in self.state] == self.general
            and self.routine.holds(symbols_of(self.everything(data)))
        )

    def flags_hold(self) -> bool:
        """Whether the numbers read at each call choose the branches that they did."""
        undo: list = []
        try:
            return all(e.read([], undo) for e in self.events)
        finally:
            roll_back(undo)

    def needs_int(self, argument) -> bool:
        """Whether the capture holds for one value of an :class:`Int` among the arguments only."""
        name = symbol_names(self.sources.index(("argument", argument)), 1)[0]
        return any(
            answer and question == "eq" and isinstance(b, int) and {*a.terms} <= {(), (name,)}
            for (question, a, b), answer in self.routine.program.guards.items()
        )

    def holds(self) -> bool:
        """Whether gradients are there where they were."""
        return all((x._grad is None) is empty for x, empty in self.guards)


def _refuse_changed(given, structure, leaves):
    """Containers of the arguments are copies in a trace: nobody would see that they change."""
    now: list = []
    if flatten(given, now) != structure or any(a is not b for a, b in zip(now, leaves)):
        raise CaptureError("compile: the function changes a container that it is given")


def _shown(trace, x):
    """(start, movements, whether gradients pass) of a view of what was there before, or None."""
    if x._shows is None:
        return None
    base, chain, passes, _ = x._shows
    starts = (start for t, start in trace.arguments if t is base)
    start = next(starts, trace.entry.get(id(base)))
    return start and (start, tuple(chain), passes)


def _result_of(x, symbols, inputs):
    """A leaf of a result at these sizes: a size or a shape, the function that gives a view."""
    if type(x) is tuple and len(x) == 2 and x[0] == "view":
        i, chain, passes = x[1]
        own = inputs[i]._meta if passes else inputs[i]._meta.with_grad(False)
        return "view", (i, views.seen_through(own, chain, "ViewBackward0", symbols), passes)
    found = concrete(x, symbols) if isinstance(x, (Dim, Size)) else x
    return Size(found) if isinstance(x, Size) else found


def tensors_and_numbers(leaves) -> list:
    """Those of a call's leaves that are inputs of the Program."""
    return [x for x in leaves if isinstance(x, Tensor) or type(x) is float]


def _general(x):
    """Of a tensor, what a capture depends on."""
    m = x._meta
    return m.dtype, m.ones, m.ndim, m.requires_grad, m.contiguous


class Plan:
    """An entry for the sizes at hand: ``run`` does the call."""

    def __init__(self, entry, leaves):
        self.entry = entry
        data = tensors_and_numbers(leaves)
        everything = entry.everything(data)
        symbols = symbols_of(everything)
        self.where = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) or type(x) is float]
        self.given = [i for i in self.where if isinstance(leaves[i], Tensor)]
        self.drawn = dims.evaluate(entry.drawn, symbols)
        self.results = [_result_of(x, symbols, everything) for x in entry.results]
        self.metas = list(map(_meta, entry.state))
        self.storages = list(map(_storage, entry.state))
        self.inputs = list(everything)  # what is not captured is replaced at each call
        self.places = {"argument": [], "grad": [], "number": [], "random": []}
        for position, (kind, what) in enumerate(entry.sources):
            if kind != "captured":
                what = self.where[what] if kind == "argument" else what
                self.places[kind].append((position, what))
                self.inputs[position] = None
        self.grads = [(x, x._grad._meta) for kind, x in entry.sources if kind == "grad"]
        if entry.records:
            container = None if entry.real == 1 else tuple
            items = [("output", j) for j in range(entry.real)]
            name = entry.routine.program.name
            site = CapturedSite(name, entry.routine, Results(container, items), len(everything))
            self.call = site.plan(everything)
        else:
            metas = [x._meta if isinstance(x, Tensor) else None for x in everything]
            call = entry.constants.plan(symbols, metas, entry.requires)
            self.call = call or (lambda *inputs: None)
        # A function of nothing but its arguments and tensors captured.
        self.pure = entry.pure and not any(self.places[k] for k in ("grad", "number", "random"))
        self.parts = self.guard = None
        self._watch()

    def _watch(self):
        """Note what says that the captured tensors are like those at hand."""
        entry = self.entry
        key = self.metas, entry.mutates and self.storages, self.grads
        if entry.watched is None or entry.watched[0] != key:
            checks = [("slot", x, "_meta", m) for x, m in zip(entry.state, self.metas)]
            if entry.mutates:
                checks += [("slot", x, "_storage", s) for x, s in zip(entry.state, self.storages)]
            for x, empty in entry.guards:
                checks.append(("slot" if empty else "unlike", x, "_grad", None))
            checks += [("below", x, "_grad", type(x._grad), "_meta", m) for x, m in self.grads]
            part = guards.Part(checks)
            entry.watched = key, part, guards.guard(0, part)
        _, self.part, self.same = entry.watched

    def holds(self) -> bool:
        """Whether the tensors captured are like those that the plan was made for."""
        if self.same():
            return True
        state = self.entry.state
        if not all(map(is_, map(_meta, state), self.metas)) or not self.entry.holds():
            return False
        if not all(x._grad._meta is m for x, m in self.grads):
            return False
        if self.entry.mutates:
            storages = list(map(_storage, state))
            if len(set(map(id, storages))) < len(set(map(id, self.storages))):
                return False
            self.storages = storages
        self._watch()
        return True

    def guarded(self, leaves, surroundings):
        """A builtin that says of arguments whether :meth:`go` may be called with them at once.

        Args:
            leaves: arguments for which it may, none of them a container.
            surroundings: the part of the guard that says that these are the same.
        """
        parts = surroundings, self.part, mode.grad, mode.cast
        if self.parts != parts:
            checks = [("attribute", mode, "grad", mode.grad), ("attribute", capture, "trace", None)]
            checks.append(("attribute", mode, "cast", mode.cast))
            for i, x in enumerate(leaves):
                if i in self.given:
                    checks += [("type", i, type(x)), ("argument", i, "_meta", x._meta)]
                else:
                    checks.append(("type", i, float) if type(x) is float else ("same", i, x))
            if self.entry.mutates:
                for k, i in enumerate(self.given):
                    checks += [("apart", i, "_storage", j) for j in self.given[:k]]
                    checks.append(("others", i, "_storage", tuple(self.storages)))
            self.guard = guards.guard(len(leaves), guards.Part(checks), surroundings, self.part)
            self.parts = parts
        return self.guard

    def run(self, leaves):
        """Do the call.

        Raises:
            Stale: a number that is read chooses another branch than it did.
            Shared: see there.
        """
        if self.entry.mutates and self.given:
            mine = [id(leaves[i]._storage) for i in self.given]
            if len(set(mine)) < len(mine) or not set(map(id, self.storages)).isdisjoint(mine):
                raise Shared
        return self.go(leaves)

    def go(self, leaves):
        """The same where the arguments are known to share nothing with what is changed."""
        inputs = self.inputs.copy()
        for position, i in self.places["argument"]:
            inputs[position] = leaves[i]
        if self.pure:
            return self.call(*inputs)
        entry, places = self.entry, self.places
        for position, x in places["grad"]:
            inputs[position] = x._grad
        undo: list = []
        try:
            if entry.events:
                numbers = self._numbers(undo)
                for position, k in places["number"]:
                    inputs[position] = numbers[k]
            if entry.random:
                words = recipes.signed(*random.default_generator.next(self.drawn))
                for position, k in places["random"]:
                    inputs[position] = words[k]
            # What is replaced is let go of first: its memory serves the new gradients.
            for x, _ in entry.sets:
                x._grad = None
            found = self.call(*inputs)
        except BaseException:
            roll_back(undo)
            raise
        values = (found,) if entry.real == 1 else found
        for x, j in entry.sets:
            x._grad = values[j]
        for x in entry.clears:
            x._grad = None
        for i, j in entry.given_sets:
            leaves[self.where[i]]._grad = values[j]
        return self._result(values, inputs)

    def _numbers(self, undo):
        entry = self.entry
        if entry.first:
            entry.first = False
            undo += entry.trace.undo
            entry.trace.undo.clear()
            return [x for e in entry.events for x in e.values]
        numbers: list = []
        for event in entry.events:
            if not event.read(numbers, undo):
                raise Stale
        return numbers

    def _result(self, values, inputs):
        entry = self.entry
        if entry.structure is None and entry.results[0] == ("output", 0):
            result = values[0]
            if entry.requires[0] and not entry.records:
                result._grad_fn = _gone
            return result
        made = []
        for x in self.results:
            kind, j = x if type(x) is tuple and len(x) == 2 else (None, None)
            if kind == "output":
                if entry.requires[j] and not entry.records:
                    values[j]._grad_fn = _gone
                made.append(values[j])
            elif kind == "item":
                made.append(values[j].item())
            elif kind == "view":
                i, view, passes = j
                made.append(view(inputs[i] if passes else inputs[i].detach()))
            else:
                made.append(inputs[j] if kind == "input" else x)
        return unflatten(entry.structure, iter(made))


class CapturedSite(dispatch.Site):
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
