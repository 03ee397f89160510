"""Products, convolutions, pooling, normalisations and softmaxes in ONNX."""

from __future__ import annotations

import numpy as np

from facula.base import dtypes as D
from facula.base.errors import fail
from facula.ir.dims import Dim
from facula.onnx.errors import OnnxError
from facula.onnx.graph import bfloat_or, bits_of
from facula.onnx.table import maps
from facula.ops.conv import Pool


@maps("matmul")
def _matmul(g, node, a, b):
    return g.op("MatMul", a, b)


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


@maps("max_pool")
def _max_pool(g, node, x):
    p, v = node.params, node.inputs[0]
    rank = p["rank"]
    pool = Pool("max_pool", v, rank, p["kernel"], p["stride"], p["padding"], p["dilation"],
                p["ceil_mode"])  # fmt: skip
    if any(isinstance(a, Dim) for a in pool.after):
        if p["ceil_mode"]:
            fail(OnnxError, "onnx", "max_pool with ceil_mode over a size that may change")
        pool.after = p["padding"]
    batched = v.ndim == rank + 2
    x = x if batched else g.unsqueeze(x, 0)
    y = g.op(
        "MaxPool",
        x,
        kernel_shape=p["kernel"],
        strides=p["stride"],
        dilations=p["dilation"],
        # Padding in place of ceil_mode, on whose last window runtimes do not agree.
        pads=[*p["padding"], *(max(0, a) for a in pool.after)],
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


@maps("normalized")
def _normalized(g, node, x):
    """LayerNormalization where the last dimensions are normalised, else its formula."""
    v, dims = node.inputs[0], node.params["dims"]
    sizes = [v.shape[d] for d in dims]
    trailing = dims == tuple(range(v.ndim - len(dims), v.ndim))
    if trailing and not any(isinstance(n, Dim) for n in sizes) and v.dtype is D.float32:
        ones = g.array(bits_of(np.ones(sizes, bfloat_or(v.dtype)), v.dtype), v.dtype, "ones")
        y, mean, rstd = g.op("LayerNormalization", x, ones, outputs=3, axis=dims[0] - v.ndim,
                             epsilon=node.params["eps"])  # fmt: skip
        return y, g.squeeze(mean, *dims), g.squeeze(rstd, *dims)
    wide = D.float32 if v.dtype in (D.float16, D.bfloat16) else v.dtype
    x = x if wide is v.dtype else g.cast(x, wide)
    mean = g.reduce("ReduceMean", x, dims, keep=True)
    apart = g.op("Sub", x, mean)
    var = g.reduce("ReduceMean", g.op("Mul", apart, apart), dims, keep=True)
    eps = g.constant(float(node.params["eps"]), wide)
    rstd = g.op("Reciprocal", g.op("Sqrt", g.op("Add", var, eps)))
    y = g.op("Mul", apart, rstd)
    y = y if wide is v.dtype else g.cast(y, v.dtype)
    return y, g.squeeze(mean, *dims), g.squeeze(rstd, *dims)
