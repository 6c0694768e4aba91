"""Collapses ranked passages to documents. A document has the score of its best passage (MaxP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.types.arrays import IdArray
from hyblink.ranker.complete import FusedScores
from hyblink.ranker.fusion.inputs import Floats


@dataclass(frozen=True, slots=True)
class RankedDocuments:
    """D ranked documents, best first, with their keys and scores. `columns` gives the passages of each, best first."""

    keys_D: IdArray
    scores_D: Floats
    _columns: IdArray
    _starts_D: IdArray
    _ends_D: IdArray

    def __len__(self) -> int:
        return len(self.keys_D)

    def columns(self, at: int) -> list[int]:
        """The candidate passages of the document at rank index `at` (from 0), as columns of the scores, best first."""
        columns: list[int] = self._columns[self._starts_D[at] : self._ends_D[at]].tolist()
        return columns

    def reordered(self, order: IdArray, scores_D: Floats) -> RankedDocuments:
        """The documents permuted by `order` (indices), with new scores, which are given in the old order."""
        return RankedDocuments(
            self.keys_D[order], scores_D[order], self._columns, self._starts_D[order], self._ends_D[order]
        )


def collapse(fused: FusedScores, keys_C: IdArray, ids_of: Callable[[IdArray], Sequence[str]]) -> RankedDocuments:
    """Rank documents by the score of their best passage. Ties are broken by document id, so the order is deterministic.

    `keys_C` are the document keys of the candidates. Candidates with key -1 (deleted) are left out. `ids_of` is called
    only for documents with tied scores.
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
