"""The very text of a few kernels, so that a change of the emitter shows in a diff."""

from __future__ import annotations

import pytest

from facula.base import dtypes as D
from facula.codegen import Target, emit
from facula.ir import loops as L
from facula.ir.print_loops import text

F32 = D.float32


def add(k):
    x, y, z, n = k.buffer("x", F32), k.buffer("y", F32), k.buffer("z", F32, "w"), k.size("n")
    with k.vector(0, n) as i:
        k.store(z, i, x[i] + y[i])


def row_sum(k):
    x, z, r, c = k.buffer("x", F32), k.buffer("z", F32, "w"), k.size("r"), k.size("c")
    with k.parallel(0, r, grain=16) as i:
        s = k.local(F32, 0.0)
        with k.vector(0, c) as j:
            k.reduce(s, "add", x[i * c + j])
        k.store(z, i, s)


def take(k):
    x, at, y = k.buffer("x", F32), k.buffer("at", D.int64), k.buffer("y", F32, "w")
    n, size = k.size("n"), k.size("size")
    with k.vector(0, n) as i:
        j = k.let(at[i])
        inside = k.let(L.call("ult", j, size))
        k.check(inside, 2)
        k.store(y, i, x.load(j, inside))


def micro_matmul(k):
    a, b, c, depth = k.buffer("a", F32), k.buffer("b", F32), k.buffer("c", F32, "w"), k.size("k")
    acc = k.local(F32, 0.0, (2, 16))
    with k.serial(0, depth) as p, k.vector(0, 16) as j, k.unroll(0, 2) as i:
        k.assign(acc, i, j, L.fma(a[p * 2 + i], b[p * 16 + j], acc[i, j]))
    with k.vector(0, 16) as j, k.unroll(0, 2) as i:
        k.store(c, i * 16 + j, acc[i, j])


def halves(k):
    x, y, n = k.buffer("x", D.bfloat16), k.buffer("y", D.bfloat16, "w"), k.size("n")
    with k.vector(0, n) as i:
        k.store(y, i, x[i] * x[i])


def collatz(k):
    x, y = k.buffer("x", D.int64), k.buffer("y", D.int64, "w")
    v, steps = k.local(D.int64, 0), k.local(D.int64, 0)
    k.assign(v, x[0])
    with k.while_(v.get() > 1):
        with k.if_((v.get() & 1).eq(0)):
            k.assign(v, v.get() // 2)
        with k.else_():
            k.assign(v, v.get() * 3 + 1)
        k.assign(steps, steps.get() + 1)
    k.store(y, 0, steps)


KERNELS = [
    (add, 64),
    (add, 16),
    (row_sum, 32),
    (take, 32),
    (micro_matmul, 32),
    (halves, 32),
    (collatz, 16),
]


@pytest.mark.parametrize("build, width", KERNELS, ids=lambda x: getattr(x, "__name__", x))
def test_text(build, width, golden):
    k = L.Builder(build.__name__)
    build(k)
    kernel = k.kernel()
    loops = "".join(f"; {line}\n" for line in text(kernel).splitlines())
    golden(f"{build.__name__}_{width}.ll", loops + emit(kernel, Target(width)))
