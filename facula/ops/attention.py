"""Attention as primitives: the forward pass, which keeps a logarithm a row, and its gradient.

Tensors stand as ``[batch, position, heads, size]``, which is how projections give them. Both have
kernels written by hand; what they stand for in ordinary ops, which is also what is exported and
differentiated a second time, is said here beside them.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DtypeError, ShapeError, fail
from facula.ir import dims
from facula.ops import random as R
from facula.ops.movement import permute_
from facula.ops.promote import expand_to, to
from facula.ops.reduce import size_value, sum_
from facula.ops.registry import F, Primitive

NAME = "scaled_dot_product_attention"


def _sum_dtype(q):
    return D.float32 if q.dtype in (D.float16, D.bfloat16) else q.dtype


def weights_shape(q, k) -> tuple:
    """The shape of the matrix of weights, ``[batch, heads, queries, keys]``."""
    return (q.shape[0], q.shape[2], q.shape[1], k.shape[1])


def _infer(q, k, v, *rest, masked, dropout, **params):
    if not q.ndim == k.ndim == v.ndim == 4:
        fail(ShapeError, NAME, f"expected 4 dimensions, got {q.ndim}, {k.ndim} and {v.ndim}")
    if not (q.dtype is k.dtype is v.dtype and q.dtype.is_floating_point):
        names = ", ".join(x.dtype.name for x in (q, k, v))
        fail(
            DtypeError, NAME,
            f"Expected query, key, and value to have the same floating-point dtype, got {names}",
        )  # fmt: skip
    fits = k.shape[0] == q.shape[0] and _same(v.shape[:3], k.shape[:3]) and k.shape[3] == q.shape[3]
    if not fits:
        _misfit(q, k, v)
    if masked and not _same(rest[0].shape, weights_shape(q, k)):
        fail(ShapeError, NAME, f"expected a mask of {weights_shape(q, k)}, got {rest[0].shape}")
    batch, queries, heads, _ = q.shape
    return [
        (q.dtype, (batch, queries, heads, v.shape[3])),
        (_sum_dtype(q), (batch, heads, queries)),
    ]


def _misfit(q, k, v):
    shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
    fail(
        ShapeError,
        NAME,
        f"query, key and value do not fit: {shapes}",
        "[batch, position, heads, size]: equal batches, query and key sizes; as many keys as "
        "values; query heads a multiple of key heads",
    )


def need_groups(q, k, v) -> None:
    """Refuse heads of queries that do not divide among those of the keys.

    Not asked by the inference of types, as no later pass could answer it for symbols.
    """
    if k.shape[2] == 0 or not q.shape[2] % k.shape[2] == 0:
        _misfit(q, k, v)


def _flops(q, k, sizes):
    """Of products that sum over, or give, so many numbers for each weight."""
    return 2 * dims.product((*weights_shape(q, k), sizes))


def _same(a, b):
    return len(a) == len(b) and all(m == n for m, n in zip(a, b))


# What it means -----------------------------------------------------------------------------------


def _arrays(np, q, k, v, rest, causal, masked, dropout, scale):
    """q, k, v with heads first and repeated; scores; what dropout leaves; the scale."""
    rest, groups = list(rest), q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    k, v = np.repeat(k, groups, 1), np.repeat(v, groups, 1)
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    s = q @ k.swapaxes(-1, -2) * scale
    if masked:
        mask = rest.pop(0)
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    left = np.ones_like(s)
    if dropout:
        p, seed, offset = rest
        position = np.arange(s.size).reshape(s.shape)
        bits = R.random_bits.meaning(np, position, seed, offset, word=0)
        u = (bits & ((1 << 24) - 1)) * 2.0**-24
        left = np.where(u >= p, 1 / (1 - p) if p < 1 else 0.0, 0.0)
    return q, k, v, s, left, scale


def _row_sums(np, s):
    high = np.max(s, -1, keepdims=True, initial=-np.inf)
    high = np.where(np.isinf(high), 0, high)
    with np.errstate(divide="ignore"):
        lse = np.log(np.sum(np.exp(s - high), -1, keepdims=True)) + high
    return np.where(np.isneginf(lse), np.inf, lse)


def _meaning(np, q, k, v, *rest, **params):
    _, _, values, s, left, _ = _arrays(np, q, k, v, rest, **params)
    lse = _row_sums(np, s)
    y = (np.exp(s - lse) * left) @ values
    return y.transpose(0, 2, 1, 3).astype(q.dtype), lse[..., 0]


def _gradient_meaning(np, g, y, lse, q, k, v, *rest, **params):
    heads = k.shape[2]
    dtype, qs, ks, vs, s, left, scale = q.dtype, *_arrays(np, q, k, v, rest, **params)
    p, g = np.exp(s - lse[..., None]), g.transpose(0, 2, 1, 3)
    delta = np.sum(g * y.transpose(0, 2, 1, 3), -1, keepdims=True)
    ds = p * (left * (g @ vs.swapaxes(-1, -2)) - delta) * scale

    def one_head(x):
        b, h, n, c = x.shape
        return x.reshape(b, heads, h // heads, n, c).sum(2)

    gk, gv = one_head(ds.swapaxes(-1, -2) @ qs), one_head((p * left).swapaxes(-1, -2) @ g)
    return tuple(x.transpose(0, 2, 1, 3).astype(dtype) for x in (ds @ ks, gk, gv))


# In ordinary ops ----------------------------------------------------------------------------------


def _turned(x):
    """Heads before positions, or back."""
    return permute_(x, order=(0, 2, 1, 3))


def _t(x):
    return permute_(x, order=(0, 1, 3, 2))


class _Parts:
    """Attention as matrices ``[batch, heads, ., .]``, heads of keys repeated."""

    def __init__(self, q, k, v, rest, causal, masked, dropout, scale):
        self.groups = q.shape[2] // k.shape[2]
        shape = weights_shape(q, k)
        rest = list(rest)
        self.q, self.k, self.v = _turned(q), self.repeated(k), self.repeated(v)
        if scale is None:
            scale = F.rsqrt(size_value(q.shape[3], q.dtype))
        self.scale = scale
        scores = F.matmul(self.q, _t(self.k)) * scale
        mask = rest.pop(0) if masked else None
        if causal:
            row, column = (R.positions(shape=(n,)) for n in shape[2:])
            row = F.reshape(row, (shape[2], 1))
            scores = F.where(F.le(column, row), scores, float("-inf"))
        if masked:
            bools = mask.dtype is D.bool_
            scores = F.where(mask, scores, float("-inf")) if bools else scores + to(mask, q.dtype)
        self.p = F.softmax(scores, -1)
        if masked:
            nothing = F.eq(F.amax(scores, -1, True), float("-inf"))
            self.p = F.where(nothing, 0.0, self.p)
        self.left = None
        if dropout:
            p, seed, offset = rest
            rest = 1.0 - p
            some = F.gt(rest, 0.0)
            whole = F.where(some, F.reciprocal(F.where(some, rest, 1.0)), 0.0)
            kept = F.ge(R.uniform(shape, D.float32, seed, offset), p)
            self.left = to(F.where(kept, whole, 0.0), q.dtype)

    def repeated(self, x):
        x = _turned(x)
        if isinstance(self.groups, int) and self.groups == 1:
            return x
        b, h, n, c = x.shape
        x = expand_to(F.reshape(x, (b, h, 1, n, c)), (b, h, self.groups, n, c))
        return F.reshape(x, (b, h * self.groups, n, c))

    def folded(self, x):
        """The transpose of :meth:`repeated`."""
        if isinstance(self.groups, int) and self.groups == 1:
            return _turned(x)
        b, h, n, c = x.shape
        x = F.reshape(x, (b, h // self.groups, self.groups, n, c))
        return _turned(sum_(x, dims=(2,)))

    def dropped(self, x):
        return x if self.left is None else x * self.left

    def of_scores(self, dp):
        """The cotangent of the scores from that of the weights."""
        return self.p * (dp - F.sum(self.p * dp, -1, True))


def _body(q, k, v, *rest, **params):
    parts = _Parts(q, k, v, rest, **params)
    y = F.matmul(parts.dropped(parts.p), parts.v)
    # The logarithms are for the kernel of the gradient alone, which this has no part in.
    lse = expand_to(to(0, _sum_dtype(q)), (q.shape[0], q.shape[2], q.shape[1]))
    return _turned(y), lse


def _gradient(gs, ys, q, k, v, *rest, **params):
    grads = list(attention_gradient_(gs[0], *ys, q, k, v, *rest, **params))
    if params["masked"]:
        grads.append(None)
        if rest[0].dtype.is_floating_point:
            # Of use to few, and dropped where nobody wants it.
            parts = _Parts(q, k, v, rest, **params)
            dp = parts.dropped(F.matmul(_turned(gs[0]), _t(parts.v)))
            grads[-1] = to(parts.of_scores(dp), rest[0].dtype)
    return (*grads, *(None,) * (3 + len(rest) - len(grads)))


def _second_gradient(cotangents, results, g, y, lse, q, k, v, *rest, **params):
    """Of the gradient as a function of g, q, k and v: y and lse are functions of these."""
    m = _Parts(q, k, v, rest, **params)
    g, scale = _turned(g), m.scale
    a, b, c = _turned(cotangents[0]), m.repeated(cotangents[1]), m.repeated(cotangents[2])
    dp = m.dropped(F.matmul(g, _t(m.v)))
    ds = m.of_scores(dp) * scale
    # The scores' cotangent ds goes to gq = ds k and gk = ds.T q, the weights' to gv = w.T g.
    to_ds = (F.matmul(a, _t(m.k)) + F.matmul(m.q, _t(b))) * scale
    delta = F.sum(m.p * dp, -1, True)
    shift = F.sum(to_ds * m.p, -1, True)
    to_p = to_ds * (dp - delta) - shift * dp + m.dropped(F.matmul(g, _t(c)))
    to_w = m.dropped(m.p * (to_ds - shift))
    to_s = m.of_scores(to_p) * scale
    to_g = F.matmul(m.dropped(m.p), c) + F.matmul(to_w, m.v)
    to_q = F.matmul(ds, b) + F.matmul(to_s, m.k)
    to_k = F.matmul(_t(ds), a) + F.matmul(_t(to_s), m.q)
    to_v = F.matmul(_t(to_w), g)
    grads = [_turned(to_g), None, None, _turned(to_q), m.folded(to_k), m.folded(to_v)]
    if params["masked"] and rest[0].dtype.is_floating_point:
        grads.append(to(m.of_scores(to_p), rest[0].dtype))
    return (*grads, *(None,) * (6 + len(rest) - len(grads)))


def _draws(node):
    q, k = node.inputs[:2]
    return weights_shape(q, k) if node.params["dropout"] else None


#: q ``[b, l, h, e]``, k ``[b, s, g, e]``, v ``[b, s, g, v]``, if masked a mask ``[b, h, l, s]``,
#: with dropout p (float32), seed and offset. Gives ``[b, l, h, v]``, and ``[b, h, l]``: of each row
#: the logarithm of the sum of exponentials (infinite if it attends to nothing; the result is 0).
attention_ = Primitive(
    "attention", "opaque", _infer, _meaning, _gradient, body=_body, draws=_draws,
    flops=lambda y, q, k, v, *rest, **p: _flops(q, k, q.shape[3] + v.shape[3]),
)  # fmt: skip
#: The cotangents of q, k and v from that of the result, the results, and all operands.
attention_gradient_ = Primitive(
    "attention_gradient",
    "opaque",
    lambda g, y, lse, q, k, v, *rest, **params: [(x.dtype, x.shape) for x in (q, k, v)],
    _gradient_meaning,
    _second_gradient,
    flops=lambda dq, g, y, lse, q, k, v, *rest, **p: _flops(q, k, 3 * q.shape[3] + 2 * v.shape[3]),
)
