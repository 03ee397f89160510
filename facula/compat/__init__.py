"""Stands in for PyTorch: after :func:`install`, ``import torch`` gives facula.

The modules are the very same objects (``torch.nn is facula.nn``), so classes, ``isinstance`` and
pickles agree whichever name a program used. Nothing in facula imports this package.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

#: The name that is stood in for, and ours.
THEIRS, OURS = "torch", "facula"


def _ours(fullname: str) -> str | None:
    """``torch.nn`` -> ``facula.nn``; ``None`` for a name that is not PyTorch's."""
    if fullname == THEIRS or fullname.startswith(THEIRS + "."):
        return OURS + fullname[len(THEIRS) :]
    return None


class TorchFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``torch`` and every submodule as the facula module of the same path."""

    def find_spec(self, fullname, path=None, target=None):
        ours = _ours(fullname)
        if ours is None:
            return None
        try:
            found = importlib.util.find_spec(ours)
        except ModuleNotFoundError:
            found = None
        if found is None:
            # Refused here and not handed on: a real PyTorch further down the path would
            # otherwise give half of its modules to a program that has half of ours.
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: facula has no {ours!r}", name=fullname
            )
        return importlib.machinery.ModuleSpec(
            fullname, self, is_package=found.submodule_search_locations is not None
        )

    def create_module(self, spec) -> ModuleType:
        name = _ours(spec.name)
        assert name is not None, "find_spec answers for PyTorch's names only"
        module = importlib.import_module(name)
        # The import system is about to write the alias's spec into the module, which still
        # has to find its own submodules by its own name: kept here, put back in exec_module.
        spec.loader_state = (module.__spec__, module.__loader__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        alias = module.__spec__
        assert alias is not None
        module.__spec__, module.__loader__ = alias.loader_state
        sys.modules[alias.name] = module


_FINDER = TorchFinder()


def install() -> None:
    """Serve every later ``import torch`` from facula. Calling it again changes nothing.

    Raises:
        RuntimeError: the real PyTorch is imported already.
    """
    loaded = sys.modules.get(THEIRS)
    if loaded is not None and loaded is not sys.modules.get(OURS):
        raise RuntimeError(
            "compat.install: the real torch is imported already; hint: install first, or use "
            "`facula run PROGRAM`"
        )
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def uninstall() -> None:
    """Undo :func:`install`: ``import torch`` means PyTorch again."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for name, module in list(sys.modules.items()):
        ours = _ours(name)
        if ours is not None and module is sys.modules.get(ours):
            del sys.modules[name]
