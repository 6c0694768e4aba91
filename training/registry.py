"""Models on disk: a folder each, with a manifest that says where it comes from.

Promotion records which model is meant; it switches no vectors.
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
    """Where a model comes from: data by path and fingerprint, and the model that it continues."""

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
    """Write a model of a kind beside `folder`, its manifest last, and rename it: what is interrupted leaves nothing.

    Raises ConflictError where the folder exists.
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
    """The models under `root`, and which of each kind is promoted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, name: str) -> Path:
        """A model's folder. Raises InvalidInputError for a name that is none."""
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                "bad model name",
                received=name,
                expected="1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
            )
        return self._root / name

    def names(self) -> list[str]:
        """Every whole model."""
        return sorted(
            path.parent.name for path in self._root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")
        )

    def show(self, name: str, *, checksums: bool = True) -> dict[str, Any]:
        """A model's checked manifest. Raises NotFoundError, or CorruptionError naming the file that differs."""
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

    def compare(self, one: str, other: str) -> dict[str, Any]:
        """What differs between two models: options, data, metrics."""
        left, right = self.show(one), self.show(other)
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
        """By kind, the models that were promoted, the present one last."""
        path = self._root / _PROMOTED
        return {kind: list(names) for kind, names in read_json(path).items()} if path.exists() else {}

    def promote(self, name: str) -> str:
        """Record a model as the one of its kind; its kind."""
        kind = str(self.show(name)["kind"])
        promoted = self.promoted()
        names = promoted.get(kind, [])
        promoted[kind] = names if names[-1:] == [name] else [*names, name]
        write_json(self._root / _PROMOTED, promoted)
        return kind

    def rollback(self, kind: str) -> str:
        """Go back to the model promoted before the present one; its name. Raises ConflictError where there is none."""
        promoted = self.promoted()
        names = promoted.get(kind, [])
        if len(names) < 2:
            raise ConflictError("there is no earlier model to go back to", received=kind)
        promoted[kind] = names[:-1]
        self.show(names[-2])
        write_json(self._root / _PROMOTED, promoted)
        return names[-2]
