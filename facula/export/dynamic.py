"""Which sizes of an input may change, as ``dynamic_shapes`` says."""

from __future__ import annotations

import re

from facula.base.errors import ArgumentError, ArgumentTypeError, fail, wrap_dim
from facula.eager.tensor import Tensor
from facula.ir import dims

#: Names that the engine gives to strides.
_TAKEN = re.compile(r"t\d+d\d+")


def is_name(name) -> bool:
    """Whether a symbolic size can have that name."""
    return isinstance(name, str) and name.isidentifier() and not _TAKEN.fullmatch(name)


class Dim:
    """A size that may change, by name: the same name is the same size wherever it stands.

    Args:
        name: an identifier.
        min, max: bounds, inclusive; checked at every call.

    >>> Dim("batch").name
    'batch'
    """

    #: A size that may change and has nothing to do with others.
    AUTO = DYNAMIC = True
    #: A size that may not change.
    STATIC = None

    def __init__(self, name: str, *, min: int | None = None, max: int | None = None):  # noqa: A002
        self.name, self.min, self.max = name, min, max

    def __repr__(self):
        return f"Dim({self.name!r})"


class Symbols:
    """The symbols of an export, by name, each with a hint and the bounds that were asked for."""

    def __init__(self):
        self.made: dict[str, dims.Dim] = {}
        self.bounds: list[tuple[dims.Dim, Dim]] = []

    def of(self, wish, number: int, dim: int, size: int):
        """The size of input ``number`` at ``dim``: a symbol where the wish is one."""
        if wish is None or wish is False or type(wish) is int:
            if type(wish) is int and wish != size:
                fail(ArgumentError, "export", f"dimension {dim} has size {size}, not {wish}")
            return size
        name = f"s{number}d{dim}" if wish is True else getattr(wish, "name", wish)
        if not is_name(name):
            fail(ArgumentError, "export", f"a dynamic size needs an identifier, got {name!r}")
        if name not in self.made:
            # A trace takes no symbol for 1, so that it never asks about one: any other hint does.
            self.made[name] = dims.Dim.symbol(name, size if size > 1 else 2)
        symbol = self.made[name]
        if dims.hint(symbol) != size and size != 1:
            fail(
                ArgumentError,
                "export",
                f"the size {name!r} is {dims.hint(symbol)} in one place and {size} in another",
            )
        if isinstance(wish, Dim):
            self.bounds.append((symbol, wish))
        return symbol


def wishes(tree, spec, found: list, op: str = "export") -> None:
    """For each tensor of ``tree``, in order, {dimension: wish}, appended to ``found``.

    ``spec`` has the tree's structure, with None, a dict or a sequence in place of each tensor.
    """
    if isinstance(tree, Tensor):
        found.append(_of_tensor(tree, spec, op))
    elif isinstance(tree, (tuple, list)):
        for i, x in enumerate(tree):
            wishes(x, None if spec is None else spec[i], found, op)
    elif isinstance(tree, dict):
        for k, x in tree.items():
            wishes(x, None if spec is None else spec.get(k), found, op)


def _of_tensor(x, spec, op):
    if spec is None:
        return {}
    if isinstance(spec, dict):
        return {wrap_dim(op, d, x.ndim): wish for d, wish in spec.items()}
    if isinstance(spec, (tuple, list)):
        if all(type(s) is int for s in spec):
            return {wrap_dim(op, d, x.ndim): True for d in spec}
        if len(spec) != x.ndim:
            fail(ArgumentError, op, f"{len(spec)} dynamic sizes for {x.ndim} dimensions")
        return dict(enumerate(spec))
    kind = type(spec).__name__
    return fail(ArgumentTypeError, op, f"dynamic_shapes: expected a dict or sequence, got {kind}")
