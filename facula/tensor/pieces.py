"""Functions that ask for elements in the middle: Python runs at each call, over cached pieces.

While such a function runs, its tensors are :class:`Lazy`: an op on one is not computed but looked
up, under the last op of the piece gathered so far (:class:`Known`). What is found there tells
shapes and dtypes of the results; nothing else happens. Where elements are needed (the *cut*) the
piece ends: one captured Program, found under its last op and the tensors that are still alive,
computes these, and Python goes on with a new piece. What is not found is recorded with a
:class:`Trace`, once; sizes are symbols there, and so are Python's numbers after they changed once.

``backward`` is a cut. A piece is a node of the tape, whose backward is one Program as well.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from functools import partial
from weakref import ref

from facula.base import dtypes as D
from facula.eager import dispatch, multi
from facula.eager.capture import Trace
from facula.eager.dispatch import PLAIN
from facula.eager.grad_mode import capture, mode, runs
from facula.eager.standins import CaptureError, Traced
from facula.eager.structures import flatten, unflatten
from facula.eager.tensor import Tensor, wrap
from facula.ir import dims
from facula.ir import program as P
from facula.ops.movement import expand_
from facula.runtime import random
from facula.tensor.creation import full
from facula.tensor.known import INT, MADE, TARGET, Known, Ref, built, entered, free_of
from facula.tensor.lazy import Lazy, LazyMeta, alone, any_lazy, is_leaf, mapped, raw, user_line
from facula.tensor.piece import Piece, called, singly

#: Ops that may follow one op with the same arguments but for numbers and sizes.
MOST_FOLLOWING = 16
#: Ops known of one function; beyond, all are forgotten.
MOST_KNOWN = 20_000
_ALL = 1 << 30


class Pieces:
    """What is known of a function that runs in pieces.

    Attributes:
        cuts: the user's line -> what was cut there first, for ``explain``.
        count: how many ops were recorded.
    """

    def __init__(self, name):
        self.name, self.root, self.count, self.cuts = name, Known(), 0, {}

    def run(self, fn, args, kwargs):
        """Call the function."""
        if self.count > MOST_KNOWN:
            self.root, self.count = Known(), 0
        run = capture.trace = Run(self)
        runs.append(run)
        try:
            result = fn(
                *map(run.argument, args), **{name: run.argument(x) for name, x in kwargs.items()}
            )
            run.settle()
            return run.proper(result)
        except BaseException:
            with suppress(Exception):
                run.settle()
            raise
        finally:
            capture.trace = None
            runs.remove(run)
            run.end()


class Run:
    """A call in progress of a function that runs in pieces; it stands where a Trace would.

    Attributes:
        at: the last op of the piece; ``path`` all of them, with their numbers.
        lazies: weak references to the tensors of the piece, by number.
        inputs: tensors and numbers that it reads; ``where`` in these the tensors are.
        met: all tensors met, in order, and whether each is an input of its own.
        numbers, storages: id of a tensor, or of memory -> number of the input.
        owners: id of a tensor proper -> weak references to it and to those of the run that it is.
        trace: what records the piece, if something new is in it; ``tensors`` are its stand-ins.
        beside: where numbers differ from what is known, that.
        swapped: tensors changed by the piece, and what puts them back when it has run.
    """

    cuts = True

    def __init__(self, known):
        self.known, self.shells, self.originals, self.owners = known, [], {}, {}
        self.contents: list = []
        self._restart()

    def _restart(self):
        self.at, self.path, self.lazies, self.inputs, self.met = self.known.root, [], [], [], []
        self.where: list[int] = []
        self.numbers, self.storages, self.swapped = {}, {}, []
        self.trace = self.beside = self.words = None

    # Tensors in and out

    def shell(self, x):
        """A tensor as one of the run."""
        if type(x) is not Tensor or is_leaf(x):
            return x
        m, lazy = x._meta, object.__new__(Lazy)
        lazy._meta = LazyMeta(m.shape, m.dtype, m.requires_grad, self, x, None, True)
        self._own(lazy, x)
        return lazy

    def _own(self, lazy, x):
        r = ref(lazy)
        self.shells.append(r)
        known = self.owners.get(id(x))
        if known is None or known[0]() is not x:
            known = self.owners[id(x)] = ref(x), []
        known[1].append(r)

    def argument(self, x):
        """An argument as a tensor of the run over the same memory; likewise in containers."""
        if type(x) is tuple:
            return tuple(map(self.argument, x))
        if type(x) in (list, dict):
            for k, old in [*(x.items() if type(x) is dict else enumerate(x))]:
                x[k] = new = self.argument(old)
                if new is not old:
                    self.contents.append((x, k, new, old))
            return x
        if type(x) is not Tensor or is_leaf(x):
            return x
        alias = wrap(x._meta, x._ptr, x._storage)
        for slot in ("_grad_fn", "_output_nr", "_base", "_view", "_views"):
            setattr(alias, slot, getattr(x, slot))
        self.originals[id(alias)] = x, alias
        return self.shell(alias)

    def proper(self, result):
        """A result with tensors proper in it."""
        if type(result) is Lazy:
            alias = result._meta.settled()
            x, _ = self.originals.get(id(alias), (alias, None))
            return x
        if isinstance(result, tuple):
            items = map(self.proper, result)
            kind = type(result)
            return kind(*items) if hasattr(kind, "_fields") else kind(items)
        return result

    def finish(self, lazy):
        """Make a tensor of the run an ordinary one."""
        alias = lazy._meta.settled()
        if alias._meta.requires_grad and alias._grad_fn is None:
            alias = expand_(alias, shape=alias._meta.shape)
        lazy.__class__ = Tensor
        for slot in Tensor.__slots__:
            if slot != "__weakref__":
                setattr(lazy, slot, getattr(alias, slot))
        for view in alias._views or ():
            if view() is not None and view()._base is alias:
                view()._base = lazy

    def end(self):
        """Leave nothing of the run behind."""
        for container, k, new, old in self.contents:
            with suppress(LookupError):
                if container[k] is new:
                    container[k] = old
        for lazy in [r() for r in self.shells]:
            if type(lazy) is Lazy and lazy._meta.alias is not None:
                self.finish(lazy)
        for x, alias in self.originals.values():
            if alias._grad_fn is not x._grad_fn:  # changed in place, which made it a history
                x._grad_fn, x._output_nr, x._meta = alias._grad_fn, alias._output_nr, alias._meta

    # What is asked while the run is on: the interface of a Trace

    def call(self, site, args):
        """A call of an op that no plan was found for."""
        known = self.at.next
        if known is not None and known.head is site:
            result = (known.quick or partial(self._match, known))(self, args)
            if result is not None:
                return result
        return self.event(site, args, site.slots, partial(called, site))

    def primitive(self, primitive, inputs, params):
        """A primitive applied to tensors."""
        names, count = tuple(params), len(inputs)

        def eagerly(*now):
            return dispatch.call_primitive(primitive, now[:count], dict(zip(names, now[count:])))

        return self.event((primitive, names), (*inputs, *params.values()), range(count), eagerly)

    def fresh(self, shape, dtype, value=0):
        """A new tensor: not of the piece."""
        with self._away():
            return full(tuple(shape), value, dtype=dtype)

    def update(self, rule, tensors, *rest):
        """:func:`facula.eager.multi.update`, for which all elements are needed."""
        self.apart(lambda xs: multi.update(rule, xs, *rest), (tensors,))

    def host(self, function, dicts):
        """Call a function of Python's."""
        function()

    def given(self, x, other):
        """A tensor gets the memory of another: (both, as tensors proper)."""
        self.settle()
        if type(x) is Lazy:
            self.finish(x)
        return other._meta.alias if type(other) is Lazy else other

    def changing(self, x):
        """An ordinary tensor is about to be changed: what the piece reads of it is read first."""
        if id(x._storage) in self.storages:
            self.settle()

    def apart(self, call, args):
        """A call on tensors proper, at once; its results are tensors of the run."""
        self.settle()
        return self._apart(call, args)

    def _apart(self, call, args):
        given = []
        args = mapped(lambda x: given.append(x) or x._meta.alias, args)
        with self._away():
            result = call(*args)
        back = {id(x._meta.alias): x for x in given}
        for x in given:
            x._meta.requires_grad = x._meta.alias._meta.requires_grad
            x._meta.shape = x._meta.alias._meta.shape
        if isinstance(result, (tuple, list)) or type(result) is Tensor:
            result = mapped(
                lambda x: back[id(x)] if id(x) in back else self.shell(x), result, Tensor
            )
        return result

    @contextmanager
    def _away(self):
        capture.trace = None
        try:
            yield
        finally:
            capture.trace = self

    def event(self, head, args, slots, eagerly):
        """An op: found, recorded, or where that cannot be, called at once."""
        if not any_lazy(args):
            with self._away():
                return eagerly(*args)
        if mode.grad is not True and mode.grad is not False:
            return self.apart(eagerly, args)
        try:
            known, values, found = self._find(head, args, slots)
        except Exception as error:  # if it is the user's, the call itself tells
            self.trace = None
            self._note(f"{getattr(head, 'name', head)} runs apart: {error}")
            return self.apart(eagerly, args)
        self.at.next = known
        if found[1] is not None and not self._goes_on():
            return self.apart(eagerly, args)
        return self._follow(known, values, *found, args)

    def _match(self, known, _, args):
        """The result of a call if it is ``known``, else None."""
        before = len(self.met)
        values = known.match and known.match(self, args)
        if values is None:
            return None
        found = known.holds(self, values)
        if found is None or found[1] is not None and not self._goes_on():
            self.leave(before)
            return None
        return self._follow(known, values, *found, args)

    def _find(self, head, args, slots):
        values, self.news = [], []
        parts = tuple([self._part(a, i in slots, values) for i, a in enumerate(args)])
        key = head, mode.grad, D.get_default_dtype(), parts, tuple(self.news)
        for known in self.at.following.get(key, ()):
            found = known.holds(self, values)
            if found is not None:
                return known, values, found
        known = self._record(key, values)
        return known, values, known.holds(self, values)

    def _part(self, x, slot, values):
        """An argument as part of a key; numbers that may change are appended to ``values``."""
        kind = type(x)
        if kind is int:
            values.append(x)
            return int if slot is True else INT
        if kind in PLAIN:
            return x
        if kind is float:
            if slot is True and x and x == x:
                values.append(x)
                return float
            return float, repr(x)
        if isinstance(x, Tensor):
            if slot is False:
                return self._part(x.item(), False, values)
            if kind is Lazy:
                if x._meta.alias is None:
                    return Ref.to(False, x._meta.number)
                x = x._meta.alias
            return Ref.to(True, self._input(x))
        if isinstance(x, (list, tuple)):
            return (kind, *[self._part(y, slot is not False and "in", values) for y in x])
        x = dispatch.plain_argument(x) if slot is False else dispatch.data_argument(x)
        if type(x) in (int, float) or type(x) in PLAIN:
            return self._part(x, slot, values)
        hash(x)
        return x

    def _input(self, x):
        """The number, among the tensors, of the input that an ordinary tensor is."""
        k = self.numbers.get(id(x))
        if k is not None:
            return k
        m, own = x._meta, x._storage
        kind = (m.dtype, m.ndim, m.ones, m.requires_grad, is_leaf(x) and m.shape[2:],
                self.storages.get(id(own)))  # fmt: skip
        if kind[-1] is not None and m.numel:
            for k, position in enumerate(self.where):
                y = self.inputs[position]
                if type(y) is Lazy:
                    raise CaptureError("compile: a tensor shares memory with one that was changed")
                if y._ptr == x._ptr and y._meta.with_grad(False) is m.with_grad(False):
                    if y._meta.requires_grad is not m.requires_grad:
                        raise CaptureError("compile: a tensor and one detached from it are used")
                    self.news.append(k)
                    self.met.append((x, False))
                    self.numbers[id(x)] = k
                    return k
        self.news.append(kind)
        self.enter(x)
        return self.numbers[id(x)]

    def enter(self, x):
        """Take an ordinary tensor as an input."""
        k = self.numbers[id(x)] = len(self.where)
        self.storages.setdefault(id(x._storage), k)
        self.where.append(len(self.inputs))
        self.inputs.append(x)
        self.met.append((x, True))

    def leave(self, count):
        """Forget the tensors met after the first so many: what they were met for does not hold."""
        for x, _ in self.met[count:]:
            k = self.numbers.pop(id(x))
            if self.storages[id(x._storage)] == k:
                del self.storages[id(x._storage)]
            del self.inputs[self.where.pop() :]
        del self.met[count:]

    # Following

    def _goes_on(self) -> bool:
        """Whether the next random numbers are those that follow on the piece's."""
        now = random.default_generator
        return self.words is None or (now._seed, now._offset) == (
            self.words[0], self.words[1] + self.drawn)  # fmt: skip

    def _follow(self, known, values, shapes, drawn, args):
        if drawn is not None:
            first = random.default_generator.next(drawn)
            if self.words is None:
                self.words, self.drawn = first, 0
                self.inputs += [("random", 0), ("random", 1)]
            self.drawn += drawn
        self.path.append((known, values))
        self.at = known
        target, made = args[0], []
        for shape, (_, dtype, grad, view) in zip(shapes, known.made):
            lazy = object.__new__(Lazy)
            lazy._meta = LazyMeta(shape, dtype, grad, self, None, len(self.lazies), view)
            self.lazies.append(ref(lazy))
            made.append(lazy)
        for number, grad in known.flags:
            lazy = self.lazies[number]()
            if lazy is not None:
                lazy._meta.requires_grad = grad
        if known.changed and not all([*map(self._swap, known.changed)]):
            self.settle()
        if known.structure is None:
            leaf = known.leaves[0]
            return target if leaf is TARGET else made[0] if leaf is MADE else leaf
        new = iter(made)
        leaves = (next(new) if x is MADE else target if x is TARGET else x for x in known.leaves)
        return unflatten(known.structure, leaves)

    def _swap(self, k):
        """Take an input that the piece changes for one of its tensors; False if others see it."""
        x, number = self.inputs[self.where[k]], len(self.lazies)
        known = self.owners.get(id(x))
        shown = owners = []
        if known is None or known[0]() is not x:
            shown = [x]
        else:
            found = [r() for r in known[1]]
            shown = owners = [y for y in found if type(y) is Lazy and y._meta.alias is x]
        self.lazies.append(ref(shown[0]) if shown else lambda: None)
        copy = self.trace is not None and self.standins[k] is not x
        allowed = alone() + (id(x) in self.originals) + copy
        if x._meta.requires_grad or sys.getrefcount(x._storage) > allowed:
            return False
        for y in owners:
            y._meta.alias, y._meta.number = None, number
            self.swapped.append((y, x))
        if shown and not owners:
            m = x._meta
            if type(x) is not Tensor:
                return False
            self.swapped.append((x, m))
            x._meta = LazyMeta(m.shape, m.dtype, False, self, None, number, not m.contiguous)
            x.__class__ = Lazy
        return True

    def _unswap(self):
        for x, was in self.swapped:
            if isinstance(was, Tensor):
                x._meta.alias = was
            else:
                x._meta.alias = x
                x.__class__, x._meta = Tensor, was
        self.swapped = []

    # Recording

    @contextmanager
    def _recording(self, trace):
        capture.trace = trace
        try:
            with dims.guarding(trace.program.guards), P.building(trace.program):
                yield
        finally:
            capture.trace = self

    def _record(self, key, values):
        head, grad, _, parts, kinds = key
        siblings = self.at.following.setdefault(key, [])
        if len(siblings) >= MOST_FOLLOWING:
            raise CaptureError("compile: sizes or numbers decide too much")
        if self.trace is None:
            self._retrace()
        beside = siblings[0] if siblings else None
        if beside is None and self.beside is not None:
            beside = self.beside.following.get(key, (None,))[0]
        known = Known()
        known.head, known.grad, known.parts, known.values = head, grad, parts, values
        known.line, known.free = user_line(), free_of(beside, parts, values, self.inputs)
        known.news, first = len(kinds), len(self.where) - sum(type(k) is tuple for k in kinds)
        known.kinds = None if any(type(k) is int or k[-1] is not None for k in kinds) else {}
        if known.kinds is not None:
            for k, (x, _) in enumerate(self.met[len(self.met) - len(kinds) :], first):
                m = x._meta
                known.kinds[k] = m.kind, is_leaf(x), m.requires_grad, m.shape[2:]
        trace, old = self.trace, len(self.tensors)
        guards, drawn, changed = len(trace.program.guards), trace.drawn, len(trace.mutated)
        self._describe(known, *self._perform(known, values), old)
        self.beside = beside
        known.guards = dims.Guards(list(trace.program.guards.items())[guards:])
        known.drawn = None if trace.drawn is drawn else trace.drawn - drawn
        known.changed = [self.numbers[id(x)] for x in trace.mutated[changed:]]
        known.seal()
        siblings.append(known)
        self.known.count += 1
        return known

    def _retrace(self):
        """Record the piece so far once more, for what comes next."""
        self.trace, self.tensors, self.done = Trace(self.known.name), [], 0
        self.standins = []
        recording = mode.grad
        try:
            for known, values in self.path:
                mode.grad = known.grad
                self._perform(known, values)
        finally:
            mode.grad = recording

    def _perform(self, known, values):
        """Run an op on stand-ins, which become the next of ``tensors``; (result, arguments)."""
        trace, changed = self.trace, len(self.trace.mutated)
        with self._recording(trace):
            for x, new in self.met[self.done : self.done + known.news]:
                # Windows of convolutions are constants: sizes that follow from them stay simple.
                x = raw(x)
                trace.met(x, 2 if is_leaf(x) else _ALL)
                if new:
                    self.numbers[id(x)] = len(self.standins)
                    self.standins.append(x)
            self.done += known.news
            values = list(values)
            for k, *how in known.free:
                values[k] = entered(trace.program, values[k], *how)
            given = iter(values)
            args = [built(p, given, self._standin) for p in known.parts]
            head = known.head
            if head == "detach":
                result = Traced.detach(args[0])
            elif type(head) is tuple:
                count = len(args) - len(head[1])
                result = trace.primitive(head[0], args[:count], dict(zip(head[1], args[count:])))
            else:
                result = trace.call(head, args)
        leaves: list = []
        structure = flatten(result, leaves)
        for x in leaves:
            if isinstance(x, Traced) and not any(x is a for a in args[:1]):
                self.tensors.append(x)
        self.tensors += trace.mutated[changed:]
        return structure, leaves, args

    def _describe(self, known, structure, leaves, args, old):
        known.structure, known.leaves, known.made, known.flags = structure, [], [], []
        for x in leaves:
            if isinstance(x, Tensor) and any(x is a for a in args[:1]):
                known.leaves.append(TARGET)
            elif isinstance(x, Traced):
                known.leaves.append(MADE)
                m = x._meta
                view = x._shows is not None or x._value.node is None
                known.made.append((tuple(m.shape), m.dtype, m.requires_grad, view))
            else:
                known.leaves.append(x)
        if TARGET in known.leaves:
            self._flags(known, old)

    def _flags(self, known, old):
        """Which tensors of the piece have got, or lost, a history by a change in place."""
        for number, t in enumerate(self.tensors[:old]):
            lazy = self.lazies[number]()
            if lazy is not None and isinstance(t, Traced):
                with self._recording(self.trace):
                    self.trace.lift(t)
                if lazy._meta.alias is None and lazy._meta.requires_grad != t._meta.requires_grad:
                    known.flags.append((number, t._meta.requires_grad))

    def _standin(self, r):
        return self.standins[r.number] if r.given else self.tensors[r.number]

    # Cutting

    def _note(self, what):
        self.known.cuts.setdefault(user_line(), what)

    def settle(self):
        """Compute all that was gathered."""
        if not self.path:
            self._restart()
            return
        swapped = {id(x) for x, _ in self.swapped}
        alive = [(n, x) for n, x in enumerate([r() for r in self.lazies]) if x is not None]
        alive = [
            (n, x) for n, x in alive
            if type(x) is Lazy and x._meta.alias is None and id(x) not in swapped
        ]  # fmt: skip
        numbers = tuple([n for n, _ in alive])
        recording, mode.grad = mode.grad, True
        try:
            piece = self.at.pieces.get(numbers)
            if piece is None:
                if self.trace is None:
                    self._retrace()
                with self._recording(self.trace):
                    piece = self.at.pieces[numbers] = Piece(self, numbers)
                self._note(f"a piece of {len(self.path)} operations ends")
            path, inputs, words, where = self.path, self.inputs, self.words, self.where
            self._unswap()
            self._restart()
            with self._away():
                try:
                    found = piece.run(inputs, words)
                except Exception:
                    found = singly(path, [inputs[k] for k in where])
        finally:
            mode.grad = recording
        for (_, lazy), x in zip(alive, found):
            lazy._meta.alias, lazy._meta.requires_grad = x, x._meta.requires_grad
            self._own(lazy, x)
