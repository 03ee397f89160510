"""Linear algebra: PyTorch's ``torch.linalg``. Decompositions are computed by NumPy's LAPACK."""

from __future__ import annotations

import math

from facula.base.errors import ArgumentError, ShapeError, UnsupportedError, fail
from facula.tensor import names_of_space
from facula.tensor.factors import (  # noqa: F401  public names
    householder_product,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    solve_ex,
)
from facula.tensor.lapack import (  # noqa: F401  public names
    LinAlgError,
    cholesky,
    cholesky_ex,
    det,
    eigh,
    eigvalsh,
    inv,
    inv_ex,
    lstsq,
    matrix_rank,
    pinv,
    qr,
    slogdet,
    solve,
    solve_triangular,
    svd,
    svdvals,
    with_out,
)


def __getattr__(name):
    return names_of_space("linalg", name, __name__)


def _refused(name):
    def function(*args, **kwargs):
        fail(UnsupportedError, f"linalg.{name}", "its results are complex numbers, which are not "
             "supported", "symmetric matrices have real eigenvalues: eigh")  # fmt: skip

    function.__name__ = name
    function.__doc__ = "Refused: the results are complex numbers."
    return function


eig, eigvals = _refused("eig"), _refused("eigvals")


@with_out
def cross(input, other, *, dim=-1):  # noqa: A002
    """The cross product along ``dim``."""
    return names_of_space("linalg", "linalg_cross", __name__)(input, other, dim=dim)


def diagonal(A, *, offset=0, dim1=-2, dim2=-1):  # noqa: N803
    """The diagonal of the last two dimensions."""
    return A.diagonal(offset, dim1, dim2)


@with_out
def matmul(input, other):  # noqa: A002
    """The matrix product."""
    return input.matmul(other)


@with_out
def vector_norm(x, ord=2, dim=None, keepdim=False, *, dtype=None):  # noqa: A002
    """The norm of order ``ord`` of all elements, or of vectors along ``dim``."""
    if dtype is not None:
        x = x.to(dtype)
    return names_of_space("linalg", "vector_norm", __name__)(x, ord, dim, keepdim)


@with_out
def matrix_norm(A, ord="fro", dim=(-2, -1), keepdim=False, *, dtype=None):  # noqa: A002, N803
    """The norm of matrices: "fro", "nuc", 2, -2, 1, -1, inf or -inf."""
    if dtype is not None:
        A = A.to(dtype)  # noqa: N806
    if A.ndim < 2:
        fail(
            ShapeError, "linalg.matrix_norm", "The input tensor A must have at least 2 dimensions."
        )
    a, b = (d % A.ndim for d in dim)
    if a == b:
        fail(ShapeError, "linalg.matrix_norm", f"dims must be different. Got ({a}, {b})")
    if ord == "fro":
        return vector_norm(A, 2, (a, b), keepdim)
    x = A.movedim((a, b), (-2, -1))
    if ord in ("nuc", 2, -2):
        s = svdvals(x)
        empty = ord == "nuc" or 0 in s.shape[-1:]
        y = s.sum(-1) if empty else s.amax(-1) if ord == 2 else s.amin(-1)
    elif ord in (1, -1, math.inf, -math.inf):
        sums = x.abs().sum(-2 if abs(ord) == 1 else -1)
        y = sums.sum(-1) if 0 in sums.shape[-1:] else sums.amax(-1) if ord > 0 else sums.amin(-1)
    else:
        fail(ArgumentError, "linalg.matrix_norm", f"Order {ord} not supported.")
    if keepdim:
        for d in sorted((a, b)):
            y = y.unsqueeze(d)
    return y


@with_out
def norm(A, ord=None, dim=None, keepdim=False, *, dtype=None):  # noqa: A002, N803
    """The norm of vectors or matrices, by the number of dimensions named."""
    pair = isinstance(dim, (tuple, list)) and len(dim) == 2
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if isinstance(ord, str) or pair or dim is None and A.ndim == 2:
        return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(A, ord, dim, keepdim, dtype=dtype)


@with_out
def cond(A, p=None):  # noqa: N803
    """The condition number: the norm times that of the inverse."""
    if p in (None, 2, -2):
        s = svdvals(A)
        return s[..., 0] / s[..., -1] if p != -2 else s[..., -1] / s[..., 0]
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


@with_out
def matrix_power(A, n):  # noqa: N803
    """The ``n``-th power of square matrices; negative powers of the inverse."""
    return A.matrix_power(n)


@with_out
def tensorinv(A, ind=2):  # noqa: N803
    """The inverse of the map that ``tensordot`` with ``A`` is."""
    if ind <= 0:
        fail(
            ShapeError,
            "linalg.tensorinv",
            f"Expected a strictly positive integer for 'ind', got {ind}",
        )
    left, right = A.shape[:ind], A.shape[ind:]
    n = math.prod(left)
    if n != math.prod(right):
        fail(ShapeError, "linalg.tensorinv", f"Expected self to satisfy the requirement "
             f"prod(A.shape[ind:]) == prod(A.shape[:ind]), but got "
             f"{math.prod(right)} != {n}")  # fmt: skip
    return inv(A.reshape(n, n)).reshape(*right, *left)


@with_out
def tensorsolve(A, B, dims=None):  # noqa: N803
    """``X`` with ``tensordot(A, X, X.ndim) = B``."""
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))  # noqa: N806
    shape = A.shape[B.ndim :]
    n = math.prod(shape)
    if n != B.numel():
        fail(ShapeError, "linalg.tensorsolve", "Expected self to satisfy the requirement "
             "prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim])")  # fmt: skip
    return solve(A.reshape(-1, n), B.reshape(-1)).reshape(shape)


def vander(x, *, N=None):  # noqa: N803
    """The matrices of ascending powers of vectors (the last dimension)."""
    x = x.reshape(1) if x.ndim == 0 else x
    n = x.shape[-1] if N is None else N
    powers = x.new_tensor(list(range(n)))
    return x.unsqueeze(-1) ** powers
