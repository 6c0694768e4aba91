"""Profiles that were changed by hand or by chance are refused by name; nothing is ranked by numbers that are none."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from hyblink.app.application import App
from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.types.ranking import RankingProfile, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.profile_json import link_profile_from_json, profile_from_json, profile_to_json
from hyblink.app.linking.disambiguation import SHIPPED

RANKING = profile_to_json(RankingProfile())
LINKING = asdict(SHIPPED)


def test_profiles_come_back_as_they_were() -> None:
    assert profile_from_json(RANKING) == RankingProfile()
    assert link_profile_from_json(LINKING) == SHIPPED


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"bm25": float("inf")}}, {"weights": {"bm25": float("nan")}}, {"weights": {"bm25": "much"}},
        {"weights": {"bm25": -1.0}}, {"weights": None}, {"weights": {"bm25": None}}, {"rrf_k": 0}, {"rrf_k": None},
        {"fusion": "sum"}, {"normalization": ""}, {"vdr": "most"}, {"other": 1},
    ],
)  # fmt: skip
def test_damaged_ranking_profiles(app: App, change: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError, match="ranking profile is damaged"):
        profile_from_json({**RANKING, **change})
    with pytest.raises(CorruptionError):
        profile_from_json({key: value for key, value in RANKING.items() if key != "weights"})
    app.documents.bulk("default", [{"id": "a", "text": "dogs"}], encode=False)
    registry = app.catalog._registry
    registry.write("default", "profiles/1", {**RANKING, **{k: str(v) for k, v in change.items()}})
    registry.write("default", "generations/g000001/profile", {"version": 1})
    with pytest.raises(CorruptionError):
        app.search.search("default", SearchRequest("dogs", signals=(Signal.BM25,)))
    for pointer in ({"version": None}, {"version": "x"}, {}):
        registry.write("default", "generations/g000001/profile", pointer)
        with pytest.raises(CorruptionError, match="pointer"):
            app.search.search("default", SearchRequest("dogs", signals=(Signal.BM25,)))


@pytest.mark.parametrize(
    "change",
    [
        {"fast": {}}, {"fast": None}, {"fast_threshold": float("nan")}, {"cross_threshold": "high"}, {"retrieval": None},
        {"retrieval": {"bm25": float("inf")}}, {"cross": {"coefficients": {"x": None}, "nil": 0.0, "knots": []}},
        {"fast": {"coefficients": {}, "nil": 0.0, "knots": [[1.0]]}}, {"other": 1},
    ],
)  # fmt: skip
def test_damaged_link_profiles(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptionError, match="link profile is damaged"):
        link_profile_from_json({**LINKING, **change})
