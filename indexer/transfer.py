"""Export and import: a folder with documents, passages, term weights and vectors; nothing has to be encoded again.

``documents.jsonl`` one document a line with its windows; ``terms.npz``-like arrays and ``vectors.npy`` hold weights
and vectors of all passages in the same order; ``manifest.json`` names encoders, counts and checksums.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.core.errors import ConflictError, CorruptionError, NotFoundError
from app.core.manifest import check_manifest, write_manifest
from app.core.ports import Engine, ExportedDocument
from app.core.types import CollectionSpec, DocId, Document, TermWeights
from indexer.generations import check_importable, copy_documents

FORMAT = 1
_DOCUMENTS, _OFFSETS, _IDS, _WEIGHTS, _VECTORS = (
    "documents.jsonl", "term_offsets.npy", "term_ids.i4", "term_weights.f4", "vectors.f2",
)  # fmt: skip


def export_collection(
    engine: Engine, spec: CollectionSpec, folder: Path, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Write one moment of a collection into a new folder; how many documents. It streams: memory stays flat."""
    if folder.exists():
        raise ConflictError("the folder exists already", received=str(folder), expected="a new folder")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    count, passages, lengths = 0, 0, [0]
    empty = np.zeros(engine.record.dense_dimension, dtype=np.float16)
    try:
        with (
            (beside / _DOCUMENTS).open("wb") as documents,
            (beside / _IDS).open("wb") as ids,
            (beside / _WEIGHTS).open("wb") as weights,
            (beside / _VECTORS).open("wb") as vectors,
        ):
            for one in engine.store.reader().export():
                row = {
                    **asdict(one.document),
                    "windows": one.windows,
                    "encoded": [vector is not None for vector in one.vectors],
                    "content_hash": one.content_hash,
                }
                documents.write(orjson.dumps(row) + b"\n")
                for bag, vector in zip(one.bags, one.vectors, strict=True):
                    ids.write(bag.ids.astype("<i4").tobytes())
                    weights.write(bag.weights.astype("<f4").tobytes())
                    lengths.append(len(bag))
                    vectors.write((empty if vector is None else vector).astype("<f2").tobytes())
                count += 1
                passages += len(one.windows)
                progress(1)
        np.save(beside / _OFFSETS, np.cumsum(lengths, dtype=np.int64), allow_pickle=False)
        write_manifest(
            beside,
            [_DOCUMENTS, _OFFSETS, _IDS, _WEIGHTS, _VECTORS],
            format=FORMAT,
            collection=asdict(spec),
            documents=count,
            passages=passages,
            dense_encoder=engine.record.dense_encoder,
            dense_dimension=engine.record.dense_dimension,
            vdr_encoder=engine.record.vdr_encoder,
        )
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def read_export(folder: Path) -> tuple[dict[str, Any], CollectionSpec]:
    """The checked manifest of an export and the collection it came from."""
    if not (folder / "manifest.json").is_file():
        raise NotFoundError("not an exported folder", received=str(folder), expected="a folder with a manifest.json")
    manifest = check_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise CorruptionError("unknown export format", received=manifest.get("format"), expected=str(FORMAT))
    try:
        return manifest, CollectionSpec(**manifest["collection"])
    except TypeError as error:
        raise CorruptionError("the export's collection has unknown fields") from error


def _read(folder: Path, manifest: dict[str, Any]) -> Iterator[ExportedDocument]:
    offsets = np.load(folder / _OFFSETS, allow_pickle=False)
    ids = _mapped(folder / _IDS, "<i4")
    weights = _mapped(folder / _WEIGHTS, "<f4")
    dimension = int(manifest["dense_dimension"])
    vectors = _mapped(folder / _VECTORS, "<f2").reshape(-1, dimension) if dimension else None
    at = 0
    with (folder / _DOCUMENTS).open("rb") as documents:
        for line in documents:
            row = orjson.loads(line)
            encoded = row.pop("encoded")
            windows = tuple((int(a), int(b)) for a, b in row.pop("windows"))
            content_hash = row.pop("content_hash")
            spans = [(int(offsets[at + n]), int(offsets[at + n + 1])) for n in range(len(windows))]
            bags = tuple(TermWeights(np.array(ids[a:b]), np.array(weights[a:b])) for a, b in spans)
            found = tuple(
                np.array(vectors[at + n], dtype=np.float32) if has and vectors is not None else None
                for n, has in enumerate(encoded)
            )
            at += len(windows)
            document = Document(DocId(row["id"]), row["text"], row["title"], row["lang"], row["metadata"])
            yield ExportedDocument(document, windows, bags, found, content_hash)


def _mapped(path: Path, kind: str) -> Any:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)


def import_collection(folder: Path, manifest: dict[str, Any], engine: Engine) -> int:
    """Write an export into an empty generation, vectors too where the encoder is the same; how many documents."""
    keep = check_importable(engine.record, manifest)
    count = copy_documents(_read(folder, manifest), engine, keep_vectors=keep)
    engine.snapshot()
    return count
