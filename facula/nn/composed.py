"""Functionals written with operations on tensors, as a user would write them: several kernels each.

``facula.nn.functional`` shows them beside those that the op registry makes.
"""

import math

from facula.base.errors import ShapeError, fail
from facula.ops.registry import F
from facula.tensor import (
    arange,
    cat,
    full,
    int64,
    rand,
    triu_indices,
    where,
    zeros,
)

__all__ = [
    "ctc_loss",
    "embedding_bag",
    "fold",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "pdist",
    "unfold",
]


def _reduced(name, values, reduction):
    """The mean, the sum, or the values themselves."""
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ValueError(f"{name}: {reduction} is not a valid value for reduction")


# Losses ------------------------------------------------------------------------------------------


def multi_margin_loss(
    input, target, p=1, margin=1.0, weight=None, size_average=None, reduce=None, reduction="mean"
):
    """``max(0, margin - input[target] + input[i])^p``, the mean over the other classes i.

    Shapes:
        input ``(N, C)`` or ``(C,)``, target ``(N,)`` or ``()`` of class indices, weight ``(C,)``.
    """
    single = input.ndim < 2
    if single:
        input, target = input.reshape(1, -1), target.reshape(1)
    n_classes = input.shape[1]
    index = target.unsqueeze(1)
    excess = (margin - input.gather(1, index) + input).clamp(min=0) ** p
    if weight is not None:
        excess = excess * weight[target].unsqueeze(1)
    others = arange(n_classes).unsqueeze(0) != index
    losses = (excess * others.to(excess.dtype)).sum(dim=1) / n_classes
    return _reduced("multi_margin_loss", losses[0] if single else losses, reduction)


def multilabel_margin_loss(input, target, size_average=None, reduce=None, reduction="mean"):
    """``max(0, 1 - input[t] + input[i])`` over the targets t and the other classes i, over C.

    Shapes:
        input and target ``(N, C)`` or ``(C,)``; targets are class indices, ended by -1.
    """
    single = input.ndim < 2
    if single:
        input, target = input.reshape(1, -1), target.reshape(1, -1)
    n_classes = input.shape[1]
    given = (target < 0).to(int64).cumsum(dim=1) == 0
    index = where(given, target, 0)
    classes = arange(n_classes)
    is_target = ((index.unsqueeze(2) == classes) & given.unsqueeze(2)).any(dim=1)
    # (N, target, class): each target against each class that is none.
    excess = (1 - input.gather(1, index).unsqueeze(2) + input.unsqueeze(1)).clamp(min=0)
    counted = given.unsqueeze(2) & ~is_target.unsqueeze(1)
    losses = (excess * counted.to(excess.dtype)).sum(dim=(1, 2)) / n_classes
    return _reduced("multilabel_margin_loss", losses[0] if single else losses, reduction)


def multilabel_soft_margin_loss(
    input, target, weight=None, size_average=None, reduce=None, reduction="mean"
):
    """The mean over the last dimension of the binary cross entropy of scores."""
    # log(sigmoid(x)) is -softplus(-x), and softplus without overflow is max(x, 0) + log1p(e^-|x|).
    tail = (-input.abs()).exp().log1p()
    losses = target * ((-input).clamp(min=0) + tail) + (1 - target) * (input.clamp(min=0) + tail)
    if weight is not None:
        losses = losses * weight
    return _reduced("multilabel_soft_margin_loss", losses.mean(dim=-1), reduction)


def ctc_loss(
    log_probs,
    targets,
    input_lengths,
    target_lengths,
    blank=0,
    reduction="mean",
    zero_infinity=False,
):
    """Minus the log-probability of all alignments of the targets to the input (Graves, 2006).

    The labels of a target stand with blanks between and around them. ``alpha[s]`` is the
    probability to have read the first s of these after a step: it comes from itself, from the
    place before, and, between different labels, from the one before that.

    Shapes:
        log_probs ``(T, N, C)`` or ``(T, C)``; targets ``(N, S)``, or all in one row; lengths
        ``(N,)``, tensors or tuples. ``"mean"`` divides each loss by its target's length first.
    """
    single = log_probs.ndim == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
    n_steps, n, _ = log_probs.shape
    input_lengths, target_lengths = _lengths(input_lengths), _lengths(target_lengths)
    labels = _labels(targets, target_lengths, n)
    longest = labels.shape[1]
    places = full((n, 2 * longest + 1), blank, dtype=int64)
    if longest:
        places[:, 1::2] = labels
    low = full((n, 1), -math.inf, dtype=log_probs.dtype)
    skips = (places[:, 2:] != places[:, :-2]) & (places[:, 2:] != blank)
    emitted = log_probs.gather(2, places.unsqueeze(0).expand(n_steps, n, places.shape[1]))
    start = arange(places.shape[1]).unsqueeze(0) < 2
    alpha = where(start, emitted[0], low)
    ends = [None] * n
    for t in range(n_steps):
        if t > 0:
            one_back = cat([low, alpha[:, :-1]], dim=1)
            two_back = where(skips, alpha[:, :-2], low)
            two_back = cat([low.expand(n, 2), two_back], dim=1)[:, : places.shape[1]]
            alpha = _log_add(alpha, one_back, two_back) + emitted[t]
        for i in range(n):
            if input_lengths[i] == t + 1:
                ends[i] = alpha[i]
    losses = []
    for end, length in zip(ends, target_lengths):
        last = end[2 * length - 1 : 2 * length + 1] if length else end[:1]
        losses.append(-_log_add(*last.unbind(0)).reshape(1))
    losses = cat(losses)
    if log_probs.requires_grad:
        # PyTorch gives the derivative by the scores before log_softmax, which is the same for all
        # who normalise: its other part adds exp(log_probs) at every step that is read.
        read = arange(n_steps).unsqueeze(1) < losses.new_tensor(input_lengths).to(int64)
        mass = (log_probs.exp().sum(dim=2) * read.to(log_probs.dtype)).sum(dim=0)
        losses = losses + (mass - mass.detach())
    if zero_infinity:
        losses = where(losses == math.inf, 0.0, losses)
    if reduction == "mean":
        losses = losses / losses.new_tensor([max(s, 1) for s in target_lengths])
    losses = losses[0] if single and reduction == "none" else losses
    return _reduced("ctc_loss", losses, reduction)


def _lengths(lengths):
    values = lengths.tolist() if hasattr(lengths, "tolist") else lengths
    return [int(v) for v in values] if isinstance(values, (list, tuple)) else [int(values)]


def _labels(targets, lengths, n):
    """Targets as ``(N, longest)``, whatever after a target's end."""
    if targets.ndim == 2:
        return targets[:, : max(lengths, default=0)].to(int64)
    longest, start, rows = max(lengths, default=0), 0, []
    for length in lengths:
        row = targets[start : start + length].to(int64)
        rows.append(cat([row, zeros(longest - length, dtype=int64)]).unsqueeze(0))
        start += length
    return cat(rows)


def _log_add(*terms):
    """``log(sum(exp(term)))``; minus infinity, with gradient zero, where all terms are."""
    greatest = terms[0].detach()
    for term in terms[1:]:
        greatest = greatest.maximum(term.detach())
    greatest = where(greatest == -math.inf, 0.0, greatest)
    total = sum((term - greatest).exp() for term in terms)
    # The logarithm's gradient at 0 is infinite: keep such places out of it.
    empty = total == 0
    return where(empty, -math.inf, where(empty, 1.0, total).log() + greatest)


# Bags ------------------------------------------------------------------------------------------


def embedding_bag(
    input,
    weight,
    offsets=None,
    max_norm=None,
    norm_type=2,
    scale_grad_by_freq=False,
    mode="mean",
    sparse=False,
    per_sample_weights=None,
    include_last_offset=False,
    padding_idx=None,
):
    """Sums, means or maxima of bags of rows of ``weight``.

    Shapes:
        input ``(B, L)``, or ``(L,)`` with ``offsets`` ``(B,)``; weight ``(rows, D)``;
        per_sample_weights as input, for ``"sum"``; output ``(B, D)``.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode has to be one of sum, mean or max, got {mode}")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}')."
        )
    from facula.nn import functional

    if max_norm is not None:
        functional._renormalise(weight, input, max_norm, norm_type)
    counted, plain = None, padding_idx is None and not scale_grad_by_freq
    if input.ndim == 1 and mode != "max" and plain and per_sample_weights is None:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        return F.embedding_bags(weight, input, offsets, mode == "mean", include_last_offset)
    rows = functional.embedding(input, weight, scale_grad_by_freq=scale_grad_by_freq)
    if input.ndim == 1:
        at, counted = _bags(input, offsets, include_last_offset)
        input, rows = input[at], rows[at]
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights[at]
    elif offsets is not None:
        raise ValueError("embedding_bag: if input is 2D, then offsets has to be None")
    if padding_idx is not None:
        real = input != padding_idx % weight.shape[0]
        counted = real if counted is None else counted & real
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(2)
    if counted is None:
        return rows.amax(dim=1) if mode == "max" else getattr(rows, mode)(dim=1)
    mask = counted.unsqueeze(2)
    if mode == "max":
        return where(mask.any(dim=1), where(mask, rows, -math.inf).amax(dim=1), 0.0)
    total = where(mask, rows, 0.0).sum(dim=1)
    if mode == "sum":
        return total
    return total / counted.sum(dim=1, keepdim=True).clamp(min=1).to(total.dtype)


def _bags(input, offsets, include_last_offset):
    """Bags of several sizes as rows: places in ``input``, and which of them count."""
    if offsets is None:
        raise ValueError("embedding_bag: offsets has to be a 1D Tensor but got None")
    starts = offsets.tolist()
    if not include_last_offset:
        starts.append(input.shape[0])
    sizes = [end - start for start, end in zip(starts, starts[1:])]
    places = arange(max([1, *sizes])).unsqueeze(0)
    first = input.new_tensor(starts[:-1]).unsqueeze(1)
    counted = places < input.new_tensor(sizes).unsqueeze(1)
    return where(counted, first + places, 0), counted


# Windows ------------------------------------------------------------------------------------------


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _window_indices(size, kernel, dilation, padding, stride):
    """Places of a padded dimension that each window reads, ``(kernel, windows)``."""
    windows = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if windows < 1:
        raise RuntimeError(
            f"windows of {kernel} values, dilated by {dilation}, do not fit into {size} values "
            f"padded by {padding}"
        )
    return (arange(kernel) * dilation).unsqueeze(1) + arange(windows) * stride, windows


def unfold(input, kernel_size, dilation=1, padding=0, stride=1):
    """Blocks of an image ``(N, C, H, W)`` as columns ``(N, C * kh * kw, L)``."""
    if input.ndim == 3:
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    (kh, kw), (ph, pw) = _pair(kernel_size), _pair(padding)
    (dh, dw), (sh, sw) = _pair(dilation), _pair(stride)
    n, c, h, w = input.shape
    rows, n_rows = _window_indices(h, kh, dh, ph, sh)
    columns, n_columns = _window_indices(w, kw, dw, pw, sw)
    padded = zeros(n, c, h + 2 * ph, w + 2 * pw, dtype=input.dtype)
    padded[:, :, ph : ph + h, pw : pw + w] = input
    blocks = padded.index_select(2, rows.reshape(-1)).index_select(3, columns.reshape(-1))
    blocks = blocks.reshape(n, c, kh, n_rows, kw, n_columns).permute(0, 1, 2, 4, 3, 5)
    return blocks.reshape(n, c * kh * kw, n_rows * n_columns)


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Add up columns ``(N, C * kh * kw, L)`` into an image ``(N, C, *output_size)``."""
    if input.ndim == 2:
        columns = input.unsqueeze(0)
        return fold(columns, output_size, kernel_size, dilation, padding, stride).squeeze(0)
    (h, w), (kh, kw), (ph, pw) = _pair(output_size), _pair(kernel_size), _pair(padding)
    (dh, dw), (sh, sw) = _pair(dilation), _pair(stride)
    rows, n_rows = _window_indices(h, kh, dh, ph, sh)
    columns, n_columns = _window_indices(w, kw, dw, pw, sw)
    n, size, length = input.shape
    if size % (kh * kw) or length != n_rows * n_columns:
        raise RuntimeError(
            f"fold: expected input (N, a multiple of {kh * kw}, {n_rows * n_columns}), got "
            f"{tuple(input.shape)}"
        )
    c, wide = size // (kh * kw), w + 2 * pw
    # The place in the padded image of each value of a column, in the columns' order.
    places = rows.reshape(kh, 1, n_rows, 1) * wide + columns.reshape(1, kw, 1, n_columns)
    values = input.reshape(n, c, kh * kw * length)
    flat = zeros(n, c, (h + 2 * ph) * wide, dtype=input.dtype)
    flat = flat.index_add(2, places.reshape(-1), values)
    return flat.reshape(n, c, h + 2 * ph, wide)[:, :, ph : ph + h, pw : pw + w]


def _max_unpool(n_dims):
    def unpool(input, indices, kernel_size, stride=None, padding=0, output_size=None):
        """Put values where ``indices``, from the pooling, say; zeros elsewhere."""

        def each(value):
            return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n_dims

        if input.shape != indices.shape:
            fail(ShapeError, unpool.__name__, "Expected shape of indices to be same as that of the "
                 f"input tensor ({list(input.shape)}) but got indices tensor with shape: "
                 f"{list(indices.shape)}")  # fmt: skip
        kernel, pad = each(kernel_size), each(padding)
        step = kernel if stride is None else each(stride)
        batch = tuple(input.shape[:-n_dims])
        if output_size is None:
            sizes = tuple(
                (size - 1) * s - 2 * p + k
                for size, s, p, k in zip(input.shape[-n_dims:], step, pad, kernel)
            )
        else:
            sizes = tuple(output_size)[-n_dims:]
        flat = zeros(*batch, math.prod(sizes), dtype=input.dtype)
        flat = flat.scatter(-1, indices.flatten(-n_dims), input.flatten(-n_dims))
        return flat.reshape(*batch, *sizes)

    unpool.__name__ = unpool.__qualname__ = f"max_unpool{n_dims}d"
    return unpool


max_unpool1d, max_unpool2d, max_unpool3d = (_max_unpool(n) for n in (1, 2, 3))


def _fractional_starts(size, kernel, output, samples):
    """Where windows start: ``(N, C, output)``, by steps of random sizes (Graham, 2014)."""
    if output == 1:
        return (samples * 0).to(int64).unsqueeze(-1) + (size - kernel)
    alpha = (size - kernel) / (output - 1)
    places = arange(output - 1, dtype=samples.dtype)
    u = samples.unsqueeze(-1)
    starts = ((places + u) * alpha).to(int64) - (u * alpha).to(int64)
    return cat([starts, full((*samples.shape, 1), size - kernel, dtype=int64)], dim=-1)


def _fractional_max_pool(n_dims):
    name = f"fractional_max_pool{n_dims}d"

    def pool(
        input,
        kernel_size,
        output_size=None,
        output_ratio=None,
        return_indices=False,
        _random_samples=None,
    ):
        """The largest elements of windows at random, overlapping places (Graham, 2014).

        Args:
            output_size, output_ratio: the size of the result, or its ratio to the input's.
            return_indices: also give the flat positions of these elements.

        Raises:
            ValueError: neither a size nor a ratio is given.
        """

        def each(value):
            return tuple(value) if isinstance(value, (tuple, list)) else (value,) * n_dims

        if input.ndim not in (n_dims + 1, n_dims + 2):
            fail(ShapeError, name, f"expected a {n_dims + 1}D or {n_dims + 2}D tensor, got "
                 f"{input.ndim}D")  # fmt: skip
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
        space, kernel = tuple(input.shape[-n_dims:]), each(kernel_size)
        if output_size is None:
            output = tuple(int(n * r) for n, r in zip(space, each(output_ratio)))
        else:
            output = each(output_size)
        for n, k, out in zip(space, kernel, output):
            if not (k >= 1 and out >= 1 and out + k - 1 <= n):
                fail(ShapeError, name, f"pool size ({k}) too large relative to input size ({n}) "
                     f"for an output of {out}")  # fmt: skip
        x = input if input.ndim == n_dims + 2 else input.unsqueeze(0)
        n, c = x.shape[:2]
        samples = _random_samples
        if samples is None:
            samples = rand(n, c, n_dims, dtype=x.dtype)
        index = zeros(1, dtype=int64)
        for d in range(n_dims):
            # PyTorch's samples come with the fastest dimension first in two dimensions.
            u = samples[..., n_dims - 1 - d if n_dims == 2 else d]
            starts = _fractional_starts(space[d], kernel[d], output[d], u)
            rows = starts.unsqueeze(-1) + arange(kernel[d])
            shape = [1] * (2 * n_dims)
            shape[d], shape[n_dims + d] = output[d], kernel[d]
            index = index * space[d] + rows.reshape(n, c, *shape)
        index = index.expand(n, c, *output, *kernel).flatten(2)
        cells = x.flatten(2).gather(2, index).reshape(n, c, *output, math.prod(kernel))
        values, within = cells.max(dim=-1)
        index = index.reshape(cells.shape).gather(-1, within.unsqueeze(-1)).squeeze(-1)
        if input.ndim != n_dims + 2:
            values, index = values.squeeze(0), index.squeeze(0)
        return (values, index) if return_indices else values

    pool.__name__ = pool.__qualname__ = name
    return pool


fractional_max_pool2d, fractional_max_pool3d = map(_fractional_max_pool, (2, 3))


def pdist(input, p=2.0):
    """The p-norm distances of all pairs of different rows: ``(N, M)`` to ``(N (N - 1) / 2,)``."""
    if input.ndim != 2:
        fail(ShapeError, "pdist", f"only supports 2D tensors, got: {input.ndim}D")
    if p < 0:
        fail(ShapeError, "pdist", f"only supports non-negative p values, got {p}")
    i, j = triu_indices(input.shape[0], input.shape[0], 1)
    return (input[i] - input[j]).norm(p, 1)
