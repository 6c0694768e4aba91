"""Exports and imports a collection as a folder that includes term weights and vectors, so nothing is encoded again.

Files:

- `documents.jsonl`: one document per line, with the windows of its passages.
- `term_*` (bags of tokens), `vdr_*` (weights of the VDR encoder) and `vectors.f2` (float16): data of all passages, in
  the order of the documents.
- `manifest.json`: encoders, counts and checksums.

Format 1, which has no VDR weights, can be read too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hyblink.app.core.errors import ConflictError, CorruptionError, NotFoundError
from hyblink.app.core.manifest import check_manifest, write_manifest
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import ExportedDocument
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import DocId, Document, Section
from hyblink.indexer.generations.build import check_importable, copy_documents

FORMAT = 2
_DOCUMENTS, _VECTORS = "documents.jsonl", "vectors.f2"


def export_collection(
    engine: Engine, spec: CollectionSpec, folder: Path, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Write a consistent snapshot of a collection to a new folder; returns the number of documents.

    Streams, so memory use is constant. `progress` is called with 1 for each document. Raises ConflictError if the
    folder exists.
    """
    if folder.exists():
        raise ConflictError("the folder exists already", received=str(folder), expected="a new folder")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    count, passages = 0, 0
    empty = np.zeros(engine.record.dense_dimension, dtype=np.float16)
    try:
        with (
            (beside / _DOCUMENTS).open("wb") as documents,
            (beside / _VECTORS).open("wb") as vectors,
            _Terms.writing(beside, "term") as terms,
            _Terms.writing(beside, "vdr") as vdr,
        ):
            for item in engine.store.reader().export():
                row = {
                    **asdict(item.document),
                    "windows": item.windows,
                    "encoded": [vector is not None for vector in item.vectors],
                    "content_hash": item.content_hash,
                }
                documents.write(orjson.dumps(row) + b"\n")
                weights = item.weights or (None,) * len(item.bags)
                for bag, vector, own in zip(item.bags, item.vectors, weights, strict=True):
                    terms.add(bag)
                    vdr.add(own)
                    vectors.write((empty if vector is None else vector).astype("<f2").tobytes())
                count += 1
                passages += len(item.windows)
                progress(1)
        write_manifest(
            beside,
            [_DOCUMENTS, _VECTORS, *_Terms.files("term"), *_Terms.files("vdr")],
            format=FORMAT,
            collection=asdict(spec),
            documents=count,
            passages=passages,
            dense_encoder=engine.record.dense_encoder,
            dense_dimension=engine.record.dense_dimension,
            vdr_encoder=engine.record.vdr_encoder,
            vdr_model=engine.record.vdr_model,
        )
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def read_export(folder: Path) -> tuple[dict[str, Any], CollectionSpec]:
    """The manifest of an export, with checksums verified, and the settings of its collection.

    Raises NotFoundError if the folder is not an export, CorruptionError if it is damaged or of an unknown format.
    """
    if not (folder / "manifest.json").is_file():
        raise NotFoundError("not an exported folder", received=str(folder), expected="a folder with a manifest.json")
    manifest = check_manifest(folder)
    if manifest.get("format") not in {1, FORMAT}:
        raise CorruptionError("unknown export format", received=manifest.get("format"), expected=f"1 or {FORMAT}")
    try:
        return manifest, CollectionSpec(**manifest["collection"])
    except TypeError as error:
        raise CorruptionError("the export's collection has unknown fields") from error


class _Terms:
    """Files of the term weights of all passages, in CSR layout: offsets, token ids, weights."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self._offsets = folder / f"{name}_offsets.npy"
        self._lengths = [0]
        self._ids = stack.enter_context((folder / f"{name}_ids.i4").open("wb"))
        self._weights = stack.enter_context((folder / f"{name}_weights.f4").open("wb"))

    @staticmethod
    def files(name: str) -> list[str]:
        return [f"{name}_offsets.npy", f"{name}_ids.i4", f"{name}_weights.f4"]

    @classmethod
    @contextmanager
    def writing(cls, folder: Path, name: str) -> Iterator[_Terms]:
        with ExitStack() as stack:
            terms = cls(folder, name, stack)
            yield terms
            np.save(terms._offsets, np.cumsum(terms._lengths, dtype=np.int64), allow_pickle=False)

    def add(self, terms: TermWeights | None) -> None:
        """Append the weights of the next passage. None means no weights."""
        if terms is not None:
            self._ids.write(terms.ids.astype("<i4").tobytes())
            self._weights.write(terms.weights.astype("<f4").tobytes())
        self._lengths.append(0 if terms is None else len(terms))

    @classmethod
    def reading(cls, folder: Path, name: str) -> Callable[[int], TermWeights]:
        """A function that returns the weights of a passage, given its index in the export."""
        offsets_file, ids_file, weights_file = cls.files(name)
        offsets = np.load(folder / offsets_file, allow_pickle=False)
        ids, weights = _mapped(folder / ids_file, "<i4"), _mapped(folder / weights_file, "<f4")

        def read(at: int) -> TermWeights:
            start, end = int(offsets[at]), int(offsets[at + 1])
            return TermWeights(np.array(ids[start:end]), np.array(weights[start:end]))

        return read


def _read(folder: Path, manifest: dict[str, Any]) -> Iterator[ExportedDocument]:
    terms = _Terms.reading(folder, "term")
    vdr = _Terms.reading(folder, "vdr") if manifest.get("vdr_model") else None
    dimension = int(manifest["dense_dimension"])
    vectors = _mapped(folder / _VECTORS, "<f2").reshape(-1, dimension) if dimension else None
    at = 0
    with (folder / _DOCUMENTS).open("rb") as documents:
        for line in documents:
            row = orjson.loads(line)
            encoded = row.pop("encoded")
            windows = tuple((int(a), int(b)) for a, b in row.pop("windows"))
            content_hash = row.pop("content_hash")
            bags = tuple(terms(at + n) for n in range(len(windows)))
            found = tuple(
                np.array(vectors[at + n], dtype=np.float32) if has and vectors is not None else None
                for n, has in enumerate(encoded)
            )
            weights = tuple(vdr(at + n) if has and vdr is not None else None for n, has in enumerate(encoded))
            at += len(windows)
            sections = tuple(Section(one["start"], tuple(one["path"]), one["place"]) for one in row.get("sections", ()))
            document = Document(DocId(row["id"]), row["text"], row["title"], row["lang"], row["metadata"], sections)
            yield ExportedDocument(document, windows, bags, found, content_hash, weights)


def _mapped(path: Path, kind: str) -> Any:
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, dtype=kind)


def import_collection(folder: Path, manifest: dict[str, Any], engine: Engine) -> int:
    """Write an export into an empty generation; returns the number of documents.

    Vectors are kept if the encoders are the same. Raises InvalidInputError if the vocabulary differs.
    """
    keep = check_importable(engine.record, manifest)
    count = copy_documents(_read(folder, manifest), engine, keep_vectors=keep)
    engine.snapshot()
    return count
