"""Golden files: text kept beside the tests, written anew with ``--update-golden``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The oracle and the harness are modules of this folder.
sys.path.insert(0, str(Path(__file__).parent))
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")


@pytest.fixture
def golden(request):
    """A function that compares a text with the file of that name."""

    def compare(name: str, text: str):
        path = GOLDEN / name
        if request.config.getoption("--update-golden", default=False):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{name} differs; hint: pytest --update-golden"

    return compare
