"""Multi-head attention."""

import math

import facula.nn.functional as F
from facula.nn import init
from facula.nn.modules.linear import Linear
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import cat, empty, zeros, zeros_like

__all__ = ["MultiheadAttention"]


def _as_float_mask(mask, dtype):
    """A mask to add to scores: a boolean mask becomes minus infinity where it is True."""
    if mask is None or mask.is_floating_point():
        return mask
    return zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


class MultiheadAttention(Module):
    """Attention of several heads, each in ``embed_dim / num_heads`` dimensions (Vaswani, 2017).

    Args:
        embed_dim: the size E of queries and outputs.
        num_heads: the number of heads.
        dropout: the probability to drop an attention weight, in training mode.
        bias: whether the projections have biases.
        add_bias_kv: add one learned key and value to each sequence.
        add_zero_attn: add one key and value of zeros to each sequence.
        kdim, vdim: sizes of keys and values; E where left out.
        batch_first: whether tensors are ``(N, L, E)`` instead of ``(L, N, E)``.

    >>> from facula import nn, randn
    >>> x = randn(2, 5, 8)
    >>> output, weights = nn.MultiheadAttention(8, 2, batch_first=True)(x, x, x)
    >>> tuple(output.shape), tuple(weights.shape)
    ((2, 5, 8), (2, 5, 5))
    """

    def __init__(
        self,
        embed_dim,
        num_heads,
        dropout=0.0,
        bias=True,
        add_bias_kv=False,
        add_zero_attn=False,
        kdim=None,
        vdim=None,
        batch_first=False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                "embed_dim and num_heads must be greater than 0, got "
                f"embed_dim={embed_dim} and num_heads={num_heads} instead"
            )
        if embed_dim % num_heads != 0:
            raise AssertionError("embed_dim must be divisible by num_heads")
        place = {"device": device, "dtype": dtype}
        self.embed_dim = embed_dim
        self.kdim = kdim if kdim is not None else embed_dim
        self.vdim = vdim if vdim is not None else embed_dim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn

        def weight(name, wanted, *shape):
            self.register_parameter(name, Parameter(empty(*shape, **place)) if wanted else None)

        apart = not self._qkv_same_embed_dim
        weight("q_proj_weight", apart, embed_dim, embed_dim)
        weight("k_proj_weight", apart, embed_dim, self.kdim)
        weight("v_proj_weight", apart, embed_dim, self.vdim)
        weight("in_proj_weight", not apart, 3 * embed_dim, embed_dim)
        weight("in_proj_bias", bias, 3 * embed_dim)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, **place)
        weight("bias_k", add_bias_kv, 1, 1, embed_dim)
        weight("bias_v", add_bias_kv, 1, 1, embed_dim)
        self._reset_parameters()

    def _reset_parameters(self):
        for weight in (
            self.in_proj_weight,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
        ):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
            init.xavier_normal_(self.bias_v)

    def _project(self, query, key, value):
        """Queries, keys and values of all heads, ``(N, L, E)`` each."""
        if self._qkv_same_embed_dim and query is key and key is value:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(
            F.linear(input, weight, bias)
            for input, weight, bias in zip((query, key, value), weights, biases)
        )

    def _appended(self, keys, values, masks):
        """Append the learned and the zero key and value; masks let them through."""
        n, _, e = keys.shape
        extra = []
        if self.bias_k is not None:
            extra.append((self.bias_k.expand(n, 1, e), self.bias_v.expand(n, 1, e)))
        if self.add_zero_attn:
            blank = zeros(n, 1, e, dtype=keys.dtype, device=keys.device)
            extra.append((blank, blank))
        for key, value in extra:
            keys, values = cat([keys, key], dim=1), cat([values, value], dim=1)
        if extra:
            masks = [None if mask is None else F.pad(mask, (0, len(extra))) for mask in masks]
        return keys, values, masks

    def _merged_mask(self, attn_mask, key_padding_mask, n, n_queries, n_keys, dtype):
        """The two masks as one to add to scores ``(N, heads, L, S)``, or None."""
        attn_mask = _as_float_mask(attn_mask, dtype)
        key_padding_mask = _as_float_mask(key_padding_mask, dtype)
        if attn_mask is not None:
            expected = [(n_queries, n_keys), (n * self.num_heads, n_queries, n_keys)]
            if tuple(attn_mask.shape) not in expected:
                raise RuntimeError(
                    f"The shape of the {attn_mask.ndim}D attn_mask is {tuple(attn_mask.shape)}, "
                    f"but should be {expected[0]} or {expected[1]}."
                )
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.reshape(n, self.num_heads, n_queries, n_keys)
        if key_padding_mask is None:
            return attn_mask
        key_padding_mask = key_padding_mask.reshape(n, 1, 1, n_keys)
        return key_padding_mask if attn_mask is None else attn_mask + key_padding_mask

    def _heads(self, tensor):
        """``(N, L, E)`` as ``(N, heads, L, E / heads)``."""
        n, length, _ = tensor.shape
        return tensor.reshape(n, length, self.num_heads, self.head_dim).transpose(1, 2)

    def _attend(self, q, k, v, mask, is_causal, need_weights):
        """Outputs ``(N, heads, L, E / heads)`` and, if needed, weights ``(N, heads, L, S)``."""
        drop = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(q, k, v, mask, drop, is_causal), None
        scores = (q * (1.0 / math.sqrt(self.head_dim))) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores + mask
        weights = F.softmax(scores, dim=-1)
        if drop > 0.0:
            weights = F.dropout(weights, p=drop)
        return weights @ v, weights

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        """Attend from ``query`` to ``key`` and return what ``value`` holds there.

        Args:
            query: ``(L, N, E)``, or ``(N, L, E)`` if ``batch_first``, or ``(L, E)``.
            key, value: the same with S for L.
            key_padding_mask: ``(N, S)``; keys where it is True are ignored, or it is added.
            need_weights: whether to return the attention weights; it is faster without.
            attn_mask: ``(L, S)`` or ``(N * heads, L, S)``, as ``key_padding_mask``.
            average_attn_weights: whether to return the mean of the heads' weights.
            is_causal: a hint that ``attn_mask`` is causal; the mask must be given too.

        Returns:
            The output, shaped as ``query``, and the weights ``(N, L, S)`` or None.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.ndim == 3
        same = query is key and key is value
        if not batched:
            query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        if same:  # Seen by _project, which then needs one matmul instead of three.
            key = value = query
        n, n_queries, _ = query.shape

        q, k, v = self._project(query, key, value)
        masks = [attn_mask, key_padding_mask]
        n_given = k.shape[1]
        k, v, (attn_mask, key_padding_mask) = self._appended(k, v, masks)
        # The hint is worth following only where the mask says no more than it.
        only_causal = (
            is_causal
            and key_padding_mask is None
            and not need_weights
            and n_given == k.shape[1] == n_queries
        )
        mask = None
        if not only_causal:
            mask = self._merged_mask(
                attn_mask, key_padding_mask, n, n_queries, k.shape[1], query.dtype
            )
        output, weights = self._attend(
            self._heads(q), self._heads(k), self._heads(v), mask, only_causal, need_weights
        )
        output = output.transpose(1, 2).reshape(n, n_queries, self.embed_dim)
        output = self.out_proj(output)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights


def multi_head_attention_forward(
    query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v,
    add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, training=True, key_padding_mask=None,
    need_weights=True, attn_mask=None, use_separate_proj_weight=False, q_proj_weight=None,
    k_proj_weight=None, v_proj_weight=None, static_k=None, static_v=None,
    average_attn_weights=True, is_causal=False,
):  # fmt: skip
    """What :class:`MultiheadAttention` computes, of weights that are given.

    Shapes: query ``(L, N, E)`` or ``(L, E)``, key and value the same with S for L.
    """
    if query.shape[-1] != embed_dim_to_check:
        raise AssertionError(
            f"was expecting embedding dimension of {embed_dim_to_check}, but got {query.shape[-1]}"
        )
    if static_k is not None or static_v is not None:
        raise NotImplementedError("multi_head_attention_forward: static keys are not supported")
    layer = MultiheadAttention.__new__(MultiheadAttention)
    Module.__init__(layer)
    layer.training = training
    vars(layer).update(
        embed_dim=embed_dim_to_check, num_heads=num_heads, dropout=dropout_p, batch_first=False,
        head_dim=embed_dim_to_check // num_heads, add_zero_attn=add_zero_attn,
        _qkv_same_embed_dim=not use_separate_proj_weight, in_proj_weight=in_proj_weight,
        in_proj_bias=in_proj_bias, bias_k=bias_k, bias_v=bias_v, q_proj_weight=q_proj_weight,
        k_proj_weight=k_proj_weight, v_proj_weight=v_proj_weight,
        out_proj=lambda x: F.linear(x, out_proj_weight, out_proj_bias),
    )  # fmt: skip
    return layer.forward(
        query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights,
        is_causal,
    )  # fmt: skip


# It is built on the layer, and shown beside the other functionals.
F.multi_head_attention_forward = multi_head_attention_forward
