"""Recipes: how plans are made for arguments of one kind and any sizes.

The arguments of a call are sorted, its Program traced and compiled, its plan's text written once.
What of this does not depend on sizes is a recipe, found by the *kinds* of the metas: at sizes that
were never seen, a recipe asks the Program's guards and binds, in a few microseconds.
"""

from __future__ import annotations

from functools import partial

from facula.base.errors import AutogradError, fail
from facula.eager import plans, tape, views
from facula.eager.apart import apart
from facula.eager.backward import backward_plan
from facula.eager.extras import Otherwise
from facula.eager.grad_mode import capture, mode
from facula.eager.meta import Meta
from facula.eager.tape import Backward
from facula.eager.tensor import Tensor
from facula.eager.tracing import NUMBERS, concrete, symbols_of_metas
from facula.ir import dims
from facula.ops.random import drawn_by

#: In kinds: an int of a view op that is not -1, 0 or 1, which the trace has a symbol for.
SOME = object()


def kinds_of(key: tuple, metas: list, ints: list | None = None) -> tuple:
    """A plan's key with kinds in the place of metas, which are appended to ``metas``.

    Given ``ints``, those of the key that are likely to be sizes are replaced and appended as well.
    """
    found = []
    for k in key:
        if type(k) is Meta:
            metas.append(k)
            found.append(k.kind)
        elif type(k) is tuple:
            found.append(kinds_of(k, metas, ints))
        elif ints is not None and type(k) is int and k > 1:
            ints.append(k)
            found.append(SOME)
        else:
            found.append(k)
    return tuple(found)


class Recipe:
    """How plans for a Routine are made.

    Attributes:
        slots: names of the plan's parameters.
        names: per input, how to get it from the parameters.
        wrt: the inputs that want gradients.
        draw: of a random op: a function of the symbols that gives one of (seed, offset).
    """

    def __init__(self, site, structure, routine, results, recording=True, draw=None):
        self.site, self.routine, self.results, self.draw = site, routine, results, draw
        self.slots = tuple([f"s{k}" for k in range(len(site.slots))] + ["r0", "r1"] * site.random)
        self.names = tuple(structure.expressions)
        metas = [None if type(x) in NUMBERS else x._meta for x in structure.data]
        self.tensors = [m is not None for m in metas]
        wrt = tuple(i for i, m in enumerate(metas) if m is not None and m.requires_grad)
        self.wrt = wrt if recording else ()
        self._prepared, self.quiet = {}, None

    def __call__(self, metas, ints=(), place=None):
        """The plan for tensors of these metas, or None if the Program does not hold for them.

        Args:
            place: (table, key) where the plan is kept, if another may follow it there.
        """
        given = iter(metas)
        metas = [next(given) if tensor else None for tensor in self.tensors]
        symbols = symbols_of_metas(metas)
        return self.plan(metas, symbols, place) if self.routine.holds(symbols) else None

    def plan(self, metas, symbols, place=None):
        """As a call, for sizes for which the Program holds, with None for each number."""
        plan = self._plan(metas, symbols, place)
        if self.draw is None:
            return plan
        draw = self.draw(symbols)
        return lambda *slots: plan(*slots, *draw())

    def _plan(self, metas, symbols, place):
        if not self.wrt:
            return self._plain(metas, symbols)
        variant = self.routine.record(self.wrt, symbols)
        if variant.given:
            if mode.grad is False and place is not None and self.draw is None:
                return _Quiet(self, variant, metas, symbols, place).plan()
            return self._recorded(variant, metas, symbols)
        forgets = metas[0] is not None and metas[0].requires_grad
        plan = self._plain(metas, symbols, forgets)
        if not self.site.into and _is_flat(self.routine.program):
            return _flat_plan(plan, self.slots, [self.names[i] for i in self.wrt])
        return plan

    def _plain(self, metas, symbols, forgets=False):
        """The plan that records nothing; it is made for metas, not for these tensors."""
        # What scatters into its operand finds no old values in others that share its memory.
        apart = any(node.op.info.get("onto") for node in self.routine.program.nodes)
        change = self._change(metas, forgets, apart) if self.site.into else None
        bound = self._bind(self.routine, symbols, metas)
        return plans.plain(bound, self.slots, self.names, self.results, change)

    def _recorded(self, variant, metas, symbols):
        bound = self._bind(variant.routine, symbols, metas, variant.requires)
        back = Backward(self.site.name, variant, symbols, metas, backward_plan)
        change = self._change(metas, False, True) if self.site.into else None
        other = Otherwise(partial(self._plain, metas, symbols))
        other.recorded = plans.recorded(
            bound, self.slots, self.names, self.results, variant, other, back, tape, change
        )
        return other.recorded

    def _bind(self, routine, symbols, metas, requires=()):
        prepared = self._prepared.get(routine)
        if prepared is None:
            prepared = self._prepared[routine] = plans.prepare(routine, metas)
        return prepared.bind(symbols, metas, requires)

    def _change(self, metas, forgets, recorded):
        """How the first input is changed in place."""
        refuse_repeated(self.site.name, metas[0])
        constants = {
            "check": views.check_in_place,
            "apart": apart,
            "name": self.site.name,
            "mode": mode,
            "capture": capture,
            "rebase": views.rebase,
            "constant": lambda: tape.start(tape.Constant(), ()),
        }
        return plans.Change(metas, constants, forgets, recorded)


class _Quiet:
    """A call first made where nothing is recorded: the recorded plan follows when it is needed."""

    __slots__ = ("recipe", "variant", "metas", "symbols", "place")

    def __init__(self, recipe, variant, metas, symbols, place):
        self.recipe, self.variant, self.metas = recipe, variant, metas
        self.symbols, self.place = symbols, place

    def plan(self):
        """The plan that records nothing, and asks for the other one where it has to."""
        slots = self.recipe.slots
        quiet = self.recipe._plain(self.metas, self.symbols)
        make = self.recipe.quiet
        if make is None:
            call = f"({', '.join(slots)})"
            body = ["if mode.grad is False:", f"    return quiet{call}", f"return follow{call}"]
            make = self.recipe.quiet = plans.maker(slots, body, ("mode", "quiet", "follow"))
        return make(mode, quiet, self.follow)

    def follow(self, *now):
        """Make the recorded plan, put it in the place of this one and run it."""
        plan = self.recipe._recorded(self.variant, self.metas, self.symbols)
        table, key = self.place
        table[key] = plan
        return plan(*now)


def refuse_repeated(name, own) -> None:
    """Refuse to write to a tensor, of this meta, in which an element stands for several."""
    if any(n > 1 and s == 0 for n, s in zip(own.shape, own.strides)):
        fail(
            AutogradError,
            name,
            "unsupported operation: more than one element of the "
            "written-to tensor refers to a single memory location.",
            "clone() the tensor before performing the operation",
        )


def drawing(program, generator):
    """A recipe's ``draw`` for a random op: as many words as its largest node draws."""

    def draw(symbols):
        shapes = [s for s in map(drawn_by, program.nodes) if s is not None]
        drawn = max((dims.product(concrete(shape, symbols)) for shape in shapes), default=0)
        return lambda: signed(*generator.next(drawn))

    return draw


def signed(*words):
    """64-bit words as the int64 numbers that kernels take."""
    return [w - (1 << 64) if w >> 63 else w for w in words]


def _is_flat(program) -> bool:
    """Whether a floating-point result is a step function of the inputs (and not on purpose)."""
    return any(v.dtype.kind == "f" for v in program.outputs) and not any(
        node.op.name == "detach" for node in program.nodes
    )


def _flat_plan(plan, slots, wanted):
    """A plan whose floating-point results require grad, and give zeros to the inputs."""
    pick = plans.maker(slots, [f"return ({', '.join(wanted)},)"], ())()

    def flat(*now):
        result = plan(*now)
        if mode.grad is not False:
            xs = pick(*now)
            for y in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(y, Tensor) and y._meta.dtype.kind == "f" and y._grad_fn is None:
                    node = tape.start(tape.Zeros(), tuple(e for x in xs for e in tape.edge(x)))
                    node.metas = [x._meta for x in xs]
                    y._grad_fn, y._meta = node, y._meta.with_grad(True)
        return result

    return flat
