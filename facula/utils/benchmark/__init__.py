"""Timing of small programs: PyTorch's ``torch.utils.benchmark``."""

from facula.utils.benchmark.compare import Compare
from facula.utils.benchmark.measurement import Measurement, TaskSpec
from facula.utils.benchmark.timer import Timer

__all__ = ["Compare", "Measurement", "TaskSpec", "Timer"]
