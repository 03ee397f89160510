"""Limits on gradients."""

import math

from facula.tensor import Tensor, no_grad, stack, tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]


def _gradients(parameters):
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@no_grad()
def get_total_norm(tensors, norm_type=2.0, error_if_nonfinite=False, foreach=None):
    """The ``norm_type``-norm of all values of ``tensors`` as if they were one vector.

    Raises:
        RuntimeError: the norm is infinite or NaN and ``error_if_nonfinite``.
    """
    tensors = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return tensor(0.0)
    norms = [values.norm(norm_type) for values in tensors]
    total = stack([norm.to(norms[0].dtype) for norm in norms]).norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, "
            "so it cannot be clipped. To disable this error and scale the gradients by the "
            "non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return total


@no_grad()
def clip_grads_with_norm_(parameters, max_norm, total_norm, foreach=None):
    """Scale the gradients by ``max_norm / total_norm`` where that is under 1."""
    # Multiplied in any case, so that nothing waits for the value of the norm.
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for gradient in _gradients(parameters):
        gradient.mul_(factor.to(gradient.dtype))


@no_grad()
def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False, foreach=None):
    """Scale all gradients together so that their norm is at most ``max_norm``.

    Args:
        parameters: an iterable of tensors, or one.
        max_norm: the limit.
        norm_type: the order of the norm; may be infinity.
        error_if_nonfinite: raise where the norm is infinite or NaN.
        foreach: accepted; all go together anyway.

    Returns:
        The norm before, a tensor of no dimension.

    >>> from facula import nn, ones
    >>> weight = nn.Parameter(ones(4))
    >>> (weight * 3).sum().backward()
    >>> nn.utils.clip_grad_norm_(weight, 1.0).item()
    6.0
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total_norm = get_total_norm(_gradients(parameters), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total_norm, foreach)
    return total_norm


@no_grad()
def clip_grad_value_(parameters, clip_value, foreach=None):
    """Clamp each value of the gradients to [-``clip_value``, ``clip_value``]."""
    clip_value = float(clip_value)
    for gradient in _gradients(parameters):
        gradient.clamp_(min=-clip_value, max=clip_value)
