"""Builds an index generation next to the serving one, verifies it and publishes it (blue-green reindexing).

Publishing switches queries to the new generation atomically. An earlier generation can be published again (rollback).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.errors import (
    ConflictError,
    CorruptionError,
    EncoderUnavailableError,
    InvalidInputError,
    WriterConflictError,
)
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.ports.encoders import BagEncoder, HybridEncoder
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.jobs import Jobs, Record, Records
from hyblink.app.core.ports.store import ExportedDocument, PreparedDocument, SourceProgress, StoreReader
from hyblink.app.core.types.arrays import TermWeights, VectorArray, as_rows
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.ranking import Scored
from hyblink.app.jobs.claims import Claims
from hyblink.app.jobs.single_flight import single_flight
from hyblink.indexer.encode import encode_all, other_vectors
from hyblink.indexer.ingest.prepare import prepare

_EQUAL = "equal"
"""The kind of record that says up to which change of another generation (`source`) a generation is complete."""
_BATCH = 1000
_LITTLE = 100
"""Catching up stops when a round copies fewer changes than this. The rest is copied while writers are blocked."""
_ROUNDS = 50
_HELP = 4096
_SAMPLES = 20
_TERMS = 64
_DEEP = 50


class GenerationStore(Collections, Protocol):
    """The part of the catalog that building and publishing need."""

    def add_generation(self, record: GenerationRecord) -> None: ...

    def finish_generation(self, record: GenerationRecord) -> None: ...

    def drop_unfinished(self, name: str) -> None: ...

    def copy_profile(self, name: str, source: str, target: str) -> None: ...

    def publish(self, name: str, generation: str) -> None: ...

    def discard(self, name: str, generation: str) -> None: ...

    def drop_old(self, name: str, keep: int) -> list[str]: ...


def copy_documents(
    source: Iterator[ExportedDocument],
    target: Engine,
    *,
    keep_vectors: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write exported documents into an engine; returns how many. With `keep_vectors` their vectors are copied too.

    Raises ConflictError if vectors are to be copied and the engine already has some of the documents.
    """
    total = 0
    while batch := list(islice(source, _BATCH)):
        result = target.store.write([PreparedDocument(d.document, d.windows, d.bags, d.content_hash) for d in batch])
        total += len(batch)
        progress(len(batch))
        if not keep_vectors:
            continue
        # The store assigns row ids in the order of the documents and their passages.
        vectors = [vector for d in batch for vector in d.vectors]
        if len(vectors) != len(result.rows):
            raise ConflictError("the target holds some of these documents already", expected="an empty generation")
        present = [at for at, vector in enumerate(vectors) if vector is not None]
        if present:
            rows = as_rows([result.rows[at] for at in present])
            weights = [own for d in batch for own in d.weights if own is not None]
            target.store.put_vectors(rows, np.stack([v for v in vectors if v is not None]), weights)
    return total


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The dependencies of building and publishing.

    `patience_s` is how long in seconds to wait for a writer that holds the lock. With `jobs`, workers help to encode.
    `progress` is called with a stage and a count.
    """

    store: GenerationStore
    records: Records
    claims: Claims
    jobs: Jobs | None = None
    patience_s: float = 3600.0
    progress: Callable[[str, int], None] = lambda _stage, _count: None


def build(
    context: BuildContext, record: GenerationRecord, *, bag: BagEncoder, encoder: HybridEncoder | None, keep: int
) -> GenerationRecord:
    """Build a generation from the documents of the current one, verify it and publish it.

    Passages are copied if the VDR vocabulary is the same, else cut again. Vectors are copied if the encoders are the
    same, else computed again. Searches and writes go on meanwhile. New writes are copied too, the last of them while
    writers are blocked for a moment. Afterwards only the newest `keep` published generations are kept.

    Raises ConflictError if another build of the collection runs or another generation is published meanwhile,
    CorruptionError if the new generation fails verification. It is then deleted.
    """
    with _alone(context, record.collection):
        work = _begun(context, record, bag, encoder)
        try:
            _switch(work, finish=True)
        except BaseException:
            context.store.discard(record.collection, record.id)
            raise
        context.store.drop_old(record.collection, keep)
        return record


def build_candidate(
    context: BuildContext, record: GenerationRecord, *, bag: BagEncoder, encoder: HybridEncoder | None
) -> GenerationRecord:
    """Like `build`, but without publishing. `publish` later copies the newest writes and makes it the serving one."""
    name = record.collection
    with _alone(context, name):
        work = _begun(context, record, bag, encoder)
        try:
            work.catch_up()
            context.store.finish_generation(record)
            context.store.copy_profile(name, work.source, record.id)
            work.remember()
        except BaseException:
            context.store.discard(name, record.id)
            raise
        return record


def publish(context: BuildContext, record: GenerationRecord, *, bag: BagEncoder, encoder: HybridEncoder | None) -> None:
    """Make a finished generation the serving one: a candidate, or an earlier generation (rollback).

    It first receives all writes that it lacks. Raises ConflictError if another generation is published meanwhile,
    CorruptionError if it does not match the current one. The current generation then keeps serving.
    """
    if context.store.current(record.collection) == record.id:
        return
    work = _Build(context, record, bag, encoder)
    work.recall()
    _switch(work, finish=False)


def _alone(context: BuildContext, name: str) -> AbstractContextManager[None]:
    return single_flight(context.records, f"build/{name}", "a generation of this collection is being built")


def _begun(context: BuildContext, record: GenerationRecord, bag: BagEncoder, encoder: HybridEncoder | None) -> _Build:
    """Create a generation, copy and encode all documents and check it. It is deleted on failure."""
    store = context.store
    store.drop_unfinished(record.collection)
    store.add_generation(record)
    try:
        work = _Build(context, record, bag, encoder)
        work.copy()
        work.encode()
        work.check()
    except BaseException:
        store.discard(record.collection, record.id)
        raise
    return work


def _switch(work: _Build, *, finish: bool) -> None:
    """Catch up and publish once the writer lock is free. Only one switch per collection runs at a time."""
    with single_flight(work.context.records, f"switch/{work.collection}", "a generation is being published"):
        _switch_alone(work, finish=finish)


def _switch_alone(work: _Build, *, finish: bool) -> None:
    deadline = time.monotonic() + work.context.patience_s
    while True:
        work.catch_up()
        try:
            with work.current.store.writer():
                work.finish()
                work.publish(finish=finish)
            return
        except WriterConflictError:
            if time.monotonic() > deadline:
                raise


class _Build:
    """The build of one generation from the current one (its source)."""

    def __init__(
        self, context: BuildContext, record: GenerationRecord, bag: BagEncoder, encoder: HybridEncoder | None
    ) -> None:
        store = context.store
        self.context = context
        self.current = store.engine(record.collection)
        self._store = store
        self._record = record
        self._spec = store.spec(record.collection)
        self._target = store.engine(record.collection, record.id)
        self._bag = bag
        self._encoder = encoder
        self._progress = context.progress
        self._since = 0
        of_source = self.current.record
        self._same_bag = of_source.vdr_encoder == record.vdr_encoder
        self._same_full = (of_source.dense_encoder, of_source.vdr_model) == (record.dense_encoder, record.vdr_model)
        if self._same_full and encoder is not None and _differ(self.current, encoder):
            self._same_full = False  # they are encoded again

    @property
    def collection(self) -> str:
        """The name of the collection."""
        return self._record.collection

    @property
    def source(self) -> str:
        """The id of the generation that documents are copied from."""
        return self.current.record.id

    def copy(self) -> None:
        """Copy all documents of the source as of now."""
        reader = self.current.store.reader()
        exported = reader.export()
        if self._same_bag:
            copy_documents(exported, self._target, keep_vectors=self._same_full, progress=self._copied)
        else:
            while batch := list(islice(exported, _BATCH)):
                self._target.store.write(prepare([row.document for row in batch], self._spec, self._bag))
                self._copied(len(batch))
        self._since = reader.change

    def _copied(self, count: int) -> None:
        self._progress("copied", count)

    def encode(self) -> None:
        """Encode all passages without a vector. Workers help if there are any."""
        if self._encoder is None:
            return
        if self.context.jobs is not None:
            waiting = self._target.store.reader().unencoded(_HELP)
            self.context.jobs.encode(self._record.collection, self._record.id, waiting.tolist())
        encode_all(self._target, self._encoder, self.context.claims, lambda count: self._progress("encoded", count))

    def check(self) -> None:
        """Run the slow part of the verification. Raises CorruptionError."""
        _refuse([*self._target.check(), *self_retrieval_problems(self._target)])

    def catch_up(self) -> None:
        """Copy what was written to the source meanwhile, in rounds, until few changes are left."""
        for _ in range(_ROUNDS):
            if self._catch_up_once() < _LITTLE:
                return

    def _catch_up_once(self) -> int:
        reader = self.current.store.reader()
        changed = reader.changed_documents(self._since)
        for at in range(0, len(changed), _BATCH):
            self._write(list(reader.export(changed[at : at + _BATCH])))
        gone = self._gone(reader)
        for at in range(0, len(gone), _BATCH):
            self._target.store.delete(gone[at : at + _BATCH])
        if self._encoder is not None:
            encode_all(self._target, self._encoder, self.context.claims)
        self._target.snapshot()
        self._since = reader.change
        if changed or gone:
            self._progress("caught up", len(changed) + len(gone))
        return len(changed) + len(gone)

    def _write(self, batch: Sequence[ExportedDocument]) -> None:
        """Upsert changed documents, with their vectors if the encoders are the same. Unchanged ones are skipped."""
        if not self._same_bag:
            self._target.store.write(prepare([row.document for row in batch], self._spec, self._bag))
            return
        made = [PreparedDocument(row.document, row.windows, row.bags, row.content_hash) for row in batch]
        items = self._target.store.write(made).items
        if not self._same_full:
            return
        rows: list[int] = []
        vectors: list[VectorArray] = []
        weights: list[TermWeights] = []
        reader = self._target.store.reader()
        for row, item in zip(batch, items, strict=True):
            own = [vector for vector in row.vectors if vector is not None]
            there = reader.document_rows(row.document.id) if own and item.status != "unchanged" else as_rows([])
            if len(there) == len(own) == len(row.windows):
                rows += there.tolist()
                vectors += own
                weights += [found for found in row.weights if found is not None]
        if rows:
            self._target.store.put_vectors(as_rows(rows), np.stack(vectors), weights)

    def _gone(self, reader: StoreReader) -> list[str]:
        """The ids of documents that are in the new generation but no longer in its source."""
        copied = self._target.store.reader()
        if copied.counts().documents == reader.counts().documents:
            return []
        there = _ids_of(reader)
        gone: list[str] = []
        for ids in copied.document_ids():
            unknown = ~np.isin(_hashes(ids), there)
            gone += [item for item, is_gone in zip(ids, unknown.tolist(), strict=True) if is_gone]
        return gone

    def finish(self) -> None:
        """Copy the last changes and source positions, then verify; the caller holds the writer lock.

        Raises ConflictError if another generation was published, CorruptionError if verification fails.
        """
        if self._store.current(self._record.collection) != self.current.record.id:
            raise ConflictError("another generation was published meanwhile", expected="build again")
        self._catch_up_once()
        for source, position in self.current.store.sources().items():
            before = self._target.store.progress(source)
            if before != position:
                self._target.store.write([], progress=SourceProgress(source, before, position))
        _refuse(differences(self.current, self._target))

    def publish(self, *, finish: bool) -> None:
        """Make it the serving generation; the caller holds the writer lock.

        Also records that the former generation is complete up to now, so that a rollback knows what it lacks.
        """
        name, record = self._record.collection, self._record
        if finish:
            self._store.finish_generation(record)
            self._store.copy_profile(name, self.source, record.id)
        self._equal(self.source, record.id, self._target.store.change())
        self._store.publish(name, record.id)

    def remember(self) -> None:
        """Record up to which change of the source this generation is complete."""
        self._equal(self._record.id, self.source, self._since)

    def recall(self) -> None:
        """Load the recorded change to catch up from. Without a record, catching up starts at the beginning."""
        found = self.context.records.get(_EQUAL, f"{self._record.collection}/{self._record.id}")
        if found is not None and found.body["source"] == self.source:
            self._since = int(found.body["change"])

    def _equal(self, generation: str, source: str, change: int) -> None:
        name = self._record.collection
        body = {"source": source, "change": change}
        self.context.records.add([Record(_EQUAL, f"{name}/{generation}", body, collection=name)])


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise CorruptionError("the new generation does not match the old one: " + "; ".join(problems))


def _hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each id, shape (len(ids),)."""
    found = b"".join(hashlib.blake2b(item.encode("utf-8", "surrogatepass"), digest_size=8).digest() for item in ids)
    return np.frombuffer(found, dtype="<u8")


def _ids_of(reader: StoreReader) -> npt.NDArray[np.uint64]:
    """The 64-bit hashes of all document ids, ascending."""
    return np.sort(np.concatenate([_hashes(ids) for ids in reader.document_ids()] or [_hashes([])]))


def differences(old: Engine, new: Engine) -> list[str]:
    """Messages about differences that forbid publishing `new` in place of `old`; empty if it may be published.

    Compares the document ids and checks that every passage is encoded with vectors of the right dimension.
    """
    source, reader = old.store.reader(), new.store.reader()
    before, after = source.counts(), reader.counts()
    problems = []
    if before.documents != after.documents:
        problems.append(f"{after.documents} documents instead of {before.documents}")
    if not np.array_equal(_ids_of(reader), _ids_of(source)):
        problems.append("their documents are others")
    if new.record.dense_dimension:
        if after.encoded != after.passages:
            problems.append(f"{after.passages - after.encoded} passages are not encoded")
        _, vectors = reader.vectors(reader.live_rows(encoded=True)[:1])
        if len(vectors) and vectors.shape[1] != new.record.dense_dimension:
            problems.append(f"vectors of {vectors.shape[1]} numbers instead of {new.record.dense_dimension}")
    return problems


def self_retrieval_problems(engine: Engine, sample: int = _SAMPLES) -> list[str]:
    """Self-retrieval check: messages about sampled passages that a search for their own content does not find.

    Takes `sample` evenly spaced passages and searches for their terms with BM25 and for their vectors with the dense
    index. A passage must be in the top 50 or tie with the last of them. For dense search one miss in ten is allowed,
    because the index may be approximate.
    """
    snapshot = engine.snapshot()
    rows = snapshot.reader.live_rows()
    if not len(rows):
        return []
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, sample).astype(int))]
    analyzer = Analyzer(engine.record.analyzer)
    problems: list[str] = []
    for row, passage in snapshot.reader.passages(chosen).items():
        terms = list(dict.fromkeys(analyzer.terms(passage.content)))[:_TERMS]
        if not terms:
            continue
        found = snapshot.bm25.search(terms, _DEEP, None)
        own = float(snapshot.bm25.score(terms, as_rows([row]))[0])
        if not _is_among(found, row, own):
            problems.append(f"passage {passage.id} is not found by its own words")
    if snapshot.dense is not None:
        having, vectors = snapshot.reader.vectors(chosen)
        missed = []
        for row, vector in zip(having.tolist(), vectors, strict=True):
            own = float(snapshot.dense.score(vector, as_rows([row]))[0])
            if not _is_among(snapshot.dense.search(vector, _DEEP, None), row, own):
                missed.append(row)
        if len(missed) > len(having) / 10:
            problems.append(f"{len(missed)} of {len(having)} passages are not found by their own vectors")
    return problems


def _is_among(found: Scored, row: int, own: float) -> bool:
    worst = float(found.scores[-1]) if len(found) >= _DEEP else -np.inf
    return row in found.rows.tolist() or own <= worst + 1e-4


def _differ(engine: Engine, encoder: HybridEncoder) -> bool:
    """Whether the stored vectors are not those of the encoder that they are called after."""
    try:
        return other_vectors(engine, encoder) is not None
    except EncoderUnavailableError:
        return False


def check_importable(record: GenerationRecord, manifest: dict[str, object]) -> bool:
    """Whether the vectors and VDR weights of an export can be reused in a generation, that is, its encoders match.

    Raises InvalidInputError if the vocabulary of the bags of tokens differs.
    """
    if manifest.get("vdr_encoder") != record.vdr_encoder:
        raise InvalidInputError(
            "the export's vocabulary is another one",
            received=manifest.get("vdr_encoder"),
            expected=record.vdr_encoder,
        )
    of_export = (manifest.get("dense_encoder"), manifest.get("vdr_model", ""))
    return of_export == (record.dense_encoder, record.vdr_model)
