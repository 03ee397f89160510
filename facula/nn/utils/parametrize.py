"""Parametrizations: a parameter computed from others by modules of your choice.

``module.weight`` becomes a property. What it is computed from is kept in
``module.parametrizations.weight``: ``original`` (or ``original0``, ``original1``, ... where a
parametrization's ``right_inverse`` gives several), and the modules, applied one after the other.
State dicts thus have the keys ``parametrizations.weight.original`` and so on.
"""

import copy
from contextlib import contextmanager

from facula.nn.modules.container import ModuleDict, ModuleList
from facula.nn.parameter import Parameter
from facula.tensor import Tensor, no_grad

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]

_cache = {}
_cache_depth = 0


@contextmanager
def cached():
    """Within it, each parametrized tensor is computed once and then kept."""
    global _cache_depth
    _cache_depth += 1
    try:
        yield
    finally:
        _cache_depth -= 1
        if _cache_depth == 0:
            _cache.clear()


def _keep(module, name, tensor):
    """Register ``tensor`` as what it was: a parameter or a buffer."""
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor and what they are applied to.

    Args:
        modules: the parametrizations.
        original: the tensor as it was.
        unsafe: whether shape and dtype may change.
    """

    def __init__(self, modules, original, unsafe=False):
        modules = list(modules)
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        inverse = self._inverse(original)
        self.is_tensor = isinstance(inverse, Tensor)
        if self.is_tensor:
            self.ntensors = 1
            with no_grad():
                # The parameter stays the same object, so that optimizers that hold it go on.
                original.data = inverse.data
            _keep(self, "original", original)
            return
        self.ntensors = len(inverse)
        for i, part in enumerate(inverse):
            if isinstance(original, Parameter):
                part = Parameter(part, requires_grad=original.requires_grad)
            _keep(self, f"original{i}", part)

    def _inverse(self, value):
        """What the parametrizations must be applied to, to give ``value``."""
        with no_grad():
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is not None:
                    value = inverse(value)
        if not isinstance(value, (Tensor, list, tuple)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(value).__name__}"
            )
        return value

    def _originals(self):
        if self.is_tensor:
            return (self.original,)
        return tuple(getattr(self, f"original{i}") for i in range(self.ntensors))

    @no_grad()
    def right_inverse(self, value):
        """Set what the tensor is computed from, so that it becomes ``value``."""
        inverse = self._inverse(value)
        parts = (inverse,) if self.is_tensor else inverse
        for original, part in zip(self._originals(), parts):
            original.data = part.data

    def forward(self):
        first, *rest = self
        value = first(*self._originals())
        for module in rest:
            value = module(value)
        return value


def _property(name):
    def get(self):
        if _cache_depth == 0:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]

    def set(self, value):
        self.parametrizations[name].right_inverse(value)

    return property(get, set)


def _own_class(module):
    """Give ``module`` a class of its own, which can hold properties of this module alone."""
    cls = type(module)

    def reduce(self, protocol):
        raise RuntimeError(
            "Serialization of parametrized modules is only supported through state_dict(). See: "
            "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
            "#saving-loading-a-general-checkpoint-for-inference-and-or-resuming-training"
        )

    def deepcopy(self, memo):
        # A class of its own for the copy too, or undoing one would undo the other.
        cls = type(self)
        own = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        cls = type(cls.__name__, cls.__bases__, own)
        copied = cls.__new__(cls)
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    members = {"__reduce_ex__": reduce, "__deepcopy__": deepcopy}
    module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), members)


def register_parametrization(module, tensor_name, parametrization, *, unsafe=False):
    """Compute ``module.<tensor_name>`` by ``parametrization`` from now on.

    Args:
        module: whose parameter or buffer it is.
        tensor_name: its name.
        parametrization: a module whose ``forward`` maps the original to the tensor. With a method
            ``right_inverse`` the tensor can be assigned to, and keeps its value now.
        unsafe: whether shape and dtype may change.

    Returns:
        ``module``.

    >>> from facula import nn
    >>> from facula.nn.utils import parametrize
    >>> class Symmetric(nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).transpose(-1, -2)
    >>> layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.t()).all()), sorted(layer.state_dict())
    (True, ['bias', 'parametrizations.weight.original'])
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        entries = module.parametrizations[tensor_name]
        if not unsafe:
            before = getattr(module, tensor_name)
            _check_same(before.shape, before.dtype, parametrization(before), tensor_name)
        if hasattr(parametrization, "right_inverse"):
            value = getattr(module, tensor_name)
            entries.append(parametrization)
            setattr(module, tensor_name, value.detach())
        else:
            entries.append(parametrization)
        entries.unsafe |= unsafe
        return module
    if tensor_name not in module._buffers and tensor_name not in module._parameters:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element "
            f"with name '{tensor_name}'"
        )
    original = getattr(module, tensor_name)
    shape, dtype = original.shape, original.dtype
    entries = ParametrizationList([parametrization], original, unsafe=unsafe)
    if not unsafe:
        with no_grad():
            _check_same(shape, dtype, entries(), tensor_name)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _own_class(module)
        module.parametrizations = ModuleDict()
    setattr(type(module), tensor_name, _property(tensor_name))
    module.parametrizations[tensor_name] = entries
    return module


def _check_same(shape, dtype, after, name):
    if tuple(after.shape) != tuple(shape) or after.dtype != dtype:
        raise ValueError(
            "Registering a parametrization may not change the dtype or the shape of the tensor: "
            f"{name} was {dtype} {tuple(shape)}, would be {after.dtype} {tuple(after.shape)}; "
            "hint: pass unsafe=True"
        )


def is_parametrized(module, tensor_name=None):
    """Whether ``module``, or its tensor of that name, is parametrized."""
    entries = module.__dict__.get("_modules", {}).get("parametrizations")
    if not isinstance(entries, ModuleDict):
        return False
    return len(entries) > 0 if tensor_name is None else tensor_name in entries


def remove_parametrizations(module, tensor_name, leave_parametrized=True):
    """Make ``module.<tensor_name>`` an ordinary tensor again.

    Args:
        leave_parametrized: keep the computed value, else go back to the original one.

    Returns:
        ``module``.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    entries = module.parametrizations[tensor_name]
    original = entries._originals()[0]
    if not leave_parametrized and not entries.is_tensor:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is "
            "parametrized in terms of a sequence of tensors."
        )
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach().clone()
        if not entries.is_tensor:
            trained = isinstance(original, Parameter)
            original = Parameter(value, original.requires_grad) if trained else value
        else:
            original.data = value
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _keep(module, tensor_name, original)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module):
    """The class of ``module`` as if nothing of it were parametrized."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)
