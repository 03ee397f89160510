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
    if not (_same(k.shape[::3], q.shape[::3]) and _same(v.shape[:3], k.shape[:3])):
        _misfit(q, k, v)
    if masked and not _same(rest[0].shape, weights_shape(q, k)):
        fail(ShapeError, NAME, f"expected a mask of {weights_shape(q, k)}, got {rest[0].shape}")
    return [(q.dtype, (*q.shape[:3], v.shape[3])), (_sum_dtype(q), weights_shape(q, k)[:3])]


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
    """Refuse heads that do not divide among the keys'; asked once, of symbols by a guard."""
    if k.shape[2] == 0 or not q.shape[2] % k.shape[2] == 0:
        _misfit(q, k, v)


def _flops(q, k, sizes):
    """Of products that sum over, or give, so many numbers for each weight."""
    return 2 * dims.product((*weights_shape(q, k), sizes))


def _same(a, b):
    return len(a) == len(b) and all(m == n for m, n in zip(a, b))


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
            whole = F.where(some, F.div(1, F.where(some, rest, 1.0)), 0.0)
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
    lse = expand_to(to(0, _sum_dtype(q)), weights_shape(q, k)[:3])
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


def _gradient_body(g, q, k, v, *rest, **params):
    m = _Parts(q, k, v, rest, **params)
    g = _turned(g)
    ds = m.of_scores(m.dropped(F.matmul(g, _t(m.v)))) * m.scale
    gk, gv = F.matmul(_t(ds), m.q), F.matmul(_t(m.dropped(m.p)), g)
    return _turned(F.matmul(ds, m.k)), m.folded(gk), m.folded(gv)


def _second_gradient(pull, cotangents, results, g, y, lse, *operands, **params):
    """Of the gradient as a function of g and the operands: y and lse are functions of these."""
    to_g, *others = pull(lambda *xs: _gradient_body(*xs, **params), (g, *operands), cotangents)
    return to_g, None, None, *others


def _draws(node):
    q, k = node.inputs[:2]
    return weights_shape(q, k) if node.params["dropout"] else None


#: q ``[b, l, h, e]``, k ``[b, s, g, e]``, v ``[b, s, g, v]``, if masked a mask ``[b, h, l, s]``,
#: with dropout p (float32), seed and offset. Gives ``[b, l, h, v]``, and ``[b, h, l]``: of each row
#: the logarithm of the sum of exponentials (infinite if it attends to nothing; the result is 0).
attention_ = Primitive(
    "attention", "opaque", _infer, None, _gradient, body=_body, draws=_draws,
    flops=lambda y, q, k, v, *rest, **p: _flops(q, k, q.shape[3] + v.shape[3]),
)  # fmt: skip
#: The cotangents of q, k and v from that of the result, the results, and all operands.
attention_gradient_ = Primitive(
    "attention_gradient",
    "opaque",
    lambda g, y, lse, q, k, v, *rest, **params: [(x.dtype, x.shape) for x in (q, k, v)],
    None,
    pulled=_second_gradient,
    flops=lambda dq, g, y, lse, q, k, v, *rest, **p: _flops(q, k, 3 * q.shape[3] + 2 * v.shape[3]),
)
