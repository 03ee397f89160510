"""Storage: sizes, recycling, counters, failure."""

import gc
import sys
import weakref

import pytest

from facula.base.errors import ArgumentError, ArgumentTypeError, OutOfMemoryError
from facula.runtime import storage


def current(what):
    return storage.memory_stats()[f"{what}.all.current"]


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 1000, 4097, 1 << 20, (4 << 20) + 1])
def test_memory_is_aligned_and_all_there(nbytes):
    block = storage.allocate(nbytes)
    view = memoryview(block)
    assert (block.nbytes, block.ptr % 64, block.version, block.owner) == (nbytes, 0, 0, None)
    assert len(view) == nbytes and not view.readonly
    if nbytes:
        view[0], view[-1] = 1, 2


def test_size_classes_waste_an_eighth_at_most():
    before = 0
    for nbytes in sorted({*range(0, 5000, 7), *(3 * 7**k for k in range(15)), 1 << 30}):
        block = storage.block_bytes(nbytes)
        assert block % 64 == 0 and block >= max(nbytes, before)
        if nbytes > 512:
            assert block <= nbytes * 1.126
        before = block


def test_blocks_come_back():
    first = storage.allocate(3000)
    address = first.ptr
    first.version = 9
    del first
    second = storage.allocate(3001)
    assert (second.ptr, second.version) == (address, 0)


def test_counters():
    storage.empty_cache()
    storage.reset_peak_memory_stats()
    blocks, in_use = current("allocation"), current("allocated_bytes")
    held = [storage.allocate(1000) for _ in range(10)]
    assert current("allocation") == blocks + 10
    assert current("allocated_bytes") == in_use + 10 * storage.block_bytes(1000)
    del held
    stats = storage.memory_stats()
    assert stats["allocated_bytes.all.current"] == in_use
    assert stats["allocated_bytes.all.peak"] >= in_use + 10 * 1000
    assert stats["allocation.all.freed"] == stats["allocation.all.allocated"] - blocks
    assert stats["segment.all.current"] >= blocks + 10
    storage.empty_cache()
    assert current("segment") == blocks
    storage.reset_peak_memory_stats()
    assert storage.memory_stats()["allocated_bytes.all.peak"] == in_use


def test_free_lists_are_bounded():
    storage.empty_cache()
    base = current("reserved_bytes")
    before = storage.set_cache_limit(1 << 20)
    try:
        for _ in range(3):
            held = [storage.allocate(100_000) for _ in range(30)]
            del held
            assert current("reserved_bytes") - base <= 1 << 20
        del_me = storage.allocate(8 << 20)
        del del_me
        assert current("reserved_bytes") - base <= 1 << 20
    finally:
        storage.set_cache_limit(before)


@pytest.mark.parametrize("nbytes", [1 << 45, 1 << 46, 1 << 50, 1 << 63, 1 << 100])
def test_absurd_sizes(nbytes):
    failures = storage.memory_stats()["num_ooms"]
    with pytest.raises(OutOfMemoryError, match=str(nbytes)) as caught:
        storage.allocate(nbytes)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, RuntimeError)
    assert storage.memory_stats()["num_ooms"] >= failures
    assert storage.allocate(10).nbytes == 10


def test_wrong_sizes():
    for wrong in ("1", 1.5, None, [1]):
        with pytest.raises(ArgumentTypeError):
            storage.allocate(wrong)
    for wrong in (-1, -(1 << 80)):
        with pytest.raises(ArgumentError):
            storage.allocate(wrong)
    with pytest.raises(ArgumentError):
        storage.wrap(-1, 1, None)


def test_foreign_memory_keeps_its_owner():
    owner = bytearray(b"abcdefgh")
    references = sys.getrefcount(owner)
    view = (lambda o: storage.wrap(1 << 12, 8, o))(owner)
    assert (view.ptr, view.nbytes) == (1 << 12, 8) and view.owner is owner
    assert sys.getrefcount(owner) == references + 1
    del view
    assert sys.getrefcount(owner) == references


def test_weak_references_and_views():
    block = storage.allocate(100)
    watch, view = weakref.ref(block), memoryview(block)
    assert watch() is block
    del block
    assert watch() is not None  # The view keeps it.
    del view
    assert watch() is None


def test_the_type_makes_no_instances_itself():
    with pytest.raises(TypeError):
        storage.storage_type()()
    with pytest.raises(AttributeError):
        storage.allocate(1).ptr = 3
    assert "64 bytes" in repr(storage.allocate(64))


def test_no_leak():
    storage.allocate(512)
    gc.collect()
    blocks, references = current("segment"), sys.getrefcount(storage.storage_type())
    for _ in range(100_000):
        storage.allocate(512)
    assert current("segment") == blocks
    assert abs(sys.getrefcount(storage.storage_type()) - references) < 100


def test_a_larger_block_is_taken_where_there_is_none_of_the_size():
    storage.empty_cache()
    large = storage.allocate(1_000_000)
    at = large.ptr
    del large
    smaller = storage.allocate(800_000)
    assert smaller.ptr == at and smaller.nbytes == 800_000
    other = storage.allocate(800_000)
    assert other.ptr != at
    del smaller
    again = storage.allocate(1_000_000)
    assert again.ptr == at  # The block went back to the list of its own size.
    del again, other
    small = storage.allocate(400_000)
    assert small.ptr != at  # More than half would lie idle.
