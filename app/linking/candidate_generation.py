"""Candidates of a mention: BM25 and VDR over names and descriptions, dense vectors of the mention in its context, and
how often its name means an entity. Each proposes; then every candidate gets every signal, as in search.

Shapes: S signals, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.core.linking import LINK_SIGNALS
from app.core.ports import Selection, Snapshot
from app.core.text import fold
from app.core.types import IdArray, RankingProfile, Scored, Signal, VectorArray
from app.linking.dictionary import prior_scores
from app.linking.surfaces import words_of
from ranker.complete import complete, fuse
from ranker.retrieve import Leg, QueryForms, dense_leg

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A mention's candidates, best first by the fused score, one row for each entity."""

    rows: IdArray
    keys: IdArray
    signals: tuple[Signal, ...]
    raw_SC: Floats
    normalised_SC: Floats
    leg_ranks: tuple[Mapping[int, int], ...]
    context_C: Floats | None = None
    """BM25 of the words around the mention."""
    named_C: Floats | None = None
    """The share of the title's words, without the mention's own, that stand around it: `gzip` for `gzip.open`."""
    titled_C: Floats | None = None
    """1 where the mention is the whole title."""
    ordinary: bool = False
    """Whether the mention is written as ordinary words are: lower-case letters and spaces."""

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, signal: Signal, *, raw: bool) -> Floats:
        """A signal's scores of all candidates; 0 where there are none."""
        if signal not in self.signals:
            return np.zeros(len(self.rows))
        own = (self.raw_SC if raw else self.normalised_SC)[self.signals.index(signal)]
        found: Floats = np.nan_to_num(own)
        return found


def prior_leg(prior: Scored) -> Leg:
    """How probable each entity is, given the mention's name alone."""

    def search(k: int, allowed: Selection | None, _: IdArray) -> Mapping[Signal, Scored]:
        kept = slice(0, k) if allowed is None else np.flatnonzero(allowed.contains(prior.rows))[:k]
        return {Signal.PRIOR: Scored(prior.rows[kept], prior.scores[kept])}

    return Leg((Signal.PRIOR,), search, lambda rows: {Signal.PRIOR: prior_scores(prior, rows)}, lambda _, __: None)


def generate(
    snapshot: Snapshot,
    forms: QueryForms,
    vector: VectorArray | None,
    prior: Scored,
    weights: Mapping[str, float],
    k: int,
    *,
    allowed: Selection | None = None,
    exclude: Sequence[int] = (),
    signals: Sequence[Signal] = LINK_SIGNALS,
    context: Sequence[str] = (),
    around: str = "",
    ordinary: bool = False,
) -> Candidates:
    """The best k entities, of which each leg proposes k. `exclude` holds documents' keys that are no candidates.

    The terms of the `context`, of the text `around` the mention, propose nothing: they say which of the candidates is
    talked about.
    """
    lexical = [signal for signal in (Signal.BM25, Signal.VDR) if signal in signals]
    legs: list[Leg] = [forms.leg(own) for own in forms.grouped(lexical)]
    if vector is not None and Signal.DENSE in signals and snapshot.dense is not None and snapshot.dense.vectors:
        found = dense_leg(snapshot, lambda: vector)
        assert found is not None
        legs.append(found)
    if Signal.PRIOR in signals:
        legs.append(prior_leg(prior))
    proposed: dict[Signal, Scored] = {}
    by_signal: dict[Signal, Leg] = {}
    wanted = k + len(exclude)
    for leg in legs:
        answered = leg.search(wanted, allowed, np.zeros(0, dtype=np.int64))
        proposed |= answered
        by_signal |= dict.fromkeys(answered, leg)
    scores = complete(by_signal, proposed)
    profile = RankingProfile(weights={signal: float(weights.get(signal.value, 0.0)) for signal in scores.signals})
    fused = fuse(scores, profile)
    keys = snapshot.reader.document_keys(scores.rows)
    order = np.lexsort((scores.rows, -fused.scores_C))
    order = order[(keys[order] >= 0) & ~np.isin(keys[order], np.array(exclude, dtype=np.int64))]
    _, first = np.unique(keys[order], return_index=True)
    order = order[np.sort(first)][:k]
    titles = _titles(snapshot, scores.rows[order])
    return Candidates(
        scores.rows[order],
        keys[order],
        scores.signals,
        scores.raw_SC[:, order],
        np.where(np.isnan(scores.raw_SC), 0.0, fused.normalised_SC)[:, order],
        scores.leg_ranks,
        snapshot.bm25.score(context, scores.rows[order]).astype(np.float64) if context and len(order) else None,
        _named(titles, forms.query.text, around) if around and len(order) else None,
        np.array([float(fold(title) == forms.query.text) for title in titles]),
        ordinary,
    )


def _titles(snapshot: Snapshot, rows: IdArray) -> list[str]:
    passages = snapshot.reader.passages(rows) if len(rows) else {}
    return [passages[row].title if row in passages else "" for row in rows.tolist()]


def _named(titles: Sequence[str], mention: str, around: str) -> Floats:
    near, own = words_of(around), words_of(mention)
    shares = []
    for title in titles:
        others = words_of(title) - own
        shares.append(len(others & near) / len(others) if others else 0.0)
    return np.array(shares)
