"""Convolutions and transposed convolutions of one to three dimensions."""

import math

import facula.nn.functional as F
from facula.nn import init
from facula.nn.modules._tuples import ntuple
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import empty

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _pad_amounts(padding, kernel_size, dilation):
    """What ``F.pad`` takes: (left, right) of each dimension, the last dimension first."""
    amounts = []
    for i in reversed(range(len(kernel_size))):
        if padding == "same":
            total = dilation[i] * (kernel_size[i] - 1)
            amounts += [total // 2, total - total // 2]
        elif padding == "valid":
            amounts += [0, 0]
        else:
            amounts += [padding[i], padding[i]]
    return amounts


class _ConvNd(Module):
    """What all convolutions share: their sizes, weights and repr."""

    n_dims: int
    transposed = False

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding,
        dilation,
        output_padding,
        groups,
        bias,
        padding_mode,
        device,
        dtype,
    ):
        super().__init__()
        n = self.n_dims
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {sorted(_PADDING_MODES)}, "
                f"but got padding_mode='{padding_mode}'"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, n)
        self.stride = ntuple(stride, n)
        self.dilation = ntuple(dilation, n)
        self.output_padding = ntuple(output_padding, n)
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"Invalid padding string {padding!r}, should be one of ('same', 'valid')"
                )
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
            self.padding = padding
        else:
            self.padding = ntuple(padding, n)
        self._pad_amounts = _pad_amounts(self.padding, self.kernel_size, self.dilation)
        outer, inner = out_channels, in_channels
        if self.transposed:
            outer, inner = in_channels, out_channels
        self.weight = Parameter(
            empty(outer, inner // groups, *self.kernel_size, device=device, dtype=dtype)
        )
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        """Draw the weights anew, uniform within ``1 / sqrt(fan_in)``."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self):
        n = self.n_dims
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * n:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * n:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * n:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvNd):
    """A convolution; ``convolve`` is the functional of its number of dimensions."""

    convolve: str

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        device=None,
        dtype=None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input):
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._pad_amounts, mode=self.padding_mode)
            padding = 0
        return getattr(F, self.convolve)(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv1d(_Conv):
    """Convolution over the last dimension.

    Args:
        in_channels, out_channels: channels of input and output.
        kernel_size, stride, dilation: a number each, or a tuple of one a dimension.
        padding: how much to add on both sides, or ``"same"`` or ``"valid"``.
        groups: in how many groups the channels fall; a group sees only its own input channels.
        bias: whether to add a bias.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.

    Shapes:
        input ``(N, in_channels, L)`` or ``(in_channels, L)``, output the same with
        ``floor((L + 2 * padding - dilation * (kernel_size - 1) - 1) / stride) + 1`` for L;
        weight ``(out_channels, in_channels / groups, kernel_size)``.

    >>> from facula import nn, ones
    >>> tuple(nn.Conv1d(2, 4, 3, padding=1)(ones(8, 2, 10)).shape)
    (8, 4, 10)
    """

    n_dims = 1
    convolve = "conv1d"


class Conv2d(_Conv):
    """Convolution over the last two dimensions; the arguments are :class:`Conv1d`'s.

    Shapes:
        input ``(N, in_channels, H, W)`` or without N,
        weight ``(out_channels, in_channels / groups, *kernel_size)``.

    >>> from facula import nn, ones
    >>> tuple(nn.Conv2d(3, 8, 3, stride=2, padding=1)(ones(4, 3, 8, 8)).shape)
    (4, 8, 4, 4)
    """

    n_dims = 2
    convolve = "conv2d"


class Conv3d(_Conv):
    """Convolution over the last three dimensions; the arguments are :class:`Conv1d`'s.

    Shapes:
        input ``(N, in_channels, D, H, W)`` or without N.

    >>> from facula import nn, ones
    >>> tuple(nn.Conv3d(1, 2, 3)(ones(1, 1, 4, 5, 6)).shape)
    (1, 2, 2, 3, 4)
    """

    n_dims = 3
    convolve = "conv3d"


class _ConvTranspose(_ConvNd):
    """A transposed convolution; ``convolve`` is the functional of its number of dimensions."""

    convolve: str
    transposed = True

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        bias=True,
        dilation=1,
        padding_mode="zeros",
        device=None,
        dtype=None,
    ):
        if padding_mode != "zeros":
            raise ValueError(
                f'Only "zeros" padding mode is supported for {self.__class__.__name__}'
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _output_padding(self, input, output_size):
        """The output padding that makes the output ``output_size``.

        A strided convolution maps several sizes to one, so the transposed one has a choice of
        sizes, from the smallest up to ``stride - 1`` more in each dimension.
        """
        if output_size is None:
            return self.output_padding
        n = self.n_dims
        sizes = tuple(output_size)
        if len(sizes) == input.ndim:
            sizes = sizes[-n:]
        if len(sizes) != n:
            raise ValueError(
                f"ConvTranspose{n}D: for {input.ndim}D input, output_size must have {n} or "
                f"{input.ndim} elements (got {len(sizes)})"
            )
        smallest = [
            (input.shape[d - n] - 1) * self.stride[d]
            - 2 * self.padding[d]
            + self.dilation[d] * (self.kernel_size[d] - 1)
            + 1
            for d in range(n)
        ]
        largest = [size + stride - 1 for size, stride in zip(smallest, self.stride)]
        if any(not low <= size <= high for low, size, high in zip(smallest, sizes, largest)):
            raise ValueError(
                f"requested an output size of {list(sizes)}, but valid sizes range from "
                f"{smallest} to {largest} (for an input of {tuple(input.shape[-n:])})"
            )
        return tuple(size - low for size, low in zip(sizes, smallest))

    def forward(self, input, output_size=None):
        return getattr(F, self.convolve)(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self._output_padding(input, output_size),
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_ConvTranspose):
    """The gradient of :class:`Conv1d` with respect to its input, as a layer of its own.

    Args:
        padding: how much to cut off on both sides; ``dilation * (kernel_size - 1)`` is added first.
        output_padding: how much to add to the output on one side.
        others: as :class:`Conv1d`'s.

    Shapes:
        input ``(N, in_channels, L)`` or without N, output the same with ``(L - 1) * stride
        - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1`` for L;
        weight ``(in_channels, out_channels / groups, kernel_size)``.

    >>> from facula import nn, ones
    >>> tuple(nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1)(ones(1, 2, 5)).shape)
    (1, 3, 10)
    """

    n_dims = 1
    convolve = "conv_transpose1d"


class ConvTranspose2d(_ConvTranspose):
    """The gradient of :class:`Conv2d` with respect to its input; see :class:`ConvTranspose1d`.

    >>> from facula import nn, ones
    >>> tuple(nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1)(ones(1, 2, 5, 6)).shape)
    (1, 3, 10, 12)
    """

    n_dims = 2
    convolve = "conv_transpose2d"


class ConvTranspose3d(_ConvTranspose):
    """The gradient of :class:`Conv3d` with respect to its input; see :class:`ConvTranspose1d`.

    >>> from facula import nn, ones
    >>> tuple(nn.ConvTranspose3d(1, 2, 2, stride=2)(ones(1, 1, 2, 3, 4)).shape)
    (1, 2, 4, 6, 8)
    """

    n_dims = 3
    convolve = "conv_transpose3d"
