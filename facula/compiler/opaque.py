"""Opaque: nodes that have kernels written by hand, bound to the places of their operands."""

from __future__ import annotations

import functools

from facula.compiler import calls as C
from facula.compiler.views import Place, resolve
from facula.ir import loops as L
from facula.kernels import matmul


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


# Matrix products --------------------------------------------------------------------------------

_matmul_kernel = functools.lru_cache(maxsize=None)(matmul.build)


def _matmul(node, operands, results, temp):
    a, b = operands
    (c,) = results
    batch, m, k = node.inputs[0].shape
    n = node.inputs[1].shape[2]
    sizes = (batch, m, n, k, *a.strides, *b.strides, *c.strides[:2])
    bindings = {name: ("size", size) for name, size in zip(matmul.SIZES, sizes)}
    bindings.update(a=C.memory(a), b=C.memory(b), c=C.memory(c))

    def select(values, machine):
        form, row_cut, column_cut = matmul.choose(
            a.dtype,
            *(values[name] for name in ("batch", "m", "n", "k")),
            (values["ars"], values["acs"]),
            (values["brs"], values["bcs"]),
            vector_bytes=machine.vector_bytes,
            threads=machine.threads,
        )
        return _matmul_kernel(form), {"row_cut": row_cut, "column_cut": column_cut}

    return [C.selected(select, bindings, (a, b), (c,))]


# Joining ----------------------------------------------------------------------------------------


def _cat(node, operands, results, temp):
    (y,), dim, calls, start = results, node.params["dim"], [], 0
    for value, place in zip(node.inputs, operands):
        part = Place(y.kind, y.number, y.dtype, y.strides, y.offset + y.strides[dim] * start)
        calls.append(copy(value, place, part))
        start = start + value.shape[dim]
    return calls


LOWERINGS: dict = {"matmul": _matmul, "cat": _cat}
