"""What the compiler hands on: kernels with their parameters bound by name."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

from facula.ir.deferred import Deferred
from facula.ir.loops import Buffer

_digests: WeakKeyDictionary = WeakKeyDictionary()
_kernels: WeakValueDictionary = WeakValueDictionary()


class Machine(NamedTuple):
    """What a kernel's choice may depend on besides sizes. It never changes a bit of a result."""

    vector_bytes: int
    threads: int
    near: int = 1 << 20  # bytes that surely stay in a core's second-level cache


@dataclass
class KernelCall:
    """A kernel and what its parameters are bound to, by name.

    ``kernel`` may be left None: then ``select(sizes, machine)`` gives, when sizes are known, the
    kernel and the values of further size parameters, from the bound sizes by name, and then the
    kernels that other sizes may choose: these are compiled at once, so that no size ever has to.

    Bindings: ("memory", kind, number, byte_offset), ("size", n), ("number", input);
    ``reads`` and ``writes`` are the (kind, number) of memories. ``checks[status - 1]`` is the
    (node, dimension) that a failed check is about. ``group`` is the number of the group of
    ``Compiled.groups`` that it computes (a part of), None for a copy at the end.
    """

    kernel: object
    bindings: dict
    reads: set = field(default_factory=set)
    writes: set = field(default_factory=set)
    checks: list = field(default_factory=list)
    select: Callable | None = None
    group: int | None = None


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


def selected(select, bindings, reads, writes, checks=()) -> KernelCall:
    """A call whose kernel is chosen when the sizes are known."""
    return KernelCall(
        None,
        bindings,
        {(p.kind, p.number) for p in reads},
        {(p.kind, p.number) for p in writes},
        list(checks),
        select,
    )


def call(kernel, bindings, checks=()) -> KernelCall:
    """A kernel call that knows which memories it reads and writes."""
    if not isinstance(kernel, Deferred):  # layers of a network have like kernels: one is kept
        kernel = _kernels.setdefault((kernel.name, digest(kernel)), kernel)
    made = KernelCall(kernel, bindings, checks=list(checks))
    for p in kernel.params:
        if isinstance(p, Buffer) and p.scratch is None:
            where = bindings[p.name][1:3]
            if "r" in p.access:
                made.reads.add(where)
            if "w" in p.access:
                made.writes.add(where)
    return made


def digest(kernel) -> str:
    """A hash of what a kernel is made from."""
    found = _digests.get(kernel)
    if found is None:
        deferred = isinstance(kernel, Deferred)
        made = kernel.made_from if deferred else pickle.dumps((kernel.params, kernel.body), 5)
        found = _digests[kernel] = hashlib.blake2b(made).hexdigest()
    return found
