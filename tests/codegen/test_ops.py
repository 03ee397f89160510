"""Every op on every dtype, in vector loops of lengths around the lanes and in scalar loops."""

from __future__ import annotations

import numpy as np
import pytest
from harness import check, native, sample

from facula.base import dtypes as D
from facula.ir import loops as L

FLOAT_ONLY = {"sqrt", "copysign"}
INTEGER_ONLY = {"rem", "shl", "shr", "lshr"}
BITWISE = {"and", "or", "xor", "not"}
BOOL = {"and", "or", "xor", "not", "add", "mul", "min", "max"}
SIZES = (0, 1, 7, 16, 17, 31, 64, 67, 131)


def takes(name, d):
    if name == "dot2":
        return d is D.int32
    if d.kind == "b":
        return name in BOOL
    if d.kind == "f":
        return name not in INTEGER_ONLY | BITWISE
    return name not in FLOAT_ONLY and not (name == "neg" and d.kind == "u")


def elementwise(name, operands, out, value, kind="vector"):
    k = L.Builder(name)
    buffers = [k.buffer(f"x{i}", d) for i, d in enumerate(operands)]
    y, n = k.buffer("y", out, "w"), k.size("n")
    with k.loop(0, n, 1, kind) as i:
        k.store(y, i, value(*(b[i] for b in buffers)))
    return k.kernel()


def run(kernel, operands, out, sizes=SIZES):
    for n in sizes:
        arguments = {f"x{i}": sample(d, n, i) for i, d in enumerate(operands)}
        check(kernel, {**arguments, "y": sample(out, n, 9), "n": n})


CASES = [(n, d) for n in L.ARITHMETIC for d in D.ALL if takes(n, d)]


@pytest.mark.parametrize("name, d", CASES, ids=lambda x: getattr(x, "name", x))
def test_arithmetic(name, d):
    operands = [d] * L.ARITHMETIC[name]
    kernel = elementwise(f"op_{name}", operands, d, lambda *a: L.Op(name, a, d))
    run(kernel, operands, d)
    kernel = elementwise(f"op_{name}", operands, d, lambda *a: L.Op(name, a, d), "serial")
    run(kernel, operands, d, (67,))


@pytest.mark.parametrize("name", L.COMPARISONS)
@pytest.mark.parametrize("d", D.ALL, ids=lambda d: d.name)
def test_comparisons(name, d):
    if name == "ult" and d.kind == "f":
        return
    value = lambda a, b: L.call(name, a, b)  # noqa: E731
    run(elementwise("cmp", [d, d], D.bool_, value), [d, d], D.bool_)
    run(elementwise("cmp", [d, d], D.bool_, value, "serial"), [d, d], D.bool_, (67,))


@pytest.mark.parametrize("source", D.ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("to", D.ALL, ids=lambda d: d.name)
def test_casts(source, to):
    run(elementwise("conv", [source], to, lambda a: L.cast(a, to)), [source], to)
    kernel = elementwise("conv", [source], to, lambda a: L.cast(a, to), "serial")
    run(kernel, [source], to, (67,))
    if source.itemsize == to.itemsize and D.bool_ not in (source, to):
        kernel = elementwise("bits", [source], to, lambda a: L.bitcast(a, to))
        run(kernel, [source], to, (17, 67))


@pytest.mark.parametrize("d", D.ALL, ids=lambda d: d.name)
def test_select(d):
    operands = [D.bool_, d, d]
    run(elementwise("sel", operands, d, L.select), operands, d, (1, 33, 67))


@pytest.mark.parametrize("d", D.INTEGERS, ids=lambda d: d.name)
@pytest.mark.parametrize("number", [0, 1, -1, 2, 3, 7, -5, 64])
def test_division_by_constants(d, number):
    if number < 0 and d.kind == "u":
        return

    def value(a):
        return (a // number) ^ (a % number)

    run(elementwise("divc", [d], d, value), [d], d, (67,))


@pytest.mark.parametrize("d", D.INTEGERS, ids=lambda d: d.name)
@pytest.mark.parametrize("amount", [0, 1, 7, 8, 31, 63])
def test_shifts_by_constants(d, amount):
    def value(a):
        c = L.Const(amount, d)
        return L.call("shl", a, c) ^ L.call("shr", a, c) ^ L.call("lshr", a, c)

    run(elementwise("shc", [d], d, value), [d], d, (67,))


@pytest.mark.parametrize("d", D.FLOATS, ids=lambda d: d.name)
def test_minimum_with_a_constant(d):
    def value(a):
        return L.minimum(L.maximum(a, -1.5), L.Const(2.0, d))

    run(elementwise("clamp", [d], d, value), [d], d, (67,))
    run(elementwise("fclamp", [d], d, lambda a: L.call("fmax", a, L.Const(0.5, d))), [d], d, (67,))


def test_transcendental_of_every_float():
    for d in D.FLOATS:
        kernel = elementwise("exps", [d], d, lambda a: L.call("exp", a) + 1.0)
        run(kernel, [d], d, (5, 67))


@pytest.mark.parametrize("d", [D.float32, D.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("name", ["sin", "log", "tanh", "pow"])
def test_transcendentals(name, d):
    operands = [d] * L.TRANSCENDENTAL[name]
    run(elementwise("fun", operands, d, lambda *a: L.Op(name, a, d)), operands, d, (1, 37))


def test_long_chains_do_not_recur():
    def chain(x):
        for i in range(600):
            x = x * 1.0009765625 + i
        return x

    kernel = elementwise("chain", [D.float32], D.float32, chain)
    x = np.ones(40, np.float32)
    got = native(kernel, {"x0": x, "y": x * 0, "n": 40}, 16)[1]["y"]
    y = x
    for i in range(600):
        y = y * np.float32(1.0009765625) + np.float32(i)
    assert (got == y).all()


def test_constants_are_exact():
    k = L.Builder("consts")
    ys = [k.buffer(d.name, d, "w") for d in D.ALL]
    numbers = [0, 1, -1, 3, 255, 0.1, 1e30, float("inf"), float("nan"), -0.0]
    for y in ys:
        for i, number in enumerate(numbers):
            if y.dtype.kind in "ui" and (number != number or abs(number) > 1e9):
                number = 5
            k.store(y, i, L.Const(number, y.dtype))
    kernel = k.kernel()
    check(kernel, {d.name: sample(d, len(numbers)) for d in D.ALL})


def test_index_as_data():
    k = L.Builder("arange")
    y, z, n, a = (
        k.buffer("y", D.float32, "w"),
        k.buffer("z", D.int64, "w"),
        k.size("n"),
        k.size("a"),
    )
    with k.vector(0, n) as i:
        k.store(y, i, L.cast(i * a + 3, D.float32))
        k.store(z, i, i * i - a)
    for n in (0, 5, 67):
        check(
            k.kernel(), {"y": np.zeros(n, np.float32), "z": np.zeros(n, np.int64), "n": n, "a": 7}
        )


@pytest.mark.parametrize("number", [8.0, -0.5, 3.0, 2.0**99, 2.0**120, 0.0, float("inf")])
def test_division_of_floats_by_constants(number):
    for d in (D.float32, D.float64, D.bfloat16):
        run(elementwise("fdivc", [d], d, lambda a: a / number), [d], d, (67,))  # noqa: B023
