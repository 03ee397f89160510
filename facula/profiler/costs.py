"""What each kernel of a launch computes: its name, the bytes it must move, the operations it does.

Bytes are counted once a memory: what a kernel has to read and write at least, however often it
does. Of a tensor that elements are only taken from (an embedding's table) those count that are
taken. Operations are additions, multiplications, comparisons and elementary functions alike, one
for each element; a multiplication with an addition, in products and convolutions, is two. Copies,
casts, sorting and what only moves elements count none.
"""

from __future__ import annotations

from dataclasses import dataclass

from facula.ir import dims
from facula.ir import loops as L

#: Nodes that say nothing of what a kernel computes.
_SILENT = frozenset({"cast", "copy", "detach"})
#: Words of a name; beyond, the number of those left out.
_WORDS = 6


@dataclass(frozen=True)
class Cost:
    """One kernel of a launch, for the sizes at hand.

    Attributes:
        name: the ops it computes, in order, and the dtypes of what it reads.
        reads, writes: bytes.
        flops: operations.
        dtype: name of the dtype that decides which peak of the machine is meant.
    """

    name: str
    reads: int
    writes: int
    flops: int
    dtype: str

    @property
    def bytes(self) -> int:
        return self.reads + self.writes


def costs_of(parts) -> list[Cost]:
    """A Cost for each step of a launch: ``parts`` are its (Executable, sizes)."""
    return [cost for executable, sizes in parts or () for cost in _costs(executable, sizes)]


def _costs(executable, sizes):
    compiled = executable.compiled
    in_group: dict = {}
    for call in compiled.calls:
        in_group[call.group] = in_group.get(call.group, 0) + 1
    for call in compiled.calls:
        group = None if call.group is None else compiled.groups[call.group]
        nodes = nodes_of(group) if group is not None else []
        taken = _taken(group, nodes, sizes) if group is not None else {}
        kernel, _ = executable.chosen(call, sizes)
        if group is not None and group.opaque is not None:
            dtypes = [v.dtype for v in group.opaque.inputs if not v.weak]
        else:
            own = (p for p in kernel.params if isinstance(p, L.Buffer) and p.scratch is None)
            dtypes = [p.dtype for p in own if "r" in p.access]
        flops = sum(flops_of(node, sizes) for node in nodes) // in_group[call.group]
        floats = [d.name for d in dtypes if d.is_floating_point]
        yield Cost(
            f"{_words(nodes)}[{_types(dtypes)}]",
            sum(nbytes(executable, sizes, *m, taken) for m in call.reads),
            sum(nbytes(executable, sizes, *m) for m in call.writes),
            flops,
            "float64" if "float64" in floats else "float32",
        )


def nodes_of(group) -> list:
    """The nodes that a group computes, each after those it needs."""
    found, order = set(), []
    todo = [(v.node, False) for v in reversed(group.roots)]
    while todo:
        node, done = todo.pop()
        if done:
            order.append(node)
        elif node is not None and node not in found:
            found.add(node)
            todo.append((node, True))
            if node is not group.opaque:
                todo += [(v.node, False) for v in node.inputs if id(v) not in group.reads]
    return order


def _words(nodes) -> str:
    said = [n for n in nodes if n.op.kind not in ("source", "movement") and not n.outputs[0].weak]
    names = dict.fromkeys(
        n.op.name.removeprefix("reduce_") for n in said if n.op.name not in _SILENT
    )
    words = list(names) or ["copy"]
    more = len(words) - _WORDS
    return "_".join(words[:_WORDS]) + (f"_and_{more}" if more > 0 else "")


def _types(dtypes) -> str:
    short = [f"{d.kind}{8 * d.itemsize}" if d.name != "bfloat16" else "bf16" for d in dtypes]
    if len(short) > 4 and len(set(short)) == 1:
        return f"{len(short)} x {short[0]}"
    return ",".join(short) if len(short) <= 8 else ",".join(short[:7]) + f",+{len(short) - 7}"


def flops_of(node, sizes) -> int:
    """The operations of one node."""
    op, y = node.op, node.outputs[0]
    if op.kind == "pointwise":
        if op.name in _SILENT or y.weak:
            return 0
        return _numel(y, sizes)
    if op.kind == "reduce":
        return _numel(node.inputs[0], sizes)
    count = op.info.get("flops")
    return 0 if count is None else dims.evaluate(count(y, *node.inputs, **node.params), sizes)


def _numel(v, sizes) -> int:
    return dims.evaluate(dims.product(v.shape), sizes)


def _taken(group, nodes, sizes) -> dict:
    """Bytes by id of the values of which the group only takes elements by index."""
    taken: dict = {}
    whole = set()
    for node in nodes:
        for i, v in enumerate(node.inputs):
            if node.op.kind == "gather" and i == 0:
                y = node.outputs[0]
                taken[id(v)] = taken.get(id(v), 0) + y.dtype.itemsize * _numel(y, sizes)
            else:
                whole.add(id(v))
    return {key: count for key, count in taken.items() if key not in whole}


def nbytes(executable, sizes, kind, number, taken=()) -> int:
    """The bytes of a memory that a kernel names; elements of stride 0 are one element."""
    compiled = executable.compiled
    if kind == "temp":
        dtype, count = compiled.temps[number]
        return dtype.itemsize * dims.evaluate(count, sizes)
    program = compiled.program
    v = (program.inputs if kind == "input" else program.outputs)[number]
    count = v.dtype.itemsize
    for d, n in enumerate(v.shape):
        if kind != "input" or sizes.get(f"t{number}d{d}") != 0:
            count *= dims.evaluate(n, sizes)
    return min(count, taken[id(v)]) if id(v) in taken else count
