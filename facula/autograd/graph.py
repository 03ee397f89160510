"""What happens around the graph: hooks on saved tensors, and the class of its nodes."""

from facula.tensor.recording import save_on_cpu, saved_tensors_hooks
from facula.tensor.tape import Node

__all__ = ["Node", "save_on_cpu", "saved_tensors_hooks"]
