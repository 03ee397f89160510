"""The fork-join pool: every chunk once, under any number of threads and submissions."""

import os
import threading
import time

import pytest

from facula.base.errors import ArgumentError, ArgumentTypeError
from facula.runtime import launch, threads
from tests.runtime.small import counts


@pytest.fixture(autouse=True)
def keep_number():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def check(kernels, n, most=None):
    """Submit ``n`` chunks; each must have run once, on a thread below ``most``."""
    words, address = counts(max(n, 1))
    assert launch.call(kernels["parallel"], [address, n]) == 0
    assert all(w & 0xFFFFFFFF == 1 for w in words[:n])
    numbers = {w >> 32 for w in words[:n]}
    assert most is None or all(number < most for number in numbers)
    return numbers


@pytest.mark.parametrize("n", [0, 1, 2, 3, 64, 1001, 65535, 65536, 65537, 200_001])
def test_every_chunk_runs_once(kernels, n):
    threads.set_num_threads(2)
    check(kernels, n, 2)


@pytest.mark.parametrize("number", [1, 3, 16, 2])
def test_any_number_of_threads(kernels, number):
    threads.set_num_threads(number)
    assert threads.get_num_threads() == number
    for _ in range(100):
        check(kernels, 500, number)


def test_more_than_one_thread_takes_part(kernels):
    threads.set_num_threads(2)
    end = time.monotonic() + 10  # A busy machine may let the other thread wait for long.
    while len(check(kernels, 20_000)) == 1:
        assert time.monotonic() < end


def test_nested_submissions_run_on_the_thread_that_makes_them(kernels):
    threads.set_num_threads(4)
    for _ in range(50):
        words, address = counts(64 * 16)
        launch.call(kernels["nested"], [address, 64])
        assert all(w & 0xFFFFFFFF == 1 for w in words)
        for row in range(64):
            assert len({w >> 32 for w in words[16 * row : 16 * row + 16]}) == 1


def test_many_python_threads_and_changes_of_number(kernels):
    failures = []

    def work():
        try:
            for _ in range(150):
                check(kernels, 300)
        except AssertionError as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for w in workers:
        w.start()
    for number in (2, 5, 1, 8, 3):
        threads.set_num_threads(number)
        check(kernels, 300)
    for w in workers:
        w.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_use(kernels):
    threads.set_num_threads(3)
    check(kernels, 1000)
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for _ in range(20):
                    check(kernels, 1000, 3)
                threads.set_num_threads(2)
                check(kernels, 1000, 2)
                status = 0
            finally:
                os._exit(status)
        check(kernels, 1000, 3)
        assert os.waitpid(pid, 0)[1] == 0
    check(kernels, 1000, 3)


def test_wrong_numbers():
    for wrong in (0, -1, 1 << 20):
        with pytest.raises(ArgumentError, match="set_num_threads"):
            threads.set_num_threads(wrong)
    for wrong in ("2", 2.0, None, True):
        with pytest.raises(ArgumentTypeError):
            threads.set_num_threads(wrong)


def test_the_environment_sets_the_number(script):
    code = "from facula.runtime import threads; print(threads.get_num_threads())"
    assert script(code, FACULA_NUM_THREADS="3", OMP_NUM_THREADS="5") == "3\n"
    assert script(code, FACULA_NUM_THREADS="", OMP_NUM_THREADS="5") == "5\n"
    default = script(code, FACULA_NUM_THREADS="", OMP_NUM_THREADS="nonsense")
    assert 1 <= int(default) <= os.cpu_count()
