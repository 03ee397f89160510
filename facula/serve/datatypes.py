"""The protocol's element types and their NumPy counterparts."""

from __future__ import annotations

import numpy as np

#: Datatype name -> NumPy dtype. BYTES (strings) is not among them: no model here takes it.
NUMPY = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
_NAMES = {dtype: name for name, dtype in NUMPY.items()}


def name_of(dtype: np.typing.DTypeLike) -> str:
    """The protocol's name.

    >>> name_of("float32")
    'FP32'

    Raises:
        TypeError: the protocol has none for it.
    """
    name = _NAMES.get(np.dtype(dtype))
    if name is None:
        raise TypeError(f"serve: no datatype of the protocol stands for {np.dtype(dtype)}")
    return name
