"""The held table in torch and in ONNX Runtime, both float32: every system, re-ranking and linking, with paired tests.

A share of each dev set, in a collection of its own for each runtime.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import orjson

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.linking.mentions import read_mentions
from hyblink.app.evaluation.measures import SystemResult
from hyblink.app.evaluation.significance import compare
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.evaluation import evaluate
from hyblink.app.operations.ingestion import NewCollection, ingest_source, load_entities
from hyblink.app.operations.judged_mentions import Retrieval, evaluate_mentions
from hyblink.indexer.readers.files import FileSource
from hyblink.training.data.rows import read_corpus
from tests.benchmarks.quality import SETS
from tests.benchmarks.timing import table

_RUNTIMES: tuple[Literal["torch", "onnx"], ...] = ("torch", "onnx")
_SYSTEMS = ("vdr", "dense", "hybrid", "hybrid+cross")
_DOCUMENTS, _QUERIES, _ENTITIES, _MENTIONS = 600, 60, 1500, 250


def run(data: Path, work: Path, _passages: int) -> None:
    folders = [_retrieval(data / name, work / "runtimes" / name) for name in SETS]
    found = {runtime: _measured(work, runtime, folders) for runtime in _RUNTIMES}
    lines = []
    for at, folder in enumerate(folders):
        for before, after in zip(found["torch"][at], found["onnx"][at], strict=True):
            pair = compare(after, before)
            lines.append(
                [folder.name, before.name, before.mean["nDCG@10"], after.mean["nDCG@10"], f"{pair.p_randomisation:.2g}"]
            )
    table([f"nDCG@10, {_QUERIES} dev queries on {_DOCUMENTS} passages", "system", "torch", "ONNX Runtime", "p"], lines)
    linking = _linking_set(data / "el-foldoc", work / "runtimes" / "el-foldoc")
    linked = {runtime: _linked(work, runtime, linking) for runtime in _RUNTIMES}
    table(
        [f"el-foldoc, {_MENTIONS} dev mentions, {_ENTITIES} entities more", "torch", "ONNX Runtime"],
        [[name, value, linked["onnx"][name]] for name, value in linked["torch"].items()],
    )


def _app(work: Path, runtime: Literal["torch", "onnx"]) -> App:
    encode = EncodeSettings(runtime=runtime, precision="fp32", cross_encoder_precision="fp32")
    return build(Settings(data_dir=work / "runtimes" / runtime, encode=encode))


def _measured(work: Path, runtime: Literal["torch", "onnx"], folders: list[Path]) -> list[tuple[SystemResult, ...]]:
    app = _app(work, runtime)
    try:
        found = []
        for folder in folders:
            ingest_source(app, FileSource(folder), folder.name, NewCollection(whole=True))
            encode_now(app, folder.name)
            made = evaluate(app, folder, "dev", collection=folder.name, systems=_SYSTEMS, rerank_ms=10_000)
            found.append(made.results)
        return found
    finally:
        app.close()


def _linked(work: Path, runtime: Literal["torch", "onnx"], folder: Path) -> dict[str, float]:
    app = _app(work, runtime)
    try:
        ensure_collection(app, entity_spec("foldoc"))
        load_entities(app, "foldoc", iter(_lines(folder / "entities.jsonl")))
        encode_now(app, "foldoc")
        made = evaluate_mentions(app, "foldoc", folder / "dev.jsonl", Retrieval(cross=True, own_document=True))
        return {
            f"{row.system}, {name}": value
            for row in made.systems
            for name, value in (("R@1", row.recall[1]), ("R@64", row.recall[64]))
        }
    finally:
        app.close()


def _retrieval(source: Path, target: Path) -> Path:
    """A BEIR folder with a share of the queries, their judged passages and some others."""
    queries, qrels = read_beir(source, "dev")
    asked = sorted(queries)
    random.Random(0).shuffle(asked)
    asked = asked[:_QUERIES]
    corpus = read_corpus(source)
    kept = {document for query in asked for document in qrels[query]}
    others = [name for name in corpus if name not in kept]
    random.Random(0).shuffle(others)
    kept |= set(others[: max(0, _DOCUMENTS - len(kept))])
    (target / "qrels").mkdir(parents=True, exist_ok=True)
    _write(
        target / "corpus.jsonl",
        [{"_id": name, "title": text.title, "text": text.text} for name, text in corpus.items() if name in kept],
    )
    _write(target / "queries.jsonl", [{"_id": query, "text": queries[query]} for query in asked])
    judged = [f"{query}\t{name}\t{grade}" for query in asked for name, grade in qrels[query].items()]
    (target / "qrels" / "dev.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return target


def _linking_set(source: Path, target: Path) -> Path:
    """A linking folder with a share of the mentions, their entities and some others."""
    mentions = list(_lines(source / "dev.jsonl.gz"))
    random.Random(0).shuffle(mentions)
    mentions = mentions[:_MENTIONS]
    wanted = {str(row["label_id"]) for row in mentions}
    rows = list(_lines(source / "entities.jsonl.gz"))
    others = [row for row in rows if str(row["id"]) not in wanted]
    random.Random(0).shuffle(others)
    target.mkdir(parents=True, exist_ok=True)
    _write(target / "dev.jsonl", mentions)
    _write(
        target / "entities.jsonl",
        [
            {"id": row["id"], "title": row["title"], "description": row["text"]}
            for row in [*(row for row in rows if str(row["id"]) in wanted), *others[:_ENTITIES]]
        ],
    )
    assert len(read_mentions(target / "dev.jsonl")) == len(mentions)
    return target


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from map(orjson.loads, file)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
