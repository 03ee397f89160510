"""Settings that hold for the whole suite."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Kernels compiled by one run serve the next, but never those of the user who runs the tests.
os.environ.setdefault("FACULA_CACHE_DIR", str(ROOT / "build" / "test-cache"))
# A shell's background jobs ignore Ctrl-C and pass that on; tests of Ctrl-C need it to work.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Every Program and Kernel is verified after every pass.
os.environ.setdefault("FACULA_VERIFY", "1")


def pytest_collection_modifyitems(config, items):
    """Without PyTorch the conformance tests are skipped, unless they were asked for by name."""
    if importlib.util.find_spec("torch") is not None:
        return
    if config.getoption("markexpr") == "conformance":
        raise pytest.UsageError("conformance: torch is not installed; hint: make conformance")
    for item in items:
        if item.get_closest_marker("conformance"):
            item.add_marker(pytest.mark.skip(reason="torch is not installed: make conformance"))


@pytest.fixture
def root() -> Path:
    """The repository's root folder."""
    return ROOT
