"""Many tensors at once: one rule applied to each entry of lists of tensors, in one native call.

The rule is traced once for tensors of one dtype seen as flat memory and becomes one kernel; a call
runs that kernel over all entries one after the other without returning to Python. It is what
optimizers and gradient clipping stand on.
"""

from __future__ import annotations

from operator import attrgetter

from facula.base.dtypes import float64, int64
from facula.base.errors import ShapeError, fail
from facula.eager.engine import Executable, bind_many
from facula.eager.grad_mode import capture
from facula.ir import program as P
from facula.ir.dims import Dim, guarding
from facula.ir.program import Program
from facula.ops.promote import to

_meta = attrgetter("_meta")
_launchers: dict = {}
_executables: dict = {}
#: Launchers kept at most; then all are forgotten. Executables stay.
_MOST = 512


def update(rule, tensors, numbers, states=()) -> None:
    """``targets = rule(*entry, **scalars, **flags)`` for every entry, in place.

    Args:
        rule: ``rule(target, source, *states, **scalars, **flags)`` in ordinary arithmetic; gives
            the new values of ``(target, *states)``.
        tensors: lists of equal length, ``(targets, sources, *states)``.
        numbers: gives (scalars by name, which may change from call to call; flags, which choose the
            rule's branches; what to change in ``states``) and itself changes nothing.
        states: dicts of numbers that are updated afterwards.

    Raises:
        ShapeError: tensors of one entry that differ in shape.
    """
    if not tensors[0]:
        return
    if capture.trace is not None:
        capture.trace.update(rule, tensors, numbers, states)
        return
    scalars, flags, changed = numbers()
    _run(rule, tensors, scalars, flags)
    for state in states:
        dict.update(state, changed)


def _run(rule, tensors, scalars, flags):
    flat = [t for entry in zip(*tensors) for t in entry]
    values = tuple(scalars.values())
    key = (rule, tuple(scalars), tuple(map(type, values)), tuple(flags.items()),
           len(tensors), tuple(map(_meta, flat)))  # fmt: skip
    launcher = _launchers.get(key)
    if launcher is None:
        launcher, flat = _launcher(key, rule, tensors, scalars, flags)
    launcher(*flat, *values)


def _launcher(key, rule, tensors, scalars, flags):
    jobs, flat, as_given = [], [], True
    for entry in zip(*tensors):
        target = entry[0]
        for t in entry:
            if t.shape != target.shape:
                fail(ShapeError, rule.__name__, f"shapes {tuple(target.shape)} and "
                     f"{tuple(t.shape)} of one parameter differ")  # fmt: skip
        if not _alike(entry):
            entry = (target, _arranged(entry[1], target), *entry[2:])
            if not _alike(entry):
                fail(
                    ShapeError,
                    rule.__name__,
                    "parameters and their state must be dense and have the same strides",
                )
            as_given = False
        flat += entry
        jobs.append(_job(rule, entry, scalars, flags))
    launcher = bind_many(jobs)
    if as_given:
        if len(_launchers) >= _MOST:
            _launchers.clear()
        _launchers[key] = launcher
    return launcher, flat


def _alike(entry):
    """Whether all tensors have their elements in the same order, without gaps."""
    strides = entry[0].stride()
    return _dense(entry[0]) and all(t.stride() == strides for t in entry)


def _dense(t):
    expected = 1
    for stride, size in sorted(zip(t.stride(), t.shape)):
        if size == 0:
            return True
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _arranged(source, target):
    """A copy of ``source`` with the strides of ``target``."""
    copy = target.detach().clone() if _dense(target) else target.new_empty(target.shape)
    copy.copy_(source)
    return copy


def _job(rule, entry, scalars, flags):
    dtypes = tuple(t.dtype for t in entry)
    numbers = tuple((name, type(value)) for name, value in scalars.items())
    key = (rule, dtypes, numbers, tuple(flags.items()))
    executable = _executables.get(key)
    if executable is None:
        executable = _executables[key] = _compiled(rule, dtypes, numbers, flags)
    count = entry[0].numel()
    return executable, {f"s{i}d0": count for i in range(len(entry))}, [None] * len(entry)


def _compiled(rule, dtypes, numbers, flags):
    program = Program(rule.__name__)
    with P.building(program), guarding(program.guards):
        values = [program.input(d, (Dim.symbol(f"s{i}d0", 1009),)) for i, d in enumerate(dtypes)]
        named = {
            name: program.input(int64 if kind is int else float64, (), weak=True)
            for name, kind in numbers
        }
        results = rule(*values, **named, **flags)
        targets = [0, *range(2, len(dtypes))]
        program.outputs = [to(v, values[t].dtype) for v, t in zip(results, targets)]
    layouts = ["C"] * len(dtypes) + [None] * len(numbers)
    return Executable(program, layouts, targets)
