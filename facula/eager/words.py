"""Words: from sizes to the blocks of words that a launch gives its kernels.

What does not depend on sizes is prepared once: per :class:`Executable` the formulas of all numbers
that are wanted, per kernel that a call may choose a :class:`Form` that knows where in the row of
numbers each of its words stands. At new sizes what is left is: run the formulas, choose kernels,
place temporaries and scratch, pick and pack.
"""

from __future__ import annotations

import struct
from operator import itemgetter

from facula.ir import loops as L
from facula.ir.formulas import Formulas
from facula.runtime.formulas import evaluate
from facula.runtime.launch import step_head


def aligned(nbytes: int) -> int:
    """Bytes rounded up to whole cache lines, at least one."""
    return -(-max(nbytes, 1) // 64) * 64


def picker(places):
    """A function that gives a tuple of the items of a row at these places."""
    if len(places) > 1:
        return itemgetter(*places)
    if places:
        (only,) = places
        return lambda row: (row[only],)
    return lambda row: ()


#: The place in every row where the number 0 stands.
ZERO = 0


class Call:
    """A kernel call of a compiled Program, prepared.

    Attributes:
        sizes: names of the size parameters, and their places in the row of numbers.
        memory: per buffer its (kind, number) and the place of its byte offset.
    """

    def __init__(self, call, formulas: Formulas, address_of):
        self.call, self.address_of, self.forms = call, address_of, {}
        self.sizes, self.memory, self.numbers = {}, {}, {}
        for name, (kind, *rest) in call.bindings.items():
            if kind == "size":
                self.sizes[name] = formulas.want(rest[0])
            elif kind == "number":
                self.numbers[name] = rest[0]
            else:
                self.memory[name] = (*rest[:2], formulas.want(rest[2]))
        self.pick, self.fixed = picker(list(self.sizes.values())), None
        if call.kernel is not None:
            names = {p.name: call.bindings.get(p.name, (0, 0))[1] for p in call.kernel.params}
            self.fixed = Form(self, call.kernel, (), formulas, names)

    def named(self, values) -> dict:
        """The size parameters by name, for a row of numbers."""
        return dict(zip(self.sizes, self.pick(values)))

    def choose(self, values, machine):
        """(form, sizes by name or None, values of what the choice adds) for a row of numbers."""
        if self.fixed is not None:
            return self.fixed, None, ()
        sizes = self.named(values)
        kernel, more, *others = self.call.select(sizes, machine())
        form = self.forms.get(kernel)
        if form is None:
            form = Form(self, kernel, tuple(more), Formulas(), None)
            form.others = others
            form.finish()
            self.forms[kernel] = form
        sizes.update(more)
        return form, sizes, tuple([more[name] for name in form.more])


class Form:
    """One kernel that a call may choose, and how its block of words is filled.

    A row is: the numbers of all calls, the offsets of temporaries, the values that the choice
    added, the offsets of this kernel's scratch memory, the bytes of a thread's workspace.

    Attributes:
        more: names of the values that the choice adds.
        scratch: per scratch buffer whether each thread has its own.
        per_thread: whether any is.
        others: kernels that the call may choose for other sizes.
    """

    def __init__(self, call: Call, kernel, more, formulas, names):
        self.call, self.kernel, self.more = call, kernel, more
        buffers = [p for p in kernel.params if isinstance(p, L.Buffer) and p.scratch is not None]
        self.scratch = [p.per_thread for p in buffers]
        self.per_thread = any(self.scratch)
        places = [formulas.want(p.scratch, names) for p in buffers]
        self.itemsizes = [p.dtype.itemsize for p in buffers]
        self._own = None if names is not None or not buffers else formulas
        self._pick, self.origins = picker(places), None
        self.heads = {}  # by where its temporaries are
        self.others = ()

    def finish(self):
        """Close the formulas, when all that is wanted has been named."""
        if self._own is not None:
            self._own = self._own.code(), tuple(self._own.names)

    def place(self, values, sizes, shared, thread):
        """(offsets of the scratch buffers, ends of the workspaces) behind these offsets."""
        found = self._pick(values if self._own is None else evaluate(*self._own, sizes))
        offsets = []
        for count, itemsize, per_thread in zip(found, self.itemsizes, self.scratch):
            nbytes = aligned(itemsize * count)
            offsets.append(thread if per_thread else shared)
            if per_thread:
                thread += nbytes
            else:
                shared += nbytes
        return tuple(offsets), shared, thread

    def prepare(self, numbers: int, temps: int) -> None:
        """Say where each word comes from: at the first use, when the row's length is known."""
        first_scratch = numbers + temps + len(self.more)
        added = {name: numbers + temps + i for i, name in enumerate(self.more)}
        words, sums, temps = [], [], []  # words: (what it is an offset from, place in the row)
        scratch = iter(range(first_scratch, first_scratch + len(self.scratch)))
        call, end = self.call, first_scratch + len(self.scratch)
        for p in self.kernel.params:
            if isinstance(p, L.Buffer) and p.scratch is not None:
                words.append((("thread_work" if p.per_thread else "work", 0), next(scratch)))
            elif p.name in call.numbers:
                words.append((("input", call.numbers[p.name]), ZERO))
            elif p.name not in call.memory:
                place = added[p.name] if p.name in added else call.sizes[p.name]
                words.append((("const", 0), place))
            elif call.memory[p.name][0] == "temp":
                _, number, offset = call.memory[p.name]
                words.append((("temp", number), None))
                temps.append(number)
                sums.append((numbers + number, offset))
            else:
                *origin, offset = call.memory[p.name]
                words.append((tuple(origin), offset))
        if self.per_thread:
            words.append((("const", 0), end))  # the last word: the bytes of a thread's workspace
            end += 1
        summed = iter(range(end, end + len(sums)))
        places = [next(summed) if place is None else place for _, place in words]
        self.pack = struct.Struct(f"{len(places)}q").pack
        self.sums, self.temps, self.picked = sums, temps, picker(places)
        self.origins = [origin for origin, _ in words]  # Last: who sees it, sees all the rest.

    def head(self, source) -> bytes:
        """The first words of the step; ``source(kind, number)`` numbers what words come from."""
        sources = [source(*origin) for origin in self.origins]
        return step_head(self.call.address_of(self.kernel), sources)

    def offsets(self, row) -> bytes:
        """The other words of the step, for a whole row."""
        if self.sums:
            row += tuple([row[a] + row[b] for a, b in self.sums])
        return self.pack(*self.picked(row))
