"""From a function, a module or an ExportedProgram to an ONNX file."""

from __future__ import annotations

import os

import numpy as np

from facula.base import dtypes as D
from facula.base.errors import ArgumentError, fail
from facula.compiler.simplify import simplify
from facula.export import ExportedProgram
from facula.export import export as capture
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim, Guards
from facula.ir.program import Program, Value
from facula.onnx import contraction, movement, pointwise, recurrence, selection  # noqa: F401  their mappings
from facula.onnx.errors import need_onnx, unsupported
from facula.onnx.graph import TYPES, Graph
from facula.onnx.peephole import tidy
from facula.onnx.table import MAPPINGS, UNMAPPED, has_mapping
from facula.serialization._files import replacing
from facula.tensor import pickling

#: The opsets that can be written; the first has the operators' axes where the mappings put them.
OLDEST, NEWEST, DEFAULT = 18, 23, 18


def export(
    model,
    args=(),
    f=None,
    *,
    kwargs=None,
    input_names=None,
    output_names=None,
    opset_version=None,
    dynamic_axes=None,
    dynamic_shapes=None,
    **ignored,
):
    """Write a model as ONNX. Evaluation mode, no gradients; see :func:`facula.export.export`.

    Args:
        model: a module, a function of tensors, or an :class:`ExportedProgram` (without ``args``).
        args, kwargs: example arguments.
        f: path or binary file to write to; None only returns the model.
        input_names, output_names: names of the graph's inputs and outputs, in order.
        opset_version: 18 (the default) to 23.
        dynamic_axes: sizes that may change: ``{input name: {dimension: name}}``, or a list of
            dimensions. Entries for outputs are accepted: their sizes follow from the inputs'.
        dynamic_shapes: the same by parameter, as :func:`facula.export.export` takes it.
        ignored: PyTorch's further arguments that have no meaning here, such as ``dynamo``.

    Returns:
        the ``onnx.ModelProto``.

    Raises:
        MissingExtra: the package onnx is not installed.
        UnsupportedError: an op that ONNX cannot express; the message tells which.
    """
    onnx = need_onnx()
    _check_ignored(ignored)
    opset = DEFAULT if opset_version is None else opset_version
    if not OLDEST <= opset <= min(NEWEST, onnx.defs.onnx_opset_version()):
        fail(ArgumentError, "onnx.export", f"opset_version {opset}; {OLDEST} to {NEWEST} can be "
             "written")  # fmt: skip
    if not isinstance(model, ExportedProgram):
        args = args if isinstance(args, (tuple, list)) else (args,)
        if dynamic_axes:
            dynamic_shapes = _by_parameter(model, args, kwargs, input_names, dynamic_axes)
        model = capture(
            model,
            args,
            kwargs,
            dynamic_shapes=dynamic_shapes,
            input_names=input_names,
            output_names=output_names,
        )
    proto = written(model, opset)
    if f is None:
        return proto
    if isinstance(f, (str, os.PathLike)):
        with replacing(f) as file:
            file.write(proto.SerializeToString())
    else:
        f.write(proto.SerializeToString())
    return proto


#: Keywords of ``torch.onnx.export`` that change nothing here.
_IGNORED = frozenset(
    "export_params verbose training do_constant_folding keep_initializers_as_inputs dynamo "
    "external_data report verify profile dump_exported_program artifacts_dir fallback optimize "
    "operator_export_type custom_opsets export_modules_as_functions autograd_inlining".split()
)


def _check_ignored(ignored):
    unknown = set(ignored) - _IGNORED
    if unknown:
        raise TypeError(f"onnx.export: unexpected arguments {sorted(unknown)}")


def _by_parameter(model, args, kwargs, input_names, dynamic_axes):
    """``dynamic_axes``, by input names, as ``dynamic_shapes``, by arguments."""
    probe = capture(model, args, kwargs, input_names=input_names)
    axes = [dynamic_axes.get(spec.name) for spec in probe.inputs]

    def walk(description):
        ((kind, what),) = description.items()
        if kind == "tensor":
            wish = axes[what]
            return dict.fromkeys(wish, True) if isinstance(wish, (list, tuple)) else wish
        if kind == "dict":
            return {k: walk(x) for k, x in what.items()}
        return None if kind == "value" else [walk(x) for x in what]

    return {name: walk(description) for name, description in probe.arguments.items()}


def written(exported, opset: int = DEFAULT):
    """The ``onnx.ModelProto`` of an exported program."""
    onnx = need_onnx()
    program = lowered(exported.program)
    g = Graph(opset)
    _enter(g, exported, program)
    for node in program.nodes:
        mapping = MAPPINGS.get(node.op.name)
        if mapping is None:
            reason = UNMAPPED.get(node.op.name, "no mapping is declared")
            unsupported(f"{node.op.name} cannot be exported: {reason}")
        results = mapping(g, node, *_operands(g, node))
        results = results if isinstance(results, tuple) else (results,)
        g.names.update((id(v), name) for v, name in zip(node.outputs, results))
    outputs = _leave(g, exported, program)
    nodes, used = tidy(g, [o.name for o in outputs])
    inputs = [_typed(s.name, s.dtype, s.sizes) for s in exported.inputs]
    initializers = [_initializer(g, n) for n in g.arrays if n in used]
    graph = onnx.helper.make_graph(nodes, program.name or "program", inputs, outputs, initializers)
    imports = [onnx.helper.make_opsetid("", opset)]
    proto = onnx.helper.make_model(graph, opset_imports=imports, producer_name="facula")
    proto.ir_version = onnx.helper.find_min_ir_version_for(imports)
    onnx.checker.check_model(proto)
    return proto


def lowered(program: Program) -> Program:
    """The program with those nodes replaced by their bodies that have one and no mapping."""
    result = Program(program.name)
    result.inputs = list(program.inputs)
    seen: dict[int, Value] = {}
    replaced = False
    with dims.guarding(Guards()), P.building(result):
        for node in program.nodes:
            operands = tuple(seen.get(id(v), v) for v in node.inputs)
            if "body" in node.op.info and not has_mapping(node):
                outputs = node.op.info["body"](*operands, **node.params)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                replaced = True
            else:
                types = [(v.dtype, v.shape) for v in node.outputs]
                outputs = result.apply(node.op, operands, node.params, types)
            seen.update((id(old), new) for old, new in zip(node.outputs, outputs))
    result.outputs = [seen.get(id(v), v) for v in program.outputs]
    # Bodies may contain composites.
    return lowered(result) if replaced else simplify(result)


def _enter(g, exported, program):
    """Inputs and weights by name; which sizes are which symbols."""
    for spec, v in zip(exported.inputs, program.inputs):
        g.names[id(v)] = g.fresh(spec.name)
    for spec in exported.outputs:
        g.fresh(spec.name)
    for v in program.inputs[: len(exported.inputs)]:
        for d, n in enumerate(v.shape):
            if isinstance(n, Dim):
                g.know(n, g.names[id(v)], d)
    states = program.inputs[len(exported.inputs) :]
    for (name, t), v in zip(exported.state_dict.items(), states):
        g.names[id(v)] = g.array(_array(t), t.dtype, name)


def _array(t) -> np.ndarray:
    """The elements of a tensor; those of bfloat16, which NumPy lacks, as the bits of int16."""
    data = pickling.dense_bytes(t.contiguous())
    dtype = np.int16 if t.dtype is D.bfloat16 else t.dtype.numpy()
    return np.frombuffer(data, dtype).reshape(tuple(t.shape))


def _operands(g, node) -> list[str]:
    """Names of a node's operands; what ONNX broadcasts itself is not expanded first."""
    values = list(node.inputs)
    if node.op.kind == "pointwise" and len(values) > 1:
        expanded = [v.node is not None and v.node.op.name == "expand" for v in values]
        if all(expanded):
            expanded[0] = False
        values = [v.node.inputs[0] if e else v for v, e in zip(values, expanded)]
    return [g.names[id(v)] for v in values]


def _leave(g, exported, program):
    """The outputs, under the names that were asked for."""
    onnx = need_onnx()
    outputs = []
    for spec, v in zip(exported.outputs, program.outputs):
        node = onnx.helper.make_node("Identity", [g.names[id(v)]], [spec.name])
        g.nodes.append(node)
        outputs.append(_typed(spec.name, spec.dtype, spec.sizes))
    return outputs


def _typed(name, dtype, sizes):
    shape = [n if isinstance(n, int) else str(n) for n in sizes]
    return need_onnx().helper.make_tensor_value_info(name, TYPES[dtype], shape)


def _initializer(g, name):
    onnx = need_onnx()
    array = g.arrays[name]
    return onnx.TensorProto(
        name=name,
        data_type=TYPES[g.dtypes[name]],
        dims=array.shape,
        raw_data=array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(),
    )
