"""Tensors of a function that runs in pieces: their elements are computed when they are needed."""

from __future__ import annotations

import os
import sys
from functools import lru_cache

from facula.base import dtypes as D
from facula.base.device import CPU
from facula.eager.meta import contiguous
from facula.eager.tensor import Tensor, wrap
from facula.ops.movement import contiguous_strides
from facula.runtime import storage

_OWN = os.path.dirname(os.path.dirname(__file__)), "<facula"


class LazyMeta:
    """The meta of a tensor of a piece; no two are equal, so no plan is found for one.

    Attributes:
        run: of which call it is.
        alias: the tensor proper, once its elements are known.
        number: of the tensor in its piece until then.
        view: whether it may have strides of its own.
    """

    __slots__ = ("shape", "dtype", "requires_grad", "run", "alias", "number", "view")

    device = CPU
    numel = property(lambda self: self.shape.numel())
    ndim = property(lambda self: len(self.shape))
    ones = property(lambda self: tuple(d for d, n in enumerate(self.shape) if n == 1))
    nbytes = property(lambda self: self.numel * self.dtype.itemsize)

    def __init__(self, shape, dtype, requires_grad, run, alias, number, view):
        self.shape, self.dtype, self.requires_grad = shape, dtype, requires_grad
        self.run, self.alias, self.number, self.view = run, alias, number, view

    def settled(self):
        """The tensor proper."""
        if self.alias is None:
            self.run.settle()
            if self.alias is None:
                raise RuntimeError("the tensor was not computed: what came before it failed")
        return self.alias

    @property
    def strides(self):
        if self.alias is None and not self.view:
            return contiguous_strides(self.shape)
        return self.settled()._meta.strides

    contiguous = property(lambda self: self.strides == contiguous_strides(self.shape))
    layout = property(lambda self: self.settled()._meta.layout)

    def with_grad(self, requires_grad):
        """The meta of a new tensor like it."""
        return contiguous(self.shape, self.dtype, requires_grad)


class Lazy(Tensor):
    """A tensor in a function that runs in pieces; an ordinary one again when the call ends."""

    __slots__ = ()

    def detach(self):
        """The same memory as a constant of differentiation."""
        return self._meta.run.event("detach", (self,), (0,), Tensor.detach)


def _delegated(name):
    def read(self):
        return getattr(self._meta.settled(), name)

    def write(self, value):
        setattr(self._meta.settled(), name, value)

    return property(read, write)


def _proper(name):
    """A method as the tensor proper has it, since it looks at memory."""
    plain = getattr(Tensor, name)

    def method(self, *args, **kwargs):
        result = plain(self._meta.settled(), *args, **kwargs)
        return self if result is self._meta.alias else result

    return method


def _final(name):
    """A method for which the tensor becomes an ordinary one first."""

    def method(self, *args, **kwargs):
        self._meta.run.finish(self)
        return getattr(self, name)(*args, **kwargs)

    return method


def _provide():
    for name in Tensor.__slots__:
        if name not in ("_meta", "__weakref__"):
            setattr(Lazy, name, _delegated(name))
    looking = """item tolist numpy __bool__ __int__ __float__ __index__ __complex__ __array__
    __repr__ __str__ __format__ __dlpack__ __reduce_ex__ __deepcopy__ data_ptr storage_offset"""
    changing = """requires_grad_ detach_ set_ resize_ share_memory_ as_strided_ squeeze_ unsqueeze_
    transpose_ t_ swapaxes_ swapdims_"""
    for names, made in (looking, _proper), (changing, _final):
        for name in names.split():
            if hasattr(Tensor, name):
                setattr(Lazy, name, made(name))


_provide()


def raw(x):
    """For a trace, a tensor that the piece may change: over its memory, whatever its class is."""
    if type(x) not in (Tensor, Lazy) or x._meta.requires_grad:
        return x
    m = x._meta
    if type(x) is Lazy:
        m = next(was for y, was in m.run.swapped if y is x)
    return wrap(m, Tensor._ptr.__get__(x), Tensor._storage.__get__(x))


def is_leaf(x) -> bool:
    """Whether gradients of ``x`` are kept."""
    return x._meta.requires_grad and x._grad_fn is None


def any_lazy(args) -> bool:
    """Whether a tensor of a run is among arguments."""
    return any(type(a) is Lazy or isinstance(a, (list, tuple)) and any_lazy(a) for a in args)


def mapped(function, x, kind=Lazy):
    """A structure of lists and tuples with a function applied to its tensors of a kind."""
    if type(x) is kind:
        return function(x)
    if isinstance(x, (list, tuple)):
        items = [mapped(function, y, kind) for y in x]
        return type(x)(*items) if hasattr(type(x), "_fields") else type(x)(items)
    return x


@lru_cache(1)
def alone():
    """The count of references to the memory of a tensor that nothing else shows."""
    block = storage.allocate(1)
    x = wrap(contiguous((1,), D.bool_), block.ptr, block)
    del block
    return sys.getrefcount(x._storage)


def user_line():
    """The line of the user's that is running."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return frame and f"{frame.f_code.co_filename}:{frame.f_lineno}"
