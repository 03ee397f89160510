"""``Module``: the base of every layer. It registers what is assigned to it and walks the tree.

Parameters, buffers and child modules live in three dicts: ``__setattr__`` sorts assignments into
them, and ``__getattr__``, which Python calls only where there is no ordinary attribute, finds them.
Hooks and state dicts are in ``_hooks.py`` and ``_state.py``.
"""

from facula.base.changes import Watched, count
from facula.base.device import device
from facula.base.dtypes import dtype
from facula.nn.modules import _hooks
from facula.nn.modules._hooks import ANY_MODULE, HookMethods
from facula.nn.modules._state import StateMethods
from facula.nn.parameter import Buffer, Parameter
from facula.tensor import (
    Tensor,
    bfloat16,
    empty_like,
    float16,
    float32,
    float64,
    no_grad,
)

__all__ = ["Module"]

_REGISTRIES = ("_parameters", "_buffers", "_modules")


class Module(HookMethods, StateMethods):
    """Base of all layers and models.

    A subclass calls ``super().__init__()``, assigns parameters and other modules to itself, and
    defines ``forward``. Calling the module runs ``forward`` with the hooks around it.

    >>> from facula import nn, ones
    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(2, 2)
    ...
    ...     def forward(self, x):
    ...         return self.layer(self.layer(x))
    >>> [name for name, _ in Twice().named_parameters()]
    ['layer.weight', 'layer.bias']
    """

    training: bool

    def __init__(self):
        # Past __setattr__, which needs the registries in order to sort.
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = Watched()
        own["_buffers"] = Watched()
        own["_non_persistent_buffers_set"] = set()
        own["_modules"] = Watched()
        self._init_hooks()
        self._init_state_hooks()

    def forward(self, *args, **kwargs):
        """Define what the module computes. Every subclass overrides this."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args, **kwargs):
        if (
            self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
            or ANY_MODULE
        ):
            return _hooks._call_with_hooks(self, args, kwargs)
        return self.forward(*args, **kwargs)

    def compile(self, *args, **kwargs):
        """Capture this module's calls from now on, as ``facula.compile(module)`` would.

        Takes what :func:`facula.compile` takes behind the model; gives nothing back.
        """
        from facula.tensor.compile import compile_module  # Few programs need the compiler.

        compile_module(self, *args, **kwargs)

    # Registration

    def register_parameter(self, name, param):
        """Add a parameter, or with None the name of one that may come later.

        Raises:
            TypeError: ``param`` is no :class:`Parameter`, or ``name`` no string.
            KeyError: the name is empty, holds a dot, or is taken.
            ValueError: ``param`` is the result of a computation, not a leaf.
        """
        self._check_name(name, "parameter", self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_typename(param)}' object to parameter '{name}' "
                "(torch.nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be "
                "created explicitly. To express this parameter as a function of another Tensor, "
                "compute the value in the forward() method."
            )
        self._parameters[name] = param

    def register_buffer(self, name, tensor, persistent=True):
        """Add a tensor that is part of the module's state but not trained.

        With ``persistent=False`` it is left out of the state dict.
        """
        self._check_name(name, "buffer", self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_typename(tensor)}' object to buffer '{name}' "
                "(torch Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name, module):
        """Add a child module, or with None the name of one that may come later."""
        self._check_name(name, "module", self._modules)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_typename(module)} is not a Module subclass")
        self._modules[name] = module

    def register_module(self, name, module):
        """The same as :meth:`add_module`."""
        self.add_module(name, module)

    def _check_name(self, name, kind, registry):
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_typename(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain "."')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if name not in registry and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")

    # Attributes

    def __getattr__(self, name):
        # Every parameter and child that a ``forward`` names passes here: the commonest first.
        own = self.__dict__
        if "_parameters" in own:
            if name in (found := own["_parameters"]):
                return found[name]
            if name in (found := own["_modules"]):
                return found[name]
            if name in (found := own["_buffers"]):
                return found[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name, value):
        count.changes += 1
        own = self.__dict__
        parameters = own.get("_parameters")
        if isinstance(value, Parameter):
            self._forget(name, "_parameters", "parameters")
            self.register_parameter(name, value)
        elif parameters is not None and name in parameters:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as parameter '{name}' "
                    "(torch.nn.Parameter or None expected)"
                )
            parameters[name] = None
        elif isinstance(value, Module):
            self._forget(name, "_modules", "module")
            own["_modules"][name] = value
        elif name in own.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as child module '{name}' "
                    "(torch.nn.Module or None expected)"
                )
            own["_modules"][name] = None
        elif isinstance(value, Buffer):
            self._forget(name, "_buffers", "buffer")
            self.register_buffer(name, value, value.persistent)
        elif name in own.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{_typename(value)}' as buffer '{name}' "
                    "(torch.nn.Buffer, torch.Tensor or None expected)"
                )
            own["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name, registry, kind):
        """Remove ``name`` from every place but ``registry``, which is about to hold it."""
        own = self.__dict__
        if registry not in own:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        own.pop(name, None)
        for other in _REGISTRIES:
            if other != registry:
                own[other].pop(name, None)
        if registry != "_buffers":
            own["_non_persistent_buffers_set"].discard(name)

    def __delattr__(self, name):
        count.changes += 1
        for registry in _REGISTRIES:
            if name in self.__dict__[registry]:
                del self.__dict__[registry][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self):
        names = set(dir(type(self))) | set(self.__dict__)
        names.update(self._parameters, self._buffers, self._modules)
        return sorted(name for name in names if not name[0].isdigit())

    def __setstate__(self, state):
        # A module pickled by an older version may lack a registry that this one has.
        fresh = Module.__new__(Module)
        Module.__init__(fresh)
        self.__dict__.update({k: v for k, v in fresh.__dict__.items() if k not in state})
        self.__dict__.update(state)
        for registry in _REGISTRIES:
            entries = self.__dict__[registry]
            if not isinstance(entries, Watched):
                self.__dict__[registry] = Watched(entries)
        count.changes += 1

    # Walking the tree

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        """Yield ``(path, module)`` of this module and everything below it, each module once unless
        ``remove_duplicate`` is False."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                path = prefix + "." + name if prefix else name
                yield from child.named_modules(memo, path, remove_duplicate)

    def modules(self):
        """Yield this module and everything below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self):
        """Yield ``(name, module)`` of the direct children, each module once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self):
        """Yield the direct children, each once."""
        for _, child in self.named_children():
            yield child

    def _named_members(self, get_members_fn, prefix="", recurse=True, remove_duplicate=True):
        seen = set()
        if recurse:
            modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
        else:
            modules = [(prefix, self)]
        for path, module in modules:
            for name, member in get_members_fn(module):
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (path + "." + name if path else name), member

    def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
        """Yield ``(path, parameter)``, each parameter once unless ``remove_duplicate`` is False."""
        yield from self._named_members(
            lambda module: module._parameters.items(), prefix, recurse, remove_duplicate
        )

    def parameters(self, recurse=True):
        """Yield the parameters of this module and, if ``recurse``, of everything below it."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(self, prefix="", recurse=True, remove_duplicate=True):
        """Yield ``(path, buffer)``, each buffer once unless ``remove_duplicate`` is False."""
        yield from self._named_members(
            lambda module: module._buffers.items(), prefix, recurse, remove_duplicate
        )

    def buffers(self, recurse=True):
        """Yield the buffers of this module and, if ``recurse``, of everything below it."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target):
        """The module at a dotted path; the module itself at ``""``.

        Raises:
            AttributeError: the path leads to nothing, or to something that is no module.
        """
        module = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target, module, strict=False):
        """Put ``module`` at a dotted path; with ``strict`` something must be there already."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target):
        """The parameter at a dotted path."""
        return self._get_member(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target):
        """The buffer at a dotted path."""
        return self._get_member(target, "_buffers", "a buffer")

    def _get_member(self, target, registry, what):
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if name not in module.__dict__[registry]:
            raise AttributeError(f"`{name}` is not {what}")
        return module.__dict__[registry][name]

    def apply(self, fn):
        """Call ``fn(module)`` on everything below this module, then on it. Returns self.

        >>> from facula import nn
        >>> _ = nn.Linear(2, 2).apply(lambda module: nn.init.zeros_(module.bias))
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # Conversion

    def _apply(self, fn, recurse=True):
        """Replace the data of every parameter, gradient and buffer by ``fn`` of it.

        Parameters keep their identity, so optimizers that hold them go on.
        """
        if recurse:
            for child in self.children():
                child._apply(fn)
        for parameter in self._parameters.values():
            if parameter is not None:
                gradient = parameter.grad
                with no_grad():
                    parameter.data = fn(parameter.data)
                if gradient is not None:
                    with no_grad():
                        parameter.grad = fn(gradient).requires_grad_(gradient.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    def to(self, *args, **kwargs):
        """Move or cast: ``to(device)``, ``to(dtype)``, ``to(device, dtype)`` or ``to(tensor)``.

        Only floating parameters and buffers are cast. Works in place and returns self.

        Raises:
            TypeError: the dtype is not a floating one, or an argument is of another type.
        """
        place, kind = _parse_to(args, kwargs)
        if kind is not None and not kind.is_floating_point:
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, but got desired "
                f"dtype={kind}"
            )

        def convert(tensor):
            changes = {} if place is None else {"device": place}
            if kind is not None and tensor.is_floating_point():
                changes["dtype"] = kind
            return tensor.to(**changes) if changes else tensor

        return self._apply(convert)

    def type(self, dst_type):
        """Cast every parameter and buffer to ``dst_type``, integers too."""
        return self._apply(lambda tensor: tensor.to(dst_type))

    def _cast_floating(self, kind):
        return self._apply(lambda t: t.to(kind) if t.is_floating_point() else t)

    def float(self):
        """Cast floating parameters and buffers to float32."""
        return self._cast_floating(float32)

    def double(self):
        """Cast floating parameters and buffers to float64."""
        return self._cast_floating(float64)

    def half(self):
        """Cast floating parameters and buffers to float16."""
        return self._cast_floating(float16)

    def bfloat16(self):
        """Cast floating parameters and buffers to bfloat16."""
        return self._cast_floating(bfloat16)

    def cpu(self):
        """Move all parameters and buffers to the CPU."""
        return self.to(device("cpu"))

    def to_empty(self, *, device, recurse=True):
        """Move to ``device`` without copying: the values are whatever the new memory holds."""
        return self._apply(lambda tensor: empty_like(tensor, device=device), recurse=recurse)

    def share_memory(self):
        """Return self. Facula's tensors are shared between processes when they are sent."""
        return self

    # Modes

    def train(self, mode=True):
        """Set training mode here and below: dropout drops, batch norm uses the batch."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self):
        """Set evaluation mode; the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Set ``requires_grad`` of every parameter. Returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none=True):
        """Drop all parameters' gradients, or with ``set_to_none=False`` fill them with zeros."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                if set_to_none:
                    parameter.grad = None
                else:
                    parameter.grad.detach_()
                    parameter.grad.zero_()

    # Showing

    def _get_name(self):
        return type(self).__name__

    def extra_repr(self):
        """What stands between the brackets of the module's ``repr``. Override to say more."""
        return ""

    def __repr__(self):
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [
            f"({name}): " + _indent(repr(module), 2) for name, module in self._modules.items()
        ]
        lines = extra_lines + child_lines
        if len(extra_lines) == 1 and not child_lines:
            return f"{self._get_name()}({extra_lines[0]})"
        if not lines:
            return f"{self._get_name()}()"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


def _indent(text, spaces):
    """Indent every line but the first."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line for line in rest)])


def _typename(value):
    """The type of ``value`` with its module, as PyTorch names it in errors."""
    kind = type(value)
    if kind.__module__ in ("builtins", "__builtin__"):
        return kind.__name__
    return f"{kind.__module__}.{kind.__qualname__}"


def _parse_to(args, kwargs):
    """(device or None, dtype or None) of a call of :meth:`Module.to`."""
    place, kind = kwargs.get("device"), kwargs.get("dtype")
    unknown = set(kwargs) - {"device", "dtype", "non_blocking", "copy", "memory_format"}
    if unknown:
        raise TypeError(f"to() received an unexpected keyword argument '{sorted(unknown)[0]}'")
    for arg in args:
        if isinstance(arg, dtype):
            kind = arg
        elif isinstance(arg, Tensor):
            place, kind = arg.device, arg.dtype
        elif isinstance(arg, (str, int, device)) and not isinstance(arg, bool):
            place = arg
        elif arg is not None and not isinstance(arg, bool):  # A bool is non_blocking or copy.
            raise TypeError(
                "to() received an invalid combination of arguments - got "
                f"({type(arg).__name__}); hint: pass a device, a dtype or a tensor"
            )
    return (None if place is None else device(place)), kind
