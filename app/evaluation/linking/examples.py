"""Examples: judged mentions with the features of their candidates, for evaluating and fitting link profiles."""

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
    """A judged mention with the features of its candidates, which are in the order of the fused score.

    `gold` is the index of the correct candidate, -1 if it is not among them. `features` has arrays of shape (C,).
    `leg_ranks` has the correct entity's rank in each signal's own list, None if the signal did not retrieve it.
    """

    row: JudgedMention
    gold: int
    features: dict[str, Floats]
    leg_ranks: dict[Signal, int | None]
    ids: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of candidates."""
        return len(next(iter(self.features.values()), ()))


def retrieve_candidates(
    linker: LinkService,
    collection: str,
    rows: Sequence[JudgedMention],
    candidates: int,
    own_document: Callable[[JudgedMention], str | None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
    signals: tuple[Signal, ...] | None = None,
    missing: Container[int] = (),
) -> Iterator[tuple[JudgedMention, Retrieved]]:
    """Retrieve the candidates of each judged mention; yield (row, mention with candidates) in order.

    `own_document` gives an entity to exclude from a row's candidates. For the rows with an index in `missing`, the
    correct entity is excluded too, as if the knowledge base did not have it. If the link profile's name counts include
    a row, its own count is left out.
    """
    judged = linker.judged(collection)
    for at in range(0, len(rows), _BATCH):
        part = rows[at : at + _BATCH]
        texts = [
            replace(
                row.text,
                exclude=tuple(item for item in (own_document(row), row.entity_id if place in missing else "") if item),
                counted=row.entity_id if judged and row.digest in judged else "",
            )
            for place, row in enumerate(part, at)
        ]
        found = linker.retrieve(collection, texts, candidates, signals)
        progress(len(part))
        yield from zip(part, found, strict=True)


def sample_indices(count: int, share: float, seed: int = 0) -> frozenset[int]:
    """Sample about a `share` (0 to 1) of the indices below `count`, deterministically for a seed."""
    return frozenset(np.flatnonzero(np.random.default_rng(seed).random(count) < share).tolist())


def example(row: JudgedMention, item: Retrieved, ids: Sequence[str], cross: Floats | None) -> Example:
    """Build the example of a row. `ids` are the entity ids of its candidates, `cross` their cross-encoder scores."""
    gold = list(ids).index(row.entity_id) if row.entity_id in ids else -1
    features = features_of(item.candidates, {} if cross is None else {Signal.CROSS: cross})
    return Example(row, gold, features, _leg_ranks(item.candidates, gold), tuple(ids))


def marked_or_ordinary(item: Example) -> bool:
    """Return whether a mention is usable as an example: judged, or an unmarked ordinary word without support.

    An ordinary word is unsupported if its context does not indicate any of its candidates; it is a NIL example. Other
    unmarked names may or may not be mentions, so they are not used (Li et al. 2020, section 3).
    """
    found = item.features.get("unsupported")
    return not item.row.id.endswith(REST) or (found is not None and bool((found > 0).all()))


def ambiguous(item: Example) -> bool:
    """Return whether the mention is a name (title or alias) of several candidates. Needs the signal `prior`."""
    return bool(np.count_nonzero(item.features["match"]) > 1)


def _leg_ranks(candidates: Candidates, gold: int) -> dict[Signal, int | None]:
    if gold < 0:
        return dict.fromkeys(candidates.signals)
    row = int(candidates.rows[gold])
    return {signal: candidates.leg_ranks[at].get(row) for at, signal in enumerate(candidates.signals)}
