"""From an ONNX file to an ExportedProgram: the way back in, which starts at Program."""

from __future__ import annotations

import os
import re

import numpy as np

from facula.base import dtypes as D
from facula.base.errors import FaculaError, fail
from facula.compiler.simplify import simplify
from facula.export import ExportedProgram, TensorSpec, checks
from facula.export.dynamic import is_name
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.program import Program, Value
from facula.onnx import layers, operators, recurrence  # noqa: F401  their readers
from facula.onnx.errors import OnnxError, need_onnx, unsupported
from facula.onnx.graph import BY_TYPE
from facula.onnx.known import Constant, Sizes, array_of, fold
from facula.onnx.operators import READERS
from facula.ops.pointwise import copy_
from facula.ops.promote import to
from facula.ops.reduce import size_value
from facula.ops.registry import F
from facula.tensor import from_numpy, tensor

#: The oldest opset read: before it, Softmax and the placing of axes were others.
OLDEST = 13
#: Values that dynamic sizes have while the graph is read: primes, so that no two agree by chance.
_HINTS = (61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109)


def load(f, *, sizes=None) -> ExportedProgram:
    """Read an ONNX model.

    Args:
        f: a path, a binary file, or an ``onnx.ModelProto``.
        sizes: ``{name: size}`` for dynamic sizes: what they are likely to be. Nothing is fixed by
            it, but questions that the graph's shapes raise are answered by it (and guarded).

    Raises:
        OnnxError: the file is none, or its shapes depend on data.
        UnsupportedError: an operator that is not known; the message lists all.
    """
    onnx = need_onnx()
    try:
        if not isinstance(f, onnx.ModelProto):
            f = onnx.load(os.fspath(f) if isinstance(f, (str, os.PathLike)) else f)
        onnx.checker.check_model(f)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise OnnxError(f"onnx.load: {error}") from error
    except Exception as error:
        # protobuf's own errors derive from Exception alone.
        if type(error).__name__ != "DecodeError":
            raise
        raise OnnxError(f"onnx.load: {error}") from error
    _check_operators(f)
    return _Reader(f.graph, dict(sizes or {})).exported


def _check_operators(model):
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        fail(OnnxError, "onnx.load", f"opset {opset}; the oldest that is read is {OLDEST}",
             "convert it with onnx.version_converter")  # fmt: skip
    unknown = {n.op_type for n in model.graph.node if n.op_type not in READERS or n.domain}
    if unknown:
        unsupported(f"operators that are not read: {', '.join(sorted(unknown))}")


class _Reader:
    """A graph being read: its values by name, as Values, Constants or Sizes."""

    def __init__(self, graph, sizes):
        self.sizes, self.symbols, self.state = sizes, {}, {}
        self.program = Program(graph.name or "onnx")
        self.states: dict[str, Value] = {}
        self.values: dict[str, object] = {"": None}
        for t in graph.initializer:
            self.values[t.name] = self._constant(t, t.name)
        given = [v for v in graph.input if v.name not in self.values]
        with dims.guarding(self.program.guards), P.building(self.program):
            inputs = tuple(self._input(i, v) for i, v in enumerate(given))
            for node in graph.node:
                self._node(node)
            made = [self.tensor(self.values[v.name]) for v in graph.output]
            self.program.outputs = [copy_(v) if v.node is None else v for v in made]
            self._check()
        guards = self.program.guards
        program = simplify(self.program)
        program.guards.update(guards)
        outputs = tuple(
            TensorSpec(o.name, v.dtype, tuple(v.shape))
            for o, v in zip(graph.output, program.outputs)
        )
        arguments = {s.name: {"tensor": i} for i, s in enumerate(inputs)}
        results = [{"tensor": i} for i in range(len(outputs))]
        results = results[0] if len(results) == 1 else {"tuple": results}
        self.exported = ExportedProgram(program, inputs, outputs, self.state, arguments, results)

    def _check(self):
        """Ask of every node what is asked of an archive's: a file may say anything."""
        for node in self.program.nodes:
            try:
                checks.check(node.op, node.inputs, node.params)
            except checks.Refused as error:
                raise OnnxError(f"onnx.load: {node.op.name}: {error}") from error

    def _input(self, i, info) -> TensorSpec:
        kind = info.type.tensor_type
        if kind.elem_type not in BY_TYPE or not kind.HasField("shape"):
            fail(OnnxError, "onnx.load", f"the input {info.name!r} is no tensor of known rank")
        shape = tuple(self._size(d, f"s{i}d{k}") for k, d in enumerate(kind.shape.dim))
        value = self.program.input(BY_TYPE[kind.elem_type], shape)
        self.values[info.name] = value
        return TensorSpec(info.name, value.dtype, shape)

    def _size(self, dim, default):
        if dim.HasField("dim_value"):
            return dim.dim_value
        name = dim.dim_param if is_name(dim.dim_param) else default
        if name not in self.symbols:
            hint = self.sizes.get(name, _HINTS[len(self.symbols) % len(_HINTS)])
            self.symbols[name] = Dim.symbol(name, max(hint, 2))
        return self.symbols[name]

    def _constant(self, proto, name) -> Constant:
        onnx = need_onnx()
        if proto.data_type not in BY_TYPE:
            unsupported(f"the constant {name!r} of data type {proto.data_type}")
        dtype = BY_TYPE[proto.data_type]
        array = onnx.numpy_helper.to_array(proto)
        if dtype is D.bfloat16:
            array = array.astype(np.float32)
        return Constant(np.array(array, order="C"), dtype, name)

    def _node(self, node):
        inputs = [self.values[name] for name in node.input]
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        try:
            results = fold(node.op_type, inputs, attributes)
            if results is None:
                results = READERS[node.op_type](self, *inputs, **attributes)
        except FaculaError as error:
            error.add_note(f"while reading the ONNX node {node.op_type} {node.name!r}")
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            # Inputs or attributes that the reader does not take, or of other kinds.
            raise OnnxError(f"onnx.load: {node.op_type} {node.name!r}: {error}") from error
        results = results if isinstance(results, (tuple, list)) else (results,)
        for name, value in zip(node.output, results):
            self.values[name] = value
        for name in node.output[len(results) :]:
            if name:
                unsupported(f"{node.op_type} with the output {name!r}")

    def _attribute(self, a):
        value = need_onnx().helper.get_attribute_value(a)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, need_onnx().TensorProto):
            return self._constant(value, "constant")
        return value

    # For the readers

    def tensor(self, x) -> Value:
        """A value of the graph as a value of the Program."""
        if isinstance(x, Sizes):
            if x.dtype is D.bool_:
                return self.tensor(Constant(x.array.astype(bool), D.bool_, "constant"))
            if x.array.ndim == 0:
                return size_value(x.array.item(), D.int64)
            if not x.array.size:
                return F.zeros_of(x.array.shape, D.int64)
            flat = F.stack([size_value(n, D.int64) for n in x.array.reshape(-1)])
            return F.reshape(flat, x.array.shape)
        if not isinstance(x, Constant):
            return x
        if x.array.ndim == 0:
            return to(x.array.item(), x.dtype)
        return self._weight(x)

    def _weight(self, x):
        """A constant as an input of the Program; each is one."""
        key = str(id(x))
        if key not in self.states:
            name = re.sub(r"\s", "_", x.name) or "constant"
            while name in self.state:
                name += "_"
            array = x.array
            wide = tensor(array.tolist()).to(x.dtype) if x.dtype is D.bfloat16 else None
            self.state[name] = from_numpy(array) if wide is None else wide
            self.states[key] = self.program.input(x.dtype, array.shape)
            self._kept = [*getattr(self, "_kept", ()), x]
        return self.states[key]

    def number(self, x, default=None):
        """A constant number, or None where it depends on data."""
        if x is None:
            return default
        if isinstance(x, Constant) and x.array.size == 1:
            return x.array.item()
        known = array_of(x)
        return known.item() if known is not None and known.size == 1 else None
