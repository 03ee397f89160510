"""Subscripts: ``x[...]`` and ``x[...] = y``.

Ints, slices, None and ``...`` only change shape, strides and address: they make a view, without a
kernel. Subscripts that were met before on a tensor of the same meta are found by one look-up.
Bool masks and tensors of ints select by data: what is left is one gather or one scatter over the
view that the other subscripts make.

As in PyTorch ints (and 0-dim tensors of ints) are views in whatever company; NumPy counts them
among the arrays when it decides where the dimensions of the result go.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import AutogradError, IndexRangeError, ShapeError, fail
from facula.eager.dispatch import capture, table
from facula.eager.tensor import Tensor, need_tensor
from facula.eager.views import View
from facula.ir.dims import Dim
from facula.library import OPS
from facula.tensor.creation import arange
from facula.tensor.functions import function_of
from facula.tensor.positions import nonzero_tuple, true_positions
from facula.tensor.slices import Steps, view_of

#: (meta, subscript) -> the plan of a View.
_known = table()
_MAX_KNOWN = 20_000
#: Beyond so many rows each subscript of a loop over them would be one more to remember.
_MAX_ROWS = 1024
_pick_along, _pick, _place = OPS["pick_along"], OPS["pick"], OPS["place"]
_NUMBERS = frozenset({bool, int, float})
_BASIC = frozenset({int, Dim, slice, type(None), type(Ellipsis)})


# Views -------------------------------------------------------------------------------------------


def getitem(self, index):
    """``self[index]``: a view for ints, slices, None and ``...``; a copy for masks and tensors.

    Raises:
        IndexError: out of range, or more subscripts than dimensions.
        ValueError: a slice with a step that is not positive.
    """
    kind = type(index)
    if kind is int:
        key = (self._meta, index)
    elif kind is slice:
        key = (self._meta, index.start, index.stop, index.step)
    elif kind is tuple:
        key = _key(self._meta, index)
        if key is None:
            return _by_tensors(self, index)
    elif index is None or index is Ellipsis:
        key = (self._meta, (index,))
    elif kind is Tensor and index._meta.dtype is D.int64 and index._meta.ndim and self._meta.ndim:
        try:
            return function_of(_pick_along)(self, index, 0)
        except IndexRangeError:
            return _advanced(self, (index,))  # Which names the subscript.
    else:
        return _advanced(self, (index,))
    try:
        view = _known[key]
    except (KeyError, TypeError):
        return _first(self, key, index)
    return view(self)


class _Recipe:
    """How subscripts are done among which there are int64 tensors.

    Attributes:
        view: the View of the other subscripts, or None.
        places: where in the subscript the tensors are.
        dims: of the view, that they select from.
        order, back: permutations before and after, or None.
    """

    __slots__ = ("view", "places", "dims", "order", "back")

    def __call__(self, x, index):
        if self.view is not None:
            x = self.view(x)
        if len(self.places) == 1:
            return function_of(_pick_along)(x, index[self.places[0]], self.dims[0])
        if self.order is not None:
            x = x.permute(self.order)
        y = function_of(_pick)(x, tuple([index[p] for p in self.places]))
        return y if self.back is None else y.permute(self.back)


def _by_tensors(self, index):
    """``self[index]`` for a tuple with tensors, by a recipe if these are int64."""
    parts, tensors = [self._meta], False
    for i in index:
        kind = type(i)
        if kind is Tensor and i._meta.dtype is D.int64 and i._meta.ndim:
            parts.append(i._meta)
            tensors = True
        elif kind is slice:
            parts.append((i.start, i.stop, i.step))
        elif kind is int or i is None or i is Ellipsis:
            parts.append((i,))
        else:
            return _advanced(self, index)
    key = tuple(parts)
    try:
        recipe = _known.get(key)
    except TypeError:
        recipe = None
    if recipe is None:
        if not tensors or capture.trace is not None:
            return _advanced(self, index)
        recipe = _known[key] = _recipe(self, index)
    try:
        return recipe(self, index)
    except IndexRangeError:
        return _advanced(self, index)  # Which names the subscript.


def _recipe(self, index):
    s = Selection(self, index)
    s.resolve()
    recipe = _Recipe()
    basic = [slice(None) if isinstance(i, Tensor) else i for i in index]
    recipe.view = None if s.view is self else view_of(self._meta, basic).plan()
    recipe.places = [k for k, i in enumerate(index) if isinstance(i, Tensor)]
    recipe.dims = s.dims
    order = s.order()
    recipe.order = None if order == tuple(range(s.view.ndim)) else order
    n = max(i.ndim for i in s.indices)
    total, first = n + s.view.ndim - len(s.dims), s.dims[0]
    recipe.back = None
    if s.together and first:
        recipe.back = [*range(n, n + first), *range(n), *range(n + first, total)]
    return recipe


def _key(own, index):
    parts = [own]
    for i in index:
        kind = type(i)
        if kind is int:
            parts.append(i)
        elif kind is slice:
            parts.append((i.start, i.stop, i.step))
        elif i is None or i is Ellipsis:
            parts.append((i,))
        else:
            return None
    # Told apart from the key of one slice, which has the same length as that of three subscripts.
    return tuple(parts), True


def _spec(index):
    """A basic subscript as the op ``subscript`` takes it."""
    return tuple(
        ("slice", i.start, i.stop, i.step)
        if isinstance(i, slice)
        else "..."
        if i is Ellipsis
        else i
        for i in index
    )


def _basic(self, index):
    """The view of basic subscripts; while a function is captured, as an op."""
    if capture.trace is not None:
        return function_of(OPS["subscript"])(self, _spec(index))
    return view_of(self._meta, index)(self)


def _first(self, key, index):
    if capture.trace is not None:
        return _basic(self, index if type(index) is tuple else (index,))
    if type(index) is int and self._meta.ndim and self._meta.shape[0] > _MAX_ROWS:
        return _row(self, index)
    view = view_of(self._meta, index if type(index) is tuple else (index,)).plan()
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    try:
        _known[key] = view
    except TypeError:
        pass  # A bound of a slice that is no int, such as a tensor: not worth remembering.
    return view(self)


def _row(self, i):
    """One of many rows: made from the View of the first, and not remembered."""
    own = self._meta
    first = _known.get((own, "first row"))
    if first is None:
        first = _known[own, "first row"] = view_of(own, (0,))
    n = own.shape[0]
    if not -n <= i < n:
        view_of(own, (i,))  # Which raises.
    i += n if i < 0 else 0
    view = object.__new__(View)
    view.plain, view.recorded, view.title = first.plain, first.recorded, first.title
    view.share, view.offset = first.share, i * own.strides[0] * own.dtype.itemsize
    view.chain = Steps(own, ((0, i, 1, 1),), tuple(first.plain.shape))
    return view(self)


# Masks and tensors of ints -----------------------------------------------------------------------


class Selection:
    """A subscript with masks or tensors of ints, split in two.

    Attributes:
        view: the tensor after the other subscripts.
        indices: int tensors, one a selected dimension of ``view``.
        dims: these dimensions.
        mask: the single bool mask if there is nothing else to select by, with its dimension.
    """

    __slots__ = ("view", "indices", "dims", "mask")

    def __init__(self, x, index):
        basic, found, dim = [], [], 0
        index = _expanded(x, index)
        for i in index:
            if isinstance(i, Tensor):
                if i.dtype is D.bool_:
                    covered = i.ndim
                    basic += [slice(None)] * covered if covered else [None]
                else:
                    covered = 1
                    basic.append(slice(None))
                found.append((dim, i))
                dim += covered if covered or i.dtype is not D.bool_ else 1
            else:
                basic.append(i)
                dim += 0 if isinstance(i, (int, Dim)) else 1
        whole = all(isinstance(i, slice) and i == slice(None) for i in basic)
        self.view = x if whole else _basic(x, basic)
        self.mask = None
        if len(found) == 1 and found[0][1].dtype is D.bool_:
            self.mask = found[0]
            _check_mask(self.view, *found[0])
        self.indices, self.dims = found, None

    def resolve(self):
        """Masks become the positions of their true elements."""
        indices, dims = [], []
        for dim, i in self.indices:
            if i.dtype is D.bool_:
                _check_mask(self.view, dim, i)
                columns = nonzero_tuple(i if i.ndim else i.reshape(1))
                indices += columns
                dims += [dim + k for k, _ in enumerate(columns)]
            else:
                indices.append(i)
                dims.append(dim)
        self.indices, self.dims = indices, dims
        return self

    @property
    def together(self) -> bool:
        """Whether the selected dimensions lie side by side, so that the result's replace them."""
        first = self.dims[0]
        return self.dims == [first + k for k, _ in enumerate(self.dims)]

    def order(self):
        """All dimensions of the view, the selected ones first."""
        rest = [d for d, _ in enumerate(self.view.shape) if d not in self.dims]
        return tuple(self.dims + rest)


def _expanded(x, index):
    """Subscripts as ints, slices, None and tensors, ``...`` written out."""
    index = [_part(x, i) for i in index]
    consumed = 0
    for i in index:
        if isinstance(i, Tensor):
            consumed += i.ndim if i.dtype is D.bool_ else 1
        elif i is not None and i is not Ellipsis:
            consumed += 1
    if consumed > x.ndim:
        fail(IndexRangeError, "index", f"too many indices for tensor of dimension {x.ndim}")
    fill = [slice(None)] * (x.ndim - consumed)
    dots = [k for k, i in enumerate(index) if i is Ellipsis]
    if len(dots) > 1:
        fail(IndexRangeError, "index", "an index can only have a single ellipsis ('...')")
    if dots:
        index[dots[0] : dots[0] + 1] = fill
    return index


def _part(x, i):
    """One subscript: a tensor, an int, a slice, None or ``...``."""
    if isinstance(i, Tensor):
        if i.dtype is D.uint8:
            return i.bool()
        if i.ndim == 0 and i.dtype is not D.bool_:
            _need_ints(i)
            return i.item()
        if i.dtype is not D.bool_:
            _need_ints(i)
        return i
    if i is None or i is Ellipsis or isinstance(i, (int, Dim, slice)) and type(i) is not bool:
        return i
    if isinstance(i, bool) or type(i).__name__ in ("bool", "bool_"):
        return x.new_tensor(bool(i), dtype=D.bool_)
    if hasattr(i, "__index__") and not hasattr(i, "__len__"):
        return i.__index__()
    if isinstance(i, (list, tuple, range)) or hasattr(i, "__array__"):
        from facula.tensor.data import as_tensor

        made = as_tensor(list(i) if isinstance(i, range) else i)
        if made.numel() == 0 and isinstance(i, (list, tuple)):
            made = made.long()
        return _part(x, made)
    return fail(IndexRangeError, "index", "only integers, slices (`:`), ellipsis (`...`), None and "
                f"long or bool tensors are valid indices (got {type(i).__name__})")  # fmt: skip


def _need_ints(i):
    if i.dtype.kind not in "iu":
        fail(IndexRangeError, "index", "tensors used as indices must be long, int, byte or bool "
             f"tensors, got {i.dtype.name}")  # fmt: skip


def _check_mask(view, dim, mask):
    for k, n in enumerate(mask.shape):
        if view.shape[dim + k] != n:
            fail(IndexRangeError, "index", f"The shape of the mask {list(mask.shape)} at index {k} "
                 f"does not match the shape of the indexed tensor {list(view.shape)} at index "
                 f"{dim + k}")  # fmt: skip


def _advanced(self, index):
    s = Selection(self, index)
    if not s.indices:
        return s.view
    if s.mask is not None and s.mask[1].ndim and capture.trace is None:
        dim, mask = s.mask
        found = true_positions(mask.detach().reshape(-1))
        flat = s.view.flatten(dim, dim + mask.ndim - 1) if mask.ndim > 1 else s.view
        return function_of(_pick_along)(flat, found, dim)
    s.resolve()
    try:
        if len(s.indices) == 1:
            return function_of(_pick_along)(s.view, s.indices[0], s.dims[0])
        x = s.view if s.order() == tuple(range(s.view.ndim)) else s.view.permute(s.order())
        y = function_of(OPS["pick"])(x, tuple(s.indices))
    except IndexRangeError as error:
        raise _named(s, error) from None
    if s.together and s.dims[0]:
        n, first = y.ndim - (s.view.ndim - len(s.dims)), s.dims[0]
        y = y.permute([*range(n, n + first), *range(n), *range(n + first, y.ndim)])
    return y


def _named(s, error):
    """The error that names the subscript, on the host: which value, which dimension."""
    for dim, i in zip(s.dims, s.indices):
        n = s.view.shape[dim]
        for value in i.reshape(-1).tolist():
            if not -n <= value < n:
                return IndexRangeError(
                    f"index: index {value} is out of bounds for dimension {dim} with size {n}"
                )
    return error


# Assignment --------------------------------------------------------------------------------------


def setitem(self, index, value):
    """``self[index] = value``: broadcast and converted, in place.

    Raises:
        IndexError: as for reading.
        RuntimeError: a shape that does not broadcast to that of the places.
    """
    parts = index if type(index) is tuple else (index,)
    if all(type(i) in _BASIC for i in parts):
        if capture.trace is not None:
            assign = function_of(OPS["assign_subscript"], "self")
            try:
                assign(self, _spec(parts), _operand(self, value))
            except AutogradError:  # such as for elements that are one in memory
                if not capture.trace.cuts:
                    raise
                capture.trace.apart(lambda x, value: setitem(x, index, value), (self, value))
            return
        _write(getitem(self, index), value)
        return
    if len(parts) == 1 and type(parts[0]) is Tensor and type(value) in _NUMBERS:
        only = parts[0]
        if only._meta.dtype is D.bool_ and only._meta.shape == self._meta.shape and only._meta.ndim:
            _masked_fill(self, only, value)
            return
        if only._meta.dtype is D.int64 and only._meta.ndim and self._meta.ndim:
            try:
                function_of(_place, "self")(self, parts, value, False)
                return
            except IndexRangeError:
                pass  # Found again, and named, below.
    s = Selection(self, parts)
    if capture.trace is not None and s.mask is None and s.indices:
        _put(self, parts, _operand(self, value))
    elif not s.indices:
        _write(s.view, value)
    elif s.mask is not None and _single(value):
        dim, mask = s.mask
        after = s.view.ndim - dim - mask.ndim if mask.ndim else s.view.ndim - 1
        shape = (*mask.shape, *(1 for _ in range(after))) if mask.ndim else (1,) * s.view.ndim
        _masked_fill(s.view, mask.reshape(shape), value)
    else:
        put_at(s.resolve(), _operand(self, value), False)


def _put(x, parts, value):
    """``x[parts] = value`` without a view, as captured functions need it: at flat positions."""
    places = arange(x.numel()).reshape(x.shape)[parts]
    x.put_(places, value.to(x.dtype).expand(places.shape))


def _single(value) -> bool:
    return isinstance(value, (bool, int, float)) or isinstance(value, Tensor) and value.ndim == 0


def _masked_fill(x, mask, value):
    """``x.masked_fill_`` with the value converted to the dtype of ``x``."""
    if isinstance(value, float) and x.dtype.kind != "f":
        value = int(value) if x.dtype.kind != "b" else bool(value)
    if isinstance(value, Tensor) and value.dtype is not x.dtype:
        value = value.to(x.dtype)
    x.masked_fill_(mask, value)


def _operand(x, value):
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (bool, int, float)):
        return x.new_tensor(value, dtype=x.dtype) if x.dtype.kind != "f" else x.new_full((), value)
    if isinstance(value, Dim):
        return x.new_zeros(()) + value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _operand(x, value.item())
    if isinstance(value, (list, tuple)):
        return x.new_tensor(value)
    raise TypeError(f"can't assign a {type(value).__name__} to a Tensor of {x.dtype.name}")


def _write(view, value):
    if isinstance(value, (bool, int, float)):
        if view.dtype.kind != "f" and isinstance(value, float):
            value = int(value) if view.dtype.kind != "b" else bool(value)
        view.fill_(value)
        return
    value = _operand(view, value)
    extra = value.ndim - view.ndim
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = value.reshape(value.shape[extra:])
    view.copy_(value)


def put_at(s, values, accumulate):
    """Write ``values`` where a resolved Selection says."""
    x = s.view
    if not s.together or s.dims[0]:
        n = _index_ndim(s.indices)
        x = x.permute(s.order())
        if s.together:
            values = _moved_back(values, s, n)
    try:
        function_of(OPS["place"], "self")(x, tuple(s.indices), values, accumulate)
    except IndexRangeError as error:
        raise _named(s, error) from None


def _index_ndim(indices):
    return max(i.ndim for i in indices)


def _moved_back(values, s, n):
    """Values laid out as the result, with the dimensions of the subscripts brought to the front."""
    rest = s.view.ndim - len(s.dims)
    total, first = n + rest, s.dims[0]
    if values.ndim <= rest - first:
        return values
    missing = total - values.ndim
    if missing > 0:
        values = values.reshape(*(1 for _ in range(missing)), *values.shape)
    elif missing < 0:
        if not all(m == 1 for m in values.shape[:-missing]):
            fail(ShapeError, "index_put", f"shape mismatch: value tensor of shape "
                 f"{list(values.shape)} cannot be broadcast to the indexing result")  # fmt: skip
        values = values.reshape(values.shape[-missing:])
    order = [*range(first, first + n), *range(first), *range(first + n, total)]
    return values.permute(order)


def index_put_(self, indices, values, accumulate=False):
    """``self[indices] = values``, or ``+=`` with ``accumulate`` where a place occurs repeatedly."""
    s = Selection(self, tuple(slice(None) if i is None else i for i in indices))
    if not s.indices:
        if accumulate:
            s.view.add_(values)
        else:
            _write(s.view, values)
        return self
    values = _operand(self, values)
    if values.dtype is not self.dtype:
        fail(ShapeError, "index_put_", "Index put requires the source and destination dtypes "
             f"match, got {self.dtype.name} for the destination and {values.dtype.name} for the "
             "source.")  # fmt: skip
    put_at(s.resolve(), values, accumulate)
    return self


def index_put(input, indices, values, accumulate=False):  # noqa: A002
    """A copy of ``input`` with ``[indices] = values``, or ``+=`` with ``accumulate``."""
    need_tensor("index_put", input)
    return index_put_(input.clone(), indices, values, accumulate)


Tensor.__getitem__, Tensor.__setitem__ = getitem, setitem
Tensor.index_put_, Tensor.index_put = index_put_, index_put

__all__ = ["index_put", "index_put_"]
