"""Mixed precision: PyTorch's ``torch.amp``, as far as there is something to mix.

Gradients are scaled as everywhere. Ops are not cast: ``autocast`` for CUDA is off where there is
no CUDA, as in PyTorch, and for the CPU it is refused rather than ignored.
"""

from __future__ import annotations

import functools
import math
import warnings

from facula.base.errors import ArgumentError, AutogradError, UnsupportedError, fail
from facula.tensor import Tensor, bfloat16, no_grad

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]


def is_autocast_available(device_type: str) -> bool:
    """False: no device has it here."""
    return False


class autocast:  # noqa: N801  the public name
    """A block in which ops would run in lower precision; see the module.

    Args:
        device_type: "cuda" (off, with a warning, since there is none) or "cpu".
        enabled: False makes it a block like any other.

    Raises:
        UnsupportedError: enabled for the CPU.

    >>> with autocast("cpu", enabled=False):
    ...     pass
    """

    def __init__(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if not isinstance(device_type, str):
            raise TypeError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if enabled and device_type == "cuda":
            warnings.warn(
                "User provided device_type of 'cuda', but CUDA is not available. Disabling",
                stacklevel=2,
            )
            enabled = False
        if enabled:
            fail(UnsupportedError, "autocast", f"not available on {device_type!r}",
                 "convert model and inputs with .to(facula.bfloat16), or pass "
                 "enabled=False")  # fmt: skip
        self.device, self.fast_dtype, self._enabled = device_type, dtype or bfloat16, enabled

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return False

    def __call__(self, function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with self:
                return function(*args, **kwargs)

        return wrapped


def custom_fwd(fwd=None, *, device_type, cast_inputs=None):
    """The forward of a ``Function`` as it is: nothing is cast."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    return fwd


def custom_bwd(bwd=None, *, device_type):
    """The backward of a ``Function`` as it is: nothing is cast."""
    return bwd if bwd is not None else functools.partial(custom_bwd, device_type=device_type)


class GradScaler:
    """Losses scaled up, so that small gradients do not vanish in low precision.

    The scale grows after ``growth_interval`` steps without an infinity, and is cut, the step left
    out, when one occurs.

    Args:
        device: "cuda" (off, with a warning, since there is none) or "cpu".
        init_scale, growth_factor, backoff_factor, growth_interval: of the scale.
        enabled: False makes every method do what it would without a scaler.
    """

    def __init__(
        self, device="cuda", init_scale=2.0**16, growth_factor=2.0, backoff_factor=0.5,
        growth_interval=2000, enabled=True,
    ):  # fmt: skip
        if enabled and device == "cuda":
            warnings.warn(
                "GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2
            )
            enabled = False
        if growth_factor <= 1.0 or not 0.0 < backoff_factor < 1.0:
            fail(ArgumentError, "GradScaler", f"expected growth_factor > 1 and backoff_factor in "
                 f"(0, 1), got {growth_factor} and {backoff_factor}")  # fmt: skip
        self._enabled, self._scale, self._clean = enabled, float(init_scale), 0
        self._growth, self._backoff, self._interval = growth_factor, backoff_factor, growth_interval
        #: Optimizer -> whether its gradients, already divided by the scale, hold an infinity.
        self._found: dict = {}

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale in force; 1 if it is off."""
        return self._scale if self._enabled else 1.0

    def scale(self, outputs):
        """A tensor, or a sequence of them, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale
        return type(outputs)(map(self.scale, outputs))

    def unscale_(self, optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, as before clipping.

        Raises:
            RuntimeError: called twice since the last ``update``.
        """
        if not self._enabled:
            return
        if optimizer in self._found:
            fail(AutogradError, "unscale_", "unscale_() has already been called on this optimizer "
                 "since the last update().")  # fmt: skip
        infinite = False
        with no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.mul_(1.0 / self._scale)
                        infinite |= not math.isfinite(p.grad.abs().max().item())
        self._found[optimizer] = infinite

    def step(self, optimizer, *args, **kwargs):
        """The optimizer's step, unless its gradients hold an infinity."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if optimizer not in self._found:
            self.unscale_(optimizer)
        return None if self._found[optimizer] else optimizer.step(*args, **kwargs)

    def update(self, new_scale=None) -> None:
        """Grow or cut the scale, as the steps since the last call went."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif any(self._found.values()):
            self._scale, self._clean = self._scale * self._backoff, 0
        else:
            self._clean += 1
            if self._clean == self._interval:
                self._scale, self._clean = self._scale * self._growth, 0
        self._found.clear()

    def state_dict(self) -> dict:
        """What ``load_state_dict`` restores; empty if it is off."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale, "growth_factor": self._growth, "backoff_factor": self._backoff,
            "growth_interval": self._interval, "_growth_tracker": self._clean,
        }  # fmt: skip

    def load_state_dict(self, state_dict) -> None:
        """Go on with a scale that :meth:`state_dict` gave."""
        if not self._enabled:
            return
        if not state_dict:
            fail(AutogradError, "load_state_dict", "The source state dict is empty, possibly "
                 "because it was saved from a disabled instance of GradScaler.")  # fmt: skip
        self._scale, self._growth = state_dict["scale"], state_dict["growth_factor"]
        self._backoff, self._interval = state_dict["backoff_factor"], state_dict["growth_interval"]
        self._clean = state_dict["_growth_tracker"]
