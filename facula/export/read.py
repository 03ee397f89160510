"""Reading an archive: nothing in it is run, and everything it says is checked.

Types and shapes are inferred anew, node by node, and compared with what the file says. What the
inference asks about symbolic sizes becomes guards of the program: a call that they do not hold for
raises.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from facula.base import dtypes as D
from facula.base.errors import fail
from facula.export import checks, structure
from facula.export.dynamic import is_name
from facula.export.errors import ArchiveError
from facula.export.program import ExportedProgram, TensorSpec
from facula.export.write import FORMAT, PROGRAM, VERSION, WEIGHTS
from facula.ir import dims
from facula.ir import program as P
from facula.ir.dims import Dim
from facula.ir.program import Program
from facula.ops.registry import PRIMITIVES
from facula.serialization import safetensors
from facula.serialization.errors import SafetensorError

#: Bounds on ``program.json``: bytes, nodes, and how deep a size is nested.
MAX_BYTES, MAX_NODES, MAX_DEPTH = 1 << 28, 1 << 20, 32
_FLOATS = {"inf": float("inf"), "-inf": -float("inf"), "nan": float("nan")}
_KEYS = {"format", "version", "producer", "name", "symbols", "inputs", "state", "nodes",
         "outputs", "guards", "arguments", "results"}  # fmt: skip


def refuse(what: str):
    """Raise an :class:`ArchiveError`."""
    fail(ArchiveError, "export.load", what)


def is_archive(path) -> bool:
    """Whether there is an archive at that path: a folder or a ZIP with a program in it."""
    path = Path(path)
    if path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                return PROGRAM in archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return False
    return (path / PROGRAM).is_file()


def load(path) -> ExportedProgram:
    """Read an archive that ``save`` wrote.

    Args:
        path: the folder, or the ``.facula`` or ``.zip`` file.

    Raises:
        ArchiveError: what it says cannot be; the message tells which part.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        with open(path / PROGRAM, "rb") as file:
            text = file.read(MAX_BYTES + 1)
        try:
            weights = safetensors.load_file(path / WEIGHTS)
        except SafetensorError as error:
            raise ArchiveError(f"export.load: {error}") from error
    else:
        text, weights = _from_zip(path)
    return decoded(_json(text), weights)


def _from_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {}
            for name in (PROGRAM, WEIGHTS):
                info = archive.getinfo(name)
                # Stored parts cannot grow beyond the file when they are read.
                if info.compress_type != zipfile.ZIP_STORED:
                    refuse(f"{name} is compressed, which the format does not allow")
                parts[name] = archive.read(name)
        return parts[PROGRAM], safetensors.load(parts[WEIGHTS])
    except (zipfile.BadZipFile, KeyError, NotImplementedError, EOFError) as error:
        raise ArchiveError(f"export.load: {path} is no archive: {error}") from error
    except SafetensorError as error:
        raise ArchiveError(f"export.load: {error}") from error
    except RuntimeError as error:  # an encrypted part
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"export.load: {path} is no archive: {error}") from error


def _json(text: bytes) -> dict:
    if len(text) > MAX_BYTES:
        refuse(f"{PROGRAM} has more than {MAX_BYTES} bytes")
    try:
        found = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"export.load: {PROGRAM} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        refuse(f"{PROGRAM} does not say that its format is {FORMAT!r}")
    if found.get("version") != VERSION:
        refuse(f"version {found.get('version')!r} of the format; this reads version {VERSION}")
    if set(found) != _KEYS:
        refuse(f"expected the keys {sorted(_KEYS)}, got {sorted(found)}")
    return found


def _no_constant(word):
    raise ValueError(f"{word} is not JSON")


def decoded(found: dict, weights: dict) -> ExportedProgram:
    """The exported program of the checked ``program.json`` and the weights by name.

    Raises:
        ArchiveError: what it says cannot be.
    """
    try:
        return _Reader(found, weights).exported
    except ArchiveError:
        raise
    except (RecursionError, ValueError, TypeError, KeyError, IndexError, OverflowError,
            AttributeError, ArithmeticError, RuntimeError) as error:  # fmt: skip
        # Whatever of the file was not as expected: parts of wrong types, mostly.
        kind = type(error).__name__
        raise ArchiveError(f"export.load: {PROGRAM} is malformed: {kind}: {error}") from error


class _Reader:
    """A ``program.json`` being read."""

    def __init__(self, found, weights):
        self.symbols = self._symbols(found["symbols"])
        self.program = Program(_text(found["name"], "name"))
        with dims.guarding(self.program.guards), P.building(self.program):
            self._inputs(found["inputs"], found["state"], weights)
            self.values = list(self.program.inputs)
            nodes = _list(found["nodes"], "nodes")
            if len(nodes) > MAX_NODES:
                refuse(f"more than {MAX_NODES} nodes")
            for i, node in enumerate(nodes):
                self._node(i, node)
            self._guards(found["guards"])
        outputs = [(_text(o["name"], "name"), self._value(o["value"])) for o in found["outputs"]]
        if not outputs or any(v.node is None for _, v in outputs):
            refuse("an output that is not computed, or none at all")
        self.program.outputs = [v for _, v in outputs]
        arguments, results = found["arguments"], found["results"]
        for description in arguments.values():
            structure.check(description, len(found["inputs"]))
        structure.check(results, len(outputs))
        self.exported = ExportedProgram(
            self.program.live(),
            self._specs([s["name"] for s in found["inputs"]], self.program.inputs),
            self._specs([name for name, _ in outputs], self.program.outputs),
            {s["name"]: weights[s["name"]] for s in found["state"]},
            {k: self._structure(x) for k, x in arguments.items()},
            self._structure(results),
        )

    def _symbols(self, found):
        made = {}
        for name, value in found.items():
            if not is_name(name) or type(value) is not int or not 1 < value < 1 << 31:
                refuse(f"the symbol {name!r} with the value {value!r}")
            made[name] = Dim.symbol(name, value)
        return made

    def _inputs(self, inputs, state, weights):
        for part in inputs:
            shape = self._shape(part["shape"])
            if not all(isinstance(n, int) or n.is_symbol for n in shape):
                refuse(f"the input {part['name']!r} has sizes that are computed")
            self.program.input(self._dtype(part["dtype"]), shape)
        asked = {str(n) for v in self.program.inputs for n in v.shape if isinstance(n, Dim)}
        if asked != set(self.symbols):
            refuse("symbols that no input gives")
        for part in state:
            name = part["name"]
            if name not in weights:
                refuse(f"the weight {name!r} is missing")
            t, shape = weights[name], self._shape(part["shape"])
            if t.dtype is not self._dtype(part["dtype"]) or tuple(t.shape) != shape:
                refuse(f"the weight {name!r} is {t.dtype.name}{list(t.shape)}, not {part}")
            self.program.input(t.dtype, shape)

    def _node(self, i, found):
        op = PRIMITIVES.get(found["op"]) if isinstance(found["op"], str) else None
        if op is None:
            refuse(f"node {i}: no primitive {found['op']!r}")
        try:
            inputs = [self._value(n) for n in _list(found["inputs"], "inputs")]
            params = {k: self._constant(x) for k, x in found["params"].items()}
            checks.check(op, inputs, params)
            inferred = op.infer(*inputs, **params)
        except RecursionError:
            refuse(f"node {i} ({op.name}): nested too deeply")
        except Exception as error:
            # Bodies and inferences are ordinary Python on what the file says.
            raise ArchiveError(f"export.load: node {i} ({op.name}): {error}") from error
        outputs = _list(found["outputs"], "outputs")
        if len(outputs) != len(inferred):
            refuse(f"node {i} ({op.name}): {len(outputs)} outputs, expected {len(inferred)}")
        for part, (dtype, shape) in zip(outputs, inferred):
            said = self._dtype(part["dtype"]), self._shape(part["shape"])
            same = len(said[1]) == len(shape) and all(a == b for a, b in zip(said[1], shape))
            if said[0] is not dtype or not same:
                refuse(f"node {i} ({op.name}): says {said[0].name}{list(said[1])}, is "
                       f"{dtype.name}{list(shape)}")  # fmt: skip
        made = self.program.apply(op, inputs, params, inferred)
        for part, v in zip(outputs, made):
            v.weak = part.get("weak", False) is True
        self.values += made

    def _guards(self, found):
        for question, a, b, answer in found:
            a, b = self._size(a), self._size(b)
            if question not in ("eq", "lt") or type(answer) is not bool:
                refuse(f"the guard {question!r}")
            x, y = dims.hint(a), dims.hint(b)
            if (x == y if question == "eq" else x < y) is not answer:
                refuse(f"the guard {a} {question} {b} does not hold where it was captured")
            self.program.guards[question, a, b] = answer

    # Parts

    def _value(self, i):
        if type(i) is not int or not 0 <= i < len(self.values):
            refuse(f"value {i!r} is used before it is made")
        return self.values[i]

    def _dtype(self, name):
        found = next((d for d in D.ALL if d.name == name), None)
        if found is None:
            refuse(f"no dtype {name!r}")
        return found

    def _shape(self, sizes):
        shape = tuple(self._size(n) for n in _list(sizes, "shape"))
        if len(shape) > checks.MAX_RANK or any(dims.hint(n) < 0 for n in shape):
            refuse(f"the shape {shape}")
        if dims.product(max(dims.hint(n), 1) for n in shape) >= 1 << 47:
            refuse(f"the shape {shape} is too large")
        return shape

    def _size(self, n, depth=0):
        if type(n) is int:
            if not -(1 << 62) < n < 1 << 62:
                refuse(f"the size {n}")
            return n
        if depth > MAX_DEPTH:
            refuse("a size is nested too deeply")
        total = 0
        for coefficient, monomial in _list(n, "size"):
            if type(coefficient) is not int or len(monomial) > MAX_DEPTH:
                refuse("a size is no polynomial")
            term = coefficient
            for atom in monomial:
                term = term * self._atom(atom, depth)
            total = total + term
        if not -(1 << 62) < dims.hint(total) < 1 << 62:
            refuse(f"the size {total}")
        return total

    def _atom(self, atom, depth):
        if isinstance(atom, str):
            if atom not in self.symbols:
                refuse(f"no symbol {atom!r}")
            return self.symbols[atom]
        kind, a, b = atom
        a, b = self._size(a, depth + 1), self._size(b, depth + 1)
        if kind == "max":
            return dims.maximum(a, b)
        if kind not in ("div", "mod") or dims.hint(b) <= 0:
            refuse(f"a size with the part {kind!r}")
        return a // b if kind == "div" else a % b

    def _constant(self, x):
        if isinstance(x, list):
            return tuple(self._constant(y) for y in x)
        if not isinstance(x, dict):
            return x
        ((kind, what),) = x.items()
        if kind == "size":
            return self._size(what)
        if kind == "dtype":
            return self._dtype(what)
        if kind != "float" or what not in _FLOATS:
            refuse(f"a constant of the kind {kind!r}")
        return _FLOATS[what]

    def _structure(self, description):
        ((kind, what),) = description.items()
        if kind == "value":
            return {"value": self._constant(what)}
        if kind in ("tuple", "list"):
            return {kind: [self._structure(x) for x in what]}
        if kind == "dict":
            return {kind: {k: self._structure(x) for k, x in what.items()}}
        return description

    def _specs(self, names, values):
        names = [_text(n, "name") for n in names]
        if len(set(names)) != len(names):
            refuse(f"names that are not different: {names}")
        return tuple(TensorSpec(n, v.dtype, tuple(v.shape)) for n, v in zip(names, values))


def _list(x, what):
    if not isinstance(x, list):
        refuse(f"{what}: expected a list, got {type(x).__name__}")
    return x


def _text(x, what):
    if not isinstance(x, str):
        refuse(f"{what}: expected a text, got {type(x).__name__}")
    return x
