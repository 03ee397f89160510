"""Tools beside the networks themselves: :mod:`facula.utils.data` feeds them."""

import importlib


def __getattr__(name):
    # As with PyTorch, ``facula.utils.data`` is there without an import of its own.
    if name == "data":
        return importlib.import_module("facula.utils.data")
    raise AttributeError(f"module 'facula.utils' has no attribute {name!r}")
