"""Loads the data of a training run: rows of all sources, their fingerprints, and passages for corpus statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.data.rows import Text, TrainingRow, fingerprint, read_corpus, read_rows


@dataclass(frozen=True, slots=True)
class Loaded:
    """The loaded data: rows of all sources, the fingerprint of each source by name, and the passages of each source.

    `texts` (passages by source name) is used for corpus statistics such as idf.
    """

    rows: tuple[TrainingRow, ...]
    fingerprints: dict[str, str]
    texts: dict[str, list[str]]
    passages: tuple[Text, ...] = ()
    """The passages of the sources that are BEIR folders, with their whole corpora."""


def load(paths: Sequence[Path], split: str, read: Callable[[Path, str], Sequence[TrainingRow]] = read_rows) -> Loaded:
    """Read and check all sources. For a BEIR folder, the statistics come from its whole corpus, else from its rows.

    Raises NotFoundError for a missing path, InvalidInputError that names file and line for bad data.
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
                for item in (*row.positives, *row.negatives):
                    passages.setdefault(item.joined, item)
        texts[name] = [passage.joined for passage in passages.values()]
        rows += own
    return Loaded(tuple(rows), fingerprints, texts, tuple(corpora))
