"""Images and volumes sampled at given places: ``grid_sample``.

An output pixel is a weighted sum of input pixels around its place: each of these is gathered at a
flat position, so that all is one kernel, and gradients reach the input and the places.
"""

from __future__ import annotations

import itertools

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, DtypeError, ShapeError, UnsupportedError, fail
from facula.ir import dims as sizes
from facula.ir.program import Value
from facula.ops.indexing import gather_
from facula.ops.promote import expand_to, to
from facula.ops.reduce import size_value
from facula.ops.registry import F, op

_MODES, _PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
#: The parameter of the cubic kernel, as in ``interpolate``.
_A = -0.75


def _clipped(x, n):
    """Limited to [0, n - 1]; nothing flows back from outside."""
    return F.where(F.le(x, 0.0), 0.0, F.where(F.ge(x, n - 1.0), n - 1.0, x))


def _reflected(x, n, align_corners):
    """Folded at the borders: at the middles of the outermost pixels, or at their edges."""
    low, span = (0.0, n - 1.0) if align_corners else (-0.5, n)
    x = F.abs(x - low)
    empty = F.le(span, 0.0)
    divisor = F.where(empty, 1.0, span)
    turns = F.floor(x / divisor)
    rest = x - turns * divisor
    odd = F.ne(F.remainder(F.stop(turns), 2.0), 0.0)
    return F.where(empty, 0.0, F.where(odd, span - rest, rest) + low)


def _placed(x, n, padding, align_corners):
    """Coordinates in pixels as the padding sees them."""
    if padding == "border":
        return _clipped(x, n)
    return _clipped(_reflected(x, n, align_corners), n) if padding == "reflection" else x


def _taps_linear(x):
    """(position, weight) of the two neighbours."""
    low = F.stop(F.floor(x))
    return [(low, 1.0 - (x - low)), (low + 1.0, x - low)]


def _taps_cubic(x):
    """(position, weight) of the four neighbours."""
    low = F.stop(F.floor(x))
    t = x - low

    def near(d):
        return ((_A + 2.0) * d - (_A + 3.0)) * d * d + 1.0

    def far(d):
        return ((_A * d - 5.0 * _A) * d + 8.0 * _A) * d - 4.0 * _A

    weights = (far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t))
    return [(low + float(k - 1), w) for k, w in enumerate(weights)]


def _check(input, grid, mode, padding_mode):
    name, rank = "grid_sample", input.ndim - 2
    if mode not in _MODES or padding_mode not in _PADDINGS:
        fail(ArgumentError, name, f"expected mode to be one of {_MODES} and padding_mode one of "
             f"{_PADDINGS}, but got: '{mode}' and '{padding_mode}'")  # fmt: skip
    if rank not in (2, 3) or grid.ndim != input.ndim:
        fail(ShapeError, name, f"expected 4D or 5D input and grid with same number of dimensions, "
             f"but got input with sizes {list(input.shape)} and grid with sizes "
             f"{list(grid.shape)}")  # fmt: skip
    if not grid.shape[0] == input.shape[0]:
        fail(ShapeError, name, f"expected grid and input to have same batch size, but got "
             f"{input.shape[0]} and {grid.shape[0]}")  # fmt: skip
    if not grid.shape[-1] == rank:
        fail(ShapeError, name, f"expected grid to have size {rank} in last dimension, but got grid "
             f"with sizes {list(grid.shape)}")  # fmt: skip
    if any(n == 0 for n in input.shape[2:]):
        fail(ShapeError, name, "expected input to have non-empty spatial dimensions, but input has "
             f"sizes {list(input.shape)}")  # fmt: skip
    if input.dtype is not grid.dtype or not input.dtype.is_floating_point:
        fail(DtypeError, name, f"expected input and grid to have the same floating-point dtype, "
             f"got {input.dtype.name} and {grid.dtype.name}")  # fmt: skip
    if mode == "bicubic" and rank == 3:
        fail(UnsupportedError, name, "bicubic interpolation only supports 4D input")


def _samples(make):
    x, g = make(2, 2, 4, 3), make(2, 3, 2, 2, low=-1.2, high=1.2)
    volume, places = make(1, 2, 3, 2, 4), make(1, 2, 2, 1, 3, low=-1.2, high=1.2)
    return [
        ((x, g, "bilinear", "zeros", False), {}),
        ((x, g, "nearest", "border", True), {}),
        ((x, g, "bicubic", "reflection", False), {}),
        ((volume, places, "bilinear", "reflection", True), {}),
    ]


@op(spaces=("nn.functional",), samples=_samples)
def grid_sample(input: Value, grid: Value, mode="bilinear", padding_mode="zeros",
                align_corners=None):  # fmt: skip
    """``input`` at the places ``grid``, which are x, y (and z) from -1 to 1 (Jaderberg, 2015).

    Args:
        mode: "bilinear" (trilinear for volumes), "nearest" or "bicubic" (images only).
        padding_mode: what is outside: "zeros", the nearest pixel ("border"), or "reflection".
        align_corners: whether -1 and 1 are the middles of the corner pixels, or their edges.

    Shapes: input ``[n, c, h, w]``, grid ``[n, p, q, 2]``, result ``[n, c, p, q]``; volumes
    ``[n, c, d, h, w]`` with ``[n, o, p, q, 3]``. One floating-point dtype.
    """
    _check(input, grid, mode, padding_mode)
    align, rank = bool(align_corners), input.ndim - 2
    n, c, space, out = *input.shape[:2], input.shape[2:], grid.shape[1:-1]
    pixels = sizes.product(space)
    flat = F.reshape(input, (n, c, pixels))
    taps = []  # Per dimension of the input, slowest first: (position, weight) of each neighbour.
    for d, size in enumerate(space):
        length = size_value(size, input.dtype)
        x = F.select(grid, -1, rank - 1 - d)
        x = (x + 1.0) * 0.5 * (length - 1.0) if align else ((x + 1.0) * length - 1.0) * 0.5
        if mode == "bicubic":
            near = [(_placed(p, length, padding_mode, align), w) for p, w in _taps_cubic(x)]
        else:
            x = _placed(x, length, padding_mode, align)
            near = [(F.stop(F.round(x)), None)] if mode == "nearest" else _taps_linear(x)
        taps.append([(p, w, F.ge(p, 0.0) & F.le(p, length - 1.0)) for p, w in near])
    total = None
    for corner in itertools.product(*taps):
        place, weight, inside = None, None, None
        for (p, w, ok), size in zip(corner, space):
            at = to(F.where(ok, p, 0.0), D.int64)
            place = at if place is None else place * size_value(size, D.int64) + at
            inside = ok if inside is None else inside & ok
            weight = w if weight is None or w is None else weight * w
        index = expand_to(F.reshape(place, (n, 1, sizes.product(out))), (n, c, sizes.product(out)))
        y = F.reshape(gather_(flat, index, dim=2), (n, c, *out))
        y = F.where(F.unsqueeze(inside, 1), y, 0.0)
        y = y if weight is None else y * F.unsqueeze(weight, 1)
        total = y if total is None else total + y
    return total
