"""Datasets: where samples come from, by index (map-style) or one after another (iterable)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Generic, TypeVar

from facula.base.errors import ArgumentError, ArgumentTypeError, ShapeError, UnsupportedError, fail
from facula.tensor import randperm, tensor

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """Samples by index: subclasses define ``__getitem__``, and ``__len__`` for most samplers.

    A dataset that can fetch a whole batch at once defines ``__getitems__(indices)``, which returns
    the list of samples.
    """

    def __getitem__(self, index) -> T:
        raise UnsupportedError(f"{type(self).__name__}.__getitem__ is not defined")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T]):
    """Samples one after another: subclasses define ``__iter__``.

    Every worker of a :class:`DataLoader` iterates over its own copy. To share the work, look at
    :func:`get_worker_info` in ``__iter__`` and yield a part.
    """

    def __iter__(self):
        raise UnsupportedError(f"{type(self).__name__}.__iter__ is not defined")

    def __add__(self, other):
        return ChainDataset([self, other])


class TensorDataset(Dataset):
    """Tuples of the rows of tensors that have the same first dimension.

    >>> from facula import arange
    >>> from facula.utils.data import TensorDataset
    >>> data = TensorDataset(arange(4), arange(4) * 10)
    >>> [int(value) for value in data[3]]
    [3, 30]
    """

    def __init__(self, *tensors):
        if not tensors or any(t.ndim == 0 for t in tensors):
            fail(ArgumentError, "TensorDataset", "expected tensors of at least one dimension")
        sizes = [t.shape[0] for t in tensors]
        if len(set(sizes)) > 1:
            fail(ShapeError, "TensorDataset", f"first dimensions differ: {sizes}")
        self.tensors = tensors

    def __getitem__(self, index):
        return tuple(t[index] for t in self.tensors)

    def __len__(self):
        return self.tensors[0].shape[0]


class StackDataset(Dataset):
    """Samples of several datasets side by side: a tuple, or a dict where given by keyword.

    >>> from facula.utils.data import StackDataset
    >>> StackDataset(image=["a", "b"], label=[0, 1])[1]
    {'image': 'b', 'label': 1}
    """

    def __init__(self, *args, **kwargs):
        if bool(args) == bool(kwargs):
            fail(
                ArgumentError,
                "StackDataset",
                "expected datasets either in order or by keyword, and at least one",
            )
        self.datasets = kwargs or args
        lengths = [len(dataset) for dataset in (kwargs.values() if kwargs else args)]
        if len(set(lengths)) > 1:
            fail(ShapeError, "StackDataset", f"the datasets' lengths differ: {lengths}")
        self._length = lengths[0]

    def __getitem__(self, index):
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __getitems__(self, indices: list):
        if isinstance(self.datasets, dict):
            columns = [fetch_samples(dataset, indices) for dataset in self.datasets.values()]
            return [dict(zip(self.datasets, row)) for row in zip(*columns)]
        return list(zip(*(fetch_samples(dataset, indices) for dataset in self.datasets)))

    def __len__(self):
        return self._length


def fetch_samples(dataset, indices: list) -> list:
    """The samples at several indices, at once where the dataset can."""
    fetch = getattr(dataset, "__getitems__", None)
    if not callable(fetch):
        return [dataset[index] for index in indices]
    samples = fetch(indices)
    if len(samples) != len(indices):
        fail(
            ShapeError,
            f"{type(dataset).__name__}.__getitems__",
            f"expected {len(indices)} samples, got {len(samples)}",
        )
    return samples


def batch_maker(dataset):
    """A function from a list of ints to what ``default_collate`` makes of the samples there, for
    datasets that need not take the samples apart; None for all others."""
    if hasattr(dataset, "__getitems__") and type(dataset) is not Subset:
        return None
    if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is _ROW:
        return lambda indices: [t[tensor(indices)] for t in dataset.tensors]
    if type(dataset) is Subset:
        make, chosen = batch_maker(dataset.dataset), dataset.indices
        return make and (lambda indices: make([chosen[i] for i in indices]))
    return None


_ROW = TensorDataset.__getitem__


class ConcatDataset(Dataset[T]):
    """Datasets one behind the other."""

    def __init__(self, datasets):
        self.datasets = list(datasets)
        if not self.datasets:
            fail(ArgumentError, "ConcatDataset", "expected at least one dataset")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            fail(
                ArgumentTypeError,
                "ConcatDataset",
                "an IterableDataset has no indices",
                "use ChainDataset",
            )
        self.cumulative_sizes: list[int] = []
        total = 0
        for dataset in self.datasets:
            total += len(dataset)
            self.cumulative_sizes.append(total)

    def __len__(self):
        return self.cumulative_sizes[-1]

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            # The exception that ends Python's iteration over a sequence.
            raise IndexError(f"ConcatDataset: index {index} is out of range for {len(self)}")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        start = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - start]


class ChainDataset(IterableDataset):
    """Iterable datasets one after the other."""

    def __init__(self, datasets):
        self.datasets = datasets

    def __iter__(self):
        for dataset in self.datasets:
            _check_iterable(dataset)
            yield from dataset

    def __len__(self):
        total = 0
        for dataset in self.datasets:
            _check_iterable(dataset)
            total += len(dataset)
        return total


def _check_iterable(dataset) -> None:
    if not isinstance(dataset, IterableDataset):
        kind = type(dataset).__name__
        fail(ArgumentTypeError, "ChainDataset", f"expected an IterableDataset, got {kind}")


class Subset(Dataset[T]):
    """The samples of a dataset at the given indices."""

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]):
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index):
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list):
        return fetch_samples(self.dataset, [self.indices[i] for i in indices])

    def __len__(self):
        return len(self.indices)


def random_split(dataset, lengths: Sequence[int | float], generator=None) -> list[Subset]:
    """Split a dataset at random into parts without common samples.

    Args:
        dataset: of known length.
        lengths: the parts' sizes, which sum to the dataset's; or fractions, which sum to 1 (what
            rounding down leaves over is dealt out from the first part on).
        generator: the source of randomness; the default one where left out.

    >>> from facula.utils.data import random_split
    >>> [len(part) for part in random_split(range(10), [0.7, 0.3])]
    [7, 3]
    """
    lengths, total = list(lengths), len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9 and total != 1:
        if any(not 0 <= fraction <= 1 for fraction in lengths):
            fail(ArgumentError, "random_split", f"fractions must be in [0, 1], got {lengths}")
        lengths = [math.floor(total * fraction) for fraction in lengths]
        for left_over in range(total - sum(lengths)):
            lengths[left_over % len(lengths)] += 1
    if sum(lengths) != total or any(n < 0 for n in lengths):
        fail(
            ArgumentError,
            "random_split",
            f"lengths {lengths} do not sum to the dataset's {total}",
        )
    order = randperm(total, generator=generator).tolist()
    parts, at = [], 0
    for n in lengths:
        parts.append(Subset(dataset, order[at : at + int(n)]))
        at += int(n)
    return parts
