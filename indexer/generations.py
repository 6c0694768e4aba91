"""Generations: build beside, verify, publish, roll back. What answers queries changes in one atomic act."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from app.core.errors import ConflictError, CorruptionError, InvalidInputError
from app.core.ports import BagEncoder, Engine, ExportedDocument, FullEncoder, PreparedDocument, SourceProgress
from app.core.types import CollectionSpec, GenerationRecord, as_rows
from indexer.claims import Claims
from indexer.encode import encode_all
from indexer.prepare import prepare

_BATCH = 1000


class GenerationStore(Protocol):
    """What the life of generations needs of a catalog."""

    def spec(self, name: str) -> CollectionSpec: ...

    def current(self, name: str) -> str: ...

    def engine(self, name: str, generation: str | None = None) -> Engine: ...

    def add_generation(self, record: GenerationRecord) -> None: ...

    def finish_generation(self, record: GenerationRecord) -> None: ...

    def drop_unfinished(self, name: str) -> None: ...

    def copy_profile(self, name: str, source: str, target: str) -> None: ...

    def publish(self, name: str, generation: str) -> None: ...

    def discard(self, name: str, generation: str) -> None: ...

    def drop_old(self, name: str, keep: int) -> list[str]: ...


def copy_documents(source: Iterator[ExportedDocument], target: Engine, *, keep_vectors: bool) -> int:
    """Write exported documents into an engine, vectors too where they are of the same encoder; how many."""
    import numpy as np

    total = 0
    while batch := list(islice(source, _BATCH)):
        result = target.store.write([PreparedDocument(d.document, d.windows, d.bags, d.content_hash) for d in batch])
        total += len(batch)
        if not keep_vectors:
            continue
        # Rows are given out in the order of the documents and their passages.
        vectors = [vector for d in batch for vector in d.vectors]
        if len(vectors) != len(result.rows):
            raise ConflictError("the target holds some of these documents already", expected="an empty generation")
        present = [at for at, vector in enumerate(vectors) if vector is not None]
        if present:
            rows = as_rows([result.rows[at] for at in present])
            weights = [own for d in batch for own in d.weights if own is not None]
            target.store.put_vectors(rows, np.stack([v for v in vectors if v is not None]), weights)
    return total


def build(
    store: GenerationStore,
    record: GenerationRecord,
    *,
    bag: BagEncoder,
    encoder: FullEncoder | None,
    claims: Claims,
    keep: int,
    progress: Callable[[str, int], None] = lambda _stage, _count: None,
) -> GenerationRecord:
    """Build a generation beside the current one from its documents, verify it, publish it.

    Passages are cut and encoded anew where the collection's choices or encoders differ, copied where they do not.
    While it runs, writers to the collection are refused and readers go on with the old generation.
    """
    name = record.collection
    spec = store.spec(name)
    while True:
        current = store.engine(name)
        with current.store.writer():
            if store.current(name) != current.record.id:
                continue  # another generation was published while this build waited for its turn
            store.drop_unfinished(name)
            store.add_generation(record)
            try:
                _fill(store, record, current, spec, bag, encoder, claims, progress)
            except BaseException:
                store.discard(name, record.id)
                raise
            store.finish_generation(record)
            store.copy_profile(name, current.record.id, record.id)
            store.publish(name, record.id)
        store.drop_old(name, keep)
        return record


def _fill(
    store: GenerationStore,
    record: GenerationRecord,
    current: Engine,
    spec: CollectionSpec,
    bag: BagEncoder,
    encoder: FullEncoder | None,
    claims: Claims,
    progress: Callable[[str, int], None],
) -> None:
    """Copy or encode everything into the new generation. Raises CorruptionError where it then differs."""
    target = store.engine(record.collection, record.id)
    same_bag = current.record.vdr_encoder == record.vdr_encoder
    same_full = (current.record.dense_encoder, current.record.vdr_model) == (record.dense_encoder, record.vdr_model)
    exported = current.store.reader().export()
    if same_bag:
        copied = copy_documents(exported, target, keep_vectors=same_full)
    else:
        copied = 0
        while batch := list(islice(exported, _BATCH)):
            target.store.write(prepare([one.document for one in batch], spec, bag))
            copied += len(batch)
    for source, position in current.store.sources().items():
        target.store.write([], progress=SourceProgress(source, None, position))
    progress("copied", copied)
    if encoder is not None:
        progress("encoded", encode_all(target, encoder, claims))
    problems = verify(current, target)
    if problems:
        raise CorruptionError("the new generation does not match the old one: " + "; ".join(problems))


def verify(old: Engine, new: Engine) -> list[str]:
    """Why a generation must not be published, in words: counts, passages without vectors, indexes that differ."""
    before, after = old.store.reader().counts(), new.store.reader().counts()
    problems = []
    if before.documents != after.documents:
        problems.append(f"{after.documents} documents instead of {before.documents}")
    if new.record.dense_dimension and after.encoded != after.passages:
        problems.append(f"{after.passages - after.encoded} passages are not encoded")
    return problems + new.check()


def check_importable(record: GenerationRecord, manifest: dict[str, object]) -> bool:
    """Whether vectors and VDR weights of an export fit a generation. Raises InvalidInputError where its
    bags of tokens do not.
    """
    if manifest.get("vdr_encoder") != record.vdr_encoder:
        raise InvalidInputError(
            "the export's vocabulary is another one",
            received=manifest.get("vdr_encoder"),
            expected=record.vdr_encoder,
        )
    of_export = (manifest.get("dense_encoder"), manifest.get("vdr_model", ""))
    return of_export == (record.dense_encoder, record.vdr_model)
