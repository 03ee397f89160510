"""What programs say about captures: PyTorch's ``torch.compiler``, found as ``facula.compiler``."""

from __future__ import annotations

import functools

from facula.eager.capture import CaptureError
from facula.eager.grad_mode import capture
from facula.tensor.compile import compile, forget_captures  # noqa: F401  shown here


def is_compiling() -> bool:
    """Whether a function is being captured now.

    >>> import facula
    >>> facula.compiler.is_compiling()
    False
    """
    return capture.trace is not None


is_dynamo_compiling = is_compiling


def is_exporting() -> bool:
    """Whether a model is being exported now: exports capture as ``compile`` does."""
    return is_compiling()


def disable(fn=None, recursive=True, *, reason=None):
    """``fn`` never captured: what calls it runs it as it is, on values.

    Args:
        fn: a function; left out, a decorator is returned.
        recursive: accepted for PyTorch's sake; what ``fn`` calls is not captured either.
        reason: for the message that says why a caller was not captured as one.
    """
    if fn is None:
        return lambda f: disable(f, recursive, reason=reason)

    @functools.wraps(fn)
    def plain(*args, **kwargs):
        trace = capture.trace
        if trace is not None and trace.cuts:
            names = [*kwargs]
            return trace.apart(
                lambda args, values: fn(*args, **dict(zip(names, values))),
                (args, [*kwargs.values()]),
            )
        if trace is not None:
            why = f" ({reason})" if reason else ""
            raise CaptureError(f"compile: {fn.__name__} is disabled for captures{why}")
        return fn(*args, **kwargs)

    return plain


def allow_in_graph(fn):
    """``fn`` as it is: captures follow Python wherever it goes, there is nothing to allow."""
    return fn


def assume_constant_result(fn):
    """``fn`` as it is: what it returns besides tensors is a constant of the capture."""
    return fn


def reset() -> None:
    """Forget all captures; functions are captured anew when they are called next."""
    forget_captures()


def cudagraph_mark_step_begin() -> None:
    """Nothing: memory between steps is never shared with results."""


def list_backends(exclude_tags=()) -> list[str]:
    """The names that ``compile`` takes as ``backend``: Facula's own."""
    return ["facula"]
