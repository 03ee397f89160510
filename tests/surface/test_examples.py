"""The examples in docstrings of the libraries run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import facula

#: Packages whose modules are looked through; what serves or runs programs has tests of its own.
PACKAGES = ("facula.nn", "facula.optim", "facula.tensor", "facula.library", "facula.distributions")
SINGLE = ("facula.linalg", "facula.special", "facula.fft")


def modules():
    found = list(SINGLE)
    for package in PACKAGES:
        root = importlib.import_module(package)
        found.append(package)
        found += [m.name for m in pkgutil.walk_packages(root.__path__, package + ".")]
    return found


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    facula.manual_seed(0)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
