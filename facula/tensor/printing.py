"""How tensors look as text: as in PyTorch, to the letter.

Elements are read from memory on the host, so that printing never compiles anything.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, fail
from facula.eager.tensor import Tensor
from facula.tensor import memory


class _Options:
    """What :func:`set_printoptions` sets."""

    precision, threshold, edgeitems, linewidth, sci_mode = 4, 1000.0, 3, 80, None


_options = _Options()
_NAMES = ("precision", "threshold", "edgeitems", "linewidth", "sci_mode")
_PROFILES = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision=None, threshold=None, edgeitems=None, linewidth=None, profile=None, sci_mode=None
) -> None:
    """Set how tensors are printed.

    Args:
        precision: digits after the point (4).
        threshold: more elements than that are summarised (1000).
        edgeitems: how many are shown at each end of a summarised dimension (3).
        linewidth: characters a line (80).
        profile: "default", "short" or "full" sets all of these.
        sci_mode: True or False for scientific notation; None decides by the values.
    """
    if profile is not None:
        if profile not in _PROFILES:
            fail(ArgumentError, "set_printoptions", f"unknown profile {profile!r}")
        vars(_options).update(_PROFILES[profile])
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems,
             "linewidth": linewidth}  # fmt: skip
    vars(_options).update({k: v for k, v in given.items() if v is not None})
    _options.sci_mode = sci_mode


def get_printoptions() -> dict:
    """The settings in force."""
    return {name: getattr(_options, name) for name in _NAMES}


@contextmanager
def printoptions(**settings):
    """Other settings inside of a block."""
    before = get_printoptions()
    try:
        set_printoptions(**settings)
        yield
    finally:
        set_printoptions(**before)


# Elements ----------------------------------------------------------------------------------------


def _elements(x, edge):
    """Nested lists of the elements; of a dimension longer than ``2 * edge`` only the ends."""
    own = x._meta
    size = own.dtype.itemsize

    def part(address, d):
        if d == own.ndim:
            return memory.read(address, own.dtype)
        n, step = own.shape[d], own.strides[d] * size
        places = range(n)
        if edge is not None and n > 2 * edge:
            places = (*range(edge), *range(n - edge, n))
        return [part(address + i * step, d + 1) for i in places]

    return part(x._ptr, 0)


def _flat(nested, out):
    if isinstance(nested, list):
        for item in nested:
            _flat(item, out)
    else:
        out.append(nested)
    return out


class _Formatter:
    """One way of writing a number for all elements of a tensor."""

    def __init__(self, values, floating):
        self.floating, self.scientific, self.whole, self.width = floating, False, True, 1
        if not floating:
            self.width = max((len(str(v)) for v in values), default=1)
            return
        shown = [v for v in values if math.isfinite(v) and v != 0]
        precision = _options.precision
        if shown:
            least, most = min(map(abs, shown)), max(map(abs, shown))
            self.whole = all(v == math.ceil(v) for v in shown)
            wide = most / least > 1000.0 or most > 1.0e8
            self.scientific = wide or not self.whole and least < 1.0e-4
            if _options.sci_mode is not None:
                self.scientific = _options.sci_mode
            if self.scientific:
                texts = [f"{v:.{precision}e}" for v in shown]
            elif self.whole:
                texts = [f"{v:.0f}." for v in shown]
            else:
                texts = [f"{v:.{precision}f}" for v in shown]
            self.width = max(1, *map(len, texts))

    def __call__(self, v) -> str:
        if not self.floating:
            text = str(v)
        elif self.scientific:
            text = f"{v:{self.width}.{_options.precision}e}"
        elif self.whole:
            text = f"{v:.0f}" + ("." if math.isfinite(v) else "")
        else:
            text = f"{v:.{_options.precision}f}"
        return text.rjust(self.width)


def _vector(items, indent, write, cut) -> str:
    room = max(1, (_options.linewidth - indent) // (write.width + 2))
    texts = [write(v) for v in items]
    if cut:
        edge = _options.edgeitems
        texts = [*texts[:edge], " ...", *texts[len(texts) - edge :]]
    lines = [", ".join(texts[i : i + room]) for i in range(0, len(texts), room)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(items, shape, indent, write, summarize) -> str:
    edge = _options.edgeitems
    cut = summarize and shape[0] > 2 * edge
    if len(shape) == 1:
        return _vector(items, indent, write, cut)
    parts = [_nested(item, shape[1:], indent + 1, write, summarize) for item in items]
    if cut:
        parts = [*parts[:edge], "...", *parts[len(parts) - edge :]]
    return "[" + ("," + "\n" * (len(shape) - 1) + " " * (indent + 1)).join(parts) + "]"


def contents(x, indent) -> str:
    """The elements as text; lines after the first are indented."""
    own = x._meta
    summarize = own.numel > _options.threshold
    elements = _elements(x, _options.edgeitems if summarize else None)
    flat = _flat(elements, [])
    write = _Formatter(flat, own.dtype.kind == "f")
    if own.ndim == 0:
        return write(elements)
    return _nested(elements, own.shape, indent, write, summarize)


def text(x, tensor_contents=None) -> str:
    """The representation of a tensor."""
    prefix, own = "tensor(", x._meta
    indent, notes = len(prefix), []
    usual = own.dtype is D.get_default_dtype() or own.dtype in (D.int64, D.bool_)
    if own.numel == 0:
        if own.ndim != 1:
            notes.append(f"size={tuple(own.shape)}")
        usual = own.dtype is D.get_default_dtype()
    if not usual:
        notes.append(f"dtype={own.dtype}")
    if x._grad_fn is not None:
        notes.append(f"grad_fn=<{x._grad_fn.name()}>")
    elif own.requires_grad:
        notes.append("requires_grad=True")
    body = tensor_contents
    if body is None:
        body = "[]" if own.numel == 0 else contents(x, indent)
    result = prefix + body
    last = len(result) - result.rfind("\n") + 1
    for note in notes:
        if last + len(note) + 2 > _options.linewidth:
            result += ",\n" + " " * indent + note
            last = indent + len(note)
        else:
            result += ", " + note
            last += len(note) + 2
    return result + ")"


def _repr(self, *, tensor_contents=None):
    return text(self, tensor_contents)


Tensor.__repr__ = _repr

__all__ = ["get_printoptions", "printoptions", "set_printoptions"]
