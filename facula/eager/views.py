"""Views: results that share the memory of their input, made without a kernel.

The op's function runs on values with concrete sizes; the movements it leaves in the Program tell
the new shape and strides. Where memory does not allow a reshape, the elements are copied once and
the rest is a view of the copy.

A tensor's history lives in its ``grad_fn``. A change in place through a view also changes the
history of the tensor whose memory it shows (:func:`rebase`), and with it that of all other views.
"""

from __future__ import annotations

import itertools
import weakref
from functools import lru_cache

from facula.base import dtypes as D
from facula.base.errors import AutogradError, ShapeError, UnsupportedError, fail
from facula.eager import tape
from facula.eager.grad_mode import mode
from facula.eager.meta import contiguous, meta
from facula.eager.plans import next_order, share, view_through
from facula.eager.tape import Node, edge, start
from facula.eager.tensor import Tensor, wrap
from facula.eager.tracing import Routine, concrete, symbols_of_metas, trace
from facula.ir.dims import Dim
from facula.ir.program import Node as Movement
from facula.ir.program import Value
from facula.ops import F
from facula.ops.movement import slice_
from facula.runtime.storage import allocate


class ViewNode(Node):
    """Backward of a view: the movements' gradients, newest first."""

    __slots__ = ("chain", "title")

    def name(self) -> str:
        return self.title

    def apply(self, gs):
        g = gs[0]
        for movement in reversed(self.chain):
            g = _pull(movement, g)
        return (g,), ()


def _pull(movement, g):
    if movement.op is slice_:
        return place(g, movement)
    (g,) = movement.op.gradient(g, movement.outputs[0], *movement.inputs, **movement.params)
    return g


class PartsNode(Node):
    """Backward of a view op with several results: each cotangent in its place of one whole."""

    __slots__ = ("views", "own", "outputs")

    def name(self) -> str:
        return self.views[0].title

    def apply(self, gs):
        parts = [(view, g) for view, g in zip(self.views, gs) if g is not None]
        if mode.grad is not False and any(g._meta.requires_grad for _, g in parts):
            return (self._recorded(parts),), ()
        all_of_it = contiguous(self.own.shape, self.own.dtype)
        if sum([g._meta.numel for _, g in parts]) == all_of_it.numel:
            block = allocate(all_of_it.nbytes)
            whole = wrap(all_of_it, block.ptr, block)
        else:
            whole = tape.zeros(all_of_it)
        for view, g in parts:
            new, offset = view.placed
            tape.copy_(wrap(new, whole._ptr + offset, whole._storage), g)
        return (whole,), (True,)

    @staticmethod
    def _recorded(parts):
        """As a sum, whose terms have histories of their own."""
        total = None
        for view, g in parts:
            for movement in reversed(view.chain):
                g = _pull(movement, g)
            total = g if total is None else total + g
        return total


class PlaceNode(Node):
    """Backward of :func:`place`: the slice of the cotangent."""

    __slots__ = ("movement",)

    def apply(self, gs):
        return (through(gs[0], (self.movement,)),), ()


def place(g, movement):
    """Zeros of the shape of a slice's operand with ``g`` in the place of the slice."""
    x = movement.inputs[0]
    if movement.outputs[0].shape == x.shape:
        return g
    whole = tape.zeros(contiguous(x.shape, g._meta.dtype))
    recording, mode.grad = mode.grad, False
    try:
        tape.copy_(slice_(whole, **movement.params), g)
    finally:
        mode.grad = recording
    if recording is not False and g._meta.requires_grad:
        node = start(PlaceNode(), edge(g))
        node.movement = movement
        whole._meta, whole._grad_fn = whole._meta.with_grad(True), node
    return whole


class View:
    """How one result of a view op is made of its input: a chain of movements of that meta.

    ``placed`` is the (Meta, byte offset) of a part in a contiguous whole, for its gradient.
    """

    __slots__ = ("plain", "recorded", "offset", "chain", "title", "share", "placed")

    def __init__(self, own, new, offset, chain, title):
        self.plain, self.recorded = new, new.with_grad(own.requires_grad)
        self.offset, self.chain, self.title = offset, chain, title
        self.share = share()

    def __call__(self, x) -> Tensor:
        """The view of ``x``."""
        return self.plan()(x)

    def plan(self):
        """The same as a function, which is the quickest to call."""
        share, plain, recorded, offset = self.share, self.plain, self.recorded, self.offset
        chain, title, floats = self.chain, self.title, plain.dtype.kind == "f"

        def view(x, *numbers):
            recording = mode.grad is not False
            y = share(x, recorded if recording else plain, offset)
            base = x._base
            if base is None:
                base = x
            y._base, y._view = base, (x._view, chain)
            if recording and floats:
                if recorded.requires_grad:
                    y._grad_fn = node = ViewNode()
                    node.edges, node.saved, node.versions = (x._grad_fn or x, x._output_nr), (), ()
                    node.order, node.hooks, node.chain, node.title = (
                        next_order(),
                        None,
                        chain,
                        title,
                    )
                _follow(base, y)
            return y

        return view

    def part(self, x, node, number) -> Tensor:
        """The view of ``x`` as the result of that number of a node."""
        y = self.share(x, self.recorded, self.offset)
        y._base, y._view = x if x._base is None else x._base, (x._view, self.chain)
        y._grad_fn, y._output_nr = node, number or None
        _follow(y._base, y)
        return y


def _movements(x) -> tuple:
    """All movements from the base of a view to the view."""
    chains, link = [], x._view
    while link is not None:
        link, chain = link
        if chain is None:
            fail(
                UnsupportedError,
                "as_strided",
                "a tensor with a history cannot be changed through a view made by as_strided",
                "use slices, or clone() the view",
            )
        chains.append(chain)
    return tuple(movement for chain in reversed(chains) for movement in chain)


def _follow(base, view):
    """Let the history of ``view`` follow that of ``base``."""
    views = base._views
    if views is None:
        base._views = [weakref.ref(view)]
        return
    if len(views) > 16 and len(views) & (len(views) - 1) == 0:
        # At every power of two: forget the views that are gone.
        views[:] = [r for r in views if r() is not None]
    views.append(weakref.ref(view))


def _title(name):
    return "".join(w[:1].upper() + w[1:] for w in name.split("_")) + "Backward0"


def made_of(movement_op, x, params) -> Movement:
    """The node of one movement of a tensor."""
    return moved(movement_op, Value(x._meta.dtype, tuple(x._meta.shape)), params)


def moved(movement_op, value, params) -> Movement:
    """The node of one movement of a value."""
    node = Movement(movement_op, (value,), params, ())
    ((dtype, shape),) = movement_op.infer(value, **params)
    node.outputs = (Value(dtype, tuple(shape), node),)
    return node


def through(x, chain, title="ViewBackward0"):
    """``x`` seen through movements; elements are copied where there is no such view."""
    return seen_through(x._meta, tuple(chain), title)(x)


def of_primitive(primitive, x, params):
    """A function that sees tensors like ``x`` through one movement; a copy where it must be."""
    return seen_through(x._meta, (made_of(primitive, x, params),), "ViewBackward0")


class Recipe:
    """How a view op's plans are made: the movements that lead to its results, in symbols.

    Attributes:
        chains: per result the movements from the input.
        container: of the results, or None.
        routine: the Program they are from, or None if it is of sizes that are no symbols.
    """

    def __init__(self, chains, container, title, routine):
        self.chains, self.container, self.title = chains, container, title
        self.routine = routine

    def __call__(self, metas, ints=(), place=None):
        """The plan for a tensor of this meta, or None if the Program does not hold for it."""
        (own,) = metas
        symbols = self._symbols(metas, ints)
        if symbols is None:
            return None
        views = [seen_through(own, chain, self.title, symbols) for chain in self.chains]
        if self.container is None:
            (only,) = views
            return only.plan() if type(only) is View else lambda x, *numbers: only(x)
        return _several(views, self.container, own)

    def _symbols(self, metas, ints):
        if self.routine is None:
            return {}
        symbols = symbols_of_metas(metas)
        symbols.update(zip(_names(), ints))
        return symbols if self.routine.holds(symbols) else None

    def seen(self, metas, ints):
        """(Meta, byte offset) of each result; None where a copy has to be made."""
        symbols = self._symbols(metas, ints)
        return [view_through(chain, metas[0], symbols) for chain in self.chains]


@lru_cache(1)
def _names() -> list[str]:
    """Names of the symbols of a view op's ints."""
    return [f"p{k}" for k in range(256)]


def recipe(site, s, symbolic=True):
    """The Recipe of a view op for arguments like these; None if it does more than move.

    With ``symbolic``, sizes of the input and ints among the constants are symbols of the trace, so
    that the recipe is good for others.
    """
    skeleton = s.skeleton
    if symbolic:
        count = itertools.count()
        skeleton = [("static", _symbolic(x[1], count)) if x[0] == "static" else x for x in skeleton]

    def build(values):
        return s.build(values, site.arguments, skeleton)

    program, results = trace(site.name, site.fn, build, s.data, concrete_sizes=not symbolic)
    chains = []
    for kind, what in results.items:
        if kind == "none":
            return None
        v, chain = (program.outputs[what], []) if kind == "output" else (program.inputs[what], [])
        while v is not program.inputs[0]:
            if v.node is None or v.node.op.view is None:
                return None
            chain.append(v.node)
            v = v.node.inputs[0]
        chains.append(tuple(reversed(chain)))
    routine = Routine(program) if symbolic else None
    return Recipe(chains, results.container, _title(site.name), routine)


def _symbolic(x, count):
    """A constant argument with symbols for its ints; see ``recipes.kinds_of``."""
    if type(x) is int and x > 1:
        return Dim.symbol(_names()[next(count)], x)
    return tuple([_symbolic(y, count) for y in x]) if type(x) is tuple else x


def _several(views, cls, own):
    """The plan of a view op with these results."""
    plans = [view.plan() if type(view) is View else view for view in views]
    if hasattr(cls, "_fields"):
        return lambda x, *numbers: cls(*[plan(x) for plan in plans])
    wanted = own.requires_grad and own.dtype.kind == "f" and len(views) > 1
    if not wanted or not _are_parts(views, own):
        return lambda x, *numbers: cls([plan(x) for plan in plans])

    def parts(x, *numbers):
        if mode.grad is False:
            return cls([plan(x) for plan in plans])
        node = PartsNode()
        node.edges, node.saved, node.versions = (x._grad_fn or x, x._output_nr), (), ()
        node.order, node.hooks = next_order(), None
        node.views, node.own, node.outputs = views, own, len(views)
        return cls([view.part(x, node, number) for number, view in enumerate(views)])

    return parts


def _are_parts(views, own) -> bool:
    """Whether the views show different elements, all of them in a contiguous whole too."""
    whole = contiguous(own.shape, own.dtype)
    for view in views:
        if type(view) is not View or not view.chain or view.chain[0].op is not slice_:
            return False
        view.placed = view_through(view.chain, whole, {})
        if view.placed is None:
            return False
    return sum(view.plain.numel for view in views) <= own.numel


def seen_through(own, chain, title, symbols={}):  # noqa: B006  never changed
    """A function that sees tensors of meta ``own`` through movements; a copy where it must be."""
    seen = view_through(chain, own, symbols)
    if seen is not None:
        return View(own, *seen, Movements(own, chain, symbols) if symbols else chain, title)
    chain = tuple(Movements(own, chain, symbols)) if symbols else chain
    count = len(chain) - 1
    while view_through(chain[:count], own, {}) is None:
        count -= 1
    first = seen_through(own, chain[:count], title) if count else None
    shape = chain[count].inputs[0].shape
    copied = contiguous(shape, own.dtype, own.requires_grad, own.device)
    rest = seen_through(copied, chain[count:], title)
    return lambda x: rest(tape.clone(x if first is None else first(x)))


class Movements:
    """A chain of movements with its symbols' values, made when it is asked for.

    Only gradients and changes in place ask.
    """

    __slots__ = ("own", "chain", "symbols", "made")

    def __init__(self, own, chain, symbols):
        self.own, self.chain, self.symbols, self.made = own, chain, symbols, None

    def _all(self):
        if self.made is None:
            value, made = Value(self.own.dtype, tuple(self.own.shape)), []
            for node in self.chain:
                params = {k: concrete(p, self.symbols) for k, p in node.params.items()}
                made.append(moved(node.op, value, params))
                value = made[-1].outputs[0]
            self.made = made
        return self.made

    def __iter__(self):
        return iter(self._all())

    def __reversed__(self):
        return reversed(self._all())

    def __len__(self):
        return len(self._all())

    def __getitem__(self, i):
        return self._all()[i]


# Changes in place -------------------------------------------------------------------------------


class CopySlices(Node):
    """A change in place of a part of ``base``: the part's node, and the rest passed through.

    Its first edge is the base's former history, if it had one (``based``); the others are those
    of the part's node, without the part itself.
    """

    __slots__ = ("inner", "chain", "position", "based")

    def apply(self, gs):
        whole = tape.clone(gs[0])
        part = through(whole, self.chain)
        grads, _ = self.inner.apply([tape.clone(part)])
        own = None if self.position is None else grads[self.position]
        tape.copy_(part, tape.zeros(part._meta) if own is None else own)
        rest = [g for i, g in enumerate(grads) if i != self.position]
        return ((whole, *rest) if self.based else rest), ()

    def release(self):
        self.inner.release()


def check_in_place(x, name) -> None:
    """Refuse changes of leaves that want gradients.

    Raises:
        AutogradError: ``x`` is one, or a view of one.
    """
    if mode.grad is False:
        return
    if x._meta.requires_grad and x._grad_fn is None:
        fail(
            AutogradError,
            name,
            "a leaf Variable that requires grad is being used in an in-place operation.",
            "change it under no_grad()",
        )
    base = x._base
    if base is not None and base._grad_fn is None and base._meta.requires_grad:
        fail(
            AutogradError,
            name,
            "a view of a leaf Variable that requires grad is being used in an in-place operation.",
            "change it under no_grad()",
        )


def rebase(x, node, position=0) -> None:
    """Make ``node``, which changed ``x`` in place, the history of its memory.

    ``position`` is the node's edge that leads to the former ``x``, if it has one.
    """
    base = x._base
    if base is None:
        x._grad_fn, x._output_nr = node, None
        x._meta = x._meta.with_grad(True)
        _refresh(x)
        return
    outer = CopySlices()
    outer.based = base._meta.requires_grad
    first = edge(base) if outer.based else ()
    rest = node.edges
    if position is not None:
        rest = rest[: 2 * position] + rest[2 * position + 2 :]
    start(outer, first + rest)
    outer.inner, outer.chain, outer.position = node, _movements(x), position
    base._grad_fn, base._output_nr = outer, None
    base._meta = base._meta.with_grad(True)
    _refresh(base, x)


def _refresh(base, changed=None):
    """Derive the history of all views of ``base`` from its new one."""
    views = [r() for r in base._views or ()]
    if changed is not None and not any(v is changed for v in views):
        views.append(changed)
        _follow(base, changed)
    for view in views:
        if view is not None:
            node = start(ViewNode(), edge(base))
            node.chain, node.title = _movements(view), "AsStridedBackward0"
            view._grad_fn, view._output_nr = node, None
            view._meta = view._meta.with_grad(True)


class StridedNode(Node):
    """Backward of :func:`as_strided`: cotangents added where in memory the elements lie."""

    __slots__ = ("source", "target", "offsets", "first", "length")

    def apply(self, gs):
        x, y = self.source, self.target
        flat = tape.zeros(contiguous((self.length,), x.dtype))
        place = positions(y.shape, y.strides, self.offsets[1] - self.first)
        flat = F.index_add(flat, 0, place, F.reshape(gs[0], (-1,)))
        return (as_strided(flat, x.shape, x.strides, self.offsets[0] - self.first),), ()


def positions(shape, strides, offset):
    """Flat int64 positions in memory of the elements of a tensor, in row-major order."""
    total = tape.zeros(contiguous(tuple(shape), D.int64)) + offset
    for d, (n, s) in enumerate(zip(shape, strides)):
        along = F.count(tape.zeros(contiguous((n,), D.int64)), 0, s)
        total = total + F.reshape(along, (n,) + (1,) * (len(shape) - 1 - d))
    return F.reshape(total, (-1,))


def as_strided(x, size, stride, storage_offset=None):
    """The memory of ``x`` in any shape and strides (in elements).

    Raises:
        RuntimeError: elements would lie outside of the storage.
    """
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if len(size) != len(stride):
        fail(ShapeError, "as_strided", f"mismatch in length of strides and shape: {size}, {stride}")
    offset = x.storage_offset() if storage_offset is None else int(storage_offset)
    own = x._meta
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if min(size, default=1) > 0 and not 0 <= last < x._storage.nbytes // own.dtype.itemsize:
        fail(
            ShapeError,
            "as_strided",
            f"setStorage: sizes {list(size)}, strides {list(stride)}, storage offset {offset} are "
            f"out of bounds for storage of size {x._storage.nbytes}",
        )
    new = meta(size, stride, own.dtype, False, own.device)
    y = wrap(new, x._storage.ptr + offset * own.dtype.itemsize, x._storage)
    y._base, y._view = (x if x._base is None else x._base), (x._view, None)
    if own.requires_grad and mode.grad is not False:
        node = start(StridedNode(), edge(x))
        node.source, node.target, node.offsets = own, new, (x.storage_offset(), offset)
        node.first = min(node.offsets)
        ends = [o + sum((n - 1) * s for n, s in zip(m.shape, m.strides)) + 1
                for o, m in zip(node.offsets, (own, new))]  # fmt: skip
        node.length = max(ends) - node.first
        y._meta, y._grad_fn = new.with_grad(True), node
    return y
