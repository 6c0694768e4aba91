"""Passages to documents: a document stands where its best passage does, and shows its best few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.types.arrays import IdArray
from hyblink.ranker.complete import FusedScores
from hyblink.ranker.fusion.inputs import Floats


@dataclass(frozen=True, slots=True)
class RankedDocuments:
    """D documents, best first, by their keys and scores. `columns(d)` are their candidates, best first."""

    keys_D: IdArray
    scores_D: Floats
    _columns: IdArray
    _starts_D: IdArray
    _ends_D: IdArray

    def __len__(self) -> int:
        return len(self.keys_D)

    def columns(self, at: int) -> list[int]:
        """The candidates (columns of the scores) that are passages of the document in place `at`."""
        columns: list[int] = self._columns[self._starts_D[at] : self._ends_D[at]].tolist()
        return columns

    def reordered(self, order: IdArray, scores_D: Floats) -> RankedDocuments:
        """The documents in another order of their places, with other scores, given in the old order."""
        return RankedDocuments(
            self.keys_D[order], scores_D[order], self._columns, self._starts_D[order], self._ends_D[order]
        )


def collapse(fused: FusedScores, keys_C: IdArray, ids_of: Callable[[IdArray], Sequence[str]]) -> RankedDocuments:
    """Documents by their best passage's score, ties by id, so that equal scores always stand in the same order.

    `keys_C` are the candidates' documents, -1 where there is none: those are left out. Ids are asked for only where
    scores tie.
    """
    columns = np.flatnonzero(keys_C >= 0)
    keys, scores = keys_C[columns], fused.scores_C[columns]
    by_document = np.lexsort((columns, -scores, keys))
    columns, keys, scores = columns[by_document], keys[by_document], scores[by_document]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    ends = np.append(starts[1:], len(keys))
    keys, scores = keys[starts], scores[starts]
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    tied = np.flatnonzero(np.diff(ranked) == 0)
    if len(tied):
        places = np.union1d(tied, tied + 1)
        ids = dict(zip(places.tolist(), ids_of(keys[order[places]]), strict=True))
        resorted = sorted(places.tolist(), key=lambda place: (-ranked[place], ids[place]))
        order[places] = order[resorted]
    return RankedDocuments(keys[order], scores[order], columns, starts[order], ends[order])
