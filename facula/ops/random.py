"""Random numbers: Philox-4x32-10, counted by position, so the same captured or not.

Element ``i`` of a draw uses counter ``offset + i`` of the stream ``seed``: no order of execution,
no number of threads can change it. Source: Salmon et al., "Parallel Random Numbers: As Easy as
1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.ops.promote import expand_to, to
from facula.ops.registry import F, Primitive

_M0, _M1, _W0, _W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85


def philox(counter, seed):
    """Two 32-bit words (int32 expressions) of ten rounds on a 64-bit counter and key.

    Words are the low halves of int64, whose upper halves nothing reads: so the products of words
    are one instruction, and their halves apart by one shift.
    """
    i64, i32 = D.int64, D.int32
    low = L.Const((1 << 32) - 1, i64)
    c0, c1 = counter, L.binary("lshr", counter, 32)
    c2 = c3 = L.Const(0, i64)
    k0, k1 = seed, L.binary("lshr", seed, 32)
    for _ in range(10):
        p0, p1 = (c0 & low) * _M0, (c2 & low) * _M1
        c0, c1 = L.binary("lshr", p1, 32) ^ (c1 ^ k0), p1
        c2, c3 = L.binary("lshr", p0, 32) ^ (c3 ^ k1), p0
        k0, k1 = k0 + _W0, k1 + _W1
    return L.cast(c0, i32), L.cast(c1, i32)


def _bits_meaning(np, position, seed, offset, *, word):
    mask = np.uint64(0xFFFFFFFF)
    counter = (position + offset).astype("uint64")
    key = np.asarray(seed).astype("uint64")
    c = [counter & mask, counter >> np.uint64(32), counter * np.uint64(0), counter * np.uint64(0)]
    k = [key & mask, key >> np.uint64(32)]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(_M0), c[2] * np.uint64(_M1)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ k[0],
            p1 & mask,
            (p0 >> np.uint64(32)) ^ c[3] ^ k[1],
            p0 & mask,
        ]
        k = [(k[0] + np.uint64(_W0)) & mask, (k[1] + np.uint64(_W1)) & mask]
    return c[word].astype("uint32").view("int32")


#: 32 random bits (int32) for each position (int64): word 0 or 1 of the Philox block.
random_bits = Primitive(
    "random_bits",
    "pointwise",
    lambda position, seed, offset, *, word: [(D.int32, position.shape)],
    _bits_meaning,
    None,
    lambda position, seed, offset, *, word: philox(position + offset, seed)[word],
)

#: The row-major position (int64) of every element of a shape.
positions = Primitive(
    "positions",
    "source",
    lambda *, shape: [(D.int64, shape)],
    lambda np, *, shape: np.arange(int(np.prod(shape))).reshape(shape),
)


def drawn_by(node):
    """The shape of the random numbers that a node stands for, or None."""
    if node.op is positions:
        return node.params["shape"]
    draws = node.op.info.get("draws")
    return draws(node) if draws else None


def bits(shape, seed, offset, word=0):
    """Random int32 of that shape."""
    where = positions(shape=tuple(shape))
    return random_bits(
        where, expand_to(to(seed, D.int64), shape), expand_to(to(offset, D.int64), shape), word=word
    )


def uniform(shape, dtype, seed, offset, word=0):
    """Uniform in [0, 1) with the resolution of the dtype's significand (24 bits at least)."""
    if dtype is D.float64:
        high, low = bits(shape, seed, offset, 0), bits(shape, seed, offset, 1)
        whole = _low(high, 26) * (2.0**27) + _low(low, 27)
        return whole * 2.0**-53
    count = {D.float32: 24, D.float16: 11, D.bfloat16: 8}[dtype]
    return to(to(_low_int(bits(shape, seed, offset, word), count), D.float32) * 2.0**-count, dtype)


def _low_int(x, count):
    return F.bitwise_and(x, (1 << count) - 1)


def _low(x, count):
    return to(_low_int(x, count), D.float64)


TWO_PI = 6.283185307179586


def normal(shape, dtype, seed, offset):
    """Standard normal numbers, by Box and Muller's method."""
    work = dtype if dtype is D.float64 else D.float32
    u = to(_low_int(bits(shape, seed, offset, 0), 24), work)
    v = to(_low_int(bits(shape, seed, offset, 1), 24), work)
    radius = F.sqrt(F.log((u + 1.0) * 2.0**-24) * -2.0)
    return to(radius * F.cos(v * (TWO_PI * 2.0**-24)), dtype)
