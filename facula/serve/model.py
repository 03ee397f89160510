"""What can be served: a name, typed inputs and outputs, and a function over arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facula.serve import datatypes


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: ``shape`` has -1 where any size is taken.

    Raises:
        ValueError: no such datatype, or a size below -1.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self):
        if self.datatype not in datatypes.NUMPY:
            raise ValueError(f"tensor {self.name!r}: unknown datatype {self.datatype!r}")
        if any(size < -1 for size in self.shape):
            raise ValueError(f"tensor {self.name!r}: sizes must be at least -1, got {self.shape}")

    @property
    def dtype(self) -> np.dtype:
        return datatypes.NUMPY[self.datatype]

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether an array of that shape fits."""
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape)
        )

    def metadata(self) -> dict[str, object]:
        """The protocol's description of the tensor."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


class Model(ABC):
    """A model that can be served. :meth:`infer` may be called from several threads at once."""

    name: str
    version: str = "1"
    #: What runs it, as the protocol's metadata says it, such as ``facula_program``.
    platform: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    @abstractmethod
    def infer(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Outputs by name. The inputs are complete and of the specified dtypes and shapes.

        Raises:
            InvalidInput: values that the model cannot take; the client sees the message.
        """

    def close(self) -> None:  # noqa: B027  not every model holds something
        """Let go of what the model holds; it is not called again afterwards."""
