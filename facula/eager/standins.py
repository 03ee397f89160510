"""Stand-ins: the tensors of a function that is being captured, and their history."""

from __future__ import annotations

from functools import lru_cache

from facula.base.device import CPU
from facula.base.dtypes import bool_
from facula.base.errors import CaptureError
from facula.derivatives.reverse import reverse
from facula.eager import tape
from facula.eager.grad_mode import capture, mode
from facula.eager.meta import Size, contiguous
from facula.eager.tensor import Tensor, fill
from facula.ir import dims
from facula.ops.movement import contiguous_strides
from facula.ops.promote import expand_to, to
from facula.ops.registry import F
from facula.runtime import storage


class TracedMeta:
    """The meta of a tensor whose sizes may be symbols; no two are equal."""

    __slots__ = ("shape", "dtype", "requires_grad")

    def __init__(self, shape, dtype, requires_grad):
        self.shape, self.dtype, self.requires_grad = Size(shape), dtype, requires_grad

    device = CPU
    contiguous = True
    layout = "C"

    @property
    def strides(self):
        return contiguous_strides(self.shape)

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def numel(self):
        return dims.product(self.shape)

    @property
    def ones(self):
        return tuple(d for d, n in enumerate(self.shape) if isinstance(n, int) and n == 1)

    @property
    def nbytes(self):
        return self.numel * self.dtype.itemsize

    def with_grad(self, requires_grad):
        return TracedMeta(self.shape, self.dtype, requires_grad)


class Nowhere:
    """The storage of what has no memory."""

    version = nbytes = 0


class Traced(Tensor):
    """A tensor of a trace: a Value in a tensor's clothes.

    Attributes:
        _value: what it is now.
        _shows: for a view (the tensor whose memory it shows, its movements from there, whether
            gradients pass, how often that tensor had been changed when the value was taken).
        _changes: how often it was changed in place.
    """

    __slots__ = ("_value", "_shows", "_changes")

    def _needs_elements(self, *args, **kwargs):
        raise CaptureError(
            "compile: the function needs the elements of a tensor (item, bool, numpy or an "
            "index), which are not known while it is captured; hint: keep such decisions outside"
        )

    tolist = numpy = data_ptr = __repr__ = __str__ = __format__ = _needs_elements
    __bool__ = __int__ = __float__ = __index__ = __array__ = __complex__ = _needs_elements

    def item(self):
        """A number that may be returned, and nothing else."""
        if len(self._meta.shape) and self._meta.numel != 1:
            self._needs_elements()
        return Pending(self)

    def is_contiguous(self, memory_format=None):
        """Whether it is, at the sizes of the trace."""
        if self._shows is None:
            return id(self) not in current().strided
        return current().lies(self)[0].contiguous

    def stride(self, dim=None):
        """The steps in memory of what is contiguous."""
        if not self.is_contiguous():
            raise CaptureError("compile: the function asks for strides")
        strides = contiguous_strides(self._meta.shape)
        return strides if dim is None else strides[dim]

    def contiguous(self, memory_format=None):
        """Of a view that is not contiguous another tensor with its value and history."""
        if self.is_contiguous():
            return self
        trace = current()
        t = trace.wrap(trace.lift(self), self._meta.requires_grad)
        t._grad_fn, t._output_nr = self._grad_fn, self._output_nr
        return t

    def detach(self):
        """The same memory as a constant of differentiation."""
        trace = current()
        t = trace.wrap(F.stop(trace.lift(self)), False)
        trace.show(t, self, (), False)
        return t

    def requires_grad_(self, requires_grad=True):
        """Leaves are made outside of captured functions."""
        if self._meta.requires_grad is not requires_grad:
            raise CaptureError("compile: requires_grad_() inside of a captured function")
        return self


class Int(Tensor):
    """An int of Python's as an input: a tensor that is never read, whose size tells it."""

    __slots__ = ()


@lru_cache(4096)
def int_input(n) -> Int:
    """The input for an int that is not negative."""
    block = storage.allocate(1)
    return fill(object.__new__(Int), contiguous((n + 2,), bool_), block.ptr, block)


class Pending:
    """The element of a stand-in as a number: known when the captured call ends."""

    __slots__ = ("tensor",)

    def __init__(self, tensor):
        self.tensor = tensor
        current().pending = True


def _refused(self, *others):
    return self.tensor._needs_elements()


_REFUSED = """add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow neg
abs lt le gt ge eq ne hash bool int float index complex round trunc repr str format array"""
for _name in _REFUSED.split():
    setattr(Pending, f"__{_name}__", _refused)


class Step(tape.Node):
    """A call of an op in a trace: its nodes, and the values they lead from and to.

    ``saved`` is (nodes, the values that ``edges`` stand for, results, whether the results are step
    functions of the inputs, whose gradients are zeros).
    """

    __slots__ = ("title", "outputs")

    def name(self) -> str:
        words = self.title.rstrip("_").split("_")
        return "".join(w[:1].upper() + w[1:] for w in words) + "Backward0"

    def apply(self, gs):
        trace = current()
        trace.differentiated = True
        nodes, inputs, results, flat = self.need_saved()
        cotangents = [None if g is None else trace.lift(g) for g in gs]
        before = len(trace.program.nodes)
        found = reverse(results, cotangents, inputs, nodes)
        if flat:
            found = [expand_to(to(0, v.dtype), v.shape) for v in inputs]
        wrapped = [None if g is None else trace.wrap(g, False) for g in found]
        if mode.grad is not False:
            own = [v for v, g in zip(cotangents, gs) if g is not None and g._meta.requires_grad]
            edges = [e for g in gs if g is not None and g._meta.requires_grad for e in tape.edge(g)]
            added = [*nodes, *trace.program.nodes[before:]]
            given = [g for g in wrapped if g is not None]
            trace.record(self.title, (*self.edges, *edges), added, [*inputs, *own], given)
        return wrapped, (True,) * len(wrapped)


def current():
    """The trace in progress."""
    return capture.trace


def active() -> bool:
    """Whether this thread is capturing a function."""
    return capture.trace is not None
