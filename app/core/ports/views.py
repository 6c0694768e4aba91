"""The ports of a snapshot: the store and read-only views of the indexes, all at the same change counter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hyblink.app.core.ports.store import Selection, StoreReader
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermWeights, VectorArray
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import Scored, TokenContribution


class LexicalView(Protocol):
    """The inverted index at one snapshot, scored by BM25 (Robertson & Zaragoza 2009); k1 = 1.2, b = 0.75.

    It uses Lucene's idf and one-byte length norm. A query is a list of analyzed terms; a repeated term counts twice.
    """

    def search(self, terms: Sequence[str], k: int, allowed: Selection | None) -> Scored:
        """The k best passages, best first, among those of `allowed`; None allows all."""
        ...

    def score(self, terms: Sequence[str], rows: IdArray) -> ScoreArray:
        """Exact scores of the given rows, parallel to `rows`; 0 if no term matches."""
        ...

    def contributions(self, terms: Sequence[str], rows: IdArray) -> list[list[TokenContribution]]:
        """Each row's score split by term. The contributions of a row sum to its score."""
        ...

    def rank(self, terms: Sequence[str], row: int) -> int | None:
        """The row's exact rank among all matching passages, from 1; None if the row does not match."""
        ...


class SparseView(Protocol):
    """The inverted index of sparse vectors at one snapshot. Scores are exact dot products."""

    def query_weights(self, ids: Sequence[int], limit: int) -> TermWeights:
        """The idf of a query's tokens over the collection's passages; only the `limit` largest are kept."""
        ...

    def search(self, query: TermWeights, k: int, allowed: Selection | None) -> Scored:
        """The k best passages with a positive score, best first, among those of `allowed`; None allows all."""
        ...

    def score(self, query: TermWeights, rows: IdArray) -> ScoreArray:
        """Exact dot products of the query with the given rows, parallel to `rows`; 0 if no token matches."""
        ...

    def contributions(self, query: TermWeights, rows: IdArray) -> list[list[tuple[int, float, float]]]:
        """Each row's matching tokens as (token id, query weight, passage weight)."""
        ...

    def rank(self, query: TermWeights, row: int) -> int | None:
        """The row's exact rank among all matching passages, from 1; None if the row does not match."""
        ...


class DenseView(Protocol):
    """The dense index at one snapshot. Scores are inner products of query and passage vectors."""

    @property
    def vectors(self) -> int:
        """The number of vectors that can be found."""
        ...

    def search(self, query: VectorArray, k: int, allowed: Selection | None) -> Scored:
        """The k nearest passages of `query`, shape (D,), best first, among those of `allowed`; None allows all.

        The index may be approximate: it may miss a neighbour, but every score is an exact inner product.
        """
        ...

    def score(self, query: VectorArray, rows: IdArray) -> ScoreArray:
        """Exact inner products of the query with the given rows, parallel to `rows`; NaN if a row has no vector."""
        ...

    def rank(self, query: VectorArray, row: int) -> int | None:
        """The row's exact rank among all passages with a vector, from 1; None if the row has no vector."""
        ...


@dataclass(frozen=True, slots=True)
class JointAnswer:
    """The ranked lists of BM25 and the sparse signal, and exact scores computed in the same request.

    `scores_2C` has shape (2, C): the BM25 and the sparse scores of `rows_C`, which ascends. C may be 0.
    """

    bm25: Scored
    vdr: Scored
    rows_C: IdArray
    scores_2C: ScoreArray


class JointView(Protocol):
    """Searches BM25 and the sparse signal in one request, for engines where every request is a network round trip."""

    @property
    def completes(self) -> bool:
        """Whether a search also returns both scores of every retrieved row, `others` included."""
        ...

    def search(
        self, terms: Sequence[str], query: TermWeights, k: int, allowed: Selection | None, others: IdArray
    ) -> JointAnswer:
        """The k best passages of each signal. `others` are rows retrieved by another signal, to be scored as well."""
        ...

    def score(self, terms: Sequence[str], query: TermWeights, rows: IdArray) -> ScoreArray:
        """Exact scores of the given rows, shape (2, n): BM25 first, then sparse; 0 if nothing matches."""
        ...


WAITING_COUNTED = 1000
"""The largest value of `Snapshot.waiting`. Counting further would cost time and change no search."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent snapshot of a generation: the store and its indexes, all at the same change counter.

    `bag` searches bags of tokens. `vdr` searches VDR weights, None if the generation has no VDR encoder. `dense` is
    None if it has no dense encoder. `waiting` counts the passages not encoded yet, up to `WAITING_COUNTED`. `joint`
    searches BM25 and one sparse form in one request, on engines that support it.
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
        """Whether the dense index holds any vector."""
        return self.dense is not None and self.dense.vectors > 0

    def sparse(self, form: SparseForm) -> SparseView:
        """The index of one form of term weights. A generation without a VDR encoder has `BAG` only."""
        view = self.bag if form is SparseForm.BAG else self.vdr
        assert view is not None, form
        return view
