"""What happens around the graph: hooks on saved tensors, and the class of its nodes."""

from facula.autograd.recording import save_on_cpu, saved_tensors_hooks
from facula.eager.tape import Node

__all__ = ["Node", "save_on_cpu", "saved_tensors_hooks"]
