"""Mixed precision: PyTorch's ``torch.amp``, on the CPU.

Inside of ``autocast`` products, convolutions and attention run in bfloat16 (or float16), losses and
some reductions in float32, all else as its operands are (``tensor.autocast`` has the lists). There
is no CUDA, so what is said for it is off, with a warning, as in PyTorch.
"""

from __future__ import annotations

import functools
import math
import warnings

from facula.base.errors import ArgumentError, AutogradError, fail
from facula.eager.grad_mode import mode
from facula.eager.tensor import Tensor
from facula.tensor import bfloat16, float16, float64, no_grad
from facula.tensor.autocast import on

__all__ = [
    "GradScaler",
    "autocast",
    "clear_autocast_cache",
    "custom_bwd",
    "custom_fwd",
    "get_autocast_dtype",
    "is_autocast_available",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
]


def is_autocast_available(device_type: str) -> bool:
    """Whether a device has it: the CPU does."""
    return device_type == "cpu"


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether this thread is inside of :class:`autocast` for the device."""
    return device_type == "cpu" and mode.cast is not None


def get_autocast_dtype(device_type: str = "cpu"):
    """The dtype of the innermost :class:`autocast`, or the default."""
    return (device_type == "cpu" and mode.cast) or bfloat16


def is_autocast_cache_enabled() -> bool:
    """Whether weights are converted once in an :class:`autocast`, rather than at each use."""
    return mode.casts is not None or mode.cast is None


def clear_autocast_cache() -> None:
    """Forget the weights that were converted."""
    if mode.casts:
        mode.casts.clear()


class autocast:  # noqa: N801  the public name
    """A block, or function, in which ops run in the precision that suits them.

    Args:
        device_type: "cpu", or "cuda" (off, with a warning, since there is none).
        dtype: bfloat16 or float16, of the ops that are run in lower precision.
        enabled: False turns it off inside of another.
        cache_enabled: convert weights once, until the outermost block ends.

    >>> import facula
    >>> x = facula.ones(2, 2)
    >>> with autocast("cpu"):
    ...     (x @ x).dtype, (x + x).dtype, (x @ x).prod().dtype
    (facula.bfloat16, facula.float32, facula.float32)
    """

    def __init__(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if not isinstance(device_type, str):
            raise TypeError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        self.device, self.fast_dtype = device_type, dtype or bfloat16
        if enabled and device_type == "cuda":
            self._off("User provided device_type of 'cuda', but CUDA is not available. Disabling")
            enabled = False
        elif device_type not in ("cpu", "cuda"):
            raise RuntimeError(
                f"User specified an unsupported autocast device_type {device_type!r}"
            )
        elif enabled and self.fast_dtype not in (bfloat16, float16):
            self._off(
                "In CPU autocast, but the target dtype is not supported. Disabling autocast.\n"
                "CPU Autocast only supports dtype of facula.bfloat16, facula.float16 currently."
            )
            enabled = False
        self._enabled, self._cached = bool(enabled), cache_enabled is not False
        self._before: list = []

    @staticmethod
    def _off(message):
        warnings.warn(message, stacklevel=3)

    def __enter__(self):
        before = mode.cast, mode.casts
        self._before.append(before)
        if self.device == "cpu":
            mode.cast = self.fast_dtype if self._enabled else None
            kept = mode.casts if mode.casts is not None else {}
            mode.casts = kept if self._cached else None
            on.append(self)
        return self

    def __exit__(self, *exception):
        mode.cast, mode.casts = self._before.pop()
        if self.device == "cpu":
            on.pop()
        return False

    def __call__(self, function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            own = object.__new__(autocast)  # calls may be nested, and come from several threads
            own.__dict__.update(self.__dict__, _before=[])
            with own:
                return function(*args, **kwargs)

        return wrapped


def custom_fwd(fwd=None, *, device_type, cast_inputs=None):
    """For ``forward`` of a ``Function``: ``cast_inputs`` is the dtype, without autocast inside."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def forward(ctx, *args, **kwargs):
        ctx._cast = on = mode.cast if device_type == "cpu" else None
        if cast_inputs is None or on is None:
            return fwd(ctx, *args, **kwargs)
        ctx._cast = None
        args, kwargs = _to(args, cast_inputs), _to(kwargs, cast_inputs)
        with autocast(device_type, enabled=False):
            return fwd(ctx, *args, **kwargs)

    return forward


def custom_bwd(bwd=None, *, device_type):
    """For ``backward`` of a ``Function``: under the autocast that its ``forward`` ran under."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(ctx, *args):
        on = getattr(ctx, "_cast", None)
        with autocast("cpu", dtype=on, enabled=on is not None):
            return bwd(ctx, *args)

    return backward


def _to(x, dtype):
    if isinstance(x, Tensor):
        return x.to(dtype) if x.is_floating_point() and x.dtype is not float64 else x
    if isinstance(x, dict):
        return {k: _to(v, dtype) for k, v in x.items()}
    return type(x)(_to(y, dtype) for y in x) if isinstance(x, (list, tuple)) else x


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
