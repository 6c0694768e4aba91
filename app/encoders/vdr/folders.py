"""Whole VDR models as folders: where the transformer and the head of each task lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import EncoderUnavailableError

VDR_HEAD_MODULE = "hyblink.app.encoders.vdr.head.VdrHead"

_EARLIER = "app.encoders.vdr.VdrHead"
"""Its name in folders that were saved before the code had one name."""


def is_whole_model(folder: Path) -> bool:
    """Whether it holds a model of modules, not a head. Raises EncoderUnavailableError for one of another kind."""
    return (folder / "modules.json").is_file() and bool(module_folders(folder))


def module_folders(folder: Path) -> dict[str, tuple[str, str]]:
    """Where the transformer and the head of each task lie, `query` and `document`: the same where towers are shared.

    Separate towers are the routes of a sentence-transformers `Router`. Raises EncoderUnavailableError for other models.
    """
    listed = _json(folder / "modules.json", [])
    types = [str(one.get("type", "")) for one in listed]
    paths = [str(one.get("path", "")) for one in listed]
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
