"""Opaque: nodes that have kernels written by hand, bound to the places of their operands."""

from __future__ import annotations

from facula.compiler import calls as C
from facula.compiler.views import resolve
from facula.ir import loops as L


def copy(value, source, target):
    """A kernel that copies ``value`` from one place to another of the same shape."""
    k = L.Builder("copy")
    x, y = k.buffer("x", source.dtype), k.buffer("y", target.dtype, "w")
    bindings = {"x": C.memory(source), "y": C.memory(target)}
    sizes = []
    for d, n in enumerate(value.shape):
        names = f"n{d}", f"s{d}", f"t{d}"
        for name, size in zip(names, (n, source.strides[d], target.strides[d])):
            bindings[name] = ("size", size)
        sizes.append([k.size(name) for name in names])

    def nest(rest, at, to):
        if not rest:
            k.store(y, to, x[at])
            return
        (n, s, t), *inner = rest
        with k.loop(0, n, kind="serial" if inner else "vector") as i:
            nest(inner, at + i * s, to + i * t)

    nest(sizes, L.Const(0, L.int64), L.Const(0, L.int64))
    return C.call(k.kernel(), bindings)


def lower(node, places, temp):
    """The kernel calls of one node; ``temp(dtype, elements)`` gives memory between them."""
    operands = [resolve(v, places) for v in node.inputs]
    results = [places[id(v)] for v in node.outputs]
    return LOWERINGS[node.op.name](node, operands, results, temp)


LOWERINGS: dict = {}
