"""What a processor offers, as far as the text written for it depends on that."""

from __future__ import annotations

#: Bytes of a logical vector in loops that reduce: the same on every processor, so that sums have
#: the same bits everywhere. LLVM splits these vectors where registers are shorter.
REDUCTION_BYTES = 64
#: Accumulators of a reducing vector loop.
ACCUMULATORS = 4


class Target:
    """A family of processors and the width of its vectors.

    Args:
        vector_bytes: 16, 32 or 64; the bytes of one vector register.
        arch: ``"x86"``, ``"arm"``, ``"wasm"``, ..., or as LLVM calls it in triples (``x86_64``).
    """

    __slots__ = ("vector_bytes", "arch")

    def __init__(self, vector_bytes: int = 32, arch: str = "x86"):
        if vector_bytes not in (16, 32, 64):
            raise ValueError(f"Target: vector_bytes must be 16, 32 or 64, got {vector_bytes}")
        family = {"x86": "x86", "amd64": "x86", "i686": "x86", "aarch": "arm", "arm": "arm"}
        found = [name for prefix, name in family.items() if arch.startswith(prefix)]
        self.vector_bytes, self.arch = vector_bytes, found[0] if found else arch.rstrip("3264")

    def lanes(self, itemsize: int) -> int:
        """Elements of that size in one vector."""
        return self.vector_bytes // itemsize

    def masks_memory(self, itemsize: int) -> bool:
        """Whether loads and stores of such elements under a mask are single instructions."""
        if self.arch != "x86":
            return False
        return self.vector_bytes == 64 or (self.vector_bytes == 32 and itemsize >= 4)

    def gathers(self, itemsize: int) -> bool:
        """Whether elements of that size are loaded from many addresses by one instruction."""
        return self.arch == "x86" and self.vector_bytes > 16 and itemsize >= 4

    @property
    def converts_half(self) -> bool:
        """Whether there are instructions between float16 and float32."""
        return self.arch == "arm" or self.arch == "x86" and self.vector_bytes > 16

    @property
    def scales(self) -> bool:
        """Whether ``x * 2^n`` is an instruction."""
        return self.arch == "x86" and self.vector_bytes == 64

    @property
    def minimum_propagates(self) -> bool:
        """Whether ``llvm.minimum`` (NaN if either is) is one instruction."""
        return self.arch in ("arm", "wasm")
