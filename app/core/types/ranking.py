"""Signals, the score ledger, ranking profiles, re-ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic_core import core_schema

from hyblink.app.core.types.arrays import IdArray, ScoreArray

FIRST_RANK = 1
"""Ranks are counted from one, as in TREC run files and in the RRF formula."""


class Signal(str):
    """The name of a way in which a passage can match a query. `ranker/signals` says which there are, and what they are.

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
        """In requests and answers a signal is its name."""
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
"""The signals that propose passages unless a search says otherwise."""


VdrMode = Literal["auto", "full", "alpha", "beta", "bag"]
"""Which forms the VDR signal multiplies (Zhou et al. 2024, section 3.4).

`full`: encoded query, encoded passage. `alpha`: the query's own tokens, encoded passage (the query needs no encoder).
`beta`: encoded query, the passage's bag of tokens (searchable before it is encoded). `bag`: both as bags of tokens, the
query's weighted by idf. `auto`: what the encoder does best; `bag` where there is none.
"""


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
