"""Convolutions of one to three spatial dimensions, forward and transposed."""

from __future__ import annotations

from facula.base.errors import ArgumentError, DtypeError, ShapeError, fail
from facula.ir.program import Value
from facula.ops.contraction import conv_, conv_input_
from facula.ops.movement import constant_pad
from facula.ops.pool import tuple_of, whole
from facula.ops.registry import F, op

NN = ("torch", "nn.functional")


def _check(name, input, weight, bias, rank, groups, channels_at):
    if input.ndim not in (rank + 1, rank + 2):
        fail(
            ShapeError,
            name,
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to "
            f"{name}, but got input of size: {list(input.shape)}",
        )
    if weight.ndim != rank + 2:
        fail(ShapeError, name, f"expected a weight of {rank + 2} dimensions, got {weight.ndim}")
    if input.dtype is not weight.dtype:
        fail(
            DtypeError,
            name,
            f"Input type ({input.dtype.name}) and weight type "
            f"({weight.dtype.name}) should be the same",
        )
    if bias is not None and bias.dtype is not input.dtype:
        fail(DtypeError, name, f"Input type ({input.dtype.name}) and bias type "
             f"({bias.dtype.name}) should be the same")  # fmt: skip
    if whole(name, "groups", groups) <= 0:
        fail(ShapeError, name, "non-positive groups is not supported")
    out = weight.shape[0] if channels_at == 1 else weight.shape[1] * groups
    if bias is not None and (bias.ndim != 1 or not bias.shape[0] == out):
        fail(
            ShapeError,
            name,
            f"Given weight of size {list(weight.shape)}, expected bias to be "
            f"1-dimensional with {out} elements, but got bias of size {list(bias.shape)}",
        )


def _convolve(name, rank, input, weight, bias, stride, padding, dilation, groups):
    _check(name, input, weight, bias, rank, groups, 1)
    batched = input.ndim == rank + 2
    x = input if batched else F.unsqueeze(input, 0)
    stride = tuple_of(name, "stride", stride, rank)
    dilation = tuple_of(name, "dilation", dilation, rank)
    if min(stride) <= 0 or min(dilation) <= 0:
        fail(ShapeError, name, "non-positive stride and dilation are not supported")
    if not x.shape[1] == weight.shape[1] * groups:
        fail(
            ShapeError,
            name,
            f"Given groups={groups}, weight of size {list(weight.shape)}, "
            f"expected input{list(x.shape)} to have {weight.shape[1] * groups} channels, but got "
            f"{x.shape[1]} channels instead",
        )
    if not weight.shape[0] % groups == 0:
        fail(
            ShapeError,
            name,
            f"expected the number of output channels ({weight.shape[0]}) to be "
            f"divisible by groups ({groups})",
        )
    if isinstance(padding, str):
        x, padding = _named_padding(name, x, weight, padding, stride, dilation)
    padding = tuple_of(name, "padding", padding, rank)
    if any(p < 0 for p in padding):
        fail(ShapeError, name, "negative padding is not supported")
    for n, k, p, d in zip(x.shape[2:], weight.shape[2:], padding, dilation):
        if n + 2 * p < d * (k - 1) + 1 or k == 0:
            fail(
                ShapeError,
                name,
                f"Calculated padded input size per channel: ({n + 2 * p}). "
                f"Kernel size: ({d * (k - 1) + 1}). Kernel size can't be greater than actual "
                "input size",
            )
    y = conv_(x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if bias is not None:
        y = y + F.reshape(bias, (1, -1, *(1,) * rank))
    return y if batched else F.squeeze(y, 0)


def _named_padding(name, x, weight, padding, stride, dilation):
    if padding == "valid":
        return x, 0
    if padding != "same":
        fail(
            ArgumentError,
            name,
            f"Invalid padding string {padding!r}, should be one of 'valid', 'same'",
        )
    if any(s != 1 for s in stride):
        fail(ShapeError, name, "padding='same' is not supported for strided convolutions")
    totals = [d * (int(k) - 1) for k, d in zip(weight.shape[2:], dilation)]
    if all(t % 2 == 0 for t in totals):
        return x, tuple(t // 2 for t in totals)
    return constant_pad(x, [(0, 0), (0, 0)] + [(t // 2, t - t // 2) for t in totals]), 0


def _conv_samples(rank):
    space = (7, 6, 5)[:rank]

    def samples(make):
        k = (3,) * rank
        return [
            ((make(2, 4, *space), make(6, 4, *k), make(6)), {}),
            ((make(2, 4, *space), make(6, 2, *k)), {"stride": 2, "padding": 1, "groups": 2}),
            ((make(4, *space), make(3, 4, *(2,) * rank)), {"dilation": 2}),
        ]

    return samples


def _define_conv(rank):
    name = f"conv{rank}d"

    def fn(
        input: Value, weight: Value, bias: Value = None, stride=1, padding=0, dilation=1, groups=1
    ):
        return _convolve(name, rank, input, weight, bias, stride, padding, dilation, groups)

    fn.__name__ = name
    fn.__doc__ = f"""Cross-correlation over {rank} spatial dimension(s), zero padding.

    Shapes: input ``[n, c, *space]``, weight ``[o, c / groups, *kernel]``, bias ``[o]``; output
    ``[n, o, *out]`` with out = (space + 2 padding - dilation (kernel - 1) - 1) // stride + 1.
    ``padding`` may be "same" or "valid".
    """
    return op(fn, spaces=NN, samples=_conv_samples(rank))


conv1d, conv2d, conv3d = map(_define_conv, (1, 2, 3))


def _transposed(name, rank, input, weight, bias, stride, padding, output_padding, groups, dilation):
    _check(name, input, weight, bias, rank, groups, 0)
    batched = input.ndim == rank + 2
    x = input if batched else F.unsqueeze(input, 0)
    stride, padding = (
        tuple_of(name, "stride", stride, rank),
        tuple_of(name, "padding", padding, rank),
    )
    dilation = tuple_of(name, "dilation", dilation, rank)
    extra = tuple_of(name, "output_padding", output_padding, rank)
    if min(stride) <= 0 or min(dilation) <= 0 or min(padding) < 0 or min(extra) < 0:
        fail(ShapeError, name, "stride and dilation must be positive, padding not negative")
    if not x.shape[1] == weight.shape[0]:
        fail(
            ShapeError,
            name,
            f"Given transposed=1, weight of size {list(weight.shape)}, expected "
            f"input{list(x.shape)} to have {weight.shape[0]} channels, but got {x.shape[1]} "
            "channels instead",
        )
    space = []
    for n, k, s, p, d, e in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, extra):
        if e >= max(s, d):
            fail(
                ShapeError,
                name,
                "output padding must be smaller than either stride or dilation, "
                f"but got output_padding={e}, stride={s}, dilation={d}",
            )
        size = (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        if size < 0:
            fail(
                ShapeError,
                name,
                f"Given input size per channel: {list(x.shape[2:])}. Calculated "
                "output size is too small",
            )
        space.append(size)
    one = all(isinstance(n, int) and n == 1 for n in x.shape[2:])
    if one and groups == 1 and not any(padding) and not any(extra) and max(dilation) == 1:
        # Of one place, every result is of one tap: a matrix product.
        c, *rest = weight.shape
        product = F.matmul(F.reshape(x, (x.shape[0], c)), F.reshape(weight, (c, -1)))
        y = F.reshape(product, (x.shape[0], *rest))
    else:
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        y = conv_input_(x, weight, spatial=tuple(space), **how)
    if bias is not None:
        y = y + F.reshape(bias, (1, -1, *(1,) * rank))
    return y if batched else F.squeeze(y, 0)


def _transposed_samples(rank):
    space = (5, 4, 3)[:rank]

    def samples(make):
        k = (3,) * rank
        return [
            ((make(2, 4, *space), make(4, 3, *k), make(3)), {}),
            (
                (make(2, 4, *space), make(4, 2, *k)),
                {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
            ),
            ((make(2, 4, *(1,) * rank), make(4, 3, *k), make(3)), {"stride": 2}),
        ]

    return samples


def _define_transposed(rank):
    name = f"conv_transpose{rank}d"

    def fn(
        input: Value,
        weight: Value,
        bias: Value = None,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        dilation=1,
    ):
        return _transposed(
            name, rank, input, weight, bias, stride, padding, output_padding, groups, dilation
        )

    fn.__name__ = name
    fn.__doc__ = f"""The transpose (gradient) of ``conv{rank}d`` as an operation of its own.

    Shapes: input ``[n, c, *space]``, weight ``[c, o / groups, *kernel]``, bias ``[o]``.
    """
    return op(fn, spaces=NN, samples=_transposed_samples(rank))


conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_define_transposed, (1, 2, 3))
