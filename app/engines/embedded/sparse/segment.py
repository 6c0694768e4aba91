"""Segments of the sparse index: posting lists by token, built from batches of sparse vectors and merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.compiled import compiled
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermBatch

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Segment:
    """Posting lists of a set of passages, in compressed sparse column form.

    `rows` are the passages, ascending, and `tokens` the token ids, ascending. Token `tokens[t]` has the postings
    `offsets[t]:offsets[t + 1]` of `docs` and `weights`. `docs` are positions in `rows`, ascending per token. `weights`
    is empty if all weights are 1.
    """

    rows: IdArray
    tokens: Ints
    offsets: IdArray
    docs: Ints
    weights: ScoreArray

    def ranges(self, ids: npt.NDArray[np.int32]) -> tuple[IdArray, IdArray]:
        """The start and end of each token's posting list, parallel to `ids`; equal if the token does not occur."""
        at = np.searchsorted(self.tokens, ids)
        inside = at < len(self.tokens)
        inside[inside] &= self.tokens[at[inside]] == ids[inside]
        starts = np.where(inside, self.offsets[np.where(inside, at, 0)], 0)
        ends = np.where(inside, self.offsets[np.where(inside, at + 1, 0)], 0)
        return starts.astype(np.int64), ends.astype(np.int64)


@compiled(steps=lambda _offsets, ids, *_: len(ids))
def _transpose(offsets, ids, weights, places, docs, kept):  # type: ignore[no-untyped-def]
    """Convert from rows to posting lists, written to `docs` and `kept`.

    `places[t]` is where the list of token t begins. It is advanced to the end of the list.
    """
    weighted = len(weights) > 0
    for row in range(len(offsets) - 1):
        for at in range(offsets[row], offsets[row + 1]):
            place = places[ids[at]]
            places[ids[at]] = place + 1
            docs[place] = row
            if weighted:
                kept[place] = weights[at]


def build_segment(batch: TermBatch) -> Segment:
    """The segment of a batch of sparse vectors."""
    counts = np.bincount(batch.ids)
    tokens = np.flatnonzero(counts).astype(np.int32)
    ends = np.cumsum(counts)
    weighted = len(batch.weights) > 0 and not bool((batch.weights == 1.0).all())
    docs = np.empty(len(batch.ids), dtype=np.int32)
    weights = batch.weights if weighted else np.zeros(0, dtype=np.float32)
    kept = np.empty(len(weights), dtype=np.float32)
    _transpose(batch.offsets, batch.ids, weights, ends - counts, docs, kept)
    return Segment(batch.rows, tokens, np.concatenate([[0], ends[tokens]]).astype(np.int64), docs, kept)


@compiled(steps=lambda *_: 0)
def _copy(start, end, docs, weights, places, at, out_docs, out_weights):  # type: ignore[no-untyped-def]
    """Copy the postings `start:end` to the output from `at` on and return where they end.

    `places` maps old to new positions. Postings of removed passages (-1) are skipped.
    """
    for posting in range(start, end):
        place = places[docs[posting]]
        if place >= 0:
            out_docs[at] = place
            if len(out_weights):
                out_weights[at] = weights[posting] if len(weights) else np.float32(1.0)
            at += 1
    return at


@compiled(steps=lambda *arguments: len(arguments[-2]) + len(arguments[-4]))
def _merge(  # type: ignore[no-untyped-def]
    left_tokens, left_offsets, left_docs, left_weights, left_places,
    right_tokens, right_offsets, right_docs, right_weights, right_places,
    tokens, offsets, docs, weights,
):  # fmt: skip
    """Merge the posting lists of two segments, token by token. Returns the numbers of tokens and postings written."""
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


Part = tuple[Segment, npt.NDArray[np.bool_]]


def merge_segments(left: Part, right: Part) -> Segment:
    """Two segments merged into one, without removed passages."""
    kept, places, rows = [], [], 0
    for segment, alive in (left, right):
        stays = alive if len(alive) else np.ones(len(segment.rows), dtype=np.bool_)
        new = np.where(stays, np.cumsum(stays) - 1 + rows, -1).astype(np.int32)
        kept.append(segment.rows[stays])
        places.append(new)
        rows += len(kept[-1])
    first, second = left[0], right[0]
    postings = len(first.docs) + len(second.docs)
    tokens = np.empty(len(first.tokens) + len(second.tokens), dtype=np.int32)
    offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
    docs = np.empty(postings, dtype=np.int32)
    weights = np.empty(postings if len(first.weights) or len(second.weights) else 0, dtype=np.float32)
    found, used = _merge(
        first.tokens, first.offsets, first.docs, first.weights, places[0],
        second.tokens, second.offsets, second.docs, second.weights, places[1],
        tokens, offsets, docs, weights,
    )  # fmt: skip
    merged = Segment(np.concatenate(kept), tokens[:found], offsets[: found + 1], docs[:used], weights[:used])
    return merged if bool((np.diff(merged.rows) > 0).all()) else _in_order(merged)


def _in_order(segment: Segment) -> Segment:
    """The segment with its rows sorted. They can be out of order because passages are encoded in any order."""
    order = np.argsort(segment.rows)
    places = np.empty(len(order), dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    docs = places[segment.docs]
    token_of = np.repeat(np.arange(len(segment.tokens)), np.diff(segment.offsets))
    by_token = np.lexsort((docs, token_of))
    weights = segment.weights[by_token] if len(segment.weights) else segment.weights
    return Segment(segment.rows[order], segment.tokens, segment.offsets, docs[by_token], weights)


EMPTY_SEGMENT = Segment(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32),
    np.zeros(0, dtype=np.float32),
)  # fmt: skip
