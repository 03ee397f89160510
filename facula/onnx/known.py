"""Values of an ONNX graph that are known while it is read: constants, and arithmetic on sizes.

ONNX computes shapes with ordinary operators on int64 tensors. Where all operands are known they are
computed here, on arrays of ints and symbolic sizes, so that a Program sees sizes and not data.
"""

from __future__ import annotations

import numpy as np

from facula.base import dtypes as D
from facula.base.errors import fail
from facula.ir import dims
from facula.ir.dims import Dim
from facula.onnx.errors import OnnxError

#: Larger constants are data: weights, tables.
MOST = 1024


class Constant:
    """An array of the file (an initializer, or a Constant node)."""

    __slots__ = ("array", "dtype", "name")

    def __init__(self, array: np.ndarray, dtype, name: str):
        self.array, self.dtype, self.name = array, dtype, name


class Sizes:
    """Ints and symbolic sizes: an array of objects, of rank 0 to 2; int64 in ONNX, or bool."""

    __slots__ = ("array", "dtype")

    def __init__(self, array, dtype=D.int64):
        self.array, self.dtype = array, dtype


def objects(values) -> np.ndarray:
    """A vector of ints and Dims."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def array_of(x) -> np.ndarray | None:
    """The ints that a value is known to be, or None."""
    if isinstance(x, Sizes):
        return x.array
    if isinstance(x, Constant) and x.array.dtype.kind in "iub" and x.array.size <= MOST:
        return x.array.astype(object)
    return None


def ints(x, what: str) -> list:
    """A known vector (or number) as a list of ints and sizes.

    Raises:
        OnnxError: it depends on data.
    """
    array = array_of(x)
    if array is None:
        fail(OnnxError, "onnx.load", f"{what} depends on data, which a Program cannot express")
    return list(array.reshape(-1))


_greater = np.frompyfunc(dims.maximum, 2, 1)


def _lesser(a, b):
    return -_greater(-a, -b) if isinstance(a, Dim) or isinstance(b, Dim) else min(a, b)


def _slice(x, starts, ends, axes=None, steps=None):
    place = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(map(int, starts), map(int, ends))):
        step = 1 if steps is None else int(steps[i])
        d = i if axes is None else int(axes[i])
        backwards = step < 0 and end < -x.shape[d]
        place[d] = slice(start, None if backwards else end, step)
    return x[tuple(place)]


def _range(start, limit, delta):
    if any(isinstance(v.item(), Dim) for v in (start, limit, delta)):
        return None
    made = range(int(start), int(limit), int(delta))
    return objects(list(made)) if len(made) <= MOST else None


def _asked(question):
    return np.frompyfunc(question, 2, 1)


FOLDS = {
    "Identity": lambda x: x,
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a // b,
    "Mod": lambda a, b, fmod=0: a % b,
    "Neg": lambda x: -x,
    "Max": lambda *xs: xs[0] if len(xs) == 1 else _greater(*xs),
    "Min": lambda *xs: xs[0] if len(xs) == 1 else np.frompyfunc(_lesser, 2, 1)(*xs),
    "Concat": lambda *xs, axis: np.concatenate(xs),
    "Gather": lambda x, i, axis=0: x[i.astype(int)] if i.ndim else x[int(i)],
    "Transpose": lambda x, perm=None: x.transpose(perm),
    "Unsqueeze": lambda x, axes: x.reshape(-1) if x.ndim == 0 else None,
    "Squeeze": lambda x, axes=None: x.reshape(()) if x.size == 1 else None,
    "Reshape": lambda x, s, allowzero=0: x.reshape([int(n) for n in s]),
    "Slice": _slice,
    "Cast": lambda x, to: x if to == 7 else None,
    "ReduceProd": lambda x, axes=None, keepdims=1, noop_with_empty_axes=0: objects(
        [dims.product(x)]
    ).reshape((1,) if keepdims else ()),
    "Range": _range,
    "Equal": lambda a, b: _asked(lambda m, n: bool(m == n))(a, b),
    "Where": lambda c, a, b: np.where(c.astype(bool), a, b),
}


def fold(kind: str, inputs, attributes) -> Sizes | None:
    """The known result of an operator, or None where it has to be computed at run time."""
    given = [x for x in inputs if x is not None]
    if kind not in FOLDS or not given or not all(map(_is_size, given)):
        return None
    arrays = [None if x is None else array_of(x) for x in inputs]
    if any(a is None and x is not None for a, x in zip(arrays, inputs)):
        return None
    result = FOLDS[kind](*arrays, **attributes)
    if result is None:
        return None
    array = np.asarray(result, object)
    dtype = D.bool_ if kind == "Equal" else D.int64
    return Sizes(array, dtype) if array.ndim <= 2 else None


def _is_size(x) -> bool:
    """Whether sizes may be computed from it: other dtypes wrap around, or are data."""
    return isinstance(x, (Sizes, Constant)) and x.dtype in (D.int64, D.bool_)
