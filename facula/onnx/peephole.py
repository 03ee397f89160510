"""The written graph made tidy: what nothing uses goes, scale and shift join their normalisation."""

from __future__ import annotations

from collections import Counter


def tidy(g, outputs) -> tuple[list, set[str]]:
    """The nodes that the outputs depend on, and all names that they use."""
    nodes, _ = live(g.nodes, outputs)
    nodes = without_copies(nodes, outputs)
    return live(with_affine(g, nodes, outputs), outputs)


def live(nodes, outputs) -> tuple[list, set[str]]:
    """The nodes that an output depends on, and the names that they use."""
    used, kept = set(outputs), []
    for node in reversed(nodes):
        if used & set(node.output):
            used.update(node.input)
            kept.append(node)
    return kept[::-1], used


def without_copies(nodes, outputs) -> list:
    """Without the copies at the end: what they copied is computed under the output's name."""
    made = {name for node in nodes for name in node.output}
    rename: dict[str, str] = {}
    for node in nodes:
        if node.op_type == "Identity" and node.output[0] in outputs and node.input[0] in made:
            rename.setdefault(node.input[0], node.output[0])
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = rename.get(name, name)
    return [n for n in nodes if n.op_type != "Identity" or n.input[0] != n.output[0]]


def with_affine(g, nodes, outputs) -> list:
    """A LayerNormalization takes the scale, then the shift, that alone use its result."""
    uses = Counter(name for node in nodes for name in node.input)
    uses.update(outputs)
    reader = {name: node for node in nodes for name in node.input if uses[name] == 1}
    gone = set()
    for node in nodes:
        if node.op_type != "LayerNormalization":
            continue
        shape = g.arrays[node.input[1]].shape
        for kind in ("Mul", "Add"):
            after = reader.get(node.output[0])
            if after is None or after.op_type != kind:
                break
            (weight,) = [name for name in after.input if name != node.output[0]] or [None]
            if weight not in g.arrays or g.arrays[weight].shape != shape:
                break
            if kind == "Mul":
                node.input[1] = weight
            else:
                node.input.append(weight)
            gone.add(after.name)
            node.output[0] = after.output[0]
    return [n for n in nodes if n.name not in gone]
