"""Recording with extras: hooks on saved tensors, anomaly mode, checkpoints."""

from __future__ import annotations

from contextlib import nullcontext

from facula.base.errors import AutogradError, fail
from facula.eager.grad_mode import Recording, enable_grad, mode, set_recording
from facula.eager.tensor import Tensor
from facula.runtime import random


def _replaced(**fields) -> Recording:
    """The present recording with some fields changed."""
    now = mode.recording
    values = {"hooks": None, "anomaly": False, "check_nan": False}
    if now is not True:
        values = {name: getattr(now, name) for name in values}
    return Recording(**{**values, **fields})


class _Scope:
    """A context manager that changes the recording."""

    def _recording(self):
        raise NotImplementedError

    def __enter__(self):
        self._before = mode.recording
        set_recording(self._recording())
        return self

    def __exit__(self, *exception):
        set_recording(self._before)


class saved_tensors_hooks(_Scope):  # noqa: N801  the public name
    """Let ``pack(tensor)`` turn what is saved into anything, and ``unpack`` turn it back.

    >>> import facula
    >>> seen = []
    >>> x = facula.tensor([3.0], requires_grad=True)
    >>> with saved_tensors_hooks(lambda t: seen.append(1) or t, lambda t: t):
    ...     y = (x * x).sum()
    >>> y.backward()
    >>> len(seen), x.grad.tolist()
    (2, [6.0])
    """

    def __init__(self, pack_hook, unpack_hook):
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook

    def _recording(self):
        return _replaced(hooks=(self.pack_hook, self.unpack_hook))


class save_on_cpu(saved_tensors_hooks):  # noqa: N801  the public name
    """Keep saved tensors in main memory, where they are anyway."""

    def __init__(self, pin_memory=False, device_type="cpu"):
        super().__init__(lambda x: x, lambda x: x)


# Anomaly mode ---------------------------------------------------------------------------------


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on."""
    return mode.recording is not True and mode.recording.anomaly


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly mode looks for NaN."""
    return mode.recording is not True and mode.recording.check_nan


class detect_anomaly(_Scope):  # noqa: N801  the public name
    """Remember where each op was called, and name that place when its backward fails.

    Args:
        check_nan: refuse gradients with NaN.
    """

    def __init__(self, check_nan=True):
        self.check_nan = check_nan

    def _recording(self):
        return _replaced(anomaly=True, check_nan=self.check_nan)


class set_detect_anomaly:  # noqa: N801  the public name
    """Turn anomaly mode on or off, as a call or a context manager."""

    def __init__(self, mode: bool, check_nan: bool = True):  # noqa: A002
        self._before = _turn(mode, check_nan)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        set_recording(self._before)


def _turn(on, check_nan):
    before = mode.recording
    new = _replaced(anomaly=bool(on), check_nan=bool(on) and check_nan)
    set_recording(new if new.anomaly or new.hooks else None)
    return before


# Checkpoints ----------------------------------------------------------------------------------


class _Stop(Exception):
    """Everything that was to be recomputed is."""


class _Frame:
    """One checkpointed call: what it saved is thrown away, and computed again when asked for."""

    def __init__(self, run, preserve_rng_state):
        self.run, self.count, self.values = run, 0, {}
        self.metas: list = []
        self.state = random.default_generator.get_state() if preserve_rng_state else None

    def pack(self, x: Tensor) -> int:
        """The place of a saved tensor in the order of saving."""
        self.metas.append(x._meta.with_grad(False))
        self.count += 1
        return self.count - 1

    def unpack(self, place: int) -> Tensor:
        """The saved tensor of that place."""
        if place not in self.values:
            self._recompute()
        return self.values.pop(place)

    def _recompute(self):
        found: dict = {}

        def collect(x):
            place = len(found)
            if place < self.count and x._meta.with_grad(False) is not self.metas[place]:
                fail(
                    AutogradError,
                    "checkpoint",
                    "Recomputed values for the following tensors "
                    f"have different metadata than during the forward pass: saved "
                    f"{self.metas[place]!r}, recomputed {x._meta!r}",
                )
            found[place] = x.detach()
            if len(found) == self.count:
                raise _Stop
            return x

        now = random.default_generator.get_state()
        if self.state is not None:
            random.default_generator.set_state(self.state)
        try:
            with saved_tensors_hooks(collect, lambda x: x), enable_grad():
                self.run()
        except _Stop:
            pass
        finally:
            random.default_generator.set_state(now)
        if len(found) < self.count:
            fail(
                AutogradError,
                "checkpoint",
                f"the recomputation saved {len(found)} tensors, the forward pass {self.count}",
                "the function must do the same each time",
            )
        self.values = found


def checkpoint(
    function,
    *args,
    use_reentrant=None,
    context_fn=None,
    determinism_check="default",
    debug=False,
    preserve_rng_state=True,
    early_stop=True,
    **kwargs,
):
    """``function(*args, **kwargs)`` without keeping what backward needs: it is computed again.

    Memory for time. Gradients flow to all tensors that the function uses, arguments or not.

    Args:
        use_reentrant: accepted; there is one implementation, that of ``use_reentrant=False``.
        context_fn: gives two context managers, for the forward pass and the recomputation.
        preserve_rng_state: draw the same random numbers again.
    """
    first, second = context_fn() if context_fn is not None else (nullcontext(), nullcontext())

    def again():
        with second:
            function(*args, **kwargs)

    frame = _Frame(again, preserve_rng_state)
    with first, saved_tensors_hooks(frame.pack, frame.unpack):
        return function(*args, **kwargs)


def checkpoint_sequential(functions, segments, input, use_reentrant=None, **kwargs):  # noqa: A002
    """A sequence of modules in ``segments`` parts, all but the last of them checkpointed."""
    functions = list(functions.children() if hasattr(functions, "children") else functions)
    size = len(functions) // segments

    def part(start, end):
        def run(x):
            for f in functions[start:end]:
                x = f(x)
            return x

        return run

    end = 0
    for start in range(0, size * (segments - 1), size):
        end = start + size
        input = checkpoint(part(start, end), input, **kwargs)
    return part(end, len(functions))(input)
