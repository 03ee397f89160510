"""Attention, embeddings, and small linear algebra in terms of matmul."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, ShapeError, fail
from facula.ir.program import Value
from facula.library.shape import index_along
from facula.ops.contraction import swapped
from facula.ops.indexing import need_index, take_
from facula.ops.promote import expand_to, to
from facula.ops.registry import F, Scalar, op

NN = ("nn.functional",)


@op(
    spaces=(),
    samples=lambda make: [
        ((make(2, 3, 5, 4), make(2, 3, 6, 4), make(2, 3, 6, 4)), {}),
        ((make(2, 3, 5, 4), make(2, 3, 5, 4), make(2, 3, 5, 4)), {"is_causal": True}),
    ],
)
def attention_core(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value = None,
    is_causal=False,
    scale=None,
    enable_gqa=False,
):
    """``softmax(query @ key.T * scale + mask) @ value`` without dropout."""
    return F.matmul(
        _weights(query, key, attn_mask, is_causal, scale, enable_gqa),
        _heads(value, query, enable_gqa),
    )


def _heads(x, query, enable_gqa):
    """Key or value heads repeated to the number of query heads."""
    if not enable_gqa or x.shape[-3] == query.shape[-3]:
        return x
    groups = query.shape[-3] // x.shape[-3]
    x = F.unsqueeze(x, -3)
    x = expand_to(x, (*x.shape[:-3], groups, *x.shape[-2:]))
    return F.flatten(x, -4, -3)


def _weights(query, key, attn_mask, is_causal, scale, enable_gqa):
    for name, x in (("query", query), ("key", key)):
        if x.ndim < 2:
            fail(
                ShapeError,
                "scaled_dot_product_attention",
                f"expected {name} to be at least 2 dimensional, got {x.ndim}D",
            )
    if is_causal and attn_mask is not None:
        fail(
            ArgumentError,
            "scaled_dot_product_attention",
            "explicit attn_mask should not be set when is_causal=True",
        )
    if scale is None:
        scale = F.rsqrt(to(F.size_of(query, query.ndim - 1), query.dtype))
    key = _heads(key, query, enable_gqa)
    scores = F.matmul(query, swapped(key)) * scale
    if is_causal:
        row, column = index_along(scores, scores.ndim - 2), index_along(scores, scores.ndim - 1)
        scores = F.where(F.le(column, row), scores, float("-inf"))
    elif attn_mask is not None:
        if attn_mask.dtype is D.bool_:
            scores = F.where(attn_mask, scores, float("-inf"))
        else:
            scores = scores + attn_mask
    weights = F.softmax(scores, -1)
    if attn_mask is not None and attn_mask.dtype is D.bool_:
        weights = F.where(F.any(attn_mask, -1, True), weights, 0.0)
    return weights


@op(spaces=(), random=True)
def attention_dropout(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value = None,
    dropout_p: Scalar = 0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    seed: Scalar,
    offset: Scalar,
):
    """``attention_core`` with dropout on the weights."""
    weights = _weights(query, key, attn_mask, is_causal, scale, enable_gqa)
    dropped = F.dropout_train(weights, dropout_p, seed=seed, offset=offset)
    return F.matmul(dropped, _heads(value, query, enable_gqa))


@op(spaces=(), samples=lambda make: [((make(2, 3, dtype=D.int64, low=0, high=5), make(5, 4)), {})])
def embedding_rows(input: Value, weight: Value, padding_idx=-1):
    """Rows of ``weight`` at the indices ``input``; the row ``padding_idx`` gets no gradient."""
    index = need_index("embedding", input)
    if weight.ndim != 2:
        fail(ShapeError, "embedding", "'weight' must be 2-D")
    if padding_idx >= 0:
        rows = index_along(F.narrow(weight, 1, 0, 1), 0)
        weight = F.where(F.eq(rows, padding_idx), F.stop(weight), weight)
    return take_(weight, index, dim=0)


# Small linear algebra ----------------------------------------------------------------------------


@op(out=True, samples=lambda make: [((make(3), make(4)), {})])
def outer(input: Value, vec2: Value):
    """The outer product of two vectors."""
    if input.ndim != 1 or vec2.ndim != 1:
        fail(ShapeError, "outer", f"expected 1-D tensors, got {input.ndim}-D and {vec2.ndim}-D")
    return F.unsqueeze(input, 1) * F.unsqueeze(vec2, 0)


@op(out=True, samples=lambda make: [((make(5), make(5)), {})])
def dot(input: Value, tensor: Value):
    """The inner product of two vectors."""
    if input.ndim != 1 or tensor.ndim != 1:
        fail(
            ShapeError,
            "dot",
            f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors",
        )
    return F.matmul(input, tensor)


@op(out=True, samples=lambda make: [((make(4, 5), make(5)), {})])
def mv(input: Value, vec: Value):
    """Matrix times vector."""
    if input.ndim != 2 or vec.ndim != 1:
        fail(ShapeError, "mv", "expected a matrix and a vector")
    return F.matmul(input, vec)


@op(inplace=True, out=True, samples=lambda make: [((make(4, 3), make(4, 5), make(5, 3)), {})])
def addmm(input: Value, mat1: Value, mat2: Value, *, beta=1, alpha=1):
    """``beta * input + alpha * (mat1 @ mat2)``."""
    return _added(input, F.mm(mat1, mat2), beta, alpha)


@op(
    inplace=True,
    out=True,
    samples=lambda make: [((make(2, 4, 3), make(2, 4, 5), make(2, 5, 3)), {})],
)
def baddbmm(input: Value, batch1: Value, batch2: Value, *, beta=1, alpha=1):
    """``beta * input + alpha * (batch1 @ batch2)`` over a batch."""
    return _added(input, F.bmm(batch1, batch2), beta, alpha)


@op(inplace=True, out=True, samples=lambda make: [((make(4), make(4, 5), make(5)), {})])
def addmv(input: Value, mat: Value, vec: Value, *, beta=1, alpha=1):
    """``beta * input + alpha * (mat @ vec)``."""
    return _added(input, F.mv(mat, vec), beta, alpha)


@op(inplace=True, out=True, samples=lambda make: [((make(4, 5), make(4), make(5)), {})])
def addr(input: Value, vec1: Value, vec2: Value, *, beta=1, alpha=1):
    """``beta * input + alpha * outer(vec1, vec2)``."""
    return _added(input, F.outer(vec1, vec2), beta, alpha)


def _added(input, product, beta, alpha):
    product = product if alpha == 1 else product * alpha
    if beta == 0:
        return product
    return (input if beta == 1 else input * beta) + product


@op(
    spaces=("nn.functional",),
    samples=lambda make: [((make(4, 3), make(4, 5), make(2, 3, 5), make(2)), {})],
)
def bilinear(input1: Value, input2: Value, weight: Value, bias: Value = None):
    """``input1 @ weight[k] @ input2`` for each output k."""
    left = F.matmul(
        F.unsqueeze(input1, -2),
        F.reshape(F.permute(weight, 1, 0, 2), (weight.shape[1], weight.shape[0] * weight.shape[2])),
    )
    left = F.reshape(left, (*input1.shape[:-1], weight.shape[0], weight.shape[2]))
    y = F.squeeze(F.matmul(left, F.unsqueeze(input2, -1)), -1)
    return y if bias is None else y + bias


@op(samples=lambda make: [((make(4, 3), make(5, 3)), {})])
def cdist(x1: Value, x2: Value, p=2.0, compute_mode=None):
    """p-norm distances between all rows of two matrices (batches broadcast)."""
    return F.vector_norm(F.unsqueeze(x1, -2) - F.unsqueeze(x2, -3), p, -1)
