"""Deferred kernels: known by what they are made from, and written only if somebody must read them.

To write a kernel of matrix products takes several ms, as long as all else that a new process does
before it runs the kernel, while its parameters and text usually lie in the disk cache.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable

from facula.ir.loops import Kernel


class Deferred(Kernel):
    """A kernel whose ``name``, ``params`` and ``body`` are there when they are asked for.

    Attributes:
        made_from: says which kernel it is, together with the source code.
        text: what it was translated to by an earlier process, if ``recall`` knew.
    """

    __slots__ = ("made_from", "write", "text")

    #: ``kernel -> bool``: set name, params and text of a kernel that an earlier process kept.
    recall: Callable[[Deferred], bool] = staticmethod(lambda kernel: False)

    def __init__(self, made_from: bytes, write: Callable[[], Kernel]):
        self.made_from, self.write, self.text = made_from, write, None

    def __getattr__(self, slot):
        """Fill the slots of a kernel, of which one is wanted and still empty."""
        if slot not in Kernel.__slots__:
            raise AttributeError(slot)
        if slot == "body" or not Deferred.recall(self):
            kernel = self.write()
            self.name, self.params, self.body = kernel.name, kernel.params, kernel.body
        return getattr(self, slot)


def deferred(build, *args, made_from=None) -> Deferred:
    """The kernel ``build(*args)``; ``made_from`` stands for arguments that cannot be pickled."""
    source = build.__module__, build.__qualname__, args if made_from is None else made_from
    return Deferred(pickle.dumps(source, 5), functools.partial(build, *args))


def deferring(build):
    """``build`` with deferred results, one for the same arguments."""
    return functools.cache(functools.partial(deferred, build))
