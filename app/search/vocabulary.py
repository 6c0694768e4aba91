"""Show a text's VDR weights over the encoder's vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyblink.app.core.checks import check_text, fold
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.ports.engine import OpenedCollection
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.types.ranking import (
    TokenContribution,
    VdrMode,
)
from hyblink.app.core.weights import heaviest
from hyblink.app.encoders.pool import EncoderPool
from hyblink.ranker.query_forms import AnalyzedQuery, QueryForms


@dataclass(frozen=True, slots=True)
class VocabularyToken:
    """A vocabulary token with its weight. `own` is true if the text contains the token."""

    token: str
    weight: float
    own: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A text's tokens by descending weight, as a query and as a passage.

    `shared` lists the tokens that the query and the given passage have in common. `score` is the sum of their
    contributions, the inner product of the two.
    """

    generation: str
    mode: VdrMode
    as_query: tuple[VocabularyToken, ...]
    as_passage: tuple[VocabularyToken, ...]
    shared: tuple[TokenContribution, ...]
    score: float


def vocabulary(
    opened: OpenedCollection, encoders: EncoderPool, text: str, passage: str | None, top: int, limit: int
) -> Vocabulary:
    """Return the `top` heaviest VDR tokens of a text, encoded as a query and as a passage.

    With `passage`, also return the tokens shared by the query and that passage. Raises InvalidInputError for a text
    or passage that is empty or longer than `limit` characters.
    """
    for name, value in (("text", text), ("passage", passage)):
        if value is not None and not check_text(value, name).strip():
            raise InvalidInputError(f"the {name} is empty", received=value, expected="at least one character")
        if value is not None and len(value) > limit:
            raise InvalidInputError(
                f"the {name} is too long",
                received=f"{len(value)} characters",
                expected=f"at most {limit}",
            )
    record, snapshot = opened.engine.record, opened.snapshot
    bag = encoders.bag(record.vdr_encoder)
    encoder = encoders.hybrid_encoder(record) if snapshot.vdr is not None else None
    mode = encoders.best_vdr_mode(record)
    forms = QueryForms(snapshot, AnalyzedQuery(fold(text), ()), bag, encoder, mode, top)
    query = forms.weights()

    def of_passage(content: str) -> TermWeights:
        if encoder is None:
            return bag.encode_passages([content])[0]
        return encoder.encode_passages([""], [content]).weights[0]

    def weighed(terms: TermWeights, own: set[int]) -> tuple[VocabularyToken, ...]:
        best = heaviest(terms, top)
        order = np.argsort(-best.weights, kind="stable").tolist()
        return tuple(
            VocabularyToken(bag.token(int(best.ids[at])), float(best.weights[at]), int(best.ids[at]) in own)
            for at in order
        )

    shared = () if passage is None else _shared(bag, query, of_passage(fold(passage)))
    own = set(bag.encode_query(fold(text)))
    return Vocabulary(
        record.id, mode, weighed(query, own), weighed(of_passage(fold(text)), own), shared,
        sum(item.contribution for item in shared),
    )  # fmt: skip


def _shared(bag: BagEncoder, query: TermWeights, against: TermWeights) -> tuple[TokenContribution, ...]:
    """The tokens that two texts share, by descending contribution to the inner product."""
    both, mine, theirs = np.intersect1d(query.ids, against.ids, return_indices=True)
    pairs = zip(both.tolist(), query.weights[mine].tolist(), against.weights[theirs].tolist(), strict=True)
    found = [TokenContribution(bag.token(token), q * p, q, p) for token, q, p in pairs]
    return tuple(sorted(found, key=lambda result: (-result.contribution, result.token)))
