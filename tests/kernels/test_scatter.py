"""Scattered writes, in all their forms, against the loops that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from running import guarded, run

from facula.base import dtypes as D
from facula.kernels import scatter
from facula.ops.registry import PRIMITIVES

WIDTHS = (16, 32, 64)


def flat(array):
    return guarded(np.ascontiguousarray(array).reshape(-1))


def numbers(rng, d, *shape):
    return rng.integers(-9, 9, shape).astype(d.numpy())


def strides(array, *names):
    return {name: s // array.itemsize for name, s in zip(names, array.strides)}


@pytest.mark.parametrize("start", ["copy", "zero", "place"])
@pytest.mark.parametrize("d", [D.float32, D.float16, D.int64], ids=str)
def test_rows(start, d):
    rng = np.random.default_rng(1)
    for width in WIDTHS if d is D.float32 and start == "place" else WIDTHS[-1:]:
        for outer, m, count, inner, columns in (
            (1, (9,), 40, 37, 16), (3, (5,), 20, 3, 3), (2, (1,), 5, 64, 32),
            (1, (4, 6), 30, 20, 20), (1, (7,), 0, 5, 5), (1, (50,), 30, 1, 1),
        ):  # fmt: skip
            x, src = numbers(rng, d, outer, *m, inner), numbers(rng, d, outer, count, inner)
            index = np.stack([rng.integers(0, n, count) for n in m], 1)
            for how in ("add", "set") if start == "place" else ("add",):
                kind = scatter.kind_of(inner) if width == WIDTHS[-1] else "many"
                form = scatter.Form(d, how, len(m), start, True, kind)
                y = flat(x)
                sizes = {f"m{k}": n for k, n in enumerate(m)}
                more = {"i_w": 1} if len(m) > 1 else {}
                more |= {"x": flat(x)} if start == "copy" else {}
                status = run(
                    scatter.build(form), width, index=flat(index), src=flat(src), y=y, outer=outer,
                    count=count, inner=inner, i_n=len(m), s_o=count * inner, s_n=inner,
                    columns=columns, **sizes, **more,
                )  # fmt: skip
                want = x * (start != "zero")
                for i, place in enumerate(index):
                    at = (slice(None), *place)
                    want[at] = src[:, i] + (want[at] if how == "add" else 0)
                assert status == 0
                np.testing.assert_array_equal(y.reshape(x.shape), want)


@pytest.mark.parametrize("method", ["lines", "columns", "rows"])
def test_along_a_dimension(method):
    rng = np.random.default_rng(2)
    cases = [(width, D.float32, "add") for width in WIDTHS]
    cases += [(WIDTHS[-1], D.float32, "set"), (WIDTHS[-1], D.float16, "max"), (32, D.int64, "add")]
    for shape, dim, n in (((9, 37), 0, 40), ((3, 5, 20), 1, 7), ((4, 3, 70), 0, 9)):
        rank = len(shape)
        for width, d, how in cases:
            sizes = [*(max(s - 1, 1) for s in shape[:dim]), n, *shape[dim + 1 :]]
            x, src = numbers(rng, d, *shape), numbers(rng, d, *sizes)
            index = rng.integers(0, shape[dim], sizes)
            if method == "rows":
                index = np.broadcast_to(index[..., :1], sizes)
            kept = index if method != "rows" else np.ascontiguousarray(index[..., :1])
            form = (d, rank, dim, how, "copy", method, (method != "rows", True))
            y = flat(np.zeros_like(x))
            steps = strides(kept, *(f"i{k}" for k in range(rank)))
            steps |= {f"i{rank - 1}": 0} if method == "rows" else {}
            steps |= strides(src, *(f"s{k}" for k in range(rank)))
            steps |= {f"n{k}": s for k, s in enumerate(sizes)}
            steps |= {f"m{k}": s for k, s in enumerate(shape)}
            status = run(
                scatter.scatter(*form), width, x=flat(x), index=flat(kept), src=flat(src), y=y,
                columns=16, **steps,
            )  # fmt: skip
            want = PRIMITIVES["scatter"].meaning(np, x, index, src, dim=dim, reduce=how)
            assert status == 0
            np.testing.assert_array_equal(y.reshape(shape), want)


@pytest.mark.parametrize("bad", [-1, 5, 1 << 62, -(1 << 63)])
def test_an_index_out_of_range_is_told_and_writes_nothing(bad):
    x, src = np.zeros((5, 20), np.float32), np.ones((3, 20), np.float32)
    index = np.array([0, bad, 4])
    y = flat(x)  # Its own memory, which stays as it is.
    form = scatter.Form(D.float32, "add", 1, "place", True, "many")
    status = run(
        scatter.build(form), index=flat(index), src=flat(src), y=y, outer=1, count=3, inner=20,
        m0=5, i_n=1, s_o=60, s_n=20, columns=16,
    )  # fmt: skip
    assert status == scatter.STATUS
    np.testing.assert_array_equal(y.reshape(5, 20), x)
    for method in ("lines", "columns", "rows"):
        y, sizes = flat(x), {"n0": 3, "n1": 20, "m0": 5, "m1": 20, "i0": 1, "s0": 20}
        kernel = scatter.scatter(D.float32, 2, 0, "add", "place", method, (False, True))
        sizes |= {"i1": 0, "s1": 1, "columns": 16}
        assert run(kernel, index=flat(index), src=flat(src), y=y, **sizes) == scatter.STATUS
        np.testing.assert_array_equal(y.reshape(5, 20), x)
