"""What the parameters and operands of a primitive must satisfy to be run as they are.

Programs that were captured satisfy it, because the ops that appended their nodes checked. One read
from a file may say anything, and a kernel believes what it is told: here everything is asked that
keeps it inside of its operands' memory. A primitive without a check is refused in an archive.
"""

from __future__ import annotations

from facula.base import dtypes as D
from facula.ir import program as P
from facula.ir.dims import Dim, product
from facula.ops.attention import attention_, need_groups
from facula.ops.pool import Pool
from facula.ops.recurrence import CELLS
from facula.ops.registry import PRIMITIVES

CHECKS: dict = {}
#: Pointwise primitives of bools and integers.
_INTEGERS = frozenset(("shl", "shr", "and", "or", "xor", "not", "idiv", "ipow", "tdiv"))
MAX_RANK = 32


class Refused(Exception):
    """A node that cannot be, and why."""


def need(holds, what: str) -> None:
    """Refuse the node unless ``holds``; questions about symbolic sizes become guards."""
    if not holds:
        raise Refused(what)


def is_int(x) -> bool:
    return type(x) is int


def is_size(n) -> bool:
    return isinstance(n, Dim) or is_int(n) and n >= 0


def need_shape(shape) -> None:
    need(isinstance(shape, tuple) and all(map(is_size, shape)), f"{shape} is no shape")
    need(len(shape) <= MAX_RANK, f"more than {MAX_RANK} dimensions")
    for n in shape:
        need(n >= 0, f"a size of {n}")


def need_dim(dim, x) -> None:
    need(is_int(dim) and 0 <= dim < x.ndim, f"dimension {dim} of {x.ndim}")


def need_dims(dims, x) -> None:
    need(isinstance(dims, tuple) and dims, "no dimensions")
    for d in dims:
        need_dim(d, x)
    need(list(dims) == sorted(set(dims)), f"dimensions {dims} in no order")


def need_ints(values, count, least) -> None:
    right = isinstance(values, tuple) and len(values) == count
    need(right and all(is_int(v) and v >= least for v in values), f"{values} are not {count} ints")


def need_equal(a, b, what) -> None:
    need(len(a) == len(b) and all(m == n for m, n in zip(a, b)), f"{what}: {a} and {b} differ")


def without(shape, dim) -> tuple:
    return (*shape[:dim], *shape[dim + 1 :])


def need_index(index) -> None:
    need(index.dtype is D.int64, f"an index of dtype {index.dtype.name}")


def check(primitive, inputs, params) -> None:
    """Refuse a node of an archive.

    Raises:
        Refused: and why.
    """
    known = CHECKS.get(primitive.name)
    if known is not None:
        known(*inputs, **params)
    elif primitive.kind == "composite":
        with P.building(P.Program(primitive.name)) as body:
            primitive.info["body"](*inputs, **params)
        for node in body.nodes:
            check(node.op, node.inputs, node.params)
    elif primitive.kind == "pointwise" and primitive.name != "random_bits":
        _pointwise(primitive, inputs, params)
    else:
        raise Refused("not allowed in an archive")


def checked(*names):
    """Declare the check of the primitives of these names."""

    def add(function):
        for name in names:
            assert name in PRIMITIVES, name
            CHECKS[name] = function
        return function

    return add


def _pointwise(primitive, inputs, params):
    need(len(inputs) == primitive.info["arity"], f"{len(inputs)} operands")
    if primitive.name == "cast":
        need(set(params) == {"dtype"} and isinstance(params["dtype"], D.dtype), f"{params}")
    else:
        need(not params, f"unknown parameters {list(params)}")
    if primitive.name == "where":
        need(inputs[0].dtype is D.bool_, "a condition that is not bool")
    if primitive.name in _INTEGERS:
        need(inputs[0].dtype.kind != "f", f"operands of dtype {inputs[0].dtype.name}")
    for v in inputs[1:]:
        need_equal(inputs[0].shape, v.shape, "shapes")


# Sources and movements ---


@checked("constant")
def _constant(*, value, dtype):
    need(isinstance(dtype, D.dtype) and type(value) in (bool, int, float), f"{value!r}")
    if dtype.kind in "iu":
        bits = 8 * dtype.itemsize - (dtype.kind == "i")
        low = -(1 << bits) if dtype.kind == "i" else 0
        need(type(value) is int and low <= value < 1 << bits, f"{value!r} as {dtype.name}")


@checked("positions")
def _positions(*, shape):
    need_shape(shape)


@checked("size")
def _size(*, n, dtype):
    need(isinstance(dtype, D.dtype) and is_size(n), f"{n!r}")


@checked("expand")
def _expand(x, *, shape):
    need_shape(shape)
    extra = len(shape) - x.ndim
    need(extra >= 0, f"from {x.ndim} to {len(shape)} dimensions")
    for n, m in zip(x.shape, shape[extra:]):
        need(is_int(n) and n == 1 or n == m, f"size {n} expanded to {m}")


@checked("reshape")
def _reshape(x, *, shape):
    need_shape(shape)
    need(product(x.shape) == product(shape), f"{x.shape} reshaped to {shape}")


@checked("permute")
def _permute(x, *, order):
    right = isinstance(order, tuple) and all(map(is_int, order))
    need(right and sorted(order) == list(range(x.ndim)), f"order {order}")


@checked("slice")
def _slice(x, *, dim, start, length, step):
    need_dim(dim, x)
    need(all(map(is_size, (start, length, step))), "start, length and step must be sizes")
    need(start >= 0 and length >= 0 and step >= 1, f"start {start}, length {length}, step {step}")
    if not (is_int(length) and length == 0):
        need(start + (length - 1) * step < x.shape[dim], f"a slice beyond size {x.shape[dim]}")


@checked("flip")
def _flip(x, *, dims):
    need_dims(tuple(sorted(dims)), x)


@checked("pad")
def _pad(x, *, dim, before, after, between, value):
    need_dim(dim, x)
    need(all(map(is_size, (before, after, between))), "paddings must be sizes")
    need(before >= 0 and after >= 0 and between >= 0, "negative padding")
    need(type(value) in (bool, int, float), f"value {value!r}")


@checked("windows")
def _windows(x, *, dim, size, step, dilation):
    need_dim(dim, x)
    need(all(map(is_size, (size, step, dilation))), "size, step and dilation must be sizes")
    need(size >= 1 and step >= 1 and dilation >= 1, f"size {size}, step {step}, {dilation}")
    need(dilation * (size - 1) < x.shape[dim], f"a window wider than {x.shape[dim]}")


# Reductions, scans, gathering ---


@checked(*(p.name for p in PRIMITIVES.values() if p.kind == "reduce" and p.name[:3] != "arg"))
def _reduction(x, *, dims):
    need_dims(dims, x)


@checked("reduce_any", "reduce_all")
def _logical(x, *, dims):
    need_dims(dims, x)
    need(x.dtype is D.bool_, f"{x.dtype.name} is not bool")


@checked("argmax", "argmin")
def _extremum(x, *, dims):
    need_dims(dims, x)
    need(len(dims) == 1, "more than one dimension")


@checked("logsumexp", "norm2")
def _floating_reduction(x, *, dims):
    need_dims(dims, x)
    need(x.dtype.is_floating_point, f"{x.dtype.name} is not floating-point")


@checked("norm_of_powers")
def _norm_of_powers(x, *, dims, ord):  # noqa: A002
    _floating_reduction(x, dims=dims)
    need(type(ord) in (int, float) and ord != 0, f"ord {ord!r}")


@checked("softmax", "log_softmax")
def _rows(x, *, dim):
    need_dim(dim, x)
    need(x.dtype.is_floating_point, f"{x.dtype.name} is not floating-point")


@checked("normalized")
def _normalized(x, *, dims, eps):
    _floating_reduction(x, dims=dims)
    need(type(eps) in (int, float), f"eps {eps!r}")


@checked("cumsum", "cumprod", "cummax", "cummin")
def _scan(x, *, dim):
    need_dim(dim, x)


@checked("sort")
def _sort(x, *, dim, descending):
    need_dim(dim, x)
    need(type(descending) is bool, f"descending {descending!r}")


@checked("topk")
def _topk(x, *, dim, k, largest):
    need_dim(dim, x)
    need(is_int(k) and k >= 1 and k <= x.shape[dim], f"k {k!r}")
    need(type(largest) is bool, f"largest {largest!r}")


@checked("polygamma")
def _polygamma(x, *, n):
    # Its body grows with n.
    need(is_int(n) and 0 < n <= 1000 and x.dtype.is_floating_point, f"n {n!r}")


@checked("take")
def _take(x, index, *, dim):
    need_dim(dim, x)
    need_index(index)


@checked("gather")
def _gather(x, index, *, dim):
    need_dim(dim, x)
    need_index(index)
    need(x.ndim == index.ndim, "ranks differ")
    for d in range(x.ndim):
        need(d == dim or index.shape[d] <= x.shape[d], f"an index larger than size {x.shape[d]}")


@checked("scatter")
def _scatter(x, index, src, *, dim, reduce):
    _gather(x, index, dim=dim)
    need_equal(index.shape, src.shape, "index and source")
    need(x.dtype is src.dtype, "dtypes differ")
    need(reduce in ("set", "add", "mul", "min", "max"), f"reduce {reduce!r}")


@checked("index_add")
def _index_add(x, index, src, *, dim):
    _take(x, index, dim=dim)
    shape = (*x.shape[:dim], *index.shape, *x.shape[dim + 1 :])
    need_equal(shape, src.shape, "places and source")
    need(x.dtype is src.dtype, "dtypes differ")


@checked("bags")
def _bags(x, starts, index, *, mean, ends):
    need(x.ndim == 2 and starts.ndim == index.ndim == 1, "ranks differ from 2, 1 and 1")
    need_index(starts)
    need_index(index)
    need(type(mean) is bool and type(ends) is bool, f"mean {mean!r}, ends {ends!r}")
    need(starts.shape[0] >= ends, "no starts")


@checked("compact")
def _compact(x, mask, ends):
    need(x.ndim == mask.ndim == ends.ndim == 1, "ranks differ from 1")
    need(x.dtype is D.int64 and mask.dtype is D.bool_, f"{mask.dtype} to {x.dtype}")
    need_index(ends)


@checked("index_get")
def _index_get(x, index):
    need_index(index)
    count = index.shape[1] if index.ndim == 2 else None
    need(is_int(count) and 0 < count <= x.ndim, f"an index of shape {index.shape}")


@checked("index_put")
def _index_put(x, index, src, *, accumulate):
    _index_get(x, index)
    need_equal((index.shape[0], *x.shape[index.shape[1] :]), src.shape, "places and source")
    need(x.dtype is src.dtype and type(accumulate) is bool, "dtypes differ")


@checked("cat")
def _cat(*xs, dim):
    need(xs, "nothing to join")
    need_dim(dim, xs[0])
    for x in xs:
        need(x.dtype is xs[0].dtype and x.ndim == xs[0].ndim, "dtypes or ranks differ")
        need_equal(without(xs[0].shape, dim), without(x.shape, dim), "sizes")


# Contractions and pooling ---


@checked("matmul")
def _matmul(a, b, wide=False):
    need(a.ndim == b.ndim and a.ndim in (3, 4), "ranks that are not 3 or 4")
    need_equal((*a.shape[:-2], a.shape[-1]), b.shape[:-1], "sizes")
    need(a.dtype is b.dtype and a.dtype.kind != "b", "dtypes differ, or are bool")


def _need_cell(values, ranks, cell, reverse, batch_first):
    """The cell, given values and their ranks; the last may be sizes of steps."""
    need(isinstance(cell, str) and cell in CELLS, f"cell {cell!r}")
    need(type(reverse) is bool and type(batch_first) is bool, "flags that are not bool")
    ranks = ranks(CELLS[cell].states)
    packed = len(values) == len(ranks) + 1
    need(len(values) in (len(ranks), len(ranks) + 1), f"{len(values)} operands")
    for v, rank in zip(values, ranks):
        rank -= packed and rank == 3
        need(v.ndim == rank and v.dtype is values[0].dtype, "ranks or dtypes differ")
    need(values[0].dtype in (D.float32, D.float64), f"dtype {values[0].dtype.name}")
    if packed:
        need(values[-1].ndim == 1 and values[-1].dtype is D.int64, "sizes that are no int64 vector")
    return CELLS[cell], packed


@checked("recurrence")
def _recurrence(*values, cell, reverse, batch_first):
    c, packed = _need_cell(values, lambda n: (3, 2, 1, *(2,) * n), cell, reverse, batch_first)
    p, w, bias, *rest = values
    h = w.shape[1]
    need_equal((p.shape[-1], w.shape[0], bias.shape[0]), (c.gates * h,) * 3, "gates")
    rows = rest[0].shape[0] if packed else p.shape[0 if batch_first else 1]
    for state in rest[: c.states]:
        need_equal(state.shape, (rows, h), "states")


@checked("recurrence_gradient")
def _recurrence_gradient(*values, cell, reverse, batch_first):
    def ranks(n):
        return (3, *(2,) * n, *(3,) * (n + 1), 2)

    c, packed = _need_cell(values, ranks, cell, reverse, batch_first)
    gy, n, h = values[0], c.states, values[0].shape[-1]
    rows = values[1].shape[0] if packed else gy.shape[0 if batch_first else 1]
    for g in values[1 : 1 + n]:
        need_equal(g.shape, (rows, h), "states")
    need_equal(values[1 + n].shape, (*gy.shape[:-1], c.kept * h), "kept values")
    for start in values[2 + n : 2 + 2 * n]:
        need_equal(start.shape, gy.shape, "states")
    need_equal(values[2 + 2 * n].shape, (c.gates * h, h), "weights")


def _need_geometry(x, w, stride, padding, dilation, groups):
    rank = w.ndim - 2
    need(x.ndim == w.ndim and 1 <= rank <= 3 and x.dtype is w.dtype, "ranks or dtypes differ")
    need(x.dtype.is_floating_point, f"dtype {x.dtype.name}")
    need_ints(stride, rank, 1)
    need_ints(dilation, rank, 1)
    need_ints(padding, rank, 0)
    need(is_int(groups) and groups >= 1, f"groups {groups!r}")


def _need_conv_sizes(space, out, kernel, stride, padding, dilation):
    for n, m, k, s, p, d in zip(space, out, kernel, stride, padding, dilation):
        need(k >= 1 and n + 2 * p >= d * (k - 1) + 1, "a kernel wider than its input")
        need((n + 2 * p - d * (k - 1) - 1) // s + 1 == m, "sizes that do not fit")


@checked("conv")
def _conv(x, w, *, stride, padding, dilation, groups):
    _need_geometry(x, w, stride, padding, dilation, groups)
    need(x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0, "channels do not fit")
    for n, k, p, d in zip(x.shape[2:], w.shape[2:], padding, dilation):
        need(k >= 1 and n + 2 * p >= d * (k - 1) + 1, "a kernel wider than its input")


@checked("conv_input")
def _conv_input(g, w, *, spatial, stride, padding, dilation, groups):
    _need_geometry(g, w, stride, padding, dilation, groups)
    need_shape(spatial)
    need(len(spatial) == w.ndim - 2, "spatial sizes")
    need(g.shape[1] == w.shape[0] and w.shape[0] % groups == 0, "channels do not fit")
    _need_conv_sizes(spatial, g.shape[2:], w.shape[2:], stride, padding, dilation)


@checked("conv_weight")
def _conv_weight(x, g, *, kernel, stride, padding, dilation, groups):
    _need_geometry(x, g, stride, padding, dilation, groups)
    need_shape(kernel)
    need(len(kernel) == x.ndim - 2 and x.shape[0] == g.shape[0], "sizes")
    need(x.shape[1] % groups == 0 and g.shape[1] % groups == 0, "channels do not fit")
    _need_conv_sizes(x.shape[2:], g.shape[2:], kernel, stride, padding, dilation)


@checked("attention")
def _attention(q, k, v, *rest, **params):
    need(set(params) == {"causal", "masked", "dropout", "scale"}, f"{list(params)}")
    flags = (params[name] for name in ("causal", "masked", "dropout"))
    need(all(type(x) is bool for x in flags), f"{params}")
    need(params["scale"] is None or type(params["scale"]) is float, f"scale {params['scale']!r}")
    need(len(rest) == params["masked"] + 3 * params["dropout"], f"{3 + len(rest)} operands")
    if params["masked"]:
        need(rest[0].dtype.kind in "bf", f"a mask of dtype {rest[0].dtype.name}")
    if params["dropout"]:
        dtypes = (D.float32, D.int64, D.int64)
        for x, dtype in zip(rest[params["masked"] :], dtypes):
            need(x.dtype is dtype and x.ndim == 0, f"{x.dtype.name} of {x.ndim} dimensions")
    attention_.infer(q, k, v, *rest, **params)
    need_groups(q, k, v)


@checked("attention_gradient")
def _attention_gradient(g, y, lse, q, k, v, *rest, **params):
    _attention(q, k, v, *rest, **params)
    for given, (dtype, shape) in zip((y, lse), attention_.infer(q, k, v, *rest, **params)):
        need(given.dtype is dtype, f"a result of dtype {given.dtype.name}")
        need_equal(given.shape, shape, "sizes of a result")
    need(g.dtype is y.dtype, f"a gradient of dtype {g.dtype.name}")
    need_equal(g.shape, y.shape, "sizes of the gradient")


def _pool(x, p):
    need(set(p) == {"rank", "kernel", "stride", "padding", "dilation", "ceil_mode"}, f"{list(p)}")
    rank = p["rank"]
    need(is_int(rank) and 1 <= rank <= 3 and x.ndim in (rank + 1, rank + 2), f"rank {rank!r}")
    need_ints(p["kernel"], rank, 1)
    need_ints(p["stride"], rank, 1)
    need_ints(p["padding"], rank, 0)
    need_ints(p["dilation"], rank, 1)
    need(type(p["ceil_mode"]) is bool, "ceil_mode")
    names = ("kernel", "stride", "padding", "dilation", "ceil_mode")
    return Pool("max_pool", x, rank, *(p[k] for k in names))


@checked("max_pool")
def _max_pool(x, **params):
    _pool(x, params)


@checked("max_pool_gradient")
def _max_pool_gradient(g, x, **params):
    pool = _pool(x, params)
    need(g.dtype is x.dtype and x.dtype.is_floating_point, "dtypes")
    need_equal(g.shape, (*x.shape[: x.ndim - pool.rank], *pool.out), "sizes")
