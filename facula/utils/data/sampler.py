"""Samplers: the order in which a map-style dataset is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from facula.base.dtypes import float64, int64
from facula.base.errors import ArgumentError, ArgumentTypeError, UnsupportedError, fail
from facula.tensor import Generator, Tensor, multinomial, randint, randperm, tensor

T = TypeVar("T", covariant=True)

#: Indices drawn at a time where they are drawn with replacement.
_CHUNK = 32


def random_seed(generator=None) -> int:
    """A seed drawn from a generator, the default one where left out."""
    return int(randint(0, 2**63 - 1, (), dtype=int64, generator=generator).item())


def seeded(generator):
    """The generator itself, or a new one that the default generator seeds."""
    if generator is None:
        seed = random_seed()
        generator = Generator()
        generator.manual_seed(seed)
    return generator


def check_count(op: str, name: str, value) -> None:
    """Refuse anything but a positive int."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        fail(ArgumentError, op, f"{name} must be a positive int, got {value!r}")


class Sampler(Generic[T]):
    """An order of indices, or of lists of indices: subclasses define ``__iter__``.

    The samplers here draw what randomness they need when ``iter`` is called on them, not at the
    first ``next``: then the order depends on the seed, not on who asks when.
    """

    def __iter__(self) -> Iterator[T]:
        raise UnsupportedError(f"{type(self).__name__}.__iter__ is not defined")


class SequentialSampler(Sampler[int]):
    """The indices in order."""

    def __init__(self, data_source):
        self.data_source = data_source

    def __iter__(self):
        return iter(range(len(self.data_source)))

    def __len__(self):
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The indices in random order.

    Args:
        data_source: the dataset.
        replacement: draw each index anew, so that some come several times.
        num_samples: how many to draw; the dataset's length where left out.
        generator: the source of randomness; the default one where left out.
    """

    def __init__(self, data_source, replacement=False, num_samples=None, generator=None):
        if not isinstance(replacement, bool):
            what = f"replacement must be a bool, got {replacement!r}"
            fail(ArgumentTypeError, "RandomSampler", what)
        if num_samples is not None:
            check_count("RandomSampler", "num_samples", num_samples)
        self.data_source, self.replacement = data_source, replacement
        self._num_samples, self.generator = num_samples, generator

    @property
    def num_samples(self) -> int:
        # The dataset may grow between epochs.
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self):
        generator, n, wanted = seeded(self.generator), len(self.data_source), self.num_samples
        if self.replacement:
            return self._with_replacement(generator, n, wanted)
        if wanted == n:
            return iter(randperm(n, generator=generator).tolist())
        # More than there are: one permutation after another.
        rounds = -(-wanted // n) if n else 0
        orders = (randperm(n, generator=generator).tolist() for _ in range(rounds))
        return itertools.islice(itertools.chain.from_iterable(orders), wanted)

    @staticmethod
    def _with_replacement(generator, n: int, wanted: int):
        for at in range(0, wanted, _CHUNK):
            yield from randint(0, n, (min(_CHUNK, wanted - at),), generator=generator).tolist()

    def __len__(self):
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator=None):
        self.indices, self.generator = indices, generator

    def __iter__(self):
        order = randperm(len(self.indices), generator=self.generator).tolist()
        return (self.indices[i] for i in order)

    def __len__(self):
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn in proportion to weights.

    Args:
        weights: one a sample, not negative; they need not sum to 1.
        num_samples: how many to draw.
        replacement: whether an index may come again.
        generator: the source of randomness; the default one where left out.
    """

    def __init__(self, weights, num_samples: int, replacement: bool = True, generator=None):
        check_count("WeightedRandomSampler", "num_samples", num_samples)
        if not isinstance(replacement, bool):
            fail(
                ArgumentTypeError,
                "WeightedRandomSampler",
                f"replacement must be a bool, got {replacement!r}",
            )
        if not isinstance(weights, Tensor):
            weights = tensor(list(weights), dtype=float64)
        if weights.ndim != 1:
            fail(
                ArgumentError,
                "WeightedRandomSampler",
                f"expected weights of one dimension, got shape {tuple(weights.shape)}",
            )
        self.weights, self.num_samples = weights, num_samples
        self.replacement, self.generator = replacement, generator

    def __iter__(self):
        drawn = multinomial(
            self.weights, self.num_samples, self.replacement, generator=self.generator
        )
        return iter(drawn.tolist())

    def __len__(self):
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """The indices of another sampler in lists of ``batch_size``.

    >>> from facula.utils.data import BatchSampler
    >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool):
        check_count("BatchSampler", "batch_size", batch_size)
        if not isinstance(drop_last, bool):
            fail(ArgumentTypeError, "BatchSampler", f"drop_last must be a bool, got {drop_last!r}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self):
        # Now, not at the first batch: see Sampler.
        return self._batches(iter(self.sampler))

    def _batches(self, indices):
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self):
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > 0 and not self.drop_last)
