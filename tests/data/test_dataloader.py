"""The DataLoader: arguments, orders, workers and how they end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from facula.tensor import Tensor, manual_seed, randint
from facula.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
    get_worker_info,
)

BIG = 64 * 1024  # float32 elements: past the size that goes through the socket


class Numbers(Dataset):
    """Sample i is an array full of i; kinds of trouble happen at the indices given."""

    def __init__(self, n=24, size=4, raises=None, dies=None, sleeps=None):
        self.n, self.size = n, size
        self.raises, self.dies, self.sleeps = raises, dies, sleeps

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i == self.raises:
            raise KeyError(f"sample {i} is broken")
        if i == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if i == self.sleeps:
            time.sleep(60)
        return np.full(self.size, i, dtype=np.float32), i


class Seeds(Dataset):
    """What each worker's generators say first."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        info = get_worker_info()
        drawn = randint(0, 1000, (1,)).item()
        return info.id, info.seed, random.random(), np.random.rand(), drawn


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        start, step = (info.id, info.num_workers) if info else (0, 1)
        return iter(range(start, self.n, step))


def labels(loader):
    return [batch[1].tolist() for batch in loader]


def open_files():
    return len(os.listdir("/proc/self/fd"))


def left_over(files, shared):
    return (
        multiprocessing.active_children(),
        max(0, open_files() - files),
        set(os.listdir("/dev/shm")) - shared,
    )


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No process, descriptor or name in shared memory outlives a test."""
    before = open_files(), set(os.listdir("/dev/shm"))
    yield
    if left_over(*before) != ([], 0, set()):
        gc.collect()  # what pytest's frames or cycles still held
    assert left_over(*before) == ([], 0, set())


# -- without workers ------------------------------------------------------------------------------


def test_batches():
    loader = DataLoader(Numbers(5), batch_size=2)
    assert len(loader) == 3 and labels(loader) == [[0, 1], [2, 3], [4]]
    x, _ = next(iter(loader))
    assert isinstance(x, Tensor) and tuple(x.shape) == (2, 4)
    assert labels(DataLoader(Numbers(5), 2, drop_last=True)) == [[0, 1], [2, 3]]
    assert labels(DataLoader(Numbers(5), batch_sampler=[[4, 0], [2]])) == [[4, 0], [2]]
    single = list(DataLoader(Numbers(3), batch_size=None))
    assert [i for _, i in single] == [0, 1, 2] and isinstance(single[0][0], Tensor)
    order = SubsetRandomSampler([3, 1])
    assert sorted(sum(labels(DataLoader(Numbers(5), 1, sampler=order)), [])) == [1, 3]
    assert list(DataLoader([1, 2, 3], 2, collate_fn=sum)) == [3, 3]


def test_rows_of_tensors_are_gathered_at_once():
    data = TensorDataset(randint(0, 9, (10, 3)), randint(0, 9, (10,)))

    class Doubled(TensorDataset):
        def __getitem__(self, i):
            return tuple(2 * t for t in super().__getitem__(i))

    def collate(batch):
        return default_collate(batch)

    for source in (data, Subset(data, [7, -1, 3, 3, 0]), Doubled(*data.tensors)):
        plain = DataLoader(source, 4, collate_fn=collate)
        for fast, slow in zip(DataLoader(source, 4), plain, strict=True):
            assert [t.tolist() for t in fast] == [t.tolist() for t in slow]
    with pytest.raises(IndexError):
        list(DataLoader(data, sampler=[10]))


def test_shuffle():
    manual_seed(0)
    loader = DataLoader(Numbers(), 4, shuffle=True)
    first, second = labels(loader), labels(loader)
    assert first != second and sorted(sum(first, [])) == list(range(24))
    manual_seed(0)
    assert labels(loader) == first


@pytest.mark.parametrize(
    "kwargs",
    [
        {"batch_size": 0},
        {"num_workers": -1},
        {"timeout": -1},
        {"prefetch_factor": 2},
        {"persistent_workers": True},
        {"multiprocessing_context": "fork"},
        {"num_workers": 1, "prefetch_factor": 0},
        {"num_workers": 1, "multiprocessing_context": "threads"},
        {"shuffle": True, "sampler": [1]},
        {"batch_sampler": [[1]], "batch_size": 2},
        {"batch_sampler": [[1]], "drop_last": True},
        {"batch_size": None, "drop_last": True},
        {"dataset": Stream(3), "shuffle": True},
        {"dataset": Stream(3), "sampler": [1]},
        {"dataset": Stream(3), "batch_sampler": [[1]]},
    ],
    ids="-".join,
)
def test_contradictions_are_refused(kwargs):
    with pytest.raises(ValueError, match=r"(DataLoader|BatchSampler): "):
        DataLoader(**{"dataset": Numbers(), **kwargs})


def test_arguments_stay():
    loader = DataLoader(Numbers(), 4)
    with pytest.raises(ValueError, match="batch_size"):
        loader.batch_size = 8


def test_iterable():
    assert [b.tolist() for b in DataLoader(Stream(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Stream(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(3), batch_size=None)) == [0, 1, 2]


def _stop(batch):
    raise StopIteration


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stray_stop_iteration_is_an_error(workers):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Numbers(), 4, collate_fn=_stop, num_workers=workers))


# -- with workers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, BIG])
def test_the_order_does_not_depend_on_the_workers(size):
    orders = []
    for workers in (0, 1, 3):
        manual_seed(11)
        loader = DataLoader(Numbers(size=size), 4, shuffle=True, num_workers=workers)
        epochs = []
        for _ in range(2):
            for x, i in loader:
                assert x[:, 0].tolist() == x[:, -1].tolist() == i.tolist()
                epochs.append(i.tolist())
        orders.append(epochs)
    assert orders[0] == orders[1] == orders[2]


def test_batches_that_are_kept_are_not_written_over():
    files = open_files()
    kept = list(DataLoader(Numbers(64, BIG), 4, num_workers=2))
    assert open_files() == files  # memory that is kept costs no descriptors
    assert [x[:, -1].tolist() for x, _ in kept] == [i.tolist() for _, i in kept]
    kept[0][0][0] = 7.0  # and they are writable
    assert kept[0][0][0, 0].item() == 7.0


def test_tensors_and_odd_values_pass():
    data = TensorDataset(randint(0, 9, (6, 3)), randint(0, 9, (6, 0)))
    (x, empty), *_ = DataLoader(data, 6, num_workers=1)
    assert x.tolist() == data.tensors[0].tolist() and tuple(empty.shape) == (6, 0)
    loader = DataLoader([{"a": None, "b": "text"}], num_workers=1, collate_fn=lambda b: b)
    assert list(loader) == [[{"a": None, "b": "text"}]]


def test_large_messages_in_both_directions_do_not_block():
    indices = list(range(60_000))
    sampler = [indices] * 6

    def collate(batch):
        return [str(b) for b in batch]

    loader = DataLoader(indices, batch_sampler=sampler, num_workers=1, collate_fn=collate)
    assert sum(len(batch) for batch in loader) == 6 * len(indices)


def test_seeds():
    def seeds():
        manual_seed(3)
        batches = DataLoader(Seeds(), 2, num_workers=2)
        return [[v[0].item() for v in batch] for batch in batches]

    first = seeds()
    assert first == seeds()
    (id0, seed0, *drawn0), (id1, seed1, *drawn1) = first
    assert (id0, id1) == (0, 1) and seed1 == seed0 + 1
    assert not set(drawn0[:2]) & set(drawn1[:2])
    assert get_worker_info() is None


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_iterable_is_shared_by_the_workers(workers):
    batches = [b.tolist() for b in DataLoader(Stream(17), 3, num_workers=workers)]
    assert sorted(sum(batches, [])) == list(range(17))
    again = [b.tolist() for b in DataLoader(Stream(17), 3, num_workers=workers)]
    assert batches == again


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method):
    loader = DataLoader(Numbers(8, BIG), 4, num_workers=1, multiprocessing_context=method)
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    if method == "forkserver":
        # The server itself outlives the loader by design.
        multiprocessing.forkserver._forkserver._stop()
    multiprocessing.resource_tracker._resource_tracker._stop()


def test_persistent_workers():
    loader = DataLoader(Numbers(8), 2, num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    pids = [w.pid for w in iterator._workers]
    next(iterator)  # and leave the rest
    for _ in range(3):
        again = iter(loader)
        assert labels(again) == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert [w.pid for w in again._workers] == pids
    stream = DataLoader(Stream(4), 2, num_workers=1, persistent_workers=True)
    assert [b.tolist() for b in stream] == [b.tolist() for b in stream] == [[0, 1], [2, 3]]


def test_out_of_order():
    loader = DataLoader(Numbers(), 4, num_workers=2, in_order=False)
    assert sorted(labels(loader)) == labels(DataLoader(Numbers(), 4))


def test_many_epochs():
    loader = DataLoader(Numbers(4, BIG), 2, num_workers=1)
    files = open_files()
    for _ in range(25):
        assert labels(loader) == [[0, 1], [2, 3]]
    assert open_files() == files


def test_blocks_of_memory_come_back():
    iterator = iter(DataLoader(Numbers(80, BIG), 2, num_workers=1))
    for _ in iterator:
        blocks = len(iterator._workers[0].receiver._blocks) if iterator._workers else 0
        assert blocks <= 6


# -- trouble --------------------------------------------------------------------------------------


def test_an_exception_names_the_worker_and_the_line():
    iterator = iter(DataLoader(Numbers(raises=5), 4, num_workers=2))
    assert next(iterator)[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(KeyError) as caught:
        next(iterator)
    text = str(caught.value)
    assert "DataLoader worker process 1 (pid " in text
    assert "in __getitem__" in text and "sample 5 is broken" in text
    # The others are not lost.
    assert next(iterator)[1].tolist() == [8, 9, 10, 11]


def _broken_init(worker_id):
    raise OSError("no such disk")


class Awkward(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


def _awkward(batch):
    raise Awkward(1, 2)


def test_exceptions_from_everywhere():
    with pytest.raises(OSError, match="no such disk"):
        list(DataLoader(Numbers(), num_workers=1, worker_init_fn=_broken_init))
    with pytest.raises(RuntimeError, match="Caught Awkward"):
        list(DataLoader(Numbers(), num_workers=1, collate_fn=_awkward))
    with pytest.raises(Exception, match="pickle"):  # the batch cannot be sent
        list(DataLoader(Numbers(), num_workers=1, collate_fn=lambda batch: lambda: batch))

    class Local(Exception):
        pass

    def local(batch):
        raise Local("here")

    with pytest.raises(RuntimeError, match="Caught Local"):
        list(DataLoader(Numbers(), num_workers=1, collate_fn=local))


def test_a_killed_worker_is_named():
    begin = time.monotonic()
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Numbers(dies=9), 4, num_workers=2))
    assert time.monotonic() - begin < 5
    text = str(caught.value)
    assert "worker 0 (pid " in text and "signal 9 (SIGKILL)" in text


def test_a_worker_killed_from_outside_while_idle():
    iterator = iter(DataLoader(Numbers(), 1, num_workers=2))
    os.kill(iterator._workers[1].pid, signal.SIGTERM)
    with pytest.raises(RuntimeError, match=r"worker 1 \(pid \d+\) was killed by signal 15"):
        list(iterator)


def _exit(batch):
    os._exit(3)


def test_a_worker_that_exits():
    with pytest.raises(RuntimeError, match="exited with code 3"):
        list(DataLoader(Numbers(), num_workers=1, collate_fn=_exit))


def test_timeout(monkeypatch):
    monkeypatch.setattr("facula.utils.data.pool._PATIENCE", 0.1)
    with pytest.raises(RuntimeError, match="timed out after 0.3 seconds"):
        list(DataLoader(Numbers(sleeps=0), 4, num_workers=1, timeout=0.3))


@pytest.mark.parametrize("size", [4, BIG])
def test_an_abandoned_loop_leaves_nothing(size):
    for _ in range(3):
        for _ in DataLoader(Numbers(100, size), 2, num_workers=2):
            break
        try:
            for _ in DataLoader(Numbers(100, size), 2, num_workers=2):
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass


_SCRIPT = """
import os, signal, sys, threading, time
from facula.utils.data import DataLoader

class Slow:
    def __len__(self):
        return 1000
    def __getitem__(self, i):
        time.sleep(0.05)
        return i

iterator = iter(DataLoader(Slow(), 4, num_workers=2))
next(iterator)
print(*(w.pid for w in iterator._workers), flush=True)
{ending}
for batch in iterator:
    pass
"""


def _run(ending):
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT.format(ending=ending)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    return process, pids


def _gone(pids, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_ends_everything_with_one_traceback():
    process, pids = _run("")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert _gone(pids)
    assert errors.count("KeyboardInterrupt") == 1 and errors.count("Traceback") == 1
    assert process.returncode in (-signal.SIGINT, 130, 1)


def test_the_interpreter_ends_while_workers_run():
    process, pids = _run("sys.exit(0)")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and errors == "" and _gone(pids)


def test_workers_end_when_the_parent_is_killed():
    process, pids = _run("os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate(timeout=20)
    assert _gone(pids)
