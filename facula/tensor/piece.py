"""A piece of a function that runs in pieces: a Program made runnable, for any sizes."""

from __future__ import annotations

from facula.eager import dispatch, plans, recipes
from facula.eager.grad_mode import mode
from facula.eager.replay import CapturedSite
from facula.eager.standins import Traced
from facula.eager.structures import flatten
from facula.eager.tensor import Tensor
from facula.eager.tracing import Results, Routine, concrete, symbols_of
from facula.tensor.known import MADE, built


class Piece:
    """A piece made runnable, for any sizes.

    Attributes:
        routine: its Program; ``requires``: which of the outputs that are results want gradients.
        wanted: how each tensor alive is made: (("input" or "output", number), movements, whether
            gradients pass).
    """

    def __init__(self, run, numbers):
        self.calls: dict = {}
        trace = run.trace
        program, self.requires = trace.program, []
        changed = [(trace.entry[id(t)], trace.values[id(t)]) for t in trace.mutated]
        starts = {id(start) for start, _ in changed}
        inputs = {id(v): k for k, v in enumerate(program.inputs) if id(v) not in starts}
        outputs: list = []

        def source(t):
            if not isinstance(t, Traced):
                return "input", run.where[run.numbers[id(t)]]
            value = trace.lift(t)
            if id(value) in inputs:
                return "input", inputs[id(value)]
            for j, (v, grad) in enumerate(zip(outputs, self.requires)):
                if v is value and grad == t._meta.requires_grad:
                    return "output", j
            outputs.append(value)
            self.requires.append(t._meta.requires_grad)
            return "output", len(outputs) - 1

        self.wanted = []
        for t in [run.tensors[n] for n in numbers]:
            if t._shows is None:
                self.wanted.append((source(t), (), True))
            else:
                trace.lift(t)
                base, chain, passes, _ = t._shows
                chain = [(node.op, node.params) for node in chain]
                self.wanted.append((source(base), chain, passes))
        self.real = len(outputs)
        every = {id(v): k for k, v in enumerate(program.inputs)}
        into = [None] * self.real + [every[id(start)] for start, _ in changed]
        program.outputs = [*outputs, *[value for _, value in changed]]
        self.routine = Routine(program.live(), into)

    def run(self, inputs, words):
        """The tensors that are wanted."""
        inputs = inputs[: len(self.routine.program.inputs)]
        if words is not None:
            words = recipes.signed(*words)
            inputs = [words[x[1]] if type(x) is tuple else x for x in inputs]
        key = tuple([x._meta if isinstance(x, Tensor) else type(x) for x in inputs])
        known = self.calls.get(key)
        if known is None:
            if len(self.calls) > 4096:
                self.calls.clear()
            known = self.calls[key] = self._bound(inputs), symbols_of(inputs)
        call, symbols = known
        values = call(*inputs)
        places = {"input": inputs, "output": values}
        return [_moved(places[kind][k], *how, symbols) for (kind, k), *how in self.wanted]

    def _bound(self, inputs):
        """A function that launches it, for inputs like these, and records it on the tape."""
        routine, real = self.routine, self.real
        if any(self.requires):
            results = Results(tuple, [("output", j) for j in range(real)])
            return CapturedSite(routine.program.name, routine, results, len(inputs)).plan(inputs)
        if not routine.program.outputs:
            return lambda *inputs: ()
        metas = [x._meta if isinstance(x, Tensor) else None for x in inputs]
        launch = plans.bind(routine, symbols_of(inputs), metas, self.requires).launch
        if real > 1:
            return launch
        return lambda *inputs: (launch(*inputs),)[:real]


def _moved(x, chain, passes, symbols):
    if not passes:
        x = x.detach()
    for op, params in chain:
        x = op(x, **{name: concrete(p, symbols) for name, p in params.items()})
    return x


def singly(path, inputs):
    """The ops of a piece one by one, so that what goes wrong goes wrong as in an ordinary call."""
    made: list = []

    def tensor(r):
        return inputs[r.number] if r.given else made[r.number]

    for known, values in path:
        now = iter(values)
        args = [built(p, now, tensor) for p in known.parts]
        mode.grad = known.grad
        try:
            if known.head == "detach":
                result = args[0].detach()
            elif type(known.head) is tuple:
                primitive, names = known.head
                count = len(args) - len(names)
                named = dict(zip(names, args[count:]))
                result = dispatch.call_primitive(primitive, args[:count], named)
            else:
                result = called(known.head, *args)
        except Exception as error:
            error.add_note(f"in what was asked for at {known.line}")
            raise
        leaves: list = []
        flatten(result, leaves)
        made += [x for x, kind in zip(leaves, known.leaves) if kind is MADE]
        made += [inputs[k] for k in known.changed]
    raise


def called(site, *args):
    """A call of an op by its site, at once."""
    key = tuple([
        ("default" if p.default is not p.empty and a is p.default else dispatch.key_of(a))
        if i in site.slots else dispatch.static_key(a)
        for i, (p, a) in enumerate(zip(site.parameters, args))
    ])  # fmt: skip
    plan = site.rows.get(key)
    return plan(*[args[i] for i in site.slots]) if plan else site.first(key, args)
