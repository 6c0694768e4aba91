"""Score explanation (the "ledger"): from token contributions to raw, normalised and fused scores, which add up."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.budget import within_budget
from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.documents import Span
from hyblink.app.core.types.ranking import RankingProfile, Signal, SignalValue, TokenContribution
from hyblink.ranker.complete import FusedScores
from hyblink.ranker.query_forms import QueryForms
from hyblink.ranker.rerank import CrossScore
from hyblink.ranker.signals.registry import SIGNALS

_PART = 50_000
_SPACE = re.compile(r"\s")
NOT_ENCODED = "not encoded yet: the passage is on the instant tier"
ESTIMATED = "not encoded yet: estimated from the other signals"
ENCODED_NOW = "encoded for this search: its vectors are not stored yet"


def ledger(
    fused: FusedScores, column: int, profile: RankingProfile, cross: CrossScore | None = None
) -> tuple[SignalValue, ...]:
    """The score breakdown of one candidate: a line per signal, the cross-encoder last; contributions sum to the score.

    `column` is the index of the candidate. Tokens are not included. A missing score has raw value None: it is
    estimated, or contributes 0; the note says which.
    """
    lines = []
    row = int(fused.complete.rows[column])
    for at, signal in enumerate(fused.complete.signals):
        raw = float(fused.complete.raw_SC[at, column])
        normalised = float(fused.normalised_SC[at, column])
        missing, unknown = math.isnan(raw), math.isnan(normalised)
        note = (NOT_ENCODED if unknown else ESTIMATED) if missing else ""
        if not missing and SIGNALS.of(signal).needs_encoder and row in fused.complete.encoded_now:
            note = ENCODED_NOW
        lines.append(
            SignalValue(
                signal,
                None if missing else raw,
                0.0 if unknown else normalised,
                float(profile.weights.get(signal, 0.0)),
                float(fused.contributions_SC[at, column]),
                fused.complete.leg_ranks[at].get(row),
                note,
            )
        )
    if cross is not None:
        lines.append(
            SignalValue(Signal.CROSS, cross.raw, cross.normalised, profile.cross_weight, cross.contribution, None)
        )
    return tuple(lines)


def token_contributions(
    forms: QueryForms, rows: IdArray, signal: Signal, bag: BagEncoder
) -> list[tuple[TokenContribution, ...]]:
    """The token contributions of one signal for each row, largest first. Empty tuples if the signal has no tokens."""
    explain = SIGNALS.of(signal).tokens
    if explain is None:
        return [()] * len(rows)
    found = explain(forms, rows, bag)
    return [tuple(sorted(tokens, key=lambda t: (-t.contribution, t.token))) for tokens in found]


def highlights(analyzer: Analyzer, terms: Sequence[str], text: str) -> tuple[Span, ...]:
    """The spans of the query's terms in the text, in code points. Adjacent and overlapping spans are merged.

    A long text is read in parts, as far as the request's budget goes.
    """
    wanted = set(terms)
    spans: list[Span] = []
    for begin, end in _parts(text):
        if not within_budget("highlights in the later hits: ask for a smaller k, or for none with `highlight: false`"):
            break
        for token in analyzer.tokens(text[begin:end]):
            if token.term not in wanted:
                continue
            if spans and begin + token.start <= spans[-1].end:
                spans[-1] = Span(spans[-1].start, max(spans[-1].end, begin + token.end))
            else:
                spans.append(Span(begin + token.start, begin + token.end))
    return tuple(spans)


def _parts(text: str) -> Iterator[tuple[int, int]]:
    """The text in parts of about `_PART` characters, which end at white space."""
    begin = 0
    while len(text) - begin > _PART:
        found = _SPACE.search(text, begin + _PART)
        end = len(text) if found is None else found.end()
        yield begin, end
        begin = end
    if begin < len(text) or not text:
        yield begin, len(text)
