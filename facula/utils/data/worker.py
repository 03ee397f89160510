"""What runs in a worker process: a loop that fetches the batches it is told to."""

from __future__ import annotations

import os
import pickle
import queue
import random
import sys
import threading
import traceback
import weakref
from dataclasses import dataclass
from typing import Any

from facula.runtime.threads import set_num_threads
from facula.tensor import manual_seed
from facula.utils.data.fetch import EndOfData, make_fetcher
from facula.utils.data.transport import Sender
from facula.utils.data.worker_info import WorkerInfo, set_worker_info

#: Ends of connections that belong to this process's loaders. A forked worker inherits and closes
#: them: else the parent's end of a connection would stay open after the parent is gone.
PARENT_ENDS: weakref.WeakSet = weakref.WeakSet()

# Kinds of messages. To the worker:
EPOCH, TASK = "epoch", "task"
# To the parent:
DATA, ERROR, END = "data", "error", "end"


@dataclass
class Setup:
    """All that a worker needs to know; crosses the process boundary under spawn."""

    dataset: Any
    batched: bool
    collate_fn: Any
    drop_last: bool
    worker_init_fn: Any
    base_seed: int
    num_workers: int

    def fetcher(self):
        return make_fetcher(self.dataset, self.batched, self.collate_fn, self.drop_last)


@dataclass(frozen=True)
class RemoteError:
    """An exception of a worker's on its way to the parent."""

    kind: bytes
    text: str

    @staticmethod
    def current(where: str) -> RemoteError:
        """The exception that is being handled."""
        error = sys.exc_info()[1]
        try:
            kind = pickle.dumps(type(error))
        except Exception:  # a class within a function has no name to send
            kind = pickle.dumps(RuntimeError)
        text = "".join(traceback.format_exception(error))
        return RemoteError(kind, f"Caught {type(error).__name__} in {where}.\nOriginal {text}")

    def exception(self) -> Exception:
        """An exception of the same class, if it takes one text, with the worker's traceback."""
        try:
            kind = pickle.loads(self.kind)
            # StopIteration would end the loop as if all were well.
            if issubclass(kind, Exception) and not issubclass(kind, StopIteration):
                text = _Verbatim(self.text) if issubclass(kind, KeyError) else self.text
                return kind(text)
        except Exception:  # a constructor of the user's may want anything
            pass
        return RuntimeError(self.text)


class _Verbatim(str):
    """Text that KeyError, which shows its argument's repr, shows as it is."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def _seed(seed: int) -> None:
    random.seed(seed)
    manual_seed(seed)
    if "numpy" in sys.modules:
        import numpy

        # NumPy takes words of 32 bits; this is its own way to spread a seed over them.
        numpy.random.seed(numpy.random.SeedSequence(seed).generate_state(4))


def _listen(connection, tasks: queue.SimpleQueue, sender: Sender, stopping: threading.Event):
    """Take in messages as they come, so that neither side ever waits for the other to read."""
    try:
        while True:
            released, *message = connection.recv()
            sender.release(released)
            tasks.put(message)
    except (EOFError, OSError):
        # The parent closed the connection, or is gone.
        stopping.set()
        tasks.put(None)


def run(setup: Setup, worker_id: int, connection) -> None:
    """The life of a worker: until the parent closes the connection."""
    for end in list(PARENT_ENDS):
        end.close()
    try:
        set_num_threads(1)
        seed = setup.base_seed + worker_id
        _seed(seed)
        set_worker_info(WorkerInfo(worker_id, setup.num_workers, seed, setup.dataset))
        _Loop(setup, worker_id, connection).run()
    except (KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        # The parent has been interrupted too, or has gone: there is nobody to tell.
        pass


class _Loop:
    def __init__(self, setup: Setup, worker_id: int, connection):
        self._setup = setup
        self._where = f"DataLoader worker process {worker_id} (pid {os.getpid()})"
        self._id = worker_id
        self._sender = Sender(connection)
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._stopping = threading.Event()
        threading.Thread(
            target=_listen,
            args=(connection, self._tasks, self._sender, self._stopping),
            name="facula-data-listener",
            daemon=True,
        ).start()

    def run(self) -> None:
        failure = self._attempt(self._initialise)
        fetcher, ended = None, False
        while (message := self._tasks.get()) is not None and not self._stopping.is_set():
            kind, epoch, *rest = message
            if kind == EPOCH:
                # Every epoch iterates an iterable dataset anew.
                ended, fetcher = False, None
                continue
            index, indices = rest
            if ended:
                continue
            if failure is None and fetcher is None:
                fetcher = self._attempt(self._setup.fetcher)
            problem = failure or (fetcher if isinstance(fetcher, RemoteError) else None)
            if problem is not None:
                self._sender.send((ERROR, epoch, index), problem)
                continue
            ended = self._answer(fetcher, epoch, index, indices)

    def _initialise(self) -> None:
        if self._setup.worker_init_fn is not None:
            self._setup.worker_init_fn(self._id)

    def _attempt(self, function):
        """What the function returns, or its exception as a RemoteError."""
        try:
            return function()
        except Exception:
            return RemoteError.current(self._where)

    def _answer(self, fetcher, epoch: int, index: int, indices) -> bool:
        """Fetch and send one batch; whether the dataset is at its end."""
        try:
            data = fetcher.fetch(indices)
        except EndOfData:
            self._sender.send((END, epoch, index), None)
            return True
        except Exception:
            self._sender.send((ERROR, epoch, index), RemoteError.current(self._where))
            return False
        try:
            self._sender.send((DATA, epoch, index), data)
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            # It does not pickle, or there is no memory for it.
            self._sender.send((ERROR, epoch, index), RemoteError.current(self._where))
        return False
