"""Nested tuples, lists, dicts and dataclasses as a list of leaves and what remains."""

from __future__ import annotations

import dataclasses

from facula.eager.tensor import Tensor
from facula.ir.dims import Dim


def flatten(tree, leaves: list):
    """Leaves of nested containers into ``leaves``; what remains, hashable."""
    kind = type(tree)
    if kind in (tuple, list):
        return (kind, *[flatten(x, leaves) for x in tree])
    if kind is dict:
        keys = tuple([int(k) if type(k) is Dim else k for k in tree])
        return (kind, keys, *[flatten(x, leaves) for x in tree.values()])
    if isinstance(tree, Tensor):
        leaves.append(tree)
        return None
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return (kind, *[flatten(x, leaves) for x in tree])
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = tuple(f.name for f in dataclasses.fields(tree))
        return (kind, names, *[flatten(getattr(tree, name), leaves) for name in names])
    leaves.append(tree)
    return None


def unflatten(structure, leaves):
    """The inverse of :func:`flatten`; ``leaves`` is an iterator."""
    if structure is None:
        return next(leaves)
    kind, *rest = structure
    if kind is dict:
        keys, *items = rest
        return {k: unflatten(x, leaves) for k, x in zip(keys, items)}
    if dataclasses.is_dataclass(kind):
        made, (names, *items) = object.__new__(kind), rest
        for name, x in zip(names, items):
            object.__setattr__(made, name, unflatten(x, leaves))
        return made
    items = [unflatten(x, leaves) for x in rest]
    return kind(*items) if hasattr(kind, "_fields") else kind(items)
