"""Decompositions and solvers: NumPy's LAPACK at work, gradients in terms of tensor operations.

The results lie in memory of NumPy's. Formulas of the gradients: Giles, "An extended collection of
matrix derivative results" (2008); Townsend, "Differentiating the singular value decomposition"
(2016).
"""

from __future__ import annotations

import functools

from facula.base.errors import DtypeError, FaculaError, ShapeError, UnsupportedError, fail
from facula.eager.grad_mode import mode
from facula.eager.tape import Node, edge, start
from facula.eager.tensor import Tensor, need_tensor, wrap
from facula.library import OPS
from facula.library.linear_algebra import need_square
from facula.ops import results
from facula.tensor.functions import fit, function_of
from facula.tensor.interop import from_numpy


class LinAlgError(FaculaError, RuntimeError):
    """A matrix for which there is no such decomposition."""


class HostNode(Node):
    """Backward of a function that NumPy computed.

    Attributes:
        rule: ``(g of each output, outputs, inputs) -> cotangent of each input``.
        again: the function, to be recorded when derivatives of derivatives are wanted.
    """

    __slots__ = ("title", "rule", "again", "results")

    @property
    def outputs(self):
        return self.results

    def name(self) -> str:
        return self.title + "Backward0"

    def apply(self, gs):
        inputs, outs = self.need_saved()
        if mode.grad is not False:
            outs = self.again(*inputs)
            outs = outs if isinstance(outs, tuple) else (outs,)
        gs = [y.new_zeros(y.shape) if g is None else g for g, y in zip(gs, outs)]
        grads = self.rule(gs, outs, inputs)
        wanted = [g for g, x in zip(grads, inputs) if x.requires_grad]
        return tuple(wanted), ()


def differentiable(title, rule, again, inputs, outs):
    """Record the call of a host function; returns its results."""
    if mode.grad is False or not any(x.requires_grad for x in inputs):
        return outs if len(outs) > 1 else outs[0]
    edges = ()
    for x in inputs:
        if x.requires_grad:
            edges += edge(x)
    kept = tuple(wrap(y._meta, y._ptr, y._storage) for y in outs)
    node = start(HostNode(), edges, (inputs, kept))
    node.title, node.rule, node.again, node.results = title, rule, again, len(outs)
    for i, y in enumerate(outs):
        if y.dtype.is_floating_point:
            y._meta, y._grad_fn, y._output_nr = y._meta.with_grad(True), node, i or None
    return outs if len(outs) > 1 else outs[0]


def with_out(function):
    """``out=`` for a function: its results are copied into tensors that were given."""

    @functools.wraps(function)
    def wrapped(*args, out=None, **named):
        need_tensor(f"linalg.{function.__name__}", *args[:1])
        found = function(*args, **named)
        if out is None:
            return found
        pairs = zip(out, found) if isinstance(found, tuple) else [(out, found)]
        for target, y in pairs:
            fit(function.__name__, target, y.shape)
            target.copy_(y)
        return out

    return wrapped


def arrays(name, *tensors):
    """The tensors as arrays, refused where LAPACK has no such numbers."""
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"linalg.{name}: expected a Tensor, got {type(x).__name__}")
        if x.dtype.name not in ("float32", "float64"):
            fail(DtypeError, f"linalg.{name}", f"Expected a floating point tensor of 32 or 64 "
                 f"bits, got {x.dtype.name}")  # fmt: skip
    return [x.detach().numpy() for x in tensors]


def run(name, function, *given, **named):
    """A function of NumPy's; results as tensors.

    Raises:
        LinAlgError: the matrix is singular, not positive definite, or the iteration failed.
    """
    import numpy

    try:
        found = getattr(numpy.linalg, function)(*given, **named)
    except numpy.linalg.LinAlgError as error:
        raise LinAlgError(f"linalg.{name}: {error}") from None
    several = found if isinstance(found, tuple) else (found,)
    return tuple(from_numpy(numpy.ascontiguousarray(y).reshape(numpy.shape(y))) for y in several)


def _t(x):
    return x.transpose(-2, -1)


# Inverse, determinant, solution ------------------------------------------------------------------


@with_out
def inv(A):  # noqa: N803
    """The inverse of square matrices.

    Raises:
        RuntimeError: one is singular.
    """
    need_square("linalg.inv", A)
    outs = run("inv", "inv", *arrays("inv", A))

    def rule(gs, ys, xs):
        y = _t(ys[0])
        return (-(y @ gs[0] @ y),)

    return differentiable("LinalgInv", rule, inv, (A,), outs)


@with_out
def det(A):  # noqa: N803
    """The determinant of square matrices."""
    need_square("linalg.det", A)
    outs = run("det", "det", *arrays("det", A))

    def rule(gs, ys, xs):
        return ((gs[0] * ys[0])[..., None, None] * _t(inv(xs[0])),)

    return differentiable("LinalgDet", rule, det, (A,), outs)


@with_out
def slogdet(A):  # noqa: N803
    """Sign and logarithm of the absolute value of the determinant: (sign, logabsdet)."""
    need_square("linalg.slogdet", A)
    outs = run("slogdet", "slogdet", *arrays("slogdet", A))

    def rule(gs, ys, xs):
        return (gs[1][..., None, None] * _t(inv(xs[0])),)

    return results.slogdet(*differentiable("LinalgSlogdet", rule, slogdet, (A,), outs))


def logdet(input):  # noqa: A002
    """The logarithm of the determinant; NaN where that is negative."""
    sign, value = slogdet(input)
    return function_of(OPS["where"])(sign < 0, float("nan"), value)


@with_out
def solve(A, B, *, left=True):  # noqa: N803
    """``X`` with ``A X = B`` (or ``X A = B``, with ``left=False``); ``B`` may be a vector.

    Raises:
        RuntimeError: a singular matrix, or sizes that do not fit.
    """
    need_square("linalg.solve", A)
    if not left:
        return _t(solve(_t(A), _t(B)))
    vector = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    b = B.unsqueeze(-1) if vector else B
    if b.shape[-2] != A.shape[-1]:
        fail(ShapeError, "linalg.solve", f"Incompatible shapes of A and B: {list(A.shape)} and "
             f"{list(B.shape)}")  # fmt: skip
    y = _solved(A, b)
    return y.squeeze(-1) if vector else y


def _solved(a, b):
    outs = run("solve", "solve", *arrays("solve", a, b))

    def rule(gs, ys, xs):
        gb = _solved(_t(xs[0]), gs[0])
        return _summed_to(-(gb @ _t(ys[0])), xs[0]), _summed_to(gb, xs[1])

    return differentiable("LinalgSolve", rule, _solved, (a, b), outs)


def _summed_to(g, x):
    return g if g.shape == x.shape else g.sum_to_size(x.shape)


@with_out
def solve_triangular(A, B, *, upper, left=True, unitriangular=False):  # noqa: N803
    """``X`` with ``A X = B`` for triangular ``A``; the other triangle is not looked at."""
    need_square("linalg.solve_triangular", A)
    a = A.triu(1 if unitriangular else 0) if upper else A.tril(-1 if unitriangular else 0)
    if unitriangular:
        a = a + function_of(OPS["diag_embed"])(A.new_ones(A.shape[:-1]))
    return solve(a, B, left=left)


# Decompositions ----------------------------------------------------------------------------------


@with_out
def cholesky(A, *, upper=False):  # noqa: N803
    """``L`` with ``A = L Lᵀ``, lower triangular; its transpose with ``upper``.

    Raises:
        RuntimeError: a matrix is not positive definite.
    """
    need_square("linalg.cholesky", A)
    if upper:
        return _t(cholesky(_t(A)))
    outs = run("cholesky", "cholesky", *arrays("cholesky", A))

    def rule(gs, ys, xs):
        lower = ys[0]
        back = inv(lower)
        phi = (_t(lower) @ gs[0]).tril()
        phi = phi - function_of(OPS["diag_embed"])(phi.diagonal(0, -2, -1)) / 2
        g = _t(back) @ phi @ back
        return ((g + _t(g)) / 2,)

    return differentiable("LinalgCholesky", rule, cholesky, (A,), outs)


def _outside(differences):
    """Reciprocals of differences, 0 on the diagonal."""
    eye = differences.new_ones(differences.shape[-1:]).diag_embed()
    return (1 - eye) / (differences + eye)


@with_out
def eigh(A, UPLO="L"):  # noqa: N803
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices."""
    need_square("linalg.eigh", A)
    outs = run("eigh", "eigh", *arrays("eigh", A), UPLO=UPLO)

    def again(a):
        return tuple(eigh(a, UPLO))

    def rule(gs, ys, xs):
        values, vectors = ys
        apart = _outside(values.unsqueeze(-2) - values.unsqueeze(-1))
        inner = gs[0].diag_embed() + apart * (_t(vectors) @ gs[1])
        return (_even(vectors @ inner @ _t(vectors)),)

    return results.eigh(*differentiable("LinalgEigh", rule, again, (A,), outs))


def _even(g):
    return (g + _t(g)) / 2


@with_out
def svd(A, full_matrices=True, *, driver=None):  # noqa: N803
    """``U, S, Vh`` with ``A = U diag(S) Vh``; gradients need ``full_matrices=False``."""
    if A.ndim < 2:
        fail(ShapeError, "linalg.svd", "The input tensor A must have at least 2 dimensions.")
    outs = run("svd", "svd", *arrays("svd", A), full_matrices=full_matrices)

    def again(a):
        return tuple(svd(a, full_matrices))

    def rule(gs, ys, xs):
        # Columns without a singular value are arbitrary: no gradient flows through them.
        u, s, vh = ys
        k = s.shape[-1]
        gs = (gs[0][..., :k], gs[1], gs[2][..., :k, :])
        return (_svd_gradient(gs, u[..., :k], s, _t(vh[..., :k, :])),)

    return results.svd(*differentiable("LinalgSvd", rule, again, (A,), outs))


def _svd_gradient(gs, u, s, v):
    gu, gs_, gv = gs[0], gs[1], _t(gs[2])
    square = s * s
    apart = _outside(square.unsqueeze(-2) - square.unsqueeze(-1))
    left, right = _t(u) @ gu, _t(v) @ gv
    inner = (apart * (left - _t(left))) * s.unsqueeze(-2)
    inner = inner + s.unsqueeze(-1) * (apart * (right - _t(right)))
    g = u @ (inner + gs_.diag_embed()) @ _t(v)
    if u.shape[-2] > s.shape[-1]:
        rest = (gu - u @ left) / s.unsqueeze(-2)
        g = g + rest @ _t(v)
    if v.shape[-2] > s.shape[-1]:
        rest = (gv - v @ right) / s.unsqueeze(-2)
        g = g + u @ _t(rest)
    return g


@with_out
def svdvals(A, *, driver=None):  # noqa: N803
    """The singular values, descending."""
    if A.ndim < 2:
        fail(ShapeError, "linalg.svdvals", "The input tensor A must have at least 2 dimensions.")
    outs = run("svdvals", "svd", *arrays("svdvals", A), compute_uv=False)

    def rule(gs, ys, xs):
        u, _, vh = svd(xs[0], full_matrices=False)
        return (u * gs[0].unsqueeze(-2) @ vh,)

    return differentiable("LinalgSvdvals", rule, svdvals, (A,), outs)


@with_out
def eigvalsh(A, UPLO="L"):  # noqa: N803
    """The eigenvalues of symmetric matrices, ascending."""
    need_square("linalg.eigvalsh", A)
    outs = run("eigvalsh", "eigvalsh", *arrays("eigvalsh", A), UPLO=UPLO)

    def again(a):
        return eigvalsh(a, UPLO)

    def rule(gs, ys, xs):
        vectors = eigh(xs[0], UPLO)[1]
        return (vectors * gs[0].unsqueeze(-2) @ _t(vectors),)

    return differentiable("LinalgEigvalsh", rule, again, (A,), outs)


@with_out
def qr(A, mode="reduced"):  # noqa: N803
    """``Q, R`` with ``A = Q R``; ``mode`` is "reduced", "complete" or "r"."""
    if A.ndim < 2:
        fail(ShapeError, "linalg.qr", "The input tensor A must have at least 2 dimensions.")
    if mode == "r":
        return results.qr(A.new_empty(0), qr(A)[1])
    outs = run("qr", "qr", *arrays("qr", A), mode=mode)

    def again(a):
        return tuple(qr(a, mode))

    def rule(gs, ys, xs):
        q, r = ys
        m, n = xs[0].shape[-2:]
        if mode == "complete" and m > n:
            fail(UnsupportedError, "linalg.qr", "the gradient of the complete Q is not unique",
                 "use mode='reduced'")  # fmt: skip
        if m >= n:
            return (_qr_gradient(gs[0], gs[1], q, r),)
        # The first m columns determine Q; the rest is Q times the rest of R.
        rest = gs[1][..., m:]
        gq = gs[0] + xs[0][..., m:] @ _t(rest)
        left = _qr_gradient(gq, gs[1][..., :m], q, r[..., :m])
        return (function_of(OPS["cat"])([left, q @ rest], -1),)

    return results.qr(*differentiable("LinalgQr", rule, again, (A,), outs))


def _qr_gradient(gq, gr, q, r):
    m = r @ _t(gr) - _t(gq) @ q
    below = m.tril(-1)
    symmetric = below + _t(below) + m.diagonal(0, -2, -1).diag_embed()
    return _t(solve(r, _t(gq + q @ symmetric)))


def _symmetric(A):  # noqa: N803
    """Matrices whose upper triangle is not looked at."""
    return A.tril() + _t(A.tril(-1))


@with_out
def pinv(A, *, atol=None, rtol=None, hermitian=False):  # noqa: N803
    """The pseudo-inverse by Moore and Penrose; singular values below the tolerance count as 0."""
    import numpy

    (a,) = arrays("pinv", _symmetric(A.detach()) if hermitian else A)
    s = (
        numpy.linalg.svd(a, compute_uv=False)
        if a.size
        else numpy.zeros((*a.shape[:-2], 0), a.dtype)
    )
    most = s.max(-1, initial=0)
    low = _tolerance(A, most, atol, rtol)
    ratio = numpy.where(most > 0, low / numpy.where(most > 0, most, 1), 0)
    outs = run("pinv", "pinv", a, ratio)

    def again(x):
        return pinv(x, atol=atol, rtol=rtol, hermitian=hermitian)

    def rule(gs, ys, xs):
        g, p, x = gs[0], ys[0], xs[0]
        gt, pt = _t(g), _t(p)
        first = gt @ p @ pt
        second = pt @ p @ gt
        return (-(pt @ g @ pt) + first - x @ (p @ first) + second - (second @ p) @ x,)

    return differentiable("LinalgPinv", rule, again, (A,), outs)


def _tolerance(A, most, atol, rtol):  # noqa: N803
    """The threshold of singular values whose largest is ``most``."""
    import numpy

    atol = atol.detach().numpy() if isinstance(atol, Tensor) else atol
    rtol = rtol.detach().numpy() if isinstance(rtol, Tensor) else rtol
    if rtol is None:
        eps = numpy.finfo(A.dtype.name).eps * max(A.shape[-2:], default=1)
        rtol = eps if atol is None else numpy.where(numpy.asarray(atol) > 0, 0.0, eps)
    return numpy.maximum(0.0 if atol is None else atol, rtol * most)


@with_out
def matrix_rank(A, tol=None, hermitian=False, *, atol=None, rtol=None):  # noqa: N803
    """The number of singular values above the tolerance."""
    import numpy

    if hermitian:
        return matrix_rank(_symmetric(A), tol, atol=atol, rtol=rtol)
    (a,) = arrays("matrix_rank", A)
    s = numpy.linalg.svd(a, compute_uv=False)
    low = _tolerance(A, s.max(-1, initial=0), tol if atol is None else atol, rtol)
    return from_numpy(numpy.asarray((s > numpy.asarray(low)[..., None]).sum(-1), dtype="int64"))


@with_out
def lstsq(A, B, rcond=None, *, driver=None):  # noqa: N803
    """The least-squares solution of ``A X = B``, by the pseudo-inverse."""
    vector = B.ndim == A.ndim - 1
    b = B.unsqueeze(-1) if vector else B
    x = pinv(A, rtol=rcond) @ b
    residuals = x.reshape(-1)[:0]
    if A.shape[-2] > A.shape[-1] and driver != "gelsy":
        residuals = (A @ x - b).square().sum(-2)
    rank = A.new_empty(0).long() if driver == "gels" else matrix_rank(A, rtol=rcond)
    values = svdvals(A.detach()) if driver in ("gelss", "gelsd") else A.new_empty(0)
    return results.lstsq(x.squeeze(-1) if vector else x, residuals, rank, values)


@with_out
def cholesky_ex(A, *, upper=False, check_errors=False):  # noqa: N803
    """As :func:`cholesky`; ``info`` is not 0 where a matrix is not positive definite."""
    try:
        return results.cholesky_ex(cholesky(A, upper=upper), _info(A, 0))
    except LinAlgError:
        if check_errors:
            raise
        return results.cholesky_ex(A.new_full(A.shape, float("nan")), _info(A, 1))


@with_out
def inv_ex(A, *, check_errors=False):  # noqa: N803
    """As :func:`inv`; ``info`` is not 0 where a matrix is singular."""
    try:
        return results.inv_ex(inv(A), _info(A, 0))
    except LinAlgError:
        if check_errors:
            raise
        return results.inv_ex(A.new_full(A.shape, float("inf")), _info(A, 1))


def _info(A, value):  # noqa: N803
    from facula.base.dtypes import int32

    return A.new_full(A.shape[:-2], value, dtype=int32)


@with_out
def cholesky_solve(B, L, upper=False):  # noqa: N803
    """``X`` with ``L Lᵀ X = B`` (``Lᵀ L`` with ``upper``)."""
    a = _t(L) @ L if upper else L @ _t(L)
    return solve(a, B)


@with_out
def cholesky_inverse(L, upper=False):  # noqa: N803
    """The inverse of ``L Lᵀ`` (``Lᵀ L`` with ``upper``)."""
    need_square("cholesky_inverse", L)
    lower = _t(L.detach()).tril() if upper else L.detach().tril()
    outs = run("cholesky_inverse", "inv", *arrays("cholesky_inverse", lower @ _t(lower)))

    def again(x):
        return cholesky_inverse(x, upper)

    def rule(gs, ys, xs):
        # As PyTorch's: the other triangle has a slope too, though its values are not read.
        g = -(ys[0] @ (gs[0] + _t(gs[0])) @ ys[0])
        return (xs[0] @ g if upper else g @ xs[0],)

    return differentiable("CholeskyInverse", rule, again, (L,), outs)


@with_out
def old_svd(input, some=True, compute_uv=True):  # noqa: A002
    """``U, S, V`` with ``input = U diag(S) Vᵀ``: PyTorch's older order."""
    u, s, vh = svd(input, full_matrices=not some)
    return results.svd_old(u, s, _t(vh))


@with_out
def old_qr(input, some=True):  # noqa: A002
    """``Q, R``; the full ``Q`` with ``some=False``."""
    return qr(input, "reduced" if some else "complete")


@with_out
def old_cholesky(input, upper=False):  # noqa: A002
    """``L`` with ``input = L Lᵀ``."""
    return cholesky(input, upper=upper)


def pinverse(input, rcond=1e-15):  # noqa: A002
    """The pseudo-inverse."""
    return pinv(input, rtol=rcond)


@with_out
def matrix_power(input, n):  # noqa: A002
    """The ``n``-th power of square matrices; negative powers of the inverse."""
    power = function_of(OPS["matrix_product_power"])
    return power(input, n) if n >= 0 else power(inv(input), -n)


def norm(input, p="fro", dim=None, keepdim=False, out=None, dtype=None):  # noqa: A002
    """The ``p``-norm of all elements or over ``dim``; "nuc" sums singular values."""
    x = input if dtype is None else input.to(dtype)
    if p != "nuc":
        named = {} if out is None else {"out": out}
        return function_of(OPS["norm"])(x, p, dim, keepdim, **named)
    a, b = (-2, -1) if dim is None else dim
    y = svdvals(x.movedim((a, b), (-2, -1))).sum(-1)
    if keepdim:
        for d in sorted((a % x.ndim, b % x.ndim)):
            y = y.unsqueeze(d)
    return y if out is None else out.resize_(y.shape).copy_(y)


#: Public names of the top level, which are methods too.
TOP = {
    "cholesky": old_cholesky, "cholesky_inverse": cholesky_inverse,
    "cholesky_solve": cholesky_solve,
    "det": det, "inverse": inv, "logdet": logdet, "matrix_power": matrix_power, "norm": norm,
    "pinverse": pinverse, "qr": old_qr,
    "slogdet": slogdet, "svd": old_svd,
}  # fmt: skip
for _name, _function in TOP.items():
    setattr(Tensor, _name, _function)
