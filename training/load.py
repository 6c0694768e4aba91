"""A run's data: rows of all sources with their fingerprints, and the passages that statistics are taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.data.rows import Text, TrainingRow, fingerprint, read_corpus, read_rows


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows of all sources, their fingerprints by name, and the passages of each: for statistics."""

    rows: tuple[TrainingRow, ...]
    fingerprints: dict[str, str]
    texts: dict[str, list[str]]
    passages: tuple[Text, ...] = ()
    """Those of whole corpora."""


def load(paths: Sequence[Path], split: str, read: Callable[[Path, str], Sequence[TrainingRow]] = read_rows) -> Loaded:
    """Read and check everything. A source's statistics come from its whole corpus where the path is a BEIR folder.

    Raises NotFoundError, and InvalidInputError naming file and line.
    """
    rows: list[TrainingRow] = []
    fingerprints, texts = {}, {}
    corpora: list[Text] = []
    for path in paths:
        name = path.name
        if name in fingerprints:
            raise InvalidInputError("two sources of one name", received=name, expected="each name once")
        own: list[TrainingRow] = [replace(row, collection=name) for row in read(path, split)]
        fingerprints[name] = fingerprint(own)
        passages: dict[str, Text] = {}
        if path.is_dir():
            passages = read_corpus(path)
            corpora += passages.values()
        else:
            for row in own:
                for one in (*row.positives, *row.negatives):
                    passages.setdefault(one.joined, one)
        texts[name] = [one.joined for one in passages.values()]
        rows += own
    return Loaded(tuple(rows), fingerprints, texts, tuple(corpora))
