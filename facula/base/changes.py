"""A count of the changes of what captured functions depend on: modules, optimizers' states.

A captured call compares one number instead of looking at every module again. Whoever changes what
a capture may have read counts it here; only then does the capture look.
"""

from __future__ import annotations

import weakref
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


class _Shown:
    """Which storages others may write, without a version being raised.

    Attributes:
        token: another object whenever this may have changed for a storage in ``watched``.
        watched: ids of storages whose elements something kept depends on.
    """

    def __init__(self):
        self.token, self.watched, self._holders = object(), set(), {}

    def holds(self, storage) -> bool:
        """Whether somebody may write it."""
        return id(storage) in self._holders

    def add(self, storage, array):
        """Note that an array shows a storage, which it keeps alive."""
        holder = _Holder(array, self._gone)
        holder.key = id(storage)
        self.note(storage, id(holder), holder)

    def note(self, storage, number, holder=None):
        """Note a holder of a storage, by a number of its own."""
        self._holders.setdefault(id(storage), {})[number] = holder
        if id(storage) in self.watched:
            self.token = object()

    def forget(self, key, number):
        """A holder of the storage with this id is gone."""
        holders = self._holders[key]
        del holders[number]
        if not holders:
            del self._holders[key]
            if key in self.watched:
                self.token = object()

    def _gone(self, holder):
        self.forget(holder.key, id(holder))


class _Holder(weakref.ref):
    __slots__ = ("key",)


shown = _Shown()
