"""Bodies for collections."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    Field,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import StrictBody
from hyblink.app.core.names import COLLECTION_PATTERN
from hyblink.app.core.types.collections import CollectionSpec


class CollectionBody(StrictBody):
    """A collection to create."""

    name: StrictStr = Field(pattern=COLLECTION_PATTERN)
    analyzer: Literal["english", "standard"] = "english"
    dense_encoder: Literal["default", "none"] = Field(
        "default", description="`none` makes a collection without vectors."
    )
    dense_index: Literal["auto", "flat", "hnsw", "ivf,sq8", "ivf,pq", "knn"] = "auto"
    chunk_chars: StrictInt = Field(
        1200, ge=0, le=100_000, description="Characters of a passage; 0 keeps documents whole."
    )
    chunk_overlap_chars: StrictInt = Field(150, ge=0, le=50_000)
    kind: Literal["passages", "entities"] = Field(
        "passages", description="`entities` makes a knowledge base: entities are kept whole, whatever chunk_chars says."
    )

    annotate_with: StrictStr | None = Field(
        None,
        pattern=COLLECTION_PATTERN,
        description="A knowledge base: documents are annotated with its entities as they come.",
    )

    def spec(self) -> CollectionSpec:
        """Return the spec of the collection to create."""
        chosen = self.model_dump(exclude={"annotate_with"})
        if self.kind == "entities":
            chosen |= {"chunk_chars": 0, "chunk_overlap_chars": 0}
        return CollectionSpec(**chosen)


class NameBody(StrictBody):
    """The name of a new collection."""

    name: StrictStr = Field(pattern=COLLECTION_PATTERN)


class ChangedAnswer(BaseModel):
    """A collection that was copied, renamed, emptied or removed, and its number of documents before."""

    name: str
    documents: int


class CollectionAnswer(BaseModel):
    """A collection, with its encoders and its numbers of documents and passages."""

    name: str
    kind: Literal["passages", "entities"]
    analyzer: str
    generation: str
    documents: int
    passages: int
    encoded: int
    dense_encoder: str
    vdr_encoder: str


class CollectionsAnswer(BaseModel):
    """All collections that the caller may search."""

    collections: list[CollectionAnswer]
