"""The entity signal: matches the entities of the query with those that documents were annotated with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hyblink.app.core.ports.store import Selection
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import EMPTY, Scored, Signal
from hyblink.ranker.leg import Leg


def entity_leg(annotated: Sequence[tuple[Selection, float]]) -> Leg:
    """The retriever of passages whose documents are annotated with entities of the query.

    `annotated` holds, for each entity, its passages and its probability in the query. The score of a passage is the sum
    of the probabilities of its entities. An entity with more than k passages may propose none, if reading them would be
    slow; then other signals must propose candidates.
    """

    def score(rows: IdArray) -> ScoreArray:
        total = np.zeros(len(rows), dtype=np.float32)
        for selection, probability in annotated:
            total += np.float32(probability) * selection.contains(rows)
        return total

    def search(k: int, allowed: Selection | None, _: IdArray) -> Mapping[Signal, Scored]:
        few = [found for selection, _ in annotated if (found := selection.rows_if_at_most(k)) is not None]
        rows = np.unique(np.concatenate(few)) if few else EMPTY.rows
        if allowed is not None and len(rows):
            rows = rows[allowed.contains(rows)]
        scores = score(rows)
        order = np.lexsort((rows, -scores))[:k]
        return {Signal.ENTITY: Scored(rows[order], scores[order])}

    return Leg((Signal.ENTITY,), search, lambda rows: {Signal.ENTITY: score(rows)}, lambda _, __: None)
