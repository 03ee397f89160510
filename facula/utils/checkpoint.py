"""Memory for time: what backward needs is computed again instead of kept."""

from facula.autograd.recording import checkpoint, checkpoint_sequential

__all__ = ["checkpoint", "checkpoint_sequential"]
