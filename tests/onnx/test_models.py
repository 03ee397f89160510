"""Models as ONNX files, run by onnxruntime at sizes that the export has not seen."""

from __future__ import annotations

import io

import numpy as np
import pytest
from models import MODELS

import facula
from facula.base.errors import ArgumentError, UnsupportedError
from facula.onnx import MissingExtra

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


def run(proto, *arrays):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays)})


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_agrees(name, opset):
    make, inputs, dynamic = MODELS[name]
    facula.manual_seed(0)
    model = make().eval()
    proto = facula.onnx.export(
        model,
        (inputs(n=2, t=4),),
        opset_version=opset,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": dynamic, "y": {0: "n"}},
    )
    onnx.checker.check_model(proto, full_check=True)
    back = facula.onnx.load(proto)
    assert back.inputs[0].dims[0] == "n"
    for n, t in ((2, 4), (1, 6), (3, 8)):
        x = inputs(n=n, t=t)
        with facula.no_grad():
            want = model(x).numpy()
        (got,) = run(proto, x.numpy())
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(back(x).numpy(), want, rtol=1e-4, atol=1e-5)


def ops_of(proto):
    return [node.op_type for node in proto.graph.node]


def test_the_graph_is_what_a_reader_expects():
    """Fused operators where ONNX has them, no arithmetic on sizes that are known."""
    make, inputs, _ = MODELS["lenet"]
    ops = ops_of(facula.onnx.export(make(), (inputs(n=2),)))
    assert ops.count("Conv") == 2 and ops.count("Relu") == 3 and ops.count("MaxPool") == 1
    assert ops.count("LogSoftmax") == 1
    assert not {"Shape", "Expand", "Identity", "Where", "Transpose"} & set(ops)


def test_a_normalisation_has_its_scale_and_shift():
    make, inputs, _ = MODELS["gpt"]
    proto = facula.onnx.export(make(), (inputs(n=2, t=4),))
    norms = [node for node in proto.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 5
    for node in norms:
        assert [name.split(".")[-1] for name in node.input[1:]] == ["weight", "bias"]


def test_names_and_axes_are_kept():
    model = facula.nn.Linear(3, 2)
    proto = facula.onnx.export(
        model, (facula.rand(4, 3),), input_names=["in"], output_names=["out"],
        dynamic_axes={"in": {0: "batch"}},
    )  # fmt: skip
    (given,), (result,) = proto.graph.input, proto.graph.output
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
             for v in (given, result)]  # fmt: skip
    assert (given.name, result.name) == ("in", "out")
    assert sizes == [["batch", 3], ["batch", 2]]
    assert "bias" in [i.name for i in proto.graph.initializer]


def test_files_paths_and_exported_programs(tmp_path):
    program = facula.export.export(lambda x: x * 2, (facula.rand(3),), input_names=["x"])
    facula.onnx.export(program, f=tmp_path / "m.onnx")
    buffer = io.BytesIO()
    facula.onnx.export(program, (), buffer)
    assert (tmp_path / "m.onnx").read_bytes() == buffer.getvalue()
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_array_equal(run(onnx.load(tmp_path / "m.onnx"), x)[0], 2 * x)


def test_outputs_may_be_inputs_weights_and_the_same():
    weight = facula.rand(2)

    def f(x):
        y = x + weight
        return x, weight, y, y, facula.ones(2)

    x = facula.rand(2)
    for got, want in zip(run(facula.onnx.export(f, (x,)), x.numpy()), f(x)):
        np.testing.assert_array_equal(got, want.numpy())


def test_what_cannot_be_written_says_why():
    x = facula.rand(3)
    with pytest.raises(UnsupportedError, match="cumprod"):
        facula.onnx.export(lambda x: x.cumprod(0), (x,))
    with pytest.raises(ArgumentError, match="opset_version 9"):
        facula.onnx.export(lambda x: x, (x,), opset_version=9)
    with pytest.raises(TypeError, match="colour"):
        facula.onnx.export(lambda x: x, (x,), colour="red")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"facula\[onnx\]"):
        facula.onnx.export(lambda x: x * 2, (facula.rand(3),))


def test_bfloat16_and_half_are_kept():
    w = facula.tensor([1.0, -2.5, 3.1415927]).to(facula.bfloat16)
    h = facula.tensor([0.5, 1.5, -2.0]).to(facula.float16)
    got = run(facula.onnx.export(lambda x: (x * w.float(), x * h.float()), (facula.ones(3),)),
              np.ones(3, np.float32))  # fmt: skip
    np.testing.assert_array_equal(got[0], w.float().numpy())
    np.testing.assert_array_equal(got[1], h.float().numpy())
