"""From the indices of a batch to the batch."""

from __future__ import annotations

import itertools

from facula.utils.data.collate import default_collate
from facula.utils.data.dataset import IterableDataset, batch_maker, fetch_samples


class EndOfData(Exception):
    """An iterable dataset has no more batches. Not StopIteration, which user code may let slip."""


class MapFetcher:
    """Batches of a map-style dataset."""

    def __init__(self, dataset, batched: bool, collate_fn, drop_last: bool):
        self._dataset, self._batched, self._collate = dataset, batched, collate_fn
        plain = batched and collate_fn is default_collate
        self._make_batch = batch_maker(dataset) if plain else None

    def fetch(self, indices):
        """The batch at a list of indices, or the sample at one where there are no batches."""
        if self._make_batch is not None and indices and all(type(i) is int for i in indices):
            return self._make_batch(indices)
        if self._batched:
            return self._collate(fetch_samples(self._dataset, indices))
        return self._collate(self._dataset[indices])


class IterableFetcher:
    """Batches of an iterable dataset, which knows no indices: their number alone counts."""

    def __init__(self, dataset, batched: bool, collate_fn, drop_last: bool):
        self._iterator = iter(dataset)
        self._batched, self._collate, self._drop_last = batched, collate_fn, drop_last

    def fetch(self, indices):
        """The next batch.

        Raises:
            EndOfData: there is none.
        """
        wanted = len(indices) if self._batched else 1
        samples = list(itertools.islice(self._iterator, wanted))
        if not samples or (self._drop_last and len(samples) < wanted):
            raise EndOfData
        return self._collate(samples if self._batched else samples[0])


def make_fetcher(dataset, batched: bool, collate_fn, drop_last: bool):
    """The fetcher that suits the dataset."""
    kind = IterableFetcher if isinstance(dataset, IterableDataset) else MapFetcher
    return kind(dataset, batched, collate_fn, drop_last)
