"""Functional interface of networks: PyTorch's ``torch.nn.functional``.

Most names are ops of the registry with the space "nn.functional", made when first asked for. What
is written here decides in Python (training or not) which op to call.
"""

from __future__ import annotations

import math

from facula.base.dtypes import int64
from facula.base.errors import ArgumentError, ShapeError, fail
from facula.eager.tensor import need_tensor
from facula.library.activation import need_probability
from facula.nn.composed import (  # noqa: F401  shown here
    ctc_loss,
    embedding_bag,
    fold,
    fractional_max_pool2d,
    fractional_max_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    pdist,
    unfold,
)
from facula.nn.interpolation import (  # noqa: F401  shown here
    affine_grid,
    interpolate,
    upsample,
    upsample_bilinear,
    upsample_nearest,
)
from facula.ops.promote import broadcast_shapes
from facula.ops.registry import OPS
from facula.tensor.functions import function_of, names_in

_names = names_in("nn.functional")


def __getattr__(name):
    make = _names.get(name)
    if make is None:
        raise AttributeError(f"module 'facula.nn.functional' has no attribute {name!r}")
    made = globals()[name] = make()
    return made


def __dir__():
    return sorted({*globals(), *_names})


def _op(name, into=""):
    return function_of(OPS[name], into)


# Dropout -----------------------------------------------------------------------------------------


def _dropped(name, input, p, training, inplace, *more):
    need_probability(name, p)
    if not training or p == 0 and not inplace:
        return input
    result = _op(name)(input, float(p), *more)
    return input.copy_(result) if inplace else result


def dropout(input, p=0.5, training=True, inplace=False):
    """Elements set to 0 with probability ``p`` (and the others scaled) while training."""
    return _dropped("dropout_train", input, p, training, inplace)


def alpha_dropout(input, p=0.5, training=False, inplace=False):
    """Dropout that keeps the mean and variance of SELU outputs."""
    return _dropped("alpha_dropout_train", input, p, training, inplace)


def _channels(rank):
    def function(input, p=0.5, training=True, inplace=False):
        batched = input.ndim != rank + 1
        return _dropped("feature_dropout_train", input, p, training, inplace, 2 if batched else 1)

    function.__name__ = f"dropout{rank}d"
    function.__doc__ = f"Whole channels of ``[n, c, ...]`` ({rank} spatial) dropped while training."
    return function


dropout1d, dropout2d, dropout3d = map(_channels, (1, 2, 3))


def feature_alpha_dropout(input, p=0.5, training=False, inplace=False):
    """Alpha dropout of whole channels."""
    need_probability("feature_alpha_dropout", p)
    if not training:
        return input
    low = -1.7580993408473766
    ones = input.new_ones((*input.shape[:2], *(1,) * (input.ndim - 2)))
    keep = _op("dropout_train")(ones, float(p)) != 0
    a = ((1 - p) * (1 + p * low * low)) ** -0.5 if p < 1 else 0.0
    result = input.where(keep, low) * a - a * p * low
    return input.copy_(result) if inplace else result


def rrelu(input, lower=1.0 / 8, upper=1.0 / 3, training=False, inplace=False):
    """Leaky ReLU, its slope random per element while training, else the middle."""
    if lower > upper:
        fail(ArgumentError, "rrelu", f"lower {lower} is larger than upper {upper}")
    if training:
        result = _op("rrelu_train")(input, float(lower), float(upper))
    else:
        result = _op("leaky_relu")(input, (lower + upper) / 2)
    return input.copy_(result) if inplace else result


def gumbel_softmax(logits, tau=1, hard=False, eps=1e-10, dim=-1):
    """A sample of the Gumbel-softmax distribution; ``hard`` gives one-hot with soft gradients."""
    noise = _op("gumbel_noise")(logits.detach())
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    index = soft.argmax(dim, True)
    one = soft.detach().mul(0).scatter(dim, index, 1.0)
    return one - soft.detach() + soft


# Normalisation -----------------------------------------------------------------------------------


def batch_norm(
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-05,
):
    """Channels standardised over the batch (training) or by running statistics.

    Shapes: input ``[n, c, ...]``, all else ``[c]``. Training updates the running statistics in
    place, with the unbiased variance. Source: Ioffe and Szegedy (2015).
    """
    if input.ndim < 2:
        fail(ShapeError, "batch_norm", f"expected at least a 2D input, got {input.ndim}D")
    if not training:
        if running_mean is None or running_var is None:
            fail(ArgumentError, "batch_norm", "running statistics are needed when not training")
        return _op("batch_norm_eval")(input, running_mean, running_var, weight, bias, eps=eps)
    count = input.numel() // max(input.shape[1], 1)
    if count == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    y, mean, var = _op("batch_norm_train")(input, weight, bias, eps=eps)
    if running_mean is not None:
        _op("running", "self")(running_mean, mean, float(momentum))
        _op("running", "self")(running_var, var, float(momentum))
    return y


def instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-05,
):
    """Each channel of each sample standardised over its spatial dimensions."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    n, c = input.shape[:2]
    if math.prod(input.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {input.shape}"
        )
    folded = input.reshape(1, n * c, *input.shape[2:])
    y, mean, var = _op("batch_norm_train")(folded, None, None, eps=eps)
    if running_mean is not None:
        _op("running", "self")(running_mean, mean.view(n, c).mean(0), float(momentum))
        _op("running", "self")(running_var, var.view(n, c).mean(0), float(momentum))
    y = y.reshape(input.shape)
    shape = (1, -1, *(1,) * (input.ndim - 2))
    if weight is not None:
        y = y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


# A recurrent layer in one direction.
recurrent = _op("recurrent")


# Embeddings and attention -------------------------------------------------------------------------


def embedding(
    input,
    weight,
    padding_idx=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    sparse=False,
):
    """Rows of ``weight`` ``[rows, d]`` at int64 indices of any shape.

    The gradient is dense, also with ``sparse``; ``scale_grad_by_freq`` makes a row's the mean over
    the places where it was looked up.

    Raises:
        IndexError: an index out of range.
    """
    rows = weight.shape[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            fail(ArgumentError, "embedding", "Padding_idx must be within num_embeddings")
        padding_idx = padding_idx % rows
    if max_norm is not None:
        _renormalise(weight, input, max_norm, norm_type)
    padding_idx = -1 if padding_idx is None else padding_idx
    return _op("embedding_rows")(input, weight, padding_idx, bool(scale_grad_by_freq))


def _renormalise(weight, input, max_norm, norm_type):
    """Scale the rows that are looked up down to ``max_norm``, in place."""
    data = weight.detach()
    used = input.reshape(-1).unique()
    rows = data[used]
    norms = rows.norm(norm_type, 1, True)
    data[used] = (rows * (max_norm / (norms + 1e-7))).where(norms > max_norm, rows)


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """``softmax(query @ key.T * scale + mask) @ value``, without ever holding the weights.

    Shapes: query ``[..., heads, l, e]``, key ``[..., heads, s, e]``, value ``[..., heads, s, v]``,
    mask broadcast to ``[..., heads, l, s]`` (bool: True takes part; a row in which nothing does
    gives 0). ``scale`` is 1 / sqrt(e) unless given. With ``enable_gqa`` key and value have fewer
    heads, each used by several of query's. Views of ``[batch, l, heads, e]`` are read as they lie,
    and the result is such a view.
    """
    if query.ndim != 4 or key.ndim != 4 or value.ndim != 4:
        return _attention_of_any_rank(
            query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
        )
    q, k, v = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if dropout_p > 0.0:
        y = _op("attention_dropout")(
            q, k, v, attn_mask, float(dropout_p), is_causal, scale, enable_gqa
        )
    else:
        y = _op("attention_core")(q, k, v, attn_mask, is_causal, scale, enable_gqa)
    return y.transpose(1, 2)


def _attention_of_any_rank(query, key, value, mask, *options):
    """The leading dimensions broadcast and made one, or one added."""
    given = query, key, value
    for name, x in zip(("query", "key", "value"), given):
        if x.ndim < 2:
            fail(
                ShapeError,
                "scaled_dot_product_attention",
                f"expected {name} to be at least 2 dimensional, got {x.ndim}D",
            )
    rank = max(x.ndim for x in given)
    given = [x.reshape(*(1,) * (max(4, rank) - x.ndim), *x.shape) for x in given]
    batch = broadcast_shapes(*(x.shape[:-3] for x in given))
    given = [x.expand(*batch, *x.shape[-3:]).reshape(-1, *x.shape[-3:]) for x in given]
    if mask is not None and mask.ndim > 3:
        mask = mask.expand(*batch, *mask.shape[-3:]).reshape(-1, *mask.shape[-3:])
    y = scaled_dot_product_attention(*given, mask, *options)
    return y.reshape((*batch, *y.shape[1:])[-rank:])


def one_hot(tensor, num_classes=-1):
    """int64 zeros with a one at each class, in a new last dimension.

    Raises:
        RuntimeError: a negative class, or one not below ``num_classes``.
    """
    need_tensor("one_hot", tensor)
    if tensor.dtype is not int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if tensor.numel() == 0:
        if num_classes <= 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
    else:
        if int(tensor.min()) < 0:
            raise RuntimeError("Class values must be non-negative.")
        most = int(tensor.max()) + 1
        if num_classes == -1:
            num_classes = most
        elif num_classes < most:
            raise RuntimeError("Class values must be smaller than num_classes.")
    return _op("one_hot")(tensor, num_classes)


# Rearranging --------------------------------------------------------------------------------------


def channel_shuffle(input, groups):
    """Channels of ``[n, c, ...]`` interleaved from ``groups`` groups."""
    n, c = input.shape[:2]
    if c % groups:
        fail(ShapeError, "channel_shuffle", f"{c} channels are not divisible by {groups}")
    x = input.reshape(n, groups, c // groups, *input.shape[2:])
    return x.transpose(1, 2).reshape(input.shape)


def lp_pool(rank):
    """The lp-pooling of ``rank`` spatial dimensions."""

    def function(input, norm_type, kernel_size, stride=None, ceil_mode=False):
        sizes = kernel_size if isinstance(kernel_size, (tuple, list)) else (kernel_size,) * rank
        powered = input.pow(norm_type)
        mean = _op(f"avg_pool{rank}d")(powered, kernel_size, stride, 0, ceil_mode)
        positive = mean.sign() * _op("relu")(mean.abs())
        return (positive * math.prod(sizes)).pow(1.0 / norm_type)

    function.__name__ = f"lp_pool{rank}d"
    function.__doc__ = f"``(sum of x**p)**(1/p)`` over windows, {rank} spatial dimension(s)."
    return function


lp_pool1d, lp_pool2d, lp_pool3d = map(lp_pool, (1, 2, 3))


def triplet_margin_with_distance_loss(
    anchor, positive, negative, *, distance_function=None, margin=1.0, swap=False, reduction="mean"
):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` for any distance."""
    if margin <= 0:
        fail(ArgumentError, "triplet_margin_with_distance_loss",
             f"margin must be greater than 0, got {margin}")  # fmt: skip
    distance = distance_function or __getattr__("pairwise_distance")
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    loss = (near - far + margin).clamp(min=0)
    return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]


def linear_cross_entropy(
    input,
    linear_weight,
    target,
    *,
    linear_bias=None,
    weight=None,
    reduction="mean",
    ignore_index=None,
    label_smoothing=0.0,
    options=None,
):
    """``cross_entropy(linear(input, linear_weight, linear_bias), target, ...)``.

    Shapes:
        input ``[n, in]`` or ``[in]``, linear_weight ``[classes, in]`` or ``[classes, d..., in]``,
        target as of ``cross_entropy``. ``options`` name a chunking, of which results do not depend.
    """
    space = linear_weight.shape[1:-1]
    if space and input.ndim < 2:
        fail(
            ShapeError,
            "linear_cross_entropy",
            "K-dimensional loss defined by linear_weight shape "
            f"{tuple(linear_weight.shape)} requires batched input, got {tuple(input.shape)}",
        )
    if ignore_index is not None and target.is_floating_point():
        fail(ShapeError, "linear_cross_entropy",
             "ignore_index cannot be specified when target contains probabilities")  # fmt: skip
    flat = linear_weight.reshape(-1, linear_weight.shape[-1])
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    logits = _op("linear")(input, flat, bias)
    if space:
        logits = logits.reshape(*input.shape[:-1], -1, *space)
    ignored = -100 if ignore_index is None else ignore_index
    return _op("cross_entropy")(
        logits, target, weight, ignore_index=ignored, reduction=reduction,
        label_smoothing=label_smoothing,
    )  # fmt: skip


def _with_indices(name):
    def function(*args, **named):
        return __getattr__(name)(*args, **{**named, "return_indices": True})

    function.__name__ = function.__qualname__ = f"{name}_with_indices"
    function.__doc__ = f"``{name}`` with ``return_indices=True``."
    return function


for _name in ("max_pool", "adaptive_max_pool"):
    for _rank in (1, 2, 3):
        globals()[f"{_name}{_rank}d_with_indices"] = _with_indices(f"{_name}{_rank}d")


def fractional_max_pool2d_with_indices(*args, **named):
    """``fractional_max_pool2d`` with ``return_indices=True``."""
    return fractional_max_pool2d(*args, **{**named, "return_indices": True})


def fractional_max_pool3d_with_indices(*args, **named):
    """``fractional_max_pool3d`` with ``return_indices=True``."""
    return fractional_max_pool3d(*args, **{**named, "return_indices": True})
