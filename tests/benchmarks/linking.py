"""Linking: mentions per second beside the bare model, one sentence, 189,461 names; quality on el-foldoc."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.settings import LinkSettings, Settings
from hyblink.app.core.types.linking import LinkRequest, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.encoders.cross_encoder.entity import DEFAULT as ENTITY_CROSS
from hyblink.app.encoders.cross_encoder.transformer import load_scorer
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.loading.models import plain_tokenizer
from hyblink.app.encoders.loading.prefixes import joined
from hyblink.app.encoders.mention.text import marked
from hyblink.app.encoders.mention.tower import DEFAULT, MentionTower
from hyblink.app.evaluation.linking.examples import example, retrieve_candidates, sample_indices
from hyblink.app.evaluation.linking.measures import CUTOFFS, decided_rank, evaluate, fused_rank, leg_rank
from hyblink.app.evaluation.linking.mentions import JudgedMention, read_mentions
from hyblink.app.linking.dictionary import AliasDictionary
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.ingestion import load_entities
from hyblink.training.linking.profile import fit_profile
from hyblink.training.run_config import SHIPPED_BACKBONE
from tests.benchmarks.timing import entities, latencies, resident_mb, table

_MENTIONS = 512
_READ = 64
_JUDGED = 800
_HIDDEN = (Signal.BM25, Signal.VDR, Signal.DENSE)


def run(data: Path, work: Path, passages: int) -> None:
    _names(data, work, passages or 189_461)
    app = build(Settings(data_dir=work / "linking", link=LinkSettings(rerank=False)))
    try:
        with gzip.open(data / "el-foldoc" / "entities.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        kept = ("id", "title", "world")
        made = ({**{key: row[key] for key in kept}, "description": row["text"]} for row in rows)
        load_entities(app, "foldoc-plain", iter(made))
        judged = read_mentions(data / "el-foldoc" / "dev.jsonl.gz")
        drawn = np.random.default_rng(0).permutation(len(judged))
        _speed(app, [judged[at] for at in drawn[:_MENTIONS]])
        _speed_cross(app, [judged[at] for at in drawn[:_READ]])
        _quality(app, [judged[at] for at in drawn[:_JUDGED]], [judged[at] for at in drawn[_JUDGED : 3 * _JUDGED]])
    finally:
        app.close()


def _names(data: Path, work: Path, count: int) -> None:
    app = build(Settings(data_dir=work / "linking-names"))
    try:
        if "names" not in app.catalog.names():
            rows = ({"id": r["id"], "title": r["title"], "description": r["text"]} for r in entities(data, count))
            ensure_collection(app, entity_spec("names", dense_encoder="none"))
            load_entities(app, "names", rows, wait=False)
        reader = app.catalog.engine("names").store.reader()
        before = resident_mb()
        started = time.perf_counter()
        dictionary = AliasDictionary()
        view = dictionary.at(reader)
        built = time.perf_counter() - started
        held = resident_mb() - before
        text = " ".join(r["text"] for r in entities(data, 2000))[:1_000_000]
        view.detect(text[:10_000])
        started = time.perf_counter()
        found = view.detect(text)
        took = time.perf_counter() - started
        app.entities.bulk("names", [{"id": "bench", "title": "An entity that is new"}], encode=False)
        changed = app.catalog.engine("names").store.reader()
        started = time.perf_counter()
        dictionary.at(changed)
        table(
            [f"dictionary of {reader.counts().documents:,} entities", ""],
            [
                ["built in s", built],
                ["anonymous memory more than before it, MB", held],
                [f"1 MB of text, {len(found):,} names found, s", took],
                ["anonymous memory more than before both, MB", resident_mb() - before],
                ["one entity more, ms", (time.perf_counter() - started) * 1e3],
            ],
        )
    finally:
        app.close()


def _speed(app: App, rows: list[JudgedMention]) -> None:
    texts = tuple(row.text for row in rows)

    def linked() -> None:
        app.linker.link("foldoc-plain", LinkRequest(texts, shown=1))

    linked()
    started = time.perf_counter()
    linked()
    ours = len(rows) / (time.perf_counter() - started)
    tower = app.encoders.mention(app.catalog.engine("foldoc-plain").record)
    lines = [[f"linked, {len(rows)} given mentions in one request", ours]]
    if isinstance(tower, MentionTower):
        contexts = [row.context for row in rows]
        started = time.perf_counter()
        tower.encode(contexts)
        lines.append(["the mention tower alone", len(rows) / (time.perf_counter() - started)])
        marked = tower.texts(contexts)
        plain = load_sentence_transformer(str(DEFAULT), "cpu")
        plain.encode(marked[:32], batch_size=32, show_progress_bar=False)
        started = time.perf_counter()
        plain.encode(marked, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        lines.append(
            ["the same model called plainly, on texts that are ready", len(rows) / (time.perf_counter() - started)]
        )
    table(["el-foldoc, without cross-encoder", "mentions/s"], lines)
    sentences = [f"{row.context.left[-60:]} {row.context.mention} {row.context.right[:60]}" for row in rows[:100]]
    p50, p95 = latencies(lambda one: app.linker.link("foldoc-plain", LinkRequest((Text(one),))), sentences)
    table(["one sentence, its mentions detected", "ms"], [["p50", p50], ["p95", p95]])
    once = LinkSettings(mention_encoder="elq", detectors=("elq",))
    reading_once = build(app.settings.model_copy(update={"link": once}))
    try:
        p50, p95 = latencies(lambda one: reading_once.linker.link("foldoc-plain", LinkRequest((Text(one),))), sentences)
    finally:
        reading_once.close()
    table(["one sentence, read once by the span head", "ms"], [["p50", p50], ["p95", p95]])


def _speed_cross(app: App, rows: list[JudgedMention]) -> None:
    """Beside the same model called plainly: sentence-transformers' own class in fp32, on pairs that are ready."""
    try:
        cross = app.encoders.entity_cross()
        cross.load()
    except EncoderUnavailableError as error:
        print(f"with cross-encoder: skipped, {error}\n")
        return
    texts = tuple(row.text for row in rows)
    request = LinkRequest(texts, shown=8, rerank=True, budget_ms=600_000.0)
    app.linker.link("foldoc-plain", LinkRequest(texts[:4], rerank=True, budget_ms=600_000.0))
    started = time.perf_counter()
    made = app.linker.link("foldoc-plain", request)
    ours = len(rows) / (time.perf_counter() - started)
    entities = [[(one.title, one.description) for one in text.links[0].candidates] for text in made.texts]
    pairs = sum(map(len, entities))
    contexts = [row.context for row in rows]
    started = time.perf_counter()
    cross.score(contexts, entities, float("inf"))
    alone = len(rows) / (time.perf_counter() - started)
    wanted = app.settings.link.cross_encoder
    model = str(ENTITY_CROSS) if wanted == "default" else wanted
    plain = load_scorer(model, "cpu", app.settings.encode.cross_encoder_tokens)
    asked = marked(plain_tokenizer(SHIPPED_BACKBONE), contexts, app.settings.link.mention_tokens)
    ready = [(query, joined(*one)) for query, own in zip(asked, entities, strict=True) for one in own]
    started = time.perf_counter()
    plain.predict(ready, batch_size=32, show_progress_bar=False)
    theirs = len(rows) / (time.perf_counter() - started)
    table(
        [f"el-foldoc, {len(rows)} mentions with the cross-encoder, {pairs} pairs", "mentions/s"],
        [
            ["linked, given mentions in one request", ours],
            ["the cross-encoder alone", alone],
            ["the same model called plainly, fp32", theirs],
        ],
    )


def _quality(app: App, rows: list[JudgedMention], others: list[JudgedMention]) -> None:
    reader = app.catalog.engine("foldoc-plain").snapshot().reader

    def examples(some: list[JudgedMention], missing: float = 0.0):  # type: ignore[no-untyped-def]
        own = [replace(row, id=row.id.partition(":")[0]) for row in some]
        return [
            example(row, one, reader.doc_ids(one.candidates.keys), None)
            for row, one in retrieve_candidates(
                app.linker,
                "foldoc-plain",
                own,
                64,
                lambda row: row.id,
                signals=_HIDDEN,
                missing=sample_indices(len(own), missing),
            )
        ]

    judged = examples(rows)
    fitted = examples(others, 0.33)
    profile = fit_profile(fitted, None, cross=False, missing=0.33, rate=0.05, mention_encoder="", seed=0)
    systems = {signal.value: leg_rank(signal) for signal in _HIDDEN}
    systems |= {"fused": fused_rank, "decided": decided_rank(profile.fast)}
    lines = []
    for name, order in systems.items():
        found = evaluate(name, judged, order)
        lines.append([name, *(found.recall[k] for k in CUTOFFS)])
    table([f"el-foldoc, {len(rows)} mentions, names' prior hidden", *(f"R@{k}" for k in CUTOFFS)], lines)
    table(["calibration on mentions held out", ""], [[name, value] for name, value in profile.figures.items()])
