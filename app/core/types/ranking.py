"""Ranking signals, the per-signal breakdown of a score, ranking profiles, re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic_core import core_schema

from hyblink.app.core.types.arrays import IdArray, ScoreArray

FIRST_RANK = 1
"""Ranks count from 1, as in the formula of reciprocal rank fusion."""


class Signal(str):
    """The name of a ranking signal, such as BM25 or dense similarity. `ranker/signals` defines the signals.

    Equal names are the same object.

    >>> Signal("bm25") is Signal.BM25, f"{Signal.DENSE}"
    (True, 'dense')
    """

    BM25: ClassVar[Signal]
    VDR: ClassVar[Signal]
    DENSE: ClassVar[Signal]
    CROSS: ClassVar[Signal]
    PRIOR: ClassVar[Signal]
    CONTEXT: ClassVar[Signal]
    COHERENCE: ClassVar[Signal]
    EVIDENCE: ClassVar[Signal]
    ENTITY: ClassVar[Signal]

    _known: ClassVar[dict[str, Signal]] = {}

    def __new__(cls, name: str) -> Self:
        return cls._known.setdefault(name, super().__new__(cls, name))  # type: ignore[return-value]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        """The pydantic schema: a signal is its name as a string."""
        del source, handler
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(strict=True))

    @property
    def value(self) -> str:
        """The name as a plain string."""
        return str.__str__(self)


Signal.BM25, Signal.VDR, Signal.DENSE = Signal("bm25"), Signal("vdr"), Signal("dense")
Signal.CROSS, Signal.PRIOR, Signal.CONTEXT = Signal("cross"), Signal("prior"), Signal("context")
Signal.COHERENCE, Signal.EVIDENCE, Signal.ENTITY = Signal("coherence"), Signal("evidence"), Signal("entity")

DEFAULT_SIGNALS: tuple[Signal, ...] = (Signal.BM25, Signal.VDR, Signal.DENSE)
"""The first-stage signals that retrieve candidates unless a search request names others."""


VdrMode = Literal["auto", "full", "alpha", "beta", "bag"]
"""Which query and passage vectors the VDR signal's dot product uses (Zhou et al. 2024, section 3.4).

`full`: encoded query, encoded passage. `alpha`: the query's bag of tokens, encoded passage (the query needs no
encoder). `beta`: encoded query, the passage's bag of tokens (works before the passage is encoded). `bag`: bags of
tokens on both sides, the query's weighted by idf. `auto`: the mode that the generation's VDR encoder recommends, or
`bag` without one.
"""


@dataclass(frozen=True, slots=True)
class Scored:
    """The ranked list of one first-stage retriever: row ids and scores, best first, ties by ascending row."""

    rows: IdArray
    scores: ScoreArray

    def __len__(self) -> int:
        return len(self.rows)


EMPTY = Scored(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
"""An empty ranked list."""


@dataclass(frozen=True, slots=True)
class TokenContribution:
    """One token's share of a signal's score. For sparse signals it is `query_weight * passage_weight`."""

    token: str
    contribution: float
    query_weight: float
    passage_weight: float


@dataclass(frozen=True, slots=True)
class SignalValue:
    """One signal's part of a passage's fused score. The contributions of all signals sum to the score.

    `raw` is None if the signal has no score for the passage, because it is not encoded yet. Then `normalised` is an
    estimate from the other signals, or 0, and `note` says which. `leg_rank` is the rank in the signal's own ranked
    list, from 1, None if the passage is not in that list.
    """

    signal: Signal
    raw: float | None
    normalised: float
    weight: float
    contribution: float
    leg_rank: int | None
    note: str = ""
    tokens: tuple[TokenContribution, ...] = ()


FusionName = Literal["weighted_sum", "rrf", "comb_sum", "comb_mnz", "isr"]

NormalizationName = Literal["min_max", "z_score", "l2", "theoretical", "none"]

SHIPPED_CROSS_WEIGHT = 0.7
"""The default weight of the cross-encoder's score in the fused score."""


@dataclass(frozen=True, slots=True)
class RankingProfile:
    """How signals are normalised, weighted and fused into one score. Versioned per collection.

    `rrf_k` is the constant k of reciprocal rank fusion. `origin` says where the weights come from.
    """

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
        """The cross-encoder's weight; `SHIPPED_CROSS_WEIGHT` if the profile has none."""
        return float(self.weights.get(Signal.CROSS, SHIPPED_CROSS_WEIGHT))


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Re-rank the `top` best documents with the reranker, within `budget_ms` milliseconds."""

    top: int = 50
    budget_ms: float = 1000.0


@dataclass(frozen=True, slots=True)
class RerankReport:
    """The outcome of re-ranking: documents asked for, scored and skipped for lack of time.

    Skipped documents rank after the re-ranked ones, in first-stage order. `error` is empty if the reranker could be
    used.
    """

    model: str
    asked: int
    scored: int
    skipped: int
    took_ms: float
    error: str = ""
