"""ONNX: models written for, and read from, any ONNX runtime. Needs the extra ``onnx``."""

from facula.onnx.errors import MissingExtra, OnnxError
from facula.onnx.read import load
from facula.onnx.write import export, written

__all__ = ["MissingExtra", "OnnxError", "export", "load", "written"]
