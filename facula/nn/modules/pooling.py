"""Pooling over windows and to given sizes."""

import facula.nn.functional as F
from facula.nn.modules._tuples import ntuple
from facula.nn.modules.module import Module

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class _MaxPool(Module):
    pool: str

    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        return_indices=False,
        ceil_mode=False,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input):
        return getattr(F, self.pool)(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self):
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The maximum of each window of ``(N, C, L)`` or ``(C, L)``.

    Args:
        kernel_size: the window's size.
        stride: how far apart windows start; ``kernel_size`` where left out.
        padding: how much of minus infinity to add on both sides, at most half the window.
        dilation: how far apart the values of a window are.
        return_indices: also return where each maximum was.
        ceil_mode: round the output's size up.
    """

    pool = "max_pool1d"


class MaxPool2d(_MaxPool):
    """The maximum of each window of ``(N, C, H, W)`` or ``(C, H, W)``; see :class:`MaxPool1d`.

    >>> from facula import nn, ones
    >>> tuple(nn.MaxPool2d(3, stride=2)(ones(2, 16, 50, 32)).shape)
    (2, 16, 24, 15)
    """

    pool = "max_pool2d"


class MaxPool3d(_MaxPool):
    """The maximum of each window of ``(N, C, D, H, W)`` or without N; see :class:`MaxPool1d`."""

    pool = "max_pool3d"


class _MaxUnpool(Module):
    n_dims: int
    unpool: str

    def __init__(self, kernel_size, stride=None, padding=0):
        super().__init__()
        self.kernel_size = ntuple(kernel_size, self.n_dims)
        self.stride = ntuple(stride if stride is not None else kernel_size, self.n_dims)
        self.padding = ntuple(padding, self.n_dims)

    def forward(self, input, indices, output_size=None):
        return getattr(F, self.unpool)(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Put values back where :class:`MaxPool1d` found them, zeros elsewhere."""

    n_dims = 1
    unpool = "max_unpool1d"


class MaxUnpool2d(_MaxUnpool):
    """Put values back where :class:`MaxPool2d` found them, zeros elsewhere."""

    n_dims = 2
    unpool = "max_unpool2d"


class MaxUnpool3d(_MaxUnpool):
    """Put values back where :class:`MaxPool3d` found them, zeros elsewhere."""

    n_dims = 3
    unpool = "max_unpool3d"


class AvgPool1d(Module):
    """The mean of each window of ``(N, C, L)`` or ``(C, L)``.

    Args:
        kernel_size: the window's size.
        stride: how far apart windows start; ``kernel_size`` where left out.
        padding: how many zeros to add on both sides, at most half the window.
        ceil_mode: round the output's size up.
        count_include_pad: whether the padding counts in the mean.
    """

    def __init__(
        self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
    ):
        super().__init__()
        self.kernel_size = ntuple(kernel_size, 1)
        self.stride = ntuple(stride if stride is not None else kernel_size, 1)
        self.padding = ntuple(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input):
        return F.avg_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    pool: str

    def __init__(
        self,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    ):
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input):
        return getattr(F, self.pool)(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of each window of ``(N, C, H, W)`` or ``(C, H, W)``; see :class:`AvgPool1d`.

    ``divisor_override`` divides the sum by a number of your own.

    >>> from facula import nn, ones
    >>> tuple(nn.AvgPool2d(2)(ones(1, 3, 6, 8)).shape)
    (1, 3, 3, 4)
    """

    pool = "avg_pool2d"


class AvgPool3d(_AvgPool):
    """The mean of each window of ``(N, C, D, H, W)`` or without N; see :class:`AvgPool2d`."""

    pool = "avg_pool3d"


class _LPPool(Module):
    pool: str

    def __init__(self, norm_type, kernel_size, stride=None, ceil_mode=False):
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input):
        return getattr(F, self.pool)(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )

    def extra_repr(self):
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """``(sum of x^p)^(1/p)`` of each window of ``(N, C, L)``, p = ``norm_type``."""

    pool = "lp_pool1d"


class LPPool2d(_LPPool):
    """``(sum of x^p)^(1/p)`` of each window of ``(N, C, H, W)``, p = ``norm_type``."""

    pool = "lp_pool2d"


class LPPool3d(_LPPool):
    """``(sum of x^p)^(1/p)`` of each window of ``(N, C, D, H, W)``, p = ``norm_type``."""

    pool = "lp_pool3d"


class _AdaptiveAvgPool(Module):
    pool: str

    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size

    def forward(self, input):
        return getattr(F, self.pool)(input, self.output_size)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means of as many windows as the output is long, of ``(N, C, L)`` or ``(C, L)``."""

    pool = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means of windows of ``(N, C, H, W)``, so that the output is ``output_size``.

    ``output_size`` is one number or (height, width), with None for the input's size.

    >>> from facula import nn, ones
    >>> tuple(nn.AdaptiveAvgPool2d((5, None))(ones(1, 2, 8, 9)).shape)
    (1, 2, 5, 9)
    """

    pool = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """:class:`AdaptiveAvgPool2d` for ``(N, C, D, H, W)``."""

    pool = "adaptive_avg_pool3d"


class _AdaptiveMaxPool(Module):
    pool: str

    def __init__(self, output_size, return_indices=False):
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input):
        return getattr(F, self.pool)(input, self.output_size, self.return_indices)

    def extra_repr(self):
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maxima of as many windows as the output is long, of ``(N, C, L)`` or ``(C, L)``."""

    pool = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maxima of windows of ``(N, C, H, W)``, so that the output is ``output_size``."""

    pool = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """:class:`AdaptiveMaxPool2d` for ``(N, C, D, H, W)``."""

    pool = "adaptive_max_pool3d"


class _FractionalMaxPool(Module):
    pool: str

    def __init__(self, kernel_size, output_size=None, output_ratio=None, return_indices=False,
                 _random_samples=None):  # fmt: skip
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            raise ValueError(f"{self.pool} requires one of output_size and output_ratio")
        self.kernel_size, self.output_size = kernel_size, output_size
        self.output_ratio, self.return_indices = output_ratio, return_indices
        self.register_buffer("_random_samples", _random_samples)

    def forward(self, input):
        return getattr(F, self.pool)(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            _random_samples=self._random_samples,
        )  # fmt: skip


class FractionalMaxPool2d(_FractionalMaxPool):
    """The largest elements of windows at random, overlapping places (Graham, 2014).

    Args:
        kernel_size: the window's size.
        output_size, output_ratio: the size of the result, or its ratio to the input's.
        return_indices: also give the flat positions of these elements, for ``MaxUnpool2d``.

    >>> from facula import nn, ones
    >>> tuple(nn.FractionalMaxPool2d(2, output_ratio=0.5)(ones(1, 3, 8, 6)).shape)
    (1, 3, 4, 3)
    """

    pool = "fractional_max_pool2d"


class FractionalMaxPool3d(_FractionalMaxPool):
    """:class:`FractionalMaxPool2d` of volumes."""

    pool = "fractional_max_pool3d"
