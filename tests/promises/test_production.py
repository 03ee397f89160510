"""Promise 5: a trained model goes out, and what comes back gives the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from tests.promises.models import MODELS, made

every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_an_archive_gives_the_same_bits(name, tmp_path):
    model, x, _ = made(name)
    model.eval()
    with facula.no_grad():
        expected = model(x)
    facula.export.export(model, (x,)).save(tmp_path / "model.facula")
    again = facula.export.load(tmp_path / "model.facula")
    assert again(x).tolist() == expected.tolist()


@every_model
def test_onnxruntime_agrees(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, _ = made(name)
    model.eval()
    with facula.no_grad():
        expected = model(x).numpy()
    path = tmp_path / "model.onnx"
    facula.onnx.export(model, (x,), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    back = facula.onnx.load(path)(x)
    np.testing.assert_allclose(back.numpy(), expected, rtol=1e-4, atol=1e-4)
