"""Methods that change what a tensor is without touching its elements, and other small ones."""

from __future__ import annotations

from facula.base.errors import ShapeError, UnsupportedError, fail
from facula.eager import views
from facula.eager.grad_mode import mode, no_grad
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.tensor.creation import arange, refuse_complex
from facula.tensor.functions import function_of

# Views in place ----------------------------------------------------------------------------------


def _reshaping(name):
    """``name_``: the tensor itself becomes the view that ``name`` gives."""

    def method(self, *args, **named):
        if self._meta.requires_grad and self._grad_fn is None and mode.grad is not False:
            views.check_in_place(self, name + "_")
        y = function_of(OPS[name])(self, *args, **named)
        self._meta, self._ptr, self._storage = y._meta, y._ptr, y._storage
        if y._grad_fn is not None:
            self._grad_fn, self._output_nr = y._grad_fn, y._output_nr
        return self

    method.__name__ = method.__qualname__ = name + "_"
    method.__doc__ = f"``{name}``, in place."
    return method


for _name in ("squeeze", "unsqueeze", "transpose", "t"):
    setattr(Tensor, _name + "_", _reshaping(_name))
Tensor.swapaxes_ = Tensor.swapdims_ = Tensor.transpose_


def as_strided_(self, size, stride, storage_offset=None):
    """``as_strided``, in place."""
    y = views.as_strided(self, size, stride, storage_offset)
    self._meta, self._ptr, self._storage = y._meta, y._ptr, y._storage
    return self


# Elements ----------------------------------------------------------------------------------------


def fill_diagonal_(self, fill_value, wrap=False):
    """``fill_value`` on the main diagonal, in place; with ``wrap`` it goes on below a square."""
    if self.ndim < 2:
        fail(ShapeError, "fill_diagonal_", "dimensions must larger than 1")
    if self.ndim > 2 and len(set(self.shape)) > 1:
        fail(ShapeError, "fill_diagonal_", "all dimensions of input must be of equal length")
    n = min(self.shape)
    if self.ndim == 2 and wrap and self.shape[0] > self.shape[1] + 1:
        rows = arange(self.shape[0])
        columns = rows % (self.shape[1] + 1)
        inside = columns < self.shape[1]
        self[rows[inside], columns[inside]] = fill_value
        return self
    place = arange(n)
    self[(place,) * self.ndim] = fill_value
    return self


def apply_(self, callable):  # noqa: A002
    """Every element replaced by ``callable(element)``, in place and in Python: slow."""
    values = [callable(v) for v in self.reshape(-1).tolist()]
    with no_grad():
        return self.copy_(self.new_tensor(values).reshape(self.shape))


def map_(self, tensor, callable):  # noqa: A002
    """Every element replaced by ``callable(element, other)``, in place and in Python: slow."""
    other = tensor.expand_as(self)
    pairs = zip(self.reshape(-1).tolist(), other.reshape(-1).tolist())
    with no_grad():
        return self.copy_(self.new_tensor([callable(a, b) for a, b in pairs]).reshape(self.shape))


def nonzero_static(input, *, size, fill_value=-1):  # noqa: A002
    """``nonzero`` cut, or filled up with ``fill_value``, to ``size`` rows."""
    need_tensor("nonzero_static", input)
    found = input.nonzero()[:size]
    out = found.new_full((size, input.ndim), fill_value)
    out[: found.shape[0]] = found
    return out


def adjoint(input):  # noqa: A002
    """The last two dimensions exchanged."""
    need_tensor("adjoint", input)
    return input.transpose(-2, -1)


def detach(input):  # noqa: A002
    """The same memory without history."""
    need_tensor("detach", input)
    return input.detach()


def detach_(input):  # noqa: A002
    """Forget the history, in place."""
    need_tensor("detach_", input)
    return input.detach_()


def fill(input, value):  # noqa: A002
    """A tensor of the shape of ``input`` with ``value`` everywhere."""
    need_tensor("fill", input)
    return function_of(OPS["fill"])(input, value)


def fill_(input, value):  # noqa: A002
    """Every element ``value``, in place."""
    need_tensor("fill_", input)
    return input.fill_(value)


def zero_(input):  # noqa: A002
    """Every element 0, in place."""
    need_tensor("zero_", input)
    return input.zero_()


def is_inference(input) -> bool:  # noqa: A002
    """Whether a tensor was made in inference mode."""
    need_tensor("is_inference", input)
    return input.is_inference()


def is_signed(input) -> bool:  # noqa: A002
    """Whether the dtype has negative numbers."""
    need_tensor("is_signed", input)
    return input.is_signed()


def is_conj(input) -> bool:  # noqa: A002
    """False: there are no complex numbers."""
    return False


is_neg = is_conj


def imag(input):  # noqa: A002
    """Refused: there are no complex numbers."""
    refuse_complex("imag")


def as_strided(input, size, stride, storage_offset=None):  # noqa: A002
    """The memory of ``input`` in any shape and strides (in elements)."""
    need_tensor("as_strided", input)
    return views.as_strided(input, size, stride, storage_offset)


def _cuda(self, device=None, non_blocking=False, memory_format=None):
    """Refused: there is no GPU."""
    fail(UnsupportedError, "cuda", "this build has no CUDA device", "ask cuda.is_available() first")


def _share_memory(self):
    """The tensor itself: its memory is shared with workers when it is sent to them."""
    return self


def _reversed(self):
    """All elements in reverse order of the first dimension."""
    return self.flip(0) if self.ndim else self


def _delete(self, index):
    raise TypeError("Tensor does not support deleting items")


def _as_subclass(self, cls):
    """The same memory as an instance of a subclass."""
    made = Tensor._make_subclass(cls, self.detach())
    if self.requires_grad and self.dtype.kind == "f":
        made._meta, made._grad_fn = self._meta, self._grad_fn or None
        made._output_nr = self._output_nr
    return made


for _function in (
    as_strided_, fill_diagonal_, apply_, map_, nonzero_static, adjoint, is_conj,
):  # fmt: skip
    setattr(Tensor, _function.__name__, _function)
Tensor.is_neg, Tensor.cuda, Tensor.share_memory_ = is_conj, _cuda, _share_memory
Tensor.is_shared = Tensor.is_pinned = Tensor.is_coalesced = lambda self, device=None: False
Tensor.pin_memory = lambda self, device=None: self
Tensor.is_nonzero = lambda self: bool(self)
Tensor.__rdiv__ = Tensor.__rtruediv__
Tensor.is_same_size = lambda self, other: self.shape == other.shape
Tensor.__reversed__, Tensor.__delitem__, Tensor.as_subclass = _reversed, _delete, _as_subclass
Tensor.mH = property(adjoint, doc="The last two dimensions exchanged.")
Tensor.ger = lambda self, vec2: self.outer(vec2)
Tensor.polygamma = lambda self, n: OPS["polygamma"](n, self)
Tensor.polygamma_ = lambda self, n: self.copy_(OPS["polygamma"](n, self))
Tensor.resolve_conj = Tensor.resolve_neg = Tensor.conj = lambda self: self
Tensor.conj_physical = lambda self: self.clone()

__all__ = [
    "adjoint", "as_strided", "detach", "detach_", "fill", "fill_", "imag", "is_conj",
    "is_inference", "is_neg", "is_signed", "nonzero_static", "zero_",
]  # fmt: skip
