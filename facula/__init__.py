"""Deep learning with PyTorch's interface, in Python from the tensor down to the machine code."""

__version__ = "0.1.0"
