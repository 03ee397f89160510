"""Padding of the last one, two or three dimensions."""

import facula.nn.functional as F
from facula.nn.modules._tuples import ntuple
from facula.nn.modules.module import Module

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    """Padding by a rule that ``F.pad`` knows.

    ``padding`` is one number, or (left, right) of each dimension with the last dimension first.
    """

    n_dims: int
    mode: str

    def __init__(self, padding):
        super().__init__()
        self.padding = ntuple(padding, 2 * self.n_dims)

    def forward(self, input):
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self):
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding, value):
        super().__init__(padding)
        self.value = value

    def forward(self, input):
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self):
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pad the last dimension with ``value``.

    >>> from facula import nn, ones
    >>> nn.ConstantPad1d((1, 2), 5.0)(ones(1, 2)).tolist()
    [[5.0, 1.0, 1.0, 5.0, 5.0]]
    """

    n_dims = 1


class ConstantPad2d(_ConstantPad):
    """Pad the last two dimensions with ``value``: (left, right, top, bottom)."""

    n_dims = 2


class ConstantPad3d(_ConstantPad):
    """Pad the last three dimensions with ``value``: (left, right, top, bottom, front, back)."""

    n_dims = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding):
        super().__init__(padding, 0.0)

    def extra_repr(self):
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Pad the last dimension with zeros."""

    n_dims = 1


class ZeroPad2d(_ZeroPad):
    """Pad the last two dimensions with zeros.

    >>> from facula import nn, ones
    >>> tuple(nn.ZeroPad2d((1, 1, 0, 2))(ones(1, 1, 3, 3)).shape)
    (1, 1, 5, 5)
    """

    n_dims = 2


class ZeroPad3d(_ZeroPad):
    """Pad the last three dimensions with zeros."""

    n_dims = 3


class _ReflectionPad(_Pad):
    mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    """Pad with the input mirrored at its edge, the edge itself not repeated.

    >>> from facula import nn, arange
    >>> nn.ReflectionPad1d(2)(arange(4.0).reshape(1, 4)).tolist()
    [[2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0]]
    """

    n_dims = 1


class ReflectionPad2d(_ReflectionPad):
    """:class:`ReflectionPad1d` for the last two dimensions."""

    n_dims = 2


class ReflectionPad3d(_ReflectionPad):
    """:class:`ReflectionPad1d` for the last three dimensions."""

    n_dims = 3


class _ReplicationPad(_Pad):
    mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    """Pad with the value at the edge.

    >>> from facula import nn, arange
    >>> nn.ReplicationPad1d(2)(arange(3.0).reshape(1, 3)).tolist()
    [[0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]]
    """

    n_dims = 1


class ReplicationPad2d(_ReplicationPad):
    """:class:`ReplicationPad1d` for the last two dimensions."""

    n_dims = 2


class ReplicationPad3d(_ReplicationPad):
    """:class:`ReplicationPad1d` for the last three dimensions."""

    n_dims = 3


class _CircularPad(_Pad):
    mode = "circular"


class CircularPad1d(_CircularPad):
    """Pad with what stands at the other end, as if the input went round in a circle.

    >>> from facula import nn, arange
    >>> nn.CircularPad1d(1)(arange(3.0).reshape(1, 1, 3)).tolist()
    [[[2.0, 0.0, 1.0, 2.0, 0.0]]]
    """

    n_dims = 1


class CircularPad2d(_CircularPad):
    """:class:`CircularPad1d` for the last two dimensions."""

    n_dims = 2


class CircularPad3d(_CircularPad):
    """:class:`CircularPad1d` for the last three dimensions."""

    n_dims = 3
