"""Constants of captured Programs: what depends on parameters alone, kept between calls.

:class:`Constants` has the two halves that ``compiler.constants`` makes of a Program, and the
results of the first for the tensors as they are: their memory, and the versions of their storages,
which every change in place raises. Native code compares them at each call. Where one differs the
Program runs whole; once it is called again with the same tensors, the constants are computed anew.
So weights that change from call to call cost no more than the comparison.

Memory that others may write without raising a version is never relied on: what lies in an array of
somebody else's, and what is shown to NumPy or by DLPack for as long as that is held.
"""

from __future__ import annotations

from operator import attrgetter

from facula.base import config
from facula.base.changes import shown
from facula.compiler.constants import split
from facula.eager import engine, plans
from facula.eager.tracing import Routine
from facula.ir import dims
from facula.runtime import guards

_storage, _ptr = attrgetter("_storage"), attrgetter("_ptr")
_version = attrgetter("version")


class Constants:
    """Of a Routine, for tensors that it only reads.

    Args:
        fixed: number of an input -> the tensor.

    Attributes:
        kept: a builtin that says whether the tensors are as they were, and the constants for
            these, or None if these are not to be relied on.
        seen: how the tensors were when they were last looked at.
    """

    def __init__(self, routine, fixed: dict):
        self.routine, self.fixed = routine, fixed
        self.part = self.rest = self.kept = self.seen = None

    def plan(self, symbols, metas, requires=(), made=lambda bound: bound.launch):
        """A function that runs the Program on inputs of such metas; ``made`` of what is bound."""
        if self.part is None:
            self._split(symbols)
        if not self.part:
            return made(plans.bind(self.routine, symbols, metas, requires))
        return _Plan(self, symbols, metas, requires, made).run

    def _split(self, symbols):
        room = config.KEPT

        def fits(value):
            nonlocal room
            nbytes = value.dtype.itemsize * dims.evaluate(dims.product(value.shape), symbols)
            there = nbytes <= room
            room -= nbytes * there
            return there

        program, found = self.routine.program, None
        if room > 0 and self.fixed:
            found = split(program, self.fixed, engine.target().vector_bytes, fits)
        self.part = found is not None and Routine(found.part)
        if found:
            self.rest = Routine(found.rest, self.routine.into)
            read = {id(v) for node in found.part.nodes for v in node.inputs}
            numbers = [i for i, v in enumerate(program.inputs) if id(v) in read]
            self.fixed = {i: self.fixed[i] for i in numbers}

    def renew(self, symbols):
        """The constants of the tensors as they are, or None if they are not to be relied on."""
        tensors = list(self.fixed.values())
        storages = list(map(_storage, tensors))
        marks = storages, list(map(_version, storages)), list(map(_ptr, tensors))
        stable, self.seen = self.seen in (None, marks), marks
        if not stable:
            self.kept = None
            return None
        shown.watched.update(map(id, storages))
        checks = [("attribute", shown, "token", shown.token)]
        checks += [("slot", x, "_storage", s) for x, s in zip(tensors, storages)]
        checks += [("slot", x, "_ptr", p) for x, p in zip(tensors, marks[2])]
        checks += [("version", s, n) for s, n in zip(storages, marks[1])]
        same, values = guards.guard(0, guards.Part(checks)), None
        if not any(s.owner is not None or shown.holds(s) for s in storages):
            metas = ["shape"] * len(self.routine.program.inputs)
            for i, x in self.fixed.items():
                metas[i] = x._meta.with_grad(False)
            bound = plans.bind(self.part, symbols, metas)
            made = bound.launch(*tensors)
            made = made if isinstance(made, tuple) else (made,)
            values = tuple(made[j] for _, j in bound.items)
        self.kept = same, values
        return values


class _Plan:
    """The Program for inputs of certain metas, whole and without its constants."""

    def __init__(self, constants, symbols, metas, requires, made):
        self.constants, self.made, self.inputs = constants, made, (symbols, metas, requires)
        self.metas = self.values = self.rest = self.whole = None

    def run(self, *inputs):
        kept = self.constants.kept
        if kept is not None and kept[0]():
            values = kept[1]
        else:
            values = self.constants.renew(self.inputs[0])
        if values is None:
            return self._whole()(*inputs)
        if values is not self.values:
            self._bind(values)
        return self.rest(*inputs, *values)

    def _whole(self):
        if self.whole is None:
            self.whole = self.made(plans.bind(self.constants.routine, *self.inputs))
        return self.whole

    def _bind(self, values):
        symbols, metas, requires = self.inputs
        own = [v._meta for v in values]
        if own != self.metas:
            bound = plans.bind(self.constants.rest, symbols, [*metas, *own], requires)
            self.rest, self.metas = self.made(bound), own
        self.values = values
