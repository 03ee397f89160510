"""DataLoader: a dataset in batches, fetched here or in worker processes."""

from __future__ import annotations

import itertools
import math
from typing import Any, Generic, TypeVar

from facula.base.errors import ArgumentError, fail
from facula.utils.data.collate import default_collate, default_convert
from facula.utils.data.dataset import IterableDataset
from facula.utils.data.fetch import EndOfData, make_fetcher
from facula.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    random_seed,
)

T = TypeVar("T", covariant=True)


class _Endless(Sampler):
    """For iterable datasets, which are asked for the next sample and not for any index."""

    def __iter__(self):
        return itertools.repeat(None)


def _refuse(what: str, hint: str | None = None):
    fail(ArgumentError, "DataLoader", what, hint)


class DataLoader(Generic[T]):
    """An iterable over the batches of a dataset.

    Args:
        dataset: map-style (``__getitem__``, ``__len__``) or an :class:`IterableDataset`.
        batch_size: samples a batch; None for single samples as the dataset gives them.
        shuffle: a new random order each epoch.
        sampler: the order instead: an iterable of indices.
        batch_sampler: the order in batches instead: an iterable of lists of indices.
        num_workers: processes that fetch batches; 0 fetches them here. The batches and their order
            are the same for any number.
        collate_fn: makes a batch of a list of samples; :func:`default_collate` where left out.
        pin_memory: accepted; memory of the CPU needs no pinning.
        drop_last: leave out a last batch that is not full.
        timeout: seconds after which a batch that no worker delivers is an error; 0 for never.
        worker_init_fn: called in each worker with its number, before it fetches.
        multiprocessing_context: a context of :mod:`multiprocessing` or its name. Without one, the
            program's if it has set one, else ``"fork"`` on Linux.
        generator: the source of the order and of the workers' seeds; the default generator where
            left out.
        prefetch_factor: batches that each worker works ahead; 2 where left out.
        persistent_workers: keep the workers from one epoch to the next.
        pin_memory_device: accepted.
        in_order: False to get batches as they are ready, in any order.

    Worker ``i`` seeds ``random``, NumPy (if imported) and Facula with a seed drawn for the epoch
    plus ``i``. Arrays and tensors come from the workers in shared memory.

    Raises (while iterating):
        an exception of the dataset's own class, with the worker's traceback in its text; or
        RuntimeError: a worker is gone (named with its pid and how it ended), or ``timeout``.

    >>> from facula.utils.data import DataLoader
    >>> [batch.tolist() for batch in DataLoader(range(5), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        dataset,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler=None,
        batch_sampler=None,
        num_workers: int = 0,
        collate_fn=None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn=None,
        multiprocessing_context=None,
        generator=None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ):
        self.dataset = dataset
        self.collate_fn, self.worker_init_fn = collate_fn, worker_init_fn
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self.generator, self.in_order = generator, in_order
        self._set_workers(
            num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context
        )
        self._set_sampling(batch_size, shuffle, sampler, batch_sampler, drop_last)
        if collate_fn is None:
            self.collate_fn = default_collate if self.batched else default_convert
        self._pool: Any = None
        self._initialised = True

    def _set_workers(self, num_workers, timeout, prefetch_factor, persistent, context) -> None:
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            _refuse(f"num_workers must be an int from 0 up, got {num_workers!r}")
        if timeout < 0:
            _refuse(f"timeout must not be negative, got {timeout!r}")
        if num_workers == 0:
            given = {"prefetch_factor": prefetch_factor, "persistent_workers": persistent or None}
            for name, value in given.items():
                if value is not None:
                    _refuse(f"{name} needs workers", "pass num_workers= as well")
        elif prefetch_factor is None:
            prefetch_factor = 2
        elif not isinstance(prefetch_factor, int) or prefetch_factor < 1:
            _refuse(f"prefetch_factor must be a positive int, got {prefetch_factor!r}")
        self.num_workers, self.timeout = num_workers, timeout
        self.prefetch_factor, self.persistent_workers = prefetch_factor, persistent
        self.multiprocessing_context = context

    def _set_sampling(self, batch_size, shuffle, sampler, batch_sampler, drop_last) -> None:
        iterable = isinstance(self.dataset, IterableDataset)
        if iterable:
            for name, value in {"sampler": sampler, "batch_sampler": batch_sampler}.items():
                if value is not None:
                    _refuse(f"{name} has no meaning for an IterableDataset, which has no indices")
            if shuffle:
                _refuse("an IterableDataset cannot be shuffled", "shuffle within the dataset")
        if sampler is not None and shuffle:
            _refuse("sampler and shuffle exclude each other")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                _refuse("batch_sampler excludes batch_size, shuffle, sampler and drop_last")
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            _refuse("drop_last needs a batch_size")
        if sampler is None:
            if iterable:
                sampler = _Endless()
            elif shuffle:
                sampler = RandomSampler(self.dataset, generator=self.generator)
            else:
                sampler = SequentialSampler(self.dataset)
        if batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size, self.drop_last = batch_size, drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler

    def __setattr__(self, name, value):
        fixed = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset")
        if name in (*fixed, "persistent_workers") and getattr(self, "_initialised", False):
            fail(ArgumentError, "DataLoader", f"{name} cannot be changed once the loader is made")
        if name == "multiprocessing_context" and value is not None:
            if not self.num_workers:
                _refuse("multiprocessing_context needs workers", "pass num_workers= as well")
            from facula.utils.data.pool import context

            value = context(value)
        super().__setattr__(name, value)

    @property
    def batched(self) -> bool:
        """Whether samples are collated to batches here."""
        return self.batch_sampler is not None

    @property
    def index_sampler(self):
        """What gives the indices: in batches if there are batches."""
        return self.batch_sampler if self.batched else self.sampler

    def __iter__(self):
        if not self.num_workers:
            return _Local(self)
        from facula.utils.data.pool import WorkerPool

        if not self.persistent_workers:
            return WorkerPool(self)
        if self._pool is None or self._pool.closed:
            self._pool = WorkerPool(self)
        else:
            self._pool.reset()
        return self._pool

    def __len__(self) -> int:
        """Number of batches; for an IterableDataset what its ``__len__`` promises."""
        if not isinstance(self.dataset, IterableDataset):
            return len(self.index_sampler)
        length = len(self.dataset)
        if self.batch_size is None:
            return length
        exact = length / self.batch_size
        return math.floor(exact) if self.drop_last else math.ceil(exact)


class _Local:
    """An iterator over batches that are fetched in this process."""

    def __init__(self, loader: DataLoader):
        # Drawn also where no worker needs it, so that the order does not depend on the workers.
        random_seed(loader.generator)
        self._indices = iter(loader.index_sampler)
        self._fetcher = make_fetcher(
            loader.dataset, loader.batched, loader.collate_fn, loader.drop_last
        )

    def __iter__(self):
        return self

    def __next__(self):
        indices = next(self._indices)
        try:
            return self._fetcher.fetch(indices)
        except EndOfData:
            raise StopIteration from None
        except StopIteration as error:
            # From the dataset or collate_fn: it would end the loop as if all were well.
            raise RuntimeError("DataLoader: the dataset raised StopIteration") from error
