"""Nested arguments and results described in JSON's words, with tensors by number.

A description is ``{"tensor": i}``, ``{"value": constant}``, ``{"tuple": [...]}``,
``{"list": [...]}`` or ``{"dict": {...}}``.
"""

from __future__ import annotations

from facula.base.errors import ArgumentTypeError, fail
from facula.eager.tensor import Tensor
from facula.export.errors import ArchiveError, ExportError

_CONSTANTS = (bool, int, float, str, type(None))
#: Deeper nesting is refused.
MAX_DEPTH = 64


def describe(tree, tensors: list, op: str = "export"):
    """The description of a tree, whose tensors are appended to ``tensors``.

    Raises:
        ExportError: a leaf that is neither a tensor nor a plain constant.
    """
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return {"tensor": len(tensors) - 1}
    if isinstance(tree, _CONSTANTS):
        return {"value": tree}
    if isinstance(tree, (tuple, list)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [describe(x, tensors, op) for x in tree]}
    if isinstance(tree, dict) and all(isinstance(k, str) for k in tree):
        return {"dict": {k: describe(x, tensors, op) for k, x in tree.items()}}
    kind = type(tree).__name__
    return fail(
        ExportError, op, f"expected tensors, numbers, texts, tuples, lists and dicts, got {kind}"
    )


def fill(description, tensors):
    """The tree of a description, with these tensors in their places."""
    ((kind, what),) = description.items()
    if kind == "tensor":
        return tensors[what]
    if kind == "value":
        return what
    if kind == "dict":
        return {k: fill(x, tensors) for k, x in what.items()}
    items = [fill(x, tensors) for x in what]
    return items if kind == "list" else tuple(items)


def match(description, tree, tensors: dict, place: str) -> None:
    """Put the tensors of ``tree`` into ``tensors`` by number.

    Raises:
        ArgumentTypeError: the tree is not as described.
    """
    ((kind, what),) = description.items()
    if kind == "tensor":
        if not isinstance(tree, Tensor):
            _mismatch(place, "a tensor", tree)
        tensors[what] = tree
    elif kind == "value":
        if type(tree) is not type(what) or tree != what:
            _mismatch(place, f"{what!r}, the value that it was exported with", tree)
    elif kind == "dict":
        if not isinstance(tree, dict) or set(tree) != set(what):
            _mismatch(place, f"a dict with the keys {list(what)}", tree)
        for k, x in what.items():
            match(x, tree[k], tensors, f"{place}[{k!r}]")
    else:
        if not isinstance(tree, (tuple, list)) or len(tree) != len(what):
            _mismatch(place, f"a {kind} of {len(what)}", tree)
        for i, x in enumerate(what):
            match(x, tree[i], tensors, f"{place}[{i}]")


def _mismatch(place, expected, got):
    fail(ArgumentTypeError, "export", f"{place}: expected {expected}, got {type(got).__name__}")


def check(description, count: int, depth: int = 0) -> None:
    """Refuse what :func:`describe` cannot have written for ``count`` tensors.

    Raises:
        ArchiveError: and why.
    """
    if depth > MAX_DEPTH or not isinstance(description, dict) or len(description) != 1:
        fail(ArchiveError, "export.load", "a structure is not described as one")
    ((kind, what),) = description.items()
    if kind == "tensor":
        if type(what) is not int or not 0 <= what < count:
            fail(ArchiveError, "export.load", f"a structure names tensor {what!r} of {count}")
    elif kind in ("tuple", "list") and isinstance(what, list):
        for x in what:
            check(x, count, depth + 1)
    elif kind == "dict" and isinstance(what, dict):
        for x in what.values():
            check(x, count, depth + 1)
    elif kind != "value" or not isinstance(what, (*_CONSTANTS, dict)):
        fail(ArchiveError, "export.load", f"a structure has the unknown part {kind!r}")
