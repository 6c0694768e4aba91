"""The seams. Each is a small Protocol; the embedded engine implements them now, OpenSearch and Celery later.

A store is the truth. Indexes are derived from it: each remembers the store's change counter up to which it has
applied everything. A `Snapshot` is one moment of a store with every index brought to exactly that moment; a search
runs on one snapshot from beginning to end, so it never sees half a write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from app.core.errors import ConflictError
from app.core.filters import Filter
from app.core.linking import MentionContext
from app.core.types import (
    BoolArray,
    BulkItem,
    BulkResult,
    Document,
    GenerationRecord,
    IdArray,
    Metadata,
    Passage,
    RankingProfile,
    ScoreArray,
    Scored,
    SparseForm,
    StoreCounts,
    TermBatch,
    TermWeights,
    TokenContribution,
    TokenIdf,
    VectorArray,
)


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document ready to be stored: checked, cut into passages, with each passage's bag of tokens."""

    document: Document
    windows: tuple[tuple[int, int], ...]
    bags: tuple[TermWeights, ...]
    content_hash: str


@dataclass(frozen=True, slots=True)
class ExportedDocument:
    """A document as it moves between engines: nothing has to be encoded again."""

    document: Document
    windows: tuple[tuple[int, int], ...]
    bags: tuple[TermWeights, ...]
    vectors: tuple[VectorArray | None, ...]
    content_hash: str
    weights: tuple[TermWeights | None, ...] = ()
    """The VDR encoder's weights; empty or None where there are none."""


@dataclass(frozen=True, slots=True)
class PassageChange:
    """A passage that an index has to add. Rows never change their content, so adding twice is harmless."""

    row: int
    change: int
    doc_id: str
    content: str


class Selection(Protocol):
    """The passages that pass a filter, at one moment."""

    def rows(self) -> IdArray:
        """All of them, ascending."""
        ...

    def few(self, limit: int) -> IdArray | None:
        """`rows()`, or None where there are more than `limit` and reading them would be slow."""
        ...

    def contains(self, rows: IdArray) -> BoolArray:
        """Which of the given rows are among them."""
        ...


class StoreReader(Protocol):
    """The store as it was at one change counter."""

    @property
    def change(self) -> int: ...

    def get_document(self, doc_id: str) -> Document | None: ...

    def passages(self, rows: IdArray) -> dict[int, Passage]:
        """The passages that exist among `rows`."""
        ...

    def document_keys(self, rows: IdArray) -> IdArray:
        """The key (≥ 0) of each row's document, -1 where there is none. Rows come from views of the same snapshot."""
        ...

    def doc_ids(self, keys: IdArray) -> list[str]:
        """The ids of documents by their keys."""
        ...

    def document_rows(self, doc_id: str) -> IdArray:
        """The rows of a document's passages, in order; empty where there is no such document."""
        ...

    def select(self, tree: Filter) -> Selection:
        """The passages whose documents pass the filter."""
        ...

    def metadata(self, keys: IdArray) -> list[Metadata]:
        """The metadata of documents by their keys."""
        ...

    def vectors(self, rows: IdArray) -> tuple[IdArray, VectorArray]:
        """The rows among those given that have a vector, with the vectors as float32 of the stored float16."""
        ...

    def encoded(self, rows: IdArray) -> BoolArray:
        """Which of the rows are on the full tier."""
        ...

    def unencoded(self, limit: int, after: int = 0) -> IdArray:
        """Rows above `after` that still wait for the encoder, ascending."""
        ...

    def texts_since(self, change: int) -> Iterator[list[PassageChange]]:
        """Passages written after `change`, in batches, in the order of their rows."""
        ...

    def terms_since(self, change: int) -> Iterator[TermBatch]:
        """Bags of tokens written after `change`, in batches, rows ascending within each."""
        ...

    def weights_since(self, change: int) -> Iterator[TermBatch]:
        """The VDR encoder's weights written after `change`, in batches, rows ascending within each."""
        ...

    def vectors_since(self, change: int) -> Iterator[tuple[IdArray, VectorArray]]:
        """Vectors written after `change`, in batches, rows ascending within each."""
        ...

    def removed_since(self, change: int) -> IdArray | None:
        """Rows removed after `change`; None where the store has forgotten that far back (rebuild)."""
        ...

    def live_rows(self, *, encoded: bool = False) -> IdArray:
        """All rows, ascending; only those with a vector if `encoded`."""
        ...

    def counts(self) -> StoreCounts: ...

    def export(self, only: Sequence[str] | None = None) -> Iterator[ExportedDocument]:
        """Every document, or those of some ids, with its passages, weights and vectors, in the order of arrival."""
        ...

    def changed_documents(self, since: int) -> list[str]:
        """The ids of documents that were written, or changed in any way, after a change, and are there now."""
        ...

    def document_ids(self) -> Iterator[list[str]]:
        """The ids of all documents, in batches, in no order."""
        ...


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """How far a source has been read, written with what was read; `before` is what the writer believes to stand there.

    Where something else stands there another run of the same source has taken over, and nothing is written.
    """

    source: str
    before: str | None
    position: str


def check_progress(progress: SourceProgress, stored: str | None) -> None:
    """Raises ConflictError where another run of the source has gone on from where this one stood."""
    if stored != progress.before:
        raise ConflictError(
            "another run reads the same source", received=f"position {stored}", expected=f"position {progress.before}"
        )


class PassageStore(Protocol):
    """The truth: documents, passages, metadata, term weights, vectors, tiers, and a change counter."""

    def reader(self) -> StoreReader:
        """The store as it is now; stays as it is while the caller holds it."""
        ...

    def change(self) -> int:
        """The change counter: it grows with every committed write."""
        ...

    def write(
        self, documents: Sequence[PreparedDocument | BulkItem], *, progress: SourceProgress | None = None
    ) -> BulkResult:
        """Upsert in one transaction; rejected items pass through to the result in order.

        `progress` is remembered in the same transaction, so that a reader resumes exactly after what was
        acknowledged. Raises ConflictError where another run has moved it.
        """
        ...

    def progress(self, source: str) -> str | None: ...

    def sources(self) -> dict[str, str]:
        """How far each source has been read."""
        ...

    def delete(self, doc_ids: Sequence[str]) -> BulkResult:
        """Delete documents with their passages in one transaction."""
        ...

    def put_vectors(self, rows: IdArray, vectors: VectorArray, weights: Sequence[TermWeights] = ()) -> int:
        """Store vectors, and VDR weights where there are any, of rows that still wait, and raise them to the full tier.

        How many that were.
        """
        ...

    def writer(self) -> AbstractContextManager[None]:
        """Hold the collection's writer lock. Raises WriterConflictError where another process has it."""
        ...


class LexicalView(Protocol):
    """BM25 (Robertson & Zaragoza 2009) with Lucene's idf and one-byte length norm; k1 = 1.2, b = 0.75."""

    def search(self, terms: Sequence[str], k: int, allowed: Selection | None) -> Scored: ...

    def score(self, terms: Sequence[str], rows: IdArray) -> ScoreArray:
        """Exact scores of the given rows; 0 where no term matches."""
        ...

    def contributions(self, terms: Sequence[str], rows: IdArray) -> list[list[TokenContribution]]:
        """Each row's score by term; the contributions sum to the score."""
        ...

    def rank(self, terms: Sequence[str], row: int) -> int | None:
        """The row's exact rank among all that the signal scores, from 1; None where it does not score the row."""
        ...


class SparseView(Protocol):
    """Exact dot products over stored term weights."""

    def query_weights(self, ids: Sequence[int], limit: int) -> TermWeights:
        """Weights for a query's bag of tokens: idf over the collection's passages, heaviest `limit` kept."""
        ...

    def search(self, query: TermWeights, k: int, allowed: Selection | None) -> Scored: ...

    def score(self, query: TermWeights, rows: IdArray) -> ScoreArray: ...

    def contributions(self, query: TermWeights, rows: IdArray) -> list[list[tuple[int, float, float]]]:
        """Each row's matches as (token id, query weight, passage weight)."""
        ...

    def rank(self, query: TermWeights, row: int) -> int | None:
        """The row's exact rank among all that the signal scores, from 1; None where it does not score the row."""
        ...


class DenseView(Protocol):
    """Inner products between a query vector and the stored passage vectors."""

    @property
    def vectors(self) -> int:
        """How many vectors there are to search."""
        ...

    def search(self, query: VectorArray, k: int, allowed: Selection | None) -> Scored: ...

    def score(self, query: VectorArray, rows: IdArray) -> ScoreArray:
        """Exact inner products; NaN where a row has no vector yet."""
        ...

    def rank(self, query: VectorArray, row: int) -> int | None:
        """The row's exact rank among all that the signal scores, from 1; None where it does not score the row."""
        ...


@dataclass(frozen=True, slots=True)
class JointAnswer:
    """What BM25 and the sparse signal propose, and the complete scores that came along.

    `scores_2C` has both signals (BM25 first) of the ascending `rows_C`; there may be none.
    """

    bm25: Scored
    vdr: Scored
    rows_C: IdArray
    scores_2C: ScoreArray


class JointView(Protocol):
    """BM25 and the sparse signal asked together: for engines to which every question is a journey."""

    @property
    def completes(self) -> bool:
        """Whether a search brings complete scores of all that was proposed, `others` included."""
        ...

    def search(
        self, terms: Sequence[str], query: TermWeights, k: int, allowed: Selection | None, others: IdArray
    ) -> JointAnswer:
        """Proposals of both signals; `others` are rows that another leg proposes."""
        ...

    def score(self, terms: Sequence[str], query: TermWeights, rows: IdArray) -> ScoreArray:
        """Exact scores by both signals, shape (2, n); 0 where nothing matches."""
        ...


WAITING_COUNTED = 1000
"""Passages that wait for the encoder are counted so far; whether there are more makes no difference to a search."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a generation: the store and its indexes, all at the same change counter.

    `bag` searches bags of tokens, `vdr` the VDR encoder's weights where the generation has an encoder. `waiting` counts
    the passages on the instant tier, up to `WAITING_COUNTED`. `joint` asks BM25 and one of the sparse forms together.
    """

    change: int
    reader: StoreReader
    bm25: LexicalView
    bag: SparseView
    vdr: SparseView | None
    dense: DenseView | None
    waiting: int = 0
    joint: Mapping[SparseForm, JointView] = field(default_factory=dict)

    def sparse(self, form: SparseForm) -> SparseView:
        """The view of one form. A generation without an encoder has bags only."""
        view = self.bag if form is SparseForm.BAG else self.vdr
        assert view is not None, form
        return view


class IndexFollower(Protocol):
    """Keeps the indexes up with a run that is writing, on threads or processes of its own."""

    def nudge(self) -> None:
        """There is something new in the store."""
        ...

    def close(self) -> None:
        """Wait until everything stored is applied."""
        ...


class Engine(Protocol):
    """An open generation: its store, and snapshots of it."""

    @property
    def record(self) -> GenerationRecord: ...

    @property
    def store(self) -> PassageStore: ...

    def snapshot(self) -> Snapshot:
        """The present: everything acknowledged before the call is in it."""
        ...

    def replaced(self) -> bool:
        """Whether the generation's data is no longer what was opened: deleted, or made anew by another process."""
        ...

    def follow(self) -> IndexFollower: ...

    def check(self, *, repair: bool = False) -> list[str]:
        """Compare store and indexes; what differs, in words. With `repair`, rebuild what does."""
        ...

    def compact(self, *, patience_s: float = 0.0) -> None:
        """Fold what came since the indexes were last built into them, and drop what was removed.

        Until then removed passages stay in BM25's statistics. An engine that keeps them for copies which may have to
        recover waits up to `patience_s` until it need not any more.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Present:
    """What answers a search: a generation, one moment of it, and how it ranks."""

    engine: Engine
    snapshot: Snapshot
    profile: RankingProfile


class DenseEncoder(Protocol):
    """Text to vectors. Queries and passages are encoded by separate methods: prefixes differ."""

    @property
    def id(self) -> str:
        """Names model, weights and precision; vectors of different ids never meet in one index."""
        ...

    @property
    def dimension(self) -> int: ...

    def encode_query(self, text: str) -> VectorArray:
        """Shape (dimension,)."""
        ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        """Shape (n, dimension)."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedPassages:
    """What the full tier adds to passages: `vectors_ND`, and their VDR weights where there is such an encoder."""

    vectors_ND: VectorArray
    weights: tuple[TermWeights, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query's dense vector, shape (D,), and its VDR weights, nothing pruned, where there is such an encoder."""

    vector_D: VectorArray
    weights: TermWeights | None = None


class FullEncoder(Protocol):
    """A generation's encoders together: where they share a backbone, one forward pass serves both."""

    def encode_query(self, text: str) -> EncodedQuery: ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages: ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf that VDR weights of passages hold for tokens, to be replaced by a collection's own; None for none."""
        ...


class CrossEncoder(Protocol):
    """Reads a query and a passage together: slower, and better, than comparing what was made of each alone."""

    @property
    def id(self) -> str: ...

    def load(self) -> None:
        """Be ready to score; the first call may take half a minute. Raises EncoderUnavailableError if it cannot be."""
        ...

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        """One score for each (title, text), larger is better; NaN where `time.perf_counter()` passed the deadline.

        `idf` is the collection's: a model that weighs the query's tokens goes by it. The first are scored first. Raises
        EncoderUnavailableError where it is not ready; it does not wait for that.
        """
        ...

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        """What each token of the query gave to the score, adding up to it; empty where the model cannot say."""
        ...


class MentionEncoder(Protocol):
    """Mentions in their contexts to vectors in the space of a knowledge base's dense vectors (Wu et al. 2020)."""

    @property
    def id(self) -> str: ...

    def encode(self, mentions: Sequence[MentionContext]) -> VectorArray:
        """Shape (n, dimension), L2-normalised."""
        ...


@runtime_checkable
class InTextEncoder(Protocol):
    """Encodes mentions where they stand: a text is read once for all of them (Li et al. 2020)."""

    @property
    def id(self) -> str: ...

    def encode_spans(self, items: Sequence[tuple[str, int, int]]) -> VectorArray:
        """Vectors of (text, start, end), shape (n, dimension), L2-normalised."""
        ...


class EntityCross(Protocol):
    """Reads a mention in its context together with each candidate entity."""

    @property
    def id(self) -> str: ...

    def load(self) -> None:
        """Be ready to score. Raises EncoderUnavailableError if it cannot be."""
        ...

    def score(
        self, mentions: Sequence[MentionContext], entities: Sequence[Sequence[tuple[str, str]]], deadline: float
    ) -> list[ScoreArray]:
        """For each mention a score for each of its (title, description), NaN for all of those not reached in time.

        Raises EncoderUnavailableError where it is not ready.
        """
        ...


class BagEncoder(Protocol):
    """Text to its bag of tokens over the VDR vocabulary: the instant tier."""

    @property
    def id(self) -> str: ...

    def encode_passages(self, contents: Sequence[str]) -> list[TermWeights]: ...

    def encode_query(self, text: str) -> list[int]:
        """The query's distinct token ids, ascending."""
        ...

    def token(self, token_id: int) -> str:
        """The token as it stands in the vocabulary."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """A small JSON document about work or people: a job, a claim, a dead letter, a judgement.

    `version` counts its writes from 1; 0 is one that has not been stored. Ids of a kind sort as they should be listed.
    """

    kind: str
    id: str
    body: Mapping[str, Any]
    state: str = ""
    collection: str = ""
    version: int = 0


class Records(Protocol):
    """Where such documents are kept, seen by every process of an installation."""

    def get(self, kind: str, record_id: str) -> Record | None:
        """The record as it is now."""
        ...

    def put(self, record: Record) -> Record:
        """Write over exactly the version that `record` names, 0 where there is none yet; what is stored then.

        Raises ConflictError where somebody else has written or removed it.
        """
        ...

    def add(self, records: Sequence[Record]) -> None:
        """Store many records, over whatever is there under their ids."""
        ...

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        """Delete records; how many were there."""
        ...

    def list(
        self,
        kind: str,
        *,
        states: Sequence[str] = (),
        collection: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Record]:
        """Records in descending order of their ids, those before an id; only of some states or of a collection."""
        ...

    def count(self, kind: str, *, states: Sequence[str] = (), collection: str | None = None) -> int: ...

    def close(self) -> None: ...


class Jobs(Protocol):
    """Work that is queued: ids only, idempotent, safe to deliver twice."""

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None: ...

    def annotate(self, collection: str) -> None:
        """Queue the documents of a collection that are not annotated yet; nothing where it is not to be."""
        ...

    def run(self, job_id: str, kind: str, delay_s: float = 0.0) -> None:
        """Queue a job that has a record."""
        ...

    def close(self) -> None:
        """Send what is queued; where this process does the work itself, stop after the block in hand."""
        ...
