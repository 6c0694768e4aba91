"""The registry of trained models on disk: one folder per model, with a manifest that records its origin.

Promotion only records which model of a kind is to be used. It does not re-encode anything.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError
from hyblink.app.core.manifest import MANIFEST, check_manifest, read_json, write_json, write_manifest
from hyblink.app.encoders.loading.adapters import FORMAT
from hyblink.training.run_config import RunConfig

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PROMOTED = "promoted.json"
_SAFE = {".safetensors", ".json", ".txt", ".model", ".md", ".png", ".jsonl"}


@dataclass(frozen=True, slots=True)
class Lineage:
    """The origin of a model: fingerprints of its data by name, and the model that it continues (empty for none)."""

    data: Mapping[str, str]
    parent: str = ""


def finish(
    folder: Path,
    name: str,
    config: RunConfig,
    kind: str,
    lineage: Lineage,
    metrics: Mapping[str, Any],
    write: Callable[[Path], Sequence[str]],
    **fields: Any,
) -> dict[str, Any]:
    """Write a model folder atomically and return its manifest. `write` writes the files and returns their names.

    Everything is written to a temporary folder, the manifest last, which is then renamed. An interrupted call leaves no
    folder. `fields` are added to the manifest. Raises ConflictError if the folder exists.
    """
    if folder.exists():
        raise ConflictError("the model exists already", received=str(folder), expected="a new folder")
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        files = list(write(beside))
        manifest = write_manifest(
            beside,
            files,
            format=FORMAT,
            kind=kind,
            name=name,
            base=config.base,
            recipe=config.recipe,
            config=asdict(config),
            data=dict(lineage.data),
            parent=lineage.parent,
            metrics=dict(metrics),
            created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            **fields,
        )
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


class ModelRegistry:
    """The models under `root`, and the promoted model of each kind."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, name: str) -> Path:
        """The folder of a model; it need not exist. Raises InvalidInputError for a bad name."""
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                "bad model name",
                received=name,
                expected="1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
            )
        return self._root / name

    def names(self) -> list[str]:
        """The names of all complete models, sorted."""
        return sorted(
            path.parent.name for path in self._root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")
        )

    def show(self, name: str, *, checksums: bool = True) -> dict[str, Any]:
        """The manifest of a model, with checksums verified.

        Raises NotFoundError for an unknown model, CorruptionError if a file differs or has an unsafe type.
        """
        folder = self.path(name)
        if not (folder / MANIFEST).is_file():
            raise NotFoundError(
                "no such model", received=name, expected=f"one of {', '.join(self.names()) or '(none)'}"
            )
        manifest = check_manifest(folder, checksums=checksums)
        unsafe = [file for file in manifest["files"] if Path(file).suffix not in _SAFE]
        if unsafe:
            raise CorruptionError(
                "the model holds files that are not loaded", received=unsafe, expected="safetensors and JSON"
            )
        return manifest

    def compare(self, item: str, other: str) -> dict[str, Any]:
        """The differences between two models, as [first, second] pairs: changed options, data and metrics."""
        left, right = self.show(item), self.show(other)
        keys = sorted(set(left["config"]) | set(right["config"]))
        return {
            "config": {
                key: [left["config"].get(key), right["config"].get(key)]
                for key in keys
                if left["config"].get(key) != right["config"].get(key)
            },
            "data": [left["data"], right["data"]],
            "metrics": {
                key: [left["metrics"].get(key), right["metrics"].get(key)]
                for key in sorted(set(left["metrics"]) | set(right["metrics"]))
                if not isinstance(left["metrics"].get(key), list)
            },
        }

    def promoted(self) -> dict[str, list[str]]:
        """The names of the promoted models by kind, oldest first. The last one is current."""
        path = self._root / _PROMOTED
        return {kind: list(names) for kind, names in read_json(path).items()} if path.exists() else {}

    def promote(self, name: str) -> str:
        """Make a model the current one of its kind; returns the kind. Raises as `show`."""
        kind = str(self.show(name)["kind"])
        promoted = self.promoted()
        names = promoted.get(kind, [])
        promoted[kind] = names if names[-1:] == [name] else [*names, name]
        write_json(self._root / _PROMOTED, promoted)
        return kind

    def rollback(self, kind: str) -> str:
        """Go back to the previously promoted model of a kind; returns its name.

        Raises ConflictError if there is no earlier model.
        """
        promoted = self.promoted()
        names = promoted.get(kind, [])
        if len(names) < 2:
            raise ConflictError("there is no earlier model to go back to", received=kind)
        promoted[kind] = names[:-1]
        self.show(names[-2])
        write_json(self._root / _PROMOTED, promoted)
        return names[-2]
