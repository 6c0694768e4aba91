"""Request and answer bodies. Requests are strict: unknown fields and wrong types are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from app.core.settings import SearchSettings
from app.core.types import (
    FusionName,
    NormalizationName,
    RerankRequest,
    SearchRequest,
    Signal,
    VdrMode,
)

COLLECTION = Field("default", description="The collection that is asked.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
Leg = Literal[Signal.BM25, Signal.VDR, Signal.DENSE]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False, strict=True)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RerankBody(_Body):
    """How much to re-rank."""

    top: StrictInt | None = Field(None, ge=1, le=10_000, description="The first so many documents.")
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Time for it; what was not reached keeps its order after the rest."
    )


class SearchBody(_Body):
    """A search."""

    query: StrictStr = Field(min_length=1, max_length=100_000, description="What is looked for.")
    collection: StrictStr = COLLECTION
    k: StrictInt = Field(10, ge=1, le=100_000, description="Documents on the page.")
    offset: StrictInt = Field(0, ge=0, le=100_000, description="Documents before the page.")
    candidates: StrictInt | None = Field(
        None, ge=1, le=100_000, description="Passages that each leg proposes. Pages are cut from their union."
    )
    signals: list[Leg] = Field(
        [Signal.BM25, Signal.VDR, Signal.DENSE], min_length=1, max_length=3, description="The legs to run."
    )
    filter: dict[str, Any] | None = Field(
        None, description='Such as {"term": {"kind": "function"}}; see docs/search.md.'
    )
    facets: list[StrictStr] = Field([], max_length=20, description="Metadata keys to count over the candidates.")
    explain: StrictBool = Field(False, description="Add each token's contribution to every signal.")
    highlight: StrictBool = Field(True, description="Add the spans where the query's words stand.")
    passages_per_document: StrictInt = Field(3, ge=1, le=20, description="Best passages shown of each document.")
    deadline_ms: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Time that the legs have together."
    )
    fusion: FusionName | None = Field(None, description="Instead of the ranking profile's.")
    normalization: NormalizationName | None = Field(None, description="Instead of the ranking profile's.")
    weights: dict[Signal, Weight] | None = Field(None, description="Instead of the ranking profile's.")
    vdr: VdrMode | None = Field(
        None,
        description="What the VDR signal multiplies. `full`: encoded query, encoded passage; `alpha`: the query's own "
        "tokens, encoded passage; `beta`: encoded query, the passage's bag of tokens; `bag`: both as bags; `auto`.",
    )
    rerank: RerankBody | StrictBool | None = Field(
        None,
        description="Re-rank by the cross-encoder: true, or how much; false for not at all; else as the server is set.",
    )

    def request(self, settings: SearchSettings) -> SearchRequest:
        """The use case's form of the search."""
        wanted = settings.rerank if self.rerank is None else self.rerank
        body = wanted if isinstance(wanted, RerankBody) else RerankBody()
        rerank = RerankRequest(body.top or settings.rerank_top, body.budget_ms or settings.rerank_budget_ms)
        return SearchRequest(
            query=self.query,
            k=self.k,
            offset=self.offset,
            candidates=self.candidates or settings.candidates,
            signals=tuple(self.signals),
            filter=self.filter,
            facets=tuple(self.facets),
            explain=self.explain,
            highlight=self.highlight,
            passages_per_document=self.passages_per_document,
            deadline_ms=self.deadline_ms,
            fusion=self.fusion,
            normalization=self.normalization,
            weights=self.weights,
            vdr=self.vdr,
            rerank=rerank if wanted else None,
        )


class ExplainBody(SearchBody):
    """A search, and a document: where does it stand, and where was it lost?"""

    document_id: StrictStr = Field(min_length=1, max_length=512)


class VocabularyBody(_Body):
    """A text to read out over the vocabulary, alone or against a passage."""

    text: StrictStr = Field(min_length=1, max_length=100_000)
    passage: StrictStr | None = Field(None, min_length=1, max_length=100_000, description="What it is compared with.")
    collection: StrictStr = COLLECTION
    top: StrictInt = Field(50, ge=1, le=1000, description="Tokens shown.")


class BulkBody(_Body):
    """Documents to upsert. Each is checked by itself: a bad one is reported in its place, the others are stored."""

    documents: list[Any] = Field(
        description="Objects with id, title, text, lang, metadata.",
        json_schema_extra={
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string", "minLength": 1, "maxLength": 512},
                    "title": {"type": "string", "maxLength": 4096},
                    "text": {"type": "string"},
                    "lang": {"type": "string"},
                    "metadata": {"type": "object"},
                },
            }
        },
    )


class CollectionBody(_Body):
    """A collection to make."""

    name: StrictStr = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    analyzer: Literal["english", "standard"] = "english"
    dense_encoder: Literal["default", "none"] = Field(
        "default", description="`none` makes a collection without vectors."
    )
    dense_index: Literal["auto", "flat", "hnsw", "ivf,sq8", "ivf,pq", "knn"] = "auto"
    chunk_chars: StrictInt = Field(
        1200, ge=0, le=100_000, description="Characters of a passage; 0 keeps documents whole."
    )
    chunk_overlap_chars: StrictInt = Field(150, ge=0, le=50_000)


class ErrorDetail(BaseModel):
    """What went wrong. `code` is stable."""

    code: str
    message: str
    received: str | None = None
    expected: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class CollectionAnswer(BaseModel):
    """A collection and what it holds."""

    name: str
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


class BulkItemAnswer(BaseModel):
    """The fate of one document, in the request's order."""

    id: str
    status: Literal["created", "updated", "unchanged", "deleted", "not_found", "rejected"]
    passages: int
    code: str
    message: str


class BulkAnswer(BaseModel):
    """A bulk request's outcome. The next search sees all of it."""

    errors: bool
    generation: str
    change: int
    items: list[BulkItemAnswer]


class DocumentAnswer(BaseModel):
    """A document as it was sent."""

    id: str
    title: str
    text: str
    lang: str
    metadata: dict[str, Any]


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: Literal["ok"]


class ReadyAnswer(BaseModel):
    """Whether requests can be answered, and what is missing where they cannot."""

    ready: bool
    problems: list[str]
    collections: dict[str, str]
