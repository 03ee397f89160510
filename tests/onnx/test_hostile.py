"""ONNX files that are none, or that lie: typed errors, and no crash."""

from __future__ import annotations

import io
import random

import pytest
from models import MODELS

import facula
from facula.base.errors import FaculaError, UnsupportedError
from facula.onnx import OnnxError, load
from facula.onnx.operators import READERS

onnx = pytest.importorskip("onnx")


def test_files_that_are_none(tmp_path):
    for content in (b"no model", b"\x08\x08", b""):
        with pytest.raises(OnnxError):
            load(io.BytesIO(content))
    with pytest.raises(OSError):
        load(tmp_path / "none.onnx")


def model(*nodes, opset=18, initializer=()):
    helper = onnx.helper
    value = helper.make_tensor_value_info
    given, result = value("x", 1, ["n", 3]), value("y", 1, ["a", "b"])
    graph = helper.make_graph(list(nodes), "g", [given], [result], list(initializer))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_operators_that_are_not_read_are_named():
    proto = model(onnx.helper.make_node("MelWeightMatrix", ["x"] * 5, ["y"]))
    with pytest.raises(UnsupportedError, match="MelWeightMatrix"):
        load(proto)
    with pytest.raises(OnnxError, match="opset 9"):
        load(model(onnx.helper.make_node("Relu", ["x"], ["y"]), opset=9))


def test_shapes_that_depend_on_data_are_refused():
    cast = onnx.helper.make_node("Cast", ["x"], ["s"], to=7)
    with pytest.raises(OnnxError, match="depends on data"):
        load(model(cast, onnx.helper.make_node("Reshape", ["x", "s"], ["y"])))


def test_the_node_is_named():
    w = onnx.helper.make_tensor("w", 1, [4, 2], [0.0] * 8)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="the product")
    with pytest.raises(FaculaError) as caught:
        load(model(node, initializer=[w]))
    assert any("the product" in note for note in caught.value.__notes__)


def change(rng, proto):
    """Change a node of the graph a little."""
    node = rng.choice(proto.graph.node)
    kind = rng.randrange(4)
    if kind == 0:
        node.op_type = rng.choice(list(READERS))
    elif kind == 1 and node.input:
        names = [n for other in proto.graph.node for n in other.input]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 2 and node.attribute:
        attribute = rng.choice(node.attribute)
        if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] += rng.choice((-2, -1, 1, 2, 99))
        else:
            attribute.i += rng.choice((-2, -1, 1, 2, 99))
    else:
        tensor = rng.choice(proto.graph.initializer)
        if tensor.data_type == 7 and tensor.raw_data:
            array = onnx.numpy_helper.to_array(tensor) + rng.choice((-2, -1, 1, 2, 1 << 40))
            tensor.raw_data = array.astype("int64").tobytes()


@pytest.mark.parametrize("name", ["unet", "dcgan generator", "gpt"])
def test_random_changes_are_refused_or_harmless(name):
    make, inputs, dynamic = MODELS[name]
    facula.manual_seed(0)
    x = inputs(n=2, t=4)
    original = facula.onnx.export(make(), (x,), dynamic_shapes=(dynamic,)).SerializeToString()
    rng = random.Random(name)
    for _ in range(60):
        proto = onnx.ModelProto.FromString(original)
        change(rng, proto)
        try:
            load(proto).run([x])
        except FaculaError:
            continue
