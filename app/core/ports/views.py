"""What a search sees: one moment of a store with every index brought to exactly that moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hyblink.app.core.ports.store import Selection, StoreReader
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermWeights, VectorArray
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import Scored, TokenContribution


class LexicalView(Protocol):
    """BM25 (Robertson & Zaragoza 2009) with Lucene's idf and one-byte length norm; k1 = 1.2, b = 0.75."""

    def search(self, terms: Sequence[str], k: int, allowed: Selection | None) -> Scored: ...

    def score(self, terms: Sequence[str], rows: IdArray) -> ScoreArray:
        """Exact scores of the given rows; 0 where no term matches."""
        ...

    def contributions(self, terms: Sequence[str], rows: IdArray) -> list[list[TokenContribution]]:
        """Each row's score by term; the contributions sum to the score."""
        ...

    def rank(self, terms: Sequence[str], row: int) -> int | None:
        """The row's exact rank among all that the signal scores, from 1; None where it does not score the row."""
        ...


class SparseView(Protocol):
    """Exact dot products over stored term weights."""

    def query_weights(self, ids: Sequence[int], limit: int) -> TermWeights:
        """Weights for a query's bag of tokens: idf over the collection's passages, heaviest `limit` kept."""
        ...

    def search(self, query: TermWeights, k: int, allowed: Selection | None) -> Scored: ...

    def score(self, query: TermWeights, rows: IdArray) -> ScoreArray: ...

    def contributions(self, query: TermWeights, rows: IdArray) -> list[list[tuple[int, float, float]]]:
        """Each row's matches as (token id, query weight, passage weight)."""
        ...

    def rank(self, query: TermWeights, row: int) -> int | None:
        """The row's exact rank among all that the signal scores, from 1; None where it does not score the row."""
        ...


class DenseView(Protocol):
    """Inner products between a query vector and the stored passage vectors."""

    @property
    def vectors(self) -> int:
        """How many vectors there are to search."""
        ...

    def search(self, query: VectorArray, k: int, allowed: Selection | None) -> Scored: ...

    def score(self, query: VectorArray, rows: IdArray) -> ScoreArray:
        """Exact inner products; NaN where a row has no vector yet."""
        ...

    def rank(self, query: VectorArray, row: int) -> int | None:
        """The row's exact rank among all that the signal scores, from 1; None where it does not score the row."""
        ...


@dataclass(frozen=True, slots=True)
class JointAnswer:
    """What BM25 and the sparse signal propose, and the complete scores that came along.

    `scores_2C` has both signals (BM25 first) of the ascending `rows_C`; there may be none.
    """

    bm25: Scored
    vdr: Scored
    rows_C: IdArray
    scores_2C: ScoreArray


class JointView(Protocol):
    """BM25 and the sparse signal asked together: for engines to which every question is a journey."""

    @property
    def completes(self) -> bool:
        """Whether a search brings complete scores of all that was proposed, `others` included."""
        ...

    def search(
        self, terms: Sequence[str], query: TermWeights, k: int, allowed: Selection | None, others: IdArray
    ) -> JointAnswer:
        """Proposals of both signals; `others` are rows that another leg proposes."""
        ...

    def score(self, terms: Sequence[str], query: TermWeights, rows: IdArray) -> ScoreArray:
        """Exact scores by both signals, shape (2, n); 0 where nothing matches."""
        ...


WAITING_COUNTED = 1000
"""Passages that wait for the encoder are counted so far; whether there are more makes no difference to a search."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a generation: the store and its indexes, all at the same change counter.

    `bag` searches bags of tokens, `vdr` the VDR encoder's weights where the generation has an encoder. `waiting` counts
    the passages on the instant tier, up to `WAITING_COUNTED`. `joint` asks BM25 and one of the sparse forms together.
    """

    change: int
    reader: StoreReader
    bm25: LexicalView
    bag: SparseView
    vdr: SparseView | None
    dense: DenseView | None
    waiting: int = 0
    joint: Mapping[SparseForm, JointView] = field(default_factory=dict)

    @property
    def has_vectors(self) -> bool:
        """Whether there is any vector to search."""
        return self.dense is not None and self.dense.vectors > 0

    def sparse(self, form: SparseForm) -> SparseView:
        """The view of one form. A generation without an encoder has bags only."""
        view = self.bag if form is SparseForm.BAG else self.vdr
        assert view is not None, form
        return view
