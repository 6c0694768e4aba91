"""The folder layout of whole VDR models: where the transformer and the head of each task are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import EncoderUnavailableError

VDR_HEAD_MODULE = "hyblink.app.encoders.vdr.head.VdrHead"

_EARLIER = "app.encoders.vdr.VdrHead"
"""The name of the head's class in model folders of earlier releases."""


def is_whole_model(folder: Path) -> bool:
    """Whether the folder holds a whole VDR model, not only a head.

    Raises EncoderUnavailableError if it holds a sentence-transformers model of another kind.
    """
    return (folder / "modules.json").is_file() and bool(module_folders(folder))


def module_folders(folder: Path) -> dict[str, tuple[str, str]]:
    """Task (`query`, `document`) → subfolders of its transformer and head. They are equal if the tasks share a tower.

    Separate towers are the routes of a sentence-transformers `Router`. Raises EncoderUnavailableError for models that
    are not VDR models.
    """
    listed = _json(folder / "modules.json", [])
    types = [str(item.get("type", "")) for item in listed]
    paths = [str(item.get("path", "")) for item in listed]
    routes = {"query": paths, "document": paths}
    kinds = {"query": types, "document": types}
    if len(types) == 1 and types[0].startswith("sentence_transformers.") and types[0].endswith(".Router"):
        told = _json(folder / paths[0] / "router_config.json", {})
        named, structure = told.get("types") or {}, told.get("structure") or {}
        routes = {task: [str(Path(paths[0], name)) for name in names] for task, names in structure.items()}
        kinds = {task: [str(named.get(name)) for name in names] for task, names in structure.items()}
    ours = all(
        len(own) == 2 and own[0].startswith("sentence_transformers.") and own[1] in {VDR_HEAD_MODULE, _EARLIER}
        for own in kinds.values()
    )
    if routes.keys() != {"query", "document"} or not ours:
        raise EncoderUnavailableError(
            "not a VDR model",
            received=kinds,
            expected=f"a transformer, then {VDR_HEAD_MODULE}; or a Router of two such",
        )
    return {task: (own[0], own[1]) for task, own in routes.items()}


def _json(path: Path, default: Any) -> Any:
    return orjson.loads(path.read_bytes()) if path.is_file() else default
