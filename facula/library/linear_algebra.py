"""Products of tensors that reduce to matrix products: einsum, tensordot, kron, powers, ..."""

from __future__ import annotations

import math

from facula.base import dtypes as D
from facula.base.errors import DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.library.shape import index_along
from facula.ops.movement import pad_
from facula.ops.promote import broadcast_shapes, expand_to, promoted, to
from facula.ops.registry import F, Scalar, Tensors, op

# Products ---------------------------------------------------------------------------------------


def _need_rank(name, x, rank, which):
    if x.ndim != rank:
        fail(ShapeError, name, f"{which} must be a {rank}D tensor, got {x.ndim}D")


@op(out="exact", samples=lambda make: [((make(4, 5), make(5, 3)), {})])
def mm(input: Value, mat2: Value):
    """Matrix product ``[m, k] @ [k, n]``, without broadcasting."""
    _need_rank("mm", input, 2, "self")
    _need_rank("mm", mat2, 2, "mat2")
    return F.matmul(input, mat2)


@op(out="exact", samples=lambda make: [((make(2, 4, 5), make(2, 5, 3)), {})])
def bmm(input: Value, mat2: Value):
    """Batch of matrix products ``[b, m, k] @ [b, k, n]``."""
    _need_rank("bmm", input, 3, "batch1")
    _need_rank("bmm", mat2, 3, "batch2")
    if not input.shape[0] == mat2.shape[0]:
        fail(ShapeError, "bmm", f"batch sizes differ: {tuple(input.shape)} and "
             f"{tuple(mat2.shape)}")  # fmt: skip
    return F.matmul(input, mat2)


@op(
    spaces=("nn.functional",),
    out="exact",
    samples=lambda make: [
        ((make(4, 5), make(3, 5), make(3)), {}),
        ((make(2, 4, 5), make(3, 5)), {}),
    ],
)
def linear(input: Value, weight: Value, bias: Value = None):
    """``input @ weight.T + bias``: ``[..., in] , [out, in], [out] -> [..., out]``."""
    if not input.shape[-1] == weight.shape[-1]:
        fail(
            ShapeError,
            "linear",
            f"mat1 and mat2 shapes cannot be multiplied: input "
            f"{tuple(input.shape)}, weight {tuple(weight.shape)}",
        )
    w = F.transpose(weight, 0, 1) if weight.ndim == 2 else weight
    y = F.matmul(input, w)
    return y if bias is None else F.add(y, bias)


# einsum ------------------------------------------------------------------------------------------

_DOTS = "..."


def _subscripts(text):
    """The labels of one operand: letters, and ``...`` as one label."""
    labels, i = [], 0
    text = text.replace(" ", "")
    while i < len(text):
        if text.startswith(_DOTS, i):
            if _DOTS in labels:
                fail(ShapeError, "einsum", "found more than one '...' in a term")
            labels.append(_DOTS)
            i += 3
        elif text[i].isalpha():
            labels.append(text[i])
            i += 1
        else:
            fail(ShapeError, "einsum", f"invalid subscript {text[i]!r}: only letters, '...', ',' "
                 "and '->' are allowed")  # fmt: skip
    return labels


def _terms(equation, operands):
    """(labels of each operand, labels of the result) with ``...`` replaced by numbers."""
    left, arrow, right = equation.partition("->")
    terms = [_subscripts(t) for t in left.split(",")]
    if len(terms) != len(operands):
        fail(
            ShapeError,
            "einsum",
            f"{len(terms)} terms of the equation, but {len(operands)} operands",
        )
    extra = 0
    for term, x in zip(terms, operands):
        named = len(term) - (_DOTS in term)
        if named > x.ndim or (_DOTS not in term and named != x.ndim):
            fail(ShapeError, "einsum", f"the number of subscripts ({named}) does not match the "
                 f"number of dimensions ({x.ndim}) of an operand")  # fmt: skip
        if _DOTS in term:
            extra = max(extra, x.ndim - named)
    if arrow:
        result = _subscripts(right)
    else:
        seen = [c for t in terms for c in t if c != _DOTS]
        result = [_DOTS] * any(_DOTS in t for t in terms)
        result += sorted(c for c in set(seen) if seen.count(c) == 1)
    written = []
    for term, x in zip(terms, operands):
        count = x.ndim - (len(term) - 1) if _DOTS in term else 0
        written.append(_written(term, range(extra - count, extra)))
    result = _written(result, range(extra))
    for c in result:
        if result.count(c) > 1:
            fail(ShapeError, "einsum", f"output subscript {c} appears more than once in the output")
        if not isinstance(c, int) and not any(c in t for t in written):
            fail(ShapeError, "einsum", f"output subscript {c} does not appear in the equation for "
                 "any input operand")  # fmt: skip
    return written, result


def _written(labels, numbers):
    return [n for c in labels for n in (numbers if c == _DOTS else (c,))]


def _without_repeats(x, labels):
    """Repeated labels of one operand: its diagonal."""
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            a = labels.index(c)
            b = labels.index(c, a + 1)
            if not x.shape[a] == x.shape[b]:
                fail(ShapeError, "einsum", f"subscript {c} is repeated but the sizes differ: "
                     f"{x.shape[a]} and {x.shape[b]}")  # fmt: skip
            x = F.diagonal(x, 0, a, b)
            labels = [d for i, d in enumerate(labels) if i not in (a, b)] + [c]
    return x, labels


def _summed(x, labels, keep):
    """Sum over the labels that nothing else needs."""
    drop = tuple(i for i, c in enumerate(labels) if c not in keep)
    return (F.sum(x, drop) if drop else x), [c for c in labels if c in keep]


def _aligned(x, labels, order):
    """Dimensions in the order of ``order``, missing ones as size 1."""
    x = F.permute(x, tuple(labels.index(c) for c in order if c in labels))
    shape = iter(x.shape)
    return F.reshape(x, tuple(next(shape) if c in labels else 1 for c in order))


def _contracted(a, la, b, lb, keep):
    """One product of two operands, summed over shared labels that are not kept."""
    shared = [c for c in la if c in lb]
    batch = [c for c in shared if c in keep]
    inner = [c for c in shared if c not in keep]
    rows, columns = [c for c in la if c not in shared], [c for c in lb if c not in shared]
    size = {}
    for x, labels in ((a, la), (b, lb)):
        for c, n in zip(labels, x.shape):
            if c in size and not size[c] == n and not n == 1 and not size[c] == 1:
                fail(ShapeError, "einsum", f"operands do not broadcast: subscript {c} has size {n} "
                     f"which does not broadcast with previously seen size {size[c]}")  # fmt: skip
            if c not in size or size[c] == 1:
                size[c] = n
    if not inner:
        order = batch + rows + columns
        return F.mul(_aligned(a, la, order), _aligned(b, lb, order)), order
    a, b = _aligned(a, la, batch + rows + inner), _aligned(b, lb, batch + inner + columns)
    of = {c: size[c] for c in size}
    a = expand_to(a, tuple(of[c] for c in batch + rows + inner))
    b = expand_to(b, tuple(of[c] for c in batch + inner + columns))
    k, n, m, p = (sizes.product(of[c] for c in part) for part in (batch, rows, inner, columns))
    y = F.bmm(F.reshape(a, (k, n, m)), F.reshape(b, (k, m, p)))
    order = batch + rows + columns
    return F.reshape(y, tuple(of[c] for c in order)), order


def _einsum_samples(make):
    a, b, c = make(3, 4), make(4, 5), make(2, 3, 4)
    return [
        (("ij,jk->ik", a, b), {}), (("ij,jk", a, b), {}), (("bij,jk->bik", c, b), {}),
        (("ij->ji", a), {}), (("bij->b", c), {}), (("ii->i", make(4, 4)), {}),
        (("...j,jk->...k", c, b), {}), (("ij,ij->", a, make(3, 4)), {}),
        (("i,j->ij", make(3), make(4)), {}),
    ]  # fmt: skip


@op(spaces=("torch",), samples=_einsum_samples)
def einsum(equation, *operands: Tensors):
    """Sums of products, as Einstein's notation tells; operands are contracted left to right.

    Raises:
        RuntimeError: an equation that does not fit the operands.
    """
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not operands:
        fail(ShapeError, "einsum", "must provide at least one operand")
    terms, result = _terms(equation, operands)
    values = [_without_repeats(x, labels) for x, labels in zip(promoted(*operands), terms)]
    x, labels = values[0]
    for i, (y, other) in enumerate(values[1:], 2):
        later = {c for _, ls in values[i:] for c in ls} | set(result)
        x, labels = _summed(x, labels, later | set(other))
        y, other = _summed(y, other, later | set(labels))
        x, labels = _contracted(x, labels, y, other, later)
    x, labels = _summed(x, labels, set(result))
    return _aligned(x, labels, result)


# Products ----------------------------------------------------------------------------------------


@op(
    spaces=("torch",),
    out="exact",
    samples=lambda make: [
        ((make(3, 4, 5), make(4, 5, 2), 2), {}),
        ((make(3, 4), make(5, 3), ((0,), (1,))), {}),
    ],
)
def tensordot(a: Value, b: Value, dims=2):
    """Summed products over the last ``dims`` dimensions of ``a`` and the first of ``b``, or
    over pairs of dimensions.
    """
    if isinstance(dims, int):
        if dims < 0 or dims > min(a.ndim, b.ndim):
            fail(
                ShapeError,
                "tensordot",
                f"expects dims between 0 and the number of dimensions, got {dims}",
            )
        da, db = tuple(range(a.ndim - dims, a.ndim)), tuple(range(dims))
    else:
        da, db = (tuple(d) if isinstance(d, (tuple, list)) else (d,) for d in dims)
    da = [wrap_dim("tensordot", d, a.ndim) for d in da]
    db = [wrap_dim("tensordot", d, b.ndim) for d in db]
    if len(da) != len(db):
        fail(ShapeError, "tensordot", "both dimension lists should have same length")
    for i, j in zip(da, db):
        # A size of 1 stands for any: the sum over the other's dimension.
        if a.shape[i] == 1 and not b.shape[j] == 1:
            b = F.sum(b, j, True)
        elif b.shape[j] == 1 and not a.shape[i] == 1:
            a = F.sum(a, i, True)
        if not a.shape[i] == b.shape[j]:
            fail(ShapeError, "tensordot", "contracted dimensions need to match, but first has "
                 f"size {a.shape[i]} in dim {i} and second has size {b.shape[j]} in "
                 f"dim {j}")  # fmt: skip
    ra, rb = [d for d in range(a.ndim) if d not in da], [d for d in range(b.ndim) if d not in db]
    k = sizes.product(a.shape[d] for d in da)
    left = F.reshape(F.permute(a, (*ra, *da)), (sizes.product(a.shape[d] for d in ra), k))
    right = F.reshape(F.permute(b, (*db, *rb)), (k, sizes.product(b.shape[d] for d in rb)))
    shape = (*(a.shape[d] for d in ra), *(b.shape[d] for d in rb))
    return F.reshape(F.matmul(left, right), shape)


@op(out="apart", samples=lambda make: [((make(2, 3), make(4, 5)), {}), ((make(3), make(2, 2)), {})])
def kron(input: Value, other: Value):
    """Kronecker's product: ``other`` scaled by every element of ``input``."""
    n = max(input.ndim, other.ndim)
    a = F.reshape(input, (1,) * (n - input.ndim) + tuple(input.shape))
    b = F.reshape(other, (1,) * (n - other.ndim) + tuple(other.shape))
    x = F.reshape(a, tuple(m for s in a.shape for m in (s, 1)))
    y = F.reshape(b, tuple(m for s in b.shape for m in (1, s)))
    return F.reshape(F.mul(x, y), tuple(s * t for s, t in zip(a.shape, b.shape)))


def _cross(name, a, b, dim):
    a, b = promoted(a, b)
    dim = wrap_dim(name, dim, a.ndim)
    shape = broadcast_shapes(a.shape, b.shape, name=name)
    if not (a.shape[dim] == 3 and b.shape[dim] == 3):
        fail(ShapeError, name, f"inputs dimension {dim} must have length 3. Got {a.shape[dim]} "
             f"and {b.shape[dim]}")  # fmt: skip
    a, b = expand_to(a, shape), expand_to(b, shape)
    a0, a1, a2 = (F.narrow(a, dim, i, 1) for i in range(3))
    b0, b1, b2 = (F.narrow(b, dim, i, 1) for i in range(3))
    return F.cat([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim)


@op(
    out="exact apart",
    samples=lambda make: [((make(4, 3), make(4, 3)), {}), ((make(3, 2), make(3, 2), 0), {})],
)
def cross(input: Value, other: Value, dim=None):
    """The cross product along ``dim``, by default the first dimension of size 3."""
    if dim is None:
        dim = next((d for d, n in enumerate(input.shape) if n == 3), None)
        if dim is None:
            fail(ShapeError, "cross", "no dimension of size 3 in input")
    return _cross("cross", input, other, dim)


@op(out="exact", samples=lambda make: [((make(5), make(5)), {}), ((make(2, 5), make(3, 5)), {})])
def inner(input: Value, other: Value):
    """Sums of products over the last dimensions."""
    if input.ndim == 0 or other.ndim == 0:
        return F.mul(input, other)
    if not input.shape[-1] == other.shape[-1]:
        fail(ShapeError, "inner", f"the last dimension must match on both input tensors but got "
             f"shapes {list(input.shape)} and {list(other.shape)}")  # fmt: skip
    return F.tensordot(input, other, ((-1,), (-1,)))


@op(out="exact", samples=lambda make: [((make(5), make(5)), {})])
def vdot(input: Value, other: Value):
    """The dot product of two vectors."""
    return F.dot(input, other)


@op(samples=lambda make: [((make(2, 3), make(4, 5)), {})], spaces=("torch",))
def block_diag(*tensors: Tensors):
    """Matrices along the diagonal of one, zeros elsewhere."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    blocks = []
    for i, x in enumerate(promoted(*tensors)):
        if x.ndim > 2:
            fail(ShapeError, "block_diag", f"Input tensors must have 2 or fewer dimensions. Input "
                 f"{i} has {x.ndim} dimensions")  # fmt: skip
        blocks.append(F.reshape(x, (1,) * (2 - x.ndim) + tuple(x.shape)))
    width, start, rows = sum((b.shape[1] for b in blocks[1:]), start=blocks[0].shape[1]), 0, []
    for b in blocks:
        after = width - start - b.shape[1]
        start, own = start + b.shape[1], start
        if b.shape[1] == 0:
            rows.append(F.zeros_of((b.shape[0], width), b.dtype))
        else:
            rows.append(pad_(b, dim=1, before=own, after=after, between=0, value=0))
    return F.cat(rows, 0)


@op(spaces=("torch",), samples=lambda make: [((make(3, 4), make(4, 5), make(5, 2)), {})])
def chain_matmul(*matrices: Tensors):
    """The product of several matrices, in the order with the fewest operations."""
    if len(matrices) == 1 and isinstance(matrices[0], (list, tuple)):
        matrices = tuple(matrices[0])
    return _chain("chain_matmul", list(matrices))


@op(
    spaces=("linalg",),
    out="exact",
    samples=lambda make: [(([make(3, 4), make(4, 5), make(5, 2)],), {})],
)
def multi_dot(tensors: Tensors):
    """The product of several matrices (or vectors at the ends), in the cheapest order."""
    if len(tensors) < 2:
        fail(ShapeError, "multi_dot", "expected at least 2 tensors")
    first, *middle, last = tensors
    a = F.unsqueeze(first, 0) if first.ndim == 1 else first
    b = F.unsqueeze(last, 1) if last.ndim == 1 else last
    y = _chain("multi_dot", [a, *middle, b])
    if first.ndim == 1:
        y = F.squeeze(y, 0)
    return F.squeeze(y, -1) if last.ndim == 1 else y


def _chain(name, matrices):
    for x in matrices:
        if x.ndim != 2:
            fail(ShapeError, name, f"expected matrices, got {x.ndim}D")
    n = len(matrices)
    size = [sizes.hint(m.shape[0]) for m in matrices] + [sizes.hint(matrices[-1].shape[1])]
    cost = [[0] * n for _ in matrices]
    cut = [[0] * n for _ in matrices]
    for length in range(2, n + 1):
        for i in range(n - length + 1):
            j = i + length - 1
            options = [
                (cost[i][k] + cost[k + 1][j] + size[i] * size[k + 1] * size[j + 1], k)
                for k in range(i, j)
            ]
            cost[i][j], cut[i][j] = min(options)

    def product(i, j):
        if i == j:
            return matrices[i]
        return F.matmul(product(i, cut[i][j]), product(cut[i][j] + 1, j))

    return product(0, n - 1)


@op(
    spaces=(),
    samples=lambda make: [((make(3, 3), 3), {}), ((make(2, 3, 3), 0), {})],
)
def matrix_product_power(input: Value, n):
    """The ``n``-th power, ``n >= 0``, of square matrices, by squaring."""
    need_square("matrix_power", input)
    if n == 0:
        return identity_like(input)
    y, square = None, input
    while n:
        if n & 1:
            y = square if y is None else F.matmul(y, square)
        n >>= 1
        square = F.matmul(square, square) if n else square
    return F.clone(y) if y is input else y


def need_square(name, x) -> None:
    """Refuse what is no batch of square matrices."""
    if x.ndim < 2:
        fail(ShapeError, name, "The input tensor A must have at least 2 dimensions.")
    if not x.shape[-1] == x.shape[-2]:
        fail(ShapeError, name, f"A must be batches of square matrices, but they are "
             f"{x.shape[-2]} by {x.shape[-1]} matrices")  # fmt: skip


def identity_like(x: Value) -> Value:
    """Identity matrices of the shape of ``x``."""
    row, column = index_along(x, x.ndim - 2), index_along(x, x.ndim - 1)
    return to(F.eq(row, column), x.dtype)


@op(
    inplace=True,
    out="exact",
    samples=lambda make: [((make(3, 5), make(2, 3, 4), make(2, 4, 5)), {})],
)
def addbmm(input: Value, batch1: Value, batch2: Value, *, beta: Scalar = 1, alpha: Scalar = 1):
    """``beta * input + alpha * sum(batch1 @ batch2)``."""
    y = F.sum(F.bmm(batch1, batch2), 0)
    return to(F.add(F.mul(input, beta), F.mul(y, alpha)), y.dtype)


@op(spaces=("linalg",), out="exact", samples=lambda make: [((make(3, 5), make(3, 5)), {})])
def vecdot(x: Value, y: Value, *, dim=-1):
    """Dot products along ``dim``; other dimensions broadcast."""
    return F.sum(F.mul(x, y), dim)


@op(spaces=("linalg",), name="linalg_cross", samples=lambda make: [((make(4, 3), make(4, 3)), {})])
def linalg_cross(input: Value, other: Value, *, dim=-1):
    """The cross product along ``dim``."""
    if input.ndim != other.ndim:
        fail(ShapeError, "cross", "inputs must have the same number of dimensions.")
    return _cross("cross", input, other, dim)


_TAYLOR = 18


@op(
    spaces=("torch", "method", "linalg"),
    samples=lambda make: [((make(3, 3),), {})],
    aliases=(),
)
def matrix_exp(input: Value):
    """The exponential of square matrices: Taylor's series of the scaled matrix, then squaring.

    The norm is halved 8 times (so that 2**8 bounds what the series sees as 1), which serves
    norms up to about 256.
    """
    need_square("matrix_exp", input)
    if not input.dtype.is_floating_point:
        fail(DtypeError, "matrix_exp", f"expected a floating-point tensor, got {input.dtype.name}")
    squarings = 8
    x = to(input, D.float64) * math.ldexp(1.0, -squarings)
    eye = identity_like(x)
    y = eye
    for k in range(_TAYLOR, 0, -1):
        y = eye + F.matmul(x, y) / k
    for _ in range(squarings):
        y = F.matmul(y, y)
    return to(y, input.dtype)
