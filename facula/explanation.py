"""What becomes of a call: ``facula.explain`` shows every stage, from the graph to the assembly.

(The file is not named after the function, because an import of a module sets the package's
attribute of that name.)
"""

from __future__ import annotations

from functools import cached_property

from facula.base.errors import ArgumentTypeError, fail
from facula.eager import engine
from facula.eager.capture import Trace
from facula.eager.events import roll_back
from facula.eager.failures import user_line
from facula.eager.replay import Entry, tensors_and_numbers
from facula.eager.structures import flatten
from facula.eager.tensor import Tensor
from facula.eager.tracing import symbols_of
from facula.ir import dims, print_loops
from facula.ir import loops as L
from facula.ir.evaluate_loops import evaluate
from facula.ops.movement import contiguous_strides
from facula.profiler.costs import costs_of, nodes_of
from facula.runtime import jit


def explain(fn, *args, **kwargs) -> Explanation:
    """Every stage of the call ``fn(*args, **kwargs)`` as one captured Program; nothing is run.

    What is shown is what ``facula.compile(fn)`` runs, and for an op what an ordinary call of it
    runs (which gives a view where it can, and then runs no kernel).

    Args:
        fn: an op, a function of tensors, or a module. What ``facula.compile`` made is seen
            through.
        args, kwargs: as for ``fn``; sizes and strides decide which kernels are chosen.

    Returns:
        an :class:`Explanation`. ``print`` shows programs, groups and loops; ``kernels[i].llvm``
        and ``kernels[i].assembly`` the rest. Where the function cannot be captured, ``reason``
        says why and ``where`` names the line; ``program`` is what was recorded until then.

    >>> import facula
    >>> e = facula.explain(facula.softmax, facula.ones(8, 100), dim=-1)
    >>> len(e.kernels), e.kernels[0].bytes_moved
    (1, 6400)
    >>> facula.explain(lambda x: x if x.sum() > 0 else -x, facula.ones(3)).reason[:55]
    'compile: the function needs the elements of a tensor (i'
    """
    if not callable(fn):
        fail(ArgumentTypeError, "explain", f"expected a function or module, got {type(fn)}")
    leaves: list = []
    structure = flatten((args, kwargs), leaves)
    trace = Trace(getattr(fn, "__name__", type(fn).__name__))
    try:
        entry = Entry(fn, structure, leaves, trace)
    except Exception as error:
        # Whatever goes wrong is the answer to the question; the traceback tells the user's line.
        explanation = Explanation(trace.program, reason=_reason(error), where=user_line(error))
        pieces = getattr(getattr(fn, "captured", None), "pieces", None)
        explanation.cuts = dict(pieces.cuts) if pieces else {}
        return explanation
    roll_back(trace.undo)
    explanation = _explained(entry, entry.everything(tensors_and_numbers(leaves)))
    explanation.captures = list(getattr(getattr(fn, "captured", None), "reasons", ()))
    return explanation


def _reason(error) -> str:
    text = str(error) or "no message"
    return text if text.startswith("compile:") else f"{type(error).__name__}: {text}"


def _explained(entry, everything):
    """The stages for the tensors at hand, with those of the derivative if one is wanted."""
    routine, backward = entry.routine, None
    program, into = routine.program, routine.into
    symbols = symbols_of(everything)
    metas = [x._meta if isinstance(x, Tensor) else None for x in everything]
    wrt = tuple(i for i, m in enumerate(metas) if m is not None and m.requires_grad)
    if entry.records and wrt:
        variant = routine.record(wrt, symbols)
        if variant.given and variant.error is None:
            routine = variant.routine
            derived, _, derivative = variant.backward(variant.given)
            layouts, strides = _backward_layouts(derived.program, derivative, metas, symbols)
            backward = Stages(derived.program, (), layouts, strides, symbols)
    layouts = [m and m.layout for m in metas]
    strides = [m and m.strides for m in metas]
    forward = Stages(routine.program, into, layouts, strides, symbols)
    return Explanation(program, forward, backward)


def _backward_layouts(program, derivative, metas, symbols):
    """Layouts and strides of a backward Program's inputs, as the tape gives them."""
    layouts, strides = [], []
    for source, v in zip(derivative.sources, program.inputs):
        if source[0] == "input":
            m = metas[source[1]]
            layouts.append(m and (m.layout if source[2] else "shape"))
            strides.append(m and (m.strides if source[2] else None))
        else:
            layouts.append("C")
            strides.append(contiguous_strides([dims.evaluate(n, symbols) for n in v.shape]))
    return layouts, strides


#: Columns of a line of loops; an expression of many operations is cut there.
WIDTH = 200


class Kernel:
    """One kernel of a call, for the sizes at hand.

    Attributes:
        name: as in LLVM text and in profiles.
        loops: its text in the Loops language.
        bindings: per parameter what it is given, as text.
        cost: bytes moved and operations done, as profilers count them.
        group: number of the fused group that it computes; None for a copy at the end.
    """

    def __init__(self, call, cost, kernel, values, stages):
        self.group, self.cost, self._kernel = call.group, cost, kernel
        self.loops = print_loops.text(kernel)
        self.bindings = {p.name: _binding(p, call, values, stages) for p in kernel.params}

    @cached_property
    def _text(self):
        return engine.kernel_text(self._kernel)

    @property
    def name(self) -> str:
        return self._text[0]

    @property
    def llvm(self) -> str:
        """The LLVM text."""
        return self._text[1]

    @cached_property
    def assembly(self) -> str:
        """The assembly for this machine."""
        return jit.assembly(self.llvm)

    @property
    def bytes_moved(self) -> int:
        return self.cost.bytes

    def __str__(self):
        head, *body = (
            line if len(line) <= WIDTH else line[:WIDTH] + " ..."
            for line in self.loops.splitlines()
        )
        cost = self.cost
        moved = f"  reads {cost.reads:,} bytes, writes {cost.writes:,}; {cost.flops:,} operations"
        bound = (f"  {name} = {what}" for name, what in self.bindings.items())
        return "\n".join([head, moved, *bound, *body])


def _binding(p, call, values, stages) -> str:
    if isinstance(p, L.Buffer) and p.scratch is not None:
        per = " for each thread" if p.per_thread else ""
        return f"{p.dtype.itemsize * evaluate(p.scratch, values):,} bytes of scratch{per}"
    kind, *rest = call.bindings.get(p.name, ("size", None))
    if kind == "size":
        chosen = rest[0] is None or isinstance(rest[0], int)
        return str(values[p.name]) if chosen else f"{rest[0]} = {values[p.name]}"
    if kind == "number":
        return f"number {rest[0]}"
    where, number, offset = rest
    offset = dims.evaluate(offset, stages.sizes)
    return f"{where} {number}" + (f" + {offset} bytes" if offset else "")


class Group:
    """Nodes that one kernel computes (or, for those written by hand, a few kernels).

    Attributes:
        nodes: all nodes computed; a cheap one that several groups need is in each.
        roots: the values that get memory.
    """

    def __init__(self, number, group, order):
        self.number, self.opaque = number, group.opaque is not None
        self.roots = list(group.roots)
        self.nodes = sorted(nodes_of(group), key=order.__getitem__)

    def __str__(self):
        kind = "written by hand" if self.opaque else "fused"
        ops = ", ".join(node.op.name for node in self.nodes)
        roots = ", ".join(f"{v.node.op.name} {v.dtype.name}{list(v.shape)}" for v in self.roots)
        return f"group {self.number} ({kind}): {ops}\n  gives {roots}"


class Stages:
    """A Program, and what the compiler made of it.

    Attributes:
        program: as traced. ``optimized``: after the passes.
        groups, kernels: see there.
        temporaries: bytes of memory between kernels, as (dtype, bytes) each.
    """

    def __init__(self, program, into, layouts, strides, symbols):
        self.program, self.sizes = program, engine.all_sizes(symbols, strides)
        self.optimized, self.groups, self.kernels, self.temporaries = program, [], [], []
        if not program.outputs:
            return
        executable = engine.Executable(program, layouts, into)
        compiled = executable.compiled
        self._into, self.optimized = executable.into, compiled.program
        order = {node: k for k, node in enumerate(compiled.program.nodes)}
        self.groups = [Group(i, g, order) for i, g in enumerate(compiled.groups)]
        self.temporaries = [
            (dtype, dtype.itemsize * dims.evaluate(count, self.sizes))
            for dtype, count in compiled.temps
        ]
        costs = costs_of([(executable, self.sizes)])
        self.kernels = [
            Kernel(call, cost, *executable.chosen(call, self.sizes), self)
            for call, cost in zip(compiled.calls, costs)
        ]

    @property
    def bytes_moved(self) -> int:
        return sum(k.bytes_moved for k in self.kernels)

    def __str__(self):
        between = sum(n for _, n in self.temporaries)
        parts = [
            "traced:",
            str(self.program),
            "after the passes:",
            str(self.optimized),
            f"kernels: {len(self.kernels)}, which move {self.bytes_moved:,} bytes; "
            f"temporaries: {len(self.temporaries)}, of {between:,} bytes",
        ]
        for group in self.groups:
            parts += [str(group), *(str(k) for k in self.kernels if k.group == group.number)]
        parts += [str(k) for k in self.kernels if k.group is None]
        return "\n\n".join(parts)


class Explanation:
    """What :func:`explain` found.

    Attributes:
        program: as captured; incomplete where ``reason`` is not None.
        forward, backward: :class:`Stages`. Where gradients are wanted the forward also gives
            what the backward needs; otherwise ``backward`` is None.
        reason, where: why the function cannot be captured, and the line; else None.
        captures: of what ``facula.compile`` made, why each of its captures was made so far.
        cuts: of what runs in pieces, the line of each cut so far -> what was cut there.
    """

    def __init__(self, program, forward=None, backward=None, reason=None, where=None):
        self.program, self.forward, self.backward = program, forward, backward
        self.reason, self.where, self.captures, self.cuts = reason, where, [], {}

    @property
    def optimized(self):
        """The forward program after the passes."""
        return self.forward and self.forward.optimized

    @property
    def groups(self) -> list[Group]:
        return self.forward.groups if self.forward else []

    @property
    def kernels(self) -> list[Kernel]:
        """All kernels, those of the backward last."""
        return [k for s in (self.forward, self.backward) if s for k in s.kernels]

    @property
    def temporaries(self) -> list:
        return [t for s in (self.forward, self.backward) if s for t in s.temporaries]

    @property
    def bytes_moved(self) -> int:
        return sum(k.bytes_moved for k in self.kernels)

    def __str__(self):
        if self.reason is not None:
            place = f"\nat {self.where}" if self.where else ""
            cuts = "".join(f"\n{line}: {what}" for line, what in self.cuts.items())
            return (
                f"not captured: {self.reason}{place}\n\nrecorded until then:\n"
                f"{self.program}\n\nfacula.compile runs such a function in pieces{cuts}"
            )
        parts = [f"capture {k}: {why}" for k, why in enumerate(self.captures, 1)]
        parts.append(str(self.forward))
        if self.backward is not None:
            parts += ["== backward", str(self.backward)]
        return "\n\n".join(parts)

    __repr__ = __str__
