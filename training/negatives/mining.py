"""Hard-negative mining: sources propose passages, filters select negatives, and a judge estimates false negatives.

A source ("bm25", "vdr", "dense", "hybrid", "random") proposes passages with rank and score. A proposal is kept if its
rank is in a range, its score is far enough below the positive's, it is no near-duplicate of a positive, and it contains
no answer string. Each negative records its source, rank and score.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.data.rows import Text, TrainingRow

_NEAR = 0.8
"""Jaccard similarity of words from which two passages count as near-duplicates."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A passage that a source proposes for a query. Ranks start at 1."""

    text: Text
    source: str
    rank: int
    score: float


class Source(Protocol):
    """Proposes up to `depth` passages for a query, best first."""

    def __call__(self, query: str, depth: int) -> list[Proposal]: ...


@dataclass(frozen=True, slots=True)
class Mining:
    """The filters that decide which proposals become negatives.

    Ranks `first_rank` to `last_rank` are considered and at most `keep` negatives are kept. `absolute_margin` is how far
    a score must be below the lowest positive's score. `relative_margin` is the largest allowed fraction of that score
    (0.95 keeps scores up to 95 % of it). 0 turns a margin off. Margins apply only if a positive is proposed.
    """

    first_rank: int = 1
    last_rank: int = 100
    keep: int = 16
    absolute_margin: float = 0.0
    relative_margin: float = 0.0
    drop_near_duplicates: bool = True
    drop_answers: bool = True

    def check(self) -> None:
        """Raises InvalidInputError for invalid ranges."""
        if not 1 <= self.first_rank <= self.last_rank:
            raise InvalidInputError(
                "bad range of ranks", received=f"{self.first_rank} to {self.last_rank}", expected="1 ≤ first ≤ last"
            )
        if self.keep < 1:
            raise InvalidInputError("keep is out of range", received=self.keep, expected="1 or more")
        if not 0 <= self.relative_margin <= 1 or self.absolute_margin < 0:
            raise InvalidInputError(
                "bad margin",
                received=f"absolute {self.absolute_margin}, relative {self.relative_margin}",
                expected="absolute ≥ 0, relative from 0 to 1",
            )


def words(text: str) -> frozenset[str]:
    """The set of case-folded words of a text."""
    return frozenset(_WORD.findall(text.casefold()))


def near_duplicate(item: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two passages, given as sets of words, have a Jaccard similarity of at least 0.8.

    >>> near_duplicate(words("the cat sat on the mat today"), words("The cat sat on the mat, today!"))
    True
    """
    return len(item & other) >= _NEAR * len(item | other) if item or other else True


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether a passage contains one of the answer strings, ignoring case and white space."""
    flat = " ".join(text.casefold().split())
    return any(" ".join(answer.casefold().split()) in flat for answer in answers if answer.strip())


def select(row: TrainingRow, proposals: Sequence[Proposal], mining: Mining) -> list[Proposal]:
    """The proposals that pass the filters and are no positives of the row, in order, at most `mining.keep`."""
    relevant = {positive.joined.strip() for positive in row.positives}
    ids = {positive.id for positive in row.positives if positive.id}
    found = [p.score for p in proposals if p.text.joined.strip() in relevant or (p.text.id and p.text.id in ids)]
    bar = min(found) if found else None
    positive_words = [words(positive.text) for positive in row.positives]
    kept: list[Proposal] = []
    seen: set[str] = set()
    for proposal in proposals:
        joined = proposal.text.joined.strip()
        if joined in relevant or joined in seen or (proposal.text.id and proposal.text.id in ids):
            continue
        if not mining.first_rank <= proposal.rank <= mining.last_rank:
            continue
        if bar is not None and mining.absolute_margin and proposal.score > bar - mining.absolute_margin:
            continue
        if bar is not None and mining.relative_margin and proposal.score > bar * mining.relative_margin:
            continue
        if mining.drop_answers and row.answers and holds_answer(proposal.text.joined, row.answers):
            continue
        if mining.drop_near_duplicates:
            own = words(proposal.text.text)
            if any(near_duplicate(own, other) for other in positive_words):
                continue
        seen.add(joined)
        kept.append(proposal)
        if len(kept) == mining.keep:
            break
    return kept


def mine(
    rows: Sequence[TrainingRow],
    source: Source,
    mining: Mining,
    *,
    scores: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> list[TrainingRow]:
    """Copies of the rows with negatives mined from `source`, which replace their own.

    With `scores`, the scores of the source become the teacher scores. A row gets none if the source did not propose all
    of its positives. `progress` is called with 1 for each row. Raises InvalidInputError for invalid `mining`.
    """
    mining.check()
    mined = []
    for row in rows:
        proposals = source(row.query, mining.last_rank + len(row.positives))
        kept = select(row, proposals, mining)
        negatives = tuple(replace(p.text, source=f"{p.source}@{p.rank}:{p.score:.4g}") for p in kept)
        made = replace(row, negatives=negatives, positive_scores=(), negative_scores=())
        if scores:
            known = {p.text.id or p.text.joined: p.score for p in proposals}
            of_positives = [known.get(positive.id or positive.joined) for positive in row.positives]
            if all(score is not None for score in of_positives):
                made = replace(
                    made,
                    positive_scores=tuple(score for score in of_positives if score is not None),
                    negative_scores=tuple(p.score for p in kept),
                )
        mined.append(made)
        progress(1)
    return mined


class RandomPool:
    """The random baseline: a source that proposes `size` random passages per query (BGE-style), fixed by the seed."""

    def __init__(self, corpus: Sequence[Text], size: int = 20, seed: int = 0) -> None:
        self._corpus = corpus
        self._size = size
        self._seed = seed

    def __call__(self, query: str, depth: int) -> list[Proposal]:
        rng = random.Random(f"{self._seed} {query}")
        drawn = rng.sample(range(len(self._corpus)), min(self._size, depth, len(self._corpus)))
        return [Proposal(self._corpus[at], "random", rank, 0.0) for rank, at in enumerate(drawn, 1)]


class OfflineBm25:
    """A BM25 source (rank-bm25) over a small corpus in memory.

    Raises InvalidInputError for more than 50,000 passages; mine those from a collection.
    """

    LARGEST = 50_000

    def __init__(self, corpus: Sequence[Text], terms: Callable[[str], list[str]]) -> None:
        from rank_bm25 import BM25Okapi

        if len(corpus) > self.LARGEST:
            raise InvalidInputError(
                "too many passages for rank-bm25",
                received=len(corpus),
                expected=f"at most {self.LARGEST}; mine from a collection",
            )
        self._corpus = corpus
        self._terms = terms
        self._bm25 = BM25Okapi([terms(document.joined) or ["∅"] for document in corpus], k1=1.2, b=0.75)

    def __call__(self, query: str, depth: int) -> list[Proposal]:
        scores = np.asarray(self._bm25.get_scores(self._terms(query)))
        order = np.argsort(-scores, kind="stable")[:depth]
        return [Proposal(self._corpus[at], "bm25", rank, float(scores[at])) for rank, at in enumerate(order, 1)]


class Judge(Protocol):
    """A relevance model such as a cross-encoder: one score for each text, larger is more relevant."""

    def __call__(self, query: str, texts: Sequence[str]) -> Sequence[float]: ...


def filtered(rows: Sequence[TrainingRow], judge: Judge, margin: float) -> list[TrainingRow]:
    """The rows without likely false negatives: those that the judge scores above its lowest positive minus `margin`."""
    kept = []
    for row in rows:
        scores = judge(row.query, [item.joined for item in (*row.positives, *row.negatives)])
        bar = min(scores[: len(row.positives)]) - margin
        stay = [at for at in range(len(row.negatives)) if scores[len(row.positives) + at] <= bar]
        kept.append(
            replace(
                row,
                negatives=tuple(row.negatives[at] for at in stay),
                negative_scores=tuple(row.negative_scores[at] for at in stay) if row.negative_scores else (),
            )
        )
    return kept


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit of negatives.

    `false_negatives` counts those that the judge scores at least as high as the row's lowest positive. `by_source` maps
    a source to (negatives, false negatives). `worst` holds (query, passage, source, score above the lowest positive).
    """

    rows: int
    negatives: int
    false_negatives: int
    by_source: dict[str, tuple[int, int]]
    worst: tuple[tuple[str, str, str, float], ...]

    @property
    def share(self) -> float:
        """The fraction of negatives that are likely false negatives, 0 to 1."""
        return self.false_negatives / self.negatives if self.negatives else 0.0


def audit(rows: Sequence[TrainingRow], judge: Judge, *, sample: int = 200, seed: int = 0, shown: int = 20) -> Audit:
    """Score the negatives of `sample` random rows with a judge; the `shown` most suspicious ones are listed."""
    chosen = random.Random(seed).sample(range(len(rows)), min(sample, len(rows)))
    total, wrong = 0, 0
    by_source: dict[str, tuple[int, int]] = {}
    suspicious: list[tuple[str, str, str, float]] = []
    for row in (rows[at] for at in sorted(chosen)):
        scores = judge(row.query, [element.joined for element in (*row.positives, *row.negatives)])
        bar = min(scores[: len(row.positives)])
        for negative, score in zip(row.negatives, scores[len(row.positives) :], strict=True):
            name = negative.source.partition("@")[0]
            false = score >= bar
            seen, bad = by_source.get(name, (0, 0))
            by_source[name] = (seen + 1, bad + false)
            total, wrong = total + 1, wrong + false
            if false:
                suspicious.append((row.query, negative.joined[:200], negative.source, float(score - bar)))
    suspicious.sort(key=lambda item: -item[3])
    return Audit(len(chosen), total, wrong, by_source, tuple(suspicious[:shown]))
