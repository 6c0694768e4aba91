"""Names the sources of a collection, so that equal file names of two folders do not become one document."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hyblink.app.application import App
from hyblink.app.core.ports.jobs import Record

_KIND = "source"
_FILES = "files:"
"""The beginning of the ids of sources that are files or folders."""


def source_prefix(app: App, collection: str, path: Path) -> str:
    """What stands before the ids of a folder's files in a collection: "" for its first source, else the folder's name.

    It is remembered for each folder. A file belongs to the folder that it is in. Folders of the same name are numbered.
    Raises UserError if the collection cannot be opened.
    """
    root = _root(path)
    if not app.catalog.has(collection):
        return ""
    records = app.catalog.records()
    ident = hashlib.sha256(f"{collection}\n{root}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    found = records.get(_KIND, ident)
    if found is not None:
        return str(found.body["name"])
    named = records.list(_KIND, collection=collection, limit=100_000)
    read = [name for name in app.catalog.engine(collection).store.sources() if name.startswith(_FILES)]
    mine = f"{_FILES}{root}"
    if (not named and not read) or any(name == mine or name.startswith(f"{mine}/") for name in read):
        name = ""  # the first one, or one of before sources had names
    else:
        taken = {str(one.body["name"]) for one in named}
        base = free = root.name.replace("/", "") or "root"
        number = 2
        while free in taken:
            free, number = f"{base}-{number}", number + 1
        name = free
    records.add([Record(_KIND, ident, {"name": name, "root": str(root)}, collection=collection)])
    return name


def source_name(path: Path, prefix: str) -> str:
    """The name of a folder as a source: its prefix, or for a collection's first source the folder's own name."""
    root = _root(path)
    return prefix or root.name or "root"


def roots_of(app: App, collection: str, name: str) -> list[Path]:
    """The folders that a source of a collection was read from, by the name that its documents say."""
    found: dict[Path, str] = {}
    for one in app.catalog.records().list(_KIND, collection=collection, limit=100_000):
        root = Path(str(one.body["root"]))
        found[root] = source_name(root, str(one.body["name"]))
    for read in app.catalog.engine(collection).store.sources():
        if read.startswith(_FILES):
            root = _root(Path(read.removeprefix(_FILES)))
            found.setdefault(root, source_name(root, ""))
    return [root for root, own in found.items() if own == name]


def _root(path: Path) -> Path:
    """The folder that a path is, or is in."""
    return path.resolve() if path.is_dir() else path.resolve().parent
