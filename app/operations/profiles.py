"""Ranking profiles that are set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hyblink.app.application import App
from hyblink.app.core.types.ranking import RankingProfile, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.search.ranking import profile_for
from hyblink.app.search.request import check_request


def save_profile(
    app: App,
    collection: str,
    *,
    weights: Mapping[Signal, float] | None = None,
    fusion: str | None = None,
    normalization: str | None = None,
    vdr: str | None = None,
) -> RankingProfile:
    """Save the collection's ranking profile with changes, as its next version, which the current generation then uses.

    Signals that `weights` does not name get weight 0; the re-ranker keeps its own. Raises InvalidInputError for values
    that a search request may not have either.
    """
    request = SearchRequest(
        "a query",
        weights=weights,
        fusion=fusion,  # type: ignore[arg-type]
        normalization=normalization,  # type: ignore[arg-type]
        vdr=vdr,  # type: ignore[arg-type]
    )
    check_request(request, app.settings.search)
    current = app.catalog.profile(collection, app.catalog.current(collection))
    return app.catalog.save_profile(collection, replace(profile_for(current, request), origin="set by hand"))
