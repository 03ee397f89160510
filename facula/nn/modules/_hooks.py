"""Hooks of a module: their registration, their handles and the call that runs them.

In a call, forward pre-hooks may replace the arguments, then ``forward`` runs, then forward hooks
may replace the result. Full-backward hooks bracket ``forward`` with two nodes of the graph.
"""

import itertools
import warnings
import weakref
from collections import OrderedDict

from facula.autograd.function import Function
from facula.base.changes import count
from facula.tensor import Tensor, is_grad_enabled

_ids = itertools.count()


class RemovableHandle:
    """Removes a hook: by ``remove()``, or at the end of a ``with`` block."""

    def __init__(self, hooks, *companions):
        self.id = next(_ids)
        self._owners = tuple(weakref.ref(owner) for owner in (hooks, *companions))

    def remove(self):
        """Take the hook away. Calling it twice is harmless."""
        for reference in self._owners:
            owner = reference()
            if owner is not None:
                owner.pop(self.id, None)
                count.changes += 1

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()


def _register(hooks, hook, *, prepend=False, marks=()):
    """Add ``hook`` to ``hooks``, and its id to each dict in ``marks``."""
    handle = RemovableHandle(hooks, *marks)
    hooks[handle.id] = hook
    count.changes += 1
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    for mark in marks:
        mark[handle.id] = True
    return handle


_global_forward_pre_hooks = OrderedDict()
_global_forward_hooks = OrderedDict()
_global_forward_hooks_always_called = OrderedDict()
_global_forward_hooks_with_kwargs = OrderedDict()
_global_backward_pre_hooks = OrderedDict()
_global_backward_hooks = OrderedDict()
#: The ids of all hooks of all modules: what a call asks whether there are any.
ANY_MODULE = OrderedDict()


def register_module_forward_pre_hook(hook):
    """Run ``hook(module, args)`` before every module's ``forward``; returns a removable handle."""
    return _register(_global_forward_pre_hooks, hook, marks=(ANY_MODULE,))


def register_module_forward_hook(hook, *, with_kwargs=False, always_call=False):
    """Run ``hook(module, args, output)`` after every module's ``forward``."""
    marks = [ANY_MODULE]
    if with_kwargs:
        marks.append(_global_forward_hooks_with_kwargs)
    if always_call:
        marks.append(_global_forward_hooks_always_called)
    return _register(_global_forward_hooks, hook, marks=marks)


def register_module_full_backward_pre_hook(hook):
    """Run ``hook(module, grad_output)`` before every module's backward."""
    return _register(_global_backward_pre_hooks, hook, marks=(ANY_MODULE,))


def register_module_full_backward_hook(hook):
    """Run ``hook(module, grad_input, grad_output)`` after every module's backward."""
    return _register(_global_backward_hooks, hook, marks=(ANY_MODULE,))


class _Boundary(Function):
    """The identity on a module's inputs or outputs: one graph node that sees all gradients."""

    @staticmethod
    def forward(ctx, on_gradients, *tensors):
        ctx.set_materialize_grads(False)
        ctx.on_gradients = on_gradients
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx, *gradients):
        return (None, *ctx.on_gradients(gradients))


def _through_boundary(values, on_gradients):
    """Pass the tensors among ``values`` that require a gradient through one :class:`_Boundary`.

    ``on_gradients`` receives and returns a tuple as long as ``values``, with None where the value
    requires no gradient or none came. Returns the new values and whether there is a boundary.
    """
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
    if not places or not is_grad_enabled():
        return values, False

    def scatter_and_run(gradients):
        full = [None] * len(values)
        for i, gradient in zip(places, gradients):
            full[i] = gradient
        replaced = on_gradients(tuple(full))
        return tuple(replaced[i] for i in places)

    outputs = _Boundary.apply(scatter_and_run, *(values[i] for i in places))
    values = list(values)
    for i, output in zip(places, outputs):
        values[i] = output
    return tuple(values), True


def _replaced(result, gradients, what):
    """The gradients that a hook asked for: its result where it gave one."""
    if result is None:
        return gradients
    if not isinstance(result, tuple):
        result = (result,)
    if len(result) != len(gradients):
        raise RuntimeError(
            f"Backward hook returned an invalid number of {what}, got {len(result)}, "
            f"but expected {len(gradients)}"
        )
    return result


class _BackwardHooks:
    """One call's bracket of graph nodes around a module, for full-backward hooks.

    The node behind the outputs collects ``grad_output`` and runs the pre-hooks; the node before the
    inputs then knows ``grad_input`` and runs the hooks. Where no input requires a gradient there
    is no such node, and the hooks run from the first one with ``grad_input`` all None.
    """

    def __init__(self, module):
        self.module = module
        self.pre_hooks = [
            *_global_backward_pre_hooks.values(),
            *module._backward_pre_hooks.values(),
        ]
        self.hooks = [*_global_backward_hooks.values(), *module._backward_hooks.values()]
        self.grad_output = None
        self.n_inputs = 0
        self.bracketed = False

    def around_inputs(self, args):
        self.n_inputs = len(args)
        args, self.bracketed = _through_boundary(args, self._on_grad_input)
        return args

    def around_outputs(self, result):
        if isinstance(result, (tuple, list)):
            values, _ = _through_boundary(tuple(result), self._on_grad_output)
            if hasattr(result, "_fields"):
                return type(result)(*values)
            return type(result)(values)
        if isinstance(result, Tensor):
            return _through_boundary((result,), self._on_grad_output)[0][0]
        warnings.warn(
            "For backward hooks to be called, module output should be a Tensor or a tuple of "
            f"Tensors but received {type(result)}",
            stacklevel=4,
        )
        return result

    def _on_grad_output(self, gradients):
        for hook in self.pre_hooks:
            gradients = _replaced(hook(self.module, gradients), gradients, "grad_output")
        self.grad_output = gradients
        if not self.bracketed:
            for hook in self.hooks:
                if hook(self.module, (None,) * self.n_inputs, gradients) is not None:
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should "
                        "always return None or None for all gradients."
                    )
        return gradients

    def _on_grad_input(self, gradients):
        if self.grad_output is None:
            return gradients
        for hook in self.hooks:
            result = hook(self.module, gradients, self.grad_output)
            gradients = _replaced(result, gradients, "grad_input")
        self.grad_output = None
        return gradients


def _run_pre_hooks(module, args, kwargs):
    for hook in list(_global_forward_pre_hooks.values()):
        result = hook(module, args)
        if result is not None:
            args = result if isinstance(result, tuple) else (result,)
    for key, hook in list(module._forward_pre_hooks.items()):
        if key in module._forward_pre_hooks_with_kwargs:
            result = hook(module, args, kwargs)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(
                        "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                        f"but got {result}."
                    )
                args, kwargs = result
        else:
            result = hook(module, args)
            if result is not None:
                args = result if isinstance(result, tuple) else (result,)
    return args, kwargs


def _forward_hooks(module):
    """(hook, with kwargs, always called) of every forward hook, in the order of their calls."""
    for key, hook in list(_global_forward_hooks.items()):
        yield (
            hook,
            key in _global_forward_hooks_with_kwargs,
            key in _global_forward_hooks_always_called,
        )
    for key, hook in list(module._forward_hooks.items()):
        yield (
            hook,
            key in module._forward_hooks_with_kwargs,
            key in module._forward_hooks_always_called,
        )


def _call_with_hooks(module, args, kwargs):
    """``module(*args, **kwargs)`` where hooks are present."""
    waiting = list(_forward_hooks(module))
    result = None
    try:
        args, kwargs = _run_pre_hooks(module, args, kwargs)
        bracket = None
        if (
            module._backward_hooks
            or module._backward_pre_hooks
            or _global_backward_hooks
            or _global_backward_pre_hooks
        ):
            bracket = _BackwardHooks(module)
            args = bracket.around_inputs(args)
        result = module.forward(*args, **kwargs)
        while waiting:
            hook, with_kwargs, _ = waiting.pop(0)
            extra = (kwargs,) if with_kwargs else ()
            replaced = hook(module, args, *extra, result)
            if replaced is not None:
                result = replaced
        if bracket is not None:
            result = bracket.around_outputs(result)
        return result
    except Exception:
        # The call has failed: hooks that asked to be always called still see what there is, and
        # the error that the user should read is the first one.
        for hook, with_kwargs, always in waiting:
            if always:
                extra = (kwargs,) if with_kwargs else ()
                try:
                    hook(module, args, *extra, result)
                except Exception as error:
                    warnings.warn(
                        "module forward hook with ``always_call=True`` raised an exception that "
                        f"was silenced as another error was raised in forward: {error}",
                        stacklevel=3,
                    )
        raise


class HookMethods:
    """The hook half of :class:`~facula.nn.Module`."""

    def _init_hooks(self):
        self._forward_pre_hooks = OrderedDict()
        self._forward_pre_hooks_with_kwargs = OrderedDict()
        self._forward_hooks = OrderedDict()
        self._forward_hooks_with_kwargs = OrderedDict()
        self._forward_hooks_always_called = OrderedDict()
        self._backward_pre_hooks = OrderedDict()
        self._backward_hooks = OrderedDict()

    def register_forward_pre_hook(self, hook, *, prepend=False, with_kwargs=False):
        """Run ``hook(module, args)`` before ``forward``.

        What it returns, unless None, replaces the positional arguments. With ``with_kwargs`` it is
        called as ``hook(module, args, kwargs)`` and returns None or ``(args, kwargs)``.
        ``prepend`` puts it before the hooks that are already there. Returns a removable handle.
        """
        marks = [self._forward_pre_hooks_with_kwargs] if with_kwargs else []
        return _register(self._forward_pre_hooks, hook, prepend=prepend, marks=marks)

    def register_forward_hook(self, hook, *, prepend=False, with_kwargs=False, always_call=False):
        """Run ``hook(module, args, output)`` after ``forward``.

        What it returns, unless None, replaces the output. With ``with_kwargs`` it is called as
        ``hook(module, args, kwargs, output)``. With ``always_call`` it also runs, with the output
        that there is, when the call raises. Returns a removable handle.

        >>> from facula import nn, ones
        >>> layer = nn.Identity()
        >>> handle = layer.register_forward_hook(lambda module, args, output: output + 1)
        >>> layer(ones(2)).tolist()
        [2.0, 2.0]
        >>> handle.remove()
        """
        marks = []
        if with_kwargs:
            marks.append(self._forward_hooks_with_kwargs)
        if always_call:
            marks.append(self._forward_hooks_always_called)
        return _register(self._forward_hooks, hook, prepend=prepend, marks=marks)

    def register_full_backward_pre_hook(self, hook, prepend=False):
        """Run ``hook(module, grad_output)`` before the module's backward.

        ``grad_output`` is a tuple; what the hook returns, unless None, replaces it.
        """
        return _register(self._backward_pre_hooks, hook, prepend=prepend)

    def register_full_backward_hook(self, hook, prepend=False):
        """Run ``hook(module, grad_input, grad_output)`` once the gradients of the module's inputs
        are known.

        Both are tuples, with None for arguments that are no tensors or need no gradient. What the
        hook returns, unless None, replaces ``grad_input``.
        """
        return _register(self._backward_hooks, hook, prepend=prepend)

    def register_backward_hook(self, hook):
        """The older name of :meth:`register_full_backward_hook`."""
        return self.register_full_backward_hook(hook)
