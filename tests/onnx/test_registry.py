"""Every op with samples, exported and run by onnxruntime, against our own result."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from oracle import leaves, map_specs, samples

import facula
from facula.base import dtypes as D
from facula.base.errors import UnsupportedError
from facula.export import ExportError
from facula.export import export as capture
from facula.library import OPS
from facula.onnx import load
from facula.onnx.table import MAPPINGS, UNMAPPED
from facula.onnx.write import written
from facula.ops.registry import PRIMITIVES
from facula.tensor.functions import function_of

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

TESTED = [op for op in OPS.values() if not op.random and samples(op)]
#: Primitives of which only some nodes can be written.
PARTLY = ("recurrence",)
#: Ops that onnxruntime has no kernels for, though the files are valid: they are read back alone.
RUNTIME = dict.fromkeys(("ndtr", "erfcx", "log_ndtr"), "no Erf in float64")


def test_every_primitive_is_mapped_or_a_composite_or_said_to_be_neither():
    silent = {
        p.name
        for p in PRIMITIVES.values()
        if "body" not in p.info and p.name not in MAPPINGS and p.name not in UNMAPPED
    }
    assert not silent, "write their mappings, or the reasons in facula.onnx.table.UNMAPPED"
    assert not set(MAPPINGS) & set(UNMAPPED)
    assert set(UNMAPPED) <= set(PRIMITIVES)


def run(proto, arrays):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays)))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("op", TESTED, ids=lambda op: op.name)
def test_onnxruntime_agrees(op, dynamic):
    """With all sizes known, and with all sizes but those of 1 symbolic."""
    exported = []
    for k, sample in enumerate(samples(op)):
        rng = np.random.default_rng(zlib.crc32(f"{op.name}{k}".encode()))
        given: list = []

        def entered(spec, rng=rng, given=given):
            given.append(facula.from_numpy(spec.array(rng, D.float32, op.domain)))
            return given[-1]

        args, kwargs = map_specs(sample, entered)
        try:
            want = function_of(op)(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            continue
        exported.append(agree(op, args, kwargs, given, leaves(want), dynamic))
    if exported and all(exported):
        pytest.skip(exported[0])


def agree(op, args, kwargs, given, want, dynamic):
    """Compare the outputs of the file, and of what is read from it; else say why there is none."""

    def call(*tensors):
        at = {id(t): x for t, x in zip(given, tensors)}
        return leaves(function_of(op)(*put(args, at), **put(kwargs, at)))

    shapes = [{d: n > 1 for d, n in enumerate(t.shape)} for t in given] if dynamic else None
    try:
        program = capture(call, tuple(given), dynamic_shapes=shapes)
    except ExportError as error:
        assert dynamic and "asked to be dynamic" in str(error)
        return str(error)
    try:
        proto = written(program)
    except UnsupportedError as error:
        assert any(f"{name} cannot" in str(error) for name in (*UNMAPPED, *PARTLY)), error
        return str(error)
    onnx.checker.check_model(proto, full_check=True)
    if op.name not in RUNTIME:
        close(op, run(proto, [t.numpy() for t in given]), want)
    close(op, [t.numpy() for t in load(proto, sizes=program_sizes(program)).run(given)], want)
    return ""


def program_sizes(program):
    return {str(n): n.hint for spec in program.inputs for n in spec.sizes if not isinstance(n, int)}


def close(op, got, want):
    assert len(got) == len(want)
    for g, w in zip(got, want):
        w = w.detach().numpy()
        assert g.shape == w.shape and g.dtype == w.dtype
        scale = np.max(np.abs(w[np.isfinite(w)]), initial=1) if w.dtype.kind == "f" else 0
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5 * scale, err_msg=op.name)


def put(tree, at):
    if isinstance(tree, (list, tuple)):
        return type(tree)(put(x, at) for x in tree)
    if isinstance(tree, dict):
        return {k: put(x, at) for k, x in tree.items()}
    return at.get(id(tree), tree)
