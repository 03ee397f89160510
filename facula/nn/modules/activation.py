"""Activations: elementwise functions and softmaxes as modules."""

import facula.nn.functional as F
from facula.nn import init
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import empty

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class _Plain(Module):
    """A function of the input alone."""

    function: str

    def forward(self, input):
        return getattr(F, self.function)(input)


class _MaybeInplace(Module):
    """A function that may write over its input; ``inplace`` shows in the repr when set."""

    function: str

    def __init__(self, inplace=False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input):
        return getattr(F, self.function)(input, inplace=self.inplace)

    def extra_repr(self):
        return "inplace=True" if self.inplace else ""


def _with_inplace(text, inplace):
    return text + ", inplace=True" if inplace else text


class Sigmoid(_Plain):
    """``1 / (1 + exp(-x))``."""

    def forward(self, input):
        return input.sigmoid()


class Tanh(_Plain):
    """``tanh(x)``."""

    def forward(self, input):
        return input.tanh()


class LogSigmoid(_Plain):
    """``log(sigmoid(x))``, exact where the sigmoid is near 0."""

    function = "logsigmoid"


class Softsign(_Plain):
    """``x / (1 + |x|)``."""

    function = "softsign"


class Tanhshrink(_Plain):
    """``x - tanh(x)``."""

    function = "tanhshrink"


class ReLU(_MaybeInplace):
    """``max(x, 0)``.

    >>> from facula import nn, tensor
    >>> nn.ReLU()(tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    function = "relu"


class SELU(_MaybeInplace):
    """A scaled ELU whose outputs tend to mean 0 and variance 1 (Klambauer, 2017)."""

    function = "selu"


class SiLU(_MaybeInplace):
    """``x * sigmoid(x)``, also called swish."""

    function = "silu"


class Mish(_MaybeInplace):
    """``x * tanh(softplus(x))`` (Misra, 2019)."""

    function = "mish"


class Hardsigmoid(_MaybeInplace):
    """``relu6(x + 3) / 6``."""

    function = "hardsigmoid"

    def extra_repr(self):
        return ""


class Hardswish(_MaybeInplace):
    """``x * relu6(x + 3) / 6`` (Howard, 2019)."""

    function = "hardswish"

    def extra_repr(self):
        return ""


class Hardtanh(Module):
    """``x`` clamped to [``min_val``, ``max_val``]."""

    def __init__(self, min_val=-1.0, max_val=1.0, inplace=False):
        super().__init__()
        if not max_val > min_val:
            raise AssertionError(
                f"max_val must be larger than min_val, got min_val={min_val} and max_val={max_val}"
            )
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input):
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self):
        return _with_inplace(f"min_val={self.min_val}, max_val={self.max_val}", self.inplace)


class ReLU6(Hardtanh):
    """``min(max(x, 0), 6)``."""

    def __init__(self, inplace=False):
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self):
        return "inplace=True" if self.inplace else ""


class RReLU(Module):
    """A leaky ReLU whose slope is drawn from [``lower``, ``upper``] for each value in training; in
    evaluation mode the slope is their mean."""

    def __init__(self, lower=1.0 / 8, upper=1.0 / 3, inplace=False):
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input):
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self):
        return _with_inplace(f"lower={self.lower}, upper={self.upper}", self.inplace)


class LeakyReLU(Module):
    """``x`` where positive, else ``negative_slope * x``."""

    def __init__(self, negative_slope=1e-2, inplace=False):
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input):
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self):
        return _with_inplace(f"negative_slope={self.negative_slope}", self.inplace)


class PReLU(Module):
    """A leaky ReLU with a learned slope, one for all or one a channel (dimension 1).

    Args:
        num_parameters: 1, or the number of channels.
        init: the slope to start from.
    """

    def __init__(self, num_parameters=1, init=0.25, device=None, dtype=None):
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self):
        """Set the slope to where it started."""
        init.constant_(self.weight, self.init)

    def forward(self, input):
        return F.prelu(input, self.weight)

    def extra_repr(self):
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """``x`` where positive, else ``alpha * (exp(x) - 1)`` (Clevert, 2015)."""

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input):
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self):
        return _with_inplace(f"alpha={self.alpha}", self.inplace)


class CELU(Module):
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`` (Barron, 2017)."""

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input):
        return F.celu(input, self.alpha, self.inplace)

    def extra_repr(self):
        return _with_inplace(f"alpha={self.alpha}", self.inplace)


class GELU(Module):
    """``x * Phi(x)``, Phi the normal distribution (Hendrycks, 2016).

    Args:
        approximate: ``"none"``, or ``"tanh"`` for the approximation by tanh.
    """

    def __init__(self, approximate="none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input):
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class GLU(Module):
    """``a * sigmoid(b)``, where a and b are the halves of x along ``dim`` (Dauphin, 2016)."""

    def __init__(self, dim=-1):
        super().__init__()
        self.dim = dim

    def forward(self, input):
        return F.glu(input, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class Softplus(Module):
    """``log(1 + exp(beta * x)) / beta``, and x itself where ``beta * x > threshold``."""

    def __init__(self, beta=1.0, threshold=20.0):
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input):
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self):
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardshrink(Module):
    """``x`` where ``|x| > lambd``, else 0."""

    def __init__(self, lambd=0.5):
        super().__init__()
        self.lambd = lambd

    def forward(self, input):
        return F.hardshrink(input, self.lambd)

    def extra_repr(self):
        return f"{self.lambd}"


class Softshrink(Module):
    """``x`` moved towards 0 by ``lambd``, and 0 within it."""

    def __init__(self, lambd=0.5):
        super().__init__()
        self.lambd = lambd

    def forward(self, input):
        return F.softshrink(input, self.lambd)

    def extra_repr(self):
        return f"{self.lambd}"


class Threshold(Module):
    """``x`` where ``x > threshold``, else ``value``."""

    def __init__(self, threshold, value, inplace=False):
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input):
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self):
        return _with_inplace(f"threshold={self.threshold}, value={self.value}", self.inplace)


class _AlongDim(Module):
    """A function along one dimension. Without ``dim`` the functional picks one, with a warning."""

    function: str

    def __init__(self, dim=None):
        super().__init__()
        self.dim = dim

    def forward(self, input):
        return getattr(F, self.function)(input, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """``exp(x) / sum(exp(x))`` along ``dim``.

    >>> from facula import nn, zeros
    >>> nn.Softmax(dim=1)(zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    function = "softmax"


class Softmin(_AlongDim):
    """The softmax of ``-x`` along ``dim``."""

    function = "softmin"


class LogSoftmax(_AlongDim):
    """The logarithm of the softmax along ``dim``, exact where that is small."""

    function = "log_softmax"


class Softmax2d(Module):
    """The softmax over the channels of ``(N, C, H, W)`` or ``(C, H, W)``."""

    def forward(self, input):
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return F.softmax(input, -3)
