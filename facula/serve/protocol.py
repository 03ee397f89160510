"""The protocol's messages: bytes to arrays and back, checked, without a word of HTTP.

A body is JSON; with the binary tensor extension, ``header_length`` bytes of JSON are followed by
the raw little-endian elements of those tensors whose ``parameters`` say so.
https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from facula.serve import datatypes
from facula.serve.errors import InvalidInput, InvalidRequest, LimitExceeded, ModelFailed
from facula.serve.limits import Limits
from facula.serve.model import Model, TensorSpec

EXTENSIONS = ["binary_tensor_data"]


@dataclass(frozen=True)
class InferRequest:
    """A checked request: every input of the model, and the outputs asked for (name -> binary?)."""

    id: str | None
    inputs: dict[str, np.ndarray]
    outputs: dict[str, bool]


def model_metadata(model: Model, versions: list[str]) -> dict[str, object]:
    """The answer to a question for the model's metadata."""
    return {
        "name": model.name,
        "versions": versions,
        "platform": model.platform,
        "inputs": [spec.metadata() for spec in model.inputs],
        "outputs": [spec.metadata() for spec in model.outputs],
    }


def parse_request(
    body: bytes, model: Model, limits: Limits, header_length: int | None = None
) -> InferRequest:
    """Read and check a request for ``model``.

    Raises:
        InvalidRequest: not JSON, or not of the protocol's form.
        InvalidInput: a tensor that the model does not take.
        LimitExceeded: a batch or an element count over the limits.
    """
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise InvalidRequest(f"the header of {length} bytes exceeds the body of {len(body)}")
    message = _parse_json(body[:length])
    raw = _RawData(body, length)
    identifier = message.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise InvalidRequest("id: expected a string")
    entries = _named_entries(message, "inputs")
    specs = {spec.name: spec for spec in model.inputs}
    _check_names(set(entries), set(specs))
    budget = limits.elements
    arrays = {}
    for name, entry in entries.items():
        array = _parse_tensor(specs[name], entry, limits.batch, budget, raw)
        budget -= array.size
        arrays[name] = array
    raw.check_used_up()
    return InferRequest(identifier, arrays, _parse_outputs(message, model))


def build_response(
    model: Model, request: InferRequest, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part if raw tensors follow it.

    Raises:
        ModelFailed: NaN or an infinity, which JSON cannot say, in an output not asked as binary.
    """
    entries, tail = [], []
    for name, binary in request.outputs.items():
        array = np.asarray(outputs[name], order="C")
        entry: dict[str, object] = {
            "name": name,
            "datatype": datatypes.name_of(array.dtype),
            "shape": list(array.shape),
        }
        if binary:
            data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFailed(
                f"output {name!r} holds NaN or infinity, which JSON cannot say; "
                "hint: ask for it as binary data"
            )
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    message: dict[str, object] = {"model_name": model.name, "model_version": model.version}
    if request.id is not None:
        message["id"] = request.id
    message["outputs"] = entries
    head = json.dumps(message, separators=(",", ":")).encode()
    return (head + b"".join(tail), len(head)) if tail else (head, None)


class _RawData:
    """The bytes after the JSON, handed out in the order of the tensors."""

    def __init__(self, body: bytes, start: int):
        self._view, self._at = memoryview(body), start

    def take(self, size: int) -> memoryview:
        if size > len(self._view) - self._at:
            raise InvalidRequest(
                f"binary data: {size} bytes announced, {len(self._view) - self._at} left"
            )
        self._at += size
        return self._view[self._at - size : self._at]

    def check_used_up(self) -> None:
        if self._at != len(self._view):
            raise InvalidRequest(f"{len(self._view) - self._at} bytes follow the last tensor")


def _refuse_constant(text: str):
    raise InvalidRequest(f"{text} is no JSON number")


def _parse_json(text: bytes) -> dict:
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # ValueError covers JSON, encoding and integers of thousands of digits.
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InvalidRequest(f"the body is not JSON: {reason}") from error
    if not isinstance(message, dict):
        raise InvalidRequest("the body: expected a JSON object")
    return message


def _named_entries(message: dict, field: str) -> dict[str, dict]:
    """A list of objects with distinct names, by name."""
    entries = message.get(field)
    if not isinstance(entries, list):
        raise InvalidRequest(f"{field}: expected a list")
    named: dict[str, dict] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise InvalidRequest(f"{field}: expected objects with a string as name")
        if name in named:
            raise InvalidRequest(f"{field}: {name!r} is given twice")
        named[name] = entry
    return named


def _parameters(entry: dict) -> dict:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters: expected an object")
    return parameters


def _check_names(given: set[str], known: set[str]) -> None:
    if given - known:
        raise InvalidInput(
            f"no input named {sorted(given - known)}; hint: the model takes {sorted(known)}"
        )
    if known - given:
        raise InvalidInput(f"missing inputs: {sorted(known - given)}")


def _parse_outputs(message: dict, model: Model) -> dict[str, bool]:
    known = [spec.name for spec in model.outputs]
    default = _parameters(message).get("binary_data_output", False)
    if message.get("outputs") is None:
        return dict.fromkeys(known, bool(default))
    entries = _named_entries(message, "outputs")
    for name in entries:
        if name not in known:
            raise InvalidRequest(f"no output named {name!r}; hint: the model gives {known}")
    return {n: bool(_parameters(e).get("binary_data", default)) for n, e in entries.items()}


def _parse_tensor(
    spec: TensorSpec, entry: dict, max_batch: int, max_elements: int, raw: _RawData
) -> np.ndarray:
    where = f"input {spec.name!r}"
    if entry.get("datatype") != spec.datatype:
        raise InvalidInput(f"{where}: expected {spec.datatype}, got {entry.get('datatype')!r}")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(type(s) is int and s >= 0 for s in shape):
        raise InvalidRequest(f"{where}: shape: expected a list of sizes")
    if not spec.admits(shape):
        raise InvalidInput(f"{where}: expected shape {list(spec.shape)}, got {shape}")
    if 0 in shape:
        raise InvalidInput(f"{where}: shape {shape} has no elements")
    if shape and spec.shape[0] == -1 and shape[0] > max_batch:
        raise LimitExceeded(f"{where}: a batch of {shape[0]}; at most {max_batch} are taken")
    count = math.prod(shape)
    if count > max_elements:
        raise LimitExceeded(f"{where}: {count} elements; at most {max_elements} are taken")
    size = _parameters(entry).get("binary_data_size")
    if size is None:
        return _from_json(where, entry.get("data"), shape, count, spec.dtype)
    if type(size) is not int or size != count * spec.dtype.itemsize:
        raise InvalidInput(
            f"{where}: binary_data_size: expected {count * spec.dtype.itemsize}, got {size!r}"
        )
    return _from_bytes(where, raw.take(size), shape, spec.dtype)


def _from_bytes(where: str, data: memoryview, shape: list[int], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        # Any other byte would be a bool that is neither true nor false.
        bits = np.frombuffer(data, np.uint8)
        if bits.max() > 1:
            raise InvalidInput(f"{where}: BOOL elements are the bytes 0 and 1")
        return bits.astype(dtype).reshape(shape)
    array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    return _finite(where, array)


def _finite(where: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInput(f"{where}: elements must be finite in {array.dtype}")
    return array


def _from_json(where: str, data, shape: list[int], count: int, dtype: np.dtype) -> np.ndarray:
    """An array from the numbers of a JSON list, flat or nested as the shape says."""
    flat = _flatten(where, data, shape)
    if len(flat) != count:
        raise InvalidInput(f"{where}: shape {shape} needs {count} elements, got {len(flat)}")
    by_kind: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = by_kind.get(dtype.kind, {int})
    strange = {type(v) for v in flat} - allowed
    if strange:
        names = ", ".join(sorted(t.__name__ for t in strange))
        raise InvalidInput(f"{where}: elements of {dtype} cannot be of type {names}")
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if min(flat) < bounds.min or max(flat) > bounds.max:
            raise InvalidInput(f"{where}: an element is out of the range of {dtype}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, np.float64 if dtype.kind == "f" else dtype).astype(dtype)
    except OverflowError as error:
        raise InvalidInput(f"{where}: an element is out of the range of {dtype}") from error
    return _finite(where, array.reshape(shape))


def _flatten(where: str, data, shape: list[int]) -> list:
    """Undo the nesting; a list without nesting is taken as it is."""
    if not shape and not isinstance(data, list):
        return [data]
    if not isinstance(data, list):
        raise InvalidRequest(f"{where}: data: expected a list")
    if not data or not isinstance(data[0], list):
        return data
    for size in shape[1:]:
        if not all(isinstance(row, list) and len(row) == size for row in data):
            raise InvalidInput(f"{where}: data is not nested as the shape {shape} says")
        data = [value for row in data for value in row]
    return data
