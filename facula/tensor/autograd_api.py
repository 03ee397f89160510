"""``backward`` and ``grad``: running the tape."""

from __future__ import annotations

from facula.base.errors import ArgumentTypeError, AutogradError, fail
from facula.eager import tape
from facula.eager.grad_mode import capture, mode
from facula.eager.tensor import Tensor, describe
from facula.library import F
from facula.tensor import memory


def _sequence(x):
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _seeds(name, outputs, grads):
    """The cotangent to start with for each output."""
    if grads is None:
        grads = (None,) * len(outputs)
    if len(grads) != len(outputs):
        fail(AutogradError, name, f"got {len(outputs)} tensors and {len(grads)} gradients")
    seeds = []
    for y, g in zip(outputs, grads):
        if not isinstance(y, Tensor):
            fail(ArgumentTypeError, name, f"expected tensors, got {type(y).__name__}")
        if g is None:
            if not y._meta.requires_grad:
                seeds.append(None)
                continue
            if y._meta.numel != 1:
                fail(
                    AutogradError,
                    name,
                    "grad can be implicitly created only for scalar outputs",
                    "pass gradient=... of the shape of the output, or sum() it first",
                )
            g = _one(y)
        elif not isinstance(g, Tensor):
            fail(
                ArgumentTypeError,
                name,
                f"gradients can be either Tensors or None, but got {type(g).__name__}",
            )
        elif g._meta.shape != y._meta.shape:
            fail(
                AutogradError,
                name,
                f"Mismatch in shape: grad_output has a shape of "
                f"{list(g._meta.shape)} and output has a shape of {list(y._meta.shape)}.",
            )
        elif g._meta.dtype is not y._meta.dtype:
            fail(AutogradError, name, f"gradient is {describe(g)}, the output {describe(y)}")
        seeds.append(g)
    return seeds


#: Meta of a scalar -> the 1 that backward starts with. Whoever changes it gets another made.
_ones: dict = {}


def _one(y):
    own = y._meta.with_grad(False)
    if capture.trace is not None:
        return capture.trace.fresh(own.shape, own.dtype, 1)
    one = _ones.get(own)
    if one is None or one._storage.version != 1 or one._meta is not own:
        recording, mode.grad = mode.grad, False
        try:
            one = memory.allocate(own).fill_(1)
        finally:
            mode.grad = recording
        if len(_ones) > 64:
            _ones.clear()
        if own.contiguous:
            _ones[own] = one
    return one


def _run(name, outputs, seeds, task, create_graph):
    recording = mode.grad
    for y, g in zip(outputs, seeds):
        if g is None or not y._meta.requires_grad:
            fail(
                AutogradError,
                name,
                "element 0 of tensors does not require grad and does not have a grad_fn",
            )
    mode.grad = mode.recording if create_graph else False
    try:
        for y, g in zip(outputs, seeds):
            target, number = tape.edge(y)
            task.send(target, number, g, False)
        task.run()
    finally:
        mode.grad = recording


def backward(
    tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None
) -> None:
    """Add the gradients of ``tensors`` to the ``grad`` of the leaves they were computed from.

    Args:
        tensors: a tensor or several.
        grad_tensors: their cotangents; may be left out for tensors of one element.
        retain_graph: keep what was saved, so that backward can run again; as ``create_graph``.
        create_graph: record the computation, so that gradients can be differentiated.
        inputs: only into the ``grad`` of these.

    Raises:
        RuntimeError: nothing requires grad, the graph was freed, a saved tensor was changed.
    """
    if capture.trace is not None and capture.trace.cuts:
        given = tensors, grad_tensors, retain_graph, create_graph, inputs
        return capture.trace.apart(backward, given)
    outputs = _sequence(tensors)
    grads = None if grad_tensors is None else _sequence(grad_tensors)
    seeds = _seeds("backward", outputs, grads)
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        _run("backward", outputs, seeds, tape.Task(keep), create_graph)
        return
    wanted = _sequence(inputs)
    if not wanted:
        fail(AutogradError, "backward", "'inputs' argument to backward() cannot be empty.")
    found = _captured("backward", outputs, seeds, wanted, keep, create_graph)
    recording, mode.grad = mode.grad, mode.recording if create_graph else False
    try:
        for x, g in zip(wanted, found):
            if g is not None:
                tape.accumulate(x, g, False) if x._grad_fn is None else _keep(x, g)
    finally:
        mode.grad = recording


def _keep(x, g):
    x._grad = g if x._grad is None else tape.add(x._grad, g)


def _captured(name, outputs, seeds, wanted, keep, create_graph):
    capture: dict = {}
    for position, x in enumerate(wanted):
        if not isinstance(x, Tensor):
            fail(ArgumentTypeError, name, f"inputs must be tensors, got {type(x).__name__}")
        if not x._meta.requires_grad:
            fail(AutogradError, name, "One of the differentiated Tensors does not require grad")
        target, number = tape.edge(x)
        capture.setdefault(id(target), []).append((number or 0, position))
    roots = [tape.edge(y)[0] for y in outputs]
    task = tape.Task(keep, capture, tape.reaching(roots, capture))
    _run(name, outputs, seeds, task, create_graph)
    return [task.captured.get(i) for i in range(len(wanted))]


def grad(
    outputs,
    inputs,
    grad_outputs=None,
    retain_graph=None,
    create_graph=False,
    only_inputs=True,
    allow_unused=None,
    is_grads_batched=False,
    materialize_grads=False,
) -> tuple:
    """The gradients of ``outputs`` with respect to ``inputs``, as a tuple.

    Args:
        outputs: a tensor or several.
        inputs: what to differentiate by.
        grad_outputs: cotangents of the outputs; may be left out for one element.
        retain_graph: keep what was saved; as ``create_graph``.
        create_graph: record, so that the gradients can be differentiated.
        allow_unused: None for inputs that the outputs do not depend on, instead of an error.
        is_grads_batched: the first dimension of ``grad_outputs`` counts cotangents: backward runs
            once for each, and so does the first dimension of the results.
        materialize_grads: zeros instead of None.

    Raises:
        RuntimeError: an input is unused, nothing requires grad, the graph was freed.

    >>> import facula
    >>> x = facula.tensor(3.0, requires_grad=True)
    >>> (g,) = grad(x * x * x, x, create_graph=True)
    >>> g.item(), grad(g, x)[0].item()
    (27.0, 18.0)
    """
    if capture.trace is not None and capture.trace.cuts:
        given = (outputs, inputs, grad_outputs, retain_graph, create_graph, only_inputs,
                 allow_unused, is_grads_batched, materialize_grads)  # fmt: skip
        return capture.trace.apart(grad, given)
    if is_grads_batched:
        return _one_by_one(
            outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused,
            materialize_grads,
        )  # fmt: skip
    if materialize_grads and allow_unused is False:
        fail(
            AutogradError,
            "grad",
            "Expected allow_unused to be True or not passed when "
            "materialize_grads=True, but got: allow_unused=False.",
        )
    outputs, wanted = _sequence(outputs), _sequence(inputs)
    seeds = _seeds("grad", outputs, None if grad_outputs is None else _sequence(grad_outputs))
    keep = create_graph if retain_graph is None else retain_graph
    found = _captured("grad", outputs, seeds, wanted, keep, create_graph)
    for i, g in enumerate(found):
        if g is None and materialize_grads:
            found[i] = tape.zeros(wanted[i]._meta)
        elif g is None and not allow_unused:
            fail(
                AutogradError,
                "grad",
                "One of the differentiated Tensors appears to not have been "
                "used in the graph. Set allow_unused=True if this is the desired behavior.",
            )
    return tuple(found)


def _one_by_one(outputs, inputs, seeds, retain_graph, create_graph, allow_unused, materialize):
    """Gradients for each of several cotangents, stacked."""
    seeds = _sequence(seeds)
    count = next((g._meta.shape[0] for g in seeds if g is not None), 0)
    keep = create_graph if retain_graph is None else retain_graph
    rows = [
        grad(
            outputs,
            inputs,
            [None if g is None else g[i] for g in seeds],
            retain_graph=keep or i + 1 < count,
            create_graph=create_graph,
            allow_unused=allow_unused,
            materialize_grads=materialize,
        )
        for i in range(count)
    ]
    return tuple(None if column[0] is None else F.stack(list(column)) for column in zip(*rows))


def _backward_method(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
    """Add the gradients of this tensor to the ``grad`` of the leaves it was computed from.

    Args:
        gradient: its cotangent; may be left out for a tensor of one element.
        retain_graph: keep what was saved, so that backward can run again.
        create_graph: record the computation of the gradients.
        inputs: only into the ``grad`` of these.
    """
    backward(self, gradient, retain_graph, create_graph, inputs)


Tensor.backward = _backward_method
