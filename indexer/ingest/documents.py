"""The documents use case: bulk upsert, delete and read.

When a call returns, its writes are durable and visible to the next search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError, NotFoundError, TooLargeError, UserError
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.ports.jobs import Jobs
from hyblink.app.core.ports.store import PreparedDocument, SourceProgress
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document
from hyblink.indexer.ingest.prepare import parse_document, prepare, rejected


class DocumentService:
    """Writes documents to the current generation of a collection and queues encoding of their passages."""

    def __init__(
        self,
        collections: Collections,
        bag: Callable[[str], BagEncoder],
        jobs: Jobs,
        *,
        max_document_chars: int,
        max_bulk_documents: int,
    ) -> None:
        self._collections = collections
        self._bag = bag
        self._jobs = jobs
        self._max_chars = max_document_chars
        self._max_bulk = max_bulk_documents

    def spec(self, collection: str) -> CollectionSpec:
        """The settings of a collection. Raises NotFoundError."""
        return self._collections.spec(collection)

    def bulk(self, collection: str, rows: Sequence[object], *, encode: bool = True) -> BulkResult:
        """Upsert JSON objects. The result has one item per object, in order; bad objects are items with an error.

        With `encode` the passages are queued for the dense encoder. Raises InvalidInputError or TooLargeError only if
        the request as a whole is bad.
        """
        if not isinstance(rows, list):
            raise InvalidInputError("documents has the wrong type", received=rows, expected="a list of objects")
        if len(rows) > self._max_bulk:
            raise TooLargeError("too many documents", received=len(rows), expected=f"at most {self._max_bulk}")
        documents: list[Document | BulkItem] = []
        for row in rows:
            try:
                documents.append(parse_document(row, self._max_chars))
            except UserError as error:
                documents.append(rejected(row.get("id") if isinstance(row, dict) else None, error))
        return self.upsert(collection, documents, encode=encode)

    def upsert(
        self,
        collection: str,
        documents: Sequence[Document | BulkItem],
        *,
        encode: bool = True,
        progress: SourceProgress | None = None,
    ) -> BulkResult:
        """Upsert documents in one transaction; rejected items are passed through to the result.

        `progress` stores the read position of a source in the same transaction. With `encode` the passages are queued
        for the dense encoder. Annotation is queued if the collection has a knowledge base for it.
        """
        spec = self._collections.spec(collection)
        prepared: list[PreparedDocument | BulkItem] | None = None
        bag_id = ""
        while True:
            engine = self._collections.engine(collection)
            if prepared is None or bag_id != engine.record.vdr_encoder:
                bag_id = engine.record.vdr_encoder
                prepared = prepare(documents, spec, self._bag(bag_id))
            with engine.store.writer():
                if self._collections.current(collection) != engine.record.id:
                    continue  # another generation was published while this write waited for the lock
                result = engine.store.write(prepared, progress=progress)
            if encode and engine.record.dense_dimension:
                self._jobs.encode(collection, engine.record.id, result.rows)
            if self._collections.annotation(collection) is not None:
                self._jobs.annotate(collection)
            return result

    def update_metadata(self, collection: str, changes: Sequence[tuple[Document, Document]]) -> int:
        """Replace documents by versions with other metadata; returns how many were replaced.

        `changes` holds pairs (document as read, new document). A document that was changed or deleted since it was read
        is left alone.
        """
        spec = self._collections.spec(collection)
        while True:
            engine = self._collections.engine(collection)
            with engine.store.writer():
                if self._collections.current(collection) != engine.record.id:
                    continue
                reader = engine.store.reader()
                new = [after for before, after in changes if reader.get_document(before.id) == before]
                engine.store.write(prepare(new, spec, self._bag(engine.record.vdr_encoder)))
            return len(new)

    def delete(self, collection: str, doc_ids: Sequence[str], *, everywhere: bool = False) -> BulkResult:
        """Delete documents by id. Unknown ids are reported as not found in the result.

        With `everywhere` they are deleted from all generations, so that a rollback does not restore them.
        """
        for doc_id in doc_ids:
            check_text(doc_id, "id")
        while True:
            engine = self._collections.engine(collection)
            with engine.store.writer():
                if self._collections.current(collection) != engine.record.id:
                    continue
                others = [item.id for item in self._collections.generations(collection)] if everywhere else []
                for generation in others:
                    if generation != engine.record.id:
                        other = self._collections.engine(collection, generation)
                        with other.store.writer():
                            other.store.delete(doc_ids)
                return engine.store.delete(doc_ids)

    def get(self, collection: str, doc_id: str) -> Document:
        """The stored document. Raises NotFoundError."""
        check_text(doc_id, "id")
        document = self._collections.engine(collection).snapshot().reader.get_document(doc_id)
        if document is None:
            raise NotFoundError("no such document", received=doc_id)
        return document
