"""Parameters as one vector, and back."""

from facula.tensor import Tensor, cat

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters):
    """All values of ``parameters``, one after the other, as a tensor of one dimension.

    >>> from facula import nn
    >>> tuple(nn.utils.parameters_to_vector(nn.Linear(2, 3).parameters()).shape)
    (9,)
    """
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec, parameters):
    """Give ``parameters`` the values of ``vec``, in their order; they become views of it."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].reshape(parameter.shape).data
        start = end
