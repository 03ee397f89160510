"""Whether operations are recorded: ``no_grad``, ``enable_grad``, ``inference_mode``.

The state belongs to the thread. ``mode.grad`` is True, False, or, where recording has to do more
than the fast road does (hooks on saved tensors, anomaly mode), a :class:`Recording`.
"""

from __future__ import annotations

import functools
import inspect
import threading

from facula.base.errors import CaptureError


class Recording:
    """Recording with extras, each None or False if not wanted.

    Attributes:
        hooks: ``(pack, unpack)`` of the innermost ``saved_tensors_hooks``.
        anomaly: keep the stack of the forward call in each node.
        check_nan: in backward, refuse gradients that are not numbers.
    """

    __slots__ = ("hooks", "anomaly", "check_nan")

    def __init__(self, hooks=None, anomaly=False, check_nan=False):
        self.hooks, self.anomaly, self.check_nan = hooks, anomaly, check_nan


class _Mode(threading.local):
    grad = True
    #: What ``enable_grad`` turns on: True or a Recording.
    recording = True
    inference = False
    #: The dtype of ``autocast``, or None; and the weights converted to it so far.
    cast = casts = None


mode = _Mode()


class _Capture(threading.local):
    trace = None


#: The function of this thread that is being captured (see ``eager.capture``), if one is.
capture = _Capture()
#: Calls, of any thread, of functions that run in pieces.
runs: list = []


def is_grad_enabled() -> bool:
    """Whether operations of this thread are recorded.

    >>> is_grad_enabled()
    True
    """
    return mode.grad is not False


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside of ``inference_mode``."""
    return mode.inference


def set_recording(recording) -> None:
    """Use another kind of recording, from now on and after every ``enable_grad``."""
    mode.recording = recording if recording is not None else True
    if mode.grad is not False:
        mode.grad = mode.recording


class _Context:
    """A context manager that also decorates functions and generators."""

    def __enter__(self):
        raise NotImplementedError

    def __exit__(self, *exception):
        raise NotImplementedError

    def _again(self):
        return type(self)()

    def __call__(self, fn):
        if inspect.isclass(fn):
            fn.__init__ = self(fn.__init__)
            return fn
        if inspect.isgeneratorfunction(fn):
            return self._generator(fn)

        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            with self._again():
                return fn(*args, **kwargs)

        return wrapped

    def _generator(self, fn):
        """The body of the generator runs under the mode, its consumer does not."""

        @functools.wraps(fn)
        def wrapped(*args, **kwargs):
            generator = fn(*args, **kwargs)
            try:
                with self._again():
                    item = generator.send(None)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        with self._again():
                            generator.close()
                        raise
                    except BaseException as error:
                        with self._again():
                            item = generator.throw(error)
                    else:
                        with self._again():
                            item = generator.send(sent)
            except StopIteration as stop:
                return stop.value

        return wrapped


class set_grad_enabled(_Context):  # noqa: N801  the public name
    """Turn recording on or off: as a call, a context manager or a decorator.

    >>> with set_grad_enabled(False):
    ...     is_grad_enabled()
    False
    """

    def __init__(self, enabled: bool):
        self._enabled, self._before = bool(enabled), mode.grad
        mode.grad = mode.recording if enabled else False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        mode.grad = self._before

    def __call__(self, fn):
        mode.grad = self._before  # As a decorator the call itself changes nothing.
        return super().__call__(fn)

    def _again(self):
        return set_grad_enabled(self._enabled)


class _Switch(_Context):
    _enabled = False

    def __new__(cls, fn=None):
        self = object.__new__(cls)
        self._before = []
        return self if fn is None else self(fn)

    def __enter__(self):
        self._before.append(mode.grad)
        mode.grad = mode.recording if self._enabled else False
        return self

    def __exit__(self, *exception):
        mode.grad = self._before.pop()


class no_grad(_Switch):  # noqa: N801  the public name
    """Do not record: results require no gradient. A context manager and a decorator.

    >>> with no_grad():
    ...     is_grad_enabled()
    False
    """


class enable_grad(_Switch):  # noqa: N801  the public name
    """Record again inside of ``no_grad``."""

    _enabled = True


class inference_mode(_Context):  # noqa: N801  the public name
    """As ``no_grad``, for code that will never be differentiated.

    Args:
        mode: False leaves everything as it is outside.
    """

    def __new__(cls, mode=True):
        self = object.__new__(cls)
        if callable(mode):
            self._on, self._before = True, []
            return self(mode)
        self._on, self._before = bool(mode), []
        return self

    def __enter__(self):
        self._before.append((mode.grad, mode.inference))
        mode.inference = self._on
        if self._on:
            mode.grad = False
        return self

    def __exit__(self, *exception):
        mode.grad, mode.inference = self._before.pop()

    def _again(self):
        return inference_mode(self._on)


__all__ = [
    "enable_grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
]


def refuse(what: str) -> None:
    """Within a capture beside which Python does not run: give up, as the function does this."""
    if capture.trace is not None and not capture.trace.cuts:
        raise CaptureError(f"compile: the function {what}")
