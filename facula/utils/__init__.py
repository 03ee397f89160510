"""Tools beside the networks themselves: :mod:`facula.utils.data` feeds them."""

import importlib


def __getattr__(name):
    # As with PyTorch, these are there without an import of their own.
    if name in ("benchmark", "checkpoint", "data"):
        return importlib.import_module(f"facula.utils.{name}")
    raise AttributeError(f"module 'facula.utils' has no attribute {name!r}")
