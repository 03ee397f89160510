"""Readers of ONNX operators that reduce, multiply, convolve, pool and normalise."""

from __future__ import annotations

import math

from facula.base import dtypes as D
from facula.ir import dims
from facula.library.conv import tuple_of
from facula.library.norm import normalized_
from facula.onnx.errors import unsupported
from facula.onnx.known import ints
from facula.onnx.operators import reads
from facula.ops.contraction import conv_, conv_input_
from facula.ops.movement import constant_pad
from facula.ops.promote import to
from facula.ops.reduce import reduced, wrap_dims
from facula.ops.registry import PRIMITIVES, F

# Reductions --------------------------------------------------------------------------------------

REDUCED = {"ReduceSum": "sum", "ReduceProd": "prod", "ReduceMax": "max", "ReduceMin": "min"}


def _axes(x, axes, noop):
    """The dimensions that are reduced; None where nothing is."""
    axes = () if axes is None else tuple(ints(axes, "axes")) if not isinstance(axes, list) else axes
    if not axes and noop:
        return None
    return wrap_dims("onnx.load", tuple(axes) or None, x.ndim)


@reads("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2",
       "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", raw=True)  # fmt: skip
def _reduce(r, x, axes=None, *, kind, keepdims=1, noop_with_empty_axes=0):
    x, keep = r.tensor(x), bool(keepdims)
    found = _axes(x, axes, noop_with_empty_axes)
    if found is None:
        return x
    if kind in REDUCED:
        return reduced(PRIMITIVES[f"reduce_{REDUCED[kind]}"], x, found, keep)
    if kind == "ReduceMean":
        return F.mean(x, found, keep)
    if kind == "ReduceLogSumExp":
        return F.logsumexp(x, found, keep)
    inside = {"ReduceL1": F.abs, "ReduceL2": F.square, "ReduceSumSquare": F.square}
    total = reduced(PRIMITIVES["reduce_sum"], inside.get(kind, lambda v: v)(x), found, keep)
    return {"ReduceL2": F.sqrt, "ReduceLogSum": F.log}.get(kind, lambda v: v)(total)


@reads("ArgMax", "ArgMin")
def _extremum(r, x, *, kind, axis=0, keepdims=1, select_last_index=0):
    if select_last_index:
        unsupported(f"{kind} with select_last_index")
    return (F.argmax if kind == "ArgMax" else F.argmin)(x, axis, bool(keepdims))


@reads("CumSum", raw=True)
def _cumsum(r, x, axis, *, exclusive=0, reverse=0):
    x, axis = r.tensor(x), r.number(axis)
    turned = F.flip(x, axis) if reverse else x
    y = F.cumsum(turned, axis, dtype=x.dtype)
    y = y - turned if exclusive else y
    return F.flip(y, axis) if reverse else y


@reads("TopK", raw=True)
def _topk(r, x, k, *, axis=-1, largest=1, sorted=1):  # noqa: A002
    x = r.tensor(x)
    return tuple(F.topk(x, ints(k, "the k of TopK")[0], axis, bool(largest)))


@reads("Softmax", "LogSoftmax")
def _softmax(r, x, *, kind, axis=-1):
    return (F.softmax if kind == "Softmax" else F.log_softmax)(x, axis)


@reads("Hardmax")
def _hardmax(r, x, *, axis=-1):
    best = F.argmax(x, axis, True)
    zero = F.zeros_of(x.shape, x.dtype)
    return F.scatter(zero, axis, best, F.zeros_of(best.shape, x.dtype) + 1)


# Products ----------------------------------------------------------------------------------------


@reads("MatMul")
def _matmul(r, a, b):
    return F.matmul(a, b)


@reads("MatMulInteger")
def _matmul_integer(r, a, b, a_zero_point=None, b_zero_point=None):
    a, b = to(a, D.int32), to(b, D.int32)
    if a_zero_point is not None:
        zero = to(a_zero_point, D.int32)
        a = a - (F.unsqueeze(zero, -1) if zero.ndim else zero)  # one a row
    if b_zero_point is not None:
        b = b - to(b_zero_point, D.int32)
    return F.matmul(a, b)


@reads("Gemm")
def _gemm(r, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):  # noqa: N803
    a = F.transpose(a, 0, 1) if transA else a
    b = F.transpose(b, 0, 1) if transB else b
    y = F.matmul(a, b)
    y = y if alpha == 1 else y * alpha
    if c is None:
        return y
    return y + (c if beta == 1 else c * beta)


@reads("Einsum")
def _einsum(r, *xs, equation):
    return F.einsum(equation, *xs)


# Windows -----------------------------------------------------------------------------------------


def _windows(x, kernel, strides, pads, dilations, auto_pad, ceil_mode=0):
    """(stride, padding pairs, dilation) for the spatial dimensions of ``x``."""
    rank = x.ndim - 2
    stride = tuple_of("onnx.load", "strides", strides or 1, rank)
    dilation = tuple_of("onnx.load", "dilations", dilations or 1, rank)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation):
            n = int(n) if s != 1 else n
            total = d * (k - 1) if s == 1 else max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            less, more = total // 2, total - total // 2
            pairs.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
        return stride, pairs, dilation
    pads = list(pads or [0] * (2 * rank))
    return stride, list(zip(pads[:rank], pads[rank:])), dilation


def _even(x, pairs, value=0):
    """``x`` padded where the two sides differ, and the padding that is left."""
    if all(before == after for before, after in pairs):
        return x, tuple(before for before, _ in pairs)
    return constant_pad(x, [(0, 0), (0, 0), *pairs], value), (0,) * len(pairs)


def _biased(y, b):
    return y if b is None else y + F.reshape(b, (1, -1, *(1,) * (y.ndim - 2)))


@reads("Conv")
def _conv(r, x, w, b=None, *, kernel_shape=None, strides=None, pads=None, dilations=None, group=1,
          auto_pad="NOTSET"):  # fmt: skip
    kernel = [int(k) for k in w.shape[2:]]
    stride, pairs, dilation = _windows(x, kernel, strides, pads, dilations, auto_pad)
    x, padding = _even(x, pairs)
    conv = getattr(F, f"conv{x.ndim - 2}d", None)
    if conv is None:
        y = conv_(x, w, stride=stride, padding=padding, dilation=dilation, groups=group)
        return _biased(y, b)
    return conv(x, w, b, stride, padding, dilation, group)


@reads("ConvTranspose")
def _conv_transpose(r, x, w, b=None, *, kernel_shape=None, strides=None, pads=None,
                    dilations=None, group=1, output_padding=None, output_shape=None,
                    auto_pad="NOTSET"):  # fmt: skip
    if auto_pad not in ("NOTSET", "VALID") or output_shape is not None:
        unsupported("ConvTranspose with auto_pad or output_shape")
    kernel = [int(k) for k in w.shape[2:]]
    stride, pairs, dilation = _windows(x, kernel, strides, pads, dilations, auto_pad)
    extra = output_padding or [0] * len(kernel)
    # Computed without padding, then cut: the two sides may differ.
    whole = [
        (n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)
    ]
    if all(before == after for before, after in pairs):
        space = tuple(m - 2 * p[0] + e for m, p, e in zip(whole, pairs, extra))
        padding = tuple(p[0] for p in pairs)
        y = conv_input_(x, w, spatial=space, stride=stride, padding=padding, dilation=dilation,
                        groups=group)  # fmt: skip
        return _biased(y, b)
    none = (0,) * len(kernel)
    y = conv_input_(x, w, spatial=tuple(whole), stride=stride, padding=none, dilation=dilation,
                    groups=group)  # fmt: skip
    cut = [(-before, e - after) for (before, after), e in zip(pairs, extra)]
    return _biased(constant_pad(y, [(0, 0), (0, 0), *cut]), b)


@reads("MaxPool")
def _max_pool(r, x, *, kernel_shape, strides=None, pads=None, dilations=None, ceil_mode=0,
              storage_order=0, auto_pad="NOTSET"):  # fmt: skip
    stride, pairs, dilation = _windows(x, kernel_shape, strides, pads, dilations, auto_pad)
    lowest = -math.inf if x.dtype.is_floating_point else 0 if x.dtype.kind == "u" else -128
    x, padding = _even(x, pairs, lowest)
    pool = getattr(F, f"max_pool{len(kernel_shape)}d")
    return pool(x, tuple(kernel_shape), stride, padding, dilation, bool(ceil_mode))


@reads("AveragePool")
def _average_pool(r, x, *, kernel_shape, strides=None, pads=None, dilations=None, ceil_mode=0,
                  count_include_pad=0, auto_pad="NOTSET"):  # fmt: skip
    stride, pairs, dilation = _windows(x, kernel_shape, strides, pads, dilations, auto_pad)
    if any(d != 1 for d in dilation):
        unsupported("AveragePool with dilations")
    pool = getattr(F, f"avg_pool{len(kernel_shape)}d")
    kernel = tuple(kernel_shape)
    even, padding = _even(x, pairs)
    if even is x or count_include_pad:
        return pool(even, kernel, stride, padding, bool(ceil_mode), bool(count_include_pad))
    ones, _ = _even(F.zeros_of(x.shape, x.dtype) + 1, pairs)
    none = (0,) * len(kernel)
    return pool(even, kernel, stride, none, bool(ceil_mode)) / pool(
        ones, kernel, stride, none, bool(ceil_mode)
    )


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(r, x, *, kind):
    return (F.mean if kind == "GlobalAveragePool" else F.amax)(x, tuple(range(2, x.ndim)), True)


# Normalisations ----------------------------------------------------------------------------------


@reads("BatchNormalization")
def _batch_norm(r, x, scale, bias, mean, var, *, epsilon=1e-05, momentum=0.9, training_mode=0):
    if training_mode:
        unsupported("BatchNormalization in training mode")
    return F.batch_norm_eval(x, mean, var, scale, bias, epsilon)


@reads("LayerNormalization")
def _layer_norm(r, x, scale, bias=None, *, axis=-1, epsilon=1e-05, stash_type=1):
    axis = axis % x.ndim
    found = tuple(range(axis, x.ndim))
    y, mean, rstd = normalized_(x, dims=found, eps=epsilon)
    y = y * scale
    kept = (*x.shape[:axis], *(1,) * len(found))
    y = y if bias is None else y + bias
    return y, F.reshape(mean, kept), F.reshape(rstd, kept)


@reads("InstanceNormalization")
def _instance_norm(r, x, scale, bias, *, epsilon=1e-05):
    y, _, _ = normalized_(x, dims=tuple(range(2, x.ndim)), eps=epsilon)
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return y * F.reshape(scale, shape) + F.reshape(bias, shape)


@reads("GroupNormalization")
def _group_norm(r, x, scale, bias, *, num_groups, epsilon=1e-05, stash_type=1):
    return F.group_norm(x, num_groups, scale, bias, epsilon)


@reads("LpNormalization")
def _lp_norm(r, x, *, axis=-1, p=2):
    return x / F.vector_norm(x, p, axis, True)


@reads("DepthToSpace", "SpaceToDepth")
def _depth(r, x, *, kind, blocksize, mode="DCR"):
    b = blocksize
    n, c, h, w = x.shape
    if kind == "SpaceToDepth":
        y = F.reshape(x, (n, c, h // b, b, w // b, b))
        return F.reshape(F.permute(y, (0, 3, 5, 1, 2, 4)), (n, c * b * b, h // b, w // b))
    split, order = {
        "DCR": ((b, b, c // (b * b)), (0, 3, 4, 1, 5, 2)),
        "CRD": ((c // (b * b), b, b), (0, 1, 4, 2, 5, 3)),
    }[mode]
    y = F.permute(F.reshape(x, (n, *split, h, w)), order)
    return F.reshape(y, (n, c // (b * b), h * b, w * b))


@reads("Resize", raw=True)
def _resize(r, x, roi=None, scales=None, sizes=None, *, mode="nearest",
            coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor",
            **ignored):  # fmt: skip
    """Nearest neighbours by whole factors; other ways of resizing are not known."""
    x = r.tensor(x)
    if scales is not None and getattr(scales, "array", None) is not None and scales.array.size:
        factors = [float(s) for s in scales.array]
    elif sizes is not None:
        factors = [m // n for m, n in zip(ints(sizes, "the sizes of Resize"), x.shape)]
        if not all(dims.same(f * n, m) for f, n, m in zip(factors, x.shape, ints(sizes, ""))):
            unsupported("Resize by factors that are not whole")
    else:
        unsupported("Resize by factors that depend on data")
    rule = (coordinate_transformation_mode, nearest_mode)
    repeats = rule in (("half_pixel", "round_prefer_floor"), ("asymmetric", "floor"))
    if mode != "nearest" or not repeats or any(f != int(f) or f < 1 for f in factors):
        unsupported(f"Resize in mode {mode!r} with {rule} by {factors}")
    for d, f in enumerate(factors):
        if int(f) != 1:
            x = F.repeat_interleave(x, int(f), d)
    return x


@reads("EyeLike")
def _eye_like(r, x, *, dtype=None, k=0):
    if dtype is not None or k:
        unsupported("EyeLike with dtype or k")
    return to(F.diag_embed(F.zeros_of((x.shape[0],), D.float32) + 1), x.dtype)
