"""Initialisers: they fill a tensor in place, outside the graph, and return it.

The uniform and normal rules of Glorot (2010) and He (2015) keep the variance of what flows through
a layer; ``fan_in`` and ``fan_out`` are how many values one output reads and one input feeds.
"""

import math
import warnings

from facula.tensor import empty, no_grad, zeros
from facula.tensor import eye as _eye

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "conv_transpose1d": 1.0,
    "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}


def calculate_gain(nonlinearity, param=None):
    """By how much to scale the weights before ``nonlinearity`` for the variance to stay.

    Args:
        nonlinearity: a name, such as ``"relu"`` or ``"conv2d"``.
        param: the slope of ``"leaky_relu"``, 0.01 where left out.

    >>> from facula import nn
    >>> round(nn.init.calculate_gain("leaky_relu", 0.2), 4)
    1.3868
    """
    if nonlinearity == "leaky_relu":
        if param is None:
            param = 0.01
        elif isinstance(param, bool) or not isinstance(param, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + param**2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return _GAINS[nonlinearity]


def _calculate_fan_in_and_fan_out(tensor):
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def _fan(tensor, mode):
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return fan_in if mode == "fan_in" else fan_out


@no_grad()
def uniform_(tensor, a=0.0, b=1.0, generator=None):
    """Fill with draws from the uniform distribution on [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@no_grad()
def normal_(tensor, mean=0.0, std=1.0, generator=None):
    """Fill with draws from the normal distribution."""
    return tensor.normal_(mean, std, generator=generator)


@no_grad()
def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None):
    """Fill with draws from the normal distribution cut to [a, b].

    Uniform draws between the distribution's values at the cuts go through its inverse.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. "
            "The distribution of values may be incorrect.",
            stacklevel=2,
        )

    def cdf(x):
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    low, high = cdf((a - mean) / std), cdf((b - mean) / std)
    tensor.uniform_(2 * low - 1, 2 * high - 1, generator=generator)
    tensor.erfinv_()
    tensor.mul_(std * math.sqrt(2.0)).add_(mean)
    return tensor.clamp_(min=a, max=b)


@no_grad()
def constant_(tensor, val):
    """Fill with one value."""
    return tensor.fill_(val)


@no_grad()
def ones_(tensor):
    """Fill with ones."""
    return tensor.fill_(1.0)


@no_grad()
def zeros_(tensor):
    """Fill with zeros."""
    return tensor.zero_()


@no_grad()
def eye_(tensor):
    """Make a matrix the identity, padded with zeros where it is not square."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return tensor.copy_(_eye(*tensor.shape))


@no_grad()
def dirac_(tensor, groups=1):
    """Make a convolution's weight pass its input through: ones at the kernel's middle.

    Args:
        tensor: a weight of 3, 4 or 5 dimensions.
        groups: in how many groups the channels fall.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if tensor.shape[0] % groups != 0:
        raise ValueError("dim 0 must be divisible by groups")
    out_per_group = tensor.shape[0] // groups
    middle = tuple(size // 2 for size in tensor.shape[2:])
    tensor.zero_()
    for group in range(groups):
        for channel in range(min(out_per_group, tensor.shape[1])):
            tensor[(group * out_per_group + channel, channel, *middle)] = 1
    return tensor


@no_grad()
def xavier_uniform_(tensor, gain=1.0, generator=None):
    """Glorot's uniform rule: bound ``gain * sqrt(6 / (fan_in + fan_out))``."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return tensor.uniform_(-bound, bound, generator=generator)


@no_grad()
def xavier_normal_(tensor, gain=1.0, generator=None):
    """Glorot's normal rule: standard deviation ``gain * sqrt(2 / (fan_in + fan_out))``."""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return tensor.normal_(0.0, std, generator=generator)


@no_grad()
def kaiming_uniform_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """He's uniform rule: bound ``gain * sqrt(3 / fan)``.

    Args:
        tensor: a weight of at least 2 dimensions.
        a: the slope of the leaky ReLU that follows.
        mode: ``"fan_in"`` keeps the variance forward, ``"fan_out"`` backward.
        nonlinearity: what follows, a name that :func:`calculate_gain` knows.
        generator: the source of the draws.
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return tensor.uniform_(-bound, bound, generator=generator)


@no_grad()
def kaiming_normal_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """He's normal rule: standard deviation ``gain / sqrt(fan)``; see :func:`kaiming_uniform_`."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return tensor.normal_(0.0, std, generator=generator)


def _orthonormal_columns(matrix):
    """Orthonormal columns that span the same spaces as the first columns of ``matrix``, tall.

    Gram-Schmidt, each column cleaned twice: once loses digits where columns are nearly parallel,
    twice is enough (Kahan's "twice is enough").
    """
    basis = zeros(matrix.shape, dtype=matrix.dtype)
    for j in range(matrix.shape[1]):
        column = matrix[:, j]
        for _ in range(2):
            column = column - basis @ (basis.t() @ column)
        basis[:, j] = column / (column * column).sum().sqrt()
    return basis


@no_grad()
def orthogonal_(tensor, gain=1, generator=None):
    """Make a matrix (semi-)orthogonal, drawn uniformly (Saxe, 2013).

    Dimensions after the first are taken as one. Rows are orthonormal where there are fewer rows
    than columns, else columns are.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    draws = empty(rows, columns, dtype=tensor.dtype).normal_(0, 1, generator=generator)
    wide = rows < columns
    basis = _orthonormal_columns(draws.t() if wide else draws)
    tensor.copy_((basis.t() if wide else basis).reshape(tensor.shape))
    return tensor.mul_(gain)


@no_grad()
def sparse_(tensor, sparsity, std=0.01, generator=None):
    """Fill a matrix with normal draws, then set a share ``sparsity`` of each column to zero."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    n_zeros = math.ceil(sparsity * rows)
    tensor.normal_(0, std, generator=generator)
    order = empty(rows, columns).uniform_(0, 1, generator=generator).argsort(dim=0)
    tensor[order.argsort(dim=0) < n_zeros] = 0
    return tensor


def _former(new):
    """The name without the underscore, of before PyTorch 0.4: the same function, with a warning."""

    def function(*args, **kwargs):
        warnings.warn(
            f"nn.init.{new.__name__[:-1]} is now deprecated in favor of nn.init.{new.__name__}.",
            FutureWarning,
            stacklevel=2,
        )
        return new(*args, **kwargs)

    function.__name__ = function.__qualname__ = new.__name__[:-1]
    function.__doc__ = f"The former name of ``{new.__name__}``."
    return function


uniform, normal, constant = map(_former, (uniform_, normal_, constant_))
eye, dirac, orthogonal, sparse = map(_former, (eye_, dirac_, orthogonal_, sparse_))
xavier_uniform, xavier_normal = _former(xavier_uniform_), _former(xavier_normal_)
kaiming_uniform, kaiming_normal = _former(kaiming_uniform_), _former(kaiming_normal_)
