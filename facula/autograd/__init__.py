"""Automatic differentiation as users see it: PyTorch's ``torch.autograd``.

(Derivatives of Programs are made in ``facula.derivatives``; the tape is ``facula.eager.tape``.)
"""

import importlib

from facula.autograd import functional, graph
from facula.autograd.function import Function
from facula.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from facula.autograd.recording import detect_anomaly, set_detect_anomaly
from facula.eager.grad_mode import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
from facula.eager.tensor import Tensor
from facula.tensor.autograd_api import backward, grad


def __getattr__(name):
    if name == "profiler":  # there without an import of its own, and loaded by nobody else
        return importlib.import_module("facula.autograd.profiler")
    raise AttributeError(f"module 'facula.autograd' has no attribute {name!r}")


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
