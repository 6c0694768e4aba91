"""The data model of entity linking. Offsets are code points of the text as it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hyblink.app.core.errors import ConflictError, InvalidInputError
from hyblink.app.core.types.collections import Annotation, CollectionSpec
from hyblink.app.core.types.documents import Metadata
from hyblink.app.core.types.ranking import Signal, SignalValue

LINK_SIGNALS = (Signal.BM25, Signal.VDR, Signal.DENSE, Signal.PRIOR)
"""What proposes entities, each alone if asked."""

NIL = None
"""The entity of a mention that means nothing in the knowledge base."""


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that a mention can mean. `world` groups entities of one source; `kind` is what sort of thing it is."""

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
    """A span `text[start:end]` that may mean an entity; `detector` found it and is so sure of it (`score`, 0 to 1)."""

    start: int
    end: int
    text: str
    detector: str = "given"
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class MentionContext:
    """A mention with the text around it, which encoders read."""

    left: str
    mention: str
    right: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entity that a mention may mean. The signals' contributions sum to `utility`."""

    rank: int
    entity_id: str
    title: str
    kind: str
    description: str
    probability: float
    utility: float
    signals: tuple[SignalValue, ...]


Reason = Literal["linked", "below_threshold", "no_candidates"]


@dataclass(frozen=True, slots=True)
class Link:
    """What a mention was found to mean. `entity_id` is None for NIL, and `reason` says why.

    `probability` is that of the best candidate being right, calibrated where the profile was fitted; NIL has the rest.
    """

    mention: Mention
    entity_id: str | None
    title: str
    probability: float
    reason: Reason
    candidates: tuple[Candidate, ...]
    joint: float | None = None
    """Of a joint decision: how probable it is that the span is a mention, times `probability`."""


@dataclass(frozen=True, slots=True)
class LinkedText:
    """A text's links, in the order of their mentions."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """What is to be linked: a text, with its mentions where they are known. `exclude` are entities it cannot mean.

    `evidence` says of entities (ids) how much speaks for them from elsewhere, from 0 to 1: the share of the documents
    found for the text that mention them. `counted` is the entity that its mention is known to mean and was counted for:
    it is linked as if it had not been.
    """

    text: str
    mentions: tuple[tuple[int, int], ...] | None = None
    exclude: tuple[str, ...] = ()
    evidence: tuple[tuple[str, float], ...] = ()
    counted: str = ""


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A linking request. None asks for what the settings or the collection's link profile say."""

    texts: tuple[Text, ...]
    candidates: int | None = None
    shown: int = 5
    detectors: tuple[str, ...] | None = None
    threshold: float | None = None
    rerank: bool | None = None
    budget_ms: float | None = None
    coherence: float | None = None
    joint: float | None = None
    """Decide jointly which spans are mentions and what they mean (Li et al. 2020): all spans that `elq` thinks possible
    are linked, those of at least this joint probability compete, and the best of overlapping ones stays."""
    evidence: float | None = None
    """The weight of the texts' evidence in an entity's utility."""
    exclude: tuple[str, ...] = ()
    filter: object | None = None
    signals: tuple[Signal, ...] | None = None
    """What proposes and scores candidates: some of BM25, VDR, dense, prior; all of them by default."""


@dataclass(frozen=True, slots=True)
class CrossReport:
    """How the cross-encoder fared: mentions whose candidates it read, and those left to the fast path."""

    model: str
    mentions: int
    skipped: int
    took_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class LinkResult:
    """The answer to a linking request, by one generation of one knowledge base."""

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


@dataclass(frozen=True, slots=True)
class Utility:
    """A conditional logit over a mention's candidates: coefficients times features, summed; NIL has `nil`.

    Features: `z` values are scores normalised over the candidates, the others raw. `knots` map the best candidate's
    softmax probability to how often such a link is right (isotonic; they ascend), none for the identity.
    """

    coefficients: Mapping[str, float]
    nil: float
    knots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """How candidates become links. Fitted on judged mentions by `hyblink kb fit`; versioned per knowledge base.

    `retrieval` weighs the normalised signals that order the candidates; `fast` decides without, `cross` with the
    cross-encoder. A link is made where its probability reaches the threshold of the same name.
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
    """The digest of the counts of names that decide the prior beside titles and aliases; empty where none do."""


@dataclass(frozen=True, slots=True)
class NameCounts:
    """How often names (in lower case) were judged to mean entities (ids), and the digests of the mentions counted.

    They are kept beside the profile and read when its `counted` changes, as there may be a name for every mention.
    """

    names: Mapping[str, Mapping[str, float]]
    judged: frozenset[int] = frozenset()


def check_annotation(spec: CollectionSpec, annotation: Annotation) -> None:
    """Raises ConflictError for a knowledge base's own entities, InvalidInputError for what is no probability."""
    if spec.kind == "entities":
        raise ConflictError("the collection is a knowledge base", received=spec.name, expected="documents to annotate")
    if annotation.threshold is not None and not 0 <= annotation.threshold <= 1:
        raise InvalidInputError("threshold is out of range", received=annotation.threshold, expected="0.0 to 1.0")


def apart(spans: Sequence[tuple[int, int]], score: Sequence[float]) -> list[int]:
    """Places of the spans that stay when the best is taken first and what overlaps it is dropped, ascending.

    >>> apart([(0, 3), (2, 5), (4, 9)], [0.5, 0.6, 0.4])
    [1]
    >>> apart([(0, 3), (2, 5), (4, 9)], [0.5, 0.4, 0.6])
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
