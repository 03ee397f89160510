"""Linear algebra: values against NumPy, gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import linalg
from facula.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(2)


def matrix(*shape):
    return facula.tensor(RNG.standard_normal(shape))


def definite(x):
    return x @ x.mT + facula.eye(x.shape[-1], dtype=x.dtype)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (1, 1)], ids=str)
def test_square_matrices(shape):
    x = matrix(*shape)
    a = x.numpy()
    np.testing.assert_allclose(linalg.inv(x).numpy(), np.linalg.inv(a))
    np.testing.assert_allclose(linalg.det(x).numpy(), np.linalg.det(a))
    for p, q in zip(linalg.slogdet(x), np.linalg.slogdet(a)):
        np.testing.assert_allclose(p.numpy(), q)
    b = matrix(*shape[:-1], 2)
    np.testing.assert_allclose(linalg.solve(x, b).numpy(), np.linalg.solve(a, b.numpy()))
    np.testing.assert_allclose((linalg.solve(x, b.mT, left=False) @ x).numpy(), b.mT.numpy())
    s = definite(x)
    lower = linalg.cholesky(s)
    np.testing.assert_allclose((lower @ lower.mT).numpy(), s.numpy())
    values, vectors = linalg.eigh(s)
    np.testing.assert_allclose((vectors * values[..., None, :] @ vectors.mT).numpy(), s.numpy())
    np.testing.assert_allclose(x.matrix_power(3).numpy(), np.linalg.matrix_power(a, 3))
    np.testing.assert_allclose(x.matrix_power(-2).numpy(), np.linalg.matrix_power(a, -2))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4)], ids=str)
def test_rectangular_matrices(shape):
    x = matrix(*shape)
    a = x.numpy()
    u, s, vh = linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose((u * s[..., None, :] @ vh).numpy(), a, atol=1e-12)
    q, r = linalg.qr(x)
    np.testing.assert_allclose((q @ r).numpy(), a, atol=1e-12)
    np.testing.assert_allclose(linalg.pinv(x).numpy(), np.linalg.pinv(a), atol=1e-12)
    np.testing.assert_array_equal(linalg.matrix_rank(x).numpy(), np.linalg.matrix_rank(a))
    for order in ("fro", "nuc", 2, -2, 1, -1, np.inf, -np.inf):
        np.testing.assert_allclose(
            linalg.matrix_norm(x, order).numpy(), np.linalg.norm(a, order, axis=(-2, -1))
        )
    for order in (0, 1, 2, 3, np.inf, -np.inf):
        np.testing.assert_allclose(
            linalg.vector_norm(x, order, -1).numpy(), np.linalg.norm(a, order, axis=-1)
        )


CASES = {
    "inv": linalg.inv, "det": linalg.det, "slogdet": lambda a: linalg.slogdet(a)[1],
    "solve": lambda a: linalg.solve(a, a[:, :2].square()),
    "cholesky": lambda a: linalg.cholesky(definite(a)),
    "eigh": lambda a: (linalg.eigh(definite(a))[0], linalg.eigh(definite(a))[1].abs()),
    "svd": lambda a: (linalg.svd(a[:, :3])[1], linalg.svd(a[:, :3])[0][:, :3].abs()),
    "svd of wide matrices": lambda a: linalg.svd(a[:3], False)[2].abs(),
    "qr": linalg.qr, "qr of tall matrices": lambda a: linalg.qr(a[:, :3]),
    "qr of wide matrices": lambda a: linalg.qr(a[:3]), "pinv": lambda a: linalg.pinv(a[:, :3]),
    "lstsq": lambda a: linalg.lstsq(a[:, :3], a[:, 3:])[0], "power": lambda a: a.matrix_power(-2),
    "nuclear norm": lambda a: linalg.matrix_norm(a, "nuc"), "exp": facula.matrix_exp,
    "lu": lambda a: linalg.lu(a)[1:], "lu of tall matrices": lambda a: linalg.lu(a[:, :3])[1:],
    "lu of wide matrices": lambda a: linalg.lu(a[:3])[1:], "svdvals": linalg.svdvals,
    "lu_solve": lambda a: linalg.lu_solve(*linalg.lu_factor(a), a[:, :2], adjoint=True),
    "eigvalsh": lambda a: linalg.eigvalsh(definite(a)),
    "reflections": lambda a: linalg.householder_product(a[:, :3], a[3, :3] / 9),
    "triangular": lambda a: linalg.solve_triangular(a + 3 * facula.eye(4), a[:, :2], upper=True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    x = matrix(4, 4).requires_grad_()
    assert gradcheck(CASES[name], (x,))


@pytest.mark.parametrize("name", ["inv", "det", "solve", "cholesky", "qr", "pinv", "lu"])
def test_second_derivatives(name):
    x = (matrix(4, 4) + 2 * facula.eye(4)).requires_grad_()
    assert gradgradcheck(CASES[name], (x,))


@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (70, 70), (2, 40, 33), (0, 0)], ids=str)
def test_elimination_and_reflections(shape):
    x = matrix(*shape)
    p, lower, upper = linalg.lu(x)
    np.testing.assert_allclose((p @ lower @ upper).numpy(), x.numpy(), atol=1e-10)
    assert (lower.abs() <= 1).all() and (lower.triu(1) == 0).all() and (upper.tril(-1) == 0).all()
    packed, tau = facula.geqrf(x)
    q = facula.ormqr(packed, tau, facula.eye(shape[-2], dtype=x.dtype))
    np.testing.assert_allclose((q @ packed.triu()).numpy(), x.numpy(), atol=1e-10)
    unit = np.broadcast_to(np.eye(shape[-2]), tuple(q.shape))
    np.testing.assert_allclose((q @ q.mT).numpy(), unit, atol=1e-10)


def test_singular_matrices_are_told():
    factors = linalg.lu_factor_ex(facula.zeros(2, 2))
    assert factors.info.item() == 1
    with pytest.raises(linalg.LinAlgError):
        linalg.lu_factor_ex(facula.zeros(2, 2), check_errors=True)
    assert linalg.solve_ex(facula.zeros(2, 2), facula.eye(2)).info.item() == 1


def test_low_rank_factors():
    facula.manual_seed(0)
    x = matrix(20, 3) @ matrix(3, 12)
    u, s, v = facula.svd_lowrank(x, 4)
    np.testing.assert_allclose((u * s @ v.mT).numpy(), x.numpy(), atol=1e-8)
    u, s, v = facula.pca_lowrank(x.mT, 4)
    centred = x.mT - x.mT.mean(0, True)
    np.testing.assert_allclose((u * s @ v.mT).numpy(), centred.numpy(), atol=1e-8)


def test_errors():
    with pytest.raises(linalg.LinAlgError):
        linalg.inv(facula.zeros(3, 3))
    with pytest.raises(linalg.LinAlgError):
        linalg.cholesky(-facula.eye(3))
    for call in (
        lambda: linalg.inv(facula.zeros(3, 4)), lambda: linalg.inv(facula.zeros(3)),
        lambda: linalg.det(facula.zeros(2, 2, dtype=facula.int64)),
        lambda: linalg.solve(facula.eye(3), facula.zeros(4, 1)),
        lambda: linalg.multi_dot([facula.eye(2)]),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            call()
    assert linalg.inv_ex(facula.zeros(2, 2)).info.item() != 0


def test_results_are_written_where_wanted():
    out = facula.empty(0)
    assert linalg.inv(facula.eye(2) * 2, out=out) is out and out.tolist() == [[0.5, 0], [0, 0.5]]


EMPTY = [((0, 3, 4), (0, 4, 5)), ((0, 0, 0), (0, 0, 0)), ((2, 3, 0), (2, 0, 4)), ((5, 0), (0, 3))]


@pytest.mark.parametrize("shapes", EMPTY, ids=str)
def test_products_of_nothing(shapes):
    a, b = (facula.ones(s, requires_grad=True) for s in shapes)
    y = a @ b
    assert y.shape == (*shapes[0][:-1], shapes[1][-1]) and not y.any()
    y.sum().backward()
    assert a.grad.shape == a.shape and b.grad.shape == b.shape
