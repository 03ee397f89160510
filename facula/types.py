"""Names for annotations: PyTorch's ``torch.types``."""

from __future__ import annotations

import os
from typing import Union

from facula.base.device import device
from facula.base.dtypes import dtype as _dtype
from facula.tensor import Size as _size
from facula.tensor import Tensor

Number = Union[int, float, bool]
Device = Union[device, str, int, None]
FileLike = Union[str, "os.PathLike[str]"]
Storage = object

__all__ = ["Device", "FileLike", "Number", "Storage", "Tensor", "_dtype", "_size"]
