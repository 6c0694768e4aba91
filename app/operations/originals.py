"""Finds the files that documents were read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyblink.app.application import App
from hyblink.app.core.types.documents import Document
from hyblink.app.operations.sources import roots_of
from hyblink.indexer.readers.encodings import SAMPLE_BYTES, encoding_of, is_binary
from hyblink.indexer.readers.formats import format_of

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Original:
    """The file that a document was read from: `path`, or None and `why` there is none to be shown.

    Browsers run nothing of `content_type`: it is a PDF, plain text or unknown bytes.
    """

    name: str
    path: Path | None = None
    content_type: str = _TEXT
    why: str = ""


def original_of(app: App, collection: str, document: Document) -> Original:
    """The file of a document. It is looked for in the folders that the collection was read from, and nowhere else."""
    file, source = document.metadata.get("file"), document.metadata.get("source")
    name = Path(str(file or document.id)).name or "document"
    if not isinstance(file, str) or not isinstance(source, str):
        return Original(name, why="the document was not read from a file")
    if any(part.startswith(".") for part in file.split("/")):
        return Original(name, why="hidden files are not shown")
    for root in roots_of(app, collection, source):
        try:
            path = (root / file).resolve()
            if path.is_relative_to(root.resolve()) and path.is_file() and (found := format_of(path)) is not None:
                return Original(name, path, _content_type(path, found))
        except (OSError, ValueError):
            continue
    return Original(name, why="the file is gone, on another machine or in an archive")


def _content_type(path: Path, kind: str) -> str:
    if kind == "pdf" and path.suffix.lower() == ".pdf":
        return "application/pdf"
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    if sample.startswith(b"\x1f\x8b") or is_binary(sample):
        return "application/octet-stream"
    return f"text/plain; charset={encoding_of(sample).name}"
