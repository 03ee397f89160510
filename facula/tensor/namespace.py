"""The public names of tensors: which module has what, and what the registry makes.

Names are looked up when first used, so that a program pays for what it needs.
"""

from __future__ import annotations

from functools import cache

from facula.base import dtypes as D
from facula.eager import grad_mode
from facula.tensor import (
    creation,
    data,
    factors,
    indexing,
    interop,
    lapack,
    odds,
    overloads,
    positions,
    printing,
    rejection,
    sampling,
    series,
    settings,
)
from facula.tensor import (
    names as more_names,
)
from facula.tensor.functions import names_in

#: Modules whose public functions and classes are names of the top level. They attach methods too.
_MODULES = (
    creation,
    data,
    grad_mode,
    indexing,
    interop,
    more_names,
    odds,
    overloads,
    positions,
    printing,
    rejection,
    sampling,
    series,
    settings,
)


@cache
def _dtypes() -> dict:
    found = {d.name: d for d in D.ALL}
    found.update(D.ALIASES)
    return found


@cache
def _of_modules() -> dict:
    return {name: module for module in _MODULES for name in module.__all__}


@cache
def _of_registry() -> dict:
    return names_in("torch")


def find(name):
    """The object of that public name.

    Raises:
        AttributeError: there is none.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _dtypes():
        return _dtypes()[name]
    if name in _of_modules():
        return getattr(_of_modules()[name], name)
    for table in (lapack.TOP, factors.TOP):
        if name in table:
            return table[name]
    if name in _of_registry():
        return _of_registry()[name]()
    raise AttributeError(f"module 'facula' has no attribute {name!r}")


def names() -> list[str]:
    """All public names, sorted."""
    return sorted({*_dtypes(), *_of_modules(), *lapack.TOP, *factors.TOP, *_of_registry()})


@cache
def _space(space) -> dict:
    return names_in(space)


def names_of_space(space, name, module):
    """The function of that name in a space of the registry, for a module's ``__getattr__``.

    Raises:
        AttributeError: there is none.
    """
    found = _space(space).get(name)
    if found is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return found()
