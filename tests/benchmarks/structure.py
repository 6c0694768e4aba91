"""Whether the headings over a passage help to find it: known-item questions from the headings of documentation.

`BENCH_DOCS` names a folder of documentation. A question is the heading of a section. The heading itself is taken out
of the section's text and path, so that only what stands above it and in it can help. A section counts as found where
the best passage of a hit lies in it.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types import documents as documents_types
from hyblink.app.core.types.documents import Document, Section
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.embedded.store import reader
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.ingestion import NewCollection
from hyblink.indexer.encode import encode_all
from hyblink.indexer.ingest import prepare
from hyblink.indexer.readers.files import FileSource
from tests.benchmarks.timing import table

QUESTIONS, SEED, LEAST = 300, 7, 200
_WORDS = re.compile(r"\w+")
Asked = tuple[Any, str, int, int]
"""The question (or the heading above and the heading), the document, start and end of the section."""


def hidden(documents: list[Document]) -> tuple[list[Document], list[Asked]]:
    """The documents without the headings that become questions, and the questions."""
    headings = Counter(section.path[-1].lower() for one in documents for section in one.sections if section.path)
    found: list[tuple[int, int]] = []
    for number, one in enumerate(documents):
        for at, section in enumerate(one.sections):
            end = one.sections[at + 1].start if at + 1 < len(one.sections) else len(one.text)
            following = one.sections[at + 1].path if at + 1 < len(one.sections) else ()
            if (
                len(section.path) > 1
                and following[: len(section.path)] != section.path  # no section below it
                and headings[section.path[-1].lower()] == 1
                and len(_WORDS.findall(section.path[-1])) > 1
                and one.text.startswith(section.path[-1], section.start)
                and end - section.start > LEAST + len(section.path[-1])
            ):
                found.append((number, at))
    chosen = set(random.Random(SEED).sample(found, min(QUESTIONS, len(found))))
    asked: list[Asked] = []
    made = []
    for number, one in enumerate(documents):
        parts, sections, length = [], [], 0
        for at, section in enumerate(one.sections or (Section(0),)):
            end = one.sections[at + 1].start if at + 1 < len(one.sections) else len(one.text)
            text, path = one.text[section.start : end], section.path
            if (number, at) in chosen:
                text, path = text[len(path[-1]) :].lstrip(), path[:-1]
                asked.append(((section.path[-2], section.path[-1]), one.id, length, length + len(text)))
            parts.append(text)
            sections.append(Section(length, path, section.place))
            length += len(text)
        made.append(replace(one, text="".join(parts), sections=tuple(sections) if one.sections else ()))
    return made, asked


def found_at(app: App, name: str, asked: list[Asked], signals: tuple[Signal, ...] | None) -> np.ndarray:
    """1/rank of each section among the first ten documents, 0 if it is not there."""
    got = []
    for question, document, start, end in asked:
        chosen = {"signals": signals} if signals else {}
        result = app.search.search(name, SearchRequest(question, k=10, highlight=False, **chosen))
        rank = next(
            (hit.rank for hit in result.hits
             if hit.doc_id == document and hit.passages[0].start < end and hit.passages[0].end > start), 0,
        )  # fmt: skip
        got.append(1 / rank if rank else 0.0)
    return np.array(got)


def _title_only(title: str, _path: Sequence[str]) -> str:
    return title


def run(_data: Path | None, work: Path, _passages: int) -> None:
    folder = os.environ.get("BENCH_DOCS")
    if not folder:
        print("skipped: BENCH_DOCS does not name a folder of documentation")
        return
    documents = [item.document for item in FileSource(Path(folder)).items() if item.document is not None]
    made, asked = hidden(documents)
    kinds = {
        "heading": [(own, *rest) for (_, own), *rest in asked],
        "heading above and heading": [(f"{above} {own}", *rest) for (above, own), *rest in asked],
    }
    app = build(Settings(data_dir=work / "structure"))
    rows, base = [], {}
    for name, lexical, dense in (
        ("no sections", False, False),
        ("cut at sections", False, False),
        ("path in words", True, False),
        ("path in vectors", False, True),
        ("path in both", True, True),
    ):
        with ExitStack() as patches:
            for module in [] if lexical else [prepare, reader]:
                patches.enter_context(mock.patch.object(module, "heading_of", _title_only))
            if not dense:
                patches.enter_context(mock.patch.object(documents_types, "heading_of", _title_only))
            own = [replace(one, sections=()) for one in made] if name == "no sections" else made
            collection = name.replace(" ", "-")
            ensure_collection(app, NewCollection().spec(collection))
            for at in range(0, len(own), 200):
                app.documents.upsert(collection, own[at : at + 200], encode=False)
            engine = app.catalog.engine(collection)
            encode_all(engine, app.encoders.hybrid_encoder(engine.record), app.claims)
            passages = engine.store.reader().counts().passages
            for kind, questions in kinds.items():
                for label, signals in (("bm25", (Signal.BM25,)), ("dense", (Signal.DENSE,)), ("hybrid", None)):
                    ranks = found_at(app, collection, questions, signals)
                    if name != "no sections":
                        before = base.setdefault((kind, label), ranks)
                        gain = [f"{ranks.mean() - before.mean():+.4f}", _p(ranks, before)]
                    else:
                        gain = ["–", "–"]
                    rows.append([kind, label, name, passages, float(ranks.mean()), float((ranks > 0).mean()), *gain])
    table(
        ["question", "signals", "variant", "passages", "MRR@10", "found in ten", "gain", "p"],
        sorted(rows, key=lambda r: (r[0], r[1])),
    )
    print(f"{len(asked)} questions from {len(documents)} documents; gains are over 'cut at sections'")
    app.close()


def _p(ours: np.ndarray, theirs: np.ndarray) -> str:
    from scipy.stats import ttest_rel

    return "–" if np.array_equal(ours, theirs) else f"{float(ttest_rel(ours, theirs).pvalue):.2g}"
