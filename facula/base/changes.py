"""A count of the changes of what captured functions depend on: modules, optimizers' states.

A captured call compares one number instead of looking at every module again. Whoever changes what
a capture may have read counts it here; only then does the capture look.
"""

from __future__ import annotations

from collections import OrderedDict


class _Count:
    __slots__ = ("changes",)


#: How many changes there were.
count = _Count()
count.changes = 0


def _counted(name):
    method = getattr(dict, name)

    def counting(self, *args, **kwargs):
        count.changes += 1
        return method(self, *args, **kwargs)

    counting.__name__ = name
    return counting


class Watched(dict):
    """A dict whose changes are counted, but for those made by ``dict``'s own methods.

    Pickles have an ordinary one: the owner watches it again when it takes over its state.
    """

    for _name in ("__setitem__", "__delitem__", "clear", "pop", "popitem", "setdefault", "update",
                  "__ior__"):  # fmt: skip
        locals()[_name] = _counted(_name)
    del _name

    def __reduce__(self):
        return OrderedDict, (), None, None, iter(self.items())
