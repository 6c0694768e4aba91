"""Recognises BEIR folders. Their documents are the rows of `corpus.jsonl` or `corpus.jsonl.gz`."""

from __future__ import annotations

from pathlib import Path


def corpus(folder: Path) -> Path | None:
    """The path of the folder's corpus file, or None if the folder has none."""
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    return None
