"""The pieces of ``Function``, where PyTorch has them."""

from facula.tensor.function import Function, FunctionCtx, once_differentiable

__all__ = ["Function", "FunctionCtx", "once_differentiable"]
