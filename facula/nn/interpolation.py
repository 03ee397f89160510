"""``interpolate``: resizing one dimension after the other."""

import math

from facula.tensor import arange, cat, float64, linspace, stack, zeros

__all__ = ["affine_grid", "interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def _source(size, output, scale, align_corners):
    """Where, in the input's coordinates, the centre of each output pixel lies; float64."""
    places = arange(output, dtype=float64)
    if align_corners:
        return places * ((size - 1) / (output - 1) if output > 1 else 0.0)
    return (places + 0.5) * (1 / scale if scale else size / output) - 0.5


def _nearest(input, dim, output, scale, exact):
    size = input.shape[dim]
    offset = 0.5 if exact else 0.0
    ratio = 1 / scale if scale else size / output
    places = [min(math.floor((i + offset) * ratio), size - 1) for i in range(output)]
    return input.index_select(dim, arange(size)[places])


def _along(weights, input, dim):
    """``weights``, one a place of ``dim``, shaped to multiply ``input``."""
    shape = [1] * input.ndim
    shape[dim] = weights.shape[0]
    return weights.to(input.dtype).reshape(shape)


def _linear(input, dim, output, scale, align_corners):
    size = input.shape[dim]
    at = _source(size, output, scale, align_corners).clamp(min=0)
    left = at.floor().clamp(max=size - 1)
    part = _along(at - left, input, dim)
    left = left.long()
    first = input.index_select(dim, left)
    second = input.index_select(dim, (left + 1).clamp(max=size - 1))
    return first * (1 - part) + second * part


def _cubic(input, dim, output, scale, align_corners):
    """Keys' cubic convolution with a = -0.75, the edge repeated."""
    size = input.shape[dim]
    at = _source(size, output, scale, align_corners)
    left = at.floor()
    t = at - left

    def near(x, a=-0.75):
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x, a=-0.75):
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
    total = 0.0
    for shift, weight in zip((-1, 0, 1, 2), weights):
        places = (left + shift).clamp(min=0, max=size - 1).long()
        total = total + input.index_select(dim, places) * _along(weight, input, dim)
    return total


def _sizes(input, size, scale_factor, recompute):
    """The output's sizes, and the scale of each dimension or None where it follows from them."""
    n = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ValueError("only one of size or scale_factor should be defined")
    given = size if scale_factor is None else scale_factor
    given = list(given) if isinstance(given, (tuple, list)) else [given] * n
    if len(given) != n:
        raise ValueError(
            f"interpolate: expected {n} values of size or scale_factor, got {len(given)}"
        )
    if scale_factor is None:
        return [int(value) for value in given], [None] * n
    sizes = [math.floor(old * scale) for old, scale in zip(input.shape[2:], given)]
    return sizes, [None] * n if recompute else given


def interpolate(
    input,
    size=None,
    scale_factor=None,
    mode="nearest",
    align_corners=None,
    recompute_scale_factor=None,
    antialias=False,
):
    """Resize the dimensions after the first two.

    Args:
        input: ``(N, C, L)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        size: the new sizes, one number or one a dimension.
        scale_factor: by how much to multiply them instead.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"area"``, ``"linear"``, ``"bilinear"``,
            ``"bicubic"`` or ``"trilinear"``; each of the last four has its number of dimensions.
        align_corners: whether corner pixels keep their place; for the last four modes.
        recompute_scale_factor: derive the scale from the rounded sizes.
        antialias: not supported.
    """
    if antialias:
        raise NotImplementedError("interpolate: antialias=True is not supported")
    if mode in ("nearest", "nearest-exact", "area"):
        if align_corners is not None:
            raise ValueError(
                "align_corners option can only be set with the interpolating modes: "
                "linear | bilinear | bicubic | trilinear"
            )
    elif mode != _LINEAR.get(input.ndim) and not (mode == "bicubic" and input.ndim == 4):
        raise NotImplementedError(
            f"interpolate: mode {mode!r} does not take {input.ndim}D input; hint: of the linear "
            f"modes, it takes {_LINEAR.get(input.ndim)!r}"
        )
    sizes, scales = _sizes(input, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return _area(input, sizes)
    output = input
    for dim, (new, scale) in enumerate(zip(sizes, scales), start=2):
        if mode in ("nearest", "nearest-exact"):
            output = _nearest(output, dim, new, scale, exact=mode == "nearest-exact")
        elif mode == "bicubic":
            output = _cubic(output, dim, new, scale, bool(align_corners))
        else:
            output = _linear(output, dim, new, scale, bool(align_corners))
    return output


def _area(input, sizes):
    """Means over the pixels that an output pixel covers, dimension by dimension.

    That is the mean over the box, since windows of one dimension are the same in all rows.
    """
    for dim, new in enumerate(sizes, start=2):
        old = input.shape[dim]
        edges = [(i * old // new, -(-(i + 1) * old // new)) for i in range(new)]
        means = [
            input.narrow(dim, start, end - start).mean(dim=dim, keepdim=True)
            for start, end in edges
        ]
        input = cat(means, dim=dim)
    return input


def upsample(input, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """The former name of :func:`interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input, size=None, scale_factor=None):
    """:func:`interpolate` by the nearest element."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input, size=None, scale_factor=None):
    """:func:`interpolate` of images, linearly, with the corners in their places."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)


def affine_grid(theta, size, align_corners=None):
    """The places, for :func:`grid_sample`, that affine maps send an even grid to.

    Shapes:
        theta ``(N, 2, 3)`` with size (N, C, H, W): ``(N, H, W, 2)``; or ``(N, 3, 4)`` with
        (N, C, D, H, W): ``(N, D, H, W, 3)``.

    Raises:
        ValueError: theta and size do not fit together.

    >>> from facula import tensor
    >>> theta = tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> affine_grid(theta, (1, 1, 1, 3), align_corners=True)[0, 0, :, 0].tolist()
    [-1.0, 0.0, 1.0]
    """
    rank = len(size) - 2
    if not theta.is_floating_point():
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if rank not in (2, 3) or tuple(theta.shape) != (size[0], rank, rank + 1):
        raise ValueError(
            "affine_grid: expected a batch of 2D or 3D affine matrices of shape Nx2x3 for size "
            f"(N, C, H, W) or Nx3x4 for size (N, C, D, H, W). Got {list(theta.shape)} for size "
            f"{list(size)}."
        )
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {list(size)}")
    space, axes = tuple(size[2:]), []
    for d in reversed(range(rank)):
        n = space[d]
        axis = linspace(-1.0, 1.0, n, dtype=theta.dtype) if n > 1 else zeros(1, dtype=theta.dtype)
        axis = axis if align_corners else axis * ((n - 1) / n)
        axes.append(axis.reshape(*(-1 if i == d else 1 for i in range(rank))).expand(space))
    base = stack([*axes, axes[0].new_ones(space)], -1).reshape(1, -1, rank + 1)
    return (base @ theta.transpose(1, 2)).reshape(size[0], *space, rank)
