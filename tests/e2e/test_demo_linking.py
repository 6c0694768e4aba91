"""The demo's judged mentions, linked to the real API of this Python with the real encoder.

Encoding the knowledge base takes minutes on two cores, so that part runs with the service tests.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.bootstrap import App, build
from app.cli.kb import load_entities
from app.core.linking import MentionContext
from app.core.settings import Settings
from app.core.types import Signal
from app.linking.disambiguation import SHIPPED
from indexer.readers.entities import python_entities
from training.linking.data import JudgedMention
from training.linking.evaluate import decided_rank, evaluate, fused_rank, leg_rank
from training.linking.examples import Example, example, retrieved

MENTIONS = Path(__file__).resolve().parents[1] / "demo_mentions" / "mentions.txt"
_MARKED = re.compile(r"\[\[(.+?)\|(.*?)\]\]")


def judged() -> list[JudgedMention]:
    """The judged mentions, each with the sentence around it."""
    rows = []
    for line in MENTIONS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        for found in _MARKED.finditer(line):
            left, right = (_MARKED.sub(r"\1", part) for part in (line[: found.start()], line[found.end() :]))
            entity = f"python:{found.group(2)}" if found.group(2) else ""
            rows.append(JudgedMention(str(len(rows)), MentionContext(left, found.group(1), right), entity))
    return rows


def test_the_mentions_are_judged_and_point_at_entities() -> None:
    rows = judged()
    known = {row["id"] for row in python_entities("python")}  # type: ignore[index]
    meant = [row.entity_id for row in rows if row.entity_id]
    assert len(rows) >= 150
    assert len(rows) - len(meant) >= 10  # NIL
    assert len(set(meant) - known) <= 0.02 * len(meant), set(meant) - known  # names differ between Pythons
    opened = {row.entity_id for row in rows if row.context.mention.endswith("open")}
    assert len(opened) >= 6  # one word, many meanings


def examples(app: App) -> list[Example]:
    reader = app.catalog.engine("python-api").snapshot().reader
    return [
        example(row, one, reader.doc_ids(one.candidates.keys), None)
        for row, one in retrieved(app.linker, "python-api", judged(), 64)
    ]


@pytest.mark.services
@pytest.mark.timeout(1500)
def test_linking_is_better_than_words_alone_and_vectors_help(tmp_path: Path) -> None:
    app = build(Settings(data_dir=tmp_path))
    try:
        report = load_entities(app, "python-api", python_entities("python"), wait=False, quiet=True)
        assert report["rejected"] == 0
        app.jobs.wait(900)
        found = examples(app)
        decided = evaluate("decided", found, decided_rank(SHIPPED.fast))
        fused = evaluate("fused", found, fused_rank)
        words = evaluate("bm25", found, leg_rank(Signal.BM25))
        print({one.system: {k: round(v, 3) for k, v in one.recall.items()} for one in (words, fused, decided)})
        assert fused.recall[64] >= 0.95
        assert decided.recall[1] >= words.recall[1] + 0.1
    finally:
        app.close()
