"""Meta: what a tensor is apart from its data, interned so that equal metas are one object.

The caches of the dispatcher are keyed on metas by identity, which costs a few nanoseconds where a
tuple of shapes costs a hundred. The table holds metas weakly: a workload of ragged shapes leaves
nothing behind once its tensors and the (bounded) caches have let go.
"""

from __future__ import annotations

from functools import partial
from math import prod
from weakref import ref

from facula.base.device import CPU
from facula.ops.movement import contiguous_strides


class Size(tuple):
    """The shape of a tensor: a tuple of ints.

    >>> Size((2, 3)).numel()
    6
    """

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements of a tensor of this shape."""
        n = 1
        for d in self:
            n *= d
        return n

    def __getitem__(self, i):
        part = tuple.__getitem__(self, i)
        return Size(part) if isinstance(i, slice) else part

    def __add__(self, other):
        return Size(tuple.__add__(self, tuple(other)))

    def __mul__(self, n):
        return Size(tuple.__mul__(self, n))

    __rmul__ = __mul__

    def __repr__(self):
        return f"facula.Size([{', '.join(map(str, self))}])"

    def __reduce__(self):
        return (Size, (tuple(self),))


class Meta:
    """Shape, strides (in elements), dtype, device and requires_grad of a tensor, and what follows.

    Attributes:
        contiguous: row-major without gaps (sizes of 1 and empty tensors do not matter).
        layout: the classes of the strides as ``engine.Executable`` takes them: ``"C"``, or one of
            0, 1, ``"s"`` a dimension.
        ones: the dimensions of size 1, which a trace treats as constants.
        kind: one object for all metas that differ in nothing but sizes (which are not 1) and
            strides (which are neither 0 nor 1).
    """

    __slots__ = (
        "shape",
        "strides",
        "dtype",
        "device",
        "requires_grad",
        "numel",
        "ndim",
        "contiguous",
        "layout",
        "ones",
        "nbytes",
        "kind",
        "_other",
        "__weakref__",
    )

    def __init__(self, shape, strides, dtype, device, requires_grad):
        self.shape, self.strides, self.dtype = Size(shape), tuple(strides), dtype
        self.device, self.requires_grad = device, requires_grad
        self.numel, self.ndim = prod(shape), len(shape)
        self.nbytes = self.numel * dtype.itemsize
        self.contiguous = self.strides == (row_major := contiguous_strides(shape)) or (
            self.numel == 0 or all(n == 1 or s == c for n, s, c in zip(shape, strides, row_major))
        )
        self.layout = (
            "C"
            if self.contiguous
            else tuple([0 if n == 1 else s if s in (0, 1) else "s" for n, s in zip(shape, strides)])
        )
        self.ones = tuple([d for d, n in enumerate(shape) if n == 1]) if 1 in shape else ()
        where = None if device is CPU else device
        kind = dtype, self.ndim, self.ones, self.layout, where, requires_grad
        self.kind = _kinds.get(kind) or _kinds.setdefault(kind, object())
        self._other = None

    def with_grad(self, requires_grad: bool) -> Meta:
        """The same with ``requires_grad`` as given."""
        if self.requires_grad is requires_grad:
            return self
        other = self._other
        if other is None:
            other = meta(self.shape, self.strides, self.dtype, requires_grad, self.device)
            self._other, other._other = other, self
        return other

    def __repr__(self):
        grad = ", requires_grad" if self.requires_grad else ""
        return f"Meta({self.dtype.name}{list(self.shape)}, strides {list(self.strides)}{grad})"


class _Entry(ref):
    """A weak reference to a Meta that knows the Meta's key."""

    __slots__ = ("key",)


def _gone(entry, table):
    if table.get(entry.key) is entry:
        del table[entry.key]


#: Metas by their properties. (A WeakValueDictionary does the same, at four times the time.)
_table: dict[tuple, _Entry] = {}
_forget = partial(_gone, table=_table)
_kinds: dict[tuple, object] = {}


def meta(shape, strides, dtype, requires_grad=False, device=CPU) -> Meta:
    """The one Meta of these properties."""
    # A device has a hash of its own, which takes as long as all the rest.
    key = (tuple(shape), tuple(strides), dtype, requires_grad, None if device is CPU else device)
    entry = _table.get(key)
    found = None if entry is None else entry()
    if found is None:
        found = Meta(*key[:3], device, requires_grad)
        entry = _Entry(found, _forget)
        entry.key = key
        kept = _table.setdefault(key, entry)
        if kept is not entry:
            # Another thread was faster, or what was there has just gone.
            other = kept()
            if other is not None:
                return other
            _table[key] = entry
    return found


def contiguous(shape, dtype, requires_grad=False, device=CPU) -> Meta:
    """The Meta of a row-major tensor."""
    return meta(shape, contiguous_strides(shape), dtype, requires_grad, device)
