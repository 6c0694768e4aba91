"""Samples the training examples of a step.

The sample depends only on the seed and the step number, so a run can stop and resume at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.training.data.rows import Text, TrainingRow

_SKEW = 1.5
"""A negative's index is ``⌊u**_SKEW · count⌋`` with uniform u, so the hardest negatives (listed first) are likelier."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sampled training example: a query, one of its positives, and its sampled negatives.

    `teacher` holds the teacher's scores of positive and negatives in this order, NaN if unknown.
    """

    row: TrainingRow
    positive: Text
    negatives: tuple[Text, ...]
    teacher: tuple[float, ...]

    @property
    def passages(self) -> tuple[Text, ...]:
        """The positive, then the negatives."""
        return (self.positive, *self.negatives)


def rows_of_step(count: int, batch: int, seed: int, step: int) -> list[int]:
    """The row indices of a step. Every epoch has its own permutation; an incomplete last batch is dropped.

    If there are fewer rows than `batch`, rows are repeated.
    """
    per_epoch = max(1, count // batch)
    epoch, within = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    if count < batch:
        order = np.resize(order, batch)
    chosen: list[int] = order[within * batch : (within + 1) * batch].tolist()
    return chosen


def draw(
    rows: Sequence[TrainingRow],
    *,
    batch: int,
    negatives: int,
    seed: int,
    step: int,
    pool: Callable[[int], Sequence[Text]] = lambda _: (),
) -> list[Drawn]:
    """Sample the training examples of a step.

    `pool` returns mined negatives for a row index. They replace the row's own negatives and have no teacher scores. If
    it returns none, the row's own are used. Negatives are drawn with replacement; a row without any gets none.
    """
    rng = np.random.default_rng([seed, step, 1])
    drawn = []
    for at in rows_of_step(len(rows), batch, seed, step):
        row = rows[at]
        positive = int(rng.integers(len(row.positives))) if row.positives else 0
        mined = tuple(pool(at))
        known = mined or row.negatives
        places = (rng.random(negatives) ** _SKEW * len(known)).astype(int).tolist() if known else []
        scores = [row.positive_scores[positive] if row.positive_scores else float("nan")]
        scores += [row.negative_scores[p] if row.negative_scores and not mined else float("nan") for p in places]
        first = row.positives[positive] if row.positives else Text("")  # span training: a text without mentions
        drawn.append(Drawn(row, first, tuple(known[p] for p in places), tuple(scores)))
    return drawn
