"""Engine: a Program made runnable. Joins compiler, codegen and runtime; knows no tensors.

An :class:`Executable` is compiled for one structure (dtypes, ranks, kinds of strides) and any
sizes; :meth:`Executable.bind` gives the builtin function for concrete sizes without compiling.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
import weakref
import zlib
from bisect import bisect_right, insort
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice

from facula import codegen
from facula.base import config
from facula.compiler.calls import Compiled, Machine, digest
from facula.compiler.pipeline import compile_program
from facula.eager.words import Call, aligned, picker
from facula.ir import dims
from facula.ir import loops as L
from facula.ir.deferred import Deferred
from facula.ir.formulas import Formulas
from facula.ir.program import Program
from facula.runtime import cache, host, jit, launch, threads
from facula.runtime.formulas import evaluate

#: Bytes that a call must touch before other Python threads may run meanwhile (tens of µs).
RELEASE_BYTES = 1 << 18
#: Bytes between what two threads write to: the processor fetches ahead what follows what a thread
#: reads and writes, within a page, and would take it from the other thread's cache.
APART = 4096

#: The layers that write the Loops of a deferred kernel.
_WRITERS = ("base", "ops", "derivatives", "kernels", "compiler")

#: Outputs in which a place for a temporary is looked for.
_TRIED = 32

_lock = threading.Lock()
_addresses: dict[str, int] = {}
_names: dict[str, str] = {}  # of kernels whose text is known, by its key
_address_of_object: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
compiled_kernels = 0  # how many kernels this process has emitted, for tests and ``explain``


def target() -> codegen.Target:
    """The code generator's view of this machine."""
    here = host.target()
    return codegen.Target(here.vector_bytes, _arch(here.triple))


def _arch(triple: str) -> str:
    family = triple.split("-")[0]
    return {"x86_64": "x86", "aarch64": "arm", "arm64": "arm"}.get(family, family)


def kernel_text(kernel: L.Kernel) -> tuple[str, str]:
    """(name, LLVM text) of a kernel; the name is made unique by a hash of the text.

    The text is kept in the disk cache, since to emit it again costs as much as all else that a
    new process does before its first result.
    """
    return _named(kernel, _text_key(kernel))


def _named(kernel, key):
    recalled = isinstance(kernel, Deferred) and kernel.text
    text = recalled or (_recalled(key) or [None])[-1] or _emitted(kernel, key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    name = f"{kernel.name}_{digest}"
    return name, text.replace("KERNEL", name)


def _text_key(kernel):
    """The name of a kernel's text in the disk cache: a hash of all that it is made from."""
    source = codegen.fingerprint(*_WRITERS if isinstance(kernel, Deferred) else ())
    if source is None or config.VERIFY:
        return None
    seen = target()
    text = f"{seen.vector_bytes} {seen.arch} {source} {digest(kernel)}"
    return cache.key(text, host.target(), "text")


def _emitted(kernel, key):
    text = codegen.emit(L.Kernel("KERNEL", kernel.params, kernel.body), target())
    if key is not None:
        entry = pickle.dumps((kernel.name, kernel.params, text), 5)
        cache.put(key, zlib.compress(entry, 1))
    return text


def _recalled(key):
    """(name, params, text) of a kernel whose text is kept, or None."""
    kept = key and cache.get(key)
    return pickle.loads(zlib.decompress(kept)) if kept else None


def _recall(kernel: Deferred) -> bool:
    known = _recalled(_text_key(kernel))
    if known:
        kernel.name, kernel.params, kernel.text = known
    return bool(known)


Deferred.recall = staticmethod(_recall)


def address_of(kernel: L.Kernel) -> int:
    """Machine code of a kernel; the same text is never compiled or linked twice."""
    return _address_of_object.get(kernel) or addresses_of([kernel])[0]


def addresses_of(kernels: list, later=()) -> list[int]:
    """Machine code of several: LLVM compiles one while the text of the next is written.

    Args:
        later: kernels that may be wanted some day: compiled too, unless they are in the cache.
    """
    missing = [k for k in kernels if k not in _address_of_object]
    if missing:
        missing += [k for k in later if k not in _address_of_object and not _kept(k)]
        missing = list(dict.fromkeys(missing))
        with _lock, ThreadPoolExecutor(1) as pool:
            loads: dict = {}
            names = [_load(k, pool, loads) for k in missing]
            _addresses.update((name, load()[name]) for name, load in loads.items())
            _address_of_object.update((k, _addresses[name]) for k, name in zip(missing, names))
            for kernel in missing:
                if isinstance(kernel, Deferred):
                    kernel.text = None
    return [_address_of_object[k] for k in kernels]


def _kept(kernel) -> bool:
    """Whether a kernel's text, and so its code, is in the disk cache."""
    key = _text_key(kernel)
    return key in _names or bool(key) and cache.get(key) is not None


def _load(kernel, pool, loads) -> str:
    """The name of a kernel that is loaded or, from now on, being loaded."""
    global compiled_kernels
    key = _text_key(kernel)
    name = _names.get(key)
    if name is None:
        name, text = _named(kernel, key)
        if name not in _addresses and name not in loads:
            compiled_kernels += 1
            loads[name] = jit.begin(text, [name], pool.submit)
        if key is not None:
            _names[key] = name
    return name


def machine() -> Machine:
    """What the choice of kernels may depend on."""
    return _machine(threads.get_num_threads())


@lru_cache(None)
def _machine(threads):
    near = host.cache_sizes().get("L2", 1 << 20) // 2
    return Machine(host.target().vector_bytes, threads, near)


class Executable:
    """A compiled Program.

    Args:
        program: traced, with its guards.
        layouts: per input None (a number), "shape" (no data), "C" (row-major) or a tuple with
            0, 1 or "s" per dimension.
        into: per output None (fresh memory) or the input whose memory it is written to.
    """

    def __init__(self, program: Program, layouts, into=()):
        self.layouts = list(layouts)
        self.into = list(into) + [None] * (len(program.outputs) - len(into))
        self.inputs = [(v.dtype, v.shape, v.weak) for v in program.inputs]
        self.compiled: Compiled = compile_program(program, layouts, self.into)
        self.name = program.name
        self.calls = self.compiled.calls
        carrying = [i for i, lay in enumerate(self.layouts) if lay != "shape"]
        self.argument = {i: a for a, i in enumerate(carrying)}
        self.tensors = [i for i in carrying if not self.inputs[i][2]]
        self.numbers = [i for i in carrying if self.inputs[i][2]]
        fresh = [j for j, t in enumerate(self.into) if t is None]
        self.fresh = {j: f for f, j in enumerate(fresh)}
        self._lifetimes = self._temp_lifetimes()
        mutated = sorted({self.argument[i] for i in self.into if i is not None})
        kinds = [self.kind(i) for i in self.argument]
        self.template = launch.Template(kinds, len(fresh), mutated, self.name)
        self._formulate(fresh)

    def _formulate(self, fresh):
        """Name all numbers that are wanted at new sizes; see ``tensor.words``."""
        formulas, results = Formulas(), self.compiled.outputs
        formulas.want(0)
        outputs = [results[j] for j in fresh]
        self._shapes = [picker([formulas.want(n) for n in shape]) for _, shape in outputs]
        self._nbytes = [formulas.want_product((d.itemsize, *shape)) for d, shape in outputs]
        read = [(d, shape) for i, (d, shape, _) in enumerate(self.inputs) if i in self.tensors]
        touched = sum(d.itemsize * dims.product(shape) for d, shape in [*read, *results])
        self._touched = formulas.want(touched)
        temps = self.compiled.temps
        self._temps = picker([formulas.want_product((d.itemsize, n)) for d, n in temps])
        self._prepared = [Call(call, formulas, address_of) for call in self.calls]
        self._code, self._names = formulas.code(), tuple(formulas.names)
        self._count = len(formulas.results)
        self.checked = any(call.checks for call in self.calls)

    def bind(self, symbols, strides, metas_of, on_error=None):
        """The builtin that runs the program on tensors of these sizes.

        Args:
            symbols: values of the symbols ``s{i}d{d}``.
            strides: per input the strides in elements, or None.
            metas_of: gives the metas of the fresh outputs, of their shapes.
            on_error: ``(node, dimension, args) -> raises``, for a check that failed.
        """
        sizes = all_sizes(symbols, strides)
        values, outputs = self.evaluate(sizes), []
        for place, meta in zip(self._nbytes, metas_of([pick(values) for pick in self._shapes])):
            outputs += (values[place], meta)
        steps, block, workspace, homes = self.steps(values)
        steps = [self._head(form, homes) + form.offsets(row) for form, row in steps]
        touched = values[self._touched] + workspace[0]
        report = self._reporter(on_error) if on_error else None
        return self.template.build(
            outputs, steps, block, workspace,
            touched >= RELEASE_BYTES, report, [(self, sizes)]
        )  # fmt: skip

    def evaluate(self, sizes: dict) -> tuple:
        """The row of all numbers for these values of all symbols."""
        return evaluate(self._code, self._names, sizes)

    def chosen(self, call, sizes):
        """The kernel of one of ``calls`` for these sizes, and its size parameters by name."""
        (prepared,) = (c for c in self._prepared if c.call is call)
        values = self.evaluate(sizes)
        form, named, _ = prepared.choose(values, machine)
        return form.kernel, prepared.named(values) if named is None else named

    def steps(self, values):
        """(form, row of its numbers) of each call, the most words, the bytes of workspace, and in
        which output each temporary is, or None.
        """
        offsets, homes, base = self._place_temps(values) if self._lifetimes else ((), (), 0)
        found, new, later, shared, per_thread, block = [], [], [], base, 0, 0
        for call in self._prepared:
            form, sizes, more = call.choose(values, machine)
            if form.origins is None:
                form.prepare(self._count, len(offsets))
                new.append(form.kernel)
                later += form.others
            row = values + offsets + more
            if form.scratch:
                own, end, thread_end = form.place(values, sizes, base, 0)
                shared, per_thread = max(shared, end), max(per_thread, thread_end)
                row += own
            found.append((form, row))
            block = max(block, len(form.origins))
        addresses_of(new, later)
        per_thread = per_thread and aligned(per_thread) + APART
        steps = [(form, (*row, per_thread) if form.per_thread else row) for form, row in found]
        return steps, block, (shared, per_thread), homes

    def _head(self, form, homes):
        key = tuple([homes[number] for number in form.temps])

        def source(kind, number):
            if kind == "temp":
                kind, number = ("work", 0) if homes[number] is None else ("out", homes[number])
            elif kind == "input":
                kind, number = "arg", self.argument[number]
            elif kind == "output":
                kind, number = "out", self.fresh[number]
            return self.template.source(kind, number)

        if key not in form.heads:
            form.heads[key] = form.head(source)
        return form.heads[key]

    def kind(self, i):
        """The launcher's kind of argument for input ``i``."""
        dtype, _, weak = self.inputs[i]
        if not weak:
            return "tensor"
        return "f64" if dtype.is_floating_point else "i64"

    def _reporter(self, on_error):
        def report(status, step, args):
            on_error(*self.calls[step].checks[status - 1], args)

        return report

    # Temporaries: first fit over the steps in which each is alive. The workspace grows only for
    # those that find no place in an output, such as a gradient, that is not yet written.

    def _temp_lifetimes(self):
        spans: dict[int, list[int]] = {}
        written: dict[int, int] = {}
        for step, call in enumerate(self.calls):
            for kind, number in call.reads | call.writes:
                if kind == "temp":
                    spans.setdefault(number, [step, step])[1] = step
                elif kind == "output" and number in self.fresh:
                    written.setdefault(self.fresh[number], step)
        self._late = sorted((step, f) for f, step in written.items() if step)
        return spans

    def _place_temps(self, values):
        nbytes, room = self._temps(values), [values[place] for place in self._nbytes]
        offsets, homes, total = [0] * len(nbytes), [None] * len(nbytes), 0
        placed: dict = {home: [] for home in (None, *range(len(room)))}
        for number, (first, last) in self._lifetimes.items():
            size, home = aligned(nbytes[number]), None
            offset = _fit(placed[None], size, first, last)
            if offset + size > total:
                at = bisect_right(self._late, (last, len(room)))
                roomy = (f for _, f in self._late[at:] if room[f] >= nbytes[number])
                for f in islice(roomy, _TRIED):
                    other = _fit(placed[f], size, first, last)
                    if other + size <= aligned(room[f]):
                        offset, home = other, f
                        break
                else:
                    total = offset + size
            insort(placed[home], (offset, offset + size, first, last))
            offsets[number], homes[number] = offset, home
        return tuple(offsets), tuple(homes), total


def _fit(placed, size, first, last) -> int:
    """The first offset at which so many bytes are free during these steps.

    Args:
        placed: (offset, end, first step, last step), sorted.
    """
    offset = 0
    for start, end, f, t in placed:
        if f <= last and first <= t and start < offset + size and offset < end:
            offset = end
    return offset


def bind_many(jobs):
    """One builtin that runs several Executables, all of whose outputs go into their inputs.

    Args:
        jobs: (executable, symbols, strides) each. Arguments of the builtin: the tensors of all
            jobs in order, then the numbers, which all jobs share.
    """
    tensors = sum(len(job[0].tensors) for job in jobs)
    last = jobs[0][0]
    mutated, found, keep, first = set(), [], [], 0
    shared = per_thread = touched = block = 0
    for executable, symbols, strides in jobs:
        argument = {i: first + k for k, i in enumerate(executable.tensors)}
        argument.update((i, tensors + k) for k, i in enumerate(executable.numbers))
        sizes = all_sizes(symbols, strides)
        values = executable.evaluate(sizes)
        keep.append((executable, sizes))
        steps, most, (used, thread_used), _ = executable.steps(values)
        found += [(argument, form, row) for form, row in steps]
        shared, per_thread = max(shared, used), max(per_thread, thread_used)
        touched, block = touched + values[executable._touched], max(block, most)
        mutated |= {argument[i] for i in executable.into if i is not None}
        first += len(executable.tensors)
    kinds = ["tensor"] * tensors + [last.kind(i) for i in last.numbers]
    template = launch.Template(kinds, 0, sorted(mutated), last.name)
    words = []
    for argument, form, row in found:
        if form.per_thread:
            row = (*row[:-1], per_thread)

        def source(kind, number, argument=argument):
            own = ("arg", argument[number]) if kind == "input" else (kind, number)
            own = ("work", 0) if kind == "temp" else own
            return template.source(*own)

        words.append(form.head(source) + form.offsets(row))
    release = touched >= RELEASE_BYTES
    return template.build([], words, block, (shared, per_thread), release, None, keep)


def all_sizes(symbols, strides) -> dict:
    """The values of all symbols: of sizes, and of the strides of each input."""
    sizes = dict(symbols)
    for i, own in enumerate(strides):
        if own is not None:
            sizes.update(zip(_stride_names(i, len(own)), own))
    return sizes


@lru_cache(None)
def _stride_names(i, ndim) -> list[str]:
    return [f"t{i}d{d}" for d in range(ndim)]
