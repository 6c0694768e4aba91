"""From candidates to links: score them with the cross-encoder, decide with the link profile, build the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyblink.app.core.budget import check_budget, holds
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import (
    EntityCross,
)
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.arrays import IdArray, VectorArray
from hyblink.app.core.types.linking import (
    Candidate,
    Link,
    LinkProfile,
    LinkRequest,
    Mention,
    Utility,
    without_overlaps,
)
from hyblink.app.core.types.ranking import Signal
from hyblink.app.linking.candidate_generation import Candidates
from hyblink.app.linking.disambiguation import Decided, Floats, coherence, decide, ledger
from hyblink.app.linking.knowledge_base import description_of
from hyblink.app.linking.retrieval import LinkSession, Retrieved

_SHOWN_CHARS = 300
_BYTES_A_CANDIDATE = 6000
"""Memory of a shown candidate: its lines by signal, and their JSON."""
_READ_TOGETHER = 2048


def score_with_cross_encoder(
    session: LinkSession,
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
    tops = [_top(session, item, most) for item in retrieved]
    rows = np.unique(np.concatenate([item.candidates.rows[top] for item, top in zip(retrieved, tops, strict=True)]))
    passages = session.snapshot.reader.passages(rows)
    entities = [
        [(passages[row].title, description_of(passages[row].text)) for row in item.candidates.rows[top].tolist()]
        for item, top in zip(retrieved, tops, strict=True)
    ]
    try:
        scores = cross.score([item.context for item in retrieved], entities, deadline)
    except EncoderUnavailableError as error:
        session.missing[Signal.CROSS.value] = str(error)
        return 0
    done = 0
    for item, top, own, extra in zip(retrieved, tops, scores, extras, strict=True):
        if len(own) and not np.isnan(own).any():
            # Candidates that it did not score get the lowest score of the others.
            values = np.full(len(item.candidates), float(own.min()))
            values[top] = own
            extra[Signal.CROSS] = values
            done += 1
    return done


def _top(session: LinkSession, retrieved: Retrieved, most: int) -> list[int]:
    return list(decide(retrieved.candidates, session.profile.fast, {}).order[:most])


def links_of(
    session: LinkSession,
    request: LinkRequest,
    retrieved: Sequence[Retrieved],
    extras: Sequence[dict[Signal, Floats]],
) -> list[Link]:
    """Decide each mention and return one link (or NIL) for each, in order.

    Adds the features `evidence` and `coherence` to `extras` where the request gives them a weight.
    """
    chosen = [deciding(session.profile, Signal.CROSS in extra) for extra in extras]
    utilities = [utility for utility, _ in chosen]
    if request.evidence:
        utilities = [with_unit_coefficients(item, "evidence") for item in utilities]
        for item, extra in zip(retrieved, extras, strict=True):
            extra[Signal.EVIDENCE] = request.evidence * _evidence(session.snapshot, item)
    decided = [
        decide(item.candidates, utility, extra)
        for item, utility, extra in zip(retrieved, utilities, extras, strict=True)
    ]
    if request.coherence:
        vectors = [_vectors(session.snapshot, item.candidates) for item in retrieved]
        for extra, values in zip(extras, coherence(decided, vectors, request.coherence), strict=True):
            extra[Signal.COHERENCE] = values
        decided = [
            decide(item.candidates, with_unit_coefficients(utility, "coherence"), extra)
            for item, utility, extra in zip(retrieved, utilities, extras, strict=True)
        ]
        utilities = [with_unit_coefficients(item, "coherence") for item in utilities]
    count = max(1, request.shown)
    shown = [own.order[:count] if _fits(min(count, len(own.order))) else own.order[:1] for own in decided]
    entities = _entities(
        session.snapshot, [item.candidates.rows[list(own)] for item, own in zip(retrieved, shown, strict=True)]
    )
    made = []
    for item, own, utility, (_, threshold), places in zip(retrieved, decided, utilities, chosen, shown, strict=True):
        check_budget()
        least = threshold if request.threshold is None else request.threshold
        made.append(_link_of(request, item, own, utility, least, places, entities))
    return made


@dataclass(frozen=True, slots=True)
class _Entity:
    """What is shown of a candidate entity."""

    id: str
    title: str
    kind: str
    description: str


def _fits(count: int) -> bool:
    """Whether so many candidates fit into the request's memory."""
    return holds(
        count * _BYTES_A_CANDIDATE,
        "candidates of the later mentions but the best: ask for fewer with `shown`, or send fewer mentions",
    )


def _entities(snapshot: Snapshot, rows: Sequence[IdArray]) -> dict[int, _Entity]:
    """The entities of passage rows; each is read once, however many mentions show it."""
    reader = snapshot.reader
    found: dict[int, _Entity] = {}
    every = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *rows]))
    for at in range(0, len(every), _READ_TOGETHER):
        check_budget()
        some = every[at : at + _READ_TOGETHER]
        keys = reader.document_keys(some)
        passages = reader.passages(some)
        for row, entity, metadata in zip(some.tolist(), reader.doc_ids(keys), reader.metadata(keys), strict=True):
            passage = passages[row]
            description = description_of(passage.text)[:_SHOWN_CHARS]
            found[row] = _Entity(entity, passage.title, str(metadata.get("kind", "")), description)
    return found


def _link_of(
    request: LinkRequest,
    retrieved: Retrieved,
    decided: Decided,
    utility: Utility,
    threshold: float,
    shown: Sequence[int],
    entities: Mapping[int, _Entity],
) -> Link:
    """The link of one decided mention with its shown candidates; NIL if the probability is below `threshold`."""
    if not shown:
        return Link(retrieved.mention, None, "", 0.0, "no_candidates", ())
    made = []
    for rank, place in enumerate(shown, 1):
        entity = entities[int(retrieved.candidates.rows[place])]
        made.append(
            Candidate(
                rank, entity.id, entity.title, entity.kind, entity.description,
                round(float(decided.probability_C[place]), 6), float(decided.utility_C[place]),
                ledger(decided, retrieved.candidates, place, utility),
            )
        )  # fmt: skip
    best = made[0]
    linked = decided.probability_of_best >= threshold
    return Link(
        retrieved.mention,
        best.entity_id if linked else None,
        best.title if linked else "",
        decided.probability_of_best,
        "linked" if linked else "below_threshold",
        tuple(made[: request.shown]),
    )


def jointly(links: Sequence[Link], least: float) -> list[Link]:
    """Resolve overlapping links: keep the best by joint probability, none below `least`.

    The joint probability is P(span is a mention) · P(link is correct), as in ELQ (Li et al. 2020).
    """
    made = [replace(link, joint=_mention_probability(link.mention) * link.probability) for link in links]
    made = [item for item in made if item.joint is not None and item.joint >= least]
    kept = without_overlaps(
        [(item.mention.start, item.mention.end) for item in made], [item.joint or 0.0 for item in made]
    )
    return [made[at] for at in kept]


def _mention_probability(mention: Mention) -> float:
    """The span head's probability for a mention of the detector `elq`; 1 for other detectors and given mentions."""
    return mention.score if mention.detector == "elq" else 1.0


def deciding(profile: LinkProfile, score_with_cross_encoder: bool) -> tuple[Utility, float]:
    """Return the utility function and the link threshold for a mention, with or without cross-encoder scores."""
    if score_with_cross_encoder:
        return profile.cross, profile.cross_threshold
    return profile.fast, profile.fast_threshold


def with_unit_coefficients(utility: Utility, feature: str) -> Utility:
    """Return the utility function with coefficient 1 for `feature`, whose values already include their weight."""
    return Utility({**utility.coefficients, feature: 1.0}, utility.nil, utility.knots)


def _evidence(snapshot: Snapshot, retrieved: Retrieved) -> Floats:
    known = dict(retrieved.evidence)
    ids = snapshot.reader.doc_ids(retrieved.candidates.keys) if known and len(retrieved.candidates) else []
    return np.array([known.get(name, 0.0) for name in ids]) if ids else np.zeros(len(retrieved.candidates))


def _vectors(snapshot: Snapshot, candidates: Candidates) -> VectorArray:
    rows, vectors = snapshot.reader.vectors(candidates.rows)
    width = vectors.shape[1] if len(rows) else 0
    found = np.zeros((len(candidates), width), dtype=np.float32)
    at = {row: place for place, row in enumerate(candidates.rows.tolist())}
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        found[at[row]] = vector
    return found
