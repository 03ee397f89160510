"""Tensors as the user holds them: eager calls, views, changes in place, and the tape of gradients.

The package gives the functions of PyTorch's top level that make or take tensors; those of the
registry are written when first asked for. It can be called: ``facula.tensor([1, 2])``.
"""

import sys
from types import ModuleType

from facula.base.device import device
from facula.base.dtypes import dtype
from facula.eager.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from facula.eager.meta import Size
from facula.eager.tensor import Tensor
from facula.tensor import methods, namespace, pickling  # noqa: F401  attach methods
from facula.tensor.autograd_api import backward, grad
from facula.tensor.creation import empty
from facula.tensor.data import frombuffer, tensor
from facula.tensor.interop import from_numpy
from facula.tensor.namespace import names_of_space

__all__ = [
    "Size",
    "Tensor",
    "device",
    "dtype",
    "backward",
    "empty",
    "enable_grad",
    "frombuffer",
    "from_numpy",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "names_of_space",
    "no_grad",
    "set_grad_enabled",
    "tensor",
]


def __getattr__(name):
    """Any other public name, such as ``zeros``, ``float32`` or ``cat``."""
    value = globals()[name] = namespace.find(name)
    return value


class _Package(ModuleType):
    def __call__(self, *args, **kwargs):
        return tensor(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
