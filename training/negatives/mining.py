"""Hard negatives: who proposes them, which are kept, and how many of them a judge would call right answers.

A proposal comes from a source ("bm25", "vdr", "dense", "hybrid", "random") with its rank and score. Kept are those in
a range of ranks, far enough below the positive, not the positive in other words, and not holding an answer string.
Every negative keeps its source, rank and score: its lineage.
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
"""Share of common words (Jaccard) from which on two passages count as the same."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A passage that a source proposes for a query; ranks count from 1."""

    text: Text
    source: str
    rank: int
    score: float


class Source(Protocol):
    """Proposes passages, best first."""

    def __call__(self, query: str, depth: int) -> list[Proposal]: ...


@dataclass(frozen=True, slots=True)
class Mining:
    """Which proposals become negatives.

    `absolute_margin` is how far below the worst positive a score must lie, `relative_margin` which share of it may be
    reached (0.95 keeps scores up to 95% of the positive's; 0 turns it off). Both need the positive among the proposals.
    """

    first_rank: int = 1
    last_rank: int = 100
    keep: int = 16
    absolute_margin: float = 0.0
    relative_margin: float = 0.0
    drop_near_duplicates: bool = True
    drop_answers: bool = True

    def check(self) -> None:
        """Raises InvalidInputError for ranges that make no sense."""
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
    """The words of a text, for comparing passages."""
    return frozenset(_WORD.findall(text.casefold()))


def near_duplicate(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two passages say the same in nearly the same words.

    >>> near_duplicate(words("the cat sat on the mat today"), words("The cat sat on the mat, today!"))
    True
    """
    return len(one & other) >= _NEAR * len(one | other) if one or other else True


def holds_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether a passage holds one of the answer strings, whatever its case and spacing."""
    flat = " ".join(text.casefold().split())
    return any(" ".join(answer.casefold().split()) in flat for answer in answers if answer.strip())


def select(row: TrainingRow, proposals: Sequence[Proposal], mining: Mining) -> list[Proposal]:
    """The proposals that may be negatives of a row, hardest first."""
    relevant = {one.joined.strip() for one in row.positives}
    ids = {one.id for one in row.positives if one.id}
    found = [p.score for p in proposals if p.text.joined.strip() in relevant or (p.text.id and p.text.id in ids)]
    bar = min(found) if found else None
    positive_words = [words(one.text) for one in row.positives]
    kept: list[Proposal] = []
    seen: set[str] = set()
    for one in proposals:
        joined = one.text.joined.strip()
        if joined in relevant or joined in seen or (one.text.id and one.text.id in ids):
            continue
        if not mining.first_rank <= one.rank <= mining.last_rank:
            continue
        if bar is not None and mining.absolute_margin and one.score > bar - mining.absolute_margin:
            continue
        if bar is not None and mining.relative_margin and one.score > bar * mining.relative_margin:
            continue
        if mining.drop_answers and row.answers and holds_answer(one.text.joined, row.answers):
            continue
        if mining.drop_near_duplicates:
            own = words(one.text.text)
            if any(near_duplicate(own, other) for other in positive_words):
                continue
        seen.add(joined)
        kept.append(one)
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
    """The rows with the negatives that a source proposes. With `scores`, the source's scores as the teacher's.

    A row whose positives the source did not score gets no teacher scores.
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
            of_positives = [known.get(one.id or one.joined) for one in row.positives]
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
    """The baseline: a pool of passages drawn at random for each query, the same ones every time (BGE-style, 20)."""

    def __init__(self, corpus: Sequence[Text], size: int = 20, seed: int = 0) -> None:
        self._corpus = corpus
        self._size = size
        self._seed = seed

    def __call__(self, query: str, depth: int) -> list[Proposal]:
        rng = random.Random(f"{self._seed} {query}")
        drawn = rng.sample(range(len(self._corpus)), min(self._size, depth, len(self._corpus)))
        return [Proposal(self._corpus[at], "random", rank, 0.0) for rank, at in enumerate(drawn, 1)]


class OfflineBm25:
    """rank-bm25 over a small corpus in memory; for larger ones ask an index."""

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
        self._bm25 = BM25Okapi([terms(one.joined) or ["∅"] for one in corpus], k1=1.2, b=0.75)

    def __call__(self, query: str, depth: int) -> list[Proposal]:
        scores = np.asarray(self._bm25.get_scores(self._terms(query)))
        order = np.argsort(-scores, kind="stable")[:depth]
        return [Proposal(self._corpus[at], "bm25", rank, float(scores[at])) for rank, at in enumerate(order, 1)]


class Judge(Protocol):
    """A cross-encoder as a judge: how relevant each text is to a query, larger is more."""

    def __call__(self, query: str, texts: Sequence[str]) -> Sequence[float]: ...


def filtered(rows: Sequence[TrainingRow], judge: Judge, margin: float) -> list[TrainingRow]:
    """Without the negatives that a judge puts above its lowest positive minus `margin`."""
    kept = []
    for row in rows:
        scores = judge(row.query, [one.joined for one in (*row.positives, *row.negatives)])
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
    """What a judge says of negatives. `share` of them score at least as high as the row's lowest positive."""

    rows: int
    negatives: int
    false_negatives: int
    by_source: dict[str, tuple[int, int]]
    worst: tuple[tuple[str, str, str, float], ...]

    @property
    def share(self) -> float:
        """Share of negatives that the judge would call positive."""
        return self.false_negatives / self.negatives if self.negatives else 0.0


def audit(rows: Sequence[TrainingRow], judge: Judge, *, sample: int = 200, seed: int = 0, shown: int = 20) -> Audit:
    """Judge the negatives of a sample of rows; the most suspicious ones are named with their lineage."""
    chosen = random.Random(seed).sample(range(len(rows)), min(sample, len(rows)))
    total, wrong = 0, 0
    by_source: dict[str, tuple[int, int]] = {}
    suspicious: list[tuple[str, str, str, float]] = []
    for row in (rows[at] for at in sorted(chosen)):
        scores = judge(row.query, [one.joined for one in (*row.positives, *row.negatives)])
        bar = min(scores[: len(row.positives)])
        for one, score in zip(row.negatives, scores[len(row.positives) :], strict=True):
            name = one.source.partition("@")[0]
            false = score >= bar
            seen, bad = by_source.get(name, (0, 0))
            by_source[name] = (seen + 1, bad + false)
            total, wrong = total + 1, wrong + false
            if false:
                suspicious.append((row.query, one.joined[:200], one.source, float(score - bar)))
    suspicious.sort(key=lambda item: -item[3])
    return Audit(len(chosen), total, wrong, by_source, tuple(suspicious[:shown]))
