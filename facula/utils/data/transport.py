"""Batches from a worker to its parent: small things through the socket, arrays in shared memory.

Pickle's protocol 5 leaves the memory of arrays and tensors out of the stream; it is copied once,
into a block of shared memory, and the parent's arrays lie on that very block. A block has no name:
it is a file descriptor, sent through the socket, and the kernel frees it with its last user,
however that one ends. Nothing can be left behind in ``/dev/shm``.

A fresh block costs a page fault for every 4 KB on both sides, several times the copy itself. So
when the last array on a block goes, the parent returns the block's number with its next request,
and the worker fills it again.
"""

from __future__ import annotations

import os
import pickle
import weakref
from collections import deque
from multiprocessing import reduction
from typing import NamedTuple

import numpy

from facula.base.errors import OutOfMemoryError
from facula.utils.data.memory import Mapping, map_file, new_file

#: Below this many bytes a copy through the socket is faster than a block is mapped.
INLINE_BYTES = 64 << 10
_ALIGNMENT = 64
#: Blocks that a worker keeps although nobody uses them.
_SPARE = 2


class _Message(NamedTuple):
    """What goes through the socket for one object."""

    header: tuple
    payload: bytes
    #: (begin, end) in the block, or the bytes themselves where there is no block.
    buffers: list
    #: Number of the block, or None; its descriptor follows if it is new.
    block: int | None
    is_new: bool
    #: Blocks that the worker has given up.
    dropped: list[int]


class Sender:
    """The worker's end: sends objects and keeps the blocks.

    Not for use from several threads, but for :meth:`release`.
    """

    def __init__(self, connection):
        self._connection = connection
        self._blocks: dict[int, Mapping] = {}
        self._free: list[int] = []
        self._released: deque[int] = deque()
        self._next = 0

    def release(self, numbers) -> None:
        """Blocks that the parent has done with; callable from any thread."""
        self._released.extend(numbers)

    def send(self, header: tuple, value) -> None:
        """Send an object.

        Raises:
            Exception: what pickling raises; nothing has been sent then.
            OSError: the parent is gone.
            OutOfMemoryError: there is no memory for a block.
        """
        buffers: list[pickle.PickleBuffer] = []
        payload = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        spans, size = [], 0
        for view in views:
            spans.append((size, size + view.nbytes))
            size += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
        if size < INLINE_BYTES:
            # Bytearrays, for the parent's arrays are to be writable.
            self._post(_Message(header, payload, [*map(bytearray, views)], None, False, []))
            return
        number, is_new, dropped, descriptor = self._block(size)
        block = self._blocks[number]
        for (begin, end), view in zip(spans, views):
            if view.nbytes:
                block[begin:end] = numpy.frombuffer(view, dtype=numpy.uint8)
        try:
            self._post(_Message(header, payload, spans, number, is_new, dropped))
            if is_new:
                reduction.send_handle(self._connection, descriptor, None)
        finally:
            if is_new:
                os.close(descriptor)

    def _post(self, message: _Message) -> None:
        self._connection.send_bytes(pickle.dumps(tuple(message), protocol=5))

    def _block(self, size: int):
        """A block of at least ``size`` bytes: (number, is it new, blocks given up, descriptor)."""
        while self._released:
            self._free.append(self._released.popleft())
        fitting = [n for n in self._free if size <= len(self._blocks[n]) <= 2 * size]
        if fitting:
            number = min(fitting, key=lambda n: len(self._blocks[n]))
            self._free.remove(number)
            return number, False, self._drop_spare(), -1
        dropped = self._drop_spare()
        descriptor = new_file(size)
        number, self._next = self._next, self._next + 1
        try:
            self._blocks[number] = map_file(descriptor, size)
        except OutOfMemoryError:
            os.close(descriptor)
            raise
        return number, True, dropped, descriptor

    def _drop_spare(self) -> list[int]:
        dropped = self._free[:-_SPARE]
        del self._free[:-_SPARE]
        for number in dropped:
            del self._blocks[number]
        return dropped


class _Lease(numpy.ndarray):
    """The bytes of a block in use. All arrays on the block hold it, and its end frees the block;
    a class of its own because plain arrays take each other's place as the owner of memory."""


class Receiver:
    """The parent's end: receives the objects of one worker.

    Attributes:
        released: numbers of blocks to return to the worker; arrays' ends append to it.
    """

    def __init__(self, connection):
        self._connection = connection
        self._blocks: dict[int, Mapping] = {}
        self.released: deque[int] = deque()

    def take_released(self) -> list[int]:
        """The blocks to return, which the caller then does."""
        taken = []
        while self.released:
            taken.append(self.released.popleft())
        return taken

    def receive(self):
        """The next message's header and a function that makes its object.

        Raises:
            EOFError, OSError: the worker is gone.
            OutOfMemoryError: the block cannot be mapped.
        """
        message = _Message(*pickle.loads(self._connection.recv_bytes()))
        for number in message.dropped:
            self._blocks.pop(number, None)
        buffers = message.buffers
        if message.block is not None:
            if message.is_new:
                self._blocks[message.block] = self._receive_block()
            lease = self._blocks[message.block].view(_Lease)
            # At the interpreter's end there is nobody left to tell.
            weakref.finalize(lease, self.released.append, message.block).atexit = False
            memory = memoryview(lease)
            buffers = [memory[begin:end] for begin, end in message.buffers]
        return message.header, pickle.loads(message.payload, buffers=buffers)

    def _receive_block(self) -> Mapping:
        try:
            descriptor = reduction.recv_handle(self._connection)
        except RuntimeError as error:
            raise EOFError("the worker ended within a message") from error
        try:
            return map_file(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
