"""Helpers around modules: gradient clipping, vectors of parameters, parametrizations."""

from facula.nn.utils import parametrizations, parametrize, prune, rnn, stateless
from facula.nn.utils.clip_grad import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from facula.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from facula.nn.utils.fusion import (
    fuse_conv_bn_eval,
    fuse_conv_bn_weights,
    fuse_linear_bn_eval,
    fuse_linear_bn_weights,
)
from facula.nn.utils.parametrizations import spectral_norm, weight_norm

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "convert_conv2d_weight_memory_format",
    "convert_conv3d_weight_memory_format",
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "prune",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "skip_init",
    "spectral_norm",
    "stateless",
    "vector_to_parameters",
    "weight_norm",
]

#: The name of before PyTorch 0.4.
clip_grad_norm = clip_grad_norm_


def remove_weight_norm(module, name="weight"):
    """Make a weight that :func:`weight_norm` split an ordinary parameter again."""
    if not parametrize.is_parametrized(module, name):
        raise ValueError(f"weight_norm of '{name}' not found in {module}")
    return parametrize.remove_parametrizations(module, name)


def remove_spectral_norm(module, name="weight"):
    """Make a weight that :func:`spectral_norm` divides an ordinary parameter again."""
    if not parametrize.is_parametrized(module, name):
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    return parametrize.remove_parametrizations(module, name)


def skip_init(module_cls, *args, **kwargs):
    """A module whose values are to be loaded: they are as after its construction."""
    return module_cls(*args, **kwargs)


def convert_conv2d_weight_memory_format(module, memory_format):
    """The module: the order of dimensions in memory is the kernels' own affair."""
    return module


convert_conv3d_weight_memory_format = convert_conv2d_weight_memory_format
