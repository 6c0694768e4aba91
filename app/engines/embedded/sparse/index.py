"""Sparse postings: exact dot products over stored term weights.

Term at a time over compressed sparse columns: each query token adds ``query weight * passage weight`` to an array of
scores, one entry per passage, and one pass keeps the best k. At a few hundred thousand passages this visits only
the postings of the query's own tokens and needs no bounds.

A large base on disk (memory-mapped) and a few small segments in memory hold the passages; small segments of like
size are merged as they gather, so that a passage is copied a logarithmic number of times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from hyblink.app.core.ports.store import Selection, StoreReader
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermBatch, TermWeights
from hyblink.app.core.types.ranking import EMPTY, Scored
from hyblink.app.core.weights import idf_weights
from hyblink.app.engines.derived import AheadError, Bases, top

FORMAT = 1
_REBASE_ROWS = 20_000
_REBASE_SHARE = 0.25
_Ints = npt.NDArray[np.int32]


@numba.njit(nogil=True, cache=True)
def _accumulate(starts, ends, query_weights, docs, weights, scores):  # type: ignore[no-untyped-def]
    """Add every posting of the query's tokens to `scores`. Without weights (length 0) each posting weighs 1."""
    weighted = len(weights) > 0
    for term in range(len(starts)):
        weight = query_weights[term]
        if weighted:
            for at in range(starts[term], ends[term]):
                scores[docs[at]] += weight * weights[at]
        else:
            for at in range(starts[term], ends[term]):
                scores[docs[at]] += weight


@numba.njit(nogil=True, cache=True)
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
            # Drop the root, then sift the new one down from there.
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


@numba.njit(nogil=True, cache=True)
def _first_from(docs, low, high, wanted):  # type: ignore[no-untyped-def]
    """The first place in `docs[low:high]`, which ascends, that is not below `wanted`; `high` where all are."""
    while low < high:
        middle = (low + high) // 2
        if docs[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(nogil=True, cache=True)
def _lookup(start, end, docs, wanted, found):  # type: ignore[no-untyped-def]
    """For each wanted position the index of its posting in `docs[start:end]`, or -1. Both ascend."""
    for at in range(len(wanted)):
        place = _first_from(docs, start, end, wanted[at])
        found[at] = place if place < end and docs[place] == wanted[at] else -1


@numba.njit(nogil=True, cache=True)
def _accumulate_at(starts, ends, query_weights, docs, weights, wanted, scores):  # type: ignore[no-untyped-def]
    """As `_accumulate`, for the wanted positions only; `wanted` ascends."""
    weighted = len(weights) > 0
    for term in range(len(starts)):
        low = starts[term]
        for at in range(len(wanted)):
            low = _first_from(docs, low, ends[term], wanted[at])
            if low < ends[term] and docs[low] == wanted[at]:
                scores[at] += query_weights[term] * (weights[low] if weighted else np.float32(1.0))


@dataclass(frozen=True, slots=True)
class Segment:
    """Postings of some passages. `docs` are positions in `rows`; `weights` is empty where all are 1."""

    rows: IdArray
    tokens: _Ints
    offsets: IdArray
    docs: _Ints
    weights: ScoreArray

    def ranges(self, ids: npt.NDArray[np.int32]) -> tuple[IdArray, IdArray]:
        """Start and end of each token's postings; equal where the token does not occur."""
        at = np.searchsorted(self.tokens, ids)
        inside = at < len(self.tokens)
        inside[inside] &= self.tokens[at[inside]] == ids[inside]
        starts = np.where(inside, self.offsets[np.where(inside, at, 0)], 0)
        ends = np.where(inside, self.offsets[np.where(inside, at + 1, 0)], 0)
        return starts.astype(np.int64), ends.astype(np.int64)


@numba.njit(nogil=True, cache=True)
def _transpose(offsets, ids, weights, places, docs, kept):  # type: ignore[no-untyped-def]
    """Postings of rows: `places` says where each token's begin, and is moved to where they end."""
    weighted = len(weights) > 0
    for row in range(len(offsets) - 1):
        for at in range(offsets[row], offsets[row + 1]):
            place = places[ids[at]]
            places[ids[at]] = place + 1
            docs[place] = row
            if weighted:
                kept[place] = weights[at]


def build_segment(batch: TermBatch) -> Segment:
    """Postings of passages."""
    counts = np.bincount(batch.ids)
    tokens = np.flatnonzero(counts).astype(np.int32)
    ends = np.cumsum(counts)
    weighted = len(batch.weights) > 0 and not bool((batch.weights == 1.0).all())
    docs = np.empty(len(batch.ids), dtype=np.int32)
    weights = batch.weights if weighted else np.zeros(0, dtype=np.float32)
    kept = np.empty(len(weights), dtype=np.float32)
    _transpose(batch.offsets, batch.ids, weights, ends - counts, docs, kept)
    return Segment(batch.rows, tokens, np.concatenate([[0], ends[tokens]]).astype(np.int64), docs, kept)


@numba.njit(nogil=True, cache=True)
def _copy(start, end, docs, weights, places, at, out_docs, out_weights):  # type: ignore[no-untyped-def]
    """Postings `start:end` of rows that have a new place (-1: none), written from `at`; where they end."""
    for posting in range(start, end):
        place = places[docs[posting]]
        if place >= 0:
            out_docs[at] = place
            if len(out_weights):
                out_weights[at] = weights[posting] if len(weights) else np.float32(1.0)
            at += 1
    return at


@numba.njit(nogil=True, cache=True)
def _merge(  # type: ignore[no-untyped-def]
    left_tokens, left_offsets, left_docs, left_weights, left_places,
    right_tokens, right_offsets, right_docs, right_weights, right_places,
    tokens, offsets, docs, weights,
):  # fmt: skip
    """Postings of two segments, token by token; how many tokens and postings were kept."""
    left, right, count, at = 0, 0, 0, 0
    while left < len(left_tokens) or right < len(right_tokens):
        begun = at
        if right == len(right_tokens):
            token = left_tokens[left]
        elif left == len(left_tokens):
            token = right_tokens[right]
        else:
            token = min(left_tokens[left], right_tokens[right])
        if left < len(left_tokens) and left_tokens[left] == token:
            start, end = left_offsets[left], left_offsets[left + 1]
            at = _copy(start, end, left_docs, left_weights, left_places, at, docs, weights)
            left += 1
        if right < len(right_tokens) and right_tokens[right] == token:
            start, end = right_offsets[right], right_offsets[right + 1]
            at = _copy(start, end, right_docs, right_weights, right_places, at, docs, weights)
            right += 1
        if at > begun:
            tokens[count] = token
            count += 1
            offsets[count] = at
    return count, at


_Part = tuple[Segment, npt.NDArray[np.bool_]]


def merge_segments(left: _Part, right: _Part) -> Segment:
    """One segment of two, without what was removed."""
    kept, places, first = [], [], 0
    for segment, alive in (left, right):
        stays = alive if len(alive) else np.ones(len(segment.rows), dtype=np.bool_)
        new = np.where(stays, np.cumsum(stays) - 1 + first, -1).astype(np.int32)
        kept.append(segment.rows[stays])
        places.append(new)
        first += len(kept[-1])
    one, other = left[0], right[0]
    postings = len(one.docs) + len(other.docs)
    tokens = np.empty(len(one.tokens) + len(other.tokens), dtype=np.int32)
    offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
    docs = np.empty(postings, dtype=np.int32)
    weights = np.empty(postings if len(one.weights) or len(other.weights) else 0, dtype=np.float32)
    found, used = _merge(
        one.tokens, one.offsets, one.docs, one.weights, places[0],
        other.tokens, other.offsets, other.docs, other.weights, places[1],
        tokens, offsets, docs, weights,
    )  # fmt: skip
    merged = Segment(np.concatenate(kept), tokens[:found], offsets[: found + 1], docs[:used], weights[:used])
    return merged if bool((np.diff(merged.rows) > 0).all()) else _in_order(merged)


def _in_order(segment: Segment) -> Segment:
    """The segment with its rows ascending: passages are encoded in any order."""
    order = np.argsort(segment.rows)
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    docs = places[segment.docs]
    token_of = np.repeat(np.arange(len(segment.tokens)), np.diff(segment.offsets))
    by_token = np.lexsort((docs, token_of))
    weights = segment.weights[by_token] if len(segment.weights) else segment.weights
    return Segment(segment.rows[order], segment.tokens, segment.offsets, docs[by_token], weights)


_EMPTY_SEGMENT = Segment(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32),
    np.zeros(0, dtype=np.float32),
)  # fmt: skip
_ALL = np.zeros(0, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class SparseView:
    """The postings at one moment. `alive` masks are empty where nothing of the segment was removed."""

    parts: tuple[tuple[Segment, npt.NDArray[np.bool_]], ...]

    @property
    def passages(self) -> int:
        """Passages in the statistics, removed ones included until the next base."""
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
        """(token, places in `rows`, query weight, passage weights) for every token that some row holds."""
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
        """The row's rank among all rows with a positive score, from 1; None where it has none."""
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


def _positions(segment: Segment, ascending: IdArray) -> tuple[npt.NDArray[np.bool_], _Ints]:
    """Which of the rows the segment holds, and the positions of those that it does."""
    at = np.searchsorted(segment.rows, ascending)
    inside = at < len(segment.rows)
    inside[inside] &= segment.rows[at[inside]] == ascending[inside]
    return inside, at[inside].astype(np.int32)


def _member(rows: IdArray, allowed: IdArray) -> npt.NDArray[np.bool_]:
    """Which of the ascending `rows` are among the ascending `allowed`."""
    at = np.searchsorted(rows, allowed)
    inside = at < len(rows)
    at = at[inside]
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[at[rows[at] == allowed[inside]]] = True
    return mask


class SparseIndex:
    """The sparse postings in `folder`, derived from the store's bags of tokens, or from the VDR encoder's weights."""

    def __init__(self, folder: Path, encoder: str, *, encoded: bool = False) -> None:
        self._bases = Bases(folder, FORMAT, encoder)
        self._name = folder.name
        self._encoded = encoded
        self._lock = threading.RLock()
        self._parts: list[_Part] = []
        self._base_rows = 0
        self._applied = -1

    def catch_up(self, reader: StoreReader) -> SparseView:
        """A view at exactly the reader's change."""
        with self._lock:
            if self._applied < 0:
                self._load()
            if self._applied > reader.change:
                raise AheadError
            if self._applied < reader.change:
                self._apply(reader)
            return SparseView(tuple(self._parts))

    def _since(self, reader: StoreReader, change: int) -> Iterator[TermBatch]:
        return reader.weights_since(change) if self._encoded else reader.terms_since(change)

    def _load(self) -> None:
        self._parts, self._base_rows, self._applied = [], 0, 0
        self._bases.open_newest(self._open)

    def _open(self, change: int, path: Path, _manifest: dict[str, Any]) -> None:
        arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in Segment.__slots__}
        segment = Segment(**arrays)
        self._parts = [(segment, _ALL)]
        self._base_rows, self._applied = len(segment.rows), change

    def _apply(self, reader: StoreReader) -> None:
        if self._applied < self._bases.newest_change() <= reader.change:
            self._load()  # another process has done most of the work
        removed = reader.removed_since(self._applied) if self._applied else np.zeros(0, dtype=np.int64)
        if removed is None:
            self.rebuild(reader)
            return
        parts = _gathered(self._parts, self._since(reader, self._applied), on_disk=self._base_rows > 0)
        if len(removed):
            parts = [(segment, _without(segment, alive, removed)) for segment, alive in parts]
        self._parts, self._applied = parts, reader.change
        loose = sum(len(segment.rows) for segment, _ in self._parts) - self._base_rows
        dead = sum(int((~alive).sum()) for _, alive in self._parts)
        if max(loose, dead) > max(_REBASE_ROWS, _REBASE_SHARE * self._base_rows):
            self._publish(self._parts, self._applied)

    def rebuild(self, reader: StoreReader) -> None:
        """Derive the index again from the store and publish it as the new base."""
        with self._lock:
            self._publish(_gathered([], self._since(reader, -1), on_disk=False), reader.change)

    def published_change(self) -> int:
        """The change that the newest published base stands at; 0 where there is none."""
        return self._bases.newest_change()

    def compact(self, reader: StoreReader) -> None:
        """Publish what is held in memory only, as one base with what was published before."""
        with self._lock:
            self.catch_up(reader)
            behind = self._bases.newest_change() < self._applied
            if behind or len(self._parts) != 1 or not self._base_rows or len(self._parts[0][1]):
                self._publish(self._parts, self._applied)

    def _publish(self, parts: Sequence[_Part], change: int) -> None:
        parts = list(parts) or [(_EMPTY_SEGMENT, _ALL)]
        while len(parts) > 1:
            parts[-2:] = [(merge_segments(*parts[-2:]), _ALL)]
        segment = parts[0][0] if not len(parts[0][1]) else merge_segments(parts[0], (_EMPTY_SEGMENT, _ALL))

        def write(folder: Path) -> list[str]:
            for name in Segment.__slots__:
                np.save(folder / f"{name}.npy", getattr(segment, name), allow_pickle=False)
            return [f"{name}.npy" for name in Segment.__slots__]

        self._bases.publish(change, write, self._open, rows=len(segment.rows), postings=len(segment.docs))

    def check(self, reader: StoreReader) -> list[str]:
        """What differs from the store."""
        problems = self._bases.problems()
        if problems:
            return problems
        view = self.catch_up(reader)
        found = np.concatenate(
            [segment.rows[alive] if len(alive) else segment.rows for segment, alive in view.parts]
            or [np.zeros(0, dtype=np.int64)]
        )
        expected = reader.live_rows(encoded=self._encoded)
        return [
            *(f"{self._name} misses {n} passages" for n in [len(np.setdiff1d(expected, found))] if n),
            *(
                f"{self._name} has {n} passages that the store has not"
                for n in [len(np.setdiff1d(found, expected))]
                if n
            ),
            *(f"{self._name} has {n} passages twice" for n in [len(found) - len(np.unique(found))] if n),
        ]


def _gathered(parts: Sequence[_Part], batches: Iterable[TermBatch], *, on_disk: bool) -> list[_Part]:
    """The parts and one for each batch; of those in memory, neighbours of like size are merged."""
    gathered = list(parts)
    for batch in batches:
        gathered.append((build_segment(batch), _ALL))
        while len(gathered) > 1 + on_disk:
            (left, alive), (right, _) = gathered[-2:]
            if len(alive) or len(left.rows) > 2 * len(right.rows):
                break
            gathered[-2:] = [(merge_segments(*gathered[-2:]), _ALL)]
    return gathered


def _without(segment: Segment, alive: npt.NDArray[np.bool_], removed: IdArray) -> Any:
    gone = _member(segment.rows, removed)
    if not gone.any():
        return alive
    return ~gone if not len(alive) else alive & ~gone
