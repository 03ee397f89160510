"""Capture: a Python function of tensors, run once on stand-ins, as one Program.

While a function is captured its tensors are :class:`Traced`: they know shapes (sizes are symbols)
and dtypes but hold no elements, and every op on them is appended to the Program. Real tensors met
on the way (parameters, buffers, constants) become inputs of the Program and are read at each call.
What is changed in place is written back into its memory when the Program ends.

Stand-ins have a history like other tensors: the tape's nodes are :class:`Step`, which on their way
back append the derivative of one op's nodes to the Program. So ``backward`` inside of a captured
function is the ordinary one, and sums gradients in the order in which an ordinary call does.

A question that only elements can answer (``.item()``, ``if tensor``) raises :class:`CaptureError`.
"""

from __future__ import annotations

from contextlib import contextmanager

from facula.base import dtypes as D
from facula.eager import dispatch, plans, tape
from facula.eager.events import Host, Numbers, change_numbers
from facula.eager.grad_mode import capture, mode
from facula.eager.meta import contiguous
from facula.eager.standins import CaptureError, Int, Nowhere, Step, Traced, TracedMeta
from facula.eager.tensor import Tensor
from facula.eager.tracing import fitting
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.program import Program, Value
from facula.ops.indexing import index_put_
from facula.ops.movement import reshape_
from facula.ops.promote import expand_to, to
from facula.ops.random import drawn_by, positions
from facula.ops.reduce import size_value
from facula.ops.registry import F
from facula.runtime import random


class Trace:
    """A capture in progress.

    Attributes:
        program: what was recorded.
        captured: real tensors met, in the order of their inputs.
        entry, values: id of a captured tensor -> its value at the start, and now.
        mutated: the captured tensors that were changed in place.
        arguments: (stand-in, value at the start) of each tensor argument.
        strided: ids of the stand-ins of arguments that are not contiguous.
        grads: id of a tensor -> :class:`Grad`, for the tensors whose ``grad`` was met.
        sources: id of an input -> ("argument", number), ("captured", tensor), ("number", event and
            position) or ("random", 0 or 1).
        events: what of Python's is done again at each call, in order: :class:`Numbers`,
            :class:`Host`.
        undo: (dict, its items before) of what the events have changed.
        seed, offset: of the random stream, if numbers are drawn; ``drawn`` counts them.
        differentiated: whether ``backward`` ran inside.
        written_backward: the name of a Function of the user's that was recorded, or None.
        pending: whether a number was asked for that is known when the call ends.
    """

    #: Whether Python goes on where elements are needed.
    cuts = False

    def __init__(self, name):
        self.program = Program(name)
        self.captured: list[Tensor] = []
        self.values: dict[int, Value] = {}
        self.entry: dict[int, Value] = {}
        self.mutated: list[Tensor] = []
        self.arguments: list[tuple[Traced, Value]] = []
        self.strided: set[int] = set()
        self.grads: dict[int, Grad] = {}
        self.events: list = []
        self.undo: list = []
        self.sources: dict[int, tuple] = {}
        self.seed = self.offset = None
        self.drawn, self.differentiated, self.pending = 0, False, False
        self.written_backward = None
        self._places: dict = {}  # (address, meta without grad) -> the captured tensor there
        self._storages: dict = {}  # id of a storage -> captured tensors in it
        self._changes: dict[int, int] = {}
        self._alive: list = []  # whatever is known by its id

    # Entering

    def argument(self, x):
        """A stand-in for an argument: of a tensor, or a size for an int."""
        if type(x) is Int:
            value = self._input(x)
            self.sources[id(value)] = ("argument", len(self.arguments))
            self.arguments.append((x, value))
            return value.shape[0] - 2
        t = self.wrap(self._input(x), x._meta.requires_grad)
        t._grad = x._grad
        if not x._meta.contiguous:
            self.strided.add(id(t))
        self.sources[id(t._value)] = ("argument", len(self.arguments))
        self.arguments.append((t, t._value))
        return t

    def _input(self, x, symbolic=1 << 30):
        """An input like ``x``, its first so many sizes symbols."""
        i = len(self.program.inputs)
        shape = (
            n if n == 1 or d >= symbolic else Dim.symbol(f"s{i}d{d}", n)
            for d, n in enumerate(x._meta.shape)
        )
        return self.program.input(x._meta.dtype, tuple(shape))

    def number(self, x):
        """A stand-in for a float argument."""
        value = self.program.input(D.float64 if type(x) is float else D.int64, (), weak=True)
        self.sources[id(value)] = ("argument", len(self.arguments))
        self.arguments.append((x, value))
        return value

    def wrap(self, value, requires_grad) -> Traced:
        """A value as a tensor."""
        t = object.__new__(Traced)
        for slot in Tensor.__slots__:
            if slot != "__weakref__":
                setattr(t, slot, None)
        t._meta, t._storage = TracedMeta(value.shape, value.dtype, requires_grad), Nowhere
        t._value, t._shows, t._changes = value, None, 0
        return t

    def constant(self, x) -> Traced:
        """A tensor that the function makes of numbers: what it changes in place is no state."""
        return self.wrap(self.lift(x), False)

    def lift(self, x):
        """What a tensor, or a structure with tensors, is in the Program."""
        if isinstance(x, Traced):
            if x._shows is not None and x._shows[3] != self._count(x._shows[0]):
                self._renew(x)
            return x._value
        if isinstance(x, Tensor):
            return self.values[id(self.met(x))]
        if isinstance(x, (list, tuple)):
            items = [self.lift(y) for y in x]
            return type(x)(*items) if hasattr(type(x), "_fields") else type(x)(items)
        return x

    def met(self, x, symbolic=2):
        """The captured tensor that stands for the memory of ``x``, which may be new."""
        if id(x) in self.values:
            return x
        own = x._meta
        key = x._ptr, own.with_grad(False)
        known = self._places.get(key) if own.numel else None
        if known is None:
            others = self._storages.setdefault(id(x._storage), [])
            if any(t is y for t in others for y in self.mutated):
                raise CaptureError("compile: a tensor shares memory with one that was changed")
            others.append(x)
            # Windows of convolutions are constants: sizes that follow from them stay simple.
            value = self._input(x, symbolic)
            self.captured.append(x)
            self.values[id(x)] = self.entry[id(x)] = value
            self.sources[id(value)] = ("captured", x)
            self._places[key] = known = x
        elif known._meta.requires_grad is not own.requires_grad:
            raise CaptureError("compile: a tensor and a detached one of its memory are both used")
        self._alive.append(x)
        if x._meta.requires_grad and x._grad_fn is None and id(x) not in self.grads:
            self.grads[id(x)] = Grad(x, "seen")
        return known

    # Calls

    def call(self, site, args):
        """A call of an op, of which some arguments may be tensors."""
        args = [
            dispatch.data_argument(a) if i in site.slots else dispatch.plain_argument(a)
            for i, a in enumerate(args)
        ]
        for i in site.slots:
            site.check(i, args[i])
        differentiable: list = []
        values = [
            self._enter(a, differentiable) if i in site.slots else a for i, a in enumerate(args)
        ]
        before = len(self.program.nodes)
        if site.random:
            result = self._random(site, args, values)
        else:
            positional, named = site.arguments(values)
            result = site.fn(*positional, **named)
        return self._finish(site, args, result, differentiable, before)

    def _enter(self, x, differentiable):
        """:meth:`lift`, noting the tensors that want gradients with their values.

        A tensor given twice enters as two values, since each gets a gradient of its own.
        """
        if isinstance(x, (list, tuple)):
            items = [self._enter(y, differentiable) for y in x]
            return type(x)(*items) if hasattr(type(x), "_fields") else type(x)(items)
        if isinstance(x, Dim):
            value = size_value(x, D.int64)
            value.weak = True
            return value
        value = self.lift(x)
        if mode.grad is not False and isinstance(x, Tensor) and x._meta.requires_grad:
            if any(value is v for _, v in differentiable):
                value = reshape_(value, shape=value.shape)
            differentiable.append((x, value))
        return value

    def primitive(self, primitive, inputs, params):
        """A primitive applied to tensors."""
        differentiable: list = []
        values = [self._enter(x, differentiable) for x in inputs]
        before = len(self.program.nodes)
        result = primitive(*values, **params)
        wrapped = self._recorded(primitive.name, result, differentiable, before)
        if primitive.view is not None:
            self._show_parts(wrapped, inputs[0])
        return wrapped

    def _random(self, site, args, values):
        if args[-1] is not None and args[-1] is not random.default_generator:
            raise CaptureError(f"compile: {site.name} with a generator of its own")
        if self.seed is None:
            self.seed = self.program.input(D.int64, (), weak=True)
            self.offset = self.program.input(D.int64, (), weak=True)
            self.sources[id(self.seed)], self.sources[id(self.offset)] = (
                ("random", 0),
                ("random", 1),
            )
        offset = self.offset
        if not (isinstance(self.drawn, int) and self.drawn == 0):
            offset = F.add(to(offset, D.int64), size_value(self.drawn, D.int64))
        before = len(self.program.nodes)
        positional, named = site.arguments([*values, self.seed, offset])
        result = site.fn(*positional, **named)
        drawn = 0
        for node in self.program.nodes[before:]:
            shape = drawn_by(node)
            if shape is not None:
                drawn = dims.maximum(drawn, dims.product(shape))
        self.drawn = self.drawn + drawn
        return result

    def _finish(self, site, args, result, differentiable, before):
        if site.into == "self":
            return self._assign(site.name, args[0], result, differentiable, before)
        wrapped = self._recorded(site.name, result, differentiable, before)
        if site.view:
            self._show_parts(wrapped, args[0])
        return wrapped

    def _recorded(self, name, result, differentiable, before):
        """Results as tensors, with the call as their history."""
        nodes = self._nodes(before, differentiable)
        made: list[Traced] = []
        wrapped = self._wrapped(result, made)
        if differentiable:
            edges = [e for x, _ in differentiable for e in tape.edge(x)]
            self.record(name, edges, nodes, [v for _, v in differentiable], made)
        return wrapped

    def _nodes(self, before, differentiable):
        """The nodes of a call, marked as such, if it has a history."""
        if not differentiable:
            return ()
        nodes, call = self.program.nodes[before:], object()
        for node in nodes:
            node.call = call
        return nodes

    def record(self, name, edges, nodes, inputs, made):
        """Give the tensors ``made`` of ``inputs`` by ``nodes`` a history."""
        reach = {id(v) for v in inputs}
        for node in nodes:
            if node.op.name != "detach" and any(id(v) in reach for v in node.inputs):
                reach.update(id(v) for v in node.outputs if v.dtype.is_floating_point)
        floats = [t for t in made if t._value.dtype.is_floating_point]
        led = [t for t in floats if id(t._value) in reach]
        flat = not led and not any(node.op.name == "detach" for node in nodes)
        led = floats if flat else led
        if not led:
            return
        step = tape.start(Step(), tuple(edges))
        step.saved = (tuple(nodes), inputs, [t._value for t in made], flat)
        step.title, step.outputs = name, len(made)
        for number, t in enumerate(made):
            if any(t is x for x in led):
                t._grad_fn, t._output_nr = step, number or None
                t._meta = t._meta.with_grad(True)

    def _wrapped(self, result, made):
        if isinstance(result, Value):
            if result.weak:
                d = D.get_default_dtype() if result.dtype is D.float64 else result.dtype
                result = to(result, d)
            if mode.grad is False and result.dtype.is_floating_point:
                result = F.stop(result)
            made.append(self.wrap(result, False))
            return made[-1]
        if isinstance(result, (tuple, list)):
            items = [self._wrapped(x, made) for x in result]
            kind = type(result)
            return kind(*items) if hasattr(kind, "_fields") else kind(items)
        return result

    # Views

    def show(self, t, source, chain, passes=True):
        """Note that ``t`` shows the memory of ``source`` through movements."""
        base = source
        if isinstance(source, Traced) and source._shows is not None:
            base, first, before, _ = source._shows
            chain, passes = (*first, *chain), passes and before
        elif not isinstance(source, Traced):
            base = self.met(source)
        t._shows = (base, chain, passes, self._count(base))
        if id(base) not in self.strided and self.lies(t) is None:
            t._shows = None  # a reshape that copied

    def lies(self, t):
        """(Meta at the sizes of the trace, byte offset) of a stand-in, None for one copied.

        Raises:
            CaptureError: it shows an argument that is not contiguous.
        """
        base, chain = (t, ()) if t._shows is None else t._shows[:2]
        if id(base) in self.strided:
            raise CaptureError("compile: the function asks how a tensor lies in memory")
        own = base._meta
        if isinstance(base, Traced):
            own = contiguous([dims.hint(n) for n in own.shape], own.dtype)
        sizes = [n for v in self.program.inputs for n in v.shape if isinstance(n, dims.Dim)]
        hints = {name: n.hint for n in sizes if n.is_symbol for name in n.symbols}
        return plans.view_through(chain, own, hints)

    def _sure(self, t):
        """Refuse to change what a stand-in may show or have copied, or that itself."""
        if id(t._shows[0]) in self.strided and any(n.op is reshape_ for n in t._shows[1]):
            raise CaptureError("compile: the function changes what it may have a copy of")

    def _show_parts(self, wrapped, source):
        start = self.lift(source)
        for t in wrapped if isinstance(wrapped, (tuple, list)) else (wrapped,):
            chain, v, passes = [], t._value, True
            while v is not start and v.node is not None:
                if v.node.op.name == "detach":  # made where nothing is recorded
                    passes = False
                elif v.node.op.view is not None:
                    chain.append(v.node)
                else:
                    break
                v = v.node.inputs[0]
            if v is start:
                self.show(t, source, tuple(reversed(chain)), passes)

    def _count(self, base):
        return base._changes if isinstance(base, Traced) else self._changes.get(id(base), 0)

    def _renew(self, t):
        """Take the value of a view again, after what it shows was changed."""
        self._sure(t)
        base, chain, passes, _ = t._shows
        wants = mode.grad is not False and passes and base._meta.requires_grad
        start = self.lift(base)
        before = len(self.program.nodes)
        t._value = through(start, chain)
        if wants:
            nodes = self.program.nodes[before:]
            self.record("as_strided", tape.edge(base), nodes, [start], [t])
        t._shows = (base, chain, passes, self._count(base))

    # Changes in place

    def _assign(self, name, target, result, differentiable, before):
        value = fitting(name, result, self.lift(target))
        if mode.grad is False:
            value = F.stop(value)
        nodes = self._nodes(before, differentiable)
        if isinstance(target, Traced):
            edges = [e for x, _ in differentiable for e in tape.edge(x)]
            self._change(target, value)
            if differentiable:
                self.record(name, edges, nodes, [v for _, v in differentiable], [target])
            elif mode.grad is not False:
                target._grad_fn, target._meta = None, target._meta.with_grad(False)
            if target._shows is not None:
                self._write_through(target)
            return target
        if mode.grad is not False and (differentiable or target._meta.requires_grad):
            probe = self.wrap(value, False)
            self.record(name, (), nodes, [v for _, v in differentiable], [probe])
            if probe._grad_fn is not None or target._meta.requires_grad:
                raise CaptureError(f"compile: {name} changes a tensor where gradients are recorded")
        self._store(target, value)
        return target

    def _store(self, target, value):
        """A new value for a captured tensor."""
        target = self.met(target)
        if len(self._storages[id(target._storage)]) > 1:
            raise CaptureError("compile: a tensor is changed whose memory another one shares")
        self.values[id(target)] = F.stop(value) if value.dtype.is_floating_point else value
        self._changes[id(target)] = self._count(target) + 1
        if not any(t is target for t in self.mutated):
            self.mutated.append(target)

    def _change(self, t, value):
        if mode.grad is False and t._grad_fn is not None:
            # Its history stays that of the old value, which a Program differentiated from
            # outside could not tell.
            raise CaptureError("compile: what has a history is changed where nothing is recorded")
        t._value, t._changes = value, t._changes + 1

    def _write_through(self, view):
        """Change what a view shows, after the view was changed."""
        self._sure(view)
        base, chain, passes, _ = view._shows
        old, new = self.lift(base), view._value
        before = len(self.program.nodes)
        value = put_through(old, chain, new)
        nodes = self.program.nodes[before:]
        wants = [x for x in (base, view) if x._meta.requires_grad] if passes else []
        if not isinstance(base, Traced):
            if wants and mode.grad is not False:
                raise CaptureError("compile: a view of a captured tensor gets a history")
            self._store(base, value)
        else:
            edges = [e for x in wants for e in tape.edge(x)]
            self._change(base, value)
            if wants and mode.grad is not False:
                inputs = [old if x is base else new for x in wants]
                self.record("copy_slices", edges, nodes, inputs, [base])
        view._shows = (base, chain, passes, self._count(base))

    def given(self, x, other):
        """A tensor is to get the memory of another."""
        raise CaptureError("compile: data is assigned")

    def fresh(self, shape, dtype, value=0) -> Traced:
        """A new tensor of the trace (what ``empty`` gives while capturing)."""
        return self.wrap(expand_to(to(value, dtype), tuple(shape)), False)

    def update(self, rule, tensors, numbers, states):
        """:func:`facula.eager.multi.update` in the trace."""
        scalars, flags, changed = numbers()
        first = sum(len(e.values) for e in self.events)
        self.events.append(Numbers(numbers, states, tuple(scalars.values()), flags))
        named = {}
        for k, (name, x) in enumerate(scalars.items(), first):
            kind = D.float64 if type(x) is float else D.int64
            named[name] = value = self.program.input(kind, (), weak=True)
            self.sources[id(value)] = ("number", k)
        for entry in zip(*tensors):
            results = rule(*map(self.lift, entry), **named, **flags)
            for target, value in zip((entry[0], *entry[2:]), results):
                value = fitting(rule.__name__, value, self.lift(target))
                if isinstance(target, Traced):
                    self._change(target, F.stop(value))
                else:
                    self._store(target, value)
        change_numbers(states, changed, self.undo)

    def host(self, function, dicts):
        """Call a function of Python's that touches no tensor, now and at each call.

        Args:
            dicts: all that it changes.
        """
        event = Host(function, dicts)
        event.read([], self.undo)
        self.events.append(event)


class Grad:
    """The ``grad`` of a tensor in a trace.

    Attributes:
        x: the tensor.
        before: its gradient at the start.
        first: what was done to it first: "seen" (the tensor was used), "read" or "written".
    """

    __slots__ = ("x", "before", "first")

    def __init__(self, x, first):
        self.x, self.before, self.first = x, x._grad, first


def through(value, chain):
    """A value through movements."""
    for node in chain:
        value = node.op(value, **node.params)
    return value


def put_through(base, chain, new):
    """``base`` with ``new`` in the place of what ``chain`` shows of it."""
    if not chain:
        return new
    first, *rest = chain
    if first.op is reshape_:
        inner = put_through(reshape_(base, **first.params), rest, new)
        return reshape_(inner, shape=base.shape)
    if first.op.name == "permute":
        order = first.params["order"]
        inner = put_through(first.op(base, **first.params), rest, new)
        return first.op(inner, order=tuple(order.index(d) for d in range(len(order))))
    if any(node.op.name == "expand" for node in chain):
        raise CaptureError("compile: an expanded tensor is changed in place")
    count = dims.product(base.shape)
    places = through(positions(shape=tuple(base.shape)), chain)
    rows = dims.product(places.shape)
    flat = reshape_(base, shape=(count,))
    index, source = reshape_(places, shape=(rows, 1)), reshape_(new, shape=(rows,))
    return reshape_(index_put_(flat, index, source, accumulate=False), shape=base.shape)


def _watched() -> dict:
    """Attributes of Tensor while a function is captured: by name, what takes their place.

    Who reads or writes a ``grad`` is noted; elements of tensors that are not of the trace are not
    given out, as they may be others at the next call.
    """
    plain = Tensor.__dict__["grad"]

    def met(self, how):
        trace = capture.trace
        if trace is not None and not isinstance(self, Traced):
            known = trace.grads.get(id(self))
            if known is None:
                trace.grads[id(self)] = Grad(self, how)
            elif known.first == "seen":
                known.first = how

    def read(self):
        met(self, "read")
        return plain.fget(self)

    def write(self, g):
        met(self, "written")
        if isinstance(g, Traced) and not isinstance(self, Traced):
            self._grad = g
        else:
            plain.fset(self, g)

    def delete(self):
        write(self, None)

    def guarded(method):
        def elements(self, *args, **kwargs):
            if capture.trace is not None:
                Traced._needs_elements(self)
            return method(self, *args, **kwargs)

        return elements

    def detach(self):
        return Traced.detach(self) if capture.trace is not None else alone(self)

    alone = Tensor.detach
    readers = "item tolist numpy __bool__ __int__ __float__ __index__ __array__ __repr__".split()
    found = {n: guarded(Tensor.__dict__[n]) for n in readers if n in Tensor.__dict__}
    return {"grad": property(read, write, delete), "detach": detach, **found}


@contextmanager
def capturing(trace: Trace):
    """Run the block on the trace; plans of ordinary calls are out of reach meanwhile."""
    if capture.trace is not None:
        raise CaptureError("compile: a capture inside of a capture")
    hidden = dispatch.hide_plans()
    watched = _watched()
    plain = {name: Tensor.__dict__[name] for name in watched}
    for name, attribute in watched.items():
        setattr(Tensor, name, attribute)
    capture.trace = trace
    try:
        with dims.guarding(trace.program.guards), P.building(trace.program):
            yield trace
    finally:
        capture.trace = None
        for name, attribute in plain.items():
            setattr(Tensor, name, attribute)
        dispatch.restore_plans(hidden)
