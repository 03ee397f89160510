"""Which thread runs a model, and how many requests may wait for one.

A request's whole work on the CPU, reading its JSON and writing the answer's included, is done in
a worker thread: the event loop only moves bytes. Batching belongs into :meth:`Execution.infer`,
which would hold a request until the batch that it joined is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from facula.serve.errors import ModelFailed, Overloaded, ServeError
from facula.serve.limits import Limits
from facula.serve.model import Model

LOG = logging.getLogger("facula.serve")
T = TypeVar("T")


class Execution:
    """Worker threads and a bounded number of requests under way."""

    def __init__(self, limits: Limits):
        self._limit = limits.pending
        self._pending = 0  # Touched by the event loop's thread alone.
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="facula-serve")

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a worker thread and return what it returns.

        Raises:
            Overloaded: too many are under way.
        """
        if self._pending >= self._limit:
            raise Overloaded(f"{self._pending} requests are under way, no more are taken now")
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._pending -= 1

    def infer(self, model: Model, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Run the model in the calling thread.

        Raises:
            ServeError: what the model itself has to say of its input.
            ModelFailed: anything else that it raised, whose traceback is logged.
        """
        try:
            return model.infer(inputs)
        except ServeError:
            raise
        except Exception as error:
            LOG.exception("model %s version %s failed", model.name, model.version)
            raise ModelFailed(f"model {model.name!r} failed on this input") from error

    def close(self) -> None:
        """Wait for what is running, then end the threads."""
        self._pool.shutdown(wait=True)
