"""Pooling over windows of one to three spatial dimensions, and channels rearranged as space."""

from __future__ import annotations

from facula.base.errors import ShapeError, fail
from facula.ir.program import Value
from facula.library.conv import NN
from facula.ops.indexing import take_
from facula.ops.movement import constant_pad
from facula.ops.pool import Pool, max_pool_, max_pool_indices, tuple_of, window_dims
from facula.ops.promote import expand_to, to
from facula.ops.random import positions
from facula.ops.reduce import sum_
from facula.ops.registry import F, op


def _batch(name, input, rank):
    if input.ndim not in (rank + 1, rank + 2):
        fail(
            ShapeError,
            name,
            f"Expected {rank + 1}D or {rank + 2}D (batch mode) tensor for input, "
            f"but got input of size: {list(input.shape)}",
        )
    if any(n == 0 for n in input.shape[input.ndim - rank - 1 :]):
        fail(ShapeError, name, "Expected input's non-batch dimensions to have positive length, but "
             f"got {list(input.shape)}", "only the batch may be empty")  # fmt: skip


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
        return (y, max_pool_indices(input, p, pool)) if return_indices else y

    fn.__name__ = name
    fn.__doc__ = f"""The largest element of each window, over {rank} spatial dimension(s).

    With ``return_indices`` also the flat spatial positions of these elements (int64).
    """
    return op(fn, spaces=NN, samples=samples)


max_pool1d, max_pool2d, max_pool3d = map(_define_max_pool, (1, 2, 3))


def _average(name, rank, input, kernel, stride, padding, ceil_mode, include_pad, divisor):
    _batch(name, input, rank)
    pool = Pool(name, input, rank, kernel, stride, padding, 1, ceil_mode)
    dims = window_dims(input, rank)
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
    return op(chosen, spaces=NN, out=rank > 1, samples=samples)


avg_pool1d, avg_pool2d, avg_pool3d = map(_define_avg_pool, (1, 2, 3))


def _adaptive(name, rank, input, output_size, reduce):
    """Reduce each of ``output_size`` cells, as even as possible, one dimension after another."""
    _batch(name, input, rank)
    out = tuple_of(name, "output_size", output_size, rank, optional=True)
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


def _adaptive_with_indices(name, rank, input, output_size):
    """The largest element of each cell, and its flat spatial position: the first of equals."""
    _batch(name, input, rank)
    out, lead = tuple_of(name, "output_size", output_size, rank, optional=True), input.ndim - rank
    place, inside = None, None
    for d in range(rank):
        n = int(input.shape[lead + d])
        m = n if out[d] is None else out[d]
        width = n // m if n % m == 0 else min(n, n // m + 2)
        cell = F.reshape(positions(shape=(m,)), (m, 1))
        start, end = F.floor_divide(cell * n, m), F.floor_divide((cell + 1) * n + (m - 1), m)
        at = start + F.reshape(positions(shape=(width,)), (1, width))
        shape = [1] * (2 * rank)
        shape[d], shape[rank + d] = m, width
        ok, at = F.reshape(F.lt(at, end), shape), F.reshape(F.minimum(at, n - 1), shape)
        place = at if place is None else place * F.span(input, lead + d, lead + d + 1) + at
        inside = ok if inside is None else inside & ok
    flat = F.flatten(input, lead, -1)
    place = F.flatten(place, rank, -1)
    cells = take_(flat, place, dim=lead)
    best = F.argmax(F.where(F.flatten(inside, rank, -1), cells, float("-inf")), -1, True)
    lead_ones = (1,) * lead + tuple(place.shape)
    index = F.squeeze(F.take_along_dim(F.reshape(place, lead_ones), best, -1), -1)
    y = F.gather(flat, lead, F.flatten(index, lead, -1))
    return F.reshape(y, index.shape), index


def _define_adaptive(rank):
    space = (7, 6, 5)[:rank]

    def samples(make):
        return [((make(2, 3, *space), 1), {}), ((make(2, 3, *space), 3), {})]

    def with_indices(make):
        x = make(2, 3, *space, distinct=True)
        return [*samples(make), ((x, 3), {"return_indices": True})]

    def avg(input: Value, output_size):
        return _adaptive(avg.__name__, rank, input, output_size, F.mean)

    def maximum(input: Value, output_size, return_indices=False):
        if return_indices:
            return _adaptive_with_indices(maximum.__name__, rank, input, output_size)
        return _adaptive(maximum.__name__, rank, input, output_size, F.amax)

    for fn, kind in ((avg, "avg"), (maximum, "max")):
        fn.__name__ = f"adaptive_{kind}_pool{rank}d"
        fn.__doc__ = f"{kind.capitalize()} pooling to a given output size, {rank} dimension(s)."
    return op(avg, spaces=NN, samples=samples), op(maximum, spaces=NN, samples=with_indices)


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
