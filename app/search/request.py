"""Validation of search requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.filters import Filter, parse_filter
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.ranking import (
    Signal,
    VdrMode,
)
from hyblink.app.core.types.search import (
    SearchRequest,
)
from hyblink.ranker.fusion import FUSIONS
from hyblink.ranker.normalization import NORMALIZATIONS
from hyblink.ranker.signals.registry import SIGNALS, proposing

_MAX_FACETS = 20
_MAX_PASSAGES = 20


def check_request(request: SearchRequest, settings: SearchSettings) -> Filter | None:
    """Validate a search request; return its parsed filter, or None without one. Raises InvalidInputError."""

    def within(name: str, value: object, low: int, high: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidInputError(f"{name} is out of range", received=value, expected=f"{low} to {high}")

    check_text(request.query, "query")
    if not request.query.strip():
        raise InvalidInputError("the query is empty", received=request.query, expected="at least one character")
    if len(request.query) > settings.max_query_chars:
        raise InvalidInputError(
            "the query is too long",
            received=f"{len(request.query)} characters",
            expected=f"at most {settings.max_query_chars}",
        )
    within("candidates", request.candidates, 1, settings.max_candidates)
    within("k", request.k, 1, request.candidates)
    within("offset", request.offset, 0, request.candidates)
    if request.offset + request.k > request.candidates:
        raise InvalidInputError(
            "the page lies beyond the candidates",
            received=f"offset {request.offset} + k {request.k}",
            expected=f"at most candidates = {request.candidates}; ask for more candidates",
        )
    within("passages_per_document", request.passages_per_document, 1, _MAX_PASSAGES)
    if len(request.facets) > _MAX_FACETS:
        raise InvalidInputError("too many facets", received=len(request.facets), expected=f"at most {_MAX_FACETS}")
    for key in request.facets:
        check_text(key, "a facet")
    if (
        not request.signals
        or len(set(request.signals)) != len(request.signals)
        or not set(request.signals) <= set(proposing())
    ):
        raise InvalidInputError(
            "bad signals",
            received=[str(s) for s in request.signals],
            expected=f"some of {', '.join(proposing())}, each once",
        )
    if request.deadline_ms is not None and not 0 < request.deadline_ms <= settings.deadline_ms:
        raise InvalidInputError(
            "deadline_ms is out of range",
            received=request.deadline_ms,
            expected=f"above 0, to {settings.deadline_ms}",
        )
    if request.fusion is not None and request.fusion not in FUSIONS:
        raise InvalidInputError("unknown fusion", received=request.fusion, expected=f"one of {', '.join(FUSIONS)}")
    if request.vdr is not None and request.vdr not in get_args(VdrMode):
        raise InvalidInputError("unknown VDR mode", received=request.vdr, expected=", ".join(get_args(VdrMode)))
    if request.normalization is not None and request.normalization not in NORMALIZATIONS:
        raise InvalidInputError(
            "unknown normalization",
            received=request.normalization,
            expected=f"one of {', '.join(NORMALIZATIONS)}",
        )
    if request.weights is not None:
        check_weights(request.weights)
    if request.entities is not None and not 0 <= request.entities.weight <= 100:
        raise InvalidInputError(
            "entities.weight is out of range", received=request.entities.weight, expected="0 to 100"
        )
    if request.rerank is not None:
        within("rerank.top", request.rerank.top, 1, settings.max_rerank)
        if not 0 < request.rerank.budget_ms <= settings.deadline_ms:
            raise InvalidInputError(
                "rerank.budget_ms is out of range",
                received=request.rerank.budget_ms,
                expected=f"above 0, to {settings.deadline_ms}",
            )
    return None if request.filter is None else parse_filter(request.filter)


def check_weights(weights: Mapping[Signal, float]) -> None:
    """Validate fusion weights: finite, from 0 to 1,000,000, at least one first-stage signal above 0.

    Raises InvalidInputError.
    """
    for signal, weight in weights.items():
        SIGNALS.of(signal)
        if not math.isfinite(weight) or weight < 0 or weight > 1e6:
            raise InvalidInputError(
                f"the weight of {signal} is out of range",
                received=weight,
                expected="a number from 0 to 1,000,000",
            )
    if not any(weight for signal, weight in weights.items() if signal in proposing()):
        raise InvalidInputError("no weight is above 0", received=dict(weights), expected="at least one")
