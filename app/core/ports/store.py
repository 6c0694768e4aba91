"""The store is the truth: documents, passages, metadata, term weights, vectors, and a change counter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from hyblink.app.core.errors import ConflictError
from hyblink.app.core.filters import Filter
from hyblink.app.core.types.arrays import BoolArray, IdArray, TermBatch, TermWeights, VectorArray
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document, Metadata, Passage, StoreCounts


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
