"""Pooling over windows of one to three spatial dimensions, and channels rearranged as space."""

from __future__ import annotations

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, ShapeError, fail
from facula.ir.dims import product, same
from facula.ir.program import Value
from facula.ops.conv import NN, tuple_of
from facula.ops.movement import constant_pad, slice_, windows_
from facula.ops.promote import expand_to, to
from facula.ops.random import positions
from facula.ops.reduce import argmax_, max_, size_value, sum_
from facula.ops.registry import F, Primitive, composite, op


class Pool:
    """The geometry of a pooling: window, stride, padding, dilation, and outputs per dimension."""

    def __init__(self, name, x, rank, kernel, stride, padding, dilation, ceil_mode):
        self.rank = rank
        self.kernel = tuple_of(name, "kernel_size", kernel, rank)
        empty = stride is None or isinstance(stride, (tuple, list)) and len(stride) == 0
        self.stride = self.kernel if empty else tuple_of(name, "stride", stride, rank)
        self.padding = tuple_of(name, "padding", padding, rank)
        self.dilation = tuple_of(name, "dilation", dilation, rank)
        if min(self.kernel) <= 0 or min(self.stride) <= 0 or min(self.dilation) <= 0:
            fail(ShapeError, name, "kernel size, stride and dilation should be greater than zero")
        if any(p < 0 or p > k // 2 for p, k in zip(self.padding, self.kernel)):
            fail(
                ShapeError,
                name,
                "pad should be at most half of effective kernel size, got "
                f"padding={list(self.padding)}, kernel_size={list(self.kernel)}",
            )
        self.ceil, self.after, self.out = ceil_mode, [], []
        for d, n in enumerate(x.shape[x.ndim - rank :]):
            self._dimension(name, d, n)

    def _dimension(self, name, d, n):
        k, s = self.kernel[d], self.stride[d]
        p, span = self.padding[d], self.dilation[d] * (self.kernel[d] - 1) + 1
        out = (n + 2 * p - span + (s - 1 if self.ceil else 0)) // s + 1
        if out < 1:
            fail(ShapeError, name, f"Given input size: {n}, kernel {k}: output size is too small")
        if self.ceil and (out - 1) * s >= n + p:
            out = out - 1
        need = (out - 1) * s + span - (n + p)
        self.after.append(need if need > 0 else 0)
        self.out.append(out)

    def windows(self, x, value):
        """[..., *out, *kernel]: the padded input's windows."""
        lead = x.ndim - self.rank
        pads = [(0, 0)] * lead + list(zip(self.padding, self.after))
        x = constant_pad(x, pads, value)
        for d in range(self.rank):
            at = lead + 2 * d
            need = (self.out[d] - 1) * self.stride[d] + self.dilation[d] * (self.kernel[d] - 1) + 1
            if not same(x.shape[at], need):
                x = slice_(x, dim=at, start=0, length=need, step=1)
            x = windows_(
                x, dim=at, size=self.kernel[d], step=self.stride[d], dilation=self.dilation[d]
            )
        order = [
            *range(lead),
            *(lead + 2 * d for d in range(self.rank)),
            *(lead + 2 * d + 1 for d in range(self.rank)),
        ]
        return F.permute(x, tuple(order))


def _lowest(dtype):
    if dtype.is_floating_point:
        return float("-inf")
    return 0 if dtype.kind in "bu" else -(1 << (8 * dtype.itemsize - 1))


def _pool(x, p):
    return Pool(
        "max_pool",
        x,
        p["rank"],
        p["kernel"],
        p["stride"],
        p["padding"],
        p["dilation"],
        p["ceil_mode"],
    )


def _window_dims(x, rank):
    return tuple(range(x.ndim, x.ndim + rank))


def _max_pool_indices(x, p, pool):
    """For each window, the flat spatial index of its first largest element."""
    rank, lead = p["rank"], x.ndim - p["rank"]
    w = pool.windows(x, _lowest(x.dtype))
    flat = F.flatten(w, x.ndim, -1) if rank > 1 else w
    at = argmax_(flat, dims=(x.ndim,))
    result = None
    for d in reversed(range(rank)):
        k = pool.kernel[d]
        within = F.remainder(at, k) if d else at
        at = F.floor_divide(at, k) if d else at
        ones = tuple(n if i == lead + d else 1 for i, n in enumerate(within.shape))
        start = F.reshape(positions(shape=(within.shape[lead + d],)), ones) * pool.stride[d]
        place = start + within * pool.dilation[d] - pool.padding[d]
        place = place if result is None else place * F.span(x, lead + d + 1, x.ndim)
        result = place if result is None else result + place
    return result


@op(spaces=())
def span(input: Value, first, last):
    """The product of sizes ``first`` to ``last`` (exclusive), as an int64 value."""
    return size_value(product(input.shape[first:last]), D.int64)


def _max_pool(x, **p):
    return max_(_pool(x, p).windows(x, _lowest(x.dtype)), dims=_window_dims(x, p["rank"]))


def _max_pool_gradient_meaning(np, g, x, *, rank, kernel, stride, padding, dilation, ceil_mode):
    """Windows in order, elements of each in order: the first largest takes the gradient."""
    y = np.zeros_like(x)
    lead = x.ndim - rank
    for place in np.ndindex(*g.shape):
        best, at = None, None
        for taps in np.ndindex(*kernel):
            where = tuple(
                q * s - p + t * d
                for q, s, p, t, d in zip(place[lead:], stride, padding, taps, dilation)
            )
            if not all(0 <= w < n for w, n in zip(where, x.shape[lead:])):
                continue
            value = x[(*place[:lead], *where)]
            if at is None or value > best or (value != value and best == best):
                best, at = value, (*place[:lead], *where)
        y[at] += g[place]
    return y


def _max_pool_gradient_gradient(gg, y, g, x, **p):
    lead = x.ndim - p["rank"]
    index = _max_pool_indices(x, p, _pool(x, p))
    planes = (*x.shape[:lead], -1)
    picked = F.gather(F.reshape(gg, planes), lead, F.reshape(index, planes))
    return (F.reshape(picked, tuple(g.shape)), None)


#: (g, x) -> the gradient of ``max_pool`` in x; g is that of its result.
max_pool_gradient_ = Primitive(
    "max_pool_gradient", "opaque", lambda g, x, **p: [(x.dtype, x.shape)],
    _max_pool_gradient_meaning, _max_pool_gradient_gradient,
)  # fmt: skip


def _max_pool_gradient(g, y, x, **p):
    return (max_pool_gradient_(g, x, **p),)


max_pool_ = composite("max_pool", _max_pool, _max_pool_gradient)


def _batch(name, input, rank):
    if input.ndim not in (rank + 1, rank + 2):
        fail(
            ShapeError,
            name,
            f"Expected {rank + 1}D or {rank + 2}D (batch mode) tensor for input, "
            f"but got input of size: {list(input.shape)}",
        )


def _define_max_pool(rank):
    name = f"max_pool{rank}d"
    space = (7, 6, 5)[:rank]

    def samples(make):
        x = make(2, 3, *space, distinct=True)
        return [((x, 2), {}), ((x, 3), {"stride": 2, "padding": 1}), ((x, 2, 2, 0, 1, True), {})]

    def params(input, kernel_size, stride, padding, dilation, ceil_mode):
        _batch(name, input, rank)
        pool = Pool(name, input, rank, kernel_size, stride, padding, dilation, ceil_mode)
        return {
            "rank": rank,
            "kernel": pool.kernel,
            "stride": pool.stride,
            "padding": pool.padding,
            "dilation": pool.dilation,
            "ceil_mode": bool(ceil_mode),
        }, pool

    def fn(
        input: Value,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        return_indices=False,
    ):
        p, pool = params(input, kernel_size, stride, padding, dilation, ceil_mode)
        y = max_pool_(input, **p)
        return (y, _max_pool_indices(input, p, pool)) if return_indices else y

    fn.__name__ = name
    fn.__doc__ = f"""The largest element of each window, over {rank} spatial dimension(s).

    With ``return_indices`` also the flat spatial positions of these elements (int64).
    """
    return op(fn, spaces=NN, samples=samples)


max_pool1d, max_pool2d, max_pool3d = map(_define_max_pool, (1, 2, 3))


def _average(name, rank, input, kernel, stride, padding, ceil_mode, include_pad, divisor):
    _batch(name, input, rank)
    pool = Pool(name, input, rank, kernel, stride, padding, 1, ceil_mode)
    dims = _window_dims(input, rank)
    total = sum_(pool.windows(input, 0), dims=dims)
    if divisor is not None:
        if divisor == 0:
            fail(ShapeError, name, "divisor must be not zero")
        return total / divisor
    plain = all(p == 0 for p in pool.padding) and not ceil_mode
    if plain or include_pad and not ceil_mode:
        window = 1
        for k in pool.kernel:
            window *= k
        return total / window
    ones = expand_to(to(1, input.dtype), input.shape)
    if include_pad:
        lead = [(0, 0)] * (input.ndim - rank)
        ones = constant_pad(ones, lead + [(p, p) for p in pool.padding], 1)
        pool.after = [a - p if a > p else 0 for a, p in zip(pool.after, pool.padding)]
        pool.padding = (0,) * rank
    return total / sum_(pool.windows(ones, 0), dims=dims)


def _define_avg_pool(rank):
    name = f"avg_pool{rank}d"
    space = (7, 6, 5)[:rank]

    def samples(make):
        x = make(2, 3, *space)
        return [
            ((x, 2), {}),
            ((x, 3), {"stride": 2, "padding": 1}),
            ((x, 3, 2, 1, True, False), {}),
        ]

    def fn(
        input: Value,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    ):
        return _average(
            name,
            rank,
            input,
            kernel_size,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
            divisor_override,
        )

    def fn1(
        input: Value, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
    ):
        return _average(
            name, rank, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None
        )

    chosen = fn1 if rank == 1 else fn
    chosen.__name__ = name
    chosen.__doc__ = f"The mean of each window, over {rank} spatial dimension(s)."
    return op(chosen, spaces=NN, samples=samples)


avg_pool1d, avg_pool2d, avg_pool3d = map(_define_avg_pool, (1, 2, 3))


def _adaptive(name, rank, input, output_size, reduce):
    """Reduce each of ``output_size`` cells, as even as possible, one dimension after another."""
    _batch(name, input, rank)
    out = tuple_of(name, "output_size", output_size, rank)
    if any(m is not None and m < 0 for m in out):
        fail(ShapeError, name, f"elements of output_size must be at least 0, got {list(out)}")
    for d in range(rank):
        at = input.ndim - rank + d
        m, n = out[d], input.shape[at]
        if m is None or m == n:
            continue
        if m == 1:
            input = reduce(input, at, True)
        elif m == 0:
            input = F.narrow(input, at, 0, 0)
        elif n % m == 0:
            input = reduce(F.unflatten(input, at, (m, n // m)), at + 1, False)
        else:
            input = _uneven(input, at, m, reduce)
    return input


def _uneven(input, at, m, reduce):
    """Reduce ``m`` cells along ``at`` whose widths differ: each as wide as the widest, masked."""
    n = int(input.shape[at])
    width = min(n, -(-n // m) + 1)
    cell = F.reshape(positions(shape=(m,)), (m, 1))
    start, end = F.floor_divide(cell * n, m), F.floor_divide((cell + 1) * n + (m - 1), m)
    place = start + F.reshape(positions(shape=(width,)), (1, width))
    inside = F.lt(place, end)
    cells = F.pick_along(input, F.where(inside, place, 0), at)
    rest = (1,) * (input.ndim - 1 - at)
    inside = F.reshape(inside, (m, width, *rest))
    if reduce is F.amax:
        return F.amax(F.where(inside, cells, float("-inf")), at + 1)
    counts = F.reshape(to(end - start, input.dtype), (m, *rest))
    return F.sum(F.where(inside, cells, 0.0), at + 1) / counts


def _define_adaptive(rank):
    space = (7, 6, 5)[:rank]

    def samples(make):
        return [((make(2, 3, *space), 1), {}), ((make(2, 3, *space), 3), {})]

    def avg(input: Value, output_size):
        return _adaptive(avg.__name__, rank, input, output_size, F.mean)

    def maximum(input: Value, output_size, return_indices=False):
        if return_indices:
            fail(ArgumentError, maximum.__name__, "return_indices is not available here")
        return _adaptive(maximum.__name__, rank, input, output_size, F.amax)

    for fn, kind in ((avg, "avg"), (maximum, "max")):
        fn.__name__ = f"adaptive_{kind}_pool{rank}d"
        fn.__doc__ = f"{kind.capitalize()} pooling to a given output size, {rank} dimension(s)."
    return op(avg, spaces=NN, samples=samples), op(maximum, spaces=NN, samples=samples)


ADAPTIVE = [_define_adaptive(rank) for rank in (1, 2, 3)]


def _at_least_one(name, parameter, n):
    if n < 1:
        fail(ShapeError, name, f"expects a positive {parameter}, but got {n}")


@op(spaces=NN, samples=lambda make: [((make(2, 8, 3, 3), 2), {})])
def pixel_shuffle(input: Value, upscale_factor):
    """Channels ``[n, c r r, h, w]`` to space ``[n, c, h r, w r]``."""
    _at_least_one("pixel_shuffle", "upscale_factor", upscale_factor)
    r, (c, h, w) = upscale_factor, input.shape[-3:]
    if not c % (r * r) == 0:
        fail(
            ShapeError,
            "pixel_shuffle",
            f"expects its input's 'channel' dimension to be divisible "
            f"by the square of upscale_factor, but input.size(-3)={c} is not divisible by {r * r}",
        )
    lead = tuple(input.shape[:-3])
    x = F.reshape(input, (*lead, c // (r * r), r, r, h, w))
    k = len(lead)
    x = F.permute(x, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return F.reshape(x, (*lead, c // (r * r), h * r, w * r))


@op(spaces=NN, samples=lambda make: [((make(2, 2, 4, 6), 2), {})])
def pixel_unshuffle(input: Value, downscale_factor):
    """Space ``[n, c, h r, w r]`` to channels ``[n, c r r, h, w]``."""
    _at_least_one("pixel_unshuffle", "downscale_factor", downscale_factor)
    r, (c, h, w) = downscale_factor, input.shape[-3:]
    if not (h % r == 0 and w % r == 0):
        fail(ShapeError, "pixel_unshuffle", f"expects height and width divisible by {r}")
    lead = tuple(input.shape[:-3])
    x = F.reshape(input, (*lead, c, h // r, r, w // r, r))
    k = len(lead)
    x = F.permute(x, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return F.reshape(x, (*lead, c * r * r, h // r, w // r))
