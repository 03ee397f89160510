"""Capture: a Python function of tensors, run once on stand-ins, as one Program.

While a function is captured its tensors are :class:`Traced`: they know shapes (sizes are symbols)
and dtypes but hold no elements, and every op on them is appended to the Program. Real tensors met
on the way (parameters, buffers, constants) become inputs of the Program and are read at each call.
What is changed in place is written back into its memory when the Program ends.

A question that only elements can answer (``.item()``, ``if tensor``) raises :class:`CaptureError`.
"""

from __future__ import annotations

from contextlib import contextmanager

from facula.base import dtypes as D
from facula.base.device import CPU
from facula.base.errors import FaculaError
from facula.eager import dispatch
from facula.eager.grad_mode import mode
from facula.eager.meta import Size
from facula.eager.tensor import Tensor
from facula.eager.tracing import fitting
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.program import Program, Value
from facula.ops.movement import contiguous_strides
from facula.ops.promote import expand_to, to
from facula.ops.random import drawn_by
from facula.ops.reduce import size_value
from facula.ops.registry import F


class CaptureError(FaculaError, RuntimeError):
    """A function that cannot be captured as one Program, and why."""


class TracedMeta:
    """The meta of a tensor whose sizes may be symbols; no two are equal."""

    __slots__ = ("shape", "dtype", "requires_grad")

    def __init__(self, shape, dtype, requires_grad):
        self.shape, self.dtype, self.requires_grad = Size(shape), dtype, requires_grad

    device = CPU
    contiguous = True
    layout = "C"

    @property
    def strides(self):
        return contiguous_strides(self.shape)

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def numel(self):
        return dims.product(self.shape)

    @property
    def ones(self):
        return tuple(d for d, n in enumerate(self.shape) if isinstance(n, int) and n == 1)

    @property
    def nbytes(self):
        return self.numel * self.dtype.itemsize

    def with_grad(self, requires_grad):
        return TracedMeta(self.shape, self.dtype, requires_grad)


class Traced(Tensor):
    """A tensor of a trace: a Value in a tensor's clothes."""

    __slots__ = ("_value", "_view_of")

    def _needs_elements(self, *args, **kwargs):
        raise CaptureError(
            "compile: the function needs the elements of a tensor (item, bool, numpy or an "
            "index), which are not known while it is captured; hint: keep such decisions outside"
        )

    item = tolist = numpy = data_ptr = _needs_elements
    __bool__ = __int__ = __float__ = __index__ = __array__ = __complex__ = _needs_elements

    def __repr__(self):
        return f"Traced({self._meta.dtype.name}{list(self._meta.shape)})"

    def detach(self):
        """The same value as a constant of differentiation."""
        return current().wrap(F.stop(self._value), False)

    def requires_grad_(self, requires_grad=True):
        """Leaves are made outside of captured functions."""
        raise CaptureError("compile: requires_grad_() inside of a captured function")

    def backward(self, *args, **kwargs):
        """Not inside of a captured function: its result is differentiated as a whole."""
        raise CaptureError("compile: backward() inside of a captured function")


def current() -> Trace:
    """The trace in progress."""
    return dispatch.capture.trace


def active() -> bool:
    """Whether this thread is capturing a function."""
    return dispatch.capture.trace is not None


class Trace:
    """A capture in progress.

    Attributes:
        program: what was recorded.
        captured: real tensors met, in the order of their inputs.
        random: whether (seed, offset) are the last two inputs; ``drawn`` counts the numbers.
    """

    def __init__(self, name):
        self.program = Program(name)
        self.captured: list[Tensor] = []
        self.values: dict[int, Value] = {}
        self.entry: dict[int, Value] = {}
        self.mutated: list[Tensor] = []
        self.seed = self.offset = None
        self.drawn = 0

    # Entering

    def argument(self, x) -> Traced:
        """A stand-in for a tensor argument."""
        return self.wrap(self._input(x), x._meta.requires_grad)

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
        return self.program.input(D.float64, (), weak=True)

    def wrap(self, value, requires_grad) -> Traced:
        """A value as a tensor."""
        t = object.__new__(Traced)
        for slot in Tensor.__slots__:
            if slot != "__weakref__":
                setattr(t, slot, None)
        t._meta = TracedMeta(value.shape, value.dtype, requires_grad)
        t._value, t._view_of = value, None
        return t

    def lift(self, x):
        """What a tensor, or a structure with tensors, is in the Program."""
        if isinstance(x, Traced):
            return x._value
        if isinstance(x, Tensor):
            if id(x) not in self.values:
                # Windows of convolutions are constants: sizes that follow from them stay simple.
                value = self._input(x, 2)
                self.captured.append(x)
                self.values[id(x)] = self.entry[id(x)] = value
            return self.values[id(x)]
        if isinstance(x, (list, tuple)):
            items = [self.lift(y) for y in x]
            return type(x)(*items) if hasattr(type(x), "_fields") else type(x)(items)
        return x

    # Calls

    def call(self, site, args):
        """A call of an op, of which some arguments may be tensors."""
        self._no_aliases(site, args)
        values = [
            self.lift(dispatch.data_argument(a)) if i in site.slots else dispatch.plain_argument(a)
            for i, a in enumerate(args)
        ]
        if site.random:
            return self._random(site, args, values)
        positional, named = site.arguments(values)
        return self._finish(site, args, site.fn(*positional, **named))

    def primitive(self, primitive, inputs, params):
        """A primitive applied to tensors."""
        grad = self._grad(inputs)
        return self._wrapped(primitive(*map(self.lift, inputs), **params), grad)

    def _random(self, site, args, values):
        if self.seed is None:
            self.seed = self.program.input(D.int64, (), weak=True)
            self.offset = self.program.input(D.int64, (), weak=True)
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
        return self._finish(site, args, result)

    def _finish(self, site, args, result):
        if site.into == "self":
            return self._assign(site.name, args[0], result)
        wrapped = self._wrapped(result, self._grad(args))
        if site.view:
            for t in wrapped if isinstance(wrapped, (tuple, list)) else (wrapped,):
                t._view_of = args[0]
        return wrapped

    def _grad(self, args):
        if mode.grad is False:
            return False
        return any(
            isinstance(a, Tensor)
            and a._meta.requires_grad
            or isinstance(a, (list, tuple))
            and self._grad(a)
            for a in args
        )

    def _wrapped(self, result, grad):
        if isinstance(result, Value):
            if result.weak:
                d = D.get_default_dtype() if result.dtype is D.float64 else result.dtype
                result = to(result, d)
            if mode.grad is False and result.dtype.is_floating_point:
                result = F.stop(result)
            return self.wrap(result, grad and result.dtype.is_floating_point)
        if isinstance(result, (tuple, list)):
            items = [self._wrapped(x, grad) for x in result]
            kind = type(result)
            return kind(*items) if hasattr(kind, "_fields") else kind(items)
        return result

    # Changes in place

    def _no_aliases(self, site, args):
        if site.into and isinstance(args[0], Traced) and args[0]._view_of is not None:
            raise CaptureError(
                f"compile: {site.name} changes a view in place; hint: write it without a view"
            )

    def _assign(self, name, target, result):
        value = fitting(name, result, self.lift(target))
        if mode.grad is False:
            value = F.stop(value)
        if isinstance(target, Traced):
            target._value = value
            target._meta = target._meta.with_grad(
                target._meta.requires_grad or self._grad((target,))
            )
            return target
        if target._meta.requires_grad and mode.grad is not False:
            raise CaptureError(f"compile: {name} changes a parameter where gradients are recorded")
        self.values[id(target)] = F.stop(value) if value.dtype.is_floating_point else value
        if not any(t is target for t in self.mutated):
            self.mutated.append(target)
        return target

    def fresh(self, shape, dtype, value=0) -> Traced:
        """A new tensor of the trace (what ``empty`` gives while capturing)."""
        return self.wrap(expand_to(to(value, dtype), tuple(shape)), False)


@contextmanager
def capturing(trace: Trace):
    """Run the block on the trace; plans of ordinary calls are out of reach meanwhile."""
    if dispatch.capture.trace is not None:
        raise CaptureError("compile: a capture inside of a capture")
    hidden = dispatch.hide_plans()
    dispatch.capture.trace = trace
    try:
        with dims.guarding(trace.program.guards), P.building(trace.program):
            yield trace
    finally:
        dispatch.capture.trace = None
        dispatch.restore_plans(hidden)


# Structures --------------------------------------------------------------------------------------


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
