"""The models of a server, by name and version."""

from __future__ import annotations

import threading

from facula.serve.errors import UnknownModel
from facula.serve.model import Model


def _age(version: str) -> tuple[int, int, str]:
    """Sorts versions: numbers by value, and after every other text."""
    return (1, int(version), "") if version.isdecimal() else (0, 0, version)


class ModelRegistry:
    """Safe to change while requests run: a request keeps the model it has looked up."""

    def __init__(self):
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, Model]] = {}

    def add(self, model: Model) -> None:
        """Serve ``model``, in place of one of the same name and version."""
        with self._lock:
            self._models.setdefault(model.name, {})[model.version] = model

    def remove(self, name: str, version: str | None = None) -> None:
        """Serve it no longer: one version, or all of a name.

        Raises:
            UnknownModel: there is none.
        """
        with self._lock:
            versions = self._versions(name)
            for v in [version] if version is not None else list(versions):
                if versions.pop(v, None) is None:
                    raise UnknownModel(f"model {name!r} has no version {v!r}")
            if not versions:
                del self._models[name]

    def get(self, name: str, version: str | None = None) -> Model:
        """The model; of several versions, the newest.

        Raises:
            UnknownModel: no such name, or no such version of it.
        """
        with self._lock:
            versions = self._versions(name)
            model = versions.get(max(versions, key=_age) if version is None else version)
        if model is None:
            raise UnknownModel(f"model {name!r} has no version {version!r}")
        return model

    def versions(self, name: str) -> list[str]:
        """Oldest first.

        Raises:
            UnknownModel: no such name.
        """
        with self._lock:
            return sorted(self._versions(name), key=_age)

    def models(self) -> list[Model]:
        """Every version of every model."""
        with self._lock:
            return [m for versions in self._models.values() for m in versions.values()]

    def _versions(self, name: str) -> dict[str, Model]:
        versions = self._models.get(name)
        if versions is None:
            raise UnknownModel(f"no model {name!r}; hint: this server has {sorted(self._models)}")
        return versions
