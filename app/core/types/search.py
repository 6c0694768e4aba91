"""A search and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hyblink.app.core.types.documents import DocId, Metadata, Span, Tier
from hyblink.app.core.types.ranking import (
    DEFAULT_SIGNALS,
    FusionName,
    NormalizationName,
    RankingProfile,
    RerankReport,
    RerankRequest,
    Signal,
    SignalValue,
    VdrMode,
)


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A passage in a result, with its own score and ledger. `highlights` are spans within `text`."""

    passage_id: str
    ordinal: int
    start: int
    end: int
    text: str
    score: float
    tier: Tier
    signals: tuple[SignalValue, ...]
    highlights: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A document in a result. Its score is that of its best passage; the best passages follow."""

    rank: int
    doc_id: DocId
    title: str
    score: float
    metadata: Metadata
    passages: tuple[PassageHit, ...]


@dataclass(frozen=True, slots=True)
class LegReport:
    """How one leg fared. `error` is empty where it answered in time."""

    signal: Signal
    took_ms: float
    candidates: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many documents of the candidate pool carry a metadata value."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class LinkedEntity:
    """An entity that a query was linked to, and how probable that is."""

    id: str
    title: str
    probability: float


LINKED_ENTITIES = "linked_entities"
"""The metadata key that holds the entities which a document was annotated with."""

ANNOTATED_WITH = "annotated_with"
"""The metadata key that holds the knowledge base which a document was annotated with."""


@dataclass(frozen=True, slots=True)
class EntityUse:
    """What a query's entities do: add to documents annotated with them, by `weight`, or leave only such documents."""

    entities: tuple[LinkedEntity, ...] = ()
    mode: Literal["boost", "filter"] = "boost"
    weight: float = 0.2


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as the use case takes it; the doors have validated types, the use case checks ranges."""

    query: str
    k: int = 10
    offset: int = 0
    candidates: int = 200
    signals: tuple[Signal, ...] = DEFAULT_SIGNALS
    filter: object | None = None
    facets: tuple[str, ...] = ()
    explain: bool = False
    highlight: bool = True
    passages_per_document: int = 3
    deadline_ms: float | None = None
    fusion: FusionName | None = None
    normalization: NormalizationName | None = None
    weights: Mapping[Signal, float] | None = None
    vdr: VdrMode | None = None
    rerank: RerankRequest | None = None
    entities: EntityUse | None = None
    generation: str | None = None
    """Ask this generation instead of the current one: to look at one before it is published, or after."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page of a result. It was answered by exactly one generation, which it names."""

    hits: tuple[Hit, ...]
    pool_size: int
    pool_documents: int
    generation: str
    change: int
    profile: RankingProfile
    legs: tuple[LegReport, ...]
    missing: tuple[Signal, ...]
    facets: Mapping[str, tuple[FacetCount, ...]]
    timings_ms: Mapping[str, float]
    rerank: RerankReport | None = None
    entities: tuple[LinkedEntity, ...] = ()
    """What the query was linked to, where that was asked."""
    search_id: str = ""
    """By which clicks refer to this page, where it was logged."""
