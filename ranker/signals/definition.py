"""The definition of a signal: how it retrieves, is normalised, is explained and is displayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.ranking import Signal, TokenContribution
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import QueryForms

Tokens = Callable[[QueryForms, IdArray, BagEncoder], list[list[TokenContribution]]]


@dataclass(frozen=True, slots=True)
class SignalDefinition:
    """A signal, as registered in `SIGNALS`. Ranking, linking, API, command line and UI all use this definition."""

    name: Signal
    label: str
    """The display name."""
    colour: str
    """The display colour, such as `#2563eb`."""
    leg: Callable[[QueryForms], Leg | None] | None = None
    """Builds the signal's retriever for a query. The function returns None if the snapshot has nothing to search. None
    here means that the signal generates no candidates: it re-ranks, or is used in entity linking only."""
    lower_bound: float | None = None
    """The lowest score that the formula allows, for the normalisation `theoretical`; None if it is unbounded."""
    tokens: Tokens | None = None
    """Splits the score of each row into token contributions; None if the signal has no tokens."""
    features: tuple[tuple[str, bool], ...] = ()
    """Its features in entity linking, as (name, True for the raw value or False for the normalised one)."""
    needs_encoder: bool = True
    """Whether its leg needs the query's vector or encoded weights. If no signal of a search does, it loads no model."""
    starts_first: bool = False
    """Start this leg first, because legs that also score the candidates of others wait for it."""
