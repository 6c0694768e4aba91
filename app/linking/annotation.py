"""Annotate documents with the entities that they mention.

The entity ids are stored in the documents' metadata, so that searches can use them as facet, filter and boost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from hyblink.app.core.budget import report_of_budget, within_budget
from hyblink.app.core.errors import TooLargeError
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.budget import BudgetReport
from hyblink.app.core.types.collections import Annotation
from hyblink.app.core.types.documents import Document, MetaValue
from hyblink.app.core.types.linking import LinkRequest, Text
from hyblink.app.core.types.search import ANNOTATED_WITH, LINKED_ENTITIES, FacetCount
from hyblink.app.linking.service import LinkService
from hyblink.indexer.ingest.documents import DocumentService

_BATCH = 32
_READ_TOGETHER = 2000
_MOST = 1000
"""The largest number of entities stored for one document; the most often mentioned are kept."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """The outcome of an annotation run: documents read, documents whose metadata changed, links made.

    `skipped` counts documents that are too long or have more mentions than a linking request may have.
    """

    documents: int
    changed: int
    links: int
    skipped: int


def annotate(
    collections: Collections,
    documents: DocumentService,
    linker: LinkService,
    collection: str,
    annotation: Annotation,
    *,
    waiting_only: bool = False,
    max_chars: int = 1_000_000,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Annotated:
    """Link the title and text of every document, and store the entities' ids in its metadata. Idempotent.

    Only metadata is written, so passages and vectors are kept. The field `annotated_with` records the knowledge base
    of a document's annotation; with `waiting_only`, only documents that lack it are read. A document that is changed
    during the run is not overwritten; it stays unannotated until the next run.
    """
    looked = changed = links = skipped = 0
    reader = collections.engine(collection).store.reader()
    found = _waiting(reader, annotation.kb) if waiting_only else (item.document for item in reader.export())
    while not stop() and (batch := list(islice(found, _BATCH))):
        short = [row for row in batch if len(row.title) + len(row.text) < max_chars]
        skipped += len(batch) - len(short)
        counted = _counted(linker, annotation, short)
        skipped += len(short) - len(counted)
        links += sum(sum(own.values()) for own in counted.values())
        entities = {name: [entity for entity, _ in own.most_common(_MOST)] for name, own in counted.items()}
        new = [(row, _with(row, annotation.kb, entities.get(row.id, []))) for row in batch]
        new = [(before, after) for before, after in new if before.metadata != after.metadata]
        if new:
            changed += documents.update_metadata(collection, new)
        looked += len(batch)
        progress(len(batch))
    return Annotated(looked, changed, links, skipped)


def _counted(linker: LinkService, annotation: Annotation, documents: Sequence[Document]) -> dict[str, Counter[str]]:
    """How often each document mentions each entity, by document id.

    A document with more mentions than a linking request may have is omitted.
    """
    if not documents:
        return {}
    texts = tuple(Text(f"{item.title}\n{item.text}") for item in documents)
    request = LinkRequest(texts, shown=0, rerank=False, threshold=annotation.threshold)
    try:
        linked = linker.link(annotation.kb, request).texts
    except TooLargeError:
        if len(documents) == 1:
            return {}
        half = len(documents) // 2
        return _counted(linker, annotation, documents[:half]) | _counted(linker, annotation, documents[half:])
    return {
        document.id: Counter(link.entity_id for link in own.links if link.entity_id is not None)
        for document, own in zip(documents, linked, strict=True)
    }


def _waiting(reader: StoreReader, kb: str) -> Iterator[Document]:
    rows = reader.select(parse_filter({"not": {"term": {ANNOTATED_WITH: kb}}})).rows()
    keys = np.unique(reader.document_keys(rows)) if len(rows) else rows
    for at in range(0, len(keys), _BATCH):
        for doc_id in reader.doc_ids(keys[at : at + _BATCH]):
            document = reader.get_document(doc_id)
            if document is not None:
                yield document


@dataclass(frozen=True, slots=True)
class MentionedIn:
    """A document that mentions an entity."""

    doc_id: str
    title: str


@dataclass(frozen=True, slots=True)
class Mentioned:
    """The documents that mention an entity, and the entities that co-occur with it.

    `documents` is their total number. Each neighbour has the number of documents that it shares with the entity.
    """

    documents: int
    shown: tuple[MentionedIn, ...]
    neighbours: tuple[FacetCount, ...]
    budget: BudgetReport | None = None
    """What the request used of its budget, and what is left out for that reason. None where none is set."""


def mentioned(snapshot: Snapshot, entity_id: str, limit: int = 20) -> Mentioned:
    """Return the documents annotated with an entity, and its co-occurring entities, at most `limit` of each.

    Documents come in the order of their arrival, neighbours by descending count.
    """
    reader = snapshot.reader
    rows = reader.select(parse_filter({"term": {LINKED_ENTITIES: entity_id}})).rows()
    keys, first = np.unique(reader.document_keys(rows), return_index=True)
    passages = reader.passages(rows[first[:limit]])
    shown = tuple(MentionedIn(passages[row].doc_id, passages[row].title) for row in rows[first[:limit]].tolist())
    counted: Counter[str] = Counter()
    for at in range(0, len(keys), _READ_TOGETHER):
        if not within_budget("neighbours in the later documents"):
            break
        for metadata in reader.metadata(keys[at : at + _READ_TOGETHER]):
            found = metadata.get(LINKED_ENTITIES)
            if isinstance(found, list):
                counted.update(result for result in found if result != entity_id)
    best = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:limit]
    neighbours = tuple(FacetCount(name, count) for name, count in best)
    return Mentioned(len(keys), shown, neighbours, report_of_budget())


def _with(document: Document, kb: str, entities: Sequence[str]) -> Document:
    metadata: dict[str, MetaValue] = {key: value for key, value in document.metadata.items() if key != LINKED_ENTITIES}
    metadata[ANNOTATED_WITH] = kb
    if entities:
        metadata[LINKED_ENTITIES] = list(entities)
    return replace(document, metadata=metadata)
