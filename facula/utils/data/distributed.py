"""A sampler that gives each process of a group its own part of the dataset."""

from __future__ import annotations

import os

from facula.base.errors import ArgumentError, fail
from facula.tensor import Generator, randperm
from facula.utils.data.sampler import Sampler


class DistributedSampler(Sampler[int]):
    """The part of a dataset that falls to one of several processes; all parts have one length.

    Args:
        dataset: of the same length in all processes.
        num_replicas: number of processes; ``$WORLD_SIZE`` where left out.
        rank: this process's number; ``$RANK`` where left out.
        shuffle: permute the indices, alike in all processes; see :meth:`set_epoch`.
        seed: of the permutation; the same in all processes.
        drop_last: make the parts equal by leaving indices out instead of repeating some.

    >>> from facula.utils.data import DistributedSampler
    >>> list(DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False))
    [1, 3, 0]
    """

    def __init__(
        self, dataset, num_replicas=None, rank=None, shuffle=True, seed=0, drop_last=False
    ):
        num_replicas = _from_environment("num_replicas", "WORLD_SIZE", num_replicas)
        rank = _from_environment("rank", "RANK", rank)
        if not 0 <= rank < num_replicas:
            fail(
                ArgumentError,
                "DistributedSampler",
                f"rank must be in [0, {num_replicas}), got {rank}",
            )
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        if drop_last:
            self.num_samples = len(dataset) // num_replicas
        else:
            self.num_samples = -(-len(dataset) // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self):
        if self.shuffle:
            generator = Generator()
            generator.manual_seed(self.seed + self.epoch)
            indices = randperm(len(self.dataset), generator=generator).tolist()
        else:
            indices = list(range(len(self.dataset)))
        if indices and len(indices) < self.total_size:
            # From the beginning again, as often as it takes.
            repeats = -(-self.total_size // len(indices))
            indices = indices * repeats
        return iter(indices[self.rank : self.total_size : self.num_replicas])

    def __len__(self):
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose another permutation; call it with the epoch's number before each epoch."""
        self.epoch = epoch


def _from_environment(argument: str, variable: str, value) -> int:
    if value is None:
        value = os.environ.get(variable)
        if value is None or not value.isdigit():
            fail(
                ArgumentError,
                "DistributedSampler",
                f"{argument} is not given and ${variable} is not set",
                f"pass {argument}=",
            )
    return int(value)
