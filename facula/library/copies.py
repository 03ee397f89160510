"""Movements whose results are always copies: ``expand_copy``, ``permute_copy``, ..."""

from __future__ import annotations

import functools

import facula.library.shape  # noqa: F401  declares some of what is copied
from facula.ir.program import Value
from facula.ops.registry import OPS, F, Op, op

_VIEWS = (
    "diagonal", "expand", "permute", "select", "split", "squeeze", "t", "transpose", "unbind",
    "unfold", "unsqueeze", "view",
)  # fmt: skip


def _copying(base):
    @functools.wraps(base.fn)
    def fn(*args, **kwargs):
        y = base.fn(*args, **kwargs)
        return tuple(map(F.clone, y)) if isinstance(y, tuple) else F.clone(y)

    fn.__doc__ = f"As ``{base.name}``, but of memory of its own."
    return Op(fn, f"{base.name}_copy", ("torch",), out=True, samples=base.samples)


for _name in _VIEWS:
    _copying(OPS[_name])


@op(spaces=("torch",), out=True)
def alias_copy(input: Value):
    """A copy of the tensor."""
    return F.clone(input)
