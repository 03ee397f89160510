"""Dropout in training mode; in evaluation mode all of these return their input."""

import facula.nn.functional as F
from facula.nn.modules.module import Module

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Dropout(Module):
    drop: str

    def __init__(self, p=0.5, inplace=False):
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input):
        return getattr(F, self.drop)(input, self.p, self.training, self.inplace)

    def extra_repr(self):
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Set each value to zero with probability ``p`` and scale the others by ``1 / (1 - p)``.

    >>> from facula import nn, ones
    >>> nn.Dropout(0.9).eval()(ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    drop = "dropout"


class Dropout1d(_Dropout):
    """Drop whole channels of an input ``(N, C, L)`` or ``(C, L)``."""

    drop = "dropout1d"


class Dropout2d(_Dropout):
    """Drop whole channels of an input ``(N, C, H, W)`` or ``(C, H, W)``."""

    drop = "dropout2d"


class Dropout3d(_Dropout):
    """Drop whole channels of an input ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    drop = "dropout3d"


class AlphaDropout(_Dropout):
    """Dropout for SELU networks: keeps mean and variance (Klambauer, 2017)."""

    drop = "alpha_dropout"


class FeatureAlphaDropout(_Dropout):
    """:class:`AlphaDropout` of whole channels."""

    drop = "feature_alpha_dropout"
