"""Searching a snapshot of the sparse index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.compiled import compiled
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermWeights
from hyblink.app.core.types.ranking import EMPTY, Scored
from hyblink.app.core.weights import idf_weights
from hyblink.app.engines.derived import top
from hyblink.app.engines.embedded.sparse.segment import Ints, Segment


@compiled(steps=lambda starts, ends, *_: len(starts) + (ends - starts).sum())
def _accumulate(starts, ends, query_weights, docs, weights, scores):  # type: ignore[no-untyped-def]
    """Add query weight times posting weight to `scores` for each posting; `starts` and `ends` give each token's list.

    If `weights` is empty, every posting has weight 1.
    """
    weighted = len(weights) > 0
    for term in range(len(starts)):
        weight = query_weights[term]
        if weighted:
            for at in range(starts[term], ends[term]):
                scores[docs[at]] += weight * weights[at]
        else:
            for at in range(starts[term], ends[term]):
                scores[docs[at]] += weight


@compiled(steps=lambda scores, *_: len(scores))
def _best(scores, usable, k):  # type: ignore[no-untyped-def]
    """Positions of the k highest positive scores; of equal ones the lower position wins. Not sorted."""
    filtered = len(usable) > 0
    heap_scores = np.empty(k, np.float32)
    heap_at = np.empty(k, np.int64)
    size = 0
    for at in range(len(scores)):
        score = scores[at]
        if score <= 0.0 or (filtered and not usable[at]):
            continue
        if size < k:
            child = size
            size += 1
        elif score > heap_scores[0]:
            # Replace the root by the new score, then sift it down.
            parent = 0
            while True:
                child = 2 * parent + 1
                if child >= size:
                    break
                right = child + 1
                if right < size and (
                    heap_scores[right] < heap_scores[child]
                    or (heap_scores[right] == heap_scores[child] and heap_at[right] > heap_at[child])
                ):
                    child = right
                if heap_scores[child] > score or (heap_scores[child] == score and heap_at[child] < at):
                    break
                heap_scores[parent] = heap_scores[child]
                heap_at[parent] = heap_at[child]
                parent = child
            heap_scores[parent] = score
            heap_at[parent] = at
            continue
        else:
            continue
        while child > 0:
            parent = (child - 1) // 2
            if heap_scores[parent] < score or (heap_scores[parent] == score and heap_at[parent] > at):
                break
            heap_scores[child] = heap_scores[parent]
            heap_at[child] = heap_at[parent]
            child = parent
        heap_scores[child] = score
        heap_at[child] = at
    return heap_at[:size]


@compiled(steps=lambda *_: 0)
def _first_from(docs, low, high, wanted):  # type: ignore[no-untyped-def]
    """Binary search: the first index in the ascending `docs[low:high]` with a value of at least `wanted`, or `high`."""
    while low < high:
        middle = (low + high) // 2
        if docs[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(steps=lambda _start, _end, _docs, wanted, _found: 16 * len(wanted))
def _lookup(start, end, docs, wanted, found):  # type: ignore[no-untyped-def]
    """Write to `found` the index of each wanted position's posting in `docs[start:end]`, or -1. Both ascend."""
    for at in range(len(wanted)):
        place = _first_from(docs, start, end, wanted[at])
        found[at] = place if place < end and docs[place] == wanted[at] else -1


@compiled(steps=lambda starts, _ends, _query, _docs, _weights, wanted, _scores: 16 * len(starts) * len(wanted))
def _accumulate_at(starts, ends, query_weights, docs, weights, wanted, scores):  # type: ignore[no-untyped-def]
    """Like `_accumulate`, but only for the positions in `wanted`, which ascends. `scores` is parallel to `wanted`."""
    weighted = len(weights) > 0
    for term in range(len(starts)):
        low = starts[term]
        for at in range(len(wanted)):
            low = _first_from(docs, low, ends[term], wanted[at])
            if low < ends[term] and docs[low] == wanted[at]:
                scores[at] += query_weights[term] * (weights[low] if weighted else np.float32(1.0))


@dataclass(frozen=True, slots=True)
class SparseView:
    """The `SparseView` of the embedded engine: a snapshot of pairs of a segment and a mask of its live passages.

    An empty mask means that no passage of the segment was removed.
    """

    parts: tuple[tuple[Segment, npt.NDArray[np.bool_]], ...]

    @property
    def passages(self) -> int:
        """The number of passages that idf counts. Removed ones are included until the next base is published."""
        return sum(len(segment.rows) for segment, _ in self.parts)

    def query_weights(self, ids: Sequence[int], limit: int) -> TermWeights:
        wanted = np.asarray(ids, dtype=np.int32)
        frequency = np.zeros(len(wanted), dtype=np.int64)
        for segment, _ in self.parts:
            starts, ends = segment.ranges(wanted)
            frequency += ends - starts
        return idf_weights(wanted, frequency, self.passages, limit)

    def _scores(self, segment: Segment, query: TermWeights) -> ScoreArray:
        scores = np.zeros(len(segment.rows), dtype=np.float32)
        starts, ends = segment.ranges(query.ids)
        _accumulate(starts, ends, query.weights, segment.docs, segment.weights, scores)
        return scores

    def search(self, query: TermWeights, k: int, selection: Selection | None) -> Scored:
        allowed = selection.rows() if selection is not None else None
        if not len(query) or (allowed is not None and not len(allowed)):
            return EMPTY
        rows, values = [], []
        for segment, alive in self.parts:
            usable = alive
            if allowed is not None:
                usable = _member(segment.rows, allowed)
                if len(alive):
                    usable &= alive
            scores = self._scores(segment, query)
            at = _best(scores, usable, min(k, len(scores)) or 1)
            rows.append(segment.rows[at])
            values.append(scores[at])
        return top(np.concatenate(rows), np.concatenate(values), k) if rows else EMPTY

    def score(self, query: TermWeights, rows: IdArray) -> ScoreArray:
        scores = np.zeros(len(rows), dtype=np.float32)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        for segment, _ in self.parts:
            places, wanted = _positions(segment, ascending)
            if len(wanted):
                found = np.zeros(len(wanted), dtype=np.float32)
                starts, ends = segment.ranges(query.ids)
                _accumulate_at(starts, ends, query.weights, segment.docs, segment.weights, wanted, found)
                scores[order[places]] += found
        return scores

    def contributions(self, query: TermWeights, rows: IdArray) -> list[list[tuple[int, float, float]]]:
        result: list[list[tuple[int, float, float]]] = [[] for _ in range(len(rows))]
        for token, at, query_weight, weight in self._matches(query, rows):
            for place, value in zip(at.tolist(), weight.tolist(), strict=True):
                result[place].append((token, query_weight, value))
        return result

    def _matches(self, query: TermWeights, rows: IdArray) -> list[tuple[int, IdArray, float, ScoreArray]]:
        """(token id, indexes into `rows`, query weight, passage weights) for each query token that some row has."""
        matches = []
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        for segment, _ in self.parts:
            inside, wanted = _positions(segment, ascending)
            if not len(wanted):
                continue
            places = order[inside]
            starts, ends = segment.ranges(query.ids)
            found = np.empty(len(wanted), dtype=np.int64)
            triples = zip(query.ids.tolist(), query.weights.tolist(), starts.tolist(), ends.tolist(), strict=True)
            for token, query_weight, start, end in triples:
                _lookup(start, end, segment.docs, wanted, found)
                hit = found >= 0
                if hit.any():
                    weight = segment.weights[found[hit]] if len(segment.weights) else np.ones(hit.sum(), np.float32)
                    matches.append((token, places[hit], query_weight, weight))
        return matches

    def rank(self, query: TermWeights, row: int) -> int | None:
        """The row's exact rank among all rows with a positive score, from 1; None if its score is not positive."""
        score = float(self.score(query, np.array([row]))[0])
        if score <= 0:
            return None
        better = 0
        for segment, alive in self.parts:
            scores = self._scores(segment, query)
            if len(alive):
                scores[~alive] = 0
            better += int(((scores > score) | ((scores == score) & (segment.rows < row))).sum())
        return better + 1


def _positions(segment: Segment, ascending: IdArray) -> tuple[npt.NDArray[np.bool_], Ints]:
    """A mask of which rows the segment has, and the positions of those in the segment. `ascending` is sorted."""
    at = np.searchsorted(segment.rows, ascending)
    inside = at < len(segment.rows)
    inside[inside] &= segment.rows[at[inside]] == ascending[inside]
    return inside, at[inside].astype(np.int32)


def _member(rows: IdArray, allowed: IdArray) -> npt.NDArray[np.bool_]:
    """A mask parallel to `rows`: which of them are in `allowed`. Both ascend."""
    at = np.searchsorted(rows, allowed)
    inside = at < len(rows)
    at = at[inside]
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[at[rows[at] == allowed[inside]]] = True
    return mask
