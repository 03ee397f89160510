"""Files that PyTorch's own exporter wrote, read and compared with PyTorch."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.conformance


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(11, 5)
        self.recurrent = torch.nn.LSTM(5, 6, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, ids):
        return self.recurrent(self.embed(ids))[0]


def convolutional():
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Hardswish(), nn.MaxPool2d(3, 2, 1),
        nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), nn.GroupNorm(2, 4), nn.LeakyReLU(0.1),
        nn.Upsample(scale_factor=2), nn.AvgPool2d(2), nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 3), nn.LogSoftmax(1),
    )  # fmt: skip


def transformer():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS = {
    "convolutional": (convolutional, lambda n: torch.randn(n, 3, 16, 16)),
    "transformer": (transformer, lambda n: torch.randn(n, 5, 8)),
    "recurrent": (Recurrent, lambda n: torch.randint(0, 11, (n, 4))),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_pytorch_gives_its_results(name):
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (inputs(2),), file, dynamo=False, input_names=["x"], opset_version=17,
            dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip
    program = facula.onnx.load(io.BytesIO(file.getvalue()))
    assert program.inputs[0].dims[0] == "batch"
    for n in (1, 2, 5):
        x = inputs(n)
        with torch.no_grad():
            want = model(x).numpy()
        got = program(facula.from_numpy(x.numpy())).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
