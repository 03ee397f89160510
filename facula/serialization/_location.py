"""References to storages in a file: what they must look like, and where storages may go."""

from __future__ import annotations

from facula.base.device import device
from facula.base.errors import ArgumentError, ArgumentTypeError, fail
from facula.serialization._globals import StorageClass
from facula.serialization.errors import ArchiveError, UnpicklingError


def placement(map_location):
    """A function ``(storage, location)`` that raises if the storage would not end up here."""
    if isinstance(map_location, (str, device)):
        map_location = device(map_location)
        if map_location.type != "cpu":
            fail(ArgumentError, "load", f"no storage can be put on {map_location}", "use 'cpu'")
        return lambda storage, location: None
    if map_location is None:
        names = {}
    elif isinstance(map_location, dict):
        names = {str(key): str(value) for key, value in map_location.items()}
    elif callable(map_location):

        def ask(storage, location):
            if map_location(storage, location) is None:
                _check_location(location)

        return ask
    else:
        kind = type(map_location).__name__
        fail(ArgumentTypeError, "load", f"expected a device, dict or function, got {kind}")
    return lambda storage, location: _check_location(names.get(location, location))


def _check_location(location: str) -> None:
    if location.partition(":")[0] != "cpu":
        raise ArchiveError(
            f"load: a storage was saved on {location!r}, which is not here; "
            "hint: load(..., map_location='cpu')"
        )


def storage_id(pid) -> tuple:
    """The fields of a persistent id (class, key, location, numel), checked."""
    if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
        raise UnpicklingError("load: the pickle refers to something else than a storage")
    _, cls, key, location, numel = pid[:5]
    expected = (StorageClass, str, str, int)
    if any(type(value) is not kind for value, kind in zip(pid[1:5], expected)) or numel < 0:
        raise UnpicklingError("load: the pickle refers to a storage in a form that is not known")
    return cls, key, location, numel
