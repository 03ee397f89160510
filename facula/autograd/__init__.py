"""Automatic differentiation as users see it: PyTorch's ``torch.autograd``.

(Derivatives of Programs are made in ``facula.derivatives``; the tape is ``facula.tensor.tape``.)
"""

from facula.autograd import functional, graph
from facula.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from facula.tensor.autograd_api import backward, grad
from facula.tensor.function import Function
from facula.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
from facula.tensor.recording import detect_anomaly, set_detect_anomaly
from facula.tensor.tensor import Tensor

#: The former name of a tensor that is differentiated.
Variable = Tensor

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "inference_mode",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
