"""``gradcheck``: gradients compared with finite differences."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, fail
from facula.eager import tape
from facula.eager.grad_mode import enable_grad, no_grad
from facula.eager.tensor import Tensor
from facula.tensor.autograd_api import grad
from facula.tensor.memory import empty


class GradcheckError(RuntimeError):
    """A gradient differs from the finite difference."""


def _tensors(x) -> list:
    items = x if isinstance(x, (tuple, list)) else (x,)
    return [t for t in items if isinstance(t, Tensor)]


def _flat(x) -> list:
    return x.detach().reshape(-1).tolist()


def _outputs(func, inputs) -> list:
    return [y for y in _tensors(func(*inputs)) if y.is_floating_point()]


def numerical_jacobian(func, inputs, x, eps) -> list:
    """Per output, rows by elements of ``x``: central differences."""
    rows = []
    values = x.detach().reshape(-1) if x.is_contiguous() else None
    if values is None:
        fail(ArgumentError, "gradcheck", "inputs must be contiguous")
    with no_grad():
        for i, v in enumerate(values.tolist()):
            place = values.narrow(0, i, 1)
            place.fill_(v + eps)
            up = [_flat(y) for y in _outputs(func, inputs)]
            place.fill_(v - eps)
            down = [_flat(y) for y in _outputs(func, inputs)]
            place.fill_(v)
            rows.append([
                [(a - b) / (2 * eps) for a, b in zip(u, d)] for u, d in zip(up, down)
            ])  # fmt: skip
    return rows


def analytical_jacobian(y, x) -> list:
    """Rows by elements of ``y``: backward of each element."""
    rows = []
    for k in range(y.numel()):
        g = tape.zeros(y._meta)
        g.reshape(-1).narrow(0, k, 1).fill_(1)
        (d,) = grad(y, x, g, retain_graph=True, allow_unused=True)
        rows.append([0.0] * x.numel() if d is None else _flat(d))
    return rows


def gradcheck(
    func,
    inputs,
    *,
    eps=1e-6,
    atol=1e-5,
    rtol=1e-3,
    raise_exception=True,
    nondet_tol=0.0,
    **options,
) -> bool:
    """Compare the gradients of ``func`` with finite differences.

    Args:
        inputs: float64 tensors; those that require grad are checked.
        eps: the step of the differences.
        options: accepted for PyTorch's sake: what they turn on is always or never done here.

    Raises:
        GradcheckError: a gradient differs, unless ``raise_exception`` is False.

    >>> import facula
    >>> x = facula.tensor([0.3, 0.7], dtype=facula.float64, requires_grad=True)
    >>> gradcheck(lambda x: x.exp() * x, (x,))
    True
    """
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    checked = [x for x in _tensors(inputs) if x.requires_grad]
    if not checked:
        fail(ArgumentError, "gradcheck", "expects at least one input tensor to require gradient")
    # The differences change the inputs' memory for a while: what backward saves comes after them.
    tables = [numerical_jacobian(func, inputs, x, eps) for x in checked]
    with enable_grad():
        outputs = _outputs(func, inputs)
    for n, (x, rows) in enumerate(zip(checked, tables)):
        for j, y in enumerate(outputs):
            if y.requires_grad:
                found = analytical_jacobian(y, x)
                again = analytical_jacobian(y, x) if nondet_tol == 0 else found
            else:
                found = again = [[0.0] * x.numel() for _ in range(y.numel())]
            expected = [[row[j][k] for row in rows] for k in range(y.numel())]
            problem = _compare(found, expected, again, atol, rtol)
            if problem:
                if raise_exception:
                    raise GradcheckError(
                        f"Jacobian mismatch for output {j} with respect to input {n}: {problem}"
                    )
                return False
    return True


def _compare(found, expected, again, atol, rtol):
    for k, (a, b, c) in enumerate(zip(found, expected, again)):
        for i, (x, y, z) in enumerate(zip(a, b, c)):
            if not abs(x - y) <= atol + rtol * abs(y):
                return f"element ({k}, {i}): analytical {x}, numerical {y}"
            if x != z:
                return f"element ({k}, {i}): backward is not reentrant, it gave {x} and {z}"
    return None


def gradgradcheck(
    func, inputs, grad_outputs=None, *, eps=1e-6, atol=1e-5, rtol=1e-3, raise_exception=True,
    **options,
) -> bool:  # fmt: skip
    """Compare the gradients of the gradients of ``func`` with finite differences.

    Args:
        grad_outputs: cotangents of the outputs; numbers between 0 and 1 where left out.
    """
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if grad_outputs is None:
        seeds = [_spread(y) for y in _outputs(func, inputs)]
    else:
        seeds = _tensors(grad_outputs)
    count = len(inputs)

    def slopes(*args):
        xs, gs = args[:count], args[count:]
        outputs = list(_outputs(func, xs))
        pairs = [(y, g) for y, g in zip(outputs, gs) if y.requires_grad]
        wanted = [x for x in _tensors(xs) if x.requires_grad]
        found = grad(
            [y for y, _ in pairs], wanted, [g for _, g in pairs], create_graph=True,
            allow_unused=True,
        )  # fmt: skip
        return tuple(g for g in found if g is not None)

    def recorded(*args):
        with enable_grad():
            return slopes(*args)

    seeds = [g.detach().requires_grad_() for g in seeds]
    return gradcheck(
        recorded, (*inputs, *seeds), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=1.0,
    )  # fmt: skip


def _spread(y):
    """A cotangent of different numbers, the same in every run."""
    g = empty(y.shape, y.dtype if y.dtype.is_floating_point else D.float64)
    flat = g.reshape(-1)
    for k in range(flat.numel()):
        flat.narrow(0, k, 1).fill_(((k + 1) * 0.6180339887498949) % 1.0)
    return g
