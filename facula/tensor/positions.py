"""Where elements are true: results whose size is data. A first pass counts, a second writes."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ShapeError, fail
from facula.eager.apart import apart
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.ops.promote import broadcast_shapes
from facula.tensor.functions import fit, function_of, need_dtype, refuse_shared


def into(name, out, y):
    """``out`` with the elements of ``y``, resized to its shape; the dtypes must agree."""
    need_tensor(name, out)
    need_tensor(name, out)
    need_dtype(name, out, y.dtype)
    fit(name, out, y.shape)
    return out.copy_(y)


def nonzero_tuple(x) -> tuple:
    """The positions of the nonzero elements: one int64 vector a dimension."""
    return tuple(nonzero(x).unbind(1)) if x.ndim else (nonzero(x.reshape(1))[:, 0],)


def nonzero(input, *, out=None, as_tuple=False):  # noqa: A002
    """[n, ndim]: the positions of the ``n`` nonzero elements, in row-major order.

    A first pass counts, a second writes: the size of the result is data.
    """
    need_tensor("nonzero", input)
    if as_tuple:
        return nonzero_tuple(input)
    x = input.detach()
    found = true_positions(x.reshape(-1) if x.ndim != 1 else x)
    if x.ndim == 0:
        found = found.new_empty(found.shape[0], 0)
    elif x.ndim == 1:
        found = found.reshape(-1, 1)
    elif found.shape[0] == 0:
        found = x.new_empty(0, x.ndim, dtype=D.int64)
    else:
        found = function_of(OPS["unravel"])(found, x)
    return found if out is None else into("nonzero", out, found)


def true_positions(flat):
    mask = flat if flat.dtype is D.bool_ else flat != 0
    if mask.numel() == 0:
        return mask.new_empty(0, dtype=D.int64)
    ends = function_of(OPS["true_counts"])(mask)
    found = mask.new_empty(ends[-1].item(), dtype=D.int64)
    return function_of(OPS["compact"], "self")(found, mask, ends) if found.numel() else found


def argwhere(input):  # noqa: A002
    """[n, ndim]: the positions of the nonzero elements, in row-major order."""
    return nonzero(input)


def count_nonzero(input, dim=None):  # noqa: A002
    """How many elements are nonzero, over ``dim``."""
    need_tensor("count_nonzero", input)
    return (input != 0).sum(dim)


def where(condition, input=None, other=None, *, out=None):  # noqa: A002
    """``input`` where ``condition`` is true, else ``other``; alone, the positions of true ones."""
    if input is None and other is None:
        return nonzero_tuple(condition)
    y = function_of(OPS["where"])(condition, input, other)
    return y if out is None else into("where", out, y)


def where_method(self, condition, other):
    """``self`` where ``condition`` is true, else ``other``."""
    return function_of(OPS["where"])(condition, self, other)


def masked_select(input, mask, *, out=None):  # noqa: A002
    """The elements of ``input`` where ``mask`` is true, as a vector; the two broadcast."""
    need_tensor("masked_select", input)
    if not isinstance(mask, Tensor) or mask.dtype is not D.bool_:
        fail(ShapeError, "masked_select", "expected BoolTensor for mask")
    shape = broadcast_shapes(input.shape, mask.shape, name="masked_select")
    y = input.expand(shape)[mask.expand(shape)]
    if out is None:
        return y
    if apart(out, input, always=True) is not input or apart(out, mask, always=True) is not mask:
        refuse_shared("masked_select")
    return into("masked_select", out, y)


Tensor.nonzero, Tensor.argwhere, Tensor.count_nonzero = nonzero, argwhere, count_nonzero
Tensor.masked_select, Tensor.where = masked_select, where_method

__all__ = ["argwhere", "count_nonzero", "masked_select", "nonzero", "where"]
