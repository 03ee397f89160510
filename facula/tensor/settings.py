"""Defaults, and questions about types that need no elements."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.device import CPU, device
from facula.base.dtypes import dtype, get_default_dtype, promote_types
from facula.base.errors import ArgumentTypeError, UnsupportedError, fail
from facula.eager import dispatch
from facula.eager.meta import Size
from facula.eager.tensor import Tensor, need_tensor
from facula.runtime import threads
from facula.runtime.threads import get_num_threads

# Defaults ----------------------------------------------------------------------------------------


def set_default_dtype(d) -> None:
    """Set the dtype of new floating-point tensors; float32 at first.

    Raises:
        TypeError: no floating-point dtype.
    """
    D.set_default_dtype(d)
    dispatch.forget_all()  # Traces hold the former default.


def set_num_threads(num_threads: int) -> None:
    """How many threads one kernel may use, from now on.

    Raises:
        TypeError: no int.
        ValueError: not between 1 and 1024.
    """
    before = get_num_threads()
    threads.set_num_threads(num_threads)
    if num_threads != before:
        dispatch.forget_all()  # Plans say how work is cut, which changes no bit but the speed.


def set_default_tensor_type(t) -> None:
    """As :func:`set_default_dtype`, of a class such as ``FloatTensor``."""
    set_default_dtype(getattr(t, "dtype", t))


def set_default_device(device_) -> None:
    """Set the device of new tensors: there is one."""
    if device_ is not None and device(device_).type != "cpu":
        fail(UnsupportedError, "set_default_device", f"{device_} is not available",
             "this build has the device 'cpu'")  # fmt: skip


def get_default_device() -> device:
    """The device of new tensors."""
    return CPU


def get_num_interop_threads() -> int:
    """1: ops do not run beside each other."""
    return 1


def set_num_interop_threads(threads: int) -> None:
    """Accepted for PyTorch's sake: ops do not run beside each other."""
    if threads < 1:
        fail(ArgumentTypeError, "set_num_interop_threads", f"expected at least 1, got {threads}")


def use_deterministic_algorithms(mode, *, warn_only=False) -> None:
    """Accepted for PyTorch's sake: all ops give the same bits in every run."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: all ops give the same bits in every run."""
    return True


_matmul_precision = "highest"


def set_float32_matmul_precision(precision) -> None:
    """Noted and not used: products of float32 matrices are summed in float32."""
    global _matmul_precision
    if precision not in ("highest", "high", "medium"):
        fail(ArgumentTypeError, "set_float32_matmul_precision", f"unknown precision {precision!r}")
    _matmul_precision = precision


def get_float32_matmul_precision() -> str:
    """What was set."""
    return _matmul_precision


# Numbers of a dtype ------------------------------------------------------------------------------

#: Bits of the significand (the hidden one left out), largest exponent.
_FORMATS = {D.float16: (10, 15), D.bfloat16: (7, 127), D.float32: (23, 127), D.float64: (52, 1023)}


class finfo:  # noqa: N801  the public name
    """The limits of a floating-point dtype: ``bits, eps, max, min, tiny, smallest_normal``.

    >>> finfo(D.float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, type=None):  # noqa: A002
        d = get_default_dtype() if type is None else type
        if not isinstance(d, dtype) or d.kind != "f":
            raise TypeError(
                f"finfo() requires a floating point input type. Use iinfo to handle {d}"
            )
        digits, exponent = _FORMATS[d]
        self.dtype, self.bits, self.eps = d.name, 8 * d.itemsize, 2.0**-digits
        self.max = (2.0 - 2.0**-digits) * 2.0**exponent
        self.min, self.tiny = -self.max, 2.0 ** (1 - exponent)
        self.smallest_normal = self.tiny
        self.resolution = {10: 1e-3, 7: 1e-2, 23: 1e-6, 52: 1e-15}[digits]

    def __repr__(self):
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.tiny:g}, tiny={self.tiny:g}, "
            f"dtype={self.dtype})"
        )


class iinfo:  # noqa: N801  the public name
    """The limits of an integer dtype: ``bits, max, min``."""

    def __init__(self, type):  # noqa: A002
        if not isinstance(type, dtype) or type.kind not in "iu":
            raise TypeError(f"iinfo() requires an integer input type. Use finfo to handle {type}")
        self.dtype, self.bits = type.name, 8 * type.itemsize
        signed = type.kind == "i"
        self.max = (1 << self.bits - signed) - 1
        self.min = -(1 << self.bits - 1) if signed else 0

    def __repr__(self):
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


# Questions ---------------------------------------------------------------------------------------


def result_type(tensor1, tensor2) -> dtype:
    """The dtype in which an operation on the two would be done."""
    groups = ([], [], [])
    for x in (tensor1, tensor2):
        if isinstance(x, Tensor):
            groups[0 if x.ndim else 1].append(x.dtype)
        else:
            groups[2].append(D.of_scalar(x))
    return D.result_type(*groups)


def can_cast(from_, to) -> bool:
    """Whether a conversion stays within, or goes up, the categories bool, integer, float."""
    if from_.kind == "i" and to.kind == "u":
        return False
    return from_.category <= to.category


def is_floating_point(input) -> bool:  # noqa: A002
    """Whether the dtype of a tensor is a floating-point one."""
    need_tensor("is_floating_point", input)
    return input.is_floating_point()


def is_complex(input) -> bool:  # noqa: A002
    """False: there are no complex dtypes."""
    need_tensor("is_complex", input)
    return input.is_complex()


def is_nonzero(input) -> bool:  # noqa: A002
    """Whether the only element is not zero."""
    need_tensor("is_nonzero", input)
    return bool(input)


def is_storage(obj) -> bool:
    """Whether ``obj`` is a storage."""
    return type(obj).__name__ == "UntypedStorage"


def is_same_size(input, other) -> bool:  # noqa: A002
    """Whether two tensors have the same shape."""
    need_tensor("is_same_size", input, other)
    return input.shape == other.shape


def numel(input) -> int:  # noqa: A002
    """The number of elements of a tensor."""
    need_tensor("numel", input)
    return input.numel()


def typename(obj) -> str:
    """The name of the type of a tensor or of any object."""
    return obj.type() if isinstance(obj, Tensor) else f"{type(obj).__module__}.{type(obj).__name__}"


class layout:  # noqa: N801  the public name
    """How elements lie in memory."""

    def __init__(self, name):
        self._name = name

    def __repr__(self):
        return f"facula.{self._name}"


#: Strided tensors are all that there are; the other layouts are there to be compared with.
strided, sparse_coo, sparse_csr = layout("strided"), layout("sparse_coo"), layout("sparse_csr")
sparse_csc, sparse_bsr, sparse_bsc = (
    layout("sparse_csc"),
    layout("sparse_bsr"),
    layout("sparse_bsc"),
)
jagged = layout("jagged")


class memory_format(layout):  # noqa: N801  the public name
    """The order of dimensions in memory that a function is asked for."""


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")

# The numbers that PyTorch has at its top level.
e, pi, inf, nan, newaxis = 2.718281828459045, 3.141592653589793, float("inf"), float("nan"), None


def compiled_with_cxx11_abi() -> bool:
    """False: nothing is compiled with C++."""
    return False


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """False: there is nothing to warn of."""
    return False


__all__ = [
    "Size", "Tensor", "are_deterministic_algorithms_enabled", "can_cast", "channels_last",
    "channels_last_3d", "compiled_with_cxx11_abi", "contiguous_format", "device", "dtype", "e",
    "finfo", "get_default_device", "get_default_dtype", "get_float32_matmul_precision",
    "get_num_interop_threads", "get_num_threads", "iinfo", "inf", "is_complex",
    "is_deterministic_algorithms_warn_only_enabled", "is_floating_point", "is_nonzero",
    "is_same_size", "is_storage", "layout", "memory_format", "nan", "newaxis", "numel", "pi",
    "preserve_format", "promote_types", "result_type", "set_default_device", "set_default_dtype",
    "set_default_tensor_type", "set_float32_matmul_precision", "set_num_interop_threads",
    "set_num_threads", "jagged", "sparse_bsc", "sparse_bsr", "sparse_coo", "sparse_csc",
    "sparse_csr", "strided", "typename", "use_deterministic_algorithms",
]  # fmt: skip
