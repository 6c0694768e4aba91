"""From candidates to links: score them with the cross-encoder, decide with the link profile, build the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import (
    EntityCross,
)
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import (
    Candidate,
    Link,
    LinkProfile,
    LinkRequest,
    Mention,
    Utility,
    apart,
)
from hyblink.app.core.types.ranking import Signal
from hyblink.app.linking.candidate_generation import Candidates
from hyblink.app.linking.disambiguation import Decided, Floats, coherence, decide, ledger
from hyblink.app.linking.knowledge_base import description_of
from hyblink.app.linking.retrieval import Moment, Retrieved

_SHOWN_CHARS = 300


def read_together(
    moment: Moment,
    cross: EntityCross,
    retrieved: Sequence[Retrieved],
    extras: Sequence[dict[Signal, Floats]],
    deadline: float,
    most: int,
) -> int:
    """Score each mention's `most` best candidates with the cross-encoder; return how many mentions it finished.

    The scores are stored in `extras` under `Signal.CROSS`. Candidates below the best `most` get the lowest of them.
    Mentions not finished by `deadline` get none. `deadline` is a value of `time.perf_counter()`.
    """
    tops = [_top(moment, one, most) for one in retrieved]
    rows = np.unique(np.concatenate([one.candidates.rows[top] for one, top in zip(retrieved, tops, strict=True)]))
    passages = moment.snapshot.reader.passages(rows)
    entities = [
        [(passages[row].title, description_of(passages[row].text)) for row in one.candidates.rows[top].tolist()]
        for one, top in zip(retrieved, tops, strict=True)
    ]
    try:
        scores = cross.score([one.context for one in retrieved], entities, deadline)
    except EncoderUnavailableError as error:
        moment.missing[Signal.CROSS.value] = str(error)
        return 0
    done = 0
    for one, top, own, extra in zip(retrieved, tops, scores, extras, strict=True):
        if len(own) and not np.isnan(own).any():
            # Candidates that it did not score get the lowest score of the others.
            values = np.full(len(one.candidates), float(own.min()))
            values[top] = own
            extra[Signal.CROSS] = values
            done += 1
    return done


def _top(moment: Moment, one: Retrieved, most: int) -> list[int]:
    return list(decide(one.candidates, moment.profile.fast, {}).order[:most])


def links_of(
    moment: Moment,
    request: LinkRequest,
    retrieved: Sequence[Retrieved],
    extras: Sequence[dict[Signal, Floats]],
) -> list[Link]:
    """Decide each mention and return one link (or NIL) for each, in order.

    Adds the features `evidence` and `coherence` to `extras` where the request gives them a weight.
    """
    chosen = [deciding(moment.profile, Signal.CROSS in extra) for extra in extras]
    utilities = [utility for utility, _ in chosen]
    if request.evidence:
        utilities = [as_it_comes(one, "evidence") for one in utilities]
        for one, extra in zip(retrieved, extras, strict=True):
            extra[Signal.EVIDENCE] = request.evidence * _evidence(moment.snapshot, one)
    decided = [
        decide(one.candidates, utility, extra) for one, utility, extra in zip(retrieved, utilities, extras, strict=True)
    ]
    if request.coherence:
        vectors = [_vectors(moment.snapshot, one.candidates) for one in retrieved]
        for extra, values in zip(extras, coherence(decided, vectors, request.coherence), strict=True):
            extra[Signal.COHERENCE] = values
        decided = [
            decide(one.candidates, as_it_comes(utility, "coherence"), extra)
            for one, utility, extra in zip(retrieved, utilities, extras, strict=True)
        ]
        utilities = [as_it_comes(one, "coherence") for one in utilities]
    return [
        link_of(moment, request, one, own, utility, threshold if request.threshold is None else request.threshold)
        for one, own, utility, (_, threshold) in zip(retrieved, decided, utilities, chosen, strict=True)
    ]


def link_of(
    moment: Moment,
    request: LinkRequest,
    one: Retrieved,
    decided: Decided,
    utility: Utility,
    threshold: float,
) -> Link:
    """Return the link of one decided mention with its shown candidates; NIL if the probability is below `threshold`."""
    if not decided.order:
        return Link(one.mention, None, "", 0.0, "no_candidates", ())
    shown = decided.order[: max(1, request.shown)]
    places = list(shown)
    reader = moment.snapshot.reader
    passages = reader.passages(one.candidates.rows[places])
    ids = reader.doc_ids(one.candidates.keys[places])
    kinds = [str(metadata.get("kind", "")) for metadata in reader.metadata(one.candidates.keys[places])]
    made = []
    for rank, (place, entity, kind) in enumerate(zip(places, ids, kinds, strict=True), 1):
        passage = passages[int(one.candidates.rows[place])]
        made.append(
            Candidate(
                rank, entity, passage.title, kind, description_of(passage.text)[:_SHOWN_CHARS],
                round(float(decided.probability_C[place]), 6), float(decided.utility_C[place]),
                ledger(decided, one.candidates, place, utility),
            )
        )  # fmt: skip
    best = made[0]
    linked = decided.right >= threshold
    return Link(
        one.mention,
        best.entity_id if linked else None,
        best.title if linked else "",
        decided.right,
        "linked" if linked else "below_threshold",
        tuple(made[: request.shown]),
    )


def jointly(links: Sequence[Link], least: float) -> list[Link]:
    """Resolve overlapping links: keep the best by joint probability, none below `least`.

    The joint probability is P(span is a mention) · P(link is correct), as in ELQ (Li et al. 2020).
    """
    made = [replace(one, joint=_mention_probability(one.mention) * one.probability) for one in links]
    made = [one for one in made if one.joint is not None and one.joint >= least]
    kept = apart([(one.mention.start, one.mention.end) for one in made], [one.joint or 0.0 for one in made])
    return [made[at] for at in kept]


def _mention_probability(mention: Mention) -> float:
    """The span head's probability for a mention of the detector `elq`; 1 for other detectors and given mentions."""
    return mention.score if mention.detector == "elq" else 1.0


def deciding(profile: LinkProfile, read_together: bool) -> tuple[Utility, float]:
    """Return the utility function and the link threshold for a mention, with or without cross-encoder scores."""
    if read_together:
        return profile.cross, profile.cross_threshold
    return profile.fast, profile.fast_threshold


def as_it_comes(utility: Utility, feature: str) -> Utility:
    """Return the utility function with coefficient 1 for `feature`, whose values already include their weight."""
    return Utility({**utility.coefficients, feature: 1.0}, utility.nil, utility.knots)


def _evidence(snapshot: Snapshot, one: Retrieved) -> Floats:
    known = dict(one.evidence)
    ids = snapshot.reader.doc_ids(one.candidates.keys) if known and len(one.candidates) else []
    return np.array([known.get(name, 0.0) for name in ids]) if ids else np.zeros(len(one.candidates))


def _vectors(snapshot: Snapshot, candidates: Candidates) -> VectorArray:
    rows, vectors = snapshot.reader.vectors(candidates.rows)
    width = vectors.shape[1] if len(rows) else 0
    found = np.zeros((len(candidates), width), dtype=np.float32)
    at = {row: place for place, row in enumerate(candidates.rows.tolist())}
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        found[at[row]] = vector
    return found
