"""The parent's side of worker processes: give out work, take in batches, notice deaths."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
import warnings
import weakref
from multiprocessing import connection as mp_connection

from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.utils.data import worker as protocol
from facula.utils.data.sampler import random_seed
from facula.utils.data.transport import Receiver

#: How long a worker may take to end its batch when the loop over the loader ends.
_PATIENCE = 5.0


def context(choice):
    """The multiprocessing context: a given one or its name, the program's, or fork on Linux.

    Raises:
        ArgumentError: no such start method here.
        ArgumentTypeError: neither a name nor a context.
    """
    if isinstance(choice, multiprocessing.context.BaseContext):
        return choice
    if choice is None:
        choice = multiprocessing.get_start_method(allow_none=True)
        if choice is None and sys.platform == "linux":
            choice = "fork"
    elif not isinstance(choice, str):
        fail(
            ArgumentTypeError,
            "DataLoader",
            f"multiprocessing_context must be a context or its name, got {choice!r}",
        )
    elif choice not in multiprocessing.get_all_start_methods():
        known = multiprocessing.get_all_start_methods()
        fail(
            ArgumentError,
            "DataLoader",
            f"multiprocessing_context must be one of {known}, got {choice!r}",
        )
    return multiprocessing.get_context(choice)


class _Worker:
    """One worker process as its parent sees it."""

    def __init__(self, ctx, setup: protocol.Setup, number: int):
        self.number = number
        self.connection, theirs = ctx.Pipe(duplex=True)
        protocol.PARENT_ENDS.add(self.connection)
        self.receiver = Receiver(self.connection)
        self.process = ctx.Process(target=protocol.run, args=(setup, number, theirs), daemon=True)
        try:
            with warnings.catch_warnings():
                # Of the threads here, ours are made for a fork, and a worker touches no others.
                warnings.filterwarnings("ignore", ".*multi-threaded, use of fork")
                self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.pid = self.process.pid
        self.active = True
        self.tasks = 0

    def send(self, *message) -> None:
        """Raises BrokenPipeError or ConnectionResetError if the worker is gone."""
        self.connection.send((self.receiver.take_released(), *message))

    def death(self) -> RuntimeError:
        """Why this worker, which is gone, is gone."""
        self.process.join(_PATIENCE)
        code = self.process.exitcode
        if code is None:
            how = "closed its connection"
        elif code < 0:
            name = signal.Signals(-code).name if -code in list(signal.Signals) else "unknown"
            how = f"was killed by signal {-code} ({name})"
        else:
            how = f"exited with code {code}"
        hint = "the system may have run out of memory" if code == -9 else "run with num_workers=0"
        return RuntimeError(
            f"DataLoader: worker {self.number} (pid {self.pid}) {how} before its work was done; "
            f"hint: {hint}"
        )


def _shut_down(workers: list[_Worker], owner: int) -> None:
    """End all workers; the reaction to a closed connection is to end after the batch at hand."""
    if os.getpid() != owner:
        # A forked child has a copy of the parent's loader, but not the parent's children.
        return
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _PATIENCE
    for end in ("join", "terminate", "kill"):
        for worker in workers:
            if end != "join" and worker.process.is_alive():
                getattr(worker.process, end)()
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
        deadline = time.monotonic() + 1.0
    while workers:
        process = workers.pop().process
        if not process.is_alive():
            process.close()


class WorkerPool:
    """An iterator over the batches that worker processes fetch.

    Args:
        loader: the DataLoader.

    Batch ``i`` goes to the workers in turn and is returned as the ``i``-th, whoever is ready
    first; so the order depends on the sampler alone. With ``in_order=False`` batches are returned
    as they come.
    """

    def __init__(self, loader):
        self._loader = loader
        self._timeout, self._in_order = loader.timeout, loader.in_order
        self._workers: list[_Worker] = []
        # Ends the workers when the iterator is dropped, or at the interpreter's end.
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, os.getpid())
        ctx = context(loader.multiprocessing_context)
        self._epoch = 0
        base_seed = random_seed(loader.generator)
        setup = protocol.Setup(
            dataset=loader.dataset,
            batched=loader.batched,
            collate_fn=loader.collate_fn,
            drop_last=loader.drop_last,
            worker_init_fn=loader.worker_init_fn,
            base_seed=base_seed,
            num_workers=loader.num_workers,
        )
        for number in range(loader.num_workers):
            self._workers.append(_Worker(ctx, setup, number))
        self._begin()

    def reset(self) -> None:
        """Begin another epoch with the same workers; what is still under way is left unread."""
        random_seed(self._loader.generator)  # as a new pool would: the epochs' orders stay alike
        self._begin()

    def _begin(self) -> None:
        self._epoch += 1
        self._indices = iter(self._loader.index_sampler)
        self._sent = self._next = 0
        self._pending: dict[int, _Worker] = {}
        self._arrived: dict[int, tuple] = {}
        self._turns = itertools.cycle(self._workers)
        for worker in self._workers:
            worker.active, worker.tasks = True, 0
            self._send(worker, protocol.EPOCH, self._epoch)
        for _ in range(self._loader.prefetch_factor * len(self._workers)):
            self._request()

    def __iter__(self):
        return self

    def __next__(self):
        if self.closed:
            raise StopIteration
        while True:
            while self._next < self._sent and not (
                self._next in self._pending or self._next in self._arrived
            ):
                self._next += 1
            index = self._next if self._in_order else next(iter(self._arrived), None)
            if index in self._arrived:
                return self._deliver(index)
            if not self._pending:
                self._finish()
                raise StopIteration
            try:
                self._receive()
            except BaseException:
                # Also when interrupted: the workers were, too.
                self.close()
                raise

    def _finish(self) -> None:
        if not self._loader.persistent_workers:
            self.close()

    def close(self) -> None:
        """End the workers."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def _deliver(self, index: int):
        kind, value = self._arrived.pop(index)
        self._request()
        if kind == protocol.ERROR:
            raise value.exception()
        return value

    # -- giving out -------------------------------------------------------------------------------

    def _next_worker(self) -> _Worker | None:
        """Whose turn it is; out of order, the one with least to do."""
        if not self._in_order:
            active = [worker for worker in self._workers if worker.active]
            return min(active, key=lambda worker: worker.tasks, default=None)
        turns = itertools.islice(self._turns, len(self._workers))
        return next((worker for worker in turns if worker.active), None)

    def _request(self) -> None:
        """Have one more batch fetched, if there is one."""
        worker = self._next_worker()
        if worker is None:
            return
        try:
            indices = next(self._indices)
        except StopIteration:
            return
        self._pending[self._sent] = worker
        worker.tasks += 1
        self._send(worker, protocol.TASK, self._epoch, self._sent, indices)
        self._sent += 1

    def _send(self, worker: _Worker, *message) -> None:
        try:
            worker.send(*message)
        except (BrokenPipeError, ConnectionResetError) as error:
            death = worker.death()
            self.close()
            raise death from error

    # -- taking in --------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Wait until at least one worker has answered, and take in all answers that are there.

        Raises:
            RuntimeError: a worker is gone, or nothing came for ``timeout`` seconds.
        """
        sources = {}
        for worker in self._workers:
            sources[worker.connection] = sources[worker.process.sentinel] = worker
        ready = mp_connection.wait(list(sources), self._timeout or None)
        if not ready:
            numbers = sorted({worker.number for worker in self._pending.values()})
            raise RuntimeError(
                f"DataLoader: timed out after {self._timeout} seconds waiting for workers "
                f"{numbers}; hint: a larger timeout, or look at what the dataset waits for"
            )
        for worker in {id(w): w for w in map(sources.get, ready)}.values():
            self._take_in(worker)

    def _take_in(self, worker: _Worker) -> None:
        try:
            # What a worker sent before it went counts, until the end of the stream.
            if not worker.connection.poll():
                raise EOFError("the process is gone")
            (kind, epoch, index), value = worker.receiver.receive()
        except (EOFError, OSError) as error:
            raise worker.death() from error
        if epoch != self._epoch:
            return  # left over from an epoch that was not read to its end
        del self._pending[index]
        worker.tasks -= 1
        if kind != protocol.END:
            self._arrived[index] = (kind, value)
            return
        worker.active = False
        # What else it was asked for, it has not got; the others go on.
        for other in [i for i, w in self._pending.items() if w is worker]:
            del self._pending[other]
        self._request()
