"""Fixtures of the runtime's tests."""

import os
import subprocess
import sys

import pytest

from facula.runtime import jit, launch
from tests.runtime.small import KERNELS, Tensor


@pytest.fixture(scope="session")
def kernels():
    names = ["add", "status", "copy", "wait", "parallel", "nested"]
    return jit.load(KERNELS, names)


@pytest.fixture
def registered():
    """The test's tensor class, registered for the time of a test."""
    before = launch.register_tensor(Tensor)
    yield Tensor
    if before is not None:
        launch.register_tensor(before)


@pytest.fixture
def script(tmp_path):
    """Run Python code in a process of its own; its output, or a failure that shows it."""

    def run(code, **environment):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    return run
