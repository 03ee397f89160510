"""``autograd.functional``: Jacobians, Hessians and their products with vectors."""

from __future__ import annotations

from facula.base.errors import AutogradError, fail
from facula.eager import tape
from facula.eager.grad_mode import enable_grad
from facula.eager.tensor import Tensor
from facula.library import F
from facula.tensor.autograd_api import grad


def _tuple(x):
    return (True, tuple(x)) if isinstance(x, (tuple, list)) else (False, (x,))


def _fresh(inputs, create_graph):
    """Inputs to differentiate by: those given, or leaves over the same memory."""
    if create_graph:
        return tuple(
            x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in inputs
        )
    return tuple(x.detach().requires_grad_() for x in inputs)


def _done(values, several, create_graph):
    values = tuple(v if create_graph else v.detach() for v in values)
    return values if several else values[0]


def _called(name, func, inputs):
    several, outputs = _tuple(func(*inputs))
    for y in outputs:
        if not isinstance(y, Tensor):
            raise TypeError(f"{name}: the function must return tensors, got {type(y).__name__}")
    return several, outputs


def _gradient(outputs, inputs, seeds, create_graph, strict=False):
    """Gradients, zeros where an input is not used."""
    pairs = [(y, g) for y, g in zip(outputs, seeds) if y.requires_grad]
    if strict and len(pairs) < len(outputs):
        fail(AutogradError, "functional", "an output is independent of the inputs")
    found = [None] * len(inputs)
    if pairs:
        found = grad(
            [y for y, _ in pairs], inputs, [g for _, g in pairs], create_graph=create_graph,
            retain_graph=True, allow_unused=True,
        )  # fmt: skip
    if strict and any(g is None for g in found):
        fail(AutogradError, "functional", "the outputs are independent of an input")
    return [tape.zeros(x._meta) if g is None else g for g, x in zip(found, inputs)]


def vjp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), v @ J)``: the product of a vector with the Jacobian.

    Args:
        v: of the outputs' shapes; may be left out for one output of one element.
    """
    with enable_grad():
        several, given = _tuple(inputs)
        xs = _fresh(given, create_graph)
        more, outputs = _called("vjp", func, xs)
        if v is None:
            if len(outputs) != 1 or outputs[0].numel() != 1:
                fail(AutogradError, "vjp", "v can only be None if the user function returns a "
                     "single Tensor with a single element.")  # fmt: skip
            seeds = [tape.zeros(outputs[0]._meta).fill_(1)]
        else:
            seeds = _tuple(v)[1]
        found = _gradient(outputs, xs, seeds, create_graph, strict)
    return _done(outputs, more, create_graph), _done(found, several, create_graph)


def jvp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), J @ v)``: the product of the Jacobian with a vector.

    By differentiating backward, which is linear in its cotangents, once more.
    """
    with enable_grad():
        _, given = _tuple(inputs)
        xs = _fresh(given, create_graph)
        if v is None:
            if len(xs) != 1 or xs[0].numel() != 1:
                fail(AutogradError, "jvp", "v can only be None if the input to the user-provided "
                     "function is a single Tensor with a single element.")  # fmt: skip
            vs = [tape.zeros(xs[0]._meta).fill_(1)]
        else:
            vs = _tuple(v)[1]
        more, outputs = _called("jvp", func, xs)
        seeds = [tape.zeros(y._meta).requires_grad_() for y in outputs]
        slopes = _gradient(outputs, xs, seeds, True, strict)
        found = _gradient(slopes, seeds, vs, create_graph)
    return _done(outputs, more, create_graph), _done(found, more, create_graph)


def jacobian(
    func, inputs, create_graph=False, strict=False, vectorize=False, strategy="reverse-mode"
):
    """The Jacobian: of shape ``output.shape + input.shape``, tuples where there are several.

    >>> import facula
    >>> jacobian(lambda x: x * x, facula.tensor([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    with enable_grad():
        several, given = _tuple(inputs)
        xs = _fresh(given, create_graph)
        more, outputs = _called("jacobian", func, xs)
        table = []
        for y in outputs:
            rows: list = [[] for _ in xs]
            for k in range(y.numel()):
                seed = tape.zeros(y._meta)
                seed.reshape(-1).narrow(0, k, 1).fill_(1)
                for row, g in zip(rows, _gradient([y], xs, [seed], create_graph, strict)):
                    row.append(g)
            table.append([
                F.reshape(F.stack(row), (*y.shape, *x.shape)) if row else
                tape.zeros(x._meta).reshape(-1).narrow(0, 0, 0).reshape(*y.shape, *x.shape)
                for row, x in zip(rows, xs)
            ])  # fmt: skip
    table = [_done(row, several, create_graph) for row in table]
    return tuple(table) if more else table[0]


def hessian(
    func,
    inputs,
    create_graph=False,
    strict=False,
    vectorize=False,
    outer_jacobian_strategy="reverse-mode",
):
    """The second derivatives of a function with one element: ``input.shape + input.shape``."""
    several, given = _tuple(inputs)

    def slopes(*xs):
        _, (y,) = _called("hessian", func, xs)
        found = _gradient([y], xs, [tape.zeros(y._meta).fill_(1)], True, strict)
        return tuple(found)

    table = jacobian(slopes, given, create_graph=create_graph, strict=strict)
    return table if several else table[0][0]


def vhp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), v @ H)``: the product of a vector with the Hessian."""
    with enable_grad():
        several, given = _tuple(inputs)
        xs = _fresh(given, create_graph)
        _, (y,) = _called("vhp", func, xs)
        slopes = _gradient([y], xs, [tape.zeros(y._meta).fill_(1)], True, strict)
        vs = [tape.zeros(x._meta).fill_(1) for x in xs] if v is None else _tuple(v)[1]
        found = _gradient(slopes, xs, vs, create_graph)
    return _done([y], False, create_graph), _done(found, several, create_graph)


def hvp(func, inputs, v=None, create_graph=False, strict=False):
    """``(func(*inputs), H @ v)``: as :func:`vhp`, since the Hessian is symmetric."""
    return vhp(func, inputs, v, create_graph, strict)
