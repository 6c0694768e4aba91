"""BEIR folders: their documents are the rows of corpus.jsonl."""

from __future__ import annotations

from pathlib import Path


def corpus(folder: Path) -> Path | None:
    """The folder's corpus; None where it has none."""
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    return None
