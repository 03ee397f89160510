"""Ready-made parametrizations: orthogonal matrices, weight norm and spectral norm."""

import facula.nn.functional as F
from facula.linalg import householder_product, qr, solve
from facula.nn.modules.conv import _ConvTranspose
from facula.nn.modules.module import Module
from facula.nn.utils.parametrize import register_parametrization
from facula.tensor import cat, eye, geqrf, matrix_exp, no_grad, randn, zeros

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


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


class _Orthogonal(Module):
    """A matrix with orthonormal columns (rows, if it is wide) of any matrix."""

    def __init__(self, weight, orthogonal_map, use_trivialization):
        super().__init__()
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X):  # noqa: N803
        wide = X.shape[-2] < X.shape[-1]
        x = X.mT if wide else X
        n, k = x.shape[-2:]
        if self.orthogonal_map == "householder":
            a = x.tril(-1)
            q = householder_product(a, 2.0 / (1.0 + (a * a).sum(-2)))
            q = q * x.diagonal(0, -2, -1).int().unsqueeze(-2)
        else:
            x = x.tril()
            if n != k:
                x = cat([x, zeros(*x.shape[:-1], n - k, dtype=x.dtype)], -1)
            a, unit = x - x.mT, eye(n, dtype=x.dtype)
            q = (
                matrix_exp(a)
                if self.orthogonal_map == "matrix_exp"
                else solve(unit - a / 2, unit + a / 2)
            )
            q = q[..., :k]
        if getattr(self, "base", None) is not None:
            q = self.base @ q
        return q.mT if wide else q

    @no_grad()
    def right_inverse(self, Q):  # noqa: N803
        """What gives ``Q``, made orthogonal where it is not."""
        wide = Q.shape[-2] < Q.shape[-1]
        q = Q.mT if wide else Q
        n, k = q.shape[-2:]
        if not hasattr(self, "base"):
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley "
                    "parametrizations when use_trivialization=False."
                )
            a, _ = geqrf(q)
            signs = a.diagonal(0, -2, -1).sign()
            signs = signs.where(signs != 0, 1.0)
            a = a - a.diagonal(0, -2, -1).diag_embed()[..., :n, :] if n == k else a
            if n != k:
                top = a[..., :k, :] - a[..., :k, :].diagonal(0, -2, -1).diag_embed()
                a = cat([top, a[..., k:, :]], -2)
            sign = signs.diag_embed()
            if n != k:
                sign = cat([sign, zeros(*a.shape[:-2], n - k, k, dtype=a.dtype)], -2)
            a = a + sign
            return a.mT if wide else a
        if n != k:
            q = cat([q, randn(*q.shape[:-1], n - k, dtype=q.dtype)], -1)
        basis, r = qr(q)
        signs = r.diagonal(0, -2, -1).sign()
        self.base = basis * signs.where(signs != 0, 1.0).unsqueeze(-2)
        return -eye(*Q.shape[-2:], dtype=Q.dtype).expand(Q.shape).clone()


def orthogonal(module, name="weight", orthogonal_map=None, *, use_trivialization=True):
    """Keep a weight orthogonal, or with orthonormal columns or rows, as it is trained.

    Args:
        module: whose weight it is; changed in place and returned.
        orthogonal_map: "matrix_exp", "cayley" or "householder"; by default the first for square
            matrices, else the last.
        use_trivialization: also multiply by what the weight was when it was last assigned
            (Lezcano-Casado, 2019).

    >>> from facula import eye, nn
    >>> layer = orthogonal(nn.Linear(4, 4))
    >>> bool((layer.weight @ layer.weight.mT - eye(4)).abs().max() < 1e-5)
    True
    """
    weight = getattr(module, name)
    if weight.ndim < 2:
        raise ValueError(
            f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions."
        )
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ValueError(
            'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: '
            f"{orthogonal_map}"
        )
    part = _Orthogonal(weight, orthogonal_map, use_trivialization)
    return register_parametrization(module, name, part, unsafe=True)
