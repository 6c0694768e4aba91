"""How a generation's passages and documents stand in their two indexes.

Every version of a document has a `key` of its own, never used twice, and its passages the rows `key << 20 | ordinal`.
A version belongs to the changes from `change` up to but without `removed`: a reader looks at one change, so it sees all
of a write or nothing, and goes on seeing what it saw when somebody writes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.checks import fold
from hyblink.app.core.types.arrays import IdArray, TermWeights, VectorArray
from hyblink.app.core.types.documents import DocId, Document, Metadata, Passage, PassageRow, Tier
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Json

ORDINAL_BITS = 20
MAX_PASSAGES = 1 << ORDINAL_BITS
"""Passages that one document can have."""

BAG = "bag"
VDR = "vdr"
"""The VDR encoder's weights."""

NEVER = 2**62
"""A change that never comes."""


@dataclass(frozen=True, slots=True)
class Names:
    """The indexes of a generation, and under which alias the writer of a term writes."""

    passages: str
    documents: str

    @staticmethod
    def of(prefix: str, collection: str, generation: str) -> Names:
        return Names(f"{prefix}-passages-{collection}-{generation}", f"{prefix}-documents-{collection}-{generation}")

    def written(self, term: int) -> Names:
        """The aliases that a writer uses: nobody can write under them once the next writer has a term."""
        return Names(f"{self.passages}-w{term}", f"{self.documents}-w{term}")


def rows_of(key: int, passages: int) -> IdArray:
    """The rows of a document's passages."""
    return (key << ORDINAL_BITS) + np.arange(passages, dtype=np.int64)


def weights_field(terms: TermWeights) -> dict[str, float]:
    """Term weights as a `rank_features` object, keyed by token id.

    Lucene keeps nine significant bits of a weight, the ones that `app.core.weights` leaves: nothing more is lost.
    """
    return {str(token): weight for token, weight in zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)}


def read_weights(field: Mapping[str, float]) -> TermWeights:
    """What `weights_field` wrote."""
    ids = np.fromiter((int(token) for token in field), dtype=np.int32, count=len(field))
    weights = np.fromiter(field.values(), dtype=np.float32, count=len(field))
    order = np.argsort(ids)
    return TermWeights(ids[order], weights[order])


def vector_field(vector: VectorArray) -> str:
    """A vector as float16 bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f2").tobytes()).decode()


def read_vector(field: str) -> VectorArray:
    """What `vector_field` wrote, as float32."""
    return np.frombuffer(base64.b64decode(field), dtype="<f2").astype(np.float32)


def document_source(document: Document, key: int, passages: int, content_hash: str, change: int) -> Json:
    """The document index's entry of one version."""
    return {
        "key": key,
        "doc_id": document.id,
        "title": document.title,
        "text": document.text,
        "lang": document.lang,
        "metadata": dict(document.metadata),
        "content_hash": content_hash,
        "passages": passages,
        "change": change,
    }


def passage_sources(
    document: Document, key: int, windows: tuple[tuple[int, int], ...], bags: tuple[TermWeights, ...], change: int
) -> Iterator[tuple[int, Json]]:
    """The passage index's entries of one version: (row, source).

    What is analyzed is the NFC form of title and text; the text as it was sent is kept beside it where it differs.
    """
    folded_title = fold(document.title)
    shared = {
        "doc_id": document.id,
        "title": document.title,
        "lang": document.lang,
        "tier": Tier.INSTANT.value,
        "change": change,
        **build.metadata_fields(document.metadata),
    }
    for ordinal, ((start, end), bag) in enumerate(zip(windows, bags, strict=True)):
        text = document.text[start:end]
        folded = fold(text)
        source = {
            **shared,
            "row": key << ORDINAL_BITS | ordinal,
            "ordinal": ordinal,
            "start": start,
            "end": end,
            "content": f"{folded_title}\n{folded}" if folded_title else folded,
            BAG: weights_field(bag),
        }
        if folded != text:
            source["text"] = text
        yield source["row"], source


PASSAGE_FIELDS = ["row", "doc_id", "ordinal", "start", "end", "title", "text", "content", "vector_change", "metadata"]
"""What `read_passage` needs of a source."""


def read_passage(source: Mapping[str, object], change: int) -> Passage:
    """A passage as it was at a change."""
    fields: Json = dict(source)
    title = fields["title"]
    text = fields.get("text")
    if text is None:
        folded = fold(title)
        text = fields["content"][len(folded) + 1 :] if folded else fields["content"]
    return Passage(
        PassageRow(fields["row"]),
        DocId(fields["doc_id"]),
        fields["ordinal"],
        fields["start"],
        fields["end"],
        title,
        text,
        Tier.FULL if fields.get("vector_change", NEVER) <= change else Tier.INSTANT,
    )


def read_document(source: Mapping[str, object]) -> Document:
    """The document of an entry."""
    fields: Json = dict(source)
    metadata: Metadata = fields["metadata"]
    return Document(DocId(fields["doc_id"]), fields["text"], fields["title"], fields["lang"], metadata)


def is_visible(source: Mapping[str, object], change: int) -> bool:
    """Whether an entry belongs to a change."""
    fields: Json = dict(source)
    removed = fields.get("removed")
    return bool(fields["change"] <= change and (removed is None or removed > change))
