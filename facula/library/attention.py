"""Attention, embeddings, and small linear algebra in terms of matmul."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail
from facula.ir.dims import product
from facula.ir.program import Value
from facula.ops.attention import attention_, need_groups, weights_shape
from facula.ops.indexing import bags_, index_add_, need_index, take_
from facula.ops.promote import as_value, broadcast_shapes, expand_to, to
from facula.ops.registry import F, Scalar, composite, op

NN = ("nn.functional",)


def _attention_samples(make):
    q, k, v = make(2, 5, 4, 4), make(2, 6, 4, 4), make(2, 6, 4, 3)
    few = make(2, 5, 2, 4), make(2, 5, 2, 3)
    return [
        ((q, k, v), {}),
        ((q, k, v, make(5, 6, grad=False)), {}),
        ((q, k, v), {"is_causal": True, "scale": 0.3}),
        ((q, *few), {"is_causal": True, "enable_gqa": True}),
    ]


@op(spaces=(), samples=_attention_samples)
def attention_core(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value = None,
    is_causal=False,
    scale=None,
    enable_gqa=False,
):
    """Attention over ``[batch, position, heads, size]``, the mask ``[batch, heads, l, s]``."""
    return _attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)


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
    numbers = to(as_value(dropout_p), D.float32), to(seed, D.int64), to(offset, D.int64)
    return _attention(query, key, value, attn_mask, is_causal, scale, enable_gqa, numbers)


def _attention(q, k, v, mask, causal, scale, grouped, dropout=()):
    if causal and mask is not None:
        fail(
            ArgumentError,
            "scaled_dot_product_attention",
            "explicit attn_mask should not be set when is_causal=True",
        )
    q, k, v = _fitting(q, k, v, grouped)
    need_groups(q, k, v)
    masked = mask is not None
    rest = (_fitting_mask(mask, weights_shape(q, k)),) if masked else ()
    y, _ = attention_(
        q,
        k,
        v,
        *rest,
        *dropout,
        causal=bool(causal),
        masked=masked,
        dropout=bool(dropout),
        scale=None if scale is None else float(scale),
    )
    return y


def _fitting_mask(mask, shape):
    name = "scaled_dot_product_attention"
    if mask.dtype.kind not in "bf":
        fail(DtypeError, name, f"expected attn_mask of bool or floats, got {mask.dtype.name}")
    if not broadcast_shapes(mask.shape, shape, name=name) == shape:
        fail(ShapeError, name, f"attn_mask of {tuple(mask.shape)} does not broadcast to {shape}")
    return expand_to(mask, shape)


def _fitting(q, k, v, grouped):
    """Operands with equal batches, and with equal heads unless they come in groups."""
    xs = (q, k, v)
    batch = broadcast_shapes(*((x.shape[0],) for x in xs), name="scaled_dot_product_attention")
    heads = [(x.shape[2],) for x in xs]
    if not grouped:
        heads = [broadcast_shapes(*heads, name="scaled_dot_product_attention")] * 3
    return [expand_to(x, (*batch, x.shape[1], *h, x.shape[3])) for x, h in zip(xs, heads)]


def _looked_up_gradient(g, y, weight, index, *, padding, shared):
    flat = F.reshape(index, (product(index.shape),))
    g = F.reshape(g, (flat.shape[0], weight.shape[1]))
    if padding >= 0:
        g = F.where(F.unsqueeze(F.eq(flat, padding), 1), 0.0, g)
    if shared:
        one = expand_to(to(1, D.int64), flat.shape)
        count = index_add_(F.zeros_of(weight.shape[:1], D.int64), flat, one, dim=0)
        g = g * F.unsqueeze(1.0 / to(take_(count, flat, dim=0), g.dtype), 1)
    return index_add_(F.zeros_of(weight.shape, weight.dtype), flat, g, dim=0), None


#: Rows of a table. A row's gradient, but for that of ``padding``, is the sum of those of the places
#: where it was looked up; ``shared``: their mean.
_looked_up = composite(
    "looked_up",
    lambda weight, index, *, padding, shared: take_(weight, index, dim=0),
    _looked_up_gradient,
)


def _need_table(name, weight):
    if weight.ndim != 2:
        fail(ShapeError, name, "'weight' must be 2-D")


@op(spaces=(), samples=lambda make: [((make(2, 3, dtype=D.int64, low=0, high=5), make(5, 4)), {})])
def embedding_rows(input: Value, weight: Value, padding_idx=-1, scale_grad_by_freq=False):
    """Rows of ``weight`` at the indices ``input``; the row ``padding_idx`` gets no gradient."""
    index = need_index("embedding", input)
    _need_table("embedding", weight)
    if padding_idx < 0 and not scale_grad_by_freq:
        return take_(weight, index, dim=0)
    return _looked_up(weight, index, padding=padding_idx, shared=bool(scale_grad_by_freq))


def _bag_samples(make):
    index, starts = make(6, dtype=D.int64, low=0, high=5), make(3, dtype=D.int64, low=0, high=1)
    return [((make(5, 4), index, starts), {}), ((make(5, 4), index, starts, True), {})]


@op(spaces=(), samples=_bag_samples)
def embedding_bags(input: Value, index: Value, offsets: Value, mean=False, ends=False):
    """Sums (or means) of the rows of a table ``input`` that ``index`` names from each of
    ``offsets`` to the next; the last bag goes to the end, or starts none if ``ends``."""
    _need_table("embedding_bag", input)
    index, offsets = need_index("embedding_bag", index), need_index("embedding_bag", offsets)
    return bags_(input, offsets, index, mean=bool(mean), ends=bool(ends))


# Small linear algebra ----------------------------------------------------------------------------


@op(out="apart", samples=lambda make: [((make(3), make(4)), {})])
def outer(input: Value, vec2: Value):
    """The outer product of two vectors."""
    if input.ndim != 1 or vec2.ndim != 1:
        fail(ShapeError, "outer", f"expected 1-D tensors, got {input.ndim}-D and {vec2.ndim}-D")
    return F.unsqueeze(input, 1) * F.unsqueeze(vec2, 0)


@op(out="exact", samples=lambda make: [((make(5), make(5)), {})])
def dot(input: Value, tensor: Value):
    """The inner product of two vectors."""
    if input.ndim != 1 or tensor.ndim != 1:
        fail(
            ShapeError,
            "dot",
            f"1D tensors expected, but got {input.ndim}D and {tensor.ndim}D tensors",
        )
    return F.matmul(input, tensor)


@op(out="exact", samples=lambda make: [((make(4, 5), make(5)), {})])
def mv(input: Value, vec: Value):
    """Matrix times vector."""
    if input.ndim != 2 or vec.ndim != 1:
        fail(ShapeError, "mv", "expected a matrix and a vector")
    return F.matmul(input, vec)


@op(inplace=True, out="exact", samples=lambda make: [((make(4, 3), make(4, 5), make(5, 3)), {})])
def addmm(input: Value, mat1: Value, mat2: Value, *, beta=1, alpha=1):
    """``beta * input + alpha * (mat1 @ mat2)``."""
    return _added(input, F.mm(mat1, mat2), beta, alpha)


@op(
    inplace=True,
    out="exact",
    samples=lambda make: [((make(2, 4, 3), make(2, 4, 5), make(2, 5, 3)), {})],
)
def baddbmm(input: Value, batch1: Value, batch2: Value, *, beta=1, alpha=1):
    """``beta * input + alpha * (batch1 @ batch2)`` over a batch."""
    return _added(input, F.bmm(batch1, batch2), beta, alpha)


@op(inplace=True, out="exact", samples=lambda make: [((make(4), make(4, 5), make(5)), {})])
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
