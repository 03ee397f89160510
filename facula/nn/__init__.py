"""Neural networks: modules, their parameters, initialisers and losses, named as in PyTorch."""

from facula.nn import functional, init, utils
from facula.nn.modules import *  # noqa: F403
from facula.nn.modules._hooks import RemovableHandle as RemovableHandle
from facula.nn.parameter import (
    Buffer,
    Parameter,
    UninitializedBuffer,
    UninitializedParameter,
)

__all__ = [
    "Buffer",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "functional",
    "init",
    "utils",
]
