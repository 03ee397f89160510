"""Factorizations by elimination and by reflections: LU, Householder's, and low-rank ones.

LU is computed here, in panels of columns, since NumPy shows no LAPACK routine for it: a panel is
eliminated column by column with the largest pivot, what is right of it by one product. Gradients:
Golub and Van Loan, "Matrix Computations", and for LU by differentiating ``P A = L U``. Low-rank
factors: Halko, Martinsson and Tropp, "Finding structure with randomness" (2011).
"""

from __future__ import annotations

import math

from facula.base.errors import ArgumentError, ShapeError, UnsupportedError, fail
from facula.eager.tensor import Tensor, need_tensor
from facula.library import OPS
from facula.ops import results
from facula.tensor import creation, sampling
from facula.tensor.functions import function_of
from facula.tensor.interop import from_numpy
from facula.tensor.lapack import (
    LinAlgError,
    arrays,
    differentiable,
    qr,
    run,
    solve,
    solve_triangular,
    svd,
    with_out,
)

_PANEL = 32


def _t(x):
    return x.transpose(-2, -1)


# LU ----------------------------------------------------------------------------------------------


def _eliminated(numpy, a):
    """(L and U in one matrix, pivots counted from 1, first zero pivot counted from 1, or 0)."""
    lu, (m, n) = a.copy(), a.shape[-2:]
    k, batch = min(m, n), a.shape[:-2]
    lu = lu.reshape(math.prod(batch), m, n)
    rows = numpy.arange(len(lu))
    pivots = numpy.zeros((len(lu), k), numpy.int32)
    info = numpy.zeros(len(lu), numpy.int32)
    for first in range(0, k, _PANEL):
        last = min(first + _PANEL, k)
        for j in range(first, last):
            at = numpy.abs(lu[:, j:, j]).argmax(1) + j
            pivots[:, j] = at + 1
            lu[rows, at], lu[rows, j] = lu[rows, j], lu[rows, at]
            pivot = lu[:, j, j]
            info = numpy.where((pivot == 0) & (info == 0), j + 1, info)
            lu[:, j + 1 :, j] /= numpy.where(pivot == 0, 1, pivot)[:, None]
            lu[:, j + 1 :, j + 1 : last] -= lu[:, j + 1 :, j, None] * lu[:, j, None, j + 1 : last]
        if last < n:
            lower = numpy.tril(lu[:, first:last, first:last], -1) + numpy.eye(last - first)
            right = numpy.linalg.solve(lower.astype(a.dtype), lu[:, first:last, last:])
            lu[:, first:last, last:] = right
            lu[:, last:, last:] -= lu[:, last:, first:last] @ right
    return tuple(x.reshape((*batch, *x.shape[1:])) for x in (lu, pivots, info))


def _order(pivots, m):
    """The rows of ``A`` in the order in which ``L U`` has them: int64 ``[..., m]``."""
    import numpy

    p = pivots.detach().numpy()
    flat = p.reshape(math.prod(p.shape[:-1]), p.shape[-1]) - 1
    order = numpy.tile(numpy.arange(m), (len(flat), 1))
    rows = numpy.arange(len(flat))
    for j in range(flat.shape[1]):
        at = flat[:, j]
        order[rows, at], order[rows, j] = order[rows, j], order[rows, at]
    return from_numpy(order.reshape(*p.shape[:-1], m))


def _permutation(order, dtype):
    """``P`` with ``A = P L U``."""
    return (order.unsqueeze(-2) == creation.arange(order.shape[-1]).unsqueeze(-1)).to(dtype)


def _lu(A):  # noqa: N803
    import numpy

    (a,) = arrays("lu_factor", A)
    lu, pivots, info = map(from_numpy, _eliminated(numpy, a))

    def rule(gs, ys, xs):
        return (_lu_gradient(gs[0], ys[0], ys[1]),)

    return differentiable("LinalgLuFactor", rule, _lu, (A,), (lu, pivots, info))


def _lu_gradient(g, lu, pivots):
    m, n = lu.shape[-2:]
    k = min(m, n)
    square = lu[..., :k, :k]
    lower, upper = _unit_lower(square), square.triu()
    g_lower, g_upper = g[..., :k, :k].tril(-1), g[..., :k, :k].triu()
    below, above = _t(lower) @ g_lower, g_upper @ _t(upper)
    parts = []
    if m > n:
        below_rest, g_rest = lu[..., k:, :], g[..., k:, :]
        above = above - _t(below_rest) @ g_rest
        parts = [_t(solve_triangular(upper, _t(g_rest), upper=True))]
    if n > m:
        right_rest, g_rest = lu[..., k:], g[..., k:]
        below = below - g_rest @ _t(right_rest)
        parts = [solve_triangular(_t(lower), g_rest, upper=True, unitriangular=True)]
    inner = below.tril(-1) + above.triu()
    inner = solve_triangular(_t(lower), inner, upper=True, unitriangular=True)
    first = _t(solve_triangular(upper, _t(inner), upper=True))
    whole = function_of(OPS["cat"])([first, *parts], -2 if m > n else -1) if parts else first
    return _permutation(_order(pivots, m), g.dtype) @ whole


def _unit_lower(x):
    return x.tril(-1) + x.new_ones(x.shape[:-1]).diag_embed()


def _need_matrices(name, A):  # noqa: N803
    need_tensor(name, A)
    if A.ndim < 2:
        fail(ShapeError, name, "The input tensor A must have at least 2 dimensions.")


@with_out
def lu_factor_ex(A, *, pivot=True, check_errors=False):  # noqa: N803
    """As :func:`lu_factor`; ``info`` is the first pivot that is 0, counted from 1, or 0."""
    _need_matrices("linalg.lu_factor", A)
    if not pivot:
        fail(UnsupportedError, "linalg.lu_factor", "LU without pivoting is not implemented on the "
             "CPU", "pivot=True")  # fmt: skip
    found = results.lu_factor_ex(*_lu(A))
    if check_errors and found.info.any().item():
        raise LinAlgError("linalg.lu_factor: U has a zero on its diagonal: the matrix is singular")
    return found


@with_out
def lu_factor(A, *, pivot=True):  # noqa: N803
    """``L`` (below the diagonal) and ``U`` of ``A = P L U`` in one matrix, and the pivots.

    Shapes: A ``[..., m, n]``, pivots int32 ``[..., min(m, n)]``: the row exchanged with each row,
    counted from 1. float32 or float64.
    """
    return results.lu_factor(*lu_factor_ex(A, pivot=pivot)[:2])


@with_out
def lu(A, *, pivot=True):  # noqa: N803
    """``P, L, U`` with ``A = P L U``: a permutation, a unit lower and an upper triangle."""
    return results.lu(*lu_unpack(*lu_factor(A, pivot=pivot)))


@with_out
def lu_unpack(LU_data, LU_pivots, unpack_data=True, unpack_pivots=True):  # noqa: N803
    """``P, L, U`` of what :func:`lu_factor` gives; what is not wanted is empty."""
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    p = lower = upper = LU_data.new_empty(0)
    if unpack_pivots:
        p = _permutation(_order(LU_pivots, m), LU_data.dtype)
    if unpack_data:
        lower = LU_data[..., :k].tril(-1) + creation.eye(m, k, dtype=LU_data.dtype)
        upper = LU_data[..., :k, :].triu()
    return results.lu(p, lower, upper)


@with_out
def lu_solve(LU, pivots, B, *, left=True, adjoint=False):  # noqa: N803
    """``X`` with ``A X = B`` (``X A = B``, ``Aᵀ X = B``) by the factors of :func:`lu_factor`."""
    if not left:
        return _t(lu_solve(LU, pivots, _t(B), adjoint=not adjoint))
    if B.ndim < 2 or LU.shape[-2] != LU.shape[-1] or B.shape[-2] != LU.shape[-1]:
        fail(ShapeError, "linalg.lu_solve", f"Incompatible shapes of LU {list(LU.shape)} and B "
             f"{list(B.shape)}", "LU is square, B a batch of matrices")  # fmt: skip
    p = _permutation(_order(pivots, LU.shape[-1]), LU.dtype)
    if adjoint:
        y = solve_triangular(_t(LU), B, upper=False)
        return p @ solve_triangular(_t(LU), y, upper=True, unitriangular=True)
    y = solve_triangular(LU, _t(p) @ B, upper=False, unitriangular=True)
    return solve_triangular(LU, y, upper=True)


@with_out
def solve_ex(A, B, *, left=True, check_errors=False):  # noqa: N803
    """As :func:`solve`, and ``info``, which is not 0 where a matrix is singular."""
    info = lu_factor_ex(A.detach()).info
    if check_errors and info.any().item():
        raise LinAlgError("linalg.solve: the matrix is singular")
    if info.any().item():
        return results.solve_ex(B.new_full(B.shape, float("inf")), info)
    return results.solve_ex(solve(A, B, left=left), info)


def old_lu(A, pivot=True, get_infos=False, out=None):  # noqa: N803
    """``LU, pivots`` (and ``infos``): PyTorch's older name of ``linalg.lu_factor``."""
    found = lu_factor_ex(A, pivot=pivot) if get_infos else lu_factor(A, pivot=pivot)
    if out is None:
        return found
    for target, y in zip(out, found):
        target.resize_(y.shape).copy_(y)
    return out


@with_out
def old_lu_solve(b, LU_data, LU_pivots):  # noqa: N803
    """``X`` with ``A X = b`` by the factors of ``A``: PyTorch's older order of arguments."""
    return lu_solve(LU_data, LU_pivots, b)


@with_out
def triangular_solve(b, A, upper=True, transpose=False, unitriangular=False):  # noqa: N803
    """``X`` with ``A X = b`` for triangular ``A``, and ``A``: ``linalg.solve_triangular``."""
    a = _t(A) if transpose else A
    x = solve_triangular(a, b, upper=upper != transpose, unitriangular=unitriangular)
    return results.triangular_solve(x, A.clone())


# Householder's reflections -----------------------------------------------------------------------


@with_out
def geqrf(input):  # noqa: A002
    """``R`` and, below it, the vectors of the reflections whose product is ``Q``; and their scales.

    Shapes: input ``[..., m, n]``; a ``[..., m, n]``, tau ``[..., min(m, n)]``.
    """
    _need_matrices("geqrf", input)
    a, tau = run("geqrf", "qr", *arrays("geqrf", input), mode="raw")
    return results.geqrf(_t(a).contiguous(), tau)


def _reflected(A, tau, x, backwards):  # noqa: N803
    """``H_0 ... H_{k-1} x`` with ``H_i = 1 - tau_i v_i v_iᵀ``, or the factors in reverse."""
    k = tau.shape[-1]
    v = A[..., :k].tril(-1) + creation.eye(A.shape[-2], k, dtype=A.dtype)
    if k == 0:
        return x + A[..., :0].sum() + tau.sum()
    for i in range(k) if backwards else reversed(range(k)):
        w = v[..., i : i + 1]
        x = x - tau[..., i, None, None] * (w @ (_t(w) @ x))
    return x


@with_out
def householder_product(A, tau):  # noqa: N803
    """The first columns of the product of Householder's reflections, as of :func:`geqrf`.

    Shapes: A ``[..., m, n]`` with m >= n, tau ``[..., k]`` with k <= n; the result is as A.
    """
    _need_matrices("linalg.householder_product", A)
    m, n = A.shape[-2:]
    if m < n or tau.shape[-1] > n:
        fail(ShapeError, "linalg.householder_product", "input.shape[-2] must be greater than or "
             f"equal to input.shape[-1], and that to tau.shape[-1], got {list(A.shape)} and "
             f"{list(tau.shape)}")  # fmt: skip
    unit = creation.eye(m, n, dtype=A.dtype).expand(*A.shape[:-2], m, n)
    return _reflected(A, tau, unit, False)


@with_out
def ormqr(input, tau, other, left=True, transpose=False):  # noqa: A002
    """``Q other`` (``other Q``, with ``Qᵀ``) with the ``Q`` of :func:`geqrf`'s reflections."""
    _need_matrices("ormqr", input)
    k = other.shape[-2 if left else -1] if other.ndim >= 2 else -1
    if k != input.shape[-2] or tau.shape[-1] > input.shape[-1]:
        fail(ShapeError, "ormqr", f"other.shape[{-2 if left else -1}] must be equal to "
             f"input.shape[-2] = {input.shape[-2]} and tau no longer than input is wide, got "
             f"{list(other.shape)} and {list(tau.shape)}")  # fmt: skip
    if left:
        return _reflected(input, tau, other, transpose)
    return _t(_reflected(input, tau, _t(other), not transpose))


# Low rank ----------------------------------------------------------------------------------------


def _range(A, q, niter, M):  # noqa: N803
    """An orthonormal basis, of ``q`` columns, of about the range of ``A - M``."""
    a = A if M is None else A - M
    y = a @ sampling.randn(a.shape[-1], q, dtype=a.dtype)
    basis = qr(y)[0]
    for _ in range(niter):
        basis = qr(a @ qr(_t(a) @ basis)[0])[0]
    return basis


def svd_lowrank(A, q=6, niter=2, M=None):  # noqa: N803
    """``U, S, V`` of rank ``q`` with ``A - M`` about ``U diag(S) Vᵀ``, by random projection.

    Args:
        q: a little more than the rank of A.
        niter: iterations of subspaces, for singular values that fall slowly.
    """
    _need_matrices("svd_lowrank", A)
    wide = A.shape[-2] < A.shape[-1]
    a, mean = (_t(A), None if M is None else _t(M)) if wide else (A, M)
    basis = _range(a, min(q, *A.shape[-2:]), niter, mean)
    u, s, vh = svd(_t(basis) @ (a if mean is None else a - mean), full_matrices=False)
    left, right = basis @ u, _t(vh)
    return (right, s, left) if wide else (left, s, right)


def pca_lowrank(A, q=None, center=True, niter=2):  # noqa: N803
    """``U, S, V``: :func:`svd_lowrank` of the rows less their mean, the principal components."""
    _need_matrices("pca_lowrank", A)
    m, n = A.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        fail(ArgumentError, "pca_lowrank", f"q(={q}) must be non-negative integer and not greater "
             f"than min(m, n)={min(m, n)}")  # fmt: skip
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)


#: Public names of the top level; those that are no ``*_lowrank`` are methods too.
TOP = {
    "geqrf": geqrf, "lu": old_lu, "lu_solve": old_lu_solve, "lu_unpack": lu_unpack,
    "orgqr": householder_product, "ormqr": ormqr, "pca_lowrank": pca_lowrank,
    "svd_lowrank": svd_lowrank, "triangular_solve": triangular_solve,
}  # fmt: skip
for _name, _function in TOP.items():
    if _name not in ("lu_unpack", "pca_lowrank", "svd_lowrank"):
        setattr(Tensor, _name, _function)
