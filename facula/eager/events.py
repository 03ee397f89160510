"""Events: what of Python's a captured call does again each time, besides its kernels."""

from __future__ import annotations


def change_numbers(states, changed, undo) -> bool:
    """Update dicts of numbers, noting what was there; False, and nothing done, if they differ."""
    before = {}
    for name in changed:
        values = [state[name] for state in states]
        before[name] = values[0]
        if values.count(values[0]) != len(values):
            return False
    undo.append((states, before))
    for state in states:
        dict.update(state, changed)
    return True


def roll_back(undo) -> None:
    """Put back what was noted."""
    for states, items in reversed(undo):
        for state in states:
            dict.update(state, items)
    undo.clear()


class Numbers:
    """Numbers of Python's that a captured call reads anew each time: those of an optimizer's step.

    Attributes:
        numbers: gives (numbers by name, what chooses branches, how states change); changes nothing.
        states: dicts that are changed so once the numbers were read.
        values: the numbers at the time of the capture.
        flags: what chose branches then; where they differ, or states that agreed no longer do, the
            capture does not hold.
    """

    __slots__ = ("numbers", "states", "values", "flags")

    def __init__(self, numbers, states, values, flags):
        self.numbers, self.states, self.values, self.flags = numbers, states, values, flags

    def read(self, given, undo) -> bool:
        """Append the numbers to ``given`` and change the states; False where it does not hold."""
        scalars, flags, changed = self.numbers()
        if flags != self.flags:
            return False
        given += scalars.values()
        return not changed or change_numbers(self.states, changed, undo)


class Host:
    """A function of Python's that a captured call calls each time: a scheduler's step."""

    __slots__ = ("function", "dicts")
    values = ()

    def __init__(self, function, dicts):
        self.function, self.dicts = function, dicts

    def read(self, given, undo) -> bool:
        """Call it; see :class:`Numbers`."""
        undo += [([d], dict(d)) for d in self.dicts]
        self.function()
        return True
