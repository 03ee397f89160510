"""What a recorded call does where recording is off, or where it has extras.

Extras are hooks on saved tensors and, in anomaly mode, the stack of the call.
"""

from __future__ import annotations

import os
import traceback

from facula.eager import plans
from facula.eager.grad_mode import mode
from facula.eager.tape import Packed
from facula.eager.tensor import Tensor


class Otherwise:
    """The other ways of a recorded plan.

    Attributes:
        quiet: a list of the plan that records nothing, which is made when first needed.
        recorded: the recorded plan itself.
    """

    __slots__ = ("quiet", "recorded", "_make")

    def __init__(self, make):
        self.quiet, self.recorded, self._make = [self._first], None, make

    def _first(self, *now):
        self.quiet[0] = self._make()
        return self.quiet[0](*now)

    def loud(self, *now):
        """Run the recorded plan, then do to its node what the recording asks for."""
        state, mode.grad = mode.grad, True
        try:
            result = self.recorded(*now)
        finally:
            mode.grad = state
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, Tensor) and x._grad_fn is not None:
                apply_extras(state, x._grad_fn)
                break
        return result


def apply_extras(state, node) -> None:
    """What a :class:`grad_mode.Recording` asks for, done to a new node."""
    if state.anomaly:
        lines = traceback.format_list(_outside(traceback.extract_stack()))
        node.need_hooks().stack = "".join(lines)
    if state.hooks is not None and node.saved:
        recording, mode.grad = mode.grad, False
        try:
            node.saved = Packed(node.saved, *state.hooks)
        finally:
            mode.grad = recording
        node.versions = ()


def _outside(stack):
    """The frames of a stack up to the call into this package."""
    frames = [f for f in stack if not f.filename.startswith((_HERE, plans.SOURCE))]
    return frames or stack


_HERE = os.path.dirname(__file__)
