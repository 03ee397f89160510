"""The launcher: one native function that every plan is data for.

A *plan* says what a call does: convert the arguments, allocate the outputs, take workspace, run
kernels one after the other on blocks of 8-byte words, wrap the outputs as tensors. It is an array
of words; the builtin function made of it interprets that array in machine code, at about the cost
of the allocations it makes. A :class:`Template` makes plans that differ in sizes only, and is quick
at it; :func:`build` packs a :class:`LaunchSpec`, which says all by name.

How the words of a step come about: the launcher keeps a table of *values* (0, one per argument,
one per output, the two workspaces), and a word is ``values[source] + offset``.
A constant is an offset from the value 0, an address inside of a tensor an offset from its start.

Everything a call needs lies on the stack, so any number of calls may be under way at once. A plan
that releases the GIL holds references to its arguments' storages meanwhile, and the number of
threads cannot change. Wrong arguments give a TypeError; nothing has run then.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from facula.base.errors import (
    ArgumentError,
    ArgumentTypeError,
    CompileError,
    UnsupportedError,
    fail,
)
from facula.runtime import jit, native, storage

KINDS = {"tensor": 0, "f64": 1, "i64": 2}
_EXPECTED = {"tensor": "a Tensor", "f64": "a float", "i64": "an int of 64 bits"}
_COUNT, _TYPE, _STATUS = 0, 1, 2


@dataclass(slots=True)
class Step:
    """One kernel call: its address, and where each of its argument words comes from.

    A word is one of::

        ("const", int)                 the number itself
        ("f64", float)                 its bits
        ("arg", i, byte_offset)        address inside of tensor argument i
        ("out", j, byte_offset)        address inside of output j
        ("scalar", i)                  scalar argument i: the bits of a float, or an integer
        ("work", byte_offset)          address inside of the shared workspace
        ("thread_work", byte_offset)   address inside of thread 0's workspace; that of thread t is
                                       t times the workspace's bytes per thread further on
    """

    address: int
    words: Sequence[tuple]


@dataclass(slots=True)
class LaunchSpec:
    """What a plan does; see the module.

    Attributes:
        args: kinds of the arguments, "tensor", "f64" or "i64".
        outputs: (nbytes, meta) of each output; the meta object goes into the tensor's slot.
        steps: kernels, run in order until one returns a status that is not 0.
        workspace: (bytes shared by all threads, bytes per thread), not initialised.
        mutated: indices of the tensor arguments whose storage's version is raised.
        release_gil: whether other Python threads run meanwhile; costs about 50 ns.
        on_error: called with (status, index of the step, tuple of arguments); raises.
        name: of the operation, for messages.
        keep: anything that must live as long as the plan. The engine's: of which Executables, with
            which values of the symbols, the steps are, for profilers.
    """

    args: Sequence[str]
    outputs: Sequence[tuple]
    steps: Sequence[Step]
    workspace: tuple[int, int] = (0, 0)
    mutated: Sequence[int] = ()
    release_gil: bool = False
    on_error: Callable | None = None
    name: str = "launch"
    keep: object = None


# The words of a plan: those of a head, then the sections that the head points to (as word indices).
_HEAD = 14
(
    _NARGS, _NOUTS, _NSTEPS, _NVALUES, _BLOCK, _RELEASE, _SHARED, _PER_THREAD,
    _TENSOR, _STORAGE, _OUTS, _MUTATED, _NMUTATED, _STEPS,
) = range(_HEAD)  # fmt: skip


def _text(slots: dict[str, int], observed: bool = False) -> str:
    """The native code, for this interpreter and a tensor class's slots."""
    none = [
        f"%none{i} = getelementptr i8, ptr %tensor, i64 {offset}\n"
        f"  store ptr @_Py_NoneStruct, ptr %none{i}"
        for i, (name, offset) in enumerate(sorted(slots.items()))
        if name not in _OWN_SLOTS
    ]
    if none and sys.version_info < (3, 12):  # None is immortal from 3.12 on: nothing to count.
        none += [
            "%nones = load i64, ptr @_Py_NoneStruct",
            f"%more_nones = add i64 %nones, {len(none)}",
            "store i64 %more_nones, ptr @_Py_NoneStruct",
        ]
    words = {
        "HEADER": native.HEADER,
        "TYPE_AT": native.TYPE,
        "VERSION_AT": native.HEADER + storage.VERSION,
        "SLOT_STORAGE": slots["_storage"],
        "SLOT_PTR": slots["_ptr"],
        "SLOT_META": slots["_meta"],
        "FILL_WITH_NONE": "\n  ".join(none),
        "HEAD": _HEAD,
        "NARGS": _NARGS,
        "NOUTS": _NOUTS,
        "NSTEPS": _NSTEPS,
        "NVALUES": _NVALUES,
        "BLOCK": _BLOCK,
        "RELEASE": _RELEASE,
        "SHARED": _SHARED,
        "PER_THREAD": _PER_THREAD,
        "TENSOR": _TENSOR,
        "STORAGE": _STORAGE,
        "OUTS": _OUTS,
        "MUTATED": _MUTATED,
        "NMUTATED": _NMUTATED,
        "STEPS": _STEPS,
        **dict.fromkeys("CLOCK NOTE_START NOTE_STEP COUNT_NOTES NOTE_ENTRY TELL".split(), ""),
        "ROOM": "%nvalues",
    }
    if observed:
        words.update(_OBSERVED, CLOCK=jit.source("observed.ll", {**words, **_CLOCK}))
        return jit.source("launch.ll", words)
    return "".join([jit.source(f"{name}.ll", words) for name in ("launch", "plan", "guards")])


#: What the observed launcher does on its way.
_OBSERVED = {
    "NOTE_START": "call void @note(ptr %plan, ptr %values, i64 1)",
    "NOTE_STEP": "%note = add i64 %next, 1 call void @note(ptr %plan, ptr %values, i64 %note)",
    "COUNT_NOTES": f"%nsteps = call i64 @field(ptr %plan, i64 {_NSTEPS}) "
    "%notes = add i64 %nsteps, 3 %room = add i64 %nvalues, %notes",
    "ROOM": "%room",
    "NOTE_ENTRY": "call void @note(ptr %plan, ptr %values, i64 0)",
    "TELL": "call void @tell(ptr %self, ptr %plan, ptr %values, ptr %args, i64 %nargs)",
}
#: The clock of ``time.perf_counter_ns``.
_CLOCK = (
    {
        "DECLARE_NOW": "declare i32 @PyTime_PerfCounterRaw(ptr)",
        "NOW": "%at = alloca i64 %ok = call i32 @PyTime_PerfCounterRaw(ptr %at) "
        "%time = load i64, ptr %at ret i64 %time",
    }
    if sys.version_info >= (3, 13)
    else {
        "DECLARE_NOW": "declare i64 @_PyTime_GetPerfCounter()",
        "NOW": "%time = call i64 @_PyTime_GetPerfCounter() ret i64 %time",
    }
)


class _Launcher:
    """The code for one tensor class: ``new(words, report)`` makes a plan's builtin."""

    def __init__(self, cls: type):
        native.require_gil()
        self.cls = jit.immortal(cls)
        self.storage = id(storage.storage_type())
        self.slots = _slot_offsets(cls)
        names = "run new dealloc traverse type method share class guard guarding".split()
        found = jit.load(_text(self.slots), [f"launch_{n}" for n in names], optimize=2)
        at = {n: found[f"launch_{n}"] for n in names}
        holder = native.make_type(
            "facula.runtime.launch.Plan",
            native.HEADER + 16,
            {native.TP_DEALLOC: at["dealloc"], native.TP_TRAVERSE: at["traverse"]},
            flags=native.HAVE_GC,
        )
        ctypes.c_void_p.from_address(at["type"]).value = id(holder)
        self.run, self.method = at["run"], native.method_def("launch", at["run"])
        ctypes.c_void_p.from_address(at["method"]).value = self.method
        guarding = native.method_def("guard", at["guard"])
        ctypes.c_void_p.from_address(at["guarding"]).value = guarding
        ctypes.c_void_p.from_address(at["class"]).value = id(cls)
        self.new = native.builtin("new_plan", at["new"])
        self.share = native.builtin("share", at["share"])
        self.observe(_observer[0] if _observer else None)

    def observe(self, observer: Callable | None) -> None:
        """Let all plans, those made before too, tell ``observer`` of each launch."""
        if observer is None:
            native.set_function(self.method, self.run)
            return
        text = _text(self.slots, observed=True)
        at = jit.load(text, ["launch_run", "launch_observer"], optimize=2)
        ctypes.c_void_p.from_address(at["launch_observer"]).value = id(jit.immortal(observer))
        native.set_function(self.method, at["launch_run"])


_OWN_SLOTS = ("_storage", "_ptr", "_meta")
_launchers: dict[type, _Launcher] = {}
_current: list[_Launcher] = []
_observer: list[Callable] = []


def observe(observer: Callable | None) -> None:
    """Call ``observer(report, notes, arguments)`` after every launch; None ends it.

    ``report`` has the plan's ``name`` and ``keep``; ``notes`` are int64 as bytes, times on the
    clock of ``time.perf_counter_ns``: of entry, before the first step, after each step, at the
    end. What the observer raises is printed. As all builtins of plans share one ``PyMethodDef``, a
    change of its function switches them all, and none pays for the possibility.
    """
    _observer[:] = [] if observer is None else [observer]
    for launcher in _launchers.values():
        launcher.observe(observer)


def register_tensor(cls: type) -> type | None:
    """Say of which class outputs are made, and arguments must be; the class before, if any.

    ``cls`` has the slots ``_storage``, ``_ptr`` and ``_meta``. Outputs are made without calling
    ``__new__`` or ``__init__``, every other slot None. Usable as a decorator's body; plans built
    before keep the class they were built for.

    Raises:
        ArgumentTypeError: a slot is missing.
    """
    if cls not in _launchers:
        _launchers[cls] = _Launcher(cls)
    before = _current[0].cls if _current else None
    _current[:] = [_launchers[cls]]
    return before


def slots() -> dict[str, int]:
    """Where in a tensor each slot lies."""
    return _current[0].slots


def guard(words: bytes, keep):
    """The builtin of a guard, see ``runtime.guards``."""
    return _current[0].new(words, keep, True)


def share():
    """The builtin ``share(tensor, meta, byte_offset)``: a tensor over the same storage.

    Raises:
        UnsupportedError: no tensor class was registered.
    """
    if not _current:
        fail(UnsupportedError, "share", "no tensor class", "call register_tensor first")
    return _current[0].share


def _slot_offsets(cls: type) -> dict[str, int]:
    """Where in an instance each slot lies, found by putting a marker in and looking for it."""
    found = {}
    instance, marker = object.__new__(cls), object()
    words = (ctypes.c_void_p * (cls.__basicsize__ // 8)).from_address(id(instance))
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType):
                member.__set__(instance, marker)
                found.setdefault(name, 8 * list(words).index(id(marker)))
                member.__delete__(instance)
    for name in _OWN_SLOTS:
        if name not in found:
            fail(ArgumentTypeError, "register_tensor", f"{cls.__name__} has no slot {name!r}")
    return found


class _Report:
    """What a plan's holder keeps: all that must live as long, and how to tell of errors."""

    __slots__ = ("template", "on_error", "keep", "metas")

    def __init__(self, template: Template, on_error, keep, metas):
        self.template, self.on_error, self.keep, self.metas = template, on_error, keep, metas

    @property
    def name(self) -> str:
        return self.template.name

    def __call__(self, problem: int, status: int, index: int, args: tuple):
        """Raise; called by native code."""
        name, kinds = self.template.name, self.template.args
        if problem == _COUNT:
            fail(ArgumentTypeError, name, f"expected {len(kinds)} arguments, got {len(args)}")
        if problem == _TYPE:
            got = f"{type(args[index]).__name__}"
            if kinds[index] == "i64" and isinstance(args[index], int):
                got = str(args[index])
            if kinds[index] == "tensor" and isinstance(args[index], _current[0].cls):
                got = "one without memory"
            wanted = _EXPECTED[kinds[index]]
            fail(ArgumentTypeError, name, f"argument {index + 1} must be {wanted}, got {got}")
        if self.on_error is not None:
            self.on_error(status, index, args)
        raise CompileError(f"{name}: kernel {index} ended with status {status}")


class Template:
    """What plans have in common that differ in sizes only: their arguments and outputs.

    Attributes:
        args, mutated, name: as of a :class:`LaunchSpec`.
        outputs: how many there are.
    """

    __slots__ = ("args", "outputs", "mutated", "name", "bases", "_bounds", "_head", "_fixed")

    def __init__(self, args, outputs: int, mutated=(), name="launch"):
        self.args, self.outputs, self.mutated, self.name = args, outputs, mutated, name
        n = len(args)
        #: Sources of words by kind: the value ``source + number`` is the base of the word.
        self.bases = {"const": 0, "f64": 0, "arg": 1, "scalar": 1, "out": 1 + n}
        self.bases["work"] = 1 + n + outputs
        self.bases["thread_work"] = 2 + n + outputs
        self._bounds = {"arg": n, "scalar": n, "out": outputs}
        self._head = struct.Struct(f"{_HEAD}q{8 * n}s{2 * outputs}q{8 * len(mutated)}s")
        self._fixed = _words(*(KINDS[kind] for kind in args)), _words(*mutated)

    def source(self, kind: str, number: int = 0) -> int:
        """The number of a value that words are offsets from.

        Raises:
            ArgumentError: there is no such argument or output.
        """
        if kind not in self.bases or not 0 <= number < self._bounds.get(kind, 1):
            fail(ArgumentError, "launch", f"word {(kind, number)} refers to nothing")
        return self.bases[kind] + number

    def build(self, outputs, steps, block, workspace, release_gil, on_error=None, keep=None):
        """A builtin function that runs a plan of this kind.

        Args:
            outputs: bytes and meta of each output, one after the other.
            steps: the words of each step, see :func:`step_head`.
            block: the most words of a kernel.
        """
        if not _current:
            fail(UnsupportedError, "launch", "no tensor class", "call register_tensor first")
        launcher = _current[0]
        kinds, mutated = self._fixed
        n, outs = len(self.args), 2 * self.outputs
        metas = outputs[1::2]
        words = list(outputs)
        words[1::2] = map(id, metas)
        shared, per_thread = workspace
        plan = self._head.pack(
            n, self.outputs, len(steps), 3 + n + self.outputs, block, release_gil,
            -(-shared // 64) * 64, -(-per_thread // 64) * 64,
            id(launcher.cls), launcher.storage,
            _HEAD + n, _HEAD + n + outs, len(self.mutated), _HEAD + n + outs + len(self.mutated),
            kinds, *words, mutated,
        )  # fmt: skip
        report = _Report(self, on_error, keep, metas)
        return launcher.new(plan + b"".join(steps), report)


def step_head(address: int, sources: Sequence[int]) -> bytes:
    """The first words of a step; the offset of each word from its source follows."""
    return _words(address, len(sources), *sources)


def _words(*words: int) -> bytes:
    return struct.pack(f"{len(words)}q", *words)


def build(spec: LaunchSpec):
    """A builtin function that does what the spec says.

    It takes as many arguments as ``spec.args`` and returns None, a tensor, or a tuple of tensors.

    Raises:
        UnsupportedError: no tensor class was registered.
        ArgumentError: a word refers to what is not there.
    """
    template = Template(spec.args, len(spec.outputs), spec.mutated, spec.name)
    steps = []
    for step in spec.steps:
        pairs = [_encode(word, template) for word in step.words]
        sources = step_head(step.address, [source for source, _ in pairs])
        steps.append(sources + _words(*(offset for _, offset in pairs)))
    return template.build(
        [x for output in spec.outputs for x in output], steps,
        max((len(s.words) for s in spec.steps), default=0), spec.workspace,
        spec.release_gil, spec.on_error, spec.keep,
    )  # fmt: skip


def _encode(word: tuple, template: Template) -> tuple[int, int]:
    """(source, offset) of one word: its value will be ``values[source] + offset``."""
    kind = word[0]
    if kind == "const":
        return 0, word[1]
    if kind == "f64":
        return 0, struct.unpack("q", struct.pack("d", word[1]))[0]
    if kind in ("work", "thread_work"):
        return template.source(kind), (word[-1] if len(word) > 1 else 0)
    return template.source(kind, word[1]), (word[2] if len(word) > 2 else 0)


def call(address: int, words: Sequence[int | float]) -> int:
    """Run a kernel on a block of words (floats as their bits) and return its status.

    For tests and tools: it costs about a microsecond a call. The GIL is released.
    """
    bits = (struct.pack("d" if isinstance(word, float) else "q", word) for word in words)
    block = ctypes.create_string_buffer(b"".join(bits))
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)(ctypes.addressof(block))
