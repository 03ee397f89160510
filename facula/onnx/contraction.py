"""Products, convolutions, pooling, normalisations and softmaxes in ONNX."""

from __future__ import annotations

import numpy as np

from facula.base import dtypes as D
from facula.base.errors import fail
from facula.ir.dims import Dim
from facula.onnx.errors import OnnxError
from facula.onnx.graph import bfloat_or, bits_of
from facula.onnx.table import maps
from facula.ops.pool import Pool


@maps("matmul")
def _matmul(g, node, a, b):
    if not node.params.get("wide"):
        return g.op("MatMul", a, b)
    if node.inputs[0].dtype in (D.int8, D.uint8):
        return g.op("MatMulInteger", a, b)
    return g.op("MatMul", g.cast(a, D.int32), g.cast(b, D.int32))


def _geometry(node):
    p = node.params
    return {
        "kernel_shape": [int(k) for k in node.inputs[1].shape[2:]],
        "strides": p["stride"],
        "dilations": p["dilation"],
        "group": p["groups"],
    }


@maps("conv")
def _conv(g, node, x, w):
    padding = node.params["padding"]
    return g.op("Conv", x, w, pads=[*padding, *padding], **_geometry(node))


@maps("conv_input")
def _conv_input(g, node, x, w):
    p, shape = node.params, node.inputs[0].shape[2:]
    extra = []
    for n, m, k, s, q, d in zip(
        shape, p["spatial"], node.inputs[1].shape[2:], p["stride"], p["padding"], p["dilation"]
    ):
        left = m - ((n - 1) * s - 2 * q + d * (k - 1) + 1)
        if isinstance(left, Dim):
            fail(OnnxError, "onnx", f"a transposed convolution whose output size {m} is no sum of "
                 f"a multiple of {n}")  # fmt: skip
        extra.append(left)
    pads = [*p["padding"], *p["padding"]]
    return g.op("ConvTranspose", x, w, pads=pads, output_padding=extra, **_geometry(node))


def _past_the_end(node):
    """Padding behind each spatial dimension, in place of a mode on which runtimes disagree."""
    p, x = node.params, node.inputs[0]
    if not p["ceil_mode"]:
        return p["padding"]
    names = ("kernel", "stride", "padding", "dilation", "ceil_mode")
    return Pool("max_pool", x, p["rank"], *(p[k] for k in names)).after


@maps("max_pool", when=lambda node: not any(isinstance(a, Dim) for a in _past_the_end(node)))
def _max_pool(g, node, x):
    p = node.params
    batched = node.inputs[0].ndim == p["rank"] + 2
    x = x if batched else g.unsqueeze(x, 0)
    y = g.op(
        "MaxPool",
        x,
        kernel_shape=p["kernel"],
        strides=p["stride"],
        dilations=p["dilation"],
        pads=[*p["padding"], *_past_the_end(node)],
    )
    return y if batched else g.squeeze(y, 0)


@maps("softmax", "log_softmax")
def _softmax(g, node, x):
    kind = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[node.op.name]
    return g.op(kind, x, axis=node.params["dim"])


@maps("logsumexp")
def _logsumexp(g, node, x):
    return g.reduce("ReduceLogSumExp", x, node.params["dims"])


@maps("norm2")
def _norm2(g, node, x):
    return g.reduce("ReduceL2", x, node.params["dims"])


def _over_last_dimensions(node) -> bool:
    v, dims = node.inputs[0], node.params["dims"]
    trailing = dims == tuple(range(v.ndim - len(dims), v.ndim))
    return trailing and not any(isinstance(v.shape[d], Dim) for d in dims)


@maps("normalized", when=_over_last_dimensions)
def _normalized(g, node, x):
    v, dims = node.inputs[0], node.params["dims"]
    ones = np.ones([v.shape[d] for d in dims], bfloat_or(v.dtype))
    scale = g.array(bits_of(ones, v.dtype), v.dtype, "ones")
    axis, eps = dims[0] - v.ndim, node.params["eps"]
    y, mean, rstd = g.op("LayerNormalization", x, scale, outputs=3, axis=axis, epsilon=eps)
    return y, g.squeeze(mean, *dims), g.squeeze(rstd, *dims)
