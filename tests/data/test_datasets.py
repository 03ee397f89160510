"""Datasets, samplers and collation: everything that needs no process."""

from __future__ import annotations

from collections import Counter, OrderedDict, namedtuple

import numpy as np
import pytest

from facula.base import dtypes
from facula.tensor import Generator, arange, manual_seed, ones, zeros
from facula.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def seeded(seed):
    generator = Generator()
    generator.manual_seed(seed)
    return generator


# -- datasets -------------------------------------------------------------------------------------


def test_tensor_dataset():
    data = TensorDataset(arange(6).reshape(3, 2), arange(3))
    assert len(data) == 3
    row, label = data[-1]
    assert (row.tolist(), label.item()) == ([4, 5], 2)
    with pytest.raises(RuntimeError, match="first dimensions differ"):
        TensorDataset(zeros(3), zeros(4))
    with pytest.raises(ValueError):
        TensorDataset()


def test_stack_dataset():
    pairs = StackDataset("abc", range(3))
    assert pairs[1] == ("b", 1)
    assert pairs.__getitems__([2, 0]) == [("c", 2), ("a", 0)]
    named = StackDataset(letter="abc", number=range(3))
    assert named[2] == {"letter": "c", "number": 2}
    assert named.__getitems__([1]) == [{"letter": "b", "number": 1}]
    assert len(named) == 3
    with pytest.raises(RuntimeError, match="lengths differ"):
        StackDataset("ab", "abc")
    with pytest.raises(ValueError):
        StackDataset()


def test_concat_and_chain():
    class Letters(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return "ab"[i]

    both = Letters() + Letters()
    assert isinstance(both, ConcatDataset)
    assert [both[i] for i in range(4)] == list("abab")
    assert both[-1] == "b" and list(both) == list("abab")
    with pytest.raises(IndexError):
        both[4]
    with pytest.raises(TypeError, match="ChainDataset"):
        ConcatDataset([Stream(2)])
    chain = Stream(2) + Stream(3)
    assert isinstance(chain, ChainDataset)
    assert list(chain) == [0, 1, 0, 1, 2] and len(chain) == 5
    with pytest.raises(TypeError):
        list(ChainDataset([[1]]))


def test_subset_and_random_split():
    subset = Subset("abcdef", [5, 0, 2])
    assert [subset[i] for i in range(len(subset))] == list("fac")
    assert subset.__getitems__([2, 0]) == ["c", "f"]
    parts = random_split(range(10), [3, 7], generator=seeded(1))
    assert [len(p) for p in parts] == [3, 7]
    assert sorted(x for p in parts for x in p) == list(range(10))
    again = random_split(range(10), [3, 7], generator=seeded(1))
    assert [list(p) for p in parts] == [list(p) for p in again]
    assert [len(p) for p in random_split(range(11), [0.5, 0.25, 0.25])] == [6, 3, 2]
    with pytest.raises(ValueError, match="do not sum"):
        random_split(range(10), [3, 3])


def test_undefined_datasets_say_so():
    with pytest.raises(NotImplementedError):
        Dataset()[0]
    with pytest.raises(NotImplementedError):
        iter(IterableDataset())


# -- samplers -------------------------------------------------------------------------------------


def test_sequential_and_batches():
    sampler = SequentialSampler("abcde")
    assert list(sampler) == [0, 1, 2, 3, 4]
    assert list(BatchSampler(sampler, 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(sampler, 2, True)) == [[0, 1], [2, 3]]
    assert len(BatchSampler(sampler, 2, False)) == 3 and len(BatchSampler(sampler, 2, True)) == 2
    for size in (0, -1, 1.5, True):
        with pytest.raises(ValueError):
            BatchSampler(sampler, size, False)


def test_random_sampler():
    order = list(RandomSampler(range(50), generator=seeded(3)))
    assert sorted(order) == list(range(50)) and order != sorted(order)
    assert order == list(RandomSampler(range(50), generator=seeded(3)))
    manual_seed(7)
    first = list(RandomSampler(range(20)))
    second = list(RandomSampler(range(20)))
    manual_seed(7)
    assert first == list(RandomSampler(range(20))) and first != second
    assert list(RandomSampler(range(0))) == []
    many = list(RandomSampler(range(4), num_samples=10))
    assert len(many) == 10 and set(Counter(many).values()) <= {2, 3}
    drawn = list(RandomSampler(range(4), replacement=True, num_samples=100))
    assert len(drawn) == 100 and set(drawn) <= set(range(4))
    with pytest.raises(ValueError):
        RandomSampler(range(4), num_samples=0)
    with pytest.raises(TypeError):
        RandomSampler(range(4), replacement=1)


def test_the_order_is_drawn_when_iteration_begins():
    manual_seed(5)
    sampler = RandomSampler(range(30))
    expected = list(sampler)
    manual_seed(5)
    order = iter(BatchSampler(sampler, 4, False))
    manual_seed(6)
    assert [i for batch in order for i in batch] == expected


def test_subset_random_and_weighted():
    assert sorted(SubsetRandomSampler([4, 7, 9], generator=seeded(0))) == [4, 7, 9]
    sampler = WeightedRandomSampler([0.0, 1.0, 3.0], 400, generator=seeded(0))
    counts = Counter(sampler)
    assert len(sampler) == 400 and counts[0] == 0 and counts[2] > 2 * counts[1]
    once = list(WeightedRandomSampler([1.0, 1.0, 1.0], 3, replacement=False))
    assert sorted(once) == [0, 1, 2]
    with pytest.raises(ValueError):
        WeightedRandomSampler([1.0], 0)
    with pytest.raises(ValueError):
        WeightedRandomSampler([[1.0]], 1)


def test_distributed_sampler(monkeypatch):
    def parts(**kwargs):
        samplers = [DistributedSampler(range(10), 4, r, **kwargs) for r in range(4)]
        assert len({len(s) for s in samplers}) == 1
        return [list(s) for s in samplers]

    assert parts(shuffle=False) == [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    assert parts(shuffle=False, drop_last=True) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert {i for p in parts() for i in p} == set(range(10))
    sampler = DistributedSampler(range(10), 2, 0)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    assert list(DistributedSampler(range(1), 3, 2, shuffle=False)) == [0]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert list(DistributedSampler(range(4), shuffle=False)) == [1, 3]
    monkeypatch.delenv("RANK")
    with pytest.raises(ValueError, match="RANK"):
        DistributedSampler(range(4))
    with pytest.raises(ValueError, match="rank must be"):
        DistributedSampler(range(4), 2, 2)


# -- collation ------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "x y")


def test_collate_leaves():
    batch = default_collate([zeros(2), ones(2)])
    assert batch.tolist() == [[0, 0], [1, 1]] and batch.dtype is dtypes.float32
    assert default_collate([1.5, 2]).dtype is dtypes.float64
    assert default_collate([1, 2]).dtype is dtypes.int64
    assert default_collate([True, False]).dtype is dtypes.bool_
    arrays = default_collate([np.zeros((2, 3), np.int16), np.ones((2, 3), np.int16)])
    assert tuple(arrays.shape) == (2, 2, 3) and arrays.dtype is dtypes.int16
    assert default_collate([np.float32(1), np.float32(2)]).dtype is dtypes.float32
    assert default_collate(["a", "b"]) == ["a", "b"]
    assert default_collate([b"a"]) == [b"a"]


def test_collate_containers():
    batch = default_collate([{"a": 1, "b": (2.0, "x")}, {"a": 3, "b": (4.0, "y")}])
    assert batch["a"].tolist() == [1, 3]
    assert batch["b"][0].tolist() == [2, 4] and list(batch["b"][1]) == ["x", "y"]
    pair = default_collate([Pair(1, "p"), Pair(2, "q")])
    assert type(pair) is Pair and pair.x.tolist() == [1, 2] and list(pair.y) == ["p", "q"]
    ordered = default_collate([OrderedDict(k=1), OrderedDict(k=2)])
    assert type(ordered) is OrderedDict and ordered["k"].tolist() == [1, 2]
    columns = default_collate([[1, 2], [3, 4]])
    assert [c.tolist() for c in columns] == [[1, 3], [2, 4]]


def test_collate_refuses():
    with pytest.raises(TypeError, match="collate_fn"):
        default_collate([None])
    with pytest.raises(TypeError, match="dtype"):
        default_collate([np.array(["a"])])
    with pytest.raises(RuntimeError, match="sample 1 has"):
        default_collate([zeros(2), zeros(3)])
    with pytest.raises(RuntimeError, match="sample 2 has"):
        default_collate([np.zeros(2), np.zeros(2), np.zeros(3)])
    with pytest.raises(RuntimeError, match="lengths differ"):
        default_collate([(1, 2), (1,)])
    with pytest.raises(RuntimeError, match="at least one"):
        default_collate([])


def test_convert():
    out = default_convert({"a": np.arange(3), "b": [np.float64(2), "s"], "c": (1, None)})
    assert out["a"].tolist() == [0, 1, 2] and out["b"][0].item() == 2.0
    assert out["b"][1] == "s" and out["c"] == [1, None]
    words = np.array(["a"])
    assert default_convert(words) is words
    frozen = np.arange(3)
    frozen.flags.writeable = False
    assert default_convert(frozen).tolist() == [0, 1, 2]
