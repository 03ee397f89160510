"""Plans of backward Programs: what a node runs for cotangents of given metas."""

from __future__ import annotations

from facula.eager import plans, tape
from facula.eager.extras import Otherwise
from facula.eager.grad_mode import mode
from facula.eager.tape import Backward
from facula.eager.tracing import NUMBERS


class _Call:
    """A backward Program with the metas of what it is called with.

    Attributes:
        metas: per input a Meta, None (a number) or "shape" (no data).
        data: per input the name of the plan's parameter, or None.
    """

    def __init__(self, name, routine, results, symbols, sources, values):
        self.name, self.routine, self.results = name, routine, results
        self.symbols, self.sources = symbols, sources
        self.slots = tuple([f"s{k}" for k in range(len(values))])
        data, self.metas = [], []
        carried = iter(zip(self.slots, values))
        for source in sources:
            if source[-1] is False:
                self.metas.append("shape")
                data.append(None)
                continue
            name, x = next(carried)
            self.metas.append(None if type(x) in NUMBERS else x._meta)
            data.append(name)
        self.data = tuple(data)

    def wanted(self) -> tuple[int, ...]:
        """The inputs that require grad."""
        return tuple(
            i for i, m in enumerate(self.metas)
            if m is not None and m != "shape" and m.requires_grad
        )  # fmt: skip


def backward_plan(back, routine, results, sources, saved, cotangents):
    """(function of saved values and cotangents, which results are fresh), for these metas."""
    call = _Call(
        back.name + "_backward", routine, results, back.symbols, sources, (*saved, *cotangents)
    )
    wrt = call.wanted() if mode.grad is not False and routine.program.outputs else ()
    if wrt:
        variant = routine.record(wrt, call.symbols)
        if variant.given:
            return _recorded(call, variant), ()
    return _plain(call)


def _plain(call):
    bound = plans.bind(call.routine, call.symbols, call.metas, alias=True)
    # A result that goes to one place only: whoever gets it may keep it as his own.
    items = call.results.items
    fresh = tuple(
        k == "output" and bound.items[j][0] == "output" and items.count((k, j)) == 1
        for k, j in items
    )
    return plans.plain(bound, call.slots, call.data, call.results), fresh


def _recorded(call, variant):
    bound = plans.bind(variant.routine, call.symbols, call.metas, variant.requires)
    back = Backward(call.name, variant, call.symbols, call.metas, backward_plan)

    other = Otherwise(lambda: _plain(call)[0])
    other.recorded = plans.recorded(
        bound, call.slots, call.data, call.results, variant, other, back, tape
    )
    return other.recorded
