"""The bytes of one storage of a file while the file is read."""

from __future__ import annotations

import sys

from facula.runtime.storage import allocate
from facula.serialization.errors import ArchiveError
from facula.tensor.pickling import storage_over, tensor_over


class FileStorage:
    """One storage: all tensors of the file that name it share its memory.

    Attributes:
        dtype: the dtype that the file gives to the storage.
        numel: number of elements of that dtype.
        location: the device tag in the file, such as ``"cpu"`` or ``"cuda:0"``.
    """

    def __init__(self, dtype, numel: int, location: str, memory=None):
        """``memory``: a writable buffer to share; without one, new memory is made."""
        self.dtype, self.numel, self.location = dtype, numel, location
        self._block = allocate(self.nbytes) if memory is None else storage_over(memory)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    def buffer(self) -> memoryview:
        """The storage's bytes, writable."""
        return memoryview(self._block)

    def swap_bytes(self) -> None:
        """Turn elements of the other byte order into this machine's."""
        if self.dtype.itemsize > 1:
            import numpy

            words = numpy.frombuffer(self.buffer(), dtype=f"u{self.dtype.itemsize}")
            words.byteswap(inplace=True)

    def tensor(self, dtype, offset, size, stride, requires_grad):
        """A tensor over this storage.

        Raises:
            ShapeError, ArgumentTypeError, ArgumentError: the layout does not fit.
        """
        return tensor_over("load", self._block, dtype, offset, size, stride, requires_grad)


def is_foreign(byte_order: str) -> bool:
    """Whether a file's byte order, ``"little"`` or ``"big"``, is not this machine's."""
    if byte_order not in ("little", "big"):
        raise ArchiveError(f"load: unknown byte order {byte_order!r}; expected 'little' or 'big'")
    return byte_order != sys.byteorder
