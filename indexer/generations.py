"""Generations: build beside, verify, publish, roll back. What answers queries changes in one atomic act."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.core.errors import ConflictError, CorruptionError, InvalidInputError, WriterConflictError
from app.core.ports import (
    BagEncoder,
    Engine,
    ExportedDocument,
    FullEncoder,
    Jobs,
    PreparedDocument,
    Records,
    SourceProgress,
    StoreReader,
)
from app.core.text import Analyzer
from app.core.types import CollectionSpec, GenerationRecord, Scored, as_rows
from indexer.claims import Claims
from indexer.encode import encode_all
from indexer.prepare import prepare
from indexer.single_flight import single_flight

_BATCH = 1000
_LITTLE = 100
"""So many changes may be left to the moment in which writers wait."""
_ROUNDS = 50
_HELP = 4096
_SAMPLES = 20
_TERMS = 64
_DEEP = 50


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


def copy_documents(
    source: Iterator[ExportedDocument],
    target: Engine,
    *,
    keep_vectors: bool,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write exported documents into an engine, vectors too where they are of the same encoder; how many."""
    total = 0
    while batch := list(islice(source, _BATCH)):
        result = target.store.write([PreparedDocument(d.document, d.windows, d.bags, d.content_hash) for d in batch])
        total += len(batch)
        progress(len(batch))
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
    records: Records,
    keep: int,
    jobs: Jobs | None = None,
    patience_s: float = 3600.0,
    progress: Callable[[str, int], None] = lambda _stage, _count: None,
) -> GenerationRecord:
    """Build a generation beside the current one from its documents, verify it, publish it.

    Passages are cut and encoded anew where the collection's choices or encoders differ, copied where they do not. While
    it runs, searches and writes go on; what is written meanwhile is caught up with, the last of it while writers wait
    a moment. A writer that does not let go is waited for up to `patience_s`. With `jobs`, workers help to encode.

    Raises ConflictError where another build of the collection is under way, or another generation is published
    meanwhile; CorruptionError where the new one does not match. Nothing of it is left then.
    """
    name = record.collection
    with single_flight(records, f"build/{name}", "a generation of this collection is being built"):
        current = store.engine(name)
        store.drop_unfinished(name)
        store.add_generation(record)
        try:
            work = _Build(store, record, current, bag, encoder, claims, jobs, progress)
            work.copy()
            work.encode()
            work.check()
            deadline = time.monotonic() + patience_s
            while True:
                work.catch_up()
                try:
                    with current.store.writer():
                        work.finish()
                        store.finish_generation(record)
                        store.copy_profile(name, current.record.id, record.id)
                        store.publish(name, record.id)
                    break
                except WriterConflictError:
                    if time.monotonic() > deadline:
                        raise
        except BaseException:
            store.discard(name, record.id)
            raise
        store.drop_old(name, keep)
        return record


class _Build:
    """A generation on its way from its source."""

    def __init__(
        self,
        store: GenerationStore,
        record: GenerationRecord,
        current: Engine,
        bag: BagEncoder,
        encoder: FullEncoder | None,
        claims: Claims,
        jobs: Jobs | None,
        progress: Callable[[str, int], None],
    ) -> None:
        self._store = store
        self._record = record
        self._current = current
        self._spec = store.spec(record.collection)
        self._target = store.engine(record.collection, record.id)
        self._bag = bag
        self._encoder = encoder
        self._claims = claims
        self._jobs = jobs
        self._progress = progress
        self._since = 0
        of_source = current.record
        self._same_bag = of_source.vdr_encoder == record.vdr_encoder
        self._same_full = (of_source.dense_encoder, of_source.vdr_model) == (record.dense_encoder, record.vdr_model)

    def copy(self) -> None:
        """All documents as they are now."""
        reader = self._current.store.reader()
        exported = reader.export()
        if self._same_bag:
            copy_documents(exported, self._target, keep_vectors=self._same_full, progress=self._copied)
        else:
            while batch := list(islice(exported, _BATCH)):
                self._target.store.write(prepare([one.document for one in batch], self._spec, self._bag))
                self._copied(len(batch))
        self._since = reader.change

    def _copied(self, count: int) -> None:
        self._progress("copied", count)

    def encode(self) -> None:
        """Vectors of all that have none; workers help, if there are any."""
        if self._encoder is None:
            return
        if self._jobs is not None:
            waiting = self._target.store.reader().unencoded(_HELP)
            self._jobs.encode(self._record.collection, self._record.id, waiting.tolist())
        encode_all(self._target, self._encoder, self._claims, lambda count: self._progress("encoded", count))

    def check(self) -> None:
        """The slow part of what is verified. Raises CorruptionError."""
        _refuse([*self._target.check(), *found_again(self._target)])

    def catch_up(self) -> None:
        """What was written meanwhile, until little is left."""
        for _ in range(_ROUNDS):
            if self._catch_up_once() < _LITTLE:
                return

    def _catch_up_once(self) -> int:
        reader = self._current.store.reader()
        changed = reader.changed_documents(self._since)
        for at in range(0, len(changed), _BATCH):
            for one in reader.export(changed[at : at + _BATCH]):
                self._write(one)
        gone = self._gone(reader)
        for at in range(0, len(gone), _BATCH):
            self._target.store.delete(gone[at : at + _BATCH])
        if self._encoder is not None:
            encode_all(self._target, self._encoder, self._claims)
        self._target.snapshot()
        self._since = reader.change
        if changed or gone:
            self._progress("caught up", len(changed) + len(gone))
        return len(changed) + len(gone)

    def _write(self, one: ExportedDocument) -> None:
        if not self._same_bag:
            self._target.store.write(prepare([one.document], self._spec, self._bag))
            return
        made = PreparedDocument(one.document, one.windows, one.bags, one.content_hash)
        rows = self._target.store.write([made]).rows
        vectors = [vector for vector in one.vectors if vector is not None]
        if self._same_full and rows and len(vectors) == len(rows):
            own = [weights for weights in one.weights if weights is not None]
            self._target.store.put_vectors(as_rows(rows), np.stack(vectors), own)

    def _gone(self, reader: StoreReader) -> list[str]:
        """Documents of the new generation that its source has no more."""
        copied = self._target.store.reader()
        if copied.counts().documents == reader.counts().documents:
            return []
        there = _ids_of(reader)
        gone: list[str] = []
        for ids in copied.document_ids():
            unknown = ~np.isin(_hashes(ids), there)
            gone += [one for one, is_gone in zip(ids, unknown.tolist(), strict=True) if is_gone]
        return gone

    def finish(self) -> None:
        """The last of it, while nobody writes. Raises ConflictError, CorruptionError."""
        if self._store.current(self._record.collection) != self._current.record.id:
            raise ConflictError("another generation was published meanwhile", expected="build again")
        self._catch_up_once()
        for source, position in self._current.store.sources().items():
            self._target.store.write([], progress=SourceProgress(source, None, position))
        _refuse(differences(self._current, self._target))


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise CorruptionError("the new generation does not match the old one: " + "; ".join(problems))


def _hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64 bits of each id."""
    found = b"".join(hashlib.blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).digest() for one in ids)
    return np.frombuffer(found, dtype="<u8")


def _ids_of(reader: StoreReader) -> npt.NDArray[np.uint64]:
    """64 bits of the id of each document, ascending."""
    return np.sort(np.concatenate([_hashes(ids) for ids in reader.document_ids()] or [_hashes([])]))


def differences(old: Engine, new: Engine) -> list[str]:
    """Why a generation must not be published, in words: documents, passages, vectors, and which encoder made them."""
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


def found_again(engine: Engine, sample: int = _SAMPLES) -> list[str]:
    """Which of some passages, evenly spread, their own words and vectors do not find, in words.

    What stands before a passage has to score as much as it does. Approximate dense indexes may miss one in ten.
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
