"""A fork-join pool of native threads, in generated code.

``facula_parallel(fn, env, nchunks)`` calls ``fn(env, chunk, tid)`` once for every chunk and returns
when all are done. Threads claim chunks, each first those of its own share; the caller takes part
as ``tid`` 0 and waits for *chunks* to be done, never for a thread to wake up, so a core taken by
another process costs speed and no more. ``facula_threads`` (an i64) says how many take part.

One submission runs at a time. A second one, from another Python thread or from inside of a chunk,
runs all its chunks on its own caller, under the number of the thread that calls.

Workers are created by the first submission that can use them (plain threads of the system that
know nothing of Python and block all signals), spin for some 200 µs after work, then sleep in a
futex. After a fork, the child starts its own when it needs them. They end with the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.runtime import host, jit

#: The most threads that can be asked for.
MAX_THREADS = 1024
_STACK_BYTES = 8 << 20

# Each thread has a range of the groups of chunks of a submission, in one 64-bit word: generation
# (32 bits), end (16) and next group to claim (16). It claims those of its own range first, then
# those of others. So which thread runs a chunk is nearly always the same from one kernel to the
# next, which finds what the last one wrote in its own cache, and yet nobody waits for a thread that
# is not running. Claiming is a compare-and-swap of the whole word: success proves that the job read
# before it is the one of this generation, because the next one is published only when all groups
# of this one are done. The upper half of a word of its own is the generation that sleepers wait on.

_PAUSES = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)", "call void @llvm.aarch64.hint(i32 1)"),
}
_PAUSES["arm64"] = _PAUSES["aarch64"]
#: Numbers of Linux's futex system call.
_FUTEX = {"x86_64": 202, "aarch64": 98}
#: Rounds of spinning, for about 30 µs: a pause takes some 40 to 140 cycles on x86, fewer on ARM.
_SPINS = {"x86_64": 800, "aarch64": 8000, "arm64": 8000}
#: How many times that an idle worker spins: longer than Python takes between two kernels of a
#: training step, as waking up takes longer than most kernels do.
_IDLE = 6


def _text() -> str:
    """The native code, for this system."""
    arch = host.target().arch
    declare_pause, pause = _PAUSES.get(arch, ("", ""))
    futex = _FUTEX.get(arch) if sys.platform == "linux" else None
    if futex:
        # The operations are FUTEX_WAIT and FUTEX_WAKE of this process alone (128); the address is
        # the generation, the upper half of the word on little-endian machines.
        call = f"call i64 (i64, ...) @syscall(i64 {futex}, ptr getelementptr (i8, ptr @pool_word, "
        declare_sleep = "declare i64 @syscall(i64, ...)"
        sleep = f"%z = {call}i64 4), i64 128, i32 %old, ptr null)"
        wake = f"%z = {call}i64 4), i64 129, i32 %count)"
    else:
        declare_sleep = "declare i32 @usleep(i32)"
        sleep, wake = "%z = call i32 @usleep(i32 100)", ""
    words = {
        "DECLARE_PAUSE": declare_pause,
        "DECLARE_SLEEP": declare_sleep,
        "PAUSE": pause,
        "SLEEP": sleep,
        "WAKE": wake,
        "SPINS": _SPINS.get(arch, 2000),
        "IDLE_SPINS": _IDLE * _SPINS.get(arch, 2000),
        "STACK_BYTES": _STACK_BYTES,
        "SIG_SETMASK": int(signal.SIG_SETMASK),
        "MAX_THREADS": MAX_THREADS,
        "RANGES_BYTES": 128 * MAX_THREADS,
    }
    return jit.source("threads.ll", words)


class _Native:
    """The loaded code and the cell that holds the number of threads."""

    def __init__(self):
        names = [f"pool_{n}" for n in ("parallel", "resize", "reset", "threads", "inflight")]
        self.at = jit.load(_text(), names, optimize=2)
        self.threads = ctypes.c_int64.from_address(self.at["pool_threads"])
        self.threads.value = _wanted()
        self.resize = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(self.at["pool_resize"])
        self.reset = ctypes.PYFUNCTYPE(None)(self.at["pool_reset"])
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)


_native = jit.once(_Native)
_state: dict[str, int] = {}

jit.provide("facula_parallel", lambda: _native().at["pool_parallel"])
jit.provide("facula_threads", lambda: _native().at["pool_threads"])
jit.provide("facula_inflight", lambda: _native().at["pool_inflight"])


def get_num_threads() -> int:
    """How many threads one kernel may use.

    Unless :func:`set_num_threads` was called: ``FACULA_NUM_THREADS``, else ``OMP_NUM_THREADS``,
    else the physical cores that this process may use, within its control group's quota.
    """
    return _wanted()


def set_num_threads(threads: int) -> None:
    """Set how many threads one kernel may use; waits for the kernels that run now.

    Raises:
        ArgumentTypeError: no int.
        ArgumentError: not between 1 and 1024.
    """
    if isinstance(threads, bool) or not isinstance(threads, int):
        got = type(threads).__name__
        fail(ArgumentTypeError, "set_num_threads", f"expected an int, got {got}")
    if not 1 <= threads <= MAX_THREADS:
        fail(ArgumentError, "set_num_threads", f"expected 1 to {MAX_THREADS}, got {threads}")
    _native().resize(threads)
    _state["threads"] = threads


def _wanted() -> int:
    if "threads" not in _state:
        named = [os.environ.get(f"{name}_NUM_THREADS", "") for name in ("FACULA", "OMP")]
        numbers = [int(n) for n in named if n.isdigit() and int(n) > 0]
        _state["threads"] = min(numbers[0] if numbers else host.usable_cores(), MAX_THREADS)
    return _state["threads"]
