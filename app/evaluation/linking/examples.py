"""A judged mention with its candidates' features: what evaluation counts and a link profile is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.ranking import Signal
from hyblink.app.evaluation.linking.mentions import REST, JudgedMention
from hyblink.app.linking.candidate_generation import Candidates
from hyblink.app.linking.disambiguation import features_of
from hyblink.app.linking.retrieval import Retrieved
from hyblink.app.linking.service import LinkService

Floats = npt.NDArray[np.float64]
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Example:
    """A mention's candidates, best first by the fused score. `gold` is the place of the right one, -1 where it is none.

    `leg_ranks` are the right entity's ranks in each signal's own list, None where that did not propose it.
    """

    row: JudgedMention
    gold: int
    features: dict[str, Floats]
    leg_ranks: dict[Signal, int | None]
    ids: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many candidates there are."""
        return len(next(iter(self.features.values()), ()))


def retrieved(
    linker: LinkService,
    collection: str,
    rows: Sequence[JudgedMention],
    candidates: int,
    own_document: Callable[[JudgedMention], str | None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
    signals: tuple[Signal, ...] | None = None,
    missing: Container[int] = (),
) -> Iterator[tuple[JudgedMention, Retrieved]]:
    """Each row's mention with its candidates. `own_document` names an entity that is left out of them; of the rows
    whose places are `missing`, the right one is: they are linked as if the knowledge base had it not.

    A row that the collection's link profile counts is taken as if it had not been counted.
    """
    judged = linker.judged(collection)
    for at in range(0, len(rows), _BATCH):
        part = rows[at : at + _BATCH]
        texts = [
            replace(
                row.text,
                exclude=tuple(one for one in (own_document(row), row.entity_id if place in missing else "") if one),
                counted=row.entity_id if judged and row.digest in judged else "",
            )
            for place, row in enumerate(part, at)
        ]
        found = linker.retrieve(collection, texts, candidates, signals)
        progress(len(part))
        yield from zip(part, found, strict=True)


def drawn(count: int, share: float, seed: int = 0) -> frozenset[int]:
    """The places of about so large a share of `count` rows, always the same."""
    return frozenset(np.flatnonzero(np.random.default_rng(seed).random(count) < share).tolist())


def example(row: JudgedMention, one: Retrieved, ids: Sequence[str], cross: Floats | None) -> Example:
    """A row's features; `ids` are those of its candidates."""
    gold = list(ids).index(row.entity_id) if row.entity_id in ids else -1
    features = features_of(one.candidates, {} if cross is None else {Signal.CROSS: cross})
    return Example(row, gold, features, _leg_ranks(one.candidates, gold), tuple(ids))


def marked_or_ordinary(one: Example) -> bool:
    """Whether a mention was judged, or is an ordinary word that nothing around it makes a name of.

    Other names that nobody marked may be meant or not: they are no examples of either (Li et al. 2020, section 3).
    """
    found = one.features.get("unsupported")
    return not one.row.id.endswith(REST) or (found is not None and bool((found > 0).all()))


def ambiguous(one: Example) -> bool:
    """Whether the mention is a name (title or alias) of several candidates. Needs the signal `prior`."""
    return bool(np.count_nonzero(one.features["match"]) > 1)


def _leg_ranks(candidates: Candidates, gold: int) -> dict[Signal, int | None]:
    if gold < 0:
        return dict.fromkeys(candidates.signals)
    row = int(candidates.rows[gold])
    return {signal: candidates.leg_ranks[at].get(row) for at, signal in enumerate(candidates.signals)}
