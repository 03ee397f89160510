"""Attention in tiles, forward and backward, against the whole matrix of weights in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from running import guarded, run, storage

from facula.base import dtypes as D
from facula.kernels import attention, attention_gradient

#: batch, heads of queries, heads of keys, queries, keys, depth, values
SIZES = [
    (2, 4, 2, 37, 75, 20, 24),
    (1, 2, 2, 16, 130, 64, 64),
    (1, 1, 1, 5, 3, 1, 7),
    (1, 3, 1, 1, 64, 17, 16),
    (2, 1, 1, 3, 0, 4, 4),
]
UNIT = {D.float32: 2.0**-24, D.float64: 2.0**-53, D.bfloat16: 2.0**-8, D.float16: 2.0**-11}


def rows(rng, *shape):
    """Tensors ``[batch, position, heads, size]`` that lie heads first, at the end of memory."""
    b, n, h, c = shape
    return (
        rng.standard_normal((b, h, n, c)).astype("float32").astype("float64").transpose(0, 2, 1, 3)
    )


def stored(x, d):
    """An array of dtype d in the memory order of x, and the values that it stands for."""
    order = np.ascontiguousarray(x.transpose(0, 2, 1, 3)).astype(
        "float32" if d is D.bfloat16 else d.numpy()
    )
    if d is D.bfloat16:
        order = (order.view("uint32") >> 16).astype("uint16")
    return guarded(order.reshape(-1))


def loaded(raw, d):
    if d is D.bfloat16:
        return (raw.astype("uint32") << 16).view("float32").astype("float64")
    return raw.astype("float64")


def arrays_of(q, k, v, rest, causal, masked):
    """q, k, v with heads first and repeated; scores; the scale."""
    rest, groups = list(rest), q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    k, v = np.repeat(k, groups, 1), np.repeat(v, groups, 1)
    scale = 1 / np.sqrt(q.shape[-1])
    s = q @ k.swapaxes(-1, -2) * scale
    if masked:
        mask = rest.pop(0)
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    return q, k, v, s, scale


def row_sums(s):
    high = np.max(s, -1, keepdims=True, initial=-np.inf)
    high = np.where(np.isinf(high), 0, high)
    with np.errstate(divide="ignore"):
        lse = np.log(np.sum(np.exp(s - high), -1, keepdims=True)) + high
    return np.where(np.isneginf(lse), np.inf, lse)


def meaning(q, k, v, *rest, **params):
    _, _, values, s, _ = arrays_of(q, k, v, rest, **params)
    lse = row_sums(s)
    y = np.exp(s - lse) @ values
    return y.transpose(0, 2, 1, 3).astype(q.dtype), lse[..., 0]


def gradient_meaning(g, y, lse, q, k, v, *rest, **params):
    heads = k.shape[2]
    qs, ks, vs, s, scale = arrays_of(q, k, v, rest, **params)
    p, g = np.exp(s - lse[..., None]), g.transpose(0, 2, 1, 3)
    delta = np.sum(g * y.transpose(0, 2, 1, 3), -1, keepdims=True)
    ds = p * (g @ vs.swapaxes(-1, -2) - delta) * scale

    def one_head(x):
        b, h, n, c = x.shape
        return x.reshape(b, heads, h // heads, n, c).sum(2)

    gk, gv = one_head(ds.swapaxes(-1, -2) @ qs), one_head(p.swapaxes(-1, -2) @ g)
    return tuple(x.transpose(0, 2, 1, 3).astype(q.dtype) for x in (ds @ ks, gk, gv))


class Problem:
    """Operands in memory, and what comes out according to the primitives' meaning."""

    def __init__(self, sizes, d=D.float32, causal=False, mask=None):
        self.d, self.causal, self.mask = d, causal, mask
        self.sizes = b, h, hk, n, s, e, v = sizes
        rng = np.random.default_rng(3)
        shapes = {"q": (b, n, h, e), "k": (b, s, hk, e), "v": (b, s, hk, v), "g": (b, n, h, v)}
        self.raw, self.x = {}, {}
        for name, shape in shapes.items():
            self.raw[name] = stored(rows(rng, *shape), d)
            first = shape[0], shape[2], shape[1], shape[3]
            self.x[name] = loaded(self.raw[name], d).reshape(first).transpose(0, 2, 1, 3)
        self.rest = ()
        if mask:
            m = rng.standard_normal((n, s)).astype("float32")
            m = m > -0.5 if mask is D.bool_ else m.astype(d.numpy())
            if mask is D.bool_ and n > 2:
                m[2] = False  # A row that attends to nothing.
            self.raw["mask"] = guarded(m.reshape(-1))
            self.rest = (np.broadcast_to(m, (b, h, n, s)),)
        how = {"causal": causal, "masked": bool(mask)}
        qkv = [self.x[name] for name in "qkv"]
        self.y, self.lse = meaning(*qkv, *self.rest, **how)
        self.grads = gradient_meaning(self.x["g"], self.y, self.lse, *qkv, *self.rest, **how)

    def arguments(self):
        b, h, hk, n, s, e, v = self.sizes
        sizes = {"batch": b, "heads": h, "group": h // hk, "queries": n, "keys": s}
        sizes |= {"depth": e, "values": v, "m_b": 0, "m_h": 0, "m_n": s, "m_k": 1}
        each = {"q": (h, n, e), "k": (hk, s, e), "v": (hk, s, v), "g": (h, n, v)}
        for name, (heads, count, size) in each.items():
            strides = heads * count * size, count * size, size
            sizes |= {f"{name}_{x}": stride for x, stride in zip("bhn", strides)}
        return {**sizes, "y_b": n * h * v, "y_h": v, "y_n": h * v, **self.raw}

    def form(self, vectors, width, rows=1):
        how = self.d, self.mask, True, self.causal, False, None
        return attention.Form(*how, vectors, width, rows)

    def forward(self, vectors, width=64, rows=1):
        wide = D.float32 if self.d.itemsize < 4 else self.d
        y, lse = np.zeros(self.y.size, storage(self.d)), np.zeros(self.lse.size, wide.numpy())
        kernel = attention.build(self.form(vectors, width, rows))
        y = guarded(y)
        assert run(kernel, width, **self.arguments(), y=y, lse=lse) == 0
        return y, lse

    def backward(self, vectors, width=64):
        wide = D.float32 if self.d.itemsize < 4 else self.d
        y = stored(self.y.transpose(0, 2, 1, 3), self.d)  # Contiguous, unlike the operands.
        results = {
            f"g{name}": guarded(np.zeros(self.x[name].size, storage(self.d))) for name in "qkv"
        }
        kernel = attention_gradient.build(self.form(vectors, width))
        lse = self.lse.astype(wide.numpy()).reshape(-1)
        assert run(kernel, width, **self.arguments(), y=y, lse=lse, **results) == 0
        return list(results.values())


FORMS = [
    *itertools.product([(False, None), (True, None), (False, D.bool_), (False, D.float32)], SIZES)
]


@pytest.mark.parametrize(("how", "sizes"), FORMS, ids=str)
def test_forward(how, sizes):
    p = Problem(sizes, D.float32, *how)
    first, lse = p.forward(2)
    keys, depth = p.sizes[4:6]
    bound = (keys + 8 + 4 * (depth + 5)) * 2.0**-24 * 4
    np.testing.assert_allclose(first, p.y.reshape(-1), rtol=0, atol=bound)
    np.testing.assert_allclose(lse, p.lse.reshape(-1), rtol=1e-5, atol=1e-5)
    for form in ((0, 64), (0, 64, 2), (0, 64, 4), (1, 64), (2, 32), (0, 16, 2)):
        y, other = p.forward(*form)
        np.testing.assert_array_equal(y, first)
        np.testing.assert_array_equal(other, lse)


@pytest.mark.parametrize(("how", "sizes"), FORMS, ids=str)
def test_backward(how, sizes):
    p = Problem(sizes, D.float32, *how)
    first = p.backward(2)
    for got, want in zip(first, p.grads):
        np.testing.assert_allclose(got, want.reshape(-1), rtol=2e-5, atol=2e-5)
    for vectors, width in ((1, 64), (2, 16)):
        for a, b in zip(first, p.backward(vectors, width)):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("d", [D.float64, D.float16, D.bfloat16], ids=lambda d: d.name)
def test_dtypes(d):
    p = Problem(SIZES[0], d, True)
    unit = UNIT[d]
    first, _ = p.forward(2)
    np.testing.assert_allclose(loaded(first, d), p.y.reshape(-1), rtol=8 * unit, atol=64 * unit)
    np.testing.assert_array_equal(p.forward(0)[0], first)
    for got, want in zip(p.backward(2), p.grads):
        np.testing.assert_allclose(loaded(got, d), want.reshape(-1), rtol=0, atol=200 * unit)


def test_keys_far_apart_in_size():
    """Rows whose largest score comes late, and scores that would overflow without it."""
    p = Problem((1, 1, 1, 4, 200, 8, 8))
    p.raw["k"] *= np.repeat(np.linspace(1, 400, 200), 8).astype("float32")
    p.x["k"] = p.raw["k"].astype("float64").reshape(1, 200, 1, 8)
    how = {"causal": False, "masked": False}
    want, _ = meaning(p.x["q"], p.x["k"], p.x["v"], **how)
    y, _ = p.forward(2)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y, want.reshape(-1), rtol=0, atol=2e-3)
    np.testing.assert_array_equal(p.forward(0)[0], y)
