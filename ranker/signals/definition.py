"""What a signal is: one row says how it proposes, how it is normalised, how it is explained and how it is shown."""

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
    """One signal. API, command line, page, normalisation, explanation and linking read what they need of it here."""

    name: Signal
    label: str
    """What people see."""
    colour: str
    """Of its part of a score, such as `#2563eb`."""
    leg: Callable[[QueryForms], Leg | None] | None = None
    """Binds it to a query, so that it proposes passages and scores those of others; None from it where the snapshot has
    nothing to search. Without one the signal proposes nothing of itself: it re-ranks, or is for entities alone."""
    lower_bound: float | None = None
    """The least score that its formula allows, for the normalisation `theoretical`; None where it allows any."""
    tokens: Tokens | None = None
    """Each row's score by token, adding up to it; None for what has no tokens."""
    features: tuple[tuple[str, bool], ...] = ()
    """Its features in linking's decision: name, and whether it is the raw value or the normalised one."""
    waited_for: bool = False
    """Asked first, so that legs that complete the scores of others' proposals can wait for it."""
