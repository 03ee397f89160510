"""Random state: counter-based streams (Philox-4x32-10).

A stream is a function: :func:`philox` of a 64-bit seed and a 64-bit counter gives 128 random bits,
whatever came before, so kernels draw in any order and on any number of threads and get the same
numbers. All state a :class:`Generator` has is its seed and the next unused counter; whoever needs
random numbers reserves counters with :meth:`Generator.next` and hands (seed, offset) to a kernel.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import os
import struct
import threading

from facula.base.errors import ArgumentError, ArgumentTypeError, fail

#: The seed of a new Generator, PyTorch's number.
DEFAULT_SEED = 67280421310721
_STATE = struct.Struct("<8sQQ")
_MAGIC = b"philox10"
_MASK32, _MASK64 = (1 << 32) - 1, (1 << 64) - 1


def philox(seed: int, counter: int) -> tuple[int, int, int, int]:
    """The four 32-bit words of a stream at a counter: what kernels compute, in plain Python.

    The key is (low, high) half of the seed; the counter's words are (low, high, 0, 0).

    >>> [hex(word) for word in philox(0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    k0, k1 = seed & _MASK32, seed >> 32 & _MASK32
    c0, c1, c2, c3 = counter & _MASK32, counter >> 32 & _MASK32, 0, 0
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            right >> 32 ^ c1 ^ k0,
            right & _MASK32,
            left >> 32 ^ c3 ^ k1,
            left & _MASK32,
        )
        k0, k1 = k0 + 0x9E3779B9 & _MASK32, k1 + 0xBB67AE85 & _MASK32
    return c0, c1, c2, c3


class Generator:
    """A random stream and the place reached in it. Any thread may use it.

    Attributes:
        jumps: how often it was told where to go on.

    >>> g = Generator(seed=7)
    >>> g.next(100), g.next(4)
    ((7, 0), (7, 100))
    >>> g.manual_seed(7).next(1)
    (7, 0)
    """

    def __init__(self, seed: int = DEFAULT_SEED, offset: int = 0):
        self._lock = threading.Lock()
        self._seed, self._offset = _word("Generator", seed), _word("Generator", offset)
        self.jumps = 0

    def next(self, n: int) -> tuple[int, int]:
        """Reserve ``n`` counters (128 bits each); the seed and the first of them."""
        with self._lock:
            offset = self._offset
            self._offset = offset + n & _MASK64
            return self._seed, offset

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of that seed; negative ones count from 2**64 down, as in PyTorch.

        Raises:
            ArgumentTypeError: no int.
            ArgumentError: not in -2**63 .. 2**64 - 1.
        """
        seed = _word("manual_seed", seed)
        with self._lock:
            self._seed, self._offset = seed, 0
            self.jumps += 1
        return self

    def seed(self) -> int:
        """Start a stream that nobody can foresee; its seed."""
        seed = int.from_bytes(os.urandom(8), "little")
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed of the present stream."""
        return self._seed

    def get_state(self) -> bytes:
        """Seed and place, as 24 bytes for :meth:`set_state`."""
        with self._lock:
            return _STATE.pack(_MAGIC, self._seed, self._offset)

    def set_state(self, state: bytes) -> None:
        """Go on where :meth:`get_state` was called.

        Raises:
            ArgumentError: the bytes are none of its.
        """
        state = bytes(state)
        if len(state) != _STATE.size or not state.startswith(_MAGIC):
            fail(ArgumentError, "set_state", f"{len(state)} bytes are no state of a Generator")
        _, seed, offset = _STATE.unpack(state)
        with self._lock:
            self._seed, self._offset = seed, offset
            self.jumps += 1

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, offset={self._offset})"

    def __reduce__(self):
        return Generator, (self._seed, self._offset)


def _word(op: str, value: int) -> int:
    """A number as 64 bits."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        fail(ArgumentTypeError, op, f"expected an int, got {type(value).__name__}")
    value = value.__index__()
    if not -(1 << 63) <= value < 1 << 64:
        fail(ArgumentError, op, f"expected 64 bits, got {value}")
    return value & _MASK64


#: What random ops draw from unless given a generator of their own; different in every run.
default_generator = Generator()
default_generator.seed()


def _unlock_in_child() -> None:
    # Another thread may have held the lock while the process forked. The state stays.
    default_generator._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)
