"""The demo's judged mentions, linked to the real API of this Python with the real encoder.

Encoding the knowledge base takes minutes on two cores, so that part runs with the service tests: there on the entities
that are meant and a third of the others, in `make soak` on all.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import pytest
from support.services import SOAK

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.cli.demo import KB, SENTENCE, link_profile
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.linking import LinkRequest, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.encoders.mention.tower import DEFAULT, MentionTower
from hyblink.app.evaluation.linking.converters import marked
from hyblink.app.evaluation.linking.examples import Example, example, marked_or_ordinary, retrieve_candidates
from hyblink.app.evaluation.linking.measures import decided_rank, evaluate, fused_rank, leg_rank
from hyblink.app.evaluation.linking.mentions import REST, JudgedMention, with_unmarked
from hyblink.app.operations.ingestion import load_entities
from hyblink.indexer.readers.entities.files import python_entities
from hyblink.training.linking.profile import fit_profile

OPENED = {
    'You can open a text file for writing by passing mode "w" to the built-in function.': "python:open",
    "To read a compressed log, use gzip: its open gives a file object that decompresses as it reads.": "python:gzip.open",
    "With webbrowser you can open the report in the user's browser, in a new tab if possible.": "python:webbrowser.open",
    "The tarfile module can open archives that are compressed with bzip2 or xz.": "python:tarfile.TarFile.open",
}
"""One word, four meanings. These sentences are among those that the demo's profile was fitted on."""
MENTIONS = Path(__file__).resolve().parents[1] / "demo_mentions" / "mentions.txt"


def judged() -> list[JudgedMention]:
    """The judged mentions, each with the sentence around it."""
    return list(marked(MENTIONS))


def test_the_mentions_are_judged_and_point_at_entities() -> None:
    rows = judged()
    known = {row["id"] for row in python_entities("python")}  # type: ignore[index]
    meant = [row.entity_id for row in rows if row.entity_id]
    assert len(rows) >= 150
    assert len(rows) - len(meant) >= 10  # NIL
    assert len(set(meant) - known) <= 0.02 * len(meant), set(meant) - known  # names differ between Pythons
    opened = {row.entity_id for row in rows if row.context.mention.endswith("open")}
    assert len(opened) >= 6  # one word, many meanings


def examples(app: App, rows: list[JudgedMention]) -> list[Example]:
    reader = app.catalog.engine(KB).snapshot().reader
    return [
        example(row, one, reader.doc_ids(one.candidates.keys), None)
        for row, one in retrieve_candidates(app.linker, KB, rows, 64)
    ]


def is_kept(name: str, wanted: set[str | None]) -> bool:
    """Whether a document or entity is among those that are looked at here."""
    return SOAK or name in wanted or crc32(name.encode()) % 3 == 0


@pytest.mark.services
@pytest.mark.timeout(2100)
def test_linking_is_better_than_words_alone_and_vectors_help(tmp_path: Path) -> None:
    app = build(Settings(data_dir=tmp_path))
    try:
        wanted = {row.entity_id for row in judged()} | set(OPENED.values()) | {"python:json.dump", "python:json"}
        entities = (row for row in python_entities("python") if is_kept(str(row["id"]), wanted))  # type: ignore[index]
        report = load_entities(app, KB, entities, wait=False)
        assert report.rejected == 0
        assert app.jobs.wait(1500)
        app.catalog.save_link_profile(KB, link_profile())
        everything = examples(app, with_unmarked(judged(), app.linker.detector(KB)))
        found = [one for one in everything if not one.row.id.endswith(REST)]
        # The profile was fitted on these mentions: that it decides them well shows only that it fits this machine.
        decided = evaluate("decided", found, decided_rank(link_profile().fast))
        fused = evaluate("fused", found, fused_rank)
        words = evaluate("bm25", found, leg_rank(Signal.BM25))
        print({one.system: {k: round(v, 3) for k, v in one.recall.items()} for one in (words, fused, decided)})
        assert fused.recall[64] >= 0.95
        assert decided.recall[1] >= words.recall[1] + 0.2
        usable = [one for one in everything if marked_or_ordinary(one)]
        held = fit_profile(usable, None, cross=False, missing=0.0, rate=0.08, mention_encoder="", folds=10).figures
        print(dict(held))
        assert held["fast.recall"] >= 0.8
        assert held["fast.ece"] <= 0.08

        def links(text: str) -> dict[str, str | None]:
            result = app.linker.link(KB, LinkRequest((Text(text),), rerank=False))
            assert result.calibrated
            return {one.mention.text: one.entity_id for one in result.texts[0].links}

        assert links(SENTENCE)["dump"] == "python:json.dump"
        assert links(SENTENCE)["json"] == "python:json"
        assert {text: links(text)["open"] for text in OPENED} == OPENED
    finally:
        app.close()


def test_the_demos_profile_is_of_the_shipped_mention_encoder() -> None:
    assert link_profile().mention_encoder == MentionTower(DEFAULT, EncodeSettings()).id
