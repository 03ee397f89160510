"""The class Tensor: a meta, an address, a storage, and a place in the graph of gradients.

What needs no op is written here; operators, methods derived from the registry and everything that
computes are attached by ``tensor.methods``.
"""

from __future__ import annotations

from facula.base.device import device as Device
from facula.base.errors import ArgumentTypeError, AutogradError, fail
from facula.eager.grad_mode import capture
from facula.eager.meta import Size


class Tensor:
    """A multi-dimensional array of one dtype that can remember how it was computed.

    Made by :func:`facula.tensor`, ``facula.zeros`` and their like, and by every op. Subclasses may
    add attributes; results of ops are plain tensors.

    >>> import facula
    >>> x = facula.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """

    # Beyond what their names say: ``_output_nr`` is None for 0; ``_base`` is the tensor whose
    # memory this one shows, ``_view`` a chain (that of the view it was made from, movements) that
    # leads there; ``_views`` are weak references to the tensors that show this one's memory and
    # whose history follows its own.
    __slots__ = (
        "_meta",
        "_ptr",
        "_storage",
        "_grad_fn",
        "_output_nr",
        "_grad",
        "_base",
        "_view",
        "_views",
        "_hooks",
        "__weakref__",
    )

    #: NumPy leaves operators with arrays on the left to us.
    __array_priority__ = 1000

    def __new__(cls, *args, **kwargs):
        if cls is Tensor or not args:
            return _construct(cls, *args, **kwargs)
        return cls._make_subclass(cls, _construct(Tensor, *args, **kwargs))

    @staticmethod
    def _make_subclass(cls, data, require_grad=False):
        """A leaf of class ``cls`` over the memory of ``data``."""
        self = fill(object.__new__(cls), data._meta, data._ptr, data._storage)
        self._meta = data._meta.with_grad(bool(require_grad))
        if require_grad:
            _need_float(data)
        return self

    # What it is

    @property
    def shape(self) -> Size:
        """The sizes of the dimensions."""
        return self._meta.shape

    @property
    def dtype(self):
        """The type of the elements."""
        return self._meta.dtype

    @property
    def device(self) -> Device:
        """Where the memory lies."""
        return self._meta.device

    @property
    def layout(self) -> str:
        """Always strided."""
        return "facula.strided"

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._meta.ndim

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._meta.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._meta.nbytes

    is_sparse = is_quantized = is_cuda = is_mps = is_nested = is_meta = is_mkldnn = False
    is_cpu = True
    names = property(lambda self: (None,) * self._meta.ndim)

    def size(self, dim=None):
        """The shape, or the size of one dimension."""
        shape = self._meta.shape
        if dim is None:
            return shape
        try:
            return shape[dim]
        except IndexError:
            n = max(len(shape), 1)
            raise IndexError(
                f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], "
                f"but got {dim})"
            ) from None

    def stride(self, dim=None):
        """The steps in memory, in elements, of all dimensions or of one."""
        return self._meta.strides if dim is None else self._meta.strides[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self._meta.ndim

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return self._meta.numel

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self._meta.dtype.itemsize

    def storage_offset(self) -> int:
        """Elements between the start of the storage and the first element."""
        return (self._ptr - self._storage.ptr) // self._meta.dtype.itemsize

    def data_ptr(self) -> int:
        """The address of the first element; 0 if there are none."""
        return self._ptr if self._meta.numel else 0

    def is_contiguous(self, memory_format=None) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return self._meta.contiguous

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one."""
        return self._meta.dtype.kind == "f"

    def is_complex(self) -> bool:
        """Never: there are no complex dtypes."""
        return False

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return self._meta.dtype.is_signed

    def is_inference(self) -> bool:
        """Never: inference mode makes ordinary tensors."""
        return False

    def get_device(self) -> int:
        """-1 on the CPU."""
        return -1

    def is_set_to(self, other) -> bool:
        """Whether both show the same memory in the same way."""
        return (
            self._ptr == other._ptr
            and self._meta.shape == other._meta.shape
            and self._meta.strides == other._meta.strides
        )

    # Its place in the graph

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted, or flow through it."""
        return self._meta.requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted):
        self.requires_grad_(wanted)

    def requires_grad_(self, requires_grad: bool = True):
        """Say whether gradients are wanted; returns the tensor.

        Raises:
            RuntimeError: it is no leaf, or holds integers.
        """
        if self._grad_fn is not None and not requires_grad:
            fail(
                AutogradError,
                "requires_grad_",
                "you can only change requires_grad flags of leaf variables.",
                "use detach() for a tensor without history",
            )
        if requires_grad:
            _need_float(self)
        self._meta = self._meta.with_grad(bool(requires_grad))
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user and not by a recorded op."""
        return self._grad_fn is None

    @property
    def grad_fn(self):
        """The node that computed it, or None for a leaf."""
        return self._grad_fn

    @property
    def output_nr(self) -> int:
        """Which output of ``grad_fn`` it is."""
        return self._output_nr or 0

    @property
    def grad(self):
        """The gradient that backward left, or None."""
        return self._grad

    @grad.setter
    def grad(self, g):
        if g is not None:
            if not isinstance(g, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(g).__name__}")
            if g._meta.shape != self._meta.shape or g._meta.dtype is not self._meta.dtype:
                fail(
                    AutogradError,
                    "grad",
                    f"assigned grad has {describe(g)}, expected {describe(self)}",
                )
        self._grad = g

    @grad.deleter
    def grad(self):
        self._grad = None

    @property
    def _version(self) -> int:
        return self._storage.version

    def _is_view(self) -> bool:
        return self._base is not None

    def detach(self):
        """The same memory without history."""
        m = self._meta
        return wrap(m.with_grad(False) if m.requires_grad else m, self._ptr, self._storage)

    @property
    def data(self):
        """The same memory without history; assigning it gives the tensor other memory."""
        return self.detach()

    @data.setter
    def data(self, other):
        if not isinstance(other, Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(other).__name__}")
        if capture.trace is not None:
            other = capture.trace.given(self, other)
        self._meta = other._meta.with_grad(self._meta.requires_grad)
        self._ptr, self._storage = other._ptr, other._storage

    def detach_(self):
        """Forget the history, in place."""
        if self._base is not None:
            fail(AutogradError, "detach_", "Can't detach views in-place. Use detach() instead")
        self._grad_fn = self._output_nr = None
        self._meta = self._meta.with_grad(False)
        return self

    __hash__ = object.__hash__  # ``==`` compares elements, and would take it away

    def __dir__(self):
        return sorted({*object.__dir__(self)})


#: Tensor and the subclasses met so far, for a test of one look-up.
TENSORS = {Tensor}


def describe(x) -> str:
    """The dtype and shape, for messages."""
    return f"{x._meta.dtype.name}{list(x._meta.shape)}"


def _need_float(x):
    if x._meta.dtype.kind != "f":
        fail(
            AutogradError,
            "requires_grad_",
            f"only Tensors of floating point dtype can require gradients, got {x._meta.dtype.name}",
        )


def need_tensor(name, *xs) -> None:
    """Refuse what is no tensor, for functions that ask it for more than its elements.

    Raises:
        TypeError: one of ``xs`` is no tensor.
    """
    for x in xs:
        if not isinstance(x, Tensor):
            kind = type(x).__name__
            fail(ArgumentTypeError, name, f"expected a Tensor as an argument, got {kind}")


def fill(self, meta, ptr, storage):
    """Set all slots of a new tensor."""
    self._meta, self._ptr, self._storage = meta, ptr, storage
    self._grad_fn = self._output_nr = self._grad = self._base = None
    self._view = self._views = self._hooks = None
    return self


_new = object.__new__


def wrap(meta, ptr, storage) -> Tensor:
    """A tensor over memory that exists."""
    self = _new(Tensor)
    self._meta, self._ptr, self._storage = meta, ptr, storage
    self._grad_fn = self._output_nr = self._grad = self._base = None
    self._view = self._views = self._hooks = None
    return self


def _construct(cls, *args, **kwargs):
    raise TypeError("Tensor: hint: use facula.tensor(...) or facula.empty(...)")


def set_constructor(function) -> None:
    """Give ``Tensor(...)`` its meaning: ``function(cls, *args)``; set by ``tensor.creation``."""
    global _construct
    _construct = function
