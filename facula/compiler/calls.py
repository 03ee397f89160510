"""What the compiler hands on: kernels with their parameters bound by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from facula.ir.loops import Buffer


@dataclass
class KernelCall:
    """A kernel and what its parameters are bound to, by name.

    Bindings: ("memory", kind, number, byte_offset), ("size", n), ("number", input);
    ``reads`` and ``writes`` are the (kind, number) of memories. ``checks[status - 1]`` is the
    (node, dimension) that a failed check is about.
    """

    kernel: object
    bindings: dict
    reads: set = field(default_factory=set)
    writes: set = field(default_factory=set)
    checks: list = field(default_factory=list)


@dataclass
class Compiled:
    """Kernels in order, and the memory between them.

    Attributes:
        calls: the kernels.
        temps: (dtype, number of elements) of each temporary.
        outputs: (dtype, shape) of each output.
        program, groups: what was compiled, for ``explain``.
    """

    calls: list
    temps: list
    outputs: list
    program: object
    groups: list


def memory(place) -> tuple:
    """The binding of a buffer to a place."""
    return ("memory", place.kind, place.number, place.offset * place.dtype.itemsize)


def call(kernel, bindings, checks=()) -> KernelCall:
    """A kernel call that knows which memories it reads and writes."""
    made = KernelCall(kernel, bindings, checks=list(checks))
    for p in kernel.params:
        if isinstance(p, Buffer) and p.scratch is None:
            where = bindings[p.name][1:3]
            if "r" in p.access:
                made.reads.add(where)
            if "w" in p.access:
                made.writes.add(where)
    return made
