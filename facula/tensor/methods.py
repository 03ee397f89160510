"""What tensors can do beyond ops, and the attaching of operators and ops to the class."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.device import device as Device
from facula.base.errors import ArgumentTypeError, AutogradError, ShapeError, fail
from facula.eager import tape, views
from facula.eager.dispatch import call_primitive
from facula.eager.grad_mode import capture, mode
from facula.eager.tensor import Tensor, fill
from facula.ir.program import Value
from facula.library import OPS, F
from facula.ops.operators import BINARY, COMPARE
from facula.ops.pointwise import cast, copy_
from facula.ops.promote import to as converted
from facula.ops.registry import op
from facula.tensor import memory
from facula.tensor.autocast import casting, policy
from facula.tensor.functions import function_of, names_in, operator, reflected, site_of


@op(spaces=(), inplace=True)
def copy(input: Value, src: Value, non_blocking=False):
    """The elements of ``src``, broadcast and converted to those of ``input``."""
    src = converted(src, input.dtype)
    return src if src.ndim == input.ndim == 0 else F.expand(src, *input.shape)


# Conversions ----------------------------------------------------------------------------------


def contiguous(self, memory_format=None):
    """The tensor itself if it is row-major, else a row-major copy."""
    return self if self._meta.contiguous else call_primitive(copy_, (self,), {})


def cast_to(x, dtype, copy=False):
    """``x`` as ``dtype``; itself if it is that already, unless a copy is wanted."""
    if x._meta.dtype is dtype:
        return F.clone(x) if copy else x
    return call_primitive(cast, (x,), {"dtype": dtype})


def to(self, *args, dtype=None, device=None, non_blocking=False, copy=False, memory_format=None):
    """The tensor with another dtype or on another device: ``to(dtype)``, ``to(device)``,
    ``to(device, dtype)`` or ``to(other)``. Itself where nothing changes, unless ``copy``.
    """
    for a in args:
        if isinstance(a, D.dtype):
            dtype = a
        elif isinstance(a, Tensor):
            dtype = a._meta.dtype
        elif isinstance(a, (str, Device)):
            device = a
        elif not isinstance(a, bool) and a is not None:
            fail(ArgumentTypeError, "to", f"expected a dtype, device or tensor, got {a!r}")
    if device is not None:
        Device(device)
    return cast_to(self, dtype or self._meta.dtype, copy)


def type_(self, dtype=None, non_blocking=False):
    """The name of the tensor's type, or the tensor as another dtype."""
    if dtype is None:
        return "facula." + _TYPE_NAMES[self._meta.dtype]
    return cast_to(self, by_type_name(dtype))


_TYPE_NAMES = {
    D.bool_: "BoolTensor",
    D.uint8: "ByteTensor",
    D.int8: "CharTensor",
    D.int16: "ShortTensor",
    D.int32: "IntTensor",
    D.int64: "LongTensor",
    D.float16: "HalfTensor",
    D.bfloat16: "BFloat16Tensor",
    D.float32: "FloatTensor",
    D.float64: "DoubleTensor",
}


def by_type_name(dtype) -> D.dtype:
    """A dtype, also of a name such as ``"torch.FloatTensor"``."""
    if isinstance(dtype, D.dtype):
        return dtype
    word = str(dtype).rpartition(".")[2]
    for found, name in _TYPE_NAMES.items():
        if name == word:
            return found
    return fail(ArgumentTypeError, "type", f"invalid type: {dtype!r}")


def _conversion(dtype):
    def convert(self, memory_format=None):
        return cast_to(self, dtype)

    convert.__doc__ = f"The tensor as {dtype.name}."
    return convert


_CONVERSIONS = {
    "bool": D.bool_,
    "byte": D.uint8,
    "char": D.int8,
    "short": D.int16,
    "int": D.int32,
    "long": D.int64,
    "half": D.float16,
    "bfloat16": D.bfloat16,
    "float": D.float32,
    "double": D.float64,
}


def type_as(self, other):
    """The tensor with the dtype of another."""
    return cast_to(self, other._meta.dtype)


# Python's protocols ------------------------------------------------------------------------------


def item(self):
    """The one element as a Python number."""
    return memory.item(self)


def tolist(self):
    """The elements as nested lists; of a 0-dim tensor, the number."""
    return memory.tolist(self)


def _truth(self):
    if self._meta.numel != 1:
        n = self._meta.numel
        what = "no values" if n == 0 else "more than one value"
        fail(AutogradError, "bool", f"Boolean value of Tensor with {what} is ambiguous")
    return bool(memory.item(self))


def _index(self):
    if self._meta.dtype.kind == "f" or self._meta.numel != 1:
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(memory.item(self))


def _length(self):
    if self._meta.ndim == 0:
        raise TypeError("len() of a 0-d tensor")
    return self._meta.shape[0]


def _iterate(self):
    if self._meta.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(F.unbind(self, 0))


def _contains(self, x):
    if not isinstance(x, (Tensor, int, float)):
        fail(ArgumentTypeError, "in", f"expected a Tensor or a number, got {type(x).__name__}")
    return bool(F.any(F.eq(self, x)).item())


def _format(self, spec):
    if self._meta.ndim == 0 and type(self) is Tensor or self._meta.ndim == 0 and spec:
        return format(memory.item(self), spec)
    return object.__format__(self, spec)


def _deepcopy(self, memo):
    if id(self) in memo:
        return memo[id(self)]
    if self._grad_fn is not None:
        fail(
            AutogradError,
            "deepcopy",
            "Only Tensors created explicitly by the user (graph "
            "leaves) support the deepcopy protocol at the moment.",
            "detach() it first",
        )
    recording, mode.grad = mode.grad, False
    try:
        data = F.clone(self)
        copied = fill(object.__new__(type(self)), data._meta, data._ptr, data._storage)
        copied._meta = copied._meta.with_grad(self._meta.requires_grad)
        memo[id(self)] = copied
        if self._grad is not None:
            copied._grad = _deepcopy(self._grad, memo)
    finally:
        mode.grad = recording
    for name, value in getattr(self, "__dict__", {}).items():
        setattr(copied, name, value)
    return copied


# Memory ---------------------------------------------------------------------------------------


def resize_(self, *size, memory_format=None):
    """Another shape, in place; new elements are not initialised."""
    if self._meta.requires_grad:
        fail(AutogradError, "resize_", "cannot resize variables that require grad")
    size = size[0] if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    return memory.resize(self, map(int, size))


def set_(self, source):
    """Show the memory of another tensor."""
    self.data = source
    return self


# Gradients --------------------------------------------------------------------------------------


def register_hook(self, hook):
    """Call ``hook(grad)`` when the gradient of this tensor is known; it may return another.

    Returns:
        A handle with ``remove()``.
    """
    if not self._meta.requires_grad:
        fail(
            AutogradError,
            "register_hook",
            "cannot register a hook on a tensor that doesn't require gradient",
        )
    return tape.hook_tensor(self, hook)


def register_post_accumulate_grad_hook(self, hook):
    """Call ``hook(tensor)`` after ``tensor.grad`` was updated; leaves only."""
    if self._grad_fn is not None or not self._meta.requires_grad:
        fail(
            AutogradError,
            "register_post_accumulate_grad_hook",
            "post accumulate grad hooks cannot be registered on non-leaf tensors",
        )
    if self._hooks is None:
        self._hooks = tape.Hooks()
    return tape.Handle(self._hooks.after, hook)


def retain_grad(self):
    """Keep the gradient of this non-leaf in ``grad``; leaves always do."""
    if not self._meta.requires_grad:
        fail(
            AutogradError, "retain_grad", "can't retain_grad on Tensor that has requires_grad=False"
        )
    if self._grad_fn is not None:
        tape.retain(self)


def retains_grad(self) -> bool:
    """Whether a non-leaf keeps its gradient."""
    hooks = self._grad_fn.hooks if self._grad_fn is not None else None
    return hooks is not None and (self._output_nr or 0) in hooks.retains


# Attaching --------------------------------------------------------------------------------------


class _Lazy:
    """A method that is written when first looked up."""

    def __init__(self, make, name):
        self.make, self.name = make, name

    def __get__(self, instance, owner):
        function = self.make()
        setattr(Tensor, self.name, function)
        return function.__get__(instance, owner)


def _operators():
    for word, name in BINARY.items():
        site = lambda name=name: site_of(OPS[name], operands=2)  # noqa: E731
        make = lambda s=site: operator(s())  # noqa: E731
        if (lower := policy(name)) is not None:
            make = lambda s=site, w=lower: casting(operator(s()), s().rows, w)  # noqa: E731
        setattr(Tensor, f"__{word}__", _Lazy(make, f"__{word}__"))
        setattr(Tensor, f"__r{word}__", _Lazy(lambda s=site: reflected(s()), f"__r{word}__"))
        if OPS[name].inplace:
            into = lambda name=name: site_of(OPS[name], "self", operands=2)  # noqa: E731
            setattr(Tensor, f"__i{word}__", _Lazy(lambda s=into: operator(s()), f"__i{word}__"))
    for name in (*COMPARE, "eq", "ne"):
        site = lambda name=name: site_of(OPS[name], operands=2)  # noqa: E731
        setattr(Tensor, f"__{name}__", _Lazy(lambda s=site: operator(s()), f"__{name}__"))
    for word, name in {"neg": "neg", "invert": "bitwise_not", "abs": "abs"}.items():
        make = lambda name=name: function_of(OPS[name])  # noqa: E731
        setattr(Tensor, f"__{word}__", _Lazy(make, f"__{word}__"))
    Tensor.__pos__ = lambda self: self
    Tensor.__bool__, Tensor.__index__, Tensor.__len__ = _truth, _index, _length
    Tensor.__float__ = lambda self: float(memory.item(self))
    Tensor.__int__ = lambda self: int(memory.item(self))
    Tensor.__iter__, Tensor.__contains__, Tensor.__format__ = _iterate, _contains, _format
    Tensor.__deepcopy__ = _deepcopy


def _views_as_properties():
    def transposed(self):
        if self._meta.ndim > 2:
            return F.permute(self, *range(self._meta.ndim - 1, -1, -1))
        return F.t(self)

    def matrices(self):
        if self._meta.ndim < 2:
            fail(
                ShapeError,
                "mT",
                f"only supported on matrices or batches of matrices, got {self._meta.ndim}-D",
            )
        return F.transpose(self, -2, -1)

    Tensor.T = property(transposed, doc="Dimensions in reverse order.")
    Tensor.mT = property(matrices, doc="The last two dimensions exchanged.")
    Tensor.H = property(matrices, doc="The conjugate transpose; there are no complex dtypes.")


def attach() -> None:
    """Give the class its methods; called once."""
    for name, make in names_in("method").items():
        if name not in vars(Tensor):
            setattr(Tensor, name, _Lazy(make, name))
    for name in ("fill", "zero", "copy"):
        make = lambda name=name: function_of(OPS[name], "self")  # noqa: E731
        setattr(Tensor, name + "_", _Lazy(make, name + "_"))
    for name, dtype in _CONVERSIONS.items():
        setattr(Tensor, name, _conversion(dtype))
    for function in (
        contiguous,
        to,
        type_as,
        item,
        tolist,
        resize_,
        set_,
        register_hook,
        register_post_accumulate_grad_hook,
        retain_grad,
    ):
        setattr(Tensor, function.__name__, function)
    Tensor.type, Tensor.as_strided, Tensor.retains_grad = (
        type_,
        views.as_strided,
        property(retains_grad),
    )
    Tensor.cpu = lambda self, memory_format=None: self
    _operators()
    _views_as_properties()


def _zeros(meta):
    if capture.trace is not None:
        return capture.trace.fresh(meta.shape, meta.dtype)
    x = memory.allocate(meta.with_grad(False))
    recording, mode.grad = mode.grad, False
    try:
        return x.zero_()
    finally:
        mode.grad = recording


def _has_nan(x) -> bool:
    recording, mode.grad = mode.grad, False
    try:
        return x._meta.dtype.kind == "f" and bool(F.any(F.isnan(x)).item())
    finally:
        mode.grad = recording


attach()
tape.provide(
    add=lambda a, b: a + b,
    add_=lambda a, b: a.add_(b),
    copy_=lambda a, b: a.copy_(b),
    clone=lambda x: call_primitive(copy_, (x,), {}),
    zeros=_zeros,
    has_nan=_has_nan,
    rebase=views.rebase,
)
