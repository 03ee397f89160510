"""Attention, embeddings, recurrent cells, and small linear algebra in terms of matmul."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, ShapeError, fail
from facula.ir.program import Value
from facula.library.shape import index_along
from facula.ops.contraction import swapped
from facula.ops.indexing import need_index, take_
from facula.ops.promote import expand_to, to
from facula.ops.registry import F, Scalar, Tensors, composite, op

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


# Recurrent cells ---------------------------------------------------------------------------------


def _gates(count, x, size):
    """The ``count`` gates side by side in ``x``, each as wide as the hidden state.

    That they are is asked as a question of equal sizes; widths of equal parts of something would
    be expressions that the compiler cannot compare.
    """
    if not x.shape[-1] == count * size:
        fail(
            ShapeError,
            "rnn_cell",
            f"weights give {x.shape[-1]} values, expected {count} times the hidden size {size}",
        )
    return _parts(x, count=count, size=size)


def _part_by_part(x, *, count, size):
    return tuple(F.narrow(x, -1, i * size, size) for i in range(count))


#: Equal parts of the last dimension. Their gradients are joined, where those of slices would each
#: be padded with zeros and added up.
_parts = composite(
    "parts", _part_by_part, lambda g, y, x, *, count, size: (F.cat(list(g), -1),)
)  # fmt: skip


def _cell_samples(gates):
    def samples(make):
        return [
            (
                (
                    make(3, 4),
                    make(3, 5),
                    make(gates * 5, 4),
                    make(gates * 5, 5),
                    make(gates * 5),
                    make(gates * 5),
                ),
                {},
            )
        ]

    return samples


# A step takes its input already multiplied by w_ih: layers do that for all steps in one product.


@op(
    spaces=(),
    samples=lambda make: [((make(3, 20), (make(3, 5), make(3, 5)), make(20, 5), make(20)), {})],
)
def lstm_step(projected: Value, hx: Tensors, w_hh: Value, b_hh: Value = None):
    """One step of an LSTM: (hidden, cell), gates in the order input, forget, cell, output.

    Source: Hochreiter and Schmidhuber (1997), with forget gates (Gers et al., 2000).
    """
    h, c = hx
    i, f, g, o = _gates(4, projected + F.linear(h, w_hh, b_hh), c.shape[-1])
    cell = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
    return F.sigmoid(o) * F.tanh(cell), cell


def _step_samples(gates):
    n = gates * 5
    return lambda make: [((make(3, n), make(3, 5), make(n, 5), make(n)), {})]


@op(spaces=(), samples=_step_samples(3))
def gru_step(projected: Value, hx: Value, w_hh: Value, b_hh: Value = None):
    """One step of a GRU, gates in the order reset, update, new (Cho et al., 2014)."""
    size = hx.shape[-1]
    ri, zi, ni = _gates(3, projected, size)
    rh, zh, nh = _gates(3, F.linear(hx, w_hh, b_hh), size)
    r, z = F.sigmoid(ri + rh), F.sigmoid(zi + zh)
    n = F.tanh(ni + r * nh)
    return (hx - n) * z + n


@op(spaces=(), samples=_step_samples(1))
def rnn_tanh_step(projected: Value, hx: Value, w_hh: Value, b_hh: Value = None):
    """``tanh(projected + w_hh h + b_hh)``."""
    return F.tanh(projected + F.linear(hx, w_hh, b_hh))


@op(spaces=(), samples=_step_samples(1))
def rnn_relu_step(projected: Value, hx: Value, w_hh: Value, b_hh: Value = None):
    """``relu(projected + w_hh h + b_hh)``."""
    return F.relu(projected + F.linear(hx, w_hh, b_hh))


@op(
    spaces=("torch",),
    samples=lambda make: [
        ((make(3, 4), (make(3, 5), make(3, 5)), make(20, 4), make(20, 5), make(20), make(20)), {})
    ],
)
def lstm_cell(
    input: Value, hx: Tensors, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """One step of an LSTM: (hidden, cell); see ``lstm_step``."""
    return lstm_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh)


@op(spaces=("torch",), samples=_cell_samples(3))
def gru_cell(
    input: Value, hx: Value, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """One step of a GRU; see ``gru_step``."""
    return gru_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh)


@op(spaces=("torch",), samples=_cell_samples(1))
def rnn_tanh_cell(
    input: Value, hx: Value, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """``tanh(w_ih x + b_ih + w_hh h + b_hh)``."""
    return rnn_tanh_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh)


@op(spaces=("torch",), samples=_cell_samples(1))
def rnn_relu_cell(
    input: Value, hx: Value, w_ih: Value, w_hh: Value, b_ih: Value = None, b_hh: Value = None
):
    """``relu(w_ih x + b_ih + w_hh h + b_hh)``."""
    return rnn_relu_step(F.linear(input, w_ih, b_ih), hx, w_hh, b_hh)


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
