"""Disambiguation: a conditional logit (McFadden 1974) over a mention's candidates and NIL.

``u_e = Σ_f w_f x_fe``, ``p(e) = exp(u_e) / (exp(u_NIL) + Σ_c exp(u_c))``. The coefficients are fitted on judged
mentions. For a part of these the correct entity is excluded, to get NIL examples. Isotonic regression then calibrates
the probability of the best candidate. Every term is a line of the score explanation (the ledger).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import LinkProfile, Utility
from hyblink.app.core.types.ranking import Signal, SignalValue
from hyblink.app.linking.candidate_generation import Candidates
from hyblink.ranker.signals.registry import SIGNALS

Floats = npt.NDArray[np.float64]

FEATURES: Mapping[str, tuple[Signal, bool]] = {
    name: (definition.name, raw) for definition in SIGNALS.values() for name, raw in definition.features
}
"""The features by name: (signal, whether the raw value is used instead of the normalised one).

`match` is 1 if the mention is any name of the entity, so that a name shared by many entities, with a low prior for
each, does not favour NIL. `title` is 1 if the mention is the entity's title. `unsupported` is 1 if the mention looks
like ordinary words and is not the title, and the title's other words do not occur near it: "read it back" does not mean
`turtle.TNavigator.back`.
"""


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision on a mention's candidates.

    `order` holds indices of the candidates, best first by utility. `probability_of_best` is the calibrated probability
    that the best one is correct.
    """

    order: tuple[int, ...]
    utility_C: Floats
    probability_C: Floats
    probability_of_best: float
    features: Mapping[str, Floats]


def features_of(candidates: Candidates, extra: Mapping[Signal, Floats]) -> dict[str, Floats]:
    """Return the values of every feature, each of shape (C,). `extra` holds signals computed after retrieval.

    An entity without a vector yet gets the mean cosine of the candidates that have one. Otherwise, entities encoded
    first would be favoured, and NIL would be favoured if none is encoded.
    """
    found = {}
    for name, (signal, raw) in FEATURES.items():
        if signal in extra:
            found[name] = np.nan_to_num(extra[signal])
        elif signal is Signal.CONTEXT and raw:
            if candidates.named_C is not None:
                found[name] = candidates.named_C
        elif signal is Signal.CONTEXT:
            if candidates.context_z_C is not None:
                found[name] = candidates.context_z_C
        elif signal is Signal.DENSE and raw:
            found[name] = _cosines(candidates)
        elif signal is Signal.PRIOR and not raw:
            if signal in candidates.signals:
                found[name] = _of_the_name(name, candidates)
        elif signal in candidates.signals:
            found[name] = candidates.value(signal, raw=raw)
    return found


def _of_the_name(feature: str, candidates: Candidates) -> Floats:
    if feature == "title":
        return candidates.titled_C if candidates.titled_C is not None else np.zeros(len(candidates))
    match = candidates.value(Signal.PRIOR, raw=True) > 0
    if feature == "match":
        return match.astype(np.float64)
    named = np.zeros(len(candidates)) if candidates.named_C is None else candidates.named_C
    supported = match & ((named >= 1.0) | (candidates.titled_C > 0 if candidates.titled_C is not None else False))
    return np.where(supported, 0.0, float(candidates.ordinary))


_USUAL_COSINE = 0.4


def _cosines(candidates: Candidates) -> Floats:
    if Signal.DENSE not in candidates.signals:
        return np.full(len(candidates), _USUAL_COSINE)
    own: Floats = candidates.raw_SC[candidates.signals.index(Signal.DENSE)]
    known = own[~np.isnan(own)]
    return np.where(np.isnan(own), known.mean() if len(known) else _USUAL_COSINE, own)


def softmax_with_nil(utility_C: Floats, nil: float) -> Floats:
    """Return each candidate's probability, shape (C,); the rest to 1 is the probability of NIL.

    >>> softmax_with_nil(np.array([0.0, 0.0]), 0.0).round(3).tolist()
    [0.333, 0.333]
    """
    top = max(nil, float(utility_C.max(initial=nil)))
    weights = np.exp(utility_C - top)
    found: Floats = weights / (np.exp(nil - top) + weights.sum())
    return found


def calibrated(utility: Utility, probability: float) -> float:
    """Map a softmax probability to the calibrated probability that the link is correct.

    >>> calibrated(Utility({}, 0.0, ((0.0, 0.0), (0.5, 0.2), (1.0, 1.0))), 0.75)
    0.6
    """
    if not utility.knots:
        return probability
    x, y = zip(*utility.knots, strict=True)
    return round(float(np.interp(probability, x, y)), 6)


def decide(candidates: Candidates, utility: Utility, extra: Mapping[Signal, Floats]) -> Decided:
    """Rank a mention's candidates by utility, with their probabilities. Ties keep the order of retrieval."""
    features = features_of(candidates, extra)
    total = np.zeros(len(candidates))
    for name, values in features.items():
        total = total + utility.coefficients.get(name, 0.0) * values
    probability = softmax_with_nil(total, utility.nil)
    order = np.argsort(-total, kind="stable")
    right = calibrated(utility, float(probability[order[0]])) if len(order) else 0.0
    return Decided(tuple(order.tolist()), total, probability, right, features)


def ledger(decided: Decided, candidates: Candidates, place: int, utility: Utility) -> tuple[SignalValue, ...]:
    """Explain a candidate's utility by signal; the contributions sum to it. `place` is the candidate's index."""
    lines = []
    row = int(candidates.rows[place])
    for signal in dict.fromkeys(signal for name, (signal, _) in FEATURES.items() if name in decided.features):
        names = [name for name, (own, _) in FEATURES.items() if own is signal and name in decided.features]
        terms = {name: utility.coefficients.get(name, 0.0) * decided.features[name][place] for name in names}
        value: float | None = float(decided.features[names[-1]][place])
        normalised = float(decided.features[names[0]][place])
        if signal is Signal.DENSE and signal not in candidates.signals:
            value = None
        leg_rank = None
        note = " + ".join(
            f"{utility.coefficients.get(name, 0.0):.3g} × {decided.features[name][place]:.3g}" for name in names
        )
        if signal in candidates.signals:
            at = candidates.signals.index(signal)
            raw = float(candidates.raw_SC[at, place])
            value = None if np.isnan(raw) else raw
            note += "; not encoded yet" if value is None else ""
            leg_rank = candidates.leg_ranks[at].get(row)
        weight = float(utility.coefficients.get(names[0], 0.0))
        lines.append(SignalValue(signal, value, normalised, weight, float(sum(terms.values())), leg_rank, note))
    return tuple(lines)


def coherence(
    decided: Sequence[Decided], vectors: Sequence[VectorArray], weight: float, *, reach: int = 10
) -> list[Floats]:
    """Return the coherence of each mention's candidates with the neighbouring mentions, one array of shape (C,) each.

    It is `weight` times the cosine between a candidate's vector and the mean of the neighbours' expected vectors
    (their candidates' vectors weighted by probability). Neighbours are the `reach` mentions before and after.
    `vectors` are those of each mention's candidates, shape (C, D).
    """
    means = [item.probability_C @ own if len(own) else np.zeros(0) for item, own in zip(decided, vectors, strict=True)]
    found: list[Floats] = []
    for at, own in enumerate(vectors):
        near = [m for m in (*means[max(0, at - reach) : at], *means[at + 1 : at + 1 + reach]) if len(m)]
        if not near or not len(own):
            found.append(np.zeros(len(own)))
            continue
        mean = np.mean(near, axis=0)
        length = float(np.linalg.norm(mean))
        found.append(weight * (own @ mean) / length if length > 0 else np.zeros(len(own)))
    return found


_SHIPPED = {
    "bm25_z": 0.54,
    "vdr_z": 0.12,
    "dense_z": 0.87,
    "dense": 1.24,
    "match": 1.94,
    "title": 0.23,
    "unsupported": -3.73,
    "prior": 2.53,
    "context_z": 0.42,
    "context": 0.53,
}
_SHIPPED_CROSS = {
    "bm25_z": 0.42,
    "vdr_z": 0.31,
    "dense_z": 0.83,
    "dense": 0.78,
    "match": 1.41,
    "title": 1.19,
    "unsupported": -4.44,
    "prior": 2.2,
    "context_z": 0.13,
    "context": 0.51,
    "cross": 0.78,
}
SHIPPED = LinkProfile(
    retrieval={"bm25": 0.3, "vdr": 0.1, "dense": 0.3, "prior": 0.5},
    fast=Utility(_SHIPPED, 5.71),
    cross=Utility(_SHIPPED_CROSS, 3.95),
    fast_threshold=0.7,
    cross_threshold=0.7,
    origin="fitted on the demo's 339 judged mentions, twice, and 400 of el-foldoc's dev split; not calibrated",
)
