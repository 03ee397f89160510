"""Losses: each a composite that fuses into one pass forward and one backward."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.promote import to, together
from facula.ops.reduce import size_value
from facula.ops.registry import F, Scalar, op

NN = ("nn.functional",)


def effective_reduction(name, reduction, size_average=None, reduce=None):
    """The reduction in force, PyTorch's two deprecated flags considered."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    if reduction not in ("none", "mean", "sum"):
        fail(ArgumentError, name, f"{reduction} is not a valid value for reduction")
    return reduction


def _reduced(name, loss, reduction, size_average, reduce):
    how = effective_reduction(name, reduction, size_average, reduce)
    if how == "none":
        return loss
    return F.mean(loss) if how == "mean" else F.sum(loss)


def _pairwise(name, doc, loss, extra=(), domain=(-3.0, 3.0)):
    """A loss of two tensors of one shape: ``loss(a, b, *extras)``, then reduced."""

    def run(input, target, extras, size_average, reduce, reduction):
        a, b = together(input, target, name=name)
        return _reduced(name, loss(a, b, *extras), reduction, size_average, reduce)

    def plain(input: Value, target: Value, size_average=None, reduce=None, reduction="mean"):
        return run(input, target, (), size_average, reduce, reduction)

    plain.__doc__ = doc
    plain.__name__ = name
    return op(plain, spaces=NN, domain=domain, **dict(extra))


mse_loss = _pairwise(
    "mse_loss", "``(input - target)**2``, averaged by default.", lambda a, b: (a - b) * (a - b)
)
l1_loss = _pairwise(
    "l1_loss", "``|input - target|``, averaged by default.", lambda a, b: F.abs(a - b)
)


@op(spaces=NN)
def smooth_l1_loss(
    input: Value, target: Value, size_average=None, reduce=None, reduction="mean", beta=1.0
):
    """Quadratic within ``beta`` of the target, linear beyond."""
    a, b = together(input, target, name="smooth_l1_loss")
    if beta < 0:
        fail(ArgumentError, "smooth_l1_loss", "beta must not be negative")
    d = F.abs(a - b)
    loss = d if beta == 0 else F.where(F.lt(d, beta), d * d * (0.5 / beta), d - 0.5 * beta)
    return _reduced("smooth_l1_loss", loss, reduction, size_average, reduce)


@op(spaces=NN)
def huber_loss(input: Value, target: Value, reduction="mean", delta=1.0):
    """Quadratic within ``delta`` of the target, linear beyond."""
    a, b = together(input, target, name="huber_loss")
    if delta <= 0:
        fail(ArgumentError, "huber_loss", f"delta must be greater than 0, got {delta}")
    d = F.abs(a - b)
    loss = F.where(F.le(d, delta), d * d * 0.5, (d - 0.5 * delta) * delta)
    return _reduced("huber_loss", loss, reduction, None, None)


@op(
    spaces=NN,
    samples=lambda make: [
        ((make(3, 4, low=0.1, high=0.9), make(3, 4, low=0.1, high=0.9, grad=False)), {})
    ],
)
def binary_cross_entropy(
    input: Value,
    target: Value,
    weight: Value = None,
    size_average=None,
    reduce=None,
    reduction="mean",
):
    """``-(t log p + (1 - t) log(1 - p))``, the logarithms not below -100."""
    if input.ndim != target.ndim or not tuple(input.shape) == tuple(target.shape):
        fail(
            ArgumentError,
            "binary_cross_entropy",
            f"Using a target size ({tuple(target.shape)}) "
            f"that is different to the input size ({tuple(input.shape)}) is deprecated. Please "
            "ensure they have the same size.",
        )
    a, b = together(input, target, name="binary_cross_entropy")
    log_p, log_q = F.clamp(F.log(a), -100.0), F.clamp(F.log1p(-a), -100.0)
    loss = (b - 1) * log_q - b * log_p
    if weight is not None:
        loss = loss * weight
    return _reduced("binary_cross_entropy", loss, reduction, size_average, reduce)


@op(
    spaces=("torch", "nn.functional"),
    samples=lambda make: [((make(3, 4), make(3, 4, low=0.0, high=1.0)), {})],
)
def binary_cross_entropy_with_logits(
    input: Value,
    target: Value,
    weight: Value = None,
    size_average=None,
    reduce=None,
    reduction="mean",
    pos_weight: Value = None,
):
    """Binary cross entropy of ``sigmoid(input)``, in a form that does not overflow."""
    if input.ndim != target.ndim or not tuple(input.shape) == tuple(target.shape):
        fail(
            ArgumentError,
            "binary_cross_entropy_with_logits",
            f"Target size "
            f"({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)})",
        )
    a, b = together(input, target, name="binary_cross_entropy_with_logits")
    # maximum, not clamp: its slope of a half at 0 is the true one of the sum.
    softened = F.log1p(F.exp(-F.abs(a))) + F.maximum(-a, 0.0)
    if pos_weight is None:
        loss = (1 - b) * a + softened
    else:
        loss = (1 - b) * a + (1 + (pos_weight - 1) * b) * softened
    if weight is not None:
        loss = loss * weight
    return _reduced("binary_cross_entropy_with_logits", loss, reduction, size_average, reduce)


@op(spaces=NN, domain=(0.1, 2.0))
def kl_div(
    input: Value, target: Value, size_average=None, reduce=None, reduction="mean", log_target=False
):
    """Kullback-Leibler divergence; ``input`` is in log space, ``target`` as ``log_target`` says."""
    if log_target:
        loss = F.exp(target) * (target - input)
    else:
        loss = F.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return F.sum(loss) / size_value(input.shape[0] if input.ndim else 1, loss.dtype)
    return _reduced("kl_div", loss, reduction, size_average, reduce)


@op(spaces=NN, domain=(0.1, 2.0))
def poisson_nll_loss(
    input: Value,
    target: Value,
    log_input=True,
    full=False,
    size_average=None,
    eps=1e-8,
    reduce=None,
    reduction="mean",
):
    """Negative log likelihood of a Poisson distribution."""
    loss = F.exp(input) - target * input if log_input else input - target * F.log(input + eps)
    if full:
        stirling = target * F.log(target) - target + 0.5 * F.log(6.283185307179586 * target)
        loss = loss + F.where(F.gt(target, 1), stirling, 0.0)
    return _reduced("poisson_nll_loss", loss, reduction, size_average, reduce)


@op(spaces=NN, samples=lambda make: [((make(3, 4), make(3, 4), make(3, 4, low=0.5, high=2.0)), {})])
def gaussian_nll_loss(
    input: Value, target: Value, var: Value, full=False, eps=1e-6, reduction="mean"
):
    """Negative log likelihood of a normal distribution with variance ``var``."""
    if var.ndim == input.ndim - 1 and all(a == b for a, b in zip(var.shape, input.shape)):
        var = F.unsqueeze(var, -1)
    elif var.ndim and (
        var.ndim != input.ndim
        or not all(a == b for a, b in zip(var.shape[:-1], input.shape[:-1]))
        or not (var.shape[-1] == input.shape[-1] or var.shape[-1] == 1)
    ):
        fail(ArgumentError, "gaussian_nll_loss", "var is of incorrect size")
    safe = F.clamp(var, eps)
    d = input - target
    loss = 0.5 * (F.log(safe) + d * d / safe)
    if full:
        loss = loss + 0.9189385332046727
    return _reduced("gaussian_nll_loss", loss, reduction, None, None)


@op(spaces=NN)
def soft_margin_loss(input: Value, target: Value, size_average=None, reduce=None, reduction="mean"):
    """``log(1 + exp(-target * input))``."""
    loss = F.softplus(-target * input, 1.0, 50.0)
    return _reduced("soft_margin_loss", loss, reduction, size_average, reduce)


@op(spaces=NN)
def hinge_embedding_loss(
    input: Value, target: Value, margin=1.0, size_average=None, reduce=None, reduction="mean"
):
    """``input`` where target is 1, ``max(0, margin - input)`` where it is -1."""
    loss = F.where(F.ne(target, 1), F.clamp(margin - input, 0.0), 0.0)
    loss = loss + F.where(F.ne(target, -1), input, 0.0)
    return _reduced("hinge_embedding_loss", loss, reduction, size_average, reduce)


@op(spaces=NN, samples=lambda make: [((make(5), make(5), make(5)), {})])
def margin_ranking_loss(
    input1: Value,
    input2: Value,
    target: Value,
    margin=0,
    size_average=None,
    reduce=None,
    reduction="mean",
):
    """``max(0, -target * (input1 - input2) + margin)``."""
    loss = F.clamp(-target * (input1 - input2) + margin, 0.0)
    return _reduced("margin_ranking_loss", loss, reduction, size_average, reduce)


# Classification ----------------------------------------------------------------------------------


def _plain_classes(make):
    """As ``_classes`` for log probabilities and class targets alone."""
    return [
        (args, {k: v for k, v in kwargs.items() if k != "label_smoothing"})
        for args, kwargs in _classes(make)[:5]
    ]


def _classes(make):
    target = make(6, dtype=D.int64, low=0, high=4)
    weight = make(4, low=0.1, high=1.0, grad=False)
    return [
        ((make(6, 4), target), {}),
        ((make(6, 4), target), {"reduction": "sum"}),
        ((make(6, 4), target, weight), {"label_smoothing": 0.1}),
        ((make(6, 4), target), {"ignore_index": 1}),
        ((make(2, 4, 3), make(2, 3, dtype=D.int64, low=0, high=4)), {}),
        ((make(6, 4), make(6, 4, low=0.0, high=1.0, grad=False)), {}),
    ]


def _check_classes(name, input, target):
    if input.ndim not in (1, 2) and input.ndim < 2:
        fail(ShapeError, name, "input must have at least one dimension")
    if target.dtype is not D.int64:
        fail(
            DtypeError,
            name,
            f"expected target of dtype int64, got {target.dtype.name}",
            "class indices are int64; use .long()",
        )
    expected = (*input.shape[:1], *input.shape[2:]) if input.ndim > 1 else ()
    if len(expected) != target.ndim or not tuple(target.shape) == tuple(expected):
        fail(
            ShapeError,
            name,
            f"expected a target of shape {expected} for an input of shape "
            f"{tuple(input.shape)}, got {tuple(target.shape)}",
        )


@op(spaces=NN, samples=_plain_classes)
def nll_loss(
    input: Value,
    target: Value,
    weight: Value = None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
):
    """Negative log likelihood: ``-weight[t] * input[n, t]``, averaged by weight.

    Shapes: input ``[n, c, ...]`` of log probabilities, target ``[n, ...]`` of int64 classes.

    Raises:
        IndexError: a target outside of [0, c) that is not ``ignore_index``.
    """
    _check_classes("nll_loss", input, target)
    how = effective_reduction("nll_loss", reduction, size_average, reduce)
    losses, weights, kept = _nll(input, target, weight, ignore_index)
    return _averaged(losses, weights, kept, how)


def _nll(log_p, target, weight, ignore_index):
    """Losses and weights per target, and where targets count."""
    axis = 1 if log_p.ndim > 1 else 0
    kept = F.ne(target, ignore_index)
    safe = F.where(kept, target, 0)
    picked = F.gather(log_p, axis, F.unsqueeze(safe, axis))
    losses = F.where(kept, -F.squeeze(picked, axis), 0.0)
    if weight is None:
        return losses, None, kept
    own = F.where(kept, F.take_at(weight, safe), 0.0)
    return losses * own, own, kept


def _averaged(losses, weights, kept, how):
    if how == "none":
        return losses
    total = F.sum(losses)
    if how == "sum":
        return total
    count = F.sum(to(kept, losses.dtype)) if weights is None else F.sum(weights)
    return total / count


@op(spaces=(), samples=lambda make: [((make(5), make(2, 3, dtype=D.int64, low=0, high=5)), {})])
def take_at(input: Value, index: Value):
    """``input[index]`` of a vector, for an index of any shape (in range)."""
    from_ = F.index_select(input, 0, F.reshape(index, (-1,)))
    return F.reshape(from_, index.shape)


@op(spaces=NN, samples=_classes)
def cross_entropy(
    input: Value,
    target: Value,
    weight: Value = None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    """Cross entropy between logits and classes (int64) or class probabilities.

    Shapes: input ``[n, c, ...]`` (or ``[c]``), target ``[n, ...]`` of classes, or of input's
    shape for probabilities. With ``weight`` ([c]) the mean is a weighted one.

    Raises:
        IndexError: a class outside of [0, c) that is not ``ignore_index``.
    """
    how = effective_reduction("cross_entropy", reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        fail(
            ArgumentError,
            "cross_entropy",
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}",
        )
    if input.ndim == 0:
        fail(ShapeError, "cross_entropy", "expected an input of at least 1 dimension")
    axis = 1 if input.ndim > 1 else 0
    log_p = F.log_softmax(input, axis)
    probabilities = target.dtype.is_floating_point
    if probabilities:
        return _soft_targets(log_p, target, weight, how, label_smoothing, axis)
    _check_classes("cross_entropy", input, target)
    losses, weights, kept = _nll(log_p, target, weight, ignore_index)
    if label_smoothing == 0.0:
        return _averaged(losses, weights, kept, how)
    spread_ = log_p if weight is None else log_p * _channel(weight, log_p, axis)
    smooth = F.where(kept, -F.sum(spread_, axis), 0.0)
    share = label_smoothing / size_value(input.shape[axis], log_p.dtype)
    nll = _averaged(losses, weights, kept, how)
    return nll * (1.0 - label_smoothing) + share * _averaged(smooth, weights, kept, how)


def _channel(weight, x, axis):
    return F.reshape(weight, (-1, *(1,) * (x.ndim - 1 - axis)))


def _soft_targets(log_p, target, weight, how, label_smoothing, axis):
    if not tuple(target.shape) == tuple(log_p.shape):
        fail(
            ShapeError,
            "cross_entropy",
            f"expected probabilities of shape {tuple(log_p.shape)}, got {tuple(target.shape)}",
        )
    if label_smoothing:
        share = label_smoothing / size_value(log_p.shape[axis], log_p.dtype)
        target = target * (1.0 - label_smoothing) + share
    terms = log_p * target
    if weight is not None:
        terms = terms * _channel(weight, log_p, axis)
    losses = -F.sum(terms, axis)
    if how == "none":
        return losses
    total = F.sum(losses)
    return total if how == "sum" else total / size_value(sizes.product(losses.shape), losses.dtype)


@op(spaces=("torch", "nn.functional"), samples=lambda make: [((make(4, 5), make(4, 5)), {})])
def cosine_similarity(x1: Value, x2: Value, dim=1, eps: Scalar = 1e-8):
    """``x1 . x2 / max(|x1| |x2|, eps)`` along ``dim``."""
    a, b = together(x1, x2, floating=True, name="cosine_similarity")
    n1, n2 = F.sum(a * a, dim), F.sum(b * b, dim)
    low = eps * eps
    return F.sum(a * b, dim) * F.rsqrt(F.maximum(n1, low)) * F.rsqrt(F.maximum(n2, low))


@op(spaces=NN, samples=lambda make: [((make(4, 5), make(4, 5), make(4, 5)), {})])
def triplet_margin_loss(
    anchor: Value,
    positive: Value,
    negative: Value,
    margin=1.0,
    p=2,
    eps=1e-6,
    swap=False,
    size_average=None,
    reduce=None,
    reduction="mean",
):
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)``."""
    if margin <= 0:
        fail(ArgumentError, "triplet_margin_loss", f"expected margin to be > 0, got {margin}")
    near = F.pairwise_distance(anchor, positive, p, eps)
    far = F.pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = F.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    loss = F.clamp(near - far + margin, 0.0)
    return _reduced("triplet_margin_loss", loss, reduction, size_average, reduce)


@op(spaces=("torch", "nn.functional"), samples=lambda make: [((make(4, 5), make(4, 5)), {})])
def pairwise_distance(x1: Value, x2: Value, p=2.0, eps=1e-6, keepdim=False):
    """The p-norm of ``x1 - x2 + eps`` over the last dimension."""
    return F.vector_norm(x1 - x2 + eps, p, -1, keepdim)


@op(spaces=NN, samples=lambda make: [((make(4, 5), make(4, 5), make(4, low=-1, high=1)), {})])
def cosine_embedding_loss(
    input1: Value,
    input2: Value,
    target: Value,
    margin=0,
    size_average=None,
    reduce=None,
    reduction="mean",
):
    """``1 - cos`` for target 1, ``max(0, cos - margin)`` for target -1."""
    cos = F.cosine_similarity(input1, input2, input1.ndim - 1)
    loss = F.where(
        F.eq(target, 1), 1 - cos, F.where(F.eq(target, -1), F.clamp(cos - margin, 0.0), 0.0)
    )
    return _reduced("cosine_embedding_loss", loss, reduction, size_average, reduce)
