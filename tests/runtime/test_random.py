"""Random state: streams, reservation, state, threads, forks."""

import os
import pickle
import threading

import pytest

from facula.base.errors import ArgumentError, ArgumentTypeError
from facula.runtime.random import DEFAULT_SEED, Generator, default_generator, philox

ONES = (1 << 64) - 1


def test_philox_matches_the_published_vectors():
    # From the known answers of the Random123 distribution, as far as our counters reach.
    assert philox(0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert len({philox(seed, n) for seed in range(4) for n in range(100)}) == 400
    assert philox(ONES, ONES) != philox(ONES, 0)


def test_counters_are_reserved_once():
    g = Generator(5)
    taken = []

    def work():
        taken.extend(g.next(3)[1] for _ in range(1000))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert sorted(taken) == list(range(0, 12_000, 3))


def test_state():
    g = Generator()
    assert g.initial_seed() == DEFAULT_SEED
    g.manual_seed(3).next(10)
    state = g.get_state()
    assert g.next(1) == (3, 10)
    g.set_state(state)
    assert g.next(1) == (3, 10)
    assert pickle.loads(pickle.dumps(g)).next(1) == (3, 11)
    assert g.manual_seed(-1).initial_seed() == ONES
    assert g.seed() == g.initial_seed() and g.next(1)[1] == 0
    for wrong in (b"", b"x" * 24, state[:-1]):
        with pytest.raises(ArgumentError):
            g.set_state(wrong)
    for wrong in (1 << 64, -(1 << 63) - 1):
        with pytest.raises(ArgumentError):
            g.manual_seed(wrong)
    for wrong in (1.5, "1", None, True):
        with pytest.raises(ArgumentTypeError):
            g.manual_seed(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_go_on_with_the_same_state():
    expected = Generator(default_generator._seed, default_generator._offset).next(1)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if default_generator.next(1) == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert default_generator.next(1) == expected
