"""The data model: what passes between the layers. Frozen, slotted, no behaviour beyond small derivations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NewType

import numpy as np
import numpy.typing as npt

DocId = NewType("DocId", str)
PassageRow = NewType("PassageRow", int)
"""The store's own 64-bit id of a passage. Never reused: a changed document gets new rows."""

FIRST_RANK = 1
"""Ranks are counted from one, as in TREC run files and in the RRF formula."""

MetaScalar = str | int | float | bool
MetaValue = MetaScalar | dt.date | dt.datetime | list[str]
Metadata = Mapping[str, MetaValue]

IdArray = npt.NDArray[np.int64]
ScoreArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
VectorArray = npt.NDArray[np.float32]
"""Shape (n, dimension), L2-normalised where the encoder says so."""


class Signal(StrEnum):
    """The ways in which a passage can match a query."""

    BM25 = "bm25"
    VDR = "vdr"
    DENSE = "dense"
    CROSS = "cross"
    PRIOR = "prior"
    CONTEXT = "context"
    COHERENCE = "coherence"
    EVIDENCE = "evidence"
    ENTITY = "entity"


ALL_SIGNALS: tuple[Signal, ...] = (Signal.BM25, Signal.VDR, Signal.DENSE)
"""The signals that propose passages. `cross` only re-ranks what they found; the others are for entities alone."""


class SparseForm(StrEnum):
    """A passage's term weights: its bag of tokens, which every passage has, or what the VDR encoder made of it."""

    BAG = "bag"
    VDR = "vdr"


VdrMode = Literal["auto", "full", "alpha", "beta", "bag"]
"""Which forms the VDR signal multiplies (Zhou et al. 2024, section 3.4).

`full`: encoded query, encoded passage. `alpha`: the query's own tokens, encoded passage (the query needs no encoder).
`beta`: encoded query, the passage's bag of tokens (searchable before it is encoded). `bag`: both as bags of tokens, the
query's weighted by idf. `auto`: what the encoder does best; `bag` where there is none.
"""


class Tier(StrEnum):
    """How far a passage has come: searchable by words and bag of tokens, or by everything."""

    INSTANT = "instant"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Document:
    """What a user gives us. `metadata` is flat: strings, numbers, booleans, dates, lists of strings."""

    id: DocId
    text: str
    title: str = ""
    lang: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A window of a text by code points: `start` inclusive, `end` exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A window of a document, as the store holds it. `text` is `document.text[start:end]`."""

    row: PassageRow
    doc_id: DocId
    ordinal: int
    start: int
    end: int
    title: str
    text: str
    tier: Tier

    @property
    def id(self) -> str:
        """The passage's public id, `doc_id#ordinal`."""
        return f"{self.doc_id}#{self.ordinal}"

    @property
    def content(self) -> str:
        """What BM25 and the bag of tokens see: title, then text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class TermWeights:
    """A sparse vector over a vocabulary. `ids` ascend without repeats; `weights` are > 0, 9 significant bits."""

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenIdf:
    """The idf of a query's tokens over a collection's passages; tokens that it has not are left out.

    `vocabulary` is the id of the bag encoder whose tokens they are.
    """

    vocabulary: str
    terms: TermWeights


@dataclass(frozen=True, slots=True)
class TermBatch:
    """Term weights of N rows, which ascend: row n has `ids[offsets[n]:offsets[n + 1]]`.

    `weights` stand beside `ids`, or are empty where all are 1.
    """

    rows: IdArray
    offsets: IdArray
    ids: npt.NDArray[np.int32]
    weights: ScoreArray


@dataclass(frozen=True, slots=True)
class Scored:
    """What a leg proposes: rows with their scores, best first, ties by ascending row."""

    rows: IdArray
    scores: ScoreArray

    def __len__(self) -> int:
        return len(self.rows)


EMPTY = Scored(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
"""Nothing proposed."""


@dataclass(frozen=True, slots=True)
class TokenContribution:
    """One token's share of a signal: `query_weight * passage_weight = contribution` for sparse signals."""

    token: str
    contribution: float
    query_weight: float
    passage_weight: float


@dataclass(frozen=True, slots=True)
class SignalValue:
    """One line of the score ledger.

    `raw` is None where the signal does not exist for the passage (not encoded yet, or the leg failed): then
    `normalised` and `contribution` are 0 and `note` says why. `leg_rank` is the rank in the leg's own list,
    None where only another leg proposed the passage.
    """

    signal: Signal
    raw: float | None
    normalised: float
    weight: float
    contribution: float
    leg_rank: int | None
    note: str = ""
    tokens: tuple[TokenContribution, ...] = ()


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


FusionName = Literal["weighted_sum", "rrf", "comb_sum", "comb_mnz", "isr"]
NormalizationName = Literal["min_max", "z_score", "l2", "theoretical", "none"]


SHIPPED_CROSS_WEIGHT = 0.7
"""How much re-ranking adds, unless a profile or a request says otherwise."""


@dataclass(frozen=True, slots=True)
class RankingProfile:
    """How signals become one score. Versioned per collection; written by hand or by tuning."""

    name: str = "default"
    version: int = 0
    fusion: FusionName = "weighted_sum"
    normalization: NormalizationName = "z_score"
    weights: Mapping[Signal, float] = field(
        default_factory=lambda: {
            Signal.BM25: 0.3,
            Signal.VDR: 0.2,
            Signal.DENSE: 0.5,
            Signal.CROSS: SHIPPED_CROSS_WEIGHT,
        }
    )
    rrf_k: float = 60.0
    vdr: VdrMode = "auto"
    origin: str = "shipped default: near what tuning finds on four English training sets (docs/benchmarks.md)"

    @property
    def cross_weight(self) -> float:
        """The cross-encoder's weight; the shipped one where the profile is from before there was re-ranking."""
        return float(self.weights.get(Signal.CROSS, SHIPPED_CROSS_WEIGHT))


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Re-ranking by the cross-encoder: so many of the best documents, within so much time."""

    top: int = 50
    budget_ms: float = 1000.0


@dataclass(frozen=True, slots=True)
class RerankReport:
    """What became of re-ranking. `skipped` documents stand after the re-ranked ones, in their old order."""

    model: str
    asked: int
    scored: int
    skipped: int
    took_ms: float
    error: str = ""


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
    signals: tuple[Signal, ...] = ALL_SIGNALS
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


@dataclass(frozen=True, slots=True)
class BulkItem:
    """The fate of one document of a bulk request, in the request's order."""

    id: str
    status: Literal["created", "updated", "unchanged", "deleted", "not_found", "rejected"]
    passages: int = 0
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """A bulk request's outcome. `change` is the store's counter after it: the next search sees it all."""

    items: tuple[BulkItem, ...]
    change: int
    rows: tuple[int, ...] = ()
    """Rows of the passages written, for the encode queue."""

    @property
    def errors(self) -> bool:
        return any(item.status == "rejected" for item in self.items)


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """What a store holds."""

    documents: int
    passages: int
    encoded: int
    change: int


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """A collection's fixed choices. What is bound to vectors lives in the generation."""

    name: str
    kind: Literal["passages", "entities"] = "passages"
    analyzer: str = "english"
    dense_encoder: str = "default"
    vdr_encoder: str = "default"
    dense_index: str = "auto"
    chunk_chars: int = 1200
    chunk_overlap_chars: int = 150


@dataclass(frozen=True, slots=True)
class Annotation:
    """A collection's documents are to be annotated with the entities of this knowledge base as they come."""

    kb: str
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """What one generation binds. Immutable once published."""

    id: str
    collection: str
    created: str
    schema_version: int
    analyzer: str
    dense_encoder: str
    dense_dimension: int
    vdr_encoder: str
    dense_index: str
    parent: str = ""
    note: str = ""
    vdr_model: str = ""
    """The encoder of VDR weights; empty where passages have bags of tokens only. `vdr_encoder` is their vocabulary."""


def as_rows(values: Sequence[int] | IdArray) -> IdArray:
    """Row ids as an int64 array of shape (n,)."""
    return np.asarray(values, dtype=np.int64)
