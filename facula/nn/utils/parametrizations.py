"""Ready-made parametrizations: weight norm and spectral norm."""

import facula.nn.functional as F
from facula.nn.modules.conv import _ConvTranspose
from facula.nn.modules.module import Module
from facula.nn.utils.parametrize import register_parametrization
from facula.tensor import no_grad, randn

__all__ = ["spectral_norm", "weight_norm"]


def _norm_except_dim(weight, dim):
    """The 2-norm over all dimensions but ``dim``, or over all where it is None."""
    others = [d for d in range(weight.ndim) if dim is None or d != dim % weight.ndim]
    return (weight * weight).sum(dim=others, keepdim=True).sqrt()


class _WeightNorm(Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, weight_g, weight_v):
        return weight_v * (weight_g / _norm_except_dim(weight_v, self.dim))

    def right_inverse(self, weight):
        return _norm_except_dim(weight, self.dim), weight


def weight_norm(module, name="weight", dim=0):
    """Split a weight into its length ``original0`` and direction ``original1`` (Salimans, 2016).

    Args:
        module: whose weight it is; changed in place and returned.
        name: the weight's name.
        dim: the dimension that keeps a length each; None for one length.

    >>> from facula import nn
    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    >>> tuple(layer.parametrizations.weight.original0.shape)
    (2, 1)
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def take_older_names(state_dict, prefix, *rest):
        """Files written before there were parametrizations say ``weight_g`` and ``weight_v``."""
        older = f"{prefix}{name}_g", f"{prefix}{name}_v"
        if all(key in state_dict for key in older):
            for i, key in enumerate(older):
                new = f"{prefix}parametrizations.{name}.original{i}"
                state_dict[new] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(take_older_names)
    return module


class _SpectralNorm(Module):
    """Divides by the greatest singular value; the power iteration goes on from call to call."""

    def __init__(self, weight, n_power_iterations, dim, eps):
        super().__init__()
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [-{weight.ndim}, "
                f"{weight.ndim - 1}] but got {dim})"
            )
        self.dim = dim % weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = self._as_matrix(weight.detach())
            rows, columns = matrix.shape
            options = {"dtype": matrix.dtype, "device": matrix.device}
            self.register_buffer("_u", F.normalize(randn(rows, **options), dim=0, eps=eps))
            self.register_buffer("_v", F.normalize(randn(columns, **options), dim=0, eps=eps))
            self._iterate(matrix, 15)

    def _as_matrix(self, weight):
        return weight.transpose(0, self.dim).flatten(1)

    @no_grad()
    def _iterate(self, matrix, times):
        for _ in range(times):
            self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=self.eps))
            self._v.copy_(F.normalize(matrix.t() @ self._u, dim=0, eps=self.eps))

    def forward(self, weight):
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._as_matrix(weight)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        # Copies, since the next call changes the vectors before this one's backward may run.
        u, v = self._u.clone(), self._v.clone()
        return weight / u.dot(matrix @ v)

    def right_inverse(self, value):
        return value


def spectral_norm(module, name="weight", n_power_iterations=1, eps=1e-12, dim=None):
    """Divide a weight by its greatest singular value (Miyato, 2018).

    Args:
        module: whose weight it is; changed in place and returned.
        name: the weight's name.
        n_power_iterations: how many iterations a call makes in training mode.
        eps: the least length that a vector is divided by.
        dim: the dimension of the outputs; 1 for transposed convolutions, else 0, where left out.

    >>> from facula import nn
    >>> sorted(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)).state_dict())[1]
    'parametrizations.weight.0._u'
    """
    weight = getattr(module, name)
    if dim is None:
        dim = 1 if isinstance(module, _ConvTranspose) else 0
    norm = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return register_parametrization(module, name, norm)
