"""ExportedProgram: a Program with its weights, callable, without the code that it came from."""

from __future__ import annotations

import threading

from facula.base.errors import ArgumentTypeError, DtypeError, ShapeError, fail
from facula.eager import plans
from facula.eager.tensor import Tensor
from facula.eager.tracing import Routine
from facula.export import structure
from facula.export.write import save
from facula.ir import dims
from facula.ir.dims import Dim

#: Plans for different sizes that one program keeps; beyond, the oldest goes.
MOST_PLANS = 256
#: More bytes than any machine has: sizes whose product would overflow on the way there.
MOST_ELEMENTS = 1 << 47


class TensorSpec:
    """An input or output.

    Attributes:
        name: the name.
        dtype: the element type.
        sizes: ints and symbolic sizes.
    """

    __slots__ = ("name", "dtype", "sizes")

    def __init__(self, name: str, dtype, sizes: tuple):
        self.name, self.dtype, self.sizes = name, dtype, sizes

    @property
    def shape(self) -> tuple:
        """The sizes, None where one may change."""
        return tuple(n if isinstance(n, int) else None for n in self.sizes)

    @property
    def dims(self) -> tuple:
        """The sizes, one that may change as text: its name, or what it is computed by."""
        return tuple(n if isinstance(n, int) else str(n) for n in self.sizes)

    def __repr__(self):
        return f"{self.name}: {self.dtype.name}[{', '.join(map(str, self.sizes))}]"


class ExportedProgram:
    """What :func:`facula.export.export` and :func:`facula.export.load` give.

    Attributes:
        program: the ``ir.program.Program``; its inputs are ``inputs``, then ``state_dict``.
        inputs, outputs: a :class:`TensorSpec` each.
        state_dict: captured tensors by name, in the order of the Program's inputs.
        arguments, results: descriptions of the nested arguments and results.
    """

    def __init__(self, program, inputs, outputs, state, arguments, results):
        self.program, self.inputs, self.outputs = program, inputs, outputs
        self.state_dict, self.arguments, self.results = state, arguments, results
        # A size that was not 1 may be 1 at a call, as a symbol may: nothing was broadcast for it.
        for question in [g for g in program.guards if g[::2] == ("eq", 1)]:
            if program.guards[question] is False:
                del program.guards[question]
        self._routine = Routine(program)
        self._plans: dict = {}
        self._lock = threading.Lock()

    def __call__(self, *args, **kwargs):
        """The results for these arguments, given as the exported function took them.

        Raises:
            ArgumentTypeError: arguments of another structure.
            DtypeError, ShapeError: tensors that do not fit the specifications.
        """
        names = list(self.arguments)
        if len(args) > len(names):
            fail(ArgumentTypeError, "export", f"{len(args)} arguments, at most {len(names)}")
        given = dict(zip(names, args))
        if set(given) & set(kwargs) or set(kwargs) - set(names):
            fail(ArgumentTypeError, "export", f"unknown or repeated arguments: {sorted(kwargs)}, "
                 f"expected {names}")  # fmt: skip
        given.update(kwargs)
        found: dict[int, Tensor] = {}
        for name, description in self.arguments.items():
            if name in given:
                structure.match(description, given[name], found, name)
        for i, spec in enumerate(self.inputs):
            if i not in found:
                fail(ArgumentTypeError, "export", f"the argument with {spec.name!r} is missing")
        return structure.fill(self.results, self.run([found[i] for i in range(len(self.inputs))]))

    def run(self, tensors) -> tuple:
        """All outputs for all inputs, in the order of their specifications."""
        if len(tensors) != len(self.inputs):
            fail(ArgumentTypeError, "export", f"{len(tensors)} inputs, not {len(self.inputs)}")
        tensors = [t if t._meta.contiguous else t.contiguous() for t in tensors]
        key = tuple((t._meta.shape, t._meta.dtype) for t in tensors)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(key, tensors)
        results = plan(*tensors, *self.state_dict.values())
        return results if isinstance(results, tuple) else (results,)

    def _plan(self, key, tensors):
        symbols = self.symbols(tensors)
        self._check_sizes(symbols)
        metas = [t._meta.with_grad(False) for t in (*tensors, *self.state_dict.values())]
        with self._lock:
            bound = plans.bind(self._routine, symbols, metas)
            while len(self._plans) >= MOST_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan = _ordered(bound)
        return plan

    def symbols(self, tensors) -> dict[str, int]:
        """The values of the symbolic sizes for these inputs.

        Raises:
            DtypeError, ShapeError: a tensor that does not fit its specification, or sizes for
                which what was captured does not hold.
        """
        symbols: dict[str, int] = {}
        for t, spec in zip(tensors, self.inputs):
            if t.dtype is not spec.dtype:
                fail(DtypeError, "export", f"input {spec.name!r} is {t.dtype.name}, "
                     f"expected {spec.dtype.name}")  # fmt: skip
            fits = t.ndim == len(spec.sizes)
            for n, m in zip(spec.sizes, t.shape):
                value = symbols.setdefault(str(n), m) if isinstance(n, Dim) else n
                fits = fits and value == m
            if not fits:
                fail(ShapeError, "export", f"input {spec.name!r} has shape {list(t.shape)}, "
                     f"expected [{', '.join(map(str, spec.dims))}] with {symbols}")  # fmt: skip
        if not self.program.guards.hold(symbols):
            self._explain(symbols)
        return symbols

    def _explain(self, symbols):
        """Raise the error that tells which assumption of the capture does not hold."""
        words = {"eq": ("==", "!="), "lt": ("<", ">=")}
        for (question, a, b), answer in self.program.guards.items():
            x, y = dims.evaluate(a, symbols), dims.evaluate(b, symbols)
            if (x == y if question == "eq" else x < y) != answer:
                rule = f"{a} {words[question][not answer]} {b}"
                fail(ShapeError, "export", f"captured for sizes with {rule}, got {symbols}")

    def _check_sizes(self, symbols):
        for node in self.program.nodes:
            for v in node.outputs:
                count = 1
                for n in v.shape:
                    size = dims.evaluate(n, symbols)
                    if size < 0:
                        fail(ShapeError, "export", f"{node.op.name}: a size would be {size}")
                    count *= max(size, 1)
                if count > MOST_ELEMENTS:
                    fail(ShapeError, "export", f"{node.op.name}: {count} elements are too many")

    def module(self) -> ExportedProgram:
        """What is called: the program itself (PyTorch makes a module of it first)."""
        return self

    def save(self, path) -> None:
        """Write an archive: see :func:`facula.export.save`."""
        save(self, path)

    def __repr__(self):
        ins, outs = (", ".join(map(repr, specs)) for specs in (self.inputs, self.outputs))
        return f"ExportedProgram({ins}) -> ({outs}), {len(self.program.nodes)} nodes"


def _ordered(bound):
    """The builtin itself; only where outputs are one value, its results repeated."""
    where = [j for kind, j in bound.items]
    if where == list(range(bound.computed)):
        return bound.launch

    def plan(*tensors):
        results = bound.launch(*tensors)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(results[j] for j in where)

    return plan
