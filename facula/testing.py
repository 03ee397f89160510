"""Help for tests: PyTorch's ``torch.testing``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from facula.base import dtypes as D
from facula.tensor import Tensor, as_tensor, isclose, no_grad

__all__ = ["assert_close", "make_tensor"]

#: (relative, absolute) tolerances.
_TOLERANCES = {
    D.float16: (1e-3, 1e-5), D.bfloat16: (1.6e-2, 1e-5), D.float32: (1.3e-6, 1e-5),
    D.float64: (1e-7, 1e-7),
}  # fmt: skip


def assert_close(
    actual, expected, *, allow_subclasses=True, rtol=None, atol=None, equal_nan=False,
    check_device=True, check_dtype=True, check_layout=True, check_stride=False, msg=None,
) -> None:  # fmt: skip
    """Refuse values that are not close: tensors, numbers, and sequences and mappings of them.

    Args:
        rtol, atol: ``|actual - expected| <= atol + rtol * |expected|``; by default what the
            dtypes allow. Give both or none.
        equal_nan: NaN is close to NaN.
        msg: the message, or a function of the usual one.

    Raises:
        AssertionError: they are not close, or differ in shape, dtype or structure.

    >>> import facula
    >>> assert_close(facula.tensor(1.0), facula.tensor(1.0 + 1e-7))
    """
    if (rtol is None) != (atol is None):
        raise ValueError("assert_close: both rtol and atol must be given, or neither")

    def complain(text):
        raise AssertionError(msg(text) if callable(msg) else msg or text)

    options = (rtol, atol, equal_nan, check_dtype, check_stride)
    _compare(actual, expected, "", options, complain)


def _compare(actual, expected, where, options, complain):
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or set(actual) != set(expected):
            complain(f"The keys of the mappings do not match{where}")
        for key in expected:
            _compare(actual[key], expected[key], f"{where} at {key!r}", options, complain)
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(actual, Sequence) or len(actual) != len(expected):
            complain(f"The length of the sequences mismatch{where}")
        for i, (a, e) in enumerate(zip(actual, expected)):
            _compare(a, e, f"{where} at index {i}", options, complain)
    elif actual is None or expected is None:
        if actual is not expected:
            complain(f"None mismatch{where}: {actual} is not {expected}")
    else:
        _compare_tensors(actual, expected, where, options, complain)


def _compare_tensors(actual, expected, where, options, complain):
    rtol, atol, equal_nan, check_dtype, check_stride = options
    numbers = not isinstance(actual, Tensor) and not isinstance(expected, Tensor)
    a, e = (x.detach() if isinstance(x, Tensor) else as_tensor(x, dtype=_number_type(x))
            for x in (actual, expected))  # fmt: skip
    if a.shape != e.shape:
        complain(f"The values for attribute 'shape' do not match{where}: {tuple(a.shape)} != "
                 f"{tuple(e.shape)}.")  # fmt: skip
    if check_dtype and not numbers and a.dtype is not e.dtype:
        complain(f"The values for attribute 'dtype' do not match{where}: {a.dtype} != {e.dtype}.")
    if check_stride and a.stride() != e.stride():
        complain(f"The values for attribute 'stride()' do not match{where}: {a.stride()} != "
                 f"{e.stride()}.")  # fmt: skip
    if rtol is None:
        pairs = [_TOLERANCES.get(x.dtype, (0.0, 0.0)) for x in (a, e)]
        rtol, atol = (max(p) for p in zip(*pairs))
    dtype = D.promote_types(a.dtype, e.dtype)
    with no_grad():
        a, e = a.to(dtype), e.to(dtype)
        wide = dtype if dtype.kind != "f" or dtype is D.float64 else D.float32
        close = isclose(a.to(wide), e.to(wide), rtol=rtol, atol=atol, equal_nan=equal_nan)
        if bool(close.all()):
            return
        a, e, wrong = a.double(), e.double(), close.logical_not()
        count, difference = int(wrong.sum()), (a - e).abs()
        worst = difference.masked_fill(close, -math.inf).reshape(-1)
        place = int(worst.argmax())
        relative = (difference / e.abs()).masked_fill(close, -math.inf)
    if a.ndim == 0:
        kind = "Scalars" if numbers else "Tensor-likes"
        complain(f"{kind} are not close{where}!\n\nExpected {e.item()} but got {a.item()}.\n"
                 f"Absolute difference: {worst.max().item()} (up to {atol} allowed)\n"
                 f"Relative difference: {relative.max().item()} (up to {rtol} allowed)"
                 )  # fmt: skip
    subscript = []
    for n in reversed(a.shape):
        subscript.append(place % n)
        place //= n
    complain(
        f"Tensor-likes are not close{where}!\n\n"
        f"Mismatched elements: {count} / {a.numel()} ({100 * count / a.numel():.1f}%)\n"
        f"Greatest absolute difference: {worst.max().item()} at index {tuple(reversed(subscript))} "
        f"(up to {atol} allowed)\n"
        f"Greatest relative difference: {relative.max().item()} (up to {rtol} allowed)"
    )


def _number_type(x):
    return D.float64 if isinstance(x, float) else None


def make_tensor(
    *shape, dtype, device="cpu", low=None, high=None, requires_grad=False, noncontiguous=False,
    exclude_zero=False, memory_format=None,
):  # fmt: skip
    """A tensor of random elements: uniform in [low, high), by default [-9, 9) for numbers.

    Args:
        noncontiguous: every second element of memory.
        exclude_zero: zeros become the smallest number (1 for integers).
    """
    from facula.tensor import empty, finfo, randint

    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if dtype is D.bool_:
        x = randint(0, 2, shape, dtype=dtype)
    elif dtype.kind == "f":
        x = empty(shape, dtype=dtype).uniform_(
            -9.0 if low is None else low, 9.0 if high is None else high
        )
    else:
        least = 0 if dtype.kind == "u" else -9
        x = randint(
            least if low is None else int(low),
            10 if high is None else int(high),
            shape,
            dtype=dtype,
        )
    if exclude_zero:
        x[x == 0] = 1 if dtype.kind != "f" else finfo(dtype).tiny
    if noncontiguous and x.numel() > 1:
        y = empty((*x.shape, 2), dtype=dtype)
        y[..., 0] = x
        x = y[..., 0]
    return x.requires_grad_() if requires_grad else x
