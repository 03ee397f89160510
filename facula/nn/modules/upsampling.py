"""Upsampling by interpolation."""

import facula.nn.functional as F
from facula.nn.modules.module import Module

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]


class Upsample(Module):
    """Resize the dimensions after the channels, to ``size`` or by ``scale_factor``.

    Args:
        size: the output's size, one number or one a dimension.
        scale_factor: by how much to multiply, one number or one a dimension; this or ``size``.
        mode: ``"nearest"``, ``"linear"`` (3 dimensions), ``"bilinear"``, ``"bicubic"`` (4) or
            ``"trilinear"`` (5).
        align_corners: whether the corner pixels of input and output are at the same place.
        recompute_scale_factor: use the scale of the rounded sizes instead of ``scale_factor``.

    >>> from facula import nn, ones
    >>> tuple(nn.Upsample(scale_factor=2)(ones(1, 1, 3, 4)).shape)
    (1, 1, 6, 8)
    """

    def __init__(
        self,
        size=None,
        scale_factor=None,
        mode="nearest",
        align_corners=None,
        recompute_scale_factor=None,
    ):
        super().__init__()
        self.size = size
        if isinstance(scale_factor, tuple):
            self.scale_factor = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input):
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            recompute_scale_factor=self.recompute_scale_factor,
        )

    def extra_repr(self):
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Repeat the nearest pixel of ``(N, C, H, W)``."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Interpolate ``(N, C, H, W)`` between pixels, corners aligned."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
