"""Archives as served models."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.serve.errors import InvalidInput
from facula.serve.loaders import LoadError, load_model
from facula.serve.model import TensorSpec


@pytest.fixture
def archive(tmp_path):
    model = facula.nn.Bilinear(3, 4, 2)
    batch = {0: "batch"}
    program = facula.export.export(
        model,
        (facula.ones(2, 3), facula.ones(2, 4)),
        dynamic_shapes=(batch, batch),
        input_names=["left", "right"],
        output_names=["y"],
    )
    program.save(tmp_path / "pair.facula")
    return model, tmp_path / "pair.facula"


def test_an_archive_becomes_a_model(archive):
    module, path = archive
    model = load_model(path, "pair", "3")
    assert (model.name, model.version, model.platform) == ("pair", "3", "facula_program")
    assert model.inputs == (
        TensorSpec("left", "FP32", (-1, 3)),
        TensorSpec("right", "FP32", (-1, 4)),
    )
    assert model.outputs == (TensorSpec("y", "FP32", (-1, 2)),)
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((5, n)).astype("float32") for n in (3, 4))
    (result,) = model.infer({"left": left, "right": right}).values()
    expected = module(facula.from_numpy(left), facula.from_numpy(right)).detach().numpy()
    np.testing.assert_array_equal(result, expected)


def test_an_onnx_file_becomes_a_model_too(tmp_path):
    module = facula.nn.Linear(3, 2)
    facula.onnx.export(
        module,
        (facula.ones(2, 3),),
        tmp_path / "linear.onnx",
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}},
    )
    model = load_model(tmp_path / "linear.onnx", "linear")
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert model.outputs == (TensorSpec("y", "FP32", (-1, 2)),)
    x = np.ones((5, 3), "float32")
    expected = module(facula.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model.infer({"x": x})["y"], expected, rtol=1e-6)


def test_inputs_that_do_not_fit_together_are_the_clients_fault(archive):
    model = load_model(archive[1], "pair")
    with pytest.raises(InvalidInput, match="right"):
        model.infer({"left": np.ones((5, 3), "float32"), "right": np.ones((4, 4), "float32")})


def test_what_is_no_archive_or_damaged_is_refused(tmp_path, archive):
    with pytest.raises(LoadError, match="no known kind"):
        load_model(tmp_path, "x")
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "program.json").write_text('{"format": "facula program", "version": 1}')
    with pytest.raises(LoadError, match="broken"):
        load_model(folder, "x")
    (tmp_path / "broken.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(LoadError, match="ONNX"):
        load_model(tmp_path / "broken.onnx", "x")
