"""A search request and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hyblink.app.core.types.budget import BudgetReport
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
    """A passage in a result, with its score and the parts of it by signal. `highlights` are spans within `text`."""

    passage_id: str
    ordinal: int
    start: int
    end: int
    text: str
    score: float
    tier: Tier
    signals: tuple[SignalValue, ...]
    highlights: tuple[Span, ...] = ()
    path: tuple[str, ...] = ()
    """The headings over it, outermost first."""
    place: str = ""
    """Where it is in the original, such as `page 3`; empty if it has no place of its own."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document in a result. Its score is that of its best passage. `passages` are its best ones, best first."""

    rank: int
    doc_id: DocId
    title: str
    score: float
    metadata: Metadata
    passages: tuple[PassageHit, ...]


@dataclass(frozen=True, slots=True)
class LegReport:
    """What one first-stage retriever ("leg") did: its time and number of candidates.

    `error` is empty if it answered before the deadline.
    """

    signal: Signal
    took_ms: float
    candidates: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class WaitingReport:
    """What was done about candidate passages that are not encoded yet.

    `encoded` of them were encoded for this search, best first, in `took_ms`. The scores of the other `estimated` ones
    are estimated from their other signals.
    """

    encoded: int
    estimated: int
    took_ms: float


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many documents of the candidate pool have a metadata value."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class LinkedEntity:
    """An entity that the query was linked to, and the probability of that link."""

    id: str
    title: str
    probability: float


LINKED_ENTITIES = "linked_entities"
"""The metadata key for the ids of the entities that a document was annotated with."""

ANNOTATED_WITH = "annotated_with"
"""The metadata key for the name of the knowledge base that a document was annotated with."""


@dataclass(frozen=True, slots=True)
class EntityUse:
    """How the query's entities affect the ranking.

    `boost` adds to the scores of documents annotated with them, scaled by `weight`. `filter` keeps only documents
    annotated with them.
    """

    entities: tuple[LinkedEntity, ...] = ()
    mode: Literal["boost", "filter"] = "boost"
    weight: float = 0.2


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search request. The HTTP API and the command line have checked the types; the search service checks ranges.

    `k` and `offset` count documents. `candidates` is the number of passages that each first-stage signal retrieves.
    None means the value of the settings or of the ranking profile.
    """

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
    """Search this generation instead of the current one, for example to inspect one before it is published."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page of a search result, computed on one snapshot of one generation.

    `change` is the snapshot's change counter. `missing` lists the signals that could not be used.
    """

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
    """The entities that the query was linked to, if the request asked for that."""
    waiting: WaitingReport | None = None
    """What was done about candidates that are not encoded yet; None if all are."""
    search_id: str = ""
    """The id by which click events refer to this page; empty if the search was not logged."""
    budget: BudgetReport | None = None
    """What the request used of its budget, and what is left out for that reason. None where none is set."""
