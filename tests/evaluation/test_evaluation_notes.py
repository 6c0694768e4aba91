"""What an evaluation says beside its figures, and what it refuses before the first search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.encoders import use_fake_encoder

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.settings import SearchSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.evaluation import evaluate

TEXTS = {"a": "apples and pears", "b": "boats on the sea", "c": "cats and dogs"}


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = build(Settings(data_dir=tmp_path / "data", search=SearchSettings(max_query_chars=100)))
    use_fake_encoder(app)
    ensure_collection(app, CollectionSpec("default"))
    app.documents.bulk("default", [{"id": name, "text": text} for name, text in TEXTS.items()], encode=False)
    return app


def judged(folder: Path, queries: dict[str, str], qrels: list[tuple[str, str]]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = (json.dumps({"_id": name, "text": text}) + "\n" for name, text in queries.items())
    (folder / "queries.jsonl").write_text("".join(rows))
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{query}\t{document}\t1\n" for query, document in qrels)
    )
    return folder


def test_a_half_encoded_collection_and_missing_documents_are_said(app: App, tmp_path: Path) -> None:
    folder = judged(tmp_path / "beir", {"1": "apples", "2": "whales"}, [("1", "a"), ("2", "whale")])
    notes = evaluate(app, folder, systems=("bm25",)).notes
    assert notes[0] == "1 of 2 relevant documents are not in the collection (whale)"
    assert notes[1].startswith("3 of 3 passages are not encoded yet")
    encode_now(app, "default")
    assert evaluate(app, folder, systems=("bm25",)).notes == notes[:1]


def test_what_cannot_be_measured_is_refused_before_the_first_search(app: App, tmp_path: Path) -> None:
    others = judged(tmp_path / "others", {"1": "apples"}, [("1", "doc-1")])
    with pytest.raises(InvalidInputError, match="none of the judged documents; received 'ids such as doc-1'"):
        evaluate(app, others, systems=("bm25",))
    long = judged(tmp_path / "long", {"1": "apples", "q7": "word " * 50}, [("1", "a"), ("q7", "b")])
    with pytest.raises(InvalidInputError, match="query 'q7' cannot be asked: the query is too long"):
        evaluate(app, long, systems=("bm25",))


def test_the_baseline_is_the_system_that_is_named(app: App, tmp_path: Path) -> None:
    folder = judged(tmp_path / "beir", {"1": "apples", "2": "boats"}, [("1", "a"), ("2", "b")])
    encode_now(app, "default")
    found = evaluate(app, folder, systems=("bm25", "dense", "hybrid"), baseline="dense")
    assert {(c.system, c.baseline) for c in found.comparisons} == {("bm25", "dense"), ("hybrid", "dense")}
    with pytest.raises(InvalidInputError, match="unknown baseline; received 'magic'; expected one of bm25"):
        evaluate(app, folder, systems=("bm25",), baseline="magic")


def test_what_re_ranking_could_not_do_is_said(app: App, tmp_path: Path) -> None:
    folder = judged(tmp_path / "beir", {"1": "apples"}, [("1", "a")])
    encode_now(app, "default")

    class Slow:
        id = "slow"

        def load(self) -> None: ...

        def score(self, query, passages, deadline, idf=None):  # type: ignore[no-untyped-def]
            import numpy as np

            return np.array([1.0] + [np.nan] * (len(passages) - 1), dtype=np.float32)

    app.encoders.cross = Slow  # type: ignore[method-assign,assignment]
    notes = evaluate(app, folder, systems=("bm25+dense+cross",)).notes
    assert notes == ("bm25+dense+cross: 2 of 3 documents were not re-ranked for lack of time; --rerank-ms gives more",)
