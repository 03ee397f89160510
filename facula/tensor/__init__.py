"""Tensors as the user holds them: eager calls, views, changes in place, and the tape of gradients."""

from facula.tensor import methods, pickling  # noqa: F401  attach methods
from facula.tensor.autograd_api import backward, grad
from facula.tensor.creation import empty, tensor
from facula.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from facula.tensor.interop import from_numpy
from facula.tensor.meta import Size
from facula.tensor.tensor import Tensor

__all__ = [
    "Size",
    "Tensor",
    "backward",
    "empty",
    "enable_grad",
    "from_numpy",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
    "tensor",
]
