"""Writing an archive: ``program.json``, which says everything but numbers, and the weights.

``program.json`` is JSON without extensions. Values of the Program are numbered: inputs, state, then
the outputs of the nodes in order. A size is an int, or a polynomial: a list of
``[coefficient, [atom, ...]]`` where an atom is a symbol's name or ``[kind, a, b]`` with kind
"div", "mod" or "max" of two sizes. ``docs/design/archive.md`` is the specification.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

import facula
from facula.base.dtypes import dtype
from facula.base.errors import ArgumentError, fail
from facula.ir.dims import Dim, hint
from facula.serialization import safetensors
from facula.serialization._files import replacing

FORMAT, VERSION = "facula program", 1
PROGRAM, WEIGHTS = "program.json", "weights.safetensors"
#: Endings of a path for which one file is written instead of a folder.
FILES = (".facula", ".zip")


def save(program, path) -> None:
    """Write an exported program as an archive that needs nothing else to run.

    Args:
        program: an :class:`ExportedProgram`.
        path: a folder, or a file if it ends in ``.facula`` or ``.zip``: a ZIP of the same.

    Raises:
        ArgumentError: a constant that the format cannot hold.
        OSError: as ``open`` does.
    """
    path = Path(path)
    text = json.dumps(described(program), indent=1, allow_nan=False)
    if path.suffix in FILES:
        weights = safetensors.save(program.state_dict)
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(PROGRAM, text)
            archive.writestr(WEIGHTS, weights)
        return
    os.makedirs(path, exist_ok=True)
    safetensors.save_file(program.state_dict, path / WEIGHTS)
    with replacing(path / PROGRAM) as file:
        file.write(text.encode())


def described(exported) -> dict:
    """The program in JSON's words."""
    program = exported.program
    numbers = {id(v): i for i, v in enumerate(program.inputs)}
    nodes = []
    for node in program.nodes:
        nodes.append(
            {
                "op": node.op.name,
                "inputs": [numbers[id(v)] for v in node.inputs],
                "params": {k: constant(x) for k, x in node.params.items()},
                "outputs": [_typed(v) for v in node.outputs],
            }
        )
        for v in node.outputs:
            numbers[id(v)] = len(numbers)
    states = program.inputs[len(exported.inputs) :]
    return {
        "format": FORMAT,
        "version": VERSION,
        "producer": f"facula {facula.__version__}",
        "name": program.name,
        "symbols": _symbols(exported.inputs),
        "inputs": [{"name": s.name, **_typed(v)} for s, v in zip(exported.inputs, program.inputs)],
        "state": [{"name": n, **_typed(v)} for n, v in zip(exported.state_dict, states)],
        "nodes": nodes,
        "outputs": [
            {"name": s.name, "value": numbers[id(v)]}
            for s, v in zip(exported.outputs, program.outputs)
        ],
        "guards": [[q, size(a), size(b), bool(r)] for (q, a, b), r in program.guards.items()],
        "arguments": {k: _structure(x) for k, x in exported.arguments.items()},
        "results": _structure(exported.results),
    }


def _symbols(inputs):
    """Every symbol with the value it had when the program was captured."""
    return {str(n): hint(n) for spec in inputs for n in spec.sizes if isinstance(n, Dim)}


def _typed(v):
    typed = {"dtype": v.dtype.name, "shape": [size(n) for n in v.shape]}
    return {**typed, "weak": True} if v.weak else typed


def size(n):
    """A size in JSON's words."""
    if not isinstance(n, Dim):
        return int(n)
    return [[c, [_atom(a) for a in monomial]] for monomial, c in n.terms.items()]


def _atom(atom):
    return atom if isinstance(atom, str) else [atom[0], size(atom[1]), size(atom[2])]


def constant(x):
    """A parameter of a node in JSON's words: what JSON lacks is an object with one key."""
    if isinstance(x, Dim):
        return {"size": size(x)}
    if isinstance(x, dtype):
        return {"dtype": x.name}
    if isinstance(x, (tuple, list)):
        return [constant(y) for y in x]
    if isinstance(x, float) and not math.isfinite(x):
        return {"float": str(x)}
    if isinstance(x, (bool, int, float, str, type(None))):
        return x
    kind = type(x).__name__
    return fail(ArgumentError, "export.save", f"a constant of type {kind} cannot be written")


def _structure(description):
    """The description of nested arguments or results, its constants as JSON can hold them."""
    ((kind, what),) = description.items()
    if kind == "value":
        return {"value": constant(what)}
    if kind in ("tuple", "list"):
        return {kind: [_structure(x) for x in what]}
    if kind == "dict":
        return {"dict": {k: _structure(x) for k, x in what.items()}}
    return description
