"""Bodies for searches, explanations and vocabulary weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody
from hyblink.app.api.schemas.signals import AnySignal, Leg, Weight
from hyblink.app.core.names import COLLECTION_PATTERN
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.ranking import (
    DEFAULT_SIGNALS,
    FusionName,
    NormalizationName,
    RerankRequest,
    VdrMode,
)
from hyblink.app.core.types.search import SearchRequest


class RerankBody(StrictBody):
    """Options for re-ranking the top documents."""

    top: StrictInt | None = Field(None, ge=1, le=10_000, description="The first so many documents.")
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Time for it; what was not reached keeps its order after the rest."
    )


class EntitiesUseBody(StrictBody):
    """Link the query, and filter or boost documents by its entities. `hyblink annotate` annotates documents."""

    kb: StrictStr = Field("entities", description="The knowledge base.", pattern=COLLECTION_PATTERN)
    mode: Literal["boost", "filter"] = Field(
        "boost", description="Add to documents that mention them, or leave only those. Nothing where none is mentioned."
    )
    weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)] = Field(
        0.2, description="How much they add, beside the signals' weights."
    )
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = Field(
        None, description="Least probability of a link; by default the knowledge base's own."
    )
    evidence: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)] = Field(
        0.0, description="How much the entities of the best documents count for what the query mentions."
    )


class SearchBody(StrictBody):
    """A search."""

    query: StrictStr = Field(min_length=1, max_length=100_000, description="What is looked for.")
    collection: StrictStr = COLLECTION
    k: StrictInt = Field(10, ge=1, le=100_000, description="Documents on the page.")
    offset: StrictInt = Field(0, ge=0, le=100_000, description="Documents before the page.")
    candidates: StrictInt | None = Field(
        None, ge=1, le=100_000, description="Passages that each leg proposes. Pages are cut from their union."
    )
    signals: list[Leg] = Field(list(DEFAULT_SIGNALS), min_length=1, max_length=100, description="The legs to run.")
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
    weights: dict[AnySignal, Weight] | None = Field(None, description="Instead of the ranking profile's.")
    vdr: VdrMode | None = Field(
        None,
        description="What the VDR signal multiplies. `full`: encoded query, encoded passage; `alpha`: the query's own "
        "tokens, encoded passage; `beta`: encoded query, the passage's bag of tokens; `bag`: both as bags; `auto`.",
    )
    generation: StrictStr | None = Field(
        None, pattern=r"^g\d{6}$", description="Ask this generation instead of the current one; for administrators."
    )
    log: StrictBool = Field(
        False, description="Keep query and page, so that clicks can refer to it by the answer's `search_id`."
    )
    entities: EntitiesUseBody | None = Field(
        None, description="Boost or filter by the entities that the query mentions."
    )
    rerank: RerankBody | StrictBool | None = Field(
        None,
        description="Re-rank: true, or how much; false for not at all; else as the server is set.",
    )

    def request(self, settings: SearchSettings) -> SearchRequest:
        """Return the body as a `SearchRequest`, with defaults from the settings."""
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
            generation=self.generation,
        )


class ExplainBody(SearchBody):
    """A search request, and the document whose rank is to be explained."""

    document_id: StrictStr = Field(min_length=1, max_length=512)


class VocabularyBody(StrictBody):
    """A text whose VDR weights over the vocabulary are requested, optionally compared with a passage."""

    text: StrictStr = Field(min_length=1, max_length=100_000)
    passage: StrictStr | None = Field(None, min_length=1, max_length=100_000, description="What it is compared with.")
    collection: StrictStr = COLLECTION
    top: StrictInt = Field(50, ge=1, le=1000, description="Tokens shown.")
