"""Derivatives, Program to Program; and the door to the public functions of ``facula.autograd``.

Those (``grad``, ``backward``, ``Function``, ...) run on tensors and belong to the layer of tensors,
which fills them in with :func:`provide`.
"""

_public: dict = {}


def provide(names: dict) -> None:
    """Add public names: each with a function without arguments that gives the object."""
    _public.update(names)


def __getattr__(name):
    if name not in _public:
        raise AttributeError(f"module 'facula.autograd' has no attribute {name!r}")
    value = globals()[name] = _public[name]()
    return value


def __dir__():
    return sorted({*globals(), *_public})
