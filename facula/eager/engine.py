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

from facula import codegen
from facula.base import config
from facula.compiler.calls import Compiled, Machine
from facula.compiler.pipeline import compile_program
from facula.ir import dims
from facula.ir import loops as L
from facula.ir.evaluate_loops import evaluate
from facula.ir.program import Program
from facula.runtime import cache, host, jit, launch, threads

#: Bytes that a call must touch before other Python threads may run meanwhile (tens of µs).
RELEASE_BYTES = 1 << 18

_lock = threading.Lock()
_addresses: dict[str, int] = {}
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
    key = None if config.VERIFY else _text_key(kernel)
    kept = key and cache.get(key)
    text = zlib.decompress(kept).decode() if kept else _emitted(kernel, key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    name = f"{kernel.name}_{digest}"
    return name, text.replace("KERNEL", name)


def _text_key(kernel):
    """The name of a kernel's text in the disk cache: a hash of all that it is made from."""
    source = codegen.fingerprint()
    if source is None:
        return None
    loops = hashlib.blake2b(pickle.dumps((kernel.params, kernel.body), 5)).hexdigest()
    seen = target()
    text = f"{seen.vector_bytes} {seen.arch} {source} {loops}"
    return cache.key(text, host.target(), "text")


def _emitted(kernel, key):
    text = codegen.emit(L.Kernel("KERNEL", kernel.params, kernel.body), target())
    if key is not None:
        cache.put(key, zlib.compress(text.encode(), 1))
    return text


def address_of(kernel: L.Kernel) -> int:
    """Machine code of a kernel; the same text is never compiled or linked twice."""
    global compiled_kernels
    address = _address_of_object.get(kernel)
    if address is None:
        with _lock:
            name, text = kernel_text(kernel)
            if name not in _addresses:
                compiled_kernels += 1
                _addresses[name] = jit.load(text, [name])[name]
            address = _address_of_object[kernel] = _addresses[name]
    return address


def machine() -> Machine:
    """What the choice of kernels may depend on."""
    return Machine(host.target().vector_bytes, threads.get_num_threads())


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
        for call in self.calls:
            if call.kernel is not None:
                address_of(call.kernel)
        carrying = [i for i, lay in enumerate(self.layouts) if lay != "shape"]
        self.argument = {i: a for a, i in enumerate(carrying)}
        self.tensors = [i for i in carrying if not self.inputs[i][2]]
        self.numbers = [i for i in carrying if self.inputs[i][2]]
        fresh = [j for j, t in enumerate(self.into) if t is None]
        self.fresh = {j: f for f, j in enumerate(fresh)}
        self._lifetimes = self._temp_lifetimes()

    def bind(self, symbols, strides, metas, on_error=None):
        """The builtin that runs the program on tensors of these sizes.

        Args:
            symbols: values of the symbols ``s{i}d{d}``.
            strides: per input the strides in elements, or None.
            metas: the Meta of each fresh output.
            on_error: ``(node, dimension, args) -> raises``, for a check that failed.
        """
        sizes = all_sizes(symbols, strides)
        steps, shared, per_thread = self._steps(sizes, self.argument)
        outputs, touched = [], 0
        for (dtype, shape), into in zip(self.compiled.outputs, self.into):
            nbytes = dtype.itemsize * _count(shape, sizes)
            touched += nbytes
            if into is None:
                outputs.append((nbytes, metas[len(outputs)]))
        touched += self._bytes_read(sizes)
        spec = launch.LaunchSpec(
            args=[self._kind(i) for i in self.argument],
            outputs=outputs,
            steps=_launch_steps(steps, per_thread),
            workspace=(shared, per_thread),
            mutated=sorted({self.argument[i] for i in self.into if i is not None}),
            release_gil=touched + shared >= RELEASE_BYTES,
            on_error=self._reporter(on_error),
            name=self.name,
            keep=[(self, sizes)],
        )
        return launch.build(spec)

    def _steps(self, sizes, argument):
        """(address, words) of each kernel, and the bytes of workspace they need."""
        offsets, base = self._place_temps(sizes)
        steps, shared, per_thread = [], base, 0
        for call in self.calls:
            kernel, words, used, thread_used = self._words(call, sizes, offsets, base, argument)
            steps.append((address_of(kernel), words))
            shared, per_thread = max(shared, used), max(per_thread, thread_used)
        return steps, shared, per_thread

    def _bytes_read(self, sizes):
        return sum(
            dtype.itemsize * _count(shape, sizes)
            for (dtype, shape, weak), layout in zip(self.inputs, self.layouts)
            if not weak and layout != "shape"
        )

    def _kind(self, i):
        dtype, _, weak = self.inputs[i]
        if not weak:
            return "tensor"
        return "f64" if dtype.is_floating_point else "i64"

    def _reporter(self, on_error):
        if on_error is None or not any(c.checks for c in self.calls):
            return None

        def report(status, step, args):
            on_error(*self.calls[step].checks[status - 1], args)

        return report

    # Words

    def chosen(self, call, sizes):
        """The kernel of a call for these sizes, and the values of its size parameters."""
        values = {
            name: dims.evaluate(b[1], sizes) for name, b in call.bindings.items() if b[0] == "size"
        }
        kernel = call.kernel
        if kernel is None:
            kernel, more = call.select(values, machine())
            values.update(more)
        return kernel, values

    def _words(self, call, sizes, offsets, shared, argument):
        kernel, values = self.chosen(call, sizes)
        words, thread_offset = [], 0
        for p in kernel.params:
            if isinstance(p, L.Buffer) and p.scratch is not None:
                nbytes = _aligned(p.dtype.itemsize * evaluate(p.scratch, values))
                if p.per_thread:
                    words.append(("thread_work", thread_offset))
                    thread_offset += nbytes
                else:
                    words.append(("work", shared))
                    shared += nbytes
                continue
            binding = call.bindings.get(p.name, ("size",))
            words.append(self._word(binding, values.get(p.name), sizes, offsets, argument))
        return kernel, words, shared, thread_offset

    def _word(self, binding, size, sizes, offsets, argument):
        if binding[0] == "size":
            return ("const", size)
        if binding[0] == "number":
            return ("scalar", argument[binding[1]])
        _, kind, number, offset = binding
        offset = dims.evaluate(offset, sizes)
        if kind == "temp":
            return ("work", offsets[number] + offset)
        if kind == "input":
            return ("arg", argument[number], offset)
        return ("out", self.fresh[number], offset)

    # Temporaries: first fit over the steps in which each is alive

    def _temp_lifetimes(self):
        spans: dict[int, list[int]] = {}
        for step, call in enumerate(self.calls):
            for kind, number in call.reads | call.writes:
                if kind == "temp":
                    spans.setdefault(number, [step, step])[1] = step
        return spans

    def _place_temps(self, sizes):
        placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
        offsets, total = {}, 0
        for number, (first, last) in self._lifetimes.items():
            dtype, count = self.compiled.temps[number]
            nbytes = _aligned(dtype.itemsize * dims.evaluate(count, sizes))
            offset = 0
            for start, end, f, t in sorted(placed):
                if f <= last and first <= t and start < offset + nbytes and offset < end:
                    offset = end
            placed.append((offset, offset + nbytes, first, last))
            offsets[number] = offset
            total = max(total, offset + nbytes)
        return offsets, total


def bind_many(jobs):
    """One builtin that runs several Executables, all of whose outputs go into their inputs.

    Args:
        jobs: (executable, symbols, strides) each. Arguments of the builtin: the tensors of all
            jobs in order, then the numbers, which all jobs share.
    """
    tensors = sum(len(job[0].tensors) for job in jobs)
    steps, mutated, first = [], [], 0
    shared = per_thread = touched = 0
    for executable, symbols, strides in jobs:
        argument = {i: first + k for k, i in enumerate(executable.tensors)}
        argument.update((i, tensors + k) for k, i in enumerate(executable.numbers))
        sizes = all_sizes(symbols, strides)
        own, used, thread_used = executable._steps(sizes, argument)
        steps += own
        shared, per_thread = max(shared, used), max(per_thread, thread_used)
        touched += executable._bytes_read(sizes)
        mutated += {argument[i] for i in executable.into if i is not None}
        first += len(executable.tensors)
    last = jobs[0][0]
    spec = launch.LaunchSpec(
        args=["tensor"] * tensors + [last._kind(i) for i in last.numbers],
        outputs=[],
        steps=_launch_steps(steps, per_thread),
        workspace=(shared, per_thread),
        mutated=sorted(mutated),
        release_gil=touched >= RELEASE_BYTES,
        name=last.name,
        keep=[(executable, all_sizes(symbols, strides)) for executable, symbols, strides in jobs],
    )
    return launch.build(spec)


def all_sizes(symbols, strides) -> dict:
    """The values of all symbols: of sizes, and of the strides of each input."""
    sizes = dict(symbols)
    for i, own in enumerate(strides):
        if own is not None:
            sizes.update((f"t{i}d{d}", s) for d, s in enumerate(own))
    return sizes


def _count(shape, sizes) -> int:
    count = 1
    for n in shape:
        count *= dims.evaluate(n, sizes)
    return count


def _launch_steps(steps, per_thread):
    for _, words in steps:
        if any(word[0] == "thread_work" for word in words):
            words.append(("const", per_thread))  # the kernel's last word: thread_stride
    return [launch.Step(address, words) for address, words in steps]


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // 64) * 64
