"""The demo as a user runs it, and what its parts do when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from facula.cli.demo import load_example


def test_the_demo_keeps_what_it_promises(root, tmp_path):
    """98 % on the held-out digits, an ONNX file that onnxruntime reproduces, a served model."""
    done = subprocess.run(
        [sys.executable, "-m", "facula", "demo", "--out", "out", "--requests", "20"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "out" / "report.json").read_text())
    assert facts["accuracy"] >= 0.98 and facts["onnx_difference"] <= 1e-4
    assert facts["requests"] == 20 and facts["median_ms"] > 0
    report = (tmp_path / "out" / "report.md").read_text()
    for name in ("weights.safetensors", "digits.onnx", "loss.png", "digits.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
        assert name in report
    assert "epoch 30" in done.stdout  # No terminal: a line an epoch.


def test_a_model_that_cannot_be_served_is_reported(tmp_path):
    digits = load_example("digits")
    with pytest.raises(RuntimeError, match="the server did not start"):
        with digits.server(tmp_path):
            pass
