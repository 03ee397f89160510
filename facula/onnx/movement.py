"""Sources and movements in ONNX."""

from __future__ import annotations

import numpy as np

from facula.base import dtypes as D
from facula.ir.dims import Dim, product
from facula.onnx.table import maps

_LOWEST = -(1 << 63)


@maps("constant")
def _constant(g, node):
    return g.constant(node.params["value"], node.params["dtype"])


@maps("size")
def _size(g, node):
    return g.cast(g.scalar(node.params["n"]), node.params["dtype"])


def _range(g, n):
    return g.op("Range", g.constant(0, D.int64), g.scalar(n), g.constant(1, D.int64))


@maps("positions")
def _positions(g, node):
    shape = node.params["shape"]
    flat = _range(g, product(shape))
    return flat if len(shape) == 1 else g.reshape(flat, shape)


@maps("expand")
def _expand(g, node, x):
    return g.expand(x, node.inputs[0], node.params["shape"])


def _folded(g, node, x, change):
    """A rearranged constant is a constant."""
    return g.array(np.array(change(g.arrays[x]), order="C"), g.dtypes[x], x)


@maps("reshape")
def _reshape(g, node, x):
    shape = node.params["shape"]
    if x in g.arrays and not any(isinstance(n, Dim) for n in shape):
        return _folded(g, node, x, lambda a: a.reshape(shape))
    return g.reshape(x, shape)


@maps("permute")
def _permute(g, node, x):
    order = node.params["order"]
    if x in g.arrays:
        return _folded(g, node, x, lambda a: a.transpose(order))
    return g.op("Transpose", x, perm=order)


@maps("slice")
def _slice(g, node, x):
    p = node.params
    start, step = p["start"], p["step"]
    # A last place beyond the end is cut; an empty slice begins where it ends.
    end = start + p["length"] * step
    if not isinstance(end, Dim) and not isinstance(p["length"], Dim) and p["length"] > 0:
        end = start + (p["length"] - 1) * step + 1
    return g.op("Slice", x, g.size(start), g.size(end), g.vector([p["dim"]]), g.size(step))


@maps("flip")
def _flip(g, node, x):
    dims = node.params["dims"]
    ones = [-1] * len(dims)
    ends = [_LOWEST] * len(dims)
    return g.op("Slice", x, g.vector(ones), g.vector(ends), g.vector(dims), g.vector(ones))


@maps("pad")
def _pad(g, node, x):
    p, v = node.params, node.inputs[0]
    d = p["dim"]
    value = g.constant(p["value"], v.dtype)
    if not isinstance(p["between"], int) or p["between"] > 0:
        # Each element becomes a row of itself and what follows it; the last row is cut.
        width = p["between"] + 1
        n = v.shape[d]
        x = _padded(g, g.unsqueeze(x, d + 1), v.ndim + 1, d + 1, 0, p["between"], value)
        x = g.reshape(x, (*v.shape[:d], n * width, *v.shape[d + 1 :]))
        end = g.size((n - 1) * width + 1)
        x = g.op("Slice", x, g.vector([0]), end, g.vector([d]), g.vector([1]))
    if p["before"] == 0 and p["after"] == 0:
        return x
    return _padded(g, x, v.ndim, d, p["before"], p["after"], value)


def _padded(g, x, ndim, dim, before, after, value):
    none = [0] * ndim
    pads = [*none[:dim], before, *none[dim + 1 :], *none[:dim], after, *none[dim + 1 :]]
    return g.op("Pad", x, g.sizes(pads), value, mode="constant")


@maps("windows")
def _windows(g, node, x):
    p = node.params
    d, n = p["dim"], node.outputs[0].shape[p["dim"]]
    within = g.op("Mul", _range(g, p["size"]), g.scalar(p["dilation"]))
    starts = g.op("Mul", _range(g, n), g.scalar(p["step"]))
    index = g.op("Add", g.unsqueeze(starts, 1), within)
    return g.op("Gather", x, index, axis=d)
