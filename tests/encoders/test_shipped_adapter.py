"""The adapter that is shipped, on the real backbone: what installs is what searches."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hyblink.app.bootstrap import build
from hyblink.app.cli.main import cli
from hyblink.app.core.settings import EncodeSettings, LinkSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.linking import LinkRequest, MentionContext, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.cross_encoder.entity import DEFAULT as ENTITY_CROSS
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER_LORA, LATE_INTERACTION, WEIGHTS, adapter_manifest
from hyblink.app.encoders.mention.span_head import DEFAULT as ELQ
from hyblink.app.encoders.mention.span_head import SpanHead
from hyblink.app.encoders.mention.tower import DEFAULT as MENTION
from hyblink.app.encoders.reranker import DEFAULT as LATE
from hyblink.app.encoders.vdr.adapter import DEFAULT, VdrAdapter
from hyblink.app.evaluation.linking.converters import marked
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection, import_from
from hyblink.app.operations.encoding import encode_now

CROSS = WEIGHTS / "cross-minilm"
PROSE = Path(__file__).resolve().parents[1] / "prose_mentions" / "mentions.txt"
DOCUMENTS = [
    {"id": "swift", "title": "Swifts", "text": "Swifts sleep on the wing and land only to breed."},
    {"id": "swift-code", "title": "SWIFT codes", "text": "A SWIFT code names a bank in an international transfer."},
    {"id": "bread", "title": "Sourdough", "text": "Feed the starter twice a day and keep it warm."},
    {"id": "long", "title": "", "text": "Nothing of interest. " * 200 + "At the very end a quokka appears."},
]


@pytest.mark.parametrize(
    ("shipped", "measure"),
    [
        (DEFAULT, "nDCG@10"),
        (CROSS, "nDCG@10"),
        (LATE, "nDCG@10"),
        (MENTION, "R@64"),
        (ENTITY_CROSS, "R@1"),
        (ELQ, "F1"),
    ],
)
def test_every_adapter_is_small_and_has_a_card(shipped: Path, measure: str) -> None:
    files = [path for path in shipped.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    card = (shipped / "README.md").read_text()
    for said in ("Data", "Recipe", "Command", "Seed", measure, "bad at"):
        assert said in card, said


def test_the_vdr_adapter_is_checked() -> None:
    adapter = VdrAdapter(DEFAULT, passage_weights=256)
    assert adapter.manifest["recipe"] == "vdr_head"
    assert set(adapter.manifest["data"]) >= {"scifact.jsonl"}


def test_what_re_ranks_is_checked() -> None:
    late = adapter_manifest(LATE, LATE_INTERACTION, weights="model.safetensors")
    assert (late["recipe"], late["layers"]) == ("late_interaction", 3)
    assert not any(name.endswith("dev.jsonl") for name in late["data"])
    manifest = adapter_manifest(CROSS, CROSS_ENCODER_LORA)
    assert manifest["recipe"] == "cross_encoder"
    assert not any(name.endswith("dev.jsonl") for name in manifest["data"])
    assert "/" not in json.loads((CROSS / "adapter_config.json").read_text())["base_model_name_or_path"]


@pytest.mark.parametrize(("named", "model"), [("default", "late-minilm"), ("cross-minilm", "cross-minilm")])
def test_late_interaction_is_the_default_and_both_prefer_answers(named: str, model: str, tmp_path: Path) -> None:
    app = build(Settings(data_dir=tmp_path, encode=EncodeSettings(cross_encoder=named)))
    try:
        encoder = app.encoders.cross()
        assert encoder.id.startswith(f"cross:{model}:")
        encoder.load()
        asked = [
            ("Where do swifts sleep?", DOCUMENTS[0]["text"], DOCUMENTS[1]["text"]),
            ("Who wrote the letter?", "The letter was written by his sister Anna.",
             "The letter was sent by ship, and it took five weeks."),
        ]  # fmt: skip
        if model == "cross-minilm":  # only who reads both together follows "it"
            asked.append(("When was the bridge opened?", "It was opened to traffic in May 1937 after four years of work.",
                          "The bridge was painted red, and the paint has to be renewed all the time."))  # fmt: skip
        for question, right, wrong in asked:
            good, bad = encoder.score(question, [("", right), ("", wrong)], float("inf"))
            assert good > bad, question
            tokens = encoder.contributions(question, "", right)
            assert bool(tokens) == (model == "late-minilm")
            if tokens:
                assert sum(one.contribution for one in tokens) == pytest.approx(float(good), rel=0.01)
    finally:
        app.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shipped")


def test_it_is_the_embedded_default_and_one_pass_makes_the_same_dense_vector(folder: Path) -> None:
    app = build(Settings(data_dir=folder / "a", encode=EncodeSettings(precision="fp32")))  # bf16 depends on the padding
    try:
        ensure_collection(app, CollectionSpec("c", chunk_chars=0, chunk_overlap_chars=0))
        app.documents.bulk("c", DOCUMENTS, encode=False)
        encode_now(app, "c")
        record = app.catalog.engine("c").record
        assert record.vdr_model.startswith("vdr:vdr-minilm:")
        plain = DenseTransformer(app.settings.encode)
        for title, text in (("Swifts", DOCUMENTS[0]["text"]), ("", DOCUMENTS[3]["text"])):
            both = app.encoders.hybrid_encoder(record).encode_passages([title], [text])
            assert np.allclose(both.vectors_ND, plain.encode_passages([title], [text]), atol=1e-5)
        result = app.search.search("c", SearchRequest("where do swifts sleep", signals=(Signal.VDR,), explain=True))
        assert result.hits[0].doc_id == "swift"
        line = result.hits[0].passages[0].signals[0]
        assert line.tokens
        assert sum(token.contribution for token in line.tokens) == pytest.approx(line.raw, rel=1e-4)
        # What stands beyond the dense model's window is found by its own words.
        assert app.search.search("c", SearchRequest("quokka", signals=(Signal.VDR,))).hits[0].doc_id == "long"
        read_out = app.search.vocabulary("c", "where do swifts sleep", DOCUMENTS[0]["text"])
        assert {"swift", "##s", "sleep"} & {one.token for one in read_out.shared}
        assert app.catalog.engine("c").check() == []
    finally:
        app.close()


def test_a_collection_moves_with_its_weights(folder: Path, tmp_path: Path) -> None:
    from hyblink.indexer.transfer import export_collection

    source = build(Settings(data_dir=folder / "a"))
    target = build(Settings(data_dir=tmp_path / "b"))
    try:
        export_collection(source.catalog.engine("c"), source.catalog.spec("c"), tmp_path / "export")
        assert import_from(target, tmp_path / "export") == ("c", len(DOCUMENTS))
        record = target.catalog.engine("c").record
        assert record.dense_encoder == source.catalog.engine("c").record.dense_encoder, "in its own precision"
        assert target.catalog.engine("c").store.reader().counts().encoded
        for query in ("where do swifts sleep", "bank transfer"):
            request = SearchRequest(query, signals=(Signal.VDR,), vdr="full")
            ours, theirs = source.search.search("c", request), target.search.search("c", request)
            assert [(h.doc_id, h.score) for h in ours.hits] == [(h.doc_id, h.score) for h in theirs.hits]
            assert ours.hits
    finally:
        source.close()
        target.close()


def test_without_it_passages_have_bags_only(tmp_path: Path) -> None:
    app = build(Settings(data_dir=tmp_path, encode=EncodeSettings(vdr_model="none")))
    try:
        ensure_collection(app, CollectionSpec("c"))
        assert app.catalog.engine("c").record.vdr_model == ""
    finally:
        app.close()


SHELLS = [
    {"id": "cli", "title": "shell", "description": "A command interpreter that starts programs, such as bash."},
    {"id": "sea", "title": "shell", "description": "The hard outer cover of a snail or another sea animal."},
    {"id": "oil", "title": "shell", "description": "A company that drills for oil and sells petrol."},
]


def test_mentions_and_candidates_are_read_together_by_the_shipped_cross_encoder_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build(Settings(data_dir=tmp_path))
    try:
        ensure_collection(app, entity_spec("kb"))
        assert not app.entities.bulk("kb", SHELLS, encode=False).errors
        app.encoders.entity_cross().load()
        text = "Type the command into the shell and the program starts."
        start = text.index("shell")
        asked = {None: False, False: False, True: True}
        for rerank, read in asked.items():
            request = LinkRequest(
                (Text(text, ((start, start + 5),)),), threshold=0.0, shown=3, rerank=rerank, budget_ms=60_000
            )
            result = app.linker.link("kb", request)
            assert (result.cross is not None) is read
            best, *others = result.texts[0].links[0].candidates
            lines = [one for one in best.signals if one.signal is Signal.CROSS]
            assert bool(lines) is read
            if read:
                assert result.cross is not None
                assert result.cross.model.startswith("cross:entity-cross-minilm:")
                assert (result.cross.mentions, result.cross.skipped, result.cross.error) == (1, 0, "")
                assert best.entity_id == "cli"
                raw = {c.entity_id: s.raw for c in (best, *others) for s in c.signals if s.signal is Signal.CROSS}
                assert raw["cli"] == max(raw.values())
        # Mentions are read together, several at once, and none has a say in another's scores.
        cross = app.encoders.entity_cross()
        entities = [(one["title"], one["description"]) for one in SHELLS]
        asked_of = [entities, [], entities[:2], entities * 3, entities[1:], entities]
        contexts = [MentionContext("It is a " + "long " * 9 * at, "shell", f" of number {at}.") for at in range(6)]
        together = cross.score(contexts, asked_of, time.perf_counter() + 600)
        alone = [cross.score([m], [e], time.perf_counter() + 600)[0] for m, e in zip(contexts, asked_of, strict=True)]
        assert all(
            np.allclose(one, other, atol=0.08) for one, other in zip(together, alone, strict=True)
        )  # bf16's rounding
        assert [len(one) for one in together] == [3, 0, 2, 9, 2, 3]
        assert all(np.isnan(one).all() for one in cross.score(contexts, asked_of, 0.0))
    finally:
        app.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(tmp_path))
    (tmp_path / "text.txt").write_text(text)
    for flags, read in (([], False), (["--cross"], True)):
        made = CliRunner().invoke(cli, ["link", str(tmp_path / "text.txt"), "-k", "kb", "--json", *flags])
        assert made.exit_code == 0, made.output
        found = json.loads(made.stdout)["cross"]
        assert (found is not None and found["mentions"] > 0) is read


def test_mentions_are_encoded_by_the_shipped_tower(tmp_path: Path) -> None:
    """One name, two entities: the context decides, by vectors alone."""
    app = build(Settings(data_dir=tmp_path))
    try:
        ensure_collection(app, entity_spec("kb"))
        assert not app.entities.bulk("kb", SHELLS, encode=False).errors
        encode_now(app, "kb")
        for text, expected in (
            ("Type the command into the shell and the program starts.", "cli"),
            ("On the beach she found the shell of a snail.", "sea"),
        ):
            start = text.index("shell")
            request = LinkRequest((Text(text, ((start, start + 5),)),), signals=(Signal.DENSE,), threshold=0.0, shown=3)
            result = app.linker.link("kb", request)
            assert result.mention_encoder.startswith("mention:mention-minilm:")
            assert result.texts[0].links[0].entity_id == expected
    finally:
        app.close()


def test_mentions_are_found_and_encoded_by_the_shipped_span_head(tmp_path: Path) -> None:
    """No name of these entities is looked up: the head alone finds the mention and says what it means."""
    app = build(Settings(data_dir=tmp_path, link=LinkSettings(mention_encoder="elq")))
    try:
        ensure_collection(app, entity_spec("kb"))
        assert not app.entities.bulk("kb", SHELLS, encode=False).errors
        encode_now(app, "kb")
        text = "Type the command into the shell and the program starts."
        request = LinkRequest((Text(text),), detectors=("elq",), signals=(Signal.DENSE,), threshold=0.0, shown=3)
        result = app.linker.link("kb", request)
        assert result.mention_encoder.startswith("elq:elq-minilm:")
        found = {link.mention.text: link.entity_id for link in result.texts[0].links}
        assert found["shell"] == "cli"
        assert all(text[link.mention.start : link.mention.end] == link.mention.text for link in result.texts[0].links)
    finally:
        app.close()


def test_names_in_everyday_prose_are_found_by_the_shipped_span_head() -> None:
    """40 sentences that no head was trained on, with 89 names; five have none."""
    texts: dict[str, list[tuple[int, int]]] = {}
    for row in marked(PROSE):
        texts.setdefault(row.text.text, []).extend(row.text.mentions or ())
    for line in PROSE.read_text().splitlines():
        if "[[" not in line and not line.startswith("#"):
            texts[line] = []
    assert (len(texts), sum(map(len, texts.values()))) == (40, 89)
    head = SpanHead(ELQ, EncodeSettings(), threshold=LinkSettings().span_threshold)
    found = {
        text: {(one.start, one.end) for one in own} for text, own in zip(texts, head.detect(list(texts)), strict=True)
    }
    first = next(text for text in texts if text.startswith("Barack"))
    assert {first[a:b] for a, b in found[first]} >= {"Barack Obama", "Harvard Law School"}
    right = sum(len(found[text] & set(gold)) for text, gold in texts.items())
    assert right / sum(map(len, found.values())) > 0.85
    assert right / 89 > 0.85
