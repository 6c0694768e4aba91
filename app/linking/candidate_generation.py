"""Candidate generation: the entities that a mention may mean, with a score for each signal.

The signals are BM25 and VDR over names and descriptions, dense vectors of the mention in its context, and the prior
P(entity | name). Each signal proposes candidates; then every candidate is scored by every signal, as in search.

Shapes: S signals, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hyblink.app.core.checks import fold
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.arrays import IdArray, VectorArray
from hyblink.app.core.types.linking import LINK_SIGNALS
from hyblink.app.core.types.ranking import RankingProfile, Scored, Signal
from hyblink.app.linking.dictionary import prior_scores
from hyblink.app.linking.surface_forms import words_of
from hyblink.ranker.complete import CompleteScores, complete, fuse
from hyblink.ranker.leg import Leg
from hyblink.ranker.normalization import ScoreStats, z_score
from hyblink.ranker.query_forms import QueryForms
from hyblink.ranker.signals.dense import dense_leg
from hyblink.ranker.signals.registry import grouped, leg_of

Floats = npt.NDArray[np.float64]
POOL = 64
"""The least number of candidates over which signals are normalised, so that the normalised scores, and the
coefficients fitted to them, do not depend on how many candidates a request asks for."""
_LEAST_POOL = 9
_UNRELATED = {Signal.DENSE: 0.23}
"""The raw score of an unrelated entity by signal (0 for the lexical ones): the tenth percentile of the pools of
el-wiki and el-foldoc. Pools of fewer than `_LEAST_POOL` candidates are padded with such entities before normalisation:
the z-score of a single candidate would be meaningless, and the best of nine is 2.8 deviations above the mean, as usual
in full pools."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """A mention's candidate entities, best first by the fused score.

    `rows` are the entities' passage rows, `keys` their document keys. Raw scores are NaN where a signal has none.
    `leg_ranks` holds, for each signal, the rank of each row in that signal's own list.
    """

    rows: IdArray
    keys: IdArray
    signals: tuple[Signal, ...]
    raw_SC: Floats
    normalised_SC: Floats
    leg_ranks: tuple[Mapping[int, int], ...]
    context_z_C: Floats | None = None
    """The BM25 score for the words around the mention, as a z-score over the pool."""
    named_C: Floats | None = None
    """The share of the title's words outside the mention that occur near it, such as `gzip` for the mention `open`
    and the title `gzip.open`."""
    titled_C: Floats | None = None
    """1 where the mention equals the whole title, else 0."""
    ordinary: bool = False
    """Whether the mention looks like ordinary words: only lower-case letters and spaces."""

    def __len__(self) -> int:
        return len(self.rows)

    def value(self, signal: Signal, *, raw: bool) -> Floats:
        """Return a signal's raw or normalised scores, shape (C,); 0 where a candidate has none."""
        if signal not in self.signals:
            return np.zeros(len(self.rows))
        own = (self.raw_SC if raw else self.normalised_SC)[self.signals.index(signal)]
        found: Floats = np.nan_to_num(own)
        return found


def prior_leg(prior: Scored) -> Leg:
    """Return a leg that proposes and scores entities by the prior P(entity | name)."""

    def search(k: int, _: Selection | None, __: IdArray) -> Mapping[Signal, Scored]:
        return {Signal.PRIOR: Scored(prior.rows[:k], prior.scores[:k])}

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
    """Return the k best candidates of a mention by the fused score, with their scores by signal.

    Each leg proposes max(k, `POOL`) entities; scores are normalised over this pool. `vector` is the mention's dense
    vector, `prior` its P(entity | name), `weights` the fusion weights. Entities whose document key is in `exclude`
    are neither candidates nor in the pool. `context` holds the terms of the text `around` the mention: they score the
    candidates but propose none.
    """
    lexical = [signal for signal in (Signal.BM25, Signal.VDR) if signal in signals]
    legs = [leg for own in grouped(forms, lexical) if (leg := leg_of(forms, own)) is not None]
    if vector is not None and Signal.DENSE in signals and (found := dense_leg(snapshot, lambda: vector)) is not None:
        legs.append(found)
    if Signal.PRIOR in signals:
        legs.append(prior_leg(_among(snapshot, prior, allowed, exclude)))
    proposed: dict[Signal, Scored] = {}
    by_signal: dict[Signal, Leg] = {}
    pool = max(k, POOL)
    wanted = pool + len(exclude)
    for leg in legs:
        answered = leg.search(wanted, allowed, np.zeros(0, dtype=np.int64))
        proposed |= answered
        by_signal |= dict.fromkeys(answered, leg)
    scores = complete(by_signal, proposed)
    keys = snapshot.reader.document_keys(scores.rows)
    there = (keys >= 0) & ~np.isin(keys, np.array(exclude, dtype=np.int64))
    keys, scores = keys[there], replace(scores, rows=scores.rows[there], raw_SC=scores.raw_SC[:, there])
    profile = RankingProfile(weights={signal: float(weights.get(signal.value, 0.0)) for signal in scores.signals})
    fused = fuse(_padded(scores), profile)
    normalised_SC, scores_C = fused.normalised_SC[:, : len(keys)], fused.scores_C[: len(keys)]
    order = np.lexsort((scores.rows, -scores_C))
    _, first = np.unique(keys[order], return_index=True)
    order = order[np.sort(first)][:pool]
    context_z_C = _context(snapshot, context, scores.rows[order]) if context and len(order) else None
    order = order[:k]
    titles = _titles(snapshot, scores.rows[order])
    return Candidates(
        scores.rows[order],
        keys[order],
        scores.signals,
        scores.raw_SC[:, order],
        np.where(np.isnan(scores.raw_SC), 0.0, normalised_SC)[:, order],
        scores.leg_ranks,
        None if context_z_C is None else context_z_C[:k],
        _named(titles, forms.query.text, around) if around and len(order) else None,
        np.array([float(fold(title) == forms.query.text) for title in titles]),
        ordinary,
    )


def _among(snapshot: Snapshot, prior: Scored, allowed: Selection | None, exclude: Sequence[int]) -> Scored:
    """The prior without entities that are filtered out or excluded, renormalised to sum to 1."""
    if not len(prior.rows) or (allowed is None and not len(exclude)):
        return prior
    kept = ~np.isin(snapshot.reader.document_keys(prior.rows), np.array(exclude, dtype=np.int64))
    if allowed is not None:
        kept &= allowed.contains(prior.rows)
    scores = prior.scores[kept]
    return Scored(prior.rows[kept], scores / scores.sum() if len(scores) else scores)


def _padded(scores: CompleteScores) -> CompleteScores:
    """The scores, padded with those of unrelated entities to at least `_LEAST_POOL` candidates."""
    lacking = _LEAST_POOL - len(scores.rows)
    if lacking <= 0 or not len(scores.rows):
        return scores
    unrelated = np.array([[_UNRELATED.get(signal, 0.0)] for signal in scores.signals])
    rows = np.append(scores.rows, np.full(lacking, -1))
    return replace(scores, rows=rows, raw_SC=np.hstack([scores.raw_SC, np.repeat(unrelated, lacking, axis=1)]))


def _context(snapshot: Snapshot, terms: Sequence[str], rows: IdArray) -> Floats:
    raw_C = snapshot.bm25.score(terms, rows).astype(np.float64)
    pool = np.append(raw_C, np.zeros(max(0, _LEAST_POOL - len(raw_C))))
    found: Floats = z_score(ScoreStats.of(Signal.CONTEXT, pool))(raw_C)
    return found


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
