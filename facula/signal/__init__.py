"""Signal processing: PyTorch's ``torch.signal``."""

from facula.signal import windows

__all__ = ["windows"]
