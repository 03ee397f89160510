"""Reductions, scans, gathering and scattering in ONNX."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.ir.dims import product
from facula.onnx.table import maps

REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_prod": "ReduceProd", "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
}  # fmt: skip


@maps(*REDUCTIONS)
def _reduce(g, node, x):
    own = node.inputs[0].dtype
    if own is D.bool_:
        x = g.cast(x, D.int32)
    y = g.reduce(REDUCTIONS[node.op.name], x, node.params["dims"])
    return g.cast(y, own) if own is D.bool_ else y


@maps("reduce_any", "reduce_all")
def _logical(g, node, x):
    # The sum, not the extremum: that of nothing is right as well.
    x = x if node.op.name == "reduce_any" else g.op("Not", x)
    count = g.reduce("ReduceSum", g.cast(x, D.int32), node.params["dims"])
    found = g.op("Greater", count, g.constant(0, D.int32))
    return found if node.op.name == "reduce_any" else g.op("Not", found)


@maps("argmax", "argmin")
def _extremum(g, node, x):
    kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[node.op.name]
    return g.op(kind, x, axis=node.params["dims"][0], keepdims=0)


@maps("cumsum")
def _cumsum(g, node, x):
    return g.op("CumSum", x, g.constant(node.params["dim"], D.int64))


@maps("sort")
def _sort(g, node, x):
    d = node.params["dim"]
    count = g.size(node.inputs[0].shape[d])
    return g.op("TopK", x, count, outputs=2, axis=d, largest=int(node.params["descending"]))


@maps("topk")
def _topk(g, node, x):
    p = node.params
    return g.op("TopK", x, g.vector([p["k"]]), outputs=2, axis=p["dim"], largest=int(p["largest"]))


@maps("cat")
def _cat(g, node, *xs):
    return g.op("Concat", *xs, axis=node.params["dim"])


@maps("take")
def _take(g, node, x, index):
    return g.op("Gather", x, index, axis=node.params["dim"])


@maps("gather")
def _gather(g, node, x, index):
    return g.op("GatherElements", x, index, axis=node.params["dim"])


@maps("index_get")
def _index_get(g, node, x, index):
    return g.op("GatherND", x, index)


@maps("scatter")
def _scatter(g, node, x, index, src):
    names = {"set": "none", "add": "add", "mul": "mul", "min": "min", "max": "max"}
    reduction = names[node.params["reduce"]]
    return g.op("ScatterElements", x, index, src, axis=node.params["dim"], reduction=reduction)


@maps("index_add")
def _index_add(g, node, x, index, src):
    v, places = node.inputs[0], node.inputs[1]
    d = node.params["dim"]
    shape = (*v.shape[:d], product(places.shape), *v.shape[d + 1 :])
    index = g.reshape(index, tuple(shape[d] if i == d else 1 for i in range(v.ndim)))
    index = g.op("Expand", index, g.sizes(shape))
    return g.op("ScatterElements", x, index, g.reshape(src, shape), axis=d, reduction="add")


@maps("index_put")
def _index_put(g, node, x, index, src):
    reduction = "add" if node.params["accumulate"] else "none"
    return g.op("ScatterND", x, index, src, reduction=reduction)
