"""Every kind and nesting of loops, accesses of every stride, masks, tiles, branches."""

from __future__ import annotations

import numpy as np
import pytest
from harness import WIDTHS, check, compiled, native, sample

from facula.base import dtypes as D
from facula.ir import loops as L
from facula.runtime import threads

F32 = D.float32
LENGTHS = (0, 1, 3, 15, 16, 17, 63, 64, 65, 129, 257)
REDUCED = [
    (op, d) for op in L.REDUCTIONS for d in D.ALL if op not in ("and", "or") or d.kind != "f"
]


def floats(n, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


# Reductions


def reduction(op, d, init, body=None):
    k = L.Builder(f"reduce_{op}")
    x, y, n = k.buffer("x", d), k.buffer("y", d, "w"), k.size("n")
    s = k.local(d, init)
    with k.vector(0, n) as i:
        k.reduce(s, op, body(x[i]) if body else x[i])
    k.store(y, 0, s)
    return k.kernel()


@pytest.mark.parametrize("op, d", REDUCED, ids=lambda x: getattr(x, "name", x))
def test_reduce(op, d):
    kernel = reduction(op, d, 1 if d.kind != "b" else True)
    for n in LENGTHS + (1000,):
        check(kernel, {"x": sample(d, n), "y": sample(d, 1), "n": n})


@pytest.mark.parametrize("n", [0, 1, 5, 16, 33, 64, 80, 128, 130, 200])
def test_reduce_over_a_constant_length_has_the_same_bits(n):
    k = L.Builder("fixed")
    x, y = k.buffer("x", F32), k.buffer("y", F32, "w")
    s = k.local(F32, 0.0)
    with k.vector(0, n) as i:
        k.reduce(s, "add", x[i])
    k.store(y, 0, s)
    check(k.kernel(), {"x": floats(n), "y": floats(1)})
    check(reduction("add", F32, 0.0), {"x": floats(n), "y": floats(1), "n": n})


@pytest.mark.parametrize("turns", [20, 40])
def test_long_bodies_reduce_in_the_same_order(turns):
    def long(v):
        for c in range(turns):
            v = v * 1.01 + c * 0.001
        return v

    for n in LENGTHS + (300, 511):
        check(reduction("add", F32, 0.5, long), {"x": floats(n), "y": floats(1), "n": n})


def test_several_reductions_of_mixed_dtypes():
    k = L.Builder("moments")
    x, y, z, n = (
        k.buffer("x", D.float16), k.buffer("y", F32, "w"), k.buffer("z", D.int64, "w"), k.size("n"),
    )  # fmt: skip
    total, squares = k.local(F32, 0.0), k.local(F32, 0.0)
    count = k.local(D.int64, 5)
    with k.vector(2, n) as i:
        v = k.let(L.cast(x[i], F32))
        k.reduce(total, "add", v)
        k.reduce(squares, "add", v * v)
        k.reduce(count, "add", L.cast(v > 0.0, D.int64))
    k.store(y, 0, total)
    k.store(y, 1, squares)
    k.store(z, 0, count)
    for n in LENGTHS:
        x = floats(n).astype(np.float16)
        check(k.kernel(), {"x": x, "y": floats(2), "z": np.zeros(1, np.int64), "n": n})


def test_rows_and_columns():
    k = L.Builder("rows_columns")
    x, r, c = k.buffer("x", F32), k.size("r"), k.size("c")
    rows, columns = k.buffer("rows", F32, "w"), k.buffer("columns", F32, "w")
    with k.parallel(0, r, grain=2) as i:
        s = k.local(F32, -float("inf"))
        with k.vector(0, c) as j:
            k.reduce(s, "max", x[i * c + j])
        k.store(rows, i, s)
    with k.vector(0, c) as j:
        t = k.local(F32, 0.0)
        with k.serial(0, r) as i:
            k.reduce(t, "add", x[i * c + j])
        k.store(columns, j, t)
    for r, c in [(0, 5), (1, 1), (3, 17), (7, 40), (40, 3), (5, 0)]:
        arguments = {"x": floats(r * c), "rows": floats(r), "columns": floats(c), "r": r, "c": c}
        check(k.kernel(), arguments)


# Accesses


@pytest.mark.parametrize(
    "d", [D.bool_, D.int8, D.int16, D.bfloat16, F32, D.int64], ids=lambda d: d.name
)
@pytest.mark.parametrize("stride", [0, 1, -1, 2, 3, -2, "s"])
def test_strides(d, stride):
    size = 5 if stride == "s" else abs(stride)

    def kernel(reads):
        k = L.Builder("strides_in" if reads else "strides_out")
        x, y, n, s = k.buffer("x", d), k.buffer("y", d, "w"), k.size("n"), k.size("s")
        with k.vector(0, n) as i:
            backwards = stride != "s" and stride < 0
            start = (n - 1) * size if backwards else L.Const(0, D.int64)
            there = start + i * (s if stride == "s" else stride)
            k.store(y, *(i, x[there]) if reads else (there, x[i]))
        return k.kernel()

    for n in LENGTHS:
        wide, narrow = sample(d, max((n - 1) * size + 1, 1)), sample(d, n)
        check(kernel(True), {"x": wide, "y": narrow, "n": n, "s": 5})
        if size:
            check(kernel(False), {"x": narrow, "y": wide, "n": n, "s": 5})


@pytest.mark.parametrize("index", [D.int64, D.int32], ids=lambda d: d.name)
def test_gather_and_scatter(index):
    k = L.Builder("take")
    x, at, y, z = (
        k.buffer("x", F32), k.buffer("at", index), k.buffer("y", F32, "w"), k.buffer("z", F32, "w"),
    )  # fmt: skip
    n, size = k.size("n"), k.size("size")
    with k.vector(0, n) as i:
        j = k.let(L.cast(at[i], D.int64))
        good = L.call("ult", j, size)
        k.check(good, 7)
        k.store(y, i, x.load(j, good, -1.0))
        k.store(z, L.select(good, j, L.Const(0, D.int64)), x[i], good)
    for n in LENGTHS:
        at = np.random.default_rng(n).permutation(n).astype(index.name)
        check(
            k.kernel(),
            {"x": floats(n), "at": at, "y": floats(n), "z": floats(n), "n": n, "size": n},
        )
        if n:
            at[n // 2] = n
            at[0] = -1
            arguments = {
                "x": floats(n),
                "at": at,
                "y": floats(n),
                "z": floats(n),
                "n": n,
                "size": n,
            }
            check(k.kernel(), arguments)


def test_masks():
    k = L.Builder("masked")
    x, y, n, m = k.buffer("x", F32), k.buffer("y", F32, "rw"), k.size("n"), k.size("m")
    one = k.buffer("one", F32)
    with k.vector(0, n) as i:
        inside = (i >= 3) & (i < m)
        k.store(y, i, x.load(i - 3, inside, 2.5) + x.load(m - 4, m > 3, -0.0), i.ne(5))
        k.store(y, i, y[i] * one.load(0, inside), x.load(i - 3, inside) > 0.0)
    for n in LENGTHS:
        for m in (0, 3, n // 2, n):
            x = floats(max(m - 3, 0))
            check(k.kernel(), {"x": x, "y": floats(n), "n": n, "m": m, "one": floats(1)})
    k = L.Builder("masked_scalar")
    x, y, n = k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("n")
    with k.serial(0, n) as i:
        k.store(y, i, x.load(i, i < n - 3, 7.0), (i % 3).ne(1))
    for n in (0, 1, 3, 4, 20):
        check(k.kernel(), {"x": floats(max(n - 3, 0)), "y": floats(n), "n": n})


@pytest.mark.parametrize("d", [D.bool_, D.uint8, D.float16, D.float64], ids=lambda d: d.name)
def test_masked_narrow(d):
    k = L.Builder("masked_narrow")
    x, m, y, n = k.buffer("x", d), k.buffer("m", D.bool_), k.buffer("y", d, "w"), k.size("n")
    with k.vector(0, n) as i:
        k.store(y, i, x.load(i, m[i], 1), ~m[i] | (i < 20))
    for n in LENGTHS:
        check(k.kernel(), {"x": sample(d, n), "m": sample(D.bool_, n), "y": sample(d, n), "n": n})


@pytest.mark.parametrize("d", [D.bool_, D.int16, F32, D.float64], ids=lambda d: d.name)
def test_every_second_element_under_a_mask(d):
    k = L.Builder("second")
    x, m, y, n = k.buffer("x", d), k.buffer("m", D.bool_), k.buffer("y", d, "w"), k.size("n")
    first = k.size("first")
    with k.vector(0, n) as i:
        there = i * 2 - first
        k.store(y, there, x.load(there, m[i], 1), m[i] & (i < 40))
    for n in LENGTHS:
        m = sample(D.bool_, n)
        first = 2 * int(m.argmax()) if m.any() else 0
        size = max(2 * (n - int(m[::-1].argmax())) - 1 - first, 0) if m.any() else 0
        check(k.kernel(), {"x": sample(d, size), "m": m, "y": sample(d, size), "n": n,
                           "first": first})  # fmt: skip


def test_loads_see_stores():
    k = L.Builder("order")
    x, n = k.buffer("x", F32, "rw"), k.size("n")
    k.store(x, 0, x[0] + 1.0)
    k.store(x, 0, x[0] * 2.0)
    with k.serial(1, n) as i:
        k.store(x, i, x[i - 1] + x[i] + x[0])
        k.store(x, 0, x[0] * 0.5)
    with k.vector(1, n) as i:
        k.store(x, i, x[i] + 1.0)
        k.store(x, i, x[i] * x[i])
    check(k.kernel(), {"x": floats(40), "n": 40})


def test_prefetch_outside_of_the_buffer():
    k = L.Builder("prefetch")
    x, y, n = k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("n")
    with k.serial(0, n) as i:
        k.prefetch(x, i * 4096 - 10)
        k.store(y, i, x[i])
    check(k.kernel(), {"x": floats(20), "y": floats(20), "n": 20})


def test_prefetch_in_vector_loops():
    k = L.Builder("prefetch_lanes")
    x, y, n = k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("n")
    with k.vector(0, n) as i:
        k.prefetch(x, n * 9 + i)
        k.prefetch(y, i)
        k.store(y, i, x[i])
    check(k.kernel(), {"x": floats(40), "y": floats(40), "n": 40})


# Nesting


def test_strided_copy_of_many_dimensions():
    k = L.Builder("copy4")
    x, y = k.buffer("x", F32), k.buffer("y", F32, "w")
    sizes = [k.size(f"n{i}") for i in range(4)]
    strides = [k.size(f"s{i}") for i in range(4)]
    a, b, c, d = sizes
    with k.parallel(0, a) as i0, k.serial(0, b) as i1:
        row = k.let(i0 * strides[0] + i1 * strides[1])
        with k.serial(0, c) as i2, k.vector(0, d) as i3:
            out = ((i0 * b + i1) * c + i2) * d + i3
            k.store(y, out, x[row + (i2 * strides[2] + i3 * strides[3])] + 1.0)
    x = floats(3 * 4 * 5 * 6)
    shape, steps = (5, 3, 6, 4), (6, 120, 1, 30)
    arguments = {"x": x, "y": floats(360)}
    for i in range(4):
        arguments |= {f"n{i}": shape[i], f"s{i}": steps[i]}
    check(k.kernel(), arguments)


def test_unrolled_and_stepped_loops():
    k = L.Builder("steps")
    y, n = k.buffer("y", D.int64, "rw"), k.size("n")
    total = k.local(D.int64, 0)
    with k.serial(0, n, 3) as i:
        with k.unroll(0, 3) as j:
            k.assign(total, total.get() * 3 + i + j)
        with k.serial(n, 0, -2) as j:
            k.assign(total, total.get() ^ j)
    k.store(y, 0, total)
    with k.parallel(1, n, 4) as i:
        k.store(y, i, y[i] + i)
    for n in (0, 1, 2, 9, 10):
        check(k.kernel(), {"y": np.arange(n + 1), "n": n})


def test_locals_of_vector_loops():
    k = L.Builder("horner")
    x, y, n, m = k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("n"), k.size("m")
    with k.vector(0, n) as i:
        r, turns = k.local(F32, 1.0), k.local(D.int64, 0)
        tile = k.local(F32, 0.0, (2, 3))
        with k.serial(0, m) as j:
            k.assign(r, r.get() * x[i] + L.cast(j, F32))
            k.assign(turns, turns.get() + 1)
            with k.unroll(0, 3) as u:
                k.assign(tile, 1, u, tile[1, u] + r.get())
        k.store(y, i, r.get() + tile[1, 2] + tile[0, 0] + L.cast(turns.get(), F32))
    for n in LENGTHS:
        for m in (0, 1, 4):
            check(k.kernel(), {"x": floats(n), "y": floats(n), "n": n, "m": m})


def test_branches_and_while():
    k = L.Builder("collatz")
    x, y, n = k.buffer("x", D.int64), k.buffer("y", D.int64, "w"), k.size("n")
    with k.parallel(0, n) as i:
        v, steps = k.local(D.int64, 0), k.local(D.int64, 0)
        k.assign(v, x[i])
        with k.while_(v.get() > 1):
            with k.if_((v.get() % 2).eq(0)):
                k.assign(v, v.get() // 2)
            with k.else_():
                with k.if_(v.get() > 1000):
                    k.check(v.get() < 5000, 3)
                k.assign(v, v.get() * 3 + 1)
            k.assign(steps, steps.get() + 1)
        k.store(y, i, steps)
    check(k.kernel(), {"x": np.arange(26), "y": np.zeros(26, np.int64), "n": 26})
    check(k.kernel(), {"x": np.arange(40), "y": np.zeros(40, np.int64), "n": 40})


def test_branches_around_loops():
    k = L.Builder("branches")
    x, y, n = k.buffer("x", F32), k.buffer("y", F32, "rw"), k.size("n")
    s = k.local(F32, 1.0)
    with k.serial(0, n) as i:
        with k.if_(x[i] > 0.0):
            with k.vector(0, n) as j:
                k.reduce(s, "add", x[j] * x[i])
            with k.vector(0, n) as j:
                k.store(y, j, y[j] + x[i] * 3.0)
        with k.else_(), k.if_(i > 3):
            k.assign(s, s.get() * 0.5)
    k.store(y, n, s)
    for n in (0, 1, 5, 20, 70):
        check(k.kernel(), {"x": floats(n), "y": floats(n + 1), "n": n})


@pytest.mark.parametrize("d", [D.int32, F32, D.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("rows, width", [(1, 16), (4, 32), (3, 40), (2, 5)])
def test_tiles(d, rows, width):
    k = L.Builder("outer")
    a, b, c = k.buffer("a", d), k.buffer("b", d), k.buffer("c", d, "rw")
    depth, ld = k.size("depth"), k.size("ld")
    acc = k.local(d, 1, (rows, width))
    with k.serial(0, depth) as p, k.vector(0, width) as j, k.unroll(0, rows) as i:
        k.assign(acc, i, j, L.fma(a[p * rows + i], b[p * width + j], acc[i, j]))
    with k.vector(0, width) as j, k.unroll(0, rows) as i:
        k.store(c, i * ld + j, c[i * ld + j] + acc[i, j])
    k.store(c, 0, acc[rows - 1, width - 1])
    for depth in (0, 1, 5):
        arguments = {
            "a": sample(d, depth * rows), "b": sample(d, depth * width), "depth": depth,
            "c": sample(d, rows * (width + 2)), "ld": width + 2,
        }  # fmt: skip
        check(k.kernel(), arguments)


def test_reduce_over_a_tile():
    k = L.Builder("softmax_tile")
    x, y = k.buffer("x", F32), k.buffer("y", F32, "w")
    tile = k.local(F32, 0.0, (2, 48))
    with k.unroll(0, 2) as i:
        most, total = k.local(F32, -float("inf")), k.local(F32, 0.0)
        with k.vector(0, 48) as j:
            k.assign(tile, i, j, x[i * 48 + j])
        with k.vector(0, 48) as j:
            k.reduce(most, "max", tile[i, j])
        with k.vector(0, 48) as j:
            k.assign(tile, i, j, tile[i, j] - most.get())
            k.reduce(total, "add", tile[i, j])
        with k.vector(0, 48) as j:
            k.store(y, i * 48 + j, tile[i, j] / total.get())
    check(k.kernel(), {"x": floats(96), "y": floats(96)})


@pytest.mark.parametrize("side", [4, 8, 16])
def test_transpose(side):
    width = side * 4
    k = L.Builder("transpose")
    x, y, ld = k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("ld")
    tile = k.local(F32, 0.0, (side, side))
    with k.vector(0, side) as j, k.unroll(0, side) as i:
        k.assign(tile, i, j, x[i * ld + j])
    k.transpose(tile)
    with k.vector(0, side) as j, k.unroll(0, side) as i:
        k.store(y, i * side + j, tile[i, j])
    if width in WIDTHS:
        arguments = {"x": floats(side * 20), "y": floats(side * side), "ld": 20}
        check(k.kernel(), arguments, [width])


# Threads


def matmul_like():
    k = L.Builder("threaded")
    x, y, r, c = k.buffer("x", F32), k.buffer("y", F32, "w"), k.size("r"), k.size("c")
    alpha = k.scalar("alpha")
    own = k.scratch("own", F32, c, per_thread=True)
    bias = k.let(L.cast(alpha, F32) * 2.0)
    flag = k.let(alpha > 0.5)
    start = k.local(F32, 3.0)
    with k.parallel(0, r, grain=3) as i:
        s = k.local(F32, 0.0)
        with k.vector(0, c) as j:
            k.store(own, j, x[i * c + j] * bias)
        with k.vector(0, c) as j:
            k.reduce(s, "add", own[j])
        k.check(s.get() > -1e30, 9)
        k.store(y, i, L.select(flag, s.get(), start.get()))
    return k.kernel()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_give_the_same_bits(count):
    before = threads.get_num_threads()
    threads.set_num_threads(count)
    try:
        for r, c in [(0, 3), (1, 3), (50, 37), (200, 5)]:
            own = np.zeros(threads.MAX_THREADS * c, np.float32)
            arguments = {"x": floats(r * c), "y": floats(r), "r": r, "c": c, "alpha": 0.75}
            check(matmul_like(), {**arguments, "own": own})
        bad = floats(50 * 37)
        bad[700] = -np.inf
        own = np.zeros(threads.MAX_THREADS * 37, np.float32)
        arguments = {"x": bad, "y": floats(50), "r": 50, "c": 37, "alpha": 0.25, "own": own}
        assert native(matmul_like(), arguments, 32)[0] == 9
    finally:
        threads.set_num_threads(before)


def test_every_iteration_runs_once_whatever_the_chunks():
    k = L.Builder("once")
    y, n, grain = k.buffer("y", D.int64, "rw"), k.size("n"), k.size("grain")
    with k.parallel(2, n, 3, grain=grain) as i, k.parallel(0, 2) as j:
        k.store(y, i + j, y[i + j] + i + 1)
    before = threads.get_num_threads()
    threads.set_num_threads(3)
    try:
        for n in (0, 2, 3, 50, 1001):
            for grain in (0, 1, 7, 5000):
                check(k.kernel(), {"y": np.zeros(n + 3, np.int64), "n": n, "grain": grain}, [32])
    finally:
        threads.set_num_threads(before)


def test_kernel_without_parameters():
    k = L.Builder("nothing")
    assert compiled(k.kernel(), 32)(None) == 0
