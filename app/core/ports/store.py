"""The port of the passage store: documents, passages, metadata, term weights, vectors, and a change counter.

The store is the source of truth. Indexes are derived from it and can be rebuilt from it. The change counter grows
with every committed write, and an index is brought up to date by reading what was written after its counter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from hyblink.app.core.errors import ConflictError
from hyblink.app.core.filters import Filter
from hyblink.app.core.types.arrays import BoolArray, IdArray, TermBatch, TermWeights, VectorArray
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document, Metadata, Passage, StoreCounts


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document ready to be stored: checked and cut into passages, with each passage's bag of tokens.

    `windows` are the passages' (start, end) in code points. `bags` is parallel to `windows`.
    """

    document: Document
    windows: tuple[tuple[int, int], ...]
    bags: tuple[TermWeights, ...]
    content_hash: str


@dataclass(frozen=True, slots=True)
class ExportedDocument:
    """A document with all its encodings, to be copied to another generation or engine without encoding it again.

    `windows`, `bags`, `vectors` and `weights` are parallel. A vector is None if the passage is not encoded yet.
    """

    document: Document
    windows: tuple[tuple[int, int], ...]
    bags: tuple[TermWeights, ...]
    vectors: tuple[VectorArray | None, ...]
    content_hash: str
    weights: tuple[TermWeights | None, ...] = ()
    """The VDR encoder's weights, None for a passage without them; empty if no passage has any."""


@dataclass(frozen=True, slots=True)
class PassageChange:
    """A passage that an index has to add. A row's content never changes, so adding it twice is harmless.

    `change` is the change counter of the write. `content` is the text to index: title and text.
    """

    row: int
    change: int
    doc_id: str
    content: str


class Selection(Protocol):
    """The set of passages that pass a metadata filter, in one snapshot."""

    def rows(self) -> IdArray:
        """All rows of the set, ascending."""
        ...

    def rows_if_at_most(self, limit: int) -> IdArray | None:
        """`rows()`, or None if the set has more than `limit` rows and reading them would be slow."""
        ...

    def contains(self, rows: IdArray) -> BoolArray:
        """A mask parallel to `rows`: which of them are in the set."""
        ...


class StoreReader(Protocol):
    """A read-only snapshot of the store at one change counter."""

    @property
    def change(self) -> int:
        """The change counter of the snapshot."""
        ...

    def get_document(self, doc_id: str) -> Document | None:
        """The document with this id; None if there is none."""
        ...

    @property
    def moment(self) -> str:
        """A digest of the snapshot's change and all before it. A store that is put back from a copy makes others."""
        ...

    def continues(self, change: int, moment: str) -> bool:
        """Whether this snapshot's history has `moment` at `change`, so that what was made there still holds.

        An empty moment is that of an index of an earlier release.
        """
        ...

    def passages(self, rows: IdArray) -> dict[int, Passage]:
        """Row → passage, for those of `rows` that exist."""
        ...

    def passage_lengths(self, rows: IdArray) -> IdArray:
        """The number of characters of each row's passage, 0 for an unknown row; parallel to `rows`."""
        ...

    def document_keys(self, rows: IdArray) -> IdArray:
        """The internal integer key (≥ 0) of each row's document, -1 for an unknown row; parallel to `rows`.

        The rows must come from views of the same snapshot.
        """
        ...

    def doc_ids(self, keys: IdArray) -> list[str]:
        """The public ids of documents, given their internal keys, in the same order."""
        ...

    def document_rows(self, doc_id: str) -> IdArray:
        """The rows of a document's passages, in order; empty if there is no such document."""
        ...

    def select(self, tree: Filter) -> Selection:
        """The passages whose documents pass the filter."""
        ...

    def metadata(self, keys: IdArray) -> list[Metadata]:
        """The metadata of documents, given their internal keys, in the same order."""
        ...

    def metadata_of(self, doc_ids: Sequence[str]) -> dict[str, Metadata]:
        """Id → metadata, for those of the documents that exist."""
        ...

    def vectors(self, rows: IdArray) -> tuple[IdArray, VectorArray]:
        """The rows among those given that have a vector, ascending, and their vectors, shape (n, D).

        Vectors are stored as float16 and returned as float32.
        """
        ...

    def encoded(self, rows: IdArray) -> BoolArray:
        """A mask parallel to `rows`: which of them are encoded (on the full tier)."""
        ...

    def unencoded(self, limit: int, after: int = 0) -> IdArray:
        """At most `limit` rows above `after` that are not encoded yet, ascending."""
        ...

    def texts_since(self, change: int) -> Iterator[list[PassageChange]]:
        """Passages written after the counter `change`, in batches, rows ascending."""
        ...

    def terms_since(self, change: int) -> Iterator[TermBatch]:
        """Bags of tokens of passages written after the counter `change`, in batches, rows ascending within each."""
        ...

    def weights_since(self, change: int) -> Iterator[TermBatch]:
        """VDR weights written after the counter `change`, in batches, rows ascending within each."""
        ...

    def vectors_since(self, change: int) -> Iterator[tuple[IdArray, VectorArray]]:
        """Dense vectors written after the counter `change`, in batches of (rows, vectors); rows ascend in a batch."""
        ...

    def removed_since(self, change: int) -> IdArray | None:
        """Rows removed after the counter `change`.

        None if tombstones from that time are already purged. Then the caller has to rebuild its index.
        """
        ...

    def live_rows(self, *, encoded: bool = False) -> IdArray:
        """All rows, ascending. With `encoded`, only those that have a vector."""
        ...

    def counts(self) -> StoreCounts:
        """The numbers of documents, passages and encoded passages."""
        ...

    def export(self, only: Sequence[str] | None = None) -> Iterator[ExportedDocument]:
        """Every document with its passages, weights and vectors, in the order of arrival.

        `only` limits the export to documents with these ids.
        """
        ...

    def changed_documents(self, since: int) -> list[str]:
        """The ids of existing documents whose text or metadata was written after the counter `since`."""
        ...

    def document_ids(self) -> Iterator[list[str]]:
        """The ids of all documents, in batches, in no particular order."""
        ...


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """The checkpoint of an ingestion run, stored in the same transaction as the documents that were read.

    `source` names the input and `position` says how far it has been read. `before` is the position that the run
    expects in the store. If another is stored, another run reads the same source, and the write is refused.
    """

    source: str
    before: str | None
    position: str


def next_moment(before: str, change: int) -> str:
    """The moment of a new change, chained to the one before it; see `StoreReader.moment`."""
    return blake2b(f"{before} {change}".encode() + os.urandom(16), digest_size=16).hexdigest()


def is_of_another_history(reader: StoreReader, change: int, moment: str) -> bool:
    """Whether what was made at `change` is of a history that the store has no more: it was put back from a copy.

    False for what is newer than the reader's snapshot, and for what notes no moment.
    """
    return bool(moment) and 0 <= change <= reader.change and not reader.continues(change, moment)


def check_progress(progress: SourceProgress, stored: str | None) -> None:
    """Raise ConflictError if the stored position is not `progress.before`: another run reads the same source."""
    if stored != progress.before:
        raise ConflictError(
            "another run reads the same source", received=f"position {stored}", expected=f"position {progress.before}"
        )


class PassageStore(Protocol):
    """The writing side of the passage store. It is the source of truth for all indexes of a generation."""

    def reader(self) -> StoreReader:
        """A snapshot of the store as it is now. Later writes do not affect it."""
        ...

    def change(self) -> int:
        """The change counter: it grows with every committed write."""
        ...

    def write(
        self, documents: Sequence[PreparedDocument | BulkItem], *, progress: SourceProgress | None = None
    ) -> BulkResult:
        """Insert or update documents in one transaction. A `BulkItem` in `documents` is copied to the result.

        A document whose text and metadata are unchanged is not written again. `progress` is stored in the same
        transaction, so an ingestion run resumes right after the last acknowledged document. Raises ConflictError if
        another run has moved the position.
        """
        ...

    def progress(self, source: str) -> str | None:
        """The stored position of an ingestion source; None if it has never been read."""
        ...

    def sources(self) -> dict[str, str]:
        """Ingestion source → stored position, for all sources."""
        ...

    def delete(self, doc_ids: Sequence[str]) -> BulkResult:
        """Delete documents with their passages in one transaction. Unknown ids get the status `not_found`."""
        ...

    def put_vectors(self, rows: IdArray, vectors: VectorArray, weights: Sequence[TermWeights] = ()) -> int:
        """Store the vectors, shape (n, D), and VDR weights of rows, and put these rows on the full tier.

        Rows that are removed or already encoded are skipped. Returns how many rows were stored.
        """
        ...

    def writer(self) -> AbstractContextManager[None]:
        """A context manager that holds the collection's writer lock. Raises WriterConflictError if another process has
        it.
        """
        ...
