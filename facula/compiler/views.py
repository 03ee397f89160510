"""Views: values that are other values' memory seen through strides, and maps of loop indices."""

from __future__ import annotations

from facula.compiler.simplify import same_shape
from facula.ir.dims import hint, same


class Place:
    """Where the elements of a value lie.

    ``kind`` and ``number`` name the memory: ("input", i), ("output", j) or ("temp", k);
    ``strides`` and ``offset`` (in elements) are integers or symbolic sizes.
    """

    __slots__ = ("kind", "number", "dtype", "strides", "offset")

    def __init__(self, kind, number, dtype, strides, offset=0):
        self.kind, self.number, self.dtype = kind, number, dtype
        self.strides, self.offset = tuple(strides), offset

    @property
    def memory(self):
        return self.kind, self.number


def resolve(value, places) -> Place | None:
    """The place of a value that is, or is a chain of views of, a value that has a place."""
    chain = []
    v = value
    while id(v) not in places:
        if v.node is None or v.node.op.kind != "movement" or v.node.op.view is None:
            return None
        chain.append(v.node)
        v = v.node.inputs[0]
    place = places[id(v)]
    shape, strides, offset = v.shape, place.strides, place.offset
    for node in reversed(chain):
        seen = node.op.view(shape, strides, **node.params)
        if seen is None:
            return None
        shape, strides, more = seen
        offset = offset + more
    return Place(place.kind, place.number, place.dtype, strides, offset)


def below_views(value):
    """The value under a chain of views."""
    while value.node is not None and value.node.op.kind == "movement" and value.node.op.view:
        value = value.node.inputs[0]
    return value


def below_reshapes(value):
    """The value under a chain of reshapes: the same elements in the same order."""
    while value.node is not None and value.node.op.name == "reshape":
        value = value.node.inputs[0]
    return value


def is_one(n) -> bool:
    return isinstance(n, int) and n == 1


def without_ones(shape):
    return [n for n in shape if not is_one(n)]


def only_ones_move(a, b) -> bool:
    """Whether a reshape from ``a`` to ``b`` does no more than add and remove sizes of 1."""
    return same_shape(without_ones(a), without_ones(b))


def reshape_groups(a, b) -> list:
    """Pairs of lists of dimensions, of sizes other than 1, that a reshape from ``a`` to ``b`` turns
    into each other, as many as can be told apart for all values of the symbols.

    >>> reshape_groups((2, 3, 5), (6, 1, 5))
    [([0, 1], [0]), ([2], [2])]
    """
    left = [d for d, n in enumerate(a) if not is_one(n)]
    right = [d for d, n in enumerate(b) if not is_one(n)]
    groups = []
    while left or right:
        ours, theirs, m, n = [], [], 1, 1
        while left or right:
            if left and (hint(m) <= hint(n) or not right):
                ours.insert(0, left.pop())
                m = m * a[ours[0]]
            else:
                theirs.insert(0, right.pop())
                n = n * b[theirs[0]]
            if same(m, n):
                break
        groups.insert(0, (ours, theirs))
    return groups


#: In an index map: the dimension has size 1.
ZERO = "zero"


def operand_maps(node, index_map):
    """For each operand, which loop dimension runs over each of its dimensions.

    ``index_map`` says so for the node's output: loop dimensions as ints, ``ZERO`` for dimensions
    of size 1, None where the position is something more involved.
    """
    kind, name, x = node.op.kind, node.op.name, node.inputs[0] if node.inputs else None
    if kind == "pointwise":
        return [index_map] * len(node.inputs)
    if kind == "gather":
        return _gather_maps(node, index_map)
    unknown = [tuple(ZERO if is_one(n) else None for n in v.shape) for v in node.inputs]
    if kind != "movement":
        return unknown
    if name == "expand":
        tail = index_map[len(index_map) - x.ndim :]
        return [tuple(ZERO if is_one(n) else m for n, m in zip(x.shape, tail))]
    if name == "permute":
        result = [None] * x.ndim
        for i, d in enumerate(node.params["order"]):
            result[d] = index_map[i]
        return [tuple(result)]
    if name == "reshape":
        result = list(unknown[0])
        for ours, theirs in reshape_groups(x.shape, node.outputs[0].shape):
            if len(ours) == len(theirs) == 1:
                result[ours[0]] = index_map[theirs[0]]
        return [tuple(result)]
    result = list(unknown[0])
    shift = 1 if name == "windows" else 0
    dims = node.params["dims"] if name == "flip" else (node.params["dim"],)
    for d in range(x.ndim):
        if d not in dims and not is_one(x.shape[d]):
            result[d] = index_map[d + (shift if d > dims[0] else 0)]
    return [tuple(result)]


def _gather_maps(node, index_map):
    x, index = node.inputs
    unknown = tuple(ZERO if is_one(n) else None for n in x.shape)
    if node.op.name == "take":
        dim = node.params["dim"]
        own = index_map[dim : dim + index.ndim]
    elif node.op.name == "gather":
        own = index_map
    else:
        own = (index_map[0], None)
    return [unknown, tuple(ZERO if is_one(n) else m for n, m in zip(index.shape, own))]


def of_windows(v) -> bool:
    """Whether a value is windows of another, moved about."""
    while v.node is not None and v.node.op.kind == "movement":
        if v.node.op.name == "windows":
            return True
        v = v.node.inputs[0]
    return False


def scrambles(node, index_map):
    """Whether the place in the operand is more than a choice of the loops' indices."""
    if node.op.kind != "movement" or node.op.name in ("expand", "permute"):
        return False
    return any(None in m for m in operand_maps(node, index_map))
