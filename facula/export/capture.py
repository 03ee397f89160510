"""From a function or a module to an :class:`ExportedProgram`: captured once, without gradients."""

from __future__ import annotations

import inspect
from contextlib import contextmanager

from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.compiler.simplify import simplify
from facula.eager.capture import Trace, capturing
from facula.eager.tensor import Tensor
from facula.export import structure
from facula.export.dynamic import Symbols, wishes
from facula.export.errors import ExportError
from facula.export.program import ExportedProgram, TensorSpec
from facula.ir import dims
from facula.ops.pointwise import copy_
from facula.tensor import no_grad


def export(
    mod,
    args=(),
    kwargs=None,
    *,
    dynamic_shapes=None,
    input_names=None,
    output_names=None,
    strict=False,
) -> ExportedProgram:
    """Capture a function or module as a Program that needs none of its Python code.

    A module is captured in evaluation mode, and is given back in the mode it was in. Weights stay
    the module's own memory until the result is saved.

    Args:
        mod: a module or a function of tensors.
        args, kwargs: example arguments; numbers and texts among them become constants.
        dynamic_shapes: what may change of the inputs' sizes: per argument (a dict by parameter
            name, or a sequence in the order of ``args``) None, ``{dimension: name or True or
            Dim}``, or a sequence with one of these a dimension. Equal names are equal sizes.
        input_names, output_names: names of all tensors that go in and come out, in order; by
            default the parameters' names, and ``output``.
        strict: accepted for PyTorch's sake.

    Raises:
        ExportError: the function draws random numbers, changes tensors that it did not make, or
            returns no tensor.
        CaptureError: it needs the elements of a tensor while it is captured.

    >>> import facula
    >>> model = facula.nn.Linear(3, 2)
    >>> program = export(model, (facula.ones(4, 3),), dynamic_shapes=({0: "batch"},))
    >>> program.inputs[0].shape, program.outputs[0].dims
    ((None, 3), ('batch', 2))
    >>> program(facula.ones(7, 3)).shape
    facula.Size([7, 2])
    """
    if not callable(mod):
        fail(ArgumentTypeError, "export", f"expected a module or function, got {type(mod)}")
    arguments = _named(mod, args, kwargs or {})
    tensors: list[Tensor] = []
    described = {k: structure.describe(x, tensors) for k, x in arguments.items()}
    sizes, symbols = _sizes(arguments, dynamic_shapes, tensors)
    trace = _Trace(getattr(mod, "__name__", type(mod).__name__))
    with _evaluating(mod), no_grad(), capturing(trace):
        entered = [trace.enter(x, shape) for x, shape in zip(tensors, sizes)]
        positional = [structure.fill(described[k], entered) for k in list(arguments)[: len(args)]]
        named = {k: structure.fill(described[k], entered) for k in list(arguments)[len(args) :]}
        result = mod(*positional, **named)
        returned: list[Tensor] = []
        outcome = structure.describe(result, returned)
        _ask_bounds(symbols)
        program = _finished(trace, returned)
    return ExportedProgram(
        program,
        _specs("input", program.inputs, input_names, _default_inputs(described)),
        _specs("output", program.outputs, output_names, _default_outputs(len(returned))),
        _state(mod, trace.captured),
        described,
        outcome,
    )


class _Trace(Trace):
    """A trace in which sizes are known, except those asked to be dynamic."""

    def enter(self, x, shape):
        """A stand-in for an example argument."""
        return self.wrap(self.program.input(x.dtype, shape), False)

    def _input(self, x, *windows):
        return self.program.input(x.dtype, tuple(x.shape))


def _named(mod, args, kwargs):
    """The arguments by the names of their parameters, in the order in which they were given."""
    function = mod.forward if hasattr(mod, "_modules") else mod
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    if isinstance(args, Tensor):
        args = (args,)
    found = {}
    for i, x in enumerate(args):
        found[names[i] if i < len(names) else f"{more}_{i - len(names)}"] = x
    return {**found, **kwargs}


def _sizes(arguments, dynamic_shapes, tensors):
    """The shape of each tensor, with symbols in it, and the symbols."""
    spec = dynamic_shapes
    if isinstance(spec, (tuple, list)):
        if len(spec) > len(arguments):
            fail(ArgumentError, "export", f"dynamic_shapes for {len(spec)} arguments, "
                 f"got {len(arguments)}")  # fmt: skip
        spec = dict(zip(arguments, spec))
    unknown = set(spec or ()) - set(arguments)
    if unknown:
        fail(
            ArgumentError,
            "export",
            f"dynamic_shapes names {sorted(unknown)}, arguments are {list(arguments)}",
        )
    found: list[dict] = []
    wishes(arguments, spec, found)
    symbols = Symbols()
    shapes = [
        tuple(symbols.of(wish.get(d), i, d, n) for d, n in enumerate(x.shape))
        for i, (x, wish) in enumerate(zip(tensors, found))
    ]
    return shapes, symbols


def _ask_bounds(symbols):
    """Record the bounds of dynamic sizes among the guards."""
    for symbol, wish in symbols.bounds:
        low, high = wish.min, wish.max
        if low is not None and symbol < low or high is not None and symbol > high:
            fail(
                ArgumentError,
                "export",
                f"the size {wish.name!r} is {dims.hint(symbol)}, outside of {low} to {high}",
            )


def _finished(trace, returned):
    """The trace's Program, with what was returned as outputs, simplified."""
    if trace.seed is not None:
        fail(
            ExportError,
            "export",
            "the function draws random numbers, which an export cannot do",
            "pass the noise as an input; dropout is left out in evaluation mode",
        )
    if trace.mutated:
        shapes = [tuple(t.shape) for t in trace.mutated]
        fail(
            ExportError,
            "export",
            f"the function changes tensors that it did not make, of shapes {shapes}",
            "return the new values instead",
        )
    if not returned:
        fail(ExportError, "export", "the function returns no tensor")
    values = [trace.lift(x) for x in returned]
    program = trace.program
    # An output is memory of its own, also where the function hands an input through.
    program.outputs = [copy_(v) if v.node is None else v for v in values]
    guards = program.guards
    _refuse_fixed(guards)
    program = simplify(program)
    program.guards.update(guards)
    return program


def _refuse_fixed(guards):
    """Refuse a size that was asked to be dynamic, but for which only one value would do."""
    for (question, a, b), answer in guards.items():
        n, other = (b, a) if isinstance(a, int) else (a, b)
        if question == "eq" and answer and isinstance(other, int) and n.is_symbol:
            fail(
                ExportError,
                "export",
                f"the size {str(n)!r} was asked to be dynamic, but the function needs it to be "
                f"{other}",
                "leave it static, or write the function without int(size)",
            )


@contextmanager
def _evaluating(mod):
    """A module in evaluation mode inside of the block, every submodule's mode put back after."""
    modules = list(mod.modules()) if hasattr(mod, "_modules") else []
    modes = [m.training for m in modules]
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        for m, training in zip(modules, modes):
            m.training = training


def _state(mod, captured):
    """Captured tensors by name: a module's own, or ``constant_0`` and so on."""
    known: dict[int, str] = {}
    if hasattr(mod, "_modules"):
        for found in (mod.named_parameters, mod.named_buffers):
            for name, t in found():
                known.setdefault(id(t), name)
    state, count = {}, 0
    for t in captured:
        name = known.get(id(t))
        if name is None:
            name, count = f"constant_{count}", count + 1
        state[name] = t.detach()
    return state


def _default_inputs(described):
    """A name for every tensor of the arguments: the parameter's, with numbers where it has many."""
    names: list[str] = []

    def walk(description, name):
        ((kind, what),) = description.items()
        if kind == "tensor":
            names.append(name)
        elif kind == "dict":
            for k, x in what.items():
                walk(x, f"{name}_{k}")
        elif kind != "value":
            for i, x in enumerate(what):
                walk(x, f"{name}_{i}")

    for k, description in described.items():
        walk(description, k)
    return names


def _default_outputs(count):
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def _specs(what, values, names, default):
    """Specifications of inputs or outputs; the state follows the inputs and is not counted."""
    names = list(default if names is None else names)
    if len(names) != len(default) or len(set(names)) != len(names):
        fail(
            ArgumentError,
            "export",
            f"expected {len(default)} different {what} names, got {names}",
        )
    return tuple(TensorSpec(n, v.dtype, tuple(v.shape)) for n, v in zip(names, values))
