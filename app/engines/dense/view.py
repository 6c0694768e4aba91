"""Searching a snapshot of the dense index."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.settings import DenseSettings
from hyblink.app.core.types.arrays import IdArray, ScoreArray, VectorArray
from hyblink.app.core.types.ranking import EMPTY, Scored
from hyblink.app.engines.dense.kinds import DenseKind, visited_lists
from hyblink.app.engines.dense.mapped import MappedVectors
from hyblink.app.engines.derived import top

_PQ_EXTRA_RESCORE = 4

_FIRST_OVERFETCH = 3

_MOST_OVERFETCH = 64

Mask = npt.NDArray[np.bool_]

_GPU = threading.Lock()


@dataclass(frozen=True, slots=True)
class Base:
    """An opened build: passage rows (ascending), their vectors, shape (B, D), and the FAISS index over them.

    `phi` is that of `kinds.build`. `on_gpu` is a copy of the index on the GPU, None without one.
    """

    kind: DenseKind
    rows: IdArray
    vectors_BD: MappedVectors
    index: Any
    phi: float
    on_gpu: Any = None

    def exact(self, at: IdArray, query_D: VectorArray) -> ScoreArray:
        """The exact inner products of the query with the vectors at the given positions, shape (n,)."""
        return self.vectors_BD.take(at) @ query_D


@dataclass(frozen=True, slots=True)
class FaissView:
    """The `DenseView` of FAISS: a snapshot of the base, and a buffer of newer vectors (N, D) of the ascending `rows`.

    `base_alive` and `alive` mask the live rows of base and buffer. An empty mask means that none was removed.
    """

    base: Base | None
    base_alive: Mask
    rows: IdArray
    vectors_ND: VectorArray
    alive: Mask
    settings: DenseSettings
    dimension: int

    @property
    def vectors(self) -> int:
        """The number of vectors that can be found, without removed ones."""
        base = len(self.base.rows) if self.base else 0
        return base + len(self.rows) - int((~self.base_alive).sum()) - int((~self.alive).sum())

    def _check(self, query: VectorArray) -> VectorArray:
        if query.shape != (self.dimension,):
            raise InvalidInputError(
                "the query vector has the wrong dimension",
                received=query.shape,
                expected=f"({self.dimension},)",
            )
        return np.ascontiguousarray(query, dtype=np.float32)

    def search(self, query: VectorArray, k: int, allowed: Selection | None) -> Scored:
        query_D = self._check(query)
        if allowed is None:
            return self._search(query_D, k, None)
        rows = allowed.rows_if_at_most(self.settings.exact_below)
        if rows is not None:
            return self._search(query_D, k, rows)
        # The filter keeps many rows, which are not in memory: fetch more than k and test only those (post-filtering).
        fetch = k * _FIRST_OVERFETCH
        while True:
            found = self._search(query_D, fetch, None)
            keep = allowed.contains(found.rows)
            if int(keep.sum()) >= k or len(found) >= self.vectors:
                return Scored(found.rows[keep][:k], found.scores[keep][:k])
            if len(found) < fetch or fetch > _MOST_OVERFETCH * k:
                return self._search(query_D, k, allowed.rows())
            fetch *= 4

    def _search(self, query_D: VectorArray, k: int, allowed: IdArray | None) -> Scored:
        found = []
        if self.base is not None and len(self.base.rows):
            found.append(self._search_base(self.base, query_D, k, allowed))
        if len(self.rows):
            scores = self.vectors_ND @ query_D
            usable = _usable(self.rows, self.alive, allowed)
            rows = self.rows
            if len(usable):
                rows, scores = rows[usable], scores[usable]
            found.append(top(rows, scores, k))
        if not found:
            return EMPTY
        return top(np.concatenate([f.rows for f in found]), np.concatenate([f.scores for f in found]), k)

    def _search_base(self, base: Base, query_D: VectorArray, k: int, allowed: IdArray | None) -> Scored:
        usable = _usable(base.rows, self.base_alive, allowed)
        survivors = int(usable.sum()) if len(usable) else len(base.rows)
        if not survivors:
            return EMPTY
        if len(usable) and survivors <= max(self.settings.exact_below, k):
            at = np.flatnonzero(usable)
            return top(base.rows[at], base.exact(at, query_D), k)
        fetch = k
        if base.kind != "flat":
            fetch = k * self.settings.rescore * (_PQ_EXTRA_RESCORE if base.kind == "ivf,pq" else 1)
        at = self._positions(base, query_D, min(fetch, survivors), usable)
        return top(base.rows[at], base.exact(at, query_D), k)

    def _positions(self, base: Base, query_D: VectorArray, fetch: int, usable: Mask) -> IdArray:
        """The positions of the `fetch` nearest vectors according to the FAISS index, which may be approximate.

        `usable` masks the positions that may be returned; empty allows all.
        """
        import faiss

        options: dict[str, Any] = {}
        if len(usable):
            bits = np.packbits(usable, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        query = query_D[None]
        if base.phi:
            query = np.hstack([query, np.zeros((1, 1), dtype=np.float32)])
        if base.on_gpu is not None and not len(usable):
            with _GPU:  # one search at a time, because searches share the GPU's scratch memory
                _, at = base.on_gpu.search(query, min(fetch, 2048))
        elif base.kind == "hnsw":
            beam = max(self.settings.hnsw_ef_search, fetch)
            _, at = base.index.search(query, fetch, params=faiss.SearchParametersHNSW(efSearch=beam, **options))
        elif base.kind == "flat":
            _, at = base.index.search(query, fetch, params=faiss.SearchParameters(**options) if options else None)
        else:
            lists = visited_lists(base.index.nlist, self.settings)
            make = faiss.SearchParametersIVF if base.kind == "ivf,sq8" else faiss.IVFPQSearchParameters
            _, at = base.index.search(query, fetch, params=make(nprobe=lists, **options))
        positions: IdArray = at[0].astype(np.int64)
        return positions[positions >= 0]

    def score(self, query: VectorArray, rows: IdArray) -> ScoreArray:
        query_D = self._check(query)
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if self.base is not None:
            place, at = positions_of(self.base.rows, rows, self.base_alive)
            scores[place] = self.base.exact(at, query_D)
        place, at = positions_of(self.rows, rows, self.alive)
        if len(at):
            scores[place] = self.vectors_ND[at] @ query_D
        return scores

    def rank(self, query: VectorArray, row: int) -> int | None:
        """The row's exact rank among all vectors, from 1; None if it has no vector yet."""
        query_D = self._check(query)
        score = float(self.score(query, np.array([row]))[0])
        if np.isnan(score):
            return None
        better = 0
        if self.base is not None:
            usable = self.base_alive if len(self.base_alive) else np.ones(len(self.base.rows), dtype=np.bool_)
            for start in range(0, len(self.base.rows), 65_536):
                at = np.arange(start, min(start + 65_536, len(self.base.rows)))
                scores = self.base.exact(at, query_D)
                ahead = (scores > score) | ((scores == score) & (self.base.rows[at] < row))
                better += int((ahead & usable[at]).sum())
        if len(self.rows):
            scores = self.vectors_ND @ query_D
            ahead = (scores > score) | ((scores == score) & (self.rows < row))
            better += int((ahead & self.alive).sum() if len(self.alive) else ahead.sum())
        return better + 1


def _usable(rows: IdArray, alive: Mask, allowed: IdArray | None) -> Mask:
    """A mask parallel to `rows`: which of them may be returned; an empty mask allows all. `rows` ascends."""
    if allowed is None:
        return alive
    place, at = positions_of(rows, allowed, alive)
    del place
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[at] = True
    return mask


def positions_of(rows: IdArray, wanted: IdArray, alive: Mask) -> tuple[IdArray, IdArray]:
    """(indexes into `wanted`, positions in the ascending `rows`) of the wanted rows that exist and are alive."""
    at = np.searchsorted(rows, wanted)
    hit = at < len(rows)
    hit[hit] &= rows[at[hit]] == wanted[hit]
    if len(alive):
        hit[hit] &= alive[at[hit]]
    return np.flatnonzero(hit), at[hit]
