"""Program -> kernels: the passes, one noun a file. ``pipeline`` reads as their list.

``facula.compiler`` is also PyTorch's path of the functions that speak about captures (``disable``,
``is_compiling``, ``reset``, ...); those live with ``facula.compile`` and are found when asked for.
"""

import importlib

_FOR_USERS = frozenset({
    "allow_in_graph", "assume_constant_result", "compile", "cudagraph_mark_step_begin", "disable",
    "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends", "reset",
})  # fmt: skip


def __getattr__(name):
    if name in _FOR_USERS:
        return getattr(importlib.import_module("facula.tensor.compiling"), name)
    raise AttributeError(f"module 'facula.compiler' has no attribute {name!r}")
