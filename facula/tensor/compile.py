"""``facula.compile``: functions and modules captured as Programs, one per structure of their call.

What a capture assumed is checked at every call: the structure, dtypes and ranks of arguments, the
questions asked about sizes, whether gradients are recorded, the modules reached (their training
flags, parameters and plain attributes) and the plain variables of the function's closure. Where
an assumption fails the function is captured anew; where it cannot be captured as a whole it runs in
pieces (``pieces``), after a warning that says why.
"""

from __future__ import annotations

import builtins
import functools
import os
import sys
import warnings
import weakref
from contextlib import contextmanager
from inspect import iscoroutinefunction, isgeneratorfunction
from operator import is_
from time import perf_counter

from facula.base.errors import ArgumentTypeError, fail
from facula.eager import dispatch
from facula.eager.capture import CaptureError
from facula.eager.dispatch import PLAIN as _PLAIN
from facula.eager.events import roll_back
from facula.eager.failures import user_line
from facula.eager.grad_mode import capture, mode, refuse
from facula.eager.replay import Entry, Plan, Shared, Stale, tensors_and_numbers
from facula.eager.standins import Int, int_input
from facula.eager.structures import flatten
from facula.eager.tensor import Tensor
from facula.runtime import random
from facula.tensor.pieces import Pieces
from facula.tensor.surroundings import Surroundings

_NOTHING = flatten(((), {}), [])
_captured: weakref.WeakSet = weakref.WeakSet()
#: Captures of one function kept; beyond, it runs as it is.
MOST_CAPTURES = 64
#: Of so many calls of a function that is cut, the first few find out whether pieces are quicker.
EVERY, TRIALS = 256, 8
#: Captures for other values of one variable; then Python reads it, at each call.
MOST_CHANGES = 8
_CHANGED = " is not what it was"
#: Plans of one function kept, one per sizes of its arguments; then all are forgotten.
MOST_PLANS = 4096


def compile(model=None, *, fullgraph=False, dynamic=None, backend="facula", mode=None,  # noqa: A001
            options=None, disable=False):  # fmt: skip
    """A function or module captured and fused, forward and backward.

    Args:
        model: a function of tensors, or a module; left out, a decorator is returned.
        fullgraph: raise :class:`CaptureError` instead of running in pieces.
        dynamic, backend, mode, options: accepted for PyTorch's sake; sizes are always dynamic.
        disable: return ``model`` as it is.

    >>> import facula
    >>> f = facula.compile(lambda x: (x * 2 + 1).relu().sum())
    >>> f(facula.ones(3)).item()
    9.0
    """
    if model is None:
        return lambda m: compile(m, fullgraph=fullgraph, disable=disable)
    if not callable(model):
        fail(ArgumentTypeError, "compile", f"expected a function or module, got {type(model)}")
    if disable:
        return model
    if isgeneratorfunction(model) or iscoroutinefunction(model):
        why = f"compile: {model.__name__} does not run to its end when it is called"
        if fullgraph:
            raise CaptureError(why)
        warnings.warn(f"{why}; running uncaptured", stacklevel=2)
        return model
    if hasattr(model, "_modules") and hasattr(model, "forward"):
        return _module(model, fullgraph)
    compiled = Captured(model, fullgraph)

    function = functools.wraps(model)(compiled.quick())
    function.captured = compiled
    return function


def forget_captures() -> None:
    """Let all functions be captured anew when they are called next."""
    for one in list(_captured):
        one.forget()


dispatch.forgetting.append(forget_captures)


def _module(model, fullgraph):
    """A module whose call is captured; everything else is the original's."""
    shell = object.__new__(_optimized(model, fullgraph))
    shell.__dict__ = model.__dict__  # one state, whichever of the two it is reached through
    return shell


def compile_module(model, fullgraph=False, disable=False, **settings) -> None:
    """Let the calls of this module itself be captured from now on (``Module.compile``)."""
    compile(**settings)  # refuses what it does not know
    if not disable:
        kind = _optimized(model, fullgraph)
        kind.__name__ = type(model).__name__
        model.__class__ = kind


def _optimized(model, fullgraph):
    """The class of a module whose calls are those of ``model``, captured."""
    call, plain = Captured(model.__call__, fullgraph, model).quick(), type(model)

    class OptimizedModule(plain):
        def __call__(self, *args, **kwargs):
            return call(*args, **kwargs)

        def __reduce_ex__(self, protocol):
            # A copy has captures of its own.
            original = object.__new__(plain)
            original.__dict__ = self.__dict__
            _, _, *state = original.__reduce_ex__(protocol)
            return (_again, (plain, fullgraph), *state)

    OptimizedModule.__name__ = "OptimizedModule"
    return OptimizedModule


def _again(kind, fullgraph):
    return _module(kind.__new__(kind), fullgraph)


class Captured:
    """A function and its captures.

    Attributes:
        count, reasons: how many captures there are, and why each was made.
        given_up: why the function is no longer captured as a whole, or None.
    """

    def __init__(self, fn, fullgraph, module=None):
        self.fn, self.fullgraph, self.module = fn, fullgraph, module
        _captured.add(self)
        self.forget()

    def forget(self):
        """Start again, without any capture."""
        self.surroundings: dict = {}
        self.plans: dict = {}
        self.entries: dict = {}
        self.reasons: list[str] = []
        self.last = self.given_up = self.pieces = None
        self.ints: dict = {}  # structure -> leaf that is an int -> whether it is an input
        # Calls in pieces and as they are take turns at times; then the quicker way is taken.
        self.calls, self.plain, self.times = 0, 0, [0.0, 0.0]
        self.hot = None  # (guard, function of the arguments, keywords) of the last call

    @property
    def count(self) -> int:
        return len(self.reasons)

    def quick(self):
        """A function that does the call: at once if nothing has changed since the last one."""

        def call(*args, **kwargs):
            hot = self.hot  # another thread may change it
            if hot is not None:
                guard, go, names = hot
                given = args
                if kwargs or names:
                    given = (*args, *kwargs.values()) if names == (*kwargs,) else ()
                if guard(*given):
                    try:
                        return go(given)
                    except Stale:
                        pass
            return self(*args, **kwargs)

        return call

    def __call__(self, *args, **kwargs):
        if capture.trace is not None:
            return self.fn(*args, **kwargs)
        if self.given_up is not None:
            return self._in_pieces(args, kwargs)
        self.hot = None
        leaves: list = []
        structure = flatten((args, kwargs), leaves) if args or kwargs else _NOTHING
        around = self._around(leaves)
        number = around.number()
        for k, enters in self.ints.get(structure, {}).items():
            if enters and type(leaves[k]) is int and leaves[k] >= 0:
                leaves[k] = int_input(leaves[k])
        key = (structure, tuple(map(_exact, leaves)), mode.grad is not False, mode.cast, number)
        try:
            for plan in self.plans.get(key, ()):
                if plan.holds():
                    given = (*args, *kwargs.values())
                    if len(given) == len(leaves) and all(map(is_, given, leaves)):
                        self.hot = plan.guarded(leaves, around.part), plan.go, (*kwargs,)
                    try:
                        return plan.run(leaves)
                    except Stale:
                        continue
            if self._ints_change(key, leaves):
                return self(*args, **kwargs)
            return self._plan(key, structure, leaves, around).run(leaves)
        except Shared:
            return self.fn(*args, **kwargs)
        except CaptureError as error:
            if self.fullgraph:
                raise
            if not isinstance(error, _Raised):
                self._give_up(error)
                return self(*args, **kwargs)
            failure = error
        # If the call fails as it is, it fails for the user's reason, and nothing is given up.
        result = self.fn(*args, **kwargs)
        self._give_up(failure)
        return result

    def _give_up(self, error):
        line = user_line(error.__cause__ or error)
        self.given_up = f"{error}{f' (at {line})' if line else ''}"
        own = os.path.dirname(os.path.dirname(__file__))
        depth = 1
        while sys._getframe(depth).f_code.co_filename.startswith(own):
            depth += 1
        warnings.warn(f"{self.given_up}; running in pieces", stacklevel=depth + 1)

    def _in_pieces(self, args, kwargs):
        """A call of a function that is cut: in pieces, or as it is with its modules captured.

        The two take turns at times; then the quicker way is taken.
        """
        if self.pieces is None:
            self.pieces = Pieces(getattr(self.fn, "__name__", "captured"))
            around = self._around([])
            around.look()
            found = around.modules()
            made = [Captured(m.forward, False, m) for m in found]
            self.modules = [(m, one, one.quick()) for m, one in zip(found, made)]
        count, start = self._recorded(), perf_counter()
        trial, self.calls = self.calls < TRIALS, (self.calls + 1) % EVERY
        plain = self.calls % 2 if trial else self.plain
        try:
            if plain:
                return self._by_modules(args, kwargs)
            return self.pieces.run(self.fn, args, kwargs)
        finally:
            if self._recorded() != count:
                self.calls = plain  # what is recorded takes its time; the other way is next
                self.times = [0.0, 0.0]
            elif trial:
                self.times[plain] += perf_counter() - start
            if self.calls == TRIALS:
                self.plain, self.times = int(self.times[1] < self.times[0]), [0.0, 0.0]

    def _recorded(self) -> int:
        """What grows where anything is captured."""
        return self.pieces.count + sum([one.count for _, one, _ in self.modules])

    def _by_modules(self, args, kwargs):
        for module, _, call in self.modules:
            vars(module)["forward"] = call
        try:
            return self.fn(*args, **kwargs)
        finally:
            for module, *_ in self.modules:
                vars(module).pop("forward", None)

    def _around(self, leaves):
        """The surroundings of the function and of the objects among its arguments."""
        objects = [x for x in leaves if type(x) not in _PLAIN and not isinstance(x, Tensor)]
        key = tuple(map(id, objects))
        found = self.surroundings.get(key)
        if found is None:
            if len(self.surroundings) >= MOST_CAPTURES:
                self.surroundings.clear(), self.plans.clear(), self.entries.clear()
            root = self.fn if self.module is None else self.module
            found = self.surroundings[key] = Surroundings(root, *objects)
        return found

    def _ints_change(self, key, leaves) -> bool:
        """Whether the call differs in ints from the one captured last: they become inputs."""
        if self.last is None or self._entry(key, leaves) is not None:
            return False
        entry, before, _ = self.last
        structure, now = _wide(key, leaves)[:2]
        if before[0] != structure:
            return False
        known, count, same = self.ints.setdefault(structure, {}), 0, before[1] == now
        for k, (a, b) in enumerate(zip(before[1], now)):
            if type(leaves[k]) is Int:
                turned = same and entry.needs_int(len(tensors_and_numbers(leaves[:k])))
            else:
                ints = type(a) is type(b) is tuple and a[0] is b[0] is int
                turned = ints and a != b and min(a[1], b[1]) >= 0 and k not in known
            if turned:
                known[k] = k not in known
                count += 1
        return count > 0

    def _plan(self, key, structure, leaves, around):
        entry = self._entry(key, leaves)
        if entry is None:
            entry = self._captured(structure, leaves, around)
            key = (*key[:-1], around.number())
            wide = _wide(key, leaves)
            why = self._why(wide, around, tensors_and_numbers(leaves))
            self.reasons.append(why)
            if why.endswith(_CHANGED) and self.reasons.count(why) > MOST_CHANGES:
                self.given_up = f"compile: {why}, again and again"
            self.last = entry, wide, around.found
            self.entries.setdefault(_wide(key, leaves), []).append(entry)
        plan = Plan(entry, leaves)
        if sum(map(len, self.plans.values())) >= MOST_PLANS:
            self.plans.clear()
        self.plans.setdefault(key, []).append(plan)
        return plan

    def _entry(self, key, leaves):
        """A capture that holds for a call."""
        data = tensors_and_numbers(leaves)
        for entry in self.entries.get(_wide(key, leaves), ()):
            if entry.fits(data) and entry.flags_hold():
                return entry
        return None

    def _why(self, wide, around, data) -> str:
        """Why what was captured last did not do."""
        if self.last is None:
            return "the first call"
        entry, before, found = self.last
        if before[0] != wide[0]:
            return "the arguments are nested in another way"
        if before[1] != wide[1]:
            k = next(k for k, (a, b) in enumerate(zip(before[1], wide[1])) if a != b)
            return f"argument {k} is of another dtype, rank, requires_grad, size 1 or value"
        if before[2] != wide[2]:
            return f"gradients are {'' if wide[2] else 'not '}recorded"
        if before[3] is not wide[3]:
            return f"autocast is {'on' if wide[3] else 'off'}, or for another dtype"
        path = around.changed_since(found)
        if path is not None:
            return path + _CHANGED
        if not entry.holds():
            return "a gradient is there that was not, or the reverse"
        if not entry.fits(data):
            return "the sizes, or the dtype or requires_grad of a captured tensor"
        return "an optimizer's numbers choose another branch"

    def _captured(self, structure, leaves, around):
        if self.count >= MOST_CAPTURES:
            raise CaptureError(f"compile: more than {MOST_CAPTURES} captures of one function")
        if around.cursors:
            raise CaptureError(f"compile: the function may take items from {around.cursors[0]!r}")
        around.look()
        before, undo, streams = around.found, around.undoing(), _streams()
        try:
            with _no_print():
                entry = Entry(self.fn, structure, leaves)
            around.look()
            changed = around.changed_since(before)
            if changed is None and _streams() != streams:
                changed = "the state of random numbers"
            if changed is not None:
                roll_back(entry.trace.undo)
                raise CaptureError(f"compile: the function changes {changed}")
        except Exception as error:
            # What the trace did to Python is undone: the call is made again, as it is.
            undo()
            _restore_streams(streams)
            if self.fullgraph or isinstance(error, CaptureError):
                raise
            raise _Raised(f"compile: {type(error).__name__}: {error}") from error
        return entry


class _Raised(CaptureError):
    """An error of another kind in a trace: the user's, or because of what stand-ins cannot do."""


@contextmanager
def _no_print():
    """What is printed would be printed once, and again if the capture is given up."""

    def refusing(*args, **kwargs):
        refuse("prints")
        plain(*args, **kwargs)

    plain, builtins.print = builtins.print, refusing
    try:
        yield
    finally:
        if builtins.print is refusing:
            builtins.print = plain


def _streams():
    """The states of Python's own random numbers and of NumPy's; how often ours were set."""
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    state = numpy and numpy.get_state()
    state = state and (*state[:1], state[1].tobytes(), *state[2:])
    return python and python.getstate(), state, random.default_generator.jumps


def _restore_streams(streams):
    if streams[0] is not None:
        sys.modules["random"].setstate(streams[0])
    if streams[1] is not None:
        numpy, (kind, words, *rest) = sys.modules["numpy"], streams[1]
        numpy.random.set_state((kind, numpy.frombuffer(words, "uint32"), *rest))


def _wide(key, leaves):
    """The key of captures, which hold for many sizes, from that of plans."""
    return (key[0], tuple(map(_general, leaves)), *key[2:])


def _exact(x):
    """Of an argument, what a plan is bound to."""
    if isinstance(x, Tensor):
        return (Int, x._meta) if type(x) is Int else x._meta
    return float if type(x) is float else _static(x)


def _general(x):
    """Of an argument, what a capture depends on."""
    if isinstance(x, Tensor):
        m = x._meta
        return m.dtype, m.ones, m.ndim, m.requires_grad, m.contiguous, type(x) is Int
    return float if type(x) is float else _static(x)


def _static(x):
    return (type(x), x) if type(x) in _PLAIN else (type(x), id(x))
