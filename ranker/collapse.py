"""Passages to documents: a document stands where its best passage does, and shows its best few."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ranker.complete import FusedScores


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document and the candidates (columns of the scores) that are its passages, best first."""

    doc_id: str
    score: float
    columns: tuple[int, ...]


def collapse(fused: FusedScores, doc_keys: Mapping[int, str]) -> list[RankedDocument]:
    """Documents by their best passage's score, ties by id, so that equal scores always stand in the same order.

    Rows that `doc_keys` does not know are left out.
    """
    scores = fused.scores_C.tolist()
    columns: dict[str, list[int]] = {}
    for column, row in enumerate(fused.complete.rows.tolist()):
        doc_id = doc_keys.get(row)
        if doc_id is not None:
            columns.setdefault(doc_id, []).append(column)
    documents = []
    for doc_id, own in columns.items():
        if len(own) > 1:
            own.sort(key=lambda column: (-scores[column], column))
        documents.append(RankedDocument(doc_id, scores[own[0]], tuple(own)))
    documents.sort(key=lambda document: (-document.score, document.doc_id))
    return documents
