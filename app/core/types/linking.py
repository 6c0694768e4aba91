"""The data model of entity linking. Offsets are in code points of the text as it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hyblink.app.core.errors import ConflictError, InvalidInputError
from hyblink.app.core.types.budget import BudgetReport
from hyblink.app.core.types.collections import Annotation, CollectionSpec
from hyblink.app.core.types.documents import Metadata
from hyblink.app.core.types.ranking import Signal, SignalValue

LINK_SIGNALS = (Signal.BM25, Signal.VDR, Signal.DENSE, Signal.PRIOR)
"""The signals that can retrieve candidate entities. A request may choose any of them."""

NIL = None
"""The entity id of a mention that refers to no entity of the knowledge base."""


@dataclass(frozen=True, slots=True)
class Entity:
    """An entry of a knowledge base. `kind` is its type. `world` names the source or domain that it comes from."""

    id: str
    title: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    kind: str = ""
    world: str = ""
    lang: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mention:
    """A span `text[start:end]` that may refer to an entity.

    `detector` names what found it, `given` if the caller did. `score` is the detector's confidence, 0 to 1.
    """

    start: int
    end: int
    text: str
    detector: str = "given"
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class MentionContext:
    """A mention with the text to its left and right, as encoders read it."""

    left: str
    mention: str
    right: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate entity of a mention. The signals' contributions sum to `utility`. `rank` counts from 1."""

    rank: int
    entity_id: str
    title: str
    kind: str
    description: str
    probability: float
    utility: float
    signals: tuple[SignalValue, ...]


Reason = Literal["linked", "below_threshold", "no_candidates", "not_reached"]


@dataclass(frozen=True, slots=True)
class Link:
    """The linking decision for one mention. `entity_id` is None for NIL, and `reason` says why.

    `not_reached`: the request's budget ended before this mention, so nothing was decided.

    `probability` is the probability that the best candidate is right. It is calibrated if the profile was fitted.
    """

    mention: Mention
    entity_id: str | None
    title: str
    probability: float
    reason: Reason
    candidates: tuple[Candidate, ...]
    joint: float | None = None
    """In a joint decision the probability that the span is a mention, times `probability`. None otherwise."""


@dataclass(frozen=True, slots=True)
class LinkedText:
    """The links of one text, in the order of their mentions."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text to be linked. `mentions` are (start, end) spans; None asks the detectors to find them.

    `exclude` lists ids of entities that are no candidates. `evidence` holds pairs of entity id and value, 0 to 1: the
    share of the documents retrieved for the text that mention the entity. `counted` is the gold entity of the text's
    mention if `NameCounts` includes that judgement. The judgement is subtracted from the counts before linking.
    """

    text: str
    mentions: tuple[tuple[int, int], ...] | None = None
    exclude: tuple[str, ...] = ()
    evidence: tuple[tuple[str, float], ...] = ()
    counted: str = ""


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A linking request. None means the value of the settings or of the knowledge base's link profile."""

    texts: tuple[Text, ...]
    candidates: int | None = None
    shown: int = 5
    detectors: tuple[str, ...] | None = None
    threshold: float | None = None
    rerank: bool | None = None
    budget_ms: float | None = None
    coherence: float | None = None
    joint: float | None = None
    """The least joint probability of a link; None decides mentions and entities separately.

    In a joint decision (Li et al. 2020) all spans that the detector `elq` proposes are linked. Spans of at least this
    joint probability are kept, and of overlapping ones only the most probable."""
    evidence: float | None = None
    """The weight of `Text.evidence` in an entity's utility."""
    exclude: tuple[str, ...] = ()
    filter: object | None = None
    signals: tuple[Signal, ...] | None = None
    """The signals that retrieve and score candidates, a subset of `LINK_SIGNALS`; None for all of them."""


@dataclass(frozen=True, slots=True)
class CrossReport:
    """What the cross-encoder did: how many mentions it re-ranked, and how many it skipped for lack of time.

    Skipped mentions are decided by the first-stage scores. `error` is empty if the model could be used.
    """

    model: str
    mentions: int
    skipped: int
    took_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class LinkResult:
    """The result of a linking request, computed on one generation of one knowledge base.

    `change` is the change counter of its snapshot. `profile` is the version of the link profile. `missing` maps a
    signal that could not be used to the reason.
    """

    texts: tuple[LinkedText, ...]
    generation: str
    change: int
    profile: int
    calibrated: bool
    threshold: float
    mention_encoder: str
    missing: Mapping[str, str]
    timings_ms: Mapping[str, float]
    cross: CrossReport | None = None
    budget: BudgetReport | None = None
    """What the request used of its budget, and what is left out for that reason. None where none is set."""


@dataclass(frozen=True, slots=True)
class Utility:
    """A conditional logit over a mention's candidates.

    A candidate's utility is the sum of coefficients times features. NIL has the constant utility `nil`. `z` features
    are scores normalised over the mention's candidates, the others are raw. `knots` calibrate the best candidate's
    softmax probability by isotonic regression: ascending pairs (probability, share of correct links). No knots mean
    the identity.
    """

    coefficients: Mapping[str, float]
    nil: float
    knots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """The weights and thresholds of entity linking. Fitted by `hyblink kb fit`, versioned per knowledge base.

    `retrieval` weights the normalised signals that rank the candidates. `fast` decides without the cross-encoder,
    `cross` decides with it. A mention is linked if the probability reaches `fast_threshold` or `cross_threshold`.
    """

    retrieval: Mapping[str, float]
    fast: Utility
    cross: Utility
    fast_threshold: float
    cross_threshold: float
    version: int = 0
    mention_encoder: str = ""
    origin: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    counted: str = ""
    """The digest of the `NameCounts` that the prior uses beside titles and aliases; empty if it uses none."""


@dataclass(frozen=True, slots=True)
class NameCounts:
    """How often each name was judged to refer to each entity: lower-case name → entity id → count.

    `judged` holds digests of the judged mentions that were counted. The counts can be large, so they are stored
    beside the profile and read only when the profile's `counted` changes.
    """

    names: Mapping[str, Mapping[str, float]]
    judged: frozenset[int] = frozenset()


def check_annotation(spec: CollectionSpec, annotation: Annotation) -> None:
    """Check that `annotation` may be set for a collection.

    Raises ConflictError if the collection is itself a knowledge base, InvalidInputError if the threshold is not in
    0 to 1.
    """
    if spec.kind == "entities":
        raise ConflictError("the collection is a knowledge base", received=spec.name, expected="documents to annotate")
    if annotation.threshold is not None and not 0 <= annotation.threshold <= 1:
        raise InvalidInputError("threshold is out of range", received=annotation.threshold, expected="0.0 to 1.0")


def without_overlaps(spans: Sequence[tuple[int, int]], score: Sequence[float]) -> list[int]:
    """Greedy removal of overlapping spans: the indexes of the spans that are kept, ascending.

    Spans (start, end) are taken by descending score. A span that overlaps one already taken is dropped.

    >>> without_overlaps([(0, 3), (2, 5), (4, 9)], [0.5, 0.6, 0.4])
    [1]
    >>> without_overlaps([(0, 3), (2, 5), (4, 9)], [0.5, 0.4, 0.6])
    [0, 2]
    """
    taken: set[int] = set()
    kept = []
    for at in sorted(range(len(spans)), key=lambda at: -score[at]):
        span = range(*spans[at])
        if taken.isdisjoint(span):
            taken.update(span)
            kept.append(at)
    return sorted(kept)
