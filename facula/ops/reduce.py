"""Reductions: many elements to one, over any dimensions, in an order fixed by the shape."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import DimensionError, DtypeError, ShapeError, fail, wrap_dim
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.promote import as_value, expand_to, to
from facula.ops.registry import F, Primitive, op


def _kept(shape, dims):
    return tuple(n for i, n in enumerate(shape) if i not in dims)


def with_ones(shape, dims):
    """``shape`` with size 1 at the reduced dimensions."""
    return tuple(1 if i in dims else n for i, n in enumerate(shape))


def spread(y: Value, x_shape, dims) -> Value:
    """A reduced value repeated over the dimensions that were reduced."""
    return expand_to(F.reshape(y, with_ones(x_shape, dims)), x_shape)


def reduction(name, combine, meaning, gradient=None):
    """A primitive that reduces over ``dims`` (a sorted tuple) with the Loops op ``combine``."""
    return Primitive(
        f"reduce_{name}",
        "reduce",
        lambda x, *, dims: [(x.dtype, _kept(x.shape, dims))],
        lambda np, x, *, dims: meaning(np, x, dims),
        gradient,
        combine=combine,
    )


def _extremum_gradient(g, y, x, *, dims):
    """To all elements equal to the extremum, in equal shares."""
    hit = x.eq(spread(y, x.shape, dims)) | (x.ne(x) & spread(y.ne(y), x.shape, dims))
    hit = to(hit, x.dtype)
    count = sum_(hit, dims=dims)
    return (hit * spread(g / count, x.shape, dims),)


sum_ = reduction(
    "sum",
    "add",
    lambda np, x, dims: np.sum(x, axis=dims, dtype=x.dtype),
    lambda g, y, x, *, dims: (spread(g, x.shape, dims),),
)
prod_ = reduction(
    "prod",
    "mul",
    lambda np, x, dims: np.prod(x, axis=dims, dtype=x.dtype),
    lambda g, y, x, *, dims: (_prod_gradient(g, y, x, dims),),
)
max_ = reduction("max", "max", lambda np, x, dims: np.max(x, axis=dims), _extremum_gradient)
min_ = reduction("min", "min", lambda np, x, dims: np.min(x, axis=dims), _extremum_gradient)
any_ = reduction("any", "or", lambda np, x, dims: np.any(x, axis=dims))
all_ = reduction("all", "and", lambda np, x, dims: np.all(x, axis=dims))


def _prod_gradient(g, y, x, dims):
    """``g * prod / x``, and with zeros present the product of the others."""
    zero = x.eq(0)
    zeros = sum_(to(zero, x.dtype), dims=dims)
    others = prod_(F.where(zero, 1.0, x), dims=dims)
    one_zero = F.where(
        zero & spread(zeros.eq(1), x.shape, dims), spread(others, x.shape, dims), 0.0
    )
    plain = spread(F.where(zeros.eq(0), y, 0.0), x.shape, dims) / F.where(zero, 1.0, x)
    return one_zero * spread(g, x.shape, dims) + F.where(
        zero, 0.0, plain * spread(g, x.shape, dims)
    )


def _arg(name):
    """Index of the first extremum along one dimension; a NaN counts as the extremum."""
    return Primitive(
        f"arg{name}",
        "reduce",
        lambda x, *, dims: [(D.int64, _kept(x.shape, dims))],
        lambda np, x, *, dims: getattr(np, f"arg{name}")(x, axis=dims[0]),
        combine=f"arg{name}",
    )


argmax_, argmin_ = _arg("max"), _arg("min")


def wrap_dims(name, dim, ndim) -> tuple:
    """Reduced dimensions as a sorted tuple; None and () mean all."""
    if dim is None or (isinstance(dim, (tuple, list)) and len(dim) == 0):
        return tuple(range(ndim))
    named = dim if isinstance(dim, (tuple, list)) else (dim,)
    dims = sorted(wrap_dim(name, d, ndim) for d in named)
    if len(set(dims)) != len(dims):
        fail(ShapeError, name, f"dim {dims[0]} appears multiple times in the list of dims")
    return tuple(dims) if ndim else ()


def reduced(primitive, x: Value, dims, keepdim) -> Value:
    """Apply a reduction, keeping reduced dimensions as size 1 if asked."""
    y = primitive(x, dims=dims) if dims else primitive_of_one(primitive, x)
    return F.reshape(y, with_ones(x.shape, dims)) if keepdim and dims else y


def primitive_of_one(primitive, x):
    """A reduction over no dimension: the element itself."""
    return primitive(F.reshape(x, (*x.shape, 1)), dims=(x.ndim,))


def _accumulated(input, dtype):
    if dtype is not None:
        return to(input, dtype)
    return input if input.dtype.is_floating_point else to(input, D.int64)


@op(out=True)
def sum(input: Value, dim=None, keepdim=False, *, dtype=None):  # noqa: A001
    """The sum over ``dim`` (all dimensions by default); integers are summed as int64."""
    x = _accumulated(input, dtype)
    return reduced(sum_, x, wrap_dims("sum", dim, x.ndim), keepdim)


@op(out=True)
def prod(input: Value, dim=None, keepdim=False, *, dtype=None):
    """The product over one dimension, or all."""
    x = _accumulated(input, dtype)
    return reduced(prod_, x, wrap_dims("prod", dim, x.ndim), keepdim)


@op(out=True)
def mean(input: Value, dim=None, keepdim=False, *, dtype=None):
    """The arithmetic mean over ``dim`` (all dimensions by default)."""
    x = input if dtype is None else to(input, dtype)
    if not x.dtype.is_floating_point:
        fail(
            DtypeError,
            "mean",
            "could not infer output dtype. Input dtype must be either a "
            f"floating point or complex dtype. Got: {x.dtype.name}",
            "convert with .float()",
        )
    dims = wrap_dims("mean", dim, x.ndim)
    count = sizes.product(x.shape[d] for d in dims)
    return reduced(sum_, x, dims, keepdim) / size_value(count, x.dtype)


def size_value(n, dtype) -> Value:
    """A size as a value (a constant or, for a symbol, known at launch)."""
    if isinstance(n, int):
        return to(n, dtype)
    return size_(n=n, dtype=dtype)


size_ = Primitive(
    "size",
    "source",
    lambda *, n, dtype: [(dtype, ())],
    lambda np, *, n, dtype: np.asarray(n).astype(dtype.name),
)


def need_elements(name, x, dims):
    """Refuse an extremum of nothing."""
    for d in dims:
        if x.shape[d] == 0:
            fail(
                DimensionError,
                name,
                f"Expected reduction dim {d} to have non-zero size.",
                "specify a dim with at least one element",
            )


@op(out="exact")
def amax(input: Value, dim=(), keepdim=False):
    """The largest element over ``dim``; gradients are shared equally between equals."""
    dims = wrap_dims("amax", dim, input.ndim)
    need_elements("amax", input, dims)
    return reduced(max_, input, dims, keepdim)


@op(out="exact")
def amin(input: Value, dim=(), keepdim=False):
    """The smallest element over ``dim``; gradients are shared equally between equals."""
    dims = wrap_dims("amin", dim, input.ndim)
    need_elements("amin", input, dims)
    return reduced(min_, input, dims, keepdim)


def _arg_op(name, primitive, input, dim, keepdim):
    if input.dtype is D.bool_:
        input = to(input, D.uint8)
    if dim is None:
        if sizes.product(input.shape) == 0:
            fail(
                DimensionError,
                name,
                "Expected reduction dim to be specified for input.numel() "
                "== 0. Specify the reduction dim with the 'dim' argument.",
            )
        y = primitive(F.reshape(input, (-1,)), dims=(0,))
        return F.reshape(y, (1,) * input.ndim) if keepdim else y
    dims = wrap_dims(name, dim, input.ndim)
    need_elements(name, input, dims)
    return reduced(primitive, input, dims, keepdim)


@op(out=True)
def argmax(input: Value, dim=None, keepdim=False):
    """The index (int64) of the first largest element, of all or along ``dim``."""
    return _arg_op("argmax", argmax_, input, dim, keepdim)


@op(out=True)
def argmin(input: Value, dim=None, keepdim=False):
    """The index (int64) of the first smallest element, of all or along ``dim``."""
    return _arg_op("argmin", argmin_, input, dim, keepdim)


def _truth(x):
    x = as_value(x)
    return x if x.dtype is D.bool_ else x.ne(0)


@op(out=True)
def any(input: Value, dim=None, keepdim=False):  # noqa: A001
    """Whether any element is nonzero, over ``dim``; bool (uint8 for uint8)."""
    y = reduced(any_, _truth(input), wrap_dims("any", dim, input.ndim), keepdim)
    return to(y, D.uint8) if input.dtype is D.uint8 else y


@op(out=True)
def all(input: Value, dim=None, keepdim=False):  # noqa: A001
    """Whether all elements are nonzero, over ``dim``; bool (uint8 for uint8)."""
    y = reduced(all_, _truth(input), wrap_dims("all", dim, input.ndim), keepdim)
    return to(y, D.uint8) if input.dtype is D.uint8 else y
