"""Functions of functions: gradients, products with Jacobians, and batches, as in ``torch.func``.

Arguments may be tensors or nests (dicts, lists, tuples) of tensors. Transforms nest: what they
compute is differentiable where an argument, or an outer transform, asks for it.
"""

from __future__ import annotations

import functools

from facula.autograd import functional
from facula.base.errors import ArgumentError, AutogradError, ShapeError, fail
from facula.nn.utils.stateless import functional_call
from facula.tensor import Tensor, enable_grad, no_grad, stack, zeros_like
from facula.tensor import grad as gradients

# Nests ----------------------------------------------------------------------------------------


def leaves_of(nest) -> list:
    """The leaves of dicts, lists and tuples, in order."""
    if isinstance(nest, dict):
        return [leaf for value in nest.values() for leaf in leaves_of(value)]
    if isinstance(nest, (list, tuple)):
        return [leaf for value in nest for leaf in leaves_of(value)]
    return [nest]


def mapped(function, nest):
    """The same nest with ``function`` of every leaf."""
    if isinstance(nest, dict):
        return {key: mapped(function, value) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        items = [mapped(function, value) for value in nest]
        return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
    return function(nest)


def _like(nest, leaves):
    leaves = iter(leaves)
    return mapped(lambda _: next(leaves), nest)


def _tensors(nest) -> list:
    return [x for x in leaves_of(nest) if isinstance(x, Tensor)]


def _watched(x):
    """A tensor to differentiate by: its own history stays behind it, for outer transforms."""
    if not isinstance(x, Tensor):
        raise TypeError(f"func: expected tensors to differentiate by, got {type(x).__name__}")
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def _finished(nest, outer):
    """Results for the caller: without history unless an argument had one."""
    return nest if outer else mapped(lambda x: x.detach() if isinstance(x, Tensor) else x, nest)


# Gradients --------------------------------------------------------------------------------------


def grad_and_value(func, argnums=0, has_aux=False):
    """A function that gives ``(gradient, value)`` of a function with one element.

    Args:
        argnums: the argument to differentiate by, or a tuple of them.
        has_aux: ``func`` returns ``(value, aux)``; then so does the result: ``(g, (value, aux))``.
    """

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        outer = any(x.requires_grad for x in _tensors((args, kwargs)))
        several = isinstance(argnums, (tuple, list))
        numbers = argnums if several else (argnums,)
        with enable_grad():
            args = list(args)
            for n in numbers:
                args[n] = mapped(_watched, args[n])
            result = func(*args, **kwargs)
            value, aux = result if has_aux else (result, None)
            if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                fail(
                    AutogradError,
                    "grad",
                    f"Expected f(*args) to return a scalar tensor, got {got}",
                    "sum() or mean() it",
                )
            wanted = [args[n] for n in numbers]
            found = _gradients([value], leaves_of(wanted))
        grads = _like(wanted, found)
        grads = tuple(grads) if several else grads[0]
        grads, value, aux = (_finished(x, outer) for x in (grads, value, aux))
        return grads, ((value, aux) if has_aux else value)

    return wrapper


def _gradients(outputs, inputs, seeds=None):
    """Recorded gradients, zeros where an input is not used."""
    seeds = [None] * len(outputs) if seeds is None else seeds
    pairs = [(y, seed) for y, seed in zip(outputs, seeds) if y.requires_grad]
    if not pairs:
        return [zeros_like(x) for x in inputs]
    return gradients(
        [y for y, _ in pairs],
        inputs,
        [seed for _, seed in pairs],
        create_graph=True,
        materialize_grads=True,
    )


def grad(func, argnums=0, has_aux=False):
    """A function that gives the gradient of a function with one element.

    >>> import facula
    >>> grad(grad(lambda x: x**3))(facula.tensor(2.0)).item()
    12.0
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        grads, value = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return wrapper


def vjp(func, *primals, has_aux=False):
    """``(func(*primals), pullback)``, where ``pullback(cotangents)`` gives those of the primals."""
    outer = any(x.requires_grad for x in _tensors(primals))
    with enable_grad():
        xs = [mapped(_watched, x) for x in primals]
        result = func(*xs)
    result, aux = result if has_aux else (result, None)
    outputs = leaves_of(result)

    def pullback(cotangents):
        seeds = leaves_of(cotangents)
        if len(seeds) != len(outputs):
            fail(ArgumentError, "vjp", f"expected {len(outputs)} cotangents, got {len(seeds)}")
        with enable_grad():
            found = _gradients(outputs, leaves_of(xs), seeds)
        keeps = outer or any(s.requires_grad for s in seeds)
        found = _finished(_like(xs, found), keeps)
        return tuple(found)

    value = _finished(result, outer)
    return (value, pullback, _finished(aux, outer)) if has_aux else (value, pullback)


def jvp(func, primals, tangents, *, has_aux=False):
    """``(func(*primals), J @ tangents)``, by differentiating backward twice."""
    outer = any(x.requires_grad for x in _tensors((primals, tangents)))
    with enable_grad():
        xs = [mapped(_watched, x) for x in primals]
        result = func(*xs)
        result, aux = result if has_aux else (result, None)
        outputs = leaves_of(result)
        seeds = [zeros_like(y).requires_grad_() for y in outputs]
        slopes = _gradients(outputs, leaves_of(xs), seeds)
        found = _gradients(slopes, seeds, leaves_of(tangents))
    value, tangent = _finished(result, outer), _finished(_like(result, found), outer)
    return (value, tangent, _finished(aux, outer)) if has_aux else (value, tangent)


def jacrev(func, argnums=0, has_aux=False, *, chunk_size=None):
    """A function that gives the Jacobian: ``output.shape + input.shape``."""

    @functools.wraps(func)
    def wrapper(*args):
        several = isinstance(argnums, (tuple, list))
        numbers = argnums if several else (argnums,)
        kept = []

        def of_those(*xs):
            given = list(args)
            for n, x in zip(numbers, xs):
                given[n] = x
            result = func(*given)
            if has_aux:
                kept[:] = [result[1]]
                return result[0]
            return result

        outer = any(x.requires_grad for x in _tensors(args))
        xs = tuple(args[n] for n in numbers)
        table = functional.jacobian(of_those, xs, create_graph=outer)
        if not several:
            table = tuple(row[0] for row in table) if isinstance(table[0], tuple) else table[0]
        return (table, kept[0]) if has_aux else table

    return wrapper


def jacfwd(func, argnums=0, has_aux=False, *, chunk_size=None, randomness="error"):
    """As :func:`jacrev`; there is no forward mode of its own."""
    return jacrev(func, argnums, has_aux)


def hessian(func, argnums=0):
    """A function that gives the matrix of second derivatives."""
    return jacrev(jacrev(func, argnums), argnums)


# Batches ----------------------------------------------------------------------------------------


def vmap(func, in_dims=0, out_dims=0, randomness="error", *, chunk_size=None):
    """A function of batches: ``func`` for each element of a dimension, the results stacked.

    The function runs once an element, so it may branch on values; it is no faster than a loop.

    Args:
        in_dims: the dimension of each argument that is mapped, or None; one for all, or a tuple.
        out_dims: where the results are stacked.
    """

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        dims = in_dims if isinstance(in_dims, (tuple, list)) else (in_dims,) * len(args)
        sizes = {
            x.shape[d] for a, d in zip(args, dims) if d is not None for x in _tensors(a)
        }  # fmt: skip
        if len(sizes) != 1:
            fail(ShapeError, "vmap", f"Expected all tensors to have the same size in the mapped "
                 f"dimension, got sizes {sorted(sizes)}")  # fmt: skip
        results = []
        for i in range(sizes.pop()):
            parts = [
                a if d is None
                else mapped(lambda x, d=d, i=i: x.select(d, i) if isinstance(x, Tensor) else x, a)
                for a, d in zip(args, dims)
            ]  # fmt: skip
            results.append(func(*parts, **kwargs))
        columns = zip(*(leaves_of(r) for r in results))
        outs = out_dims if isinstance(out_dims, int) else 0
        return _like(results[0], [stack(list(column), outs) for column in columns])

    return wrapper


# Modules ----------------------------------------------------------------------------------------


def stack_module_state(models):
    """(parameters, buffers) of modules that are alike, stacked by name."""
    models = list(models)
    with no_grad():
        parameters = {
            name: stack([dict(m.named_parameters())[name] for m in models]).requires_grad_()
            for name, _ in models[0].named_parameters()
        }
        buffers = {
            name: stack([dict(m.named_buffers())[name] for m in models])
            for name, _ in models[0].named_buffers()
        }
    return parameters, buffers


__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp",
    "stack_module_state", "vjp", "vmap",
]  # fmt: skip
