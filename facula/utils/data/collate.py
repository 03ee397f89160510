"""From a list of samples to a batch."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence

from facula.base import dtypes
from facula.base.errors import ArgumentTypeError, ShapeError, fail
from facula.tensor import Tensor, empty, from_numpy, stack, tensor


def _numpy_kind(value) -> str | None:
    """``"array"``, ``"scalar"`` or None, without importing NumPy where no value came from it."""
    if type(value).__module__ != "numpy":
        return None
    import numpy

    if isinstance(value, numpy.ndarray):
        return "array"
    return "scalar" if isinstance(value, numpy.generic) else None


def _check_array(op: str, value) -> None:
    if value.dtype.kind not in "biuf":
        fail(ArgumentTypeError, op, f"no tensor can hold elements of NumPy's dtype {value.dtype}")


def _rebuilt(original, items):
    """A container like ``original`` with other contents; a plain one where it cannot be had."""
    try:
        if isinstance(original, tuple) and hasattr(original, "_fields"):
            return type(original)(*items)
        if isinstance(original, MutableMapping):
            # A copy keeps what the class holds besides its items.
            new = copy.copy(original)
            new.update(items)
            return new
        if isinstance(original, MutableSequence):
            new = copy.copy(original)
            for i, item in enumerate(items):
                new[i] = item
            return new
        return type(original)(items)
    except (TypeError, IndexError):
        return dict(items) if isinstance(original, Mapping) else list(items)


def default_convert(data):
    """NumPy arrays and scalars within ``data`` as tensors; all else as it is."""
    if isinstance(data, (Tensor, str, bytes)):
        return data
    kind = _numpy_kind(data)
    if kind is not None:
        return _from_array(data) if data.dtype.kind in "biuf" else data
    if isinstance(data, Mapping):
        return _rebuilt(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, Sequence):
        if type(data) is tuple:
            return [default_convert(value) for value in data]
        return _rebuilt(data, [default_convert(value) for value in data])
    return data


def _from_array(array):
    import numpy

    # A NumPy scalar becomes an array of no dimension; read-only memory is copied.
    return from_numpy(numpy.require(array, requirements=["C", "W"]))


def default_collate(batch):
    """The samples of a batch side by side, in a new first dimension.

    Tensors, NumPy arrays and numbers become one tensor (Python floats float64, ints int64);
    strings and bytes stay a list; dicts, tuples and lists are collated field by field.

    Raises:
        ArgumentTypeError: a type that cannot be batched.
        ShapeError: samples of different shapes or lengths.

    >>> from facula.utils.data import default_collate
    >>> default_collate([{"x": 1, "name": "a"}, {"x": 2, "name": "b"}])["name"]
    ['a', 'b']
    """
    batch = batch if isinstance(batch, (list, tuple)) else list(batch)
    if not batch:
        fail(ShapeError, "default_collate", "expected at least one sample")
    first = batch[0]
    if isinstance(first, Tensor):
        return _stack_tensors(batch)
    if _numpy_kind(first) is not None:
        return _stack_arrays(batch)
    if isinstance(first, float):
        return tensor(batch, dtype=dtypes.float64)
    if isinstance(first, int):  # bool as well
        return tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _rebuilt(first, {key: default_collate([s[key] for s in batch]) for key in first})
    if isinstance(first, Sequence):
        if len({len(sample) for sample in batch}) != 1:
            lengths = [len(sample) for sample in batch]
            fail(ShapeError, "default_collate", f"the samples' lengths differ: {lengths}")
        columns = [default_collate(column) for column in zip(*batch)]
        # PyTorch gives a list for plain tuples.
        return columns if type(first) is tuple else _rebuilt(first, columns)
    fail(
        ArgumentTypeError,
        "default_collate",
        "a batch must hold tensors, NumPy arrays, numbers, strings, dicts or sequences, "
        f"found {type(first)}",
        "pass collate_fn= to the DataLoader",
    )


def _same_shapes(samples) -> None:
    shape = samples[0].shape
    for i, sample in enumerate(samples):
        if sample.shape != shape:
            fail(
                ShapeError,
                "default_collate",
                f"sample 0 has shape {tuple(shape)}, sample {i} has {tuple(sample.shape)}",
                "pad or crop the samples, or pass collate_fn= to the DataLoader",
            )


def _stack_tensors(batch):
    """Side by side by copying bytes where that is all there is to do: a kernel would be compiled
    anew for each number of inputs, and the last batch of an epoch has another one."""
    _same_shapes(batch)
    first = batch[0]
    for sample in batch:
        alike = sample.dtype is first.dtype and sample.is_contiguous()
        if not alike or sample.requires_grad:
            return stack(list(batch), 0)
    out = empty((len(batch), *first.shape), dtype=first.dtype)
    size, at = first.nbytes, out.data_ptr()
    if size:
        for sample in batch:
            ctypes.memmove(at, sample.data_ptr(), size)
            at += size
    return out


def _stack_arrays(batch):
    import numpy

    _check_array("default_collate", batch[0])
    _same_shapes(batch)
    return from_numpy(numpy.stack(batch))
