"""Models from files: a loader for each kind of archive, none of which runs code from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facula.base.errors import ShapeError
from facula.export import ExportedProgram, is_archive, load
from facula.serve import datatypes
from facula.serve.errors import InvalidInput
from facula.serve.model import Model, TensorSpec
from facula.tensor import from_numpy


class LoadError(Exception):
    """A file that cannot be served, and why."""


@dataclass(frozen=True)
class Loader:
    """How one kind of archive becomes a model."""

    kind: str
    matches: Callable[[Path], bool]
    load: Callable[[Path, str, str], Model]


#: Every kind, by name; the first whose ``matches`` holds takes a path.
LOADERS: dict[str, Loader] = {}


def register(kind: str, matches: Callable[[Path], bool]):
    """Decorate ``load(path, name, version) -> Model`` as the loader of one kind of archive."""

    def add(load):
        LOADERS[kind] = Loader(kind, matches, load)
        return load

    return add


def load_model(path: str | Path, name: str, version: str = "1") -> Model:
    """Load an archive of any known kind.

    Raises:
        LoadError: of no known kind, or damaged.
    """
    path = Path(path)
    for loader in LOADERS.values():
        if loader.matches(path):
            try:
                return loader.load(path, name, version)
            except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
                raise LoadError(f"{path} ({loader.kind}): {error}") from error
    raise LoadError(f"{path}: no known kind of archive; hint: known are {', '.join(LOADERS)}")


@register("facula archive", is_archive)
def load_archive(path: Path, name: str, version: str) -> Model:
    """An archive that ``facula.export.save`` wrote: a program, its weights, no code."""
    return ProgramModel(load(path), name, version)


@register("ONNX", lambda path: path.suffix == ".onnx" and path.is_file())
def load_onnx(path: Path, name: str, version: str) -> Model:
    """An ONNX file, read into a program."""
    # Imported here: archives are served without the package onnx.
    from facula import onnx

    return ProgramModel(onnx.load(path), name, version)


class ProgramModel(Model):
    """An exported program, or one read from ONNX."""

    platform = "facula_program"

    def __init__(self, program: ExportedProgram, name: str, version: str):
        self.name, self.version = name, version
        self._program = program
        self.inputs = tuple(map(_spec, program.inputs))
        self.outputs = tuple(map(_spec, program.outputs))

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        tensors = [from_numpy(inputs[spec.name]) for spec in self.inputs]
        try:
            results = self._program.run(tensors)
        except ShapeError as error:
            # Sizes that fit each input alone, but not together or not what the program assumes.
            raise InvalidInput(str(error)) from error
        return {spec.name: result.numpy() for spec, result in zip(self.outputs, results)}


def _spec(spec) -> TensorSpec:
    """The protocol's words for an exported tensor: a size that may change is -1."""
    shape = tuple(-1 if size is None else size for size in spec.shape)
    return TensorSpec(spec.name, datatypes.name_of(spec.dtype.numpy()), shape)
