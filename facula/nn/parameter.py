"""Tensors that a module owns: ``Parameter`` (trained) and ``Buffer`` (carried along)."""

from collections import OrderedDict

from facula.tensor import Tensor, empty

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]


class Parameter(Tensor):
    """A tensor that becomes a parameter of the module it is assigned to.

    Args:
        data: the values, of any shape; an empty tensor where left out. The parameter shares its
            storage and starts a new history: it is a leaf.
        requires_grad: whether ``backward`` fills its ``grad``; needs a floating dtype.

    >>> from facula import nn, zeros
    >>> layer = nn.Module()
    >>> layer.scale = nn.Parameter(zeros(3))
    >>> [name for name, _ in layer.named_parameters()]
    ['scale']
    """

    def __new__(cls, data=None, requires_grad=True):
        if data is None:
            data = empty(0)
        return Tensor._make_subclass(cls, data, requires_grad)

    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        copy = type(self)(self.data.clone(), self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol):
        return _rebuild_parameter, (self.data, self.requires_grad, OrderedDict())

    def __repr__(self):
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor that becomes a buffer of the module it is assigned to.

    Args:
        data: the values; an empty tensor where left out.
        persistent: whether the buffer is part of the module's state dict.
    """

    def __new__(cls, data=None, *, persistent=True):
        if data is None:
            data = empty(0)
        buffer = Tensor._make_subclass(cls, data.detach(), data.requires_grad)
        buffer.persistent = persistent
        return buffer

    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        copy = type(self)(self.data.clone(), persistent=self.persistent)
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol):
        return _rebuild_buffer, (self.data, self.persistent)

    def __repr__(self):
        return "Buffer containing:\n" + super().__repr__()


class _Uninitialized:
    """A tensor of a module whose size is not known yet; it has no elements until then."""

    __slots__ = ()

    def detach(self):
        """Itself: state dicts hold what is to be materialized."""
        return self

    def materialize(self, shape, device=None, dtype=None):
        """Give it memory of this shape, not initialised, and make it an ordinary one."""
        self.data = empty(shape, device=device, dtype=self.dtype if dtype is None else dtype)
        self.__class__ = self.cls_to_become

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            memo[id(self)] = type(self)(dtype=self.dtype)
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return _rebuild_uninitialized, (type(self), self.dtype)

    def __repr__(self):
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape is found at the first call: see ``nn.LazyLinear``."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad=True, device=None, dtype=None):
        return Tensor._make_subclass(cls, empty(0, device=device, dtype=dtype), requires_grad)


class UninitializedBuffer(_Uninitialized, Tensor):
    """A buffer whose shape is found at the first call: see ``nn.LazyBatchNorm1d``."""

    __slots__ = ()
    cls_to_become = Tensor

    def __new__(cls, requires_grad=False, device=None, dtype=None):
        return Tensor._make_subclass(cls, empty(0, device=device, dtype=dtype), requires_grad)


def is_lazy(x):
    """Whether a parameter or buffer has no size yet."""
    return isinstance(x, _Uninitialized)


def _rebuild_uninitialized(kind, dtype):
    return kind(dtype=dtype)


def _rebuild_parameter(data, requires_grad, backward_hooks):
    """Unpickle a parameter; the third field is always empty and kept for PyTorch's layout."""
    return Parameter(data, requires_grad)


def _rebuild_buffer(data, persistent):
    return Buffer(data, persistent=persistent)
