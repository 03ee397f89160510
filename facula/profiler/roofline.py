"""The roofline of this machine: the most operations and bytes a second that our kernels reach.

Both are measured once a machine and number of threads and kept in the disk cache: operations by
chains of fused multiply-adds in registers, bytes by copying arrays that fit in ever farther
memories (read and written bytes count). The limit of a kernel that does ``flops`` operations and
moves ``bytes`` bytes is the longer one of the two times that these would take at their peaks, the
second one at the speed of the memory in which so many bytes fit.
"""

from __future__ import annotations

import bisect
import json
import time
from functools import lru_cache

from facula.base import dtypes as D
from facula.eager import engine
from facula.ir import loops as L
from facula.runtime import cache, host, launch, storage, threads

#: Bytes of both arrays of a copy, of all threads together.
FOOTPRINTS = tuple(1 << k for k in range(14, 29))
#: Independent chains: more than the latency of an addition times those started in a cycle.
_CHAINS = 16
#: Seconds of one measurement, of which the best of several counts.
_SECONDS = 2e-3
_ROUNDS = 5


def peaks(count: int | None = None) -> dict:
    """The machine's peaks for so many threads (those in use, unless given).

    Returns:
        ``flops``: operations a second by dtype's name; ``bytes``: bytes a second for each of
        :data:`FOOTPRINTS`.
    """
    return _peaks(count or threads.get_num_threads())


def limit(flops: int, nbytes: int, dtype: str = "float32", count: int | None = None) -> float:
    """The least seconds that so much work can take on this machine."""
    own = peaks(count)
    place = min(bisect.bisect_left(FOOTPRINTS, nbytes), len(FOOTPRINTS) - 1)
    return max(flops / own["flops"][dtype], nbytes / own["bytes"][place])


@lru_cache(None)
def _peaks(count):
    name = cache.key(f"{FOOTPRINTS} {_CHAINS} {count} {host.usable_cores()}", host.target(), "roof")
    kept = cache.get(name)
    if kept is not None:
        return json.loads(kept)
    found = {
        "flops": {d.name: _flops(d, count) for d in (D.float32, D.float64)},
        "bytes": [_bytes(n, count) for n in FOOTPRINTS],
    }
    cache.put(name, json.dumps(found).encode())
    return found


def _best(kernel, words, work) -> float:
    """Units of ``work`` (what one repetition does) a second; words[-1] is to be repetitions."""
    address, best, repeat = engine.address_of(kernel), float("inf"), 1
    for _ in range(_ROUNDS):
        while True:
            start = time.perf_counter()
            launch.call(address, [*words, repeat])
            seconds = time.perf_counter() - start
            if seconds >= _SECONDS:
                break
            repeat *= 4
        best = min(best, seconds / repeat)
    return work / best


@lru_cache(None)
def _chains(dtype):
    """Every thread multiplies and adds in registers."""
    k = L.Builder("peak")
    lanes = host.target().vector_bytes // dtype.itemsize
    out, count, repeat = k.buffer("out", dtype, "w"), k.size("count"), k.size("repeat")
    with k.parallel(0, count) as t:
        sums = k.local(dtype, 1, (_CHAINS, lanes))
        with k.serial(0, repeat):
            with k.unroll(0, _CHAINS) as c:
                with k.vector(0, lanes) as i:
                    k.assign(sums, c, i, L.fma(sums[c, i], 0.5, 0.25))
        with k.unroll(0, _CHAINS) as c:
            with k.vector(0, lanes) as i:
                k.store(out, (t * _CHAINS + c) * lanes + i, sums[c, i])
    return k.kernel(), 2 * _CHAINS * lanes


def _flops(dtype, count):
    kernel, operations = _chains(dtype)
    held = storage.allocate(operations * dtype.itemsize * count)
    return _best(kernel, [held.ptr, count], operations * count)


@lru_cache(None)
def _copies():
    """Every thread copies a part of its own, again and again."""
    k = L.Builder("stream")
    x, y = k.buffer("x", D.float32), k.buffer("y", D.float32, "w")
    part, count, repeat = k.size("part"), k.size("count"), k.size("repeat")
    with k.parallel(0, count) as t:
        with k.serial(0, repeat):
            with k.vector(0, part) as i:
                k.store(y, t * part + i, x[t * part + i])
    return k.kernel()


def _bytes(footprint, count):
    part = max(footprint // (8 * count), 16)
    source, target = (storage.allocate(4 * part * count) for _ in range(2))
    for held in (source, target):
        memoryview(held)[:] = bytes(len(memoryview(held)))
    return _best(_copies(), [source.ptr, target.ptr, part, count], 8 * part * count)
