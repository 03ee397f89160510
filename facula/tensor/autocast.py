"""Which ops ``autocast`` runs in lower precision, which in float32; see ``facula.amp``.

The functions of these ops, and of no others, look whether it is on before they do anything else.
The lists are those of PyTorch's documentation for the CPU, as far as the names are ops here:
recurrent layers, padding and what runs on the host (decompositions) are left as they are.
"""

from __future__ import annotations

from weakref import ref

from facula.base.dtypes import float32, float64
from facula.eager.grad_mode import capture, mode
from facula.eager.tensor import Tensor

#: One item for each block of ``autocast`` that some thread is in.
on: list = []
LOWER = frozenset(
    """matmul mm bmm addmm baddbmm addbmm linear vecdot conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d prelu attention_core attention_dropout einsum tensordot inner
    chain_matmul multi_dot""".split()
)
FULL = frozenset(
    """avg_pool3d max_pool3d adaptive_avg_pool3d binary_cross_entropy
    binary_cross_entropy_with_logits cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss
    huber_loss kl_div poisson_nll_loss hinge_embedding_loss margin_ranking_loss soft_margin_loss
    cosine_embedding_loss triplet_margin_loss
    prod quantile nanquantile cdist trace""".split()
)


def policy(name):
    """Of an op: whether it runs in lower precision, or None where it is left alone."""
    return True if name in LOWER else False if name in FULL else None


def casted(lower, args):
    """Arguments of an op in the dtype that it runs in."""
    dtype = mode.cast if lower else float32
    return tuple([_casted(x, dtype, lower) for x in args])


def _casted(x, dtype, lower):
    if isinstance(x, Tensor):
        own = x._meta.dtype
        if own is dtype or own is float64 or own.kind != "f":
            return x
        return _kept(x, dtype) if lower else x.to(dtype)
    if isinstance(x, (list, tuple)) and any(isinstance(y, Tensor) for y in x):
        return type(x)([_casted(y, dtype, lower) for y in x])
    return x


def _kept(x, dtype):
    """Weights are converted once while ``autocast`` is on."""
    weight = x._meta.requires_grad and x._grad_fn is None and x._meta.dtype is float32
    if mode.casts is None or not weight or capture.trace is not None:
        return x.to(dtype)
    key = id(x), dtype, mode.grad is not False
    known = mode.casts.get(key)
    if known is None or known[0]() is not x or known[1:3] != (x._ptr, x._storage.version):
        known = mode.casts[key] = ref(x), x._ptr, x._storage.version, x.to(dtype)
    return known[3]


def casting(function, rows, lower):
    """A function of two operands, with its plans, that looks whether ``autocast`` is on."""

    def cast(input, other):  # noqa: A002
        if on and mode.cast is not None:
            return function(*casted(lower, (input, other)))
        try:
            plan = rows[input._meta][other._meta]
        except (KeyError, AttributeError, TypeError):
            return function(input, other)
        return plan(input, other)

    return cast
