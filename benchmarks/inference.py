"""Forward passes in libraries made for them: ONNX Runtime, OpenVINO and JAX, where installed.

ONNX Runtime and OpenVINO read the file that PyTorch exports of the same model (ours, where it
cannot); JAX runs the same network written for it.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable

from benchmarks import programs
from benchmarks.measure import Settings, apart

SPECS = (
    "facula:eager", "facula:compile", "torch:eager", "torch:compile",
    "onnxruntime", "openvino", "jax",
)  # fmt: skip


def _inputs(torch) -> dict:
    return {
        "resnet-18, one image": torch.randn(1, 3, 224, 224),
        "transformer encoder, batch 8": torch.randint(0, 2048, (8, 128)),
        "transformer, 16 tokens": torch.randint(0, 512, (1, 16)),
    }


_MODELS = {
    "resnet-18, one image": programs.residual_network,
    "transformer encoder, batch 8": lambda torch: programs.transformer(
        torch, vocabulary=2048, depth=6, causal=False
    ),
    "transformer, 16 tokens": programs.transformer,
}


def run(settings: Settings, threads: int, only=()) -> dict:
    """All models in all libraries that are installed; the others are named as not installed."""
    found = {}
    names = [n for n in CASES if not only or any(w in n for w in only)]
    for name in names[-1:] if settings.quick else names:
        installed = [s for s in SPECS if importlib.util.find_spec(s.partition(":")[0])]
        if settings.quick and "torch:compile" in installed:
            installed.remove("torch:compile")
        found[name] = apart("inference", name, installed, settings, threads)
        for spec in SPECS:
            if importlib.util.find_spec(spec.partition(":")[0]) is None:
                found[name][spec] = {"error": "not installed"}
    return found


def _case(name) -> Callable:
    def build(lib):
        if lib.torch is not None:
            return lib.inference(_MODELS[name](lib.torch), _inputs(lib.torch)[name])
        if lib.name == "jax":
            return _jax(name)
        return {"onnxruntime": _onnxruntime, "openvino": _openvino}[lib.name](name)

    return build


CASES = {name: _case(name) for name in _MODELS}


def _exported(name):
    """(path of an ONNX file, its input as an array)."""
    path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    if importlib.util.find_spec("torch") is not None:
        import torch

        model, x = _MODELS[name](torch).eval(), _inputs(torch)[name]
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17)
    else:
        import facula

        model, x = _MODELS[name](facula).eval(), _inputs(facula)[name]
        facula.onnx.export(model, (x,), path)
    return path, x.numpy()


def _onnxruntime(name):
    import onnxruntime

    path, x = _exported(name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)


def _openvino(name):
    import openvino

    path, x = _exported(name)
    how = {
        "INFERENCE_NUM_THREADS": int(os.environ["BENCH_THREADS"]),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path, "CPU", how).create_infer_request()
    return lambda: request.infer([x])


def _jax(name):
    import jax

    if name == "resnet-18, one image":
        raise NotImplementedError("not written for it")
    heads = 4
    depth, vocabulary, causal = (6, 2048, False) if "encoder" in name else (4, 512, True)
    shape = (8, 128) if "encoder" in name else (1, 16)
    key, np = jax.random.key(0), jax.numpy

    def weight(*size):
        return 0.02 * jax.random.normal(key, size)

    def norm(x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)

    layers = [
        (weight(256, 768), weight(256, 256), weight(256, 1024), weight(1024, 256))
        for _ in range(depth)
    ]
    tokens, places, head = weight(vocabulary, 256), weight(256, 256), weight(256, vocabulary)

    @jax.jit
    def forward(layers, tokens, places, head, x):
        y = tokens[x] + places[: x.shape[1]]
        for qkv, out, up, down in layers:
            parts = np.split(norm(y) @ qkv, 3, axis=-1)
            q, k, v = (z.reshape(*x.shape, heads, -1) for z in parts)
            a = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
            y = y + a.reshape(y.shape) @ out
            y = y + jax.nn.gelu(norm(y) @ up, approximate=False) @ down
        return norm(y) @ head

    x = jax.random.randint(key, shape, 0, vocabulary)
    return lambda: forward(layers, tokens, places, head, x).block_until_ready()
