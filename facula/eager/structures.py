"""Nested tuples, lists and dicts as a list of leaves and what remains."""

from __future__ import annotations


def flatten(tree, leaves: list):
    """Leaves of nested tuples, lists and dicts into ``leaves``; what remains, hashable."""
    kind = type(tree)
    if kind in (tuple, list):
        return (kind, *[flatten(x, leaves) for x in tree])
    if kind is dict:
        return (kind, tuple(tree), *[flatten(x, leaves) for x in tree.values()])
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return (kind, *[flatten(x, leaves) for x in tree])
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
    items = [unflatten(x, leaves) for x in rest]
    return kind(*items) if hasattr(kind, "_fields") else kind(items)
