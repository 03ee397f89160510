"""``torch.jit`` for programs that use it: functions and modules stay what they are.

There is no second language to compile to: :func:`script` and :func:`trace` return what they are
given, which means the same. ``facula.compile`` makes it fast, ``facula.export`` writes it down.
"""

from __future__ import annotations

from typing import Final

from facula.base.errors import UnsupportedError, fail
from facula.nn import Module

__all__ = [
    "Final", "ScriptFunction", "ScriptModule", "annotate", "export", "freeze", "ignore",
    "is_scripting", "is_tracing", "isinstance", "load", "optimize_for_inference", "save", "script",
    "script_if_tracing", "script_method", "trace", "trace_module", "unused",
]  # fmt: skip

_isinstance = isinstance
ScriptModule = Module


def script(obj=None, optimize=None, _frames_up=0, _rcb=None, example_inputs=None):
    """A function, class or module as it is.

    >>> @script
    ... def double(x):
    ...     return 2 * x
    >>> double(3)
    6
    """
    return obj if obj is not None else script


ScriptFunction = type(script)


def trace(func, example_inputs=None, *args, **kwargs):
    """The function or module as it is; run once on the example, so that a mistake shows here."""
    if example_inputs is not None:
        several = _isinstance(example_inputs, (tuple, list))
        func(*(example_inputs if several else (example_inputs,)))
    return func


def trace_module(mod, inputs, *args, **kwargs):
    """The module as it is."""
    return mod


def _as_it_is(name, doc):
    def decorator(fn=None, *args, **kwargs):
        if callable(fn):
            return fn
        return lambda f: f

    decorator.__name__ = decorator.__qualname__ = name
    decorator.__doc__ = doc
    return decorator


ignore = _as_it_is("ignore", "A decorator without effect: every function is run by Python.")
unused = _as_it_is("unused", "A decorator without effect.")
export = _as_it_is("export", "A decorator without effect: every method can be called.")
script_method = _as_it_is("script_method", "A decorator without effect.")
script_if_tracing = _as_it_is("script_if_tracing", "A decorator without effect.")
freeze = _as_it_is("freeze", "The module as it is.")
optimize_for_inference = _as_it_is("optimize_for_inference", "The module as it is.")


def annotate(the_type, the_value):
    """``the_value``."""
    return the_value


def isinstance(obj, target_type):  # noqa: A001  the public name
    """Python's ``isinstance``."""
    return _isinstance(obj, target_type)


def is_scripting():
    """False."""
    return False


def is_tracing():
    """False."""
    return False


def save(m, f, _extra_files=None):
    """Refused: there is no TorchScript."""
    fail(UnsupportedError, "jit.save", "TorchScript files are not written",
         "facula.export writes a program with its weights, facula.save the state dict")  # fmt: skip


def load(f, map_location=None, _extra_files=None):
    """Refused: TorchScript files hold programs of another language."""
    fail(UnsupportedError, "jit.load", "TorchScript files are not read",
         "load the state dict, or an ONNX file by facula.onnx.load")  # fmt: skip
