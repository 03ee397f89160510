"""``autograd.Function``: a forward and a backward written by the user."""

from __future__ import annotations

import functools

from facula.base.errors import AutogradError, fail
from facula.eager import plans, tape
from facula.eager.extras import apply_extras
from facula.eager.grad_mode import capture, mode, no_grad
from facula.eager.tape import Node
from facula.eager.tensor import Tensor
from facula.library import F


class FunctionCtx(Node):
    """What ``forward`` hands to ``backward``, and the node of the call in one object.

    Attributes:
        needs_input_grad: per argument of ``apply``, whether its gradient is wanted.
    """

    # No __slots__: users keep what they like in attributes.

    outputs = 1
    needs_input_grad: tuple = ()
    _function = None
    _to_save: tuple = ()
    _dirty: tuple = ()
    _constant: tuple = ()
    _materialize = True

    def __init__(self):
        self.edges, self.saved, self.versions, self.hooks, self.order = (), (), (), None, 0
        self._own_outputs: dict = {}

    # For forward

    def save_for_backward(self, *tensors) -> None:
        """Keep tensors (or None) for ``backward``, where they are ``saved_tensors``."""
        for x in tensors:
            if x is not None and not isinstance(x, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but got {type(x).__name__}"
                )
        self._to_save = tensors

    def save_for_forward(self, *tensors) -> None:
        """Kept for programs that define ``jvp``, which is not used."""

    def mark_dirty(self, *tensors) -> None:
        """Say which inputs ``forward`` changed in place; they must be returned."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors) -> None:
        """Say which outputs have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` gets zeros (the default) or None for outputs without gradient."""
        self._materialize = bool(value)

    # For backward

    @property
    def saved_tensors(self) -> tuple:
        """What was saved.

        Raises:
            RuntimeError: it was freed, or changed in place since.
        """
        saved = self.need_saved()
        tensors = []
        for i, x in enumerate(saved):
            if x is not None and i < len(self.versions):
                then = self.versions[i]
                if then is not None and x._storage.version != then:
                    fail(
                        AutogradError,
                        self.name(),
                        "one of the variables needed for gradient "
                        "computation has been modified by an inplace operation",
                    )
            if i in self._own_outputs:
                x = plans.share()(x, x._meta.with_grad(True), 0)
                x._grad_fn, x._output_nr = self, self._own_outputs[i]
            tensors.append(x)
        return tuple(tensors)

    saved_variables = saved_tensors

    def name(self) -> str:
        return self._function.__name__ + "Backward"

    def apply(self, gs):
        if self._materialize:
            gs = [
                tape.zeros(m) if g is None and m is not None else g
                for g, m in zip(gs, self._output_metas)
            ]
        grads = self._function.backward(self, *gs)
        grads = grads if isinstance(grads, tuple) else (grads,)
        wanted = len(self.needs_input_grad)
        if len(grads) < wanted or any(g is not None for g in grads[wanted:]):
            fail(
                AutogradError,
                self.name(),
                f"function returned an incorrect number of gradients "
                f"(expected {wanted}, got {len(grads)})",
            )
        return tuple(_fitting(self.name(), i, grads[i], m) for i, m in self._input_metas), ()

    def release(self):
        if self.saved:
            self.saved = None


def _fitting(name, i, g, meta):
    """A gradient of the user's as one of an input: of its shape and dtype."""
    if g is None:
        return None
    if not isinstance(g, Tensor):
        fail(
            AutogradError,
            name,
            f"expected Variable or None (got {type(g).__name__}) for the gradient at index {i}",
        )
    if g._meta.shape != meta.shape:
        extra = g._meta.ndim - meta.ndim
        sizes = (1,) * extra + tuple(meta.shape) if extra >= 0 else ()
        if extra < 0 or any(n not in (1, m) for n, m in zip(sizes, g._meta.shape)):
            fail(
                AutogradError,
                name,
                f"returned an invalid gradient at index {i} - got "
                f"{list(g._meta.shape)} but expected shape compatible with {list(meta.shape)}",
            )
        dims = [d for d, (n, m) in enumerate(zip(sizes, g._meta.shape)) if n != m or d < extra]
        g = F.reshape(F.sum(g, dims), meta.shape)
    return g if g._meta.dtype is meta.dtype else g.to(meta.dtype)


class Function:
    """Derive from it, write ``forward`` and ``backward`` as static methods, call ``apply``.

    >>> import facula
    >>> class Cube(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x * x
    >>> x = facula.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad.item()
    12.0
    """

    def __init__(self, *args, **kwargs):
        raise RuntimeError(
            f"{type(self).__name__} should not be instantiated. hint: call {type(self).__name__}"
            ".apply(...)"
        )

    @staticmethod
    def forward(*args, **kwargs):
        """``forward(ctx, *args)``, or ``forward(*args)`` beside ``setup_context``."""
        raise NotImplementedError("You must implement the forward function for autograd.Function.")

    @staticmethod
    def setup_context(ctx, inputs, output):
        """``setup_context(ctx, inputs, output)``: fill the context apart from ``forward``."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx, *grad_outputs):
        """The gradient of each argument of ``forward``, given those of its results."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    @classmethod
    def apply(cls, *args, **kwargs):
        """Run ``forward``; record the call if an argument requires grad."""
        trace = capture.trace
        if trace is not None and trace.cuts:
            return trace.apart(lambda *xs: cls.apply(*xs, **kwargs), args)
        ctx = FunctionCtx()
        ctx._function = cls
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a._meta.requires_grad for a in args)
        records = mode.grad is not False and any(ctx.needs_input_grad)
        if records and trace is not None:
            trace.written_backward = cls.__name__
        edges = []
        for a, needed in zip(args, ctx.needs_input_grad):
            if needed:
                edges += tape.edge(a)
        ctx._input_metas = [(i, a._meta) for i, a in enumerate(args) if ctx.needs_input_grad[i]]
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                result = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args, **kwargs)
        if not records:
            return result
        single = not isinstance(result, (tuple, list))
        values = _attached(ctx, args, [result] if single else list(result), edges)
        return values[0] if single else tuple(values)


def _attached(ctx, args, values, edges):
    """The results with the call as their history."""
    tape.start(ctx, tuple(edges))
    ctx.outputs = len(values)
    ctx._output_metas = [v._meta if isinstance(v, Tensor) else None for v in values]
    results = []
    for number, v in enumerate(values):
        if not isinstance(v, Tensor) or v._meta.dtype.kind != "f" or _among(v, ctx._constant):
            results.append(v)
            continue
        if _among(v, ctx._dirty):
            position = next((k for k, (i, _) in enumerate(ctx._input_metas) if args[i] is v), None)
            tape.rebase(v, ctx, position)
            v._output_nr = number or None
        else:
            if _among(v, args) or v._grad_fn is not None:
                v = plans.share()(v, v._meta, 0)
            v._meta = v._meta.with_grad(True)
            v._grad_fn, v._output_nr = ctx, number or None
        results.append(v)
    _keep(ctx, values, results)
    if mode.grad is not True:
        apply_extras(mode.grad, ctx)
    return results


def _keep(ctx, values, results):
    saved, versions = [], []
    for i, x in enumerate(ctx._to_save):
        number = next((n for n, v in enumerate(values) if v is x), None)
        if number is not None and results[number] is x and not _among(x, ctx._dirty):
            # The context must not hold its own result, or neither would ever be freed.
            x = plans.share()(x, x._meta.with_grad(False), 0)
            if not _among(values[number], ctx._constant):
                ctx._own_outputs[i] = number
        saved.append(x)
        versions.append(None if x is None else x._storage.version)
    ctx.saved, ctx.versions = tuple(saved), tuple(versions)
    ctx._to_save = ctx._dirty = ctx._constant = ()


def _among(x, xs) -> bool:
    return any(x is y for y in xs)


class _Refusal(Node):
    """The history of what may not be differentiated again."""

    __slots__ = ()

    def apply(self, gs):
        fail(
            AutogradError,
            "once_differentiable",
            "trying to differentiate twice a function that was marked with @once_differentiable",
        )


def once_differentiable(fn):
    """Decorate a ``backward`` whose result cannot be differentiated again."""

    @functools.wraps(fn)
    def wrapper(ctx, *args):
        with no_grad():
            outputs = fn(ctx, *args)
        if mode.grad is False or not any(
            isinstance(a, Tensor) and a._meta.requires_grad for a in args
        ):
            return outputs
        single = not isinstance(outputs, tuple)
        marked = []
        for y in (outputs,) if single else outputs:
            if isinstance(y, Tensor):
                y = plans.share()(y, y._meta.with_grad(True), 0)
                y._grad_fn = tape.start(_Refusal(), ())
            marked.append(y)
        return marked[0] if single else tuple(marked)

    return wrapper
