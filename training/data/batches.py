"""What a step learns from: draws depend on the seed and the step's number alone, so a run can stop anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.training.data.rows import Text, TrainingRow

_SKEW = 1.5
"""Negatives are drawn by ``⌊uⁿ · count⌋``: harder ones, which stand first, more often."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A query, one of its positives, negatives; the teacher's scores of them all, positive first, NaN where unknown."""

    row: TrainingRow
    positive: Text
    negatives: tuple[Text, ...]
    teacher: tuple[float, ...]

    @property
    def passages(self) -> tuple[Text, ...]:
        """The positive, then the negatives."""
        return (self.positive, *self.negatives)


def rows_of_step(count: int, batch: int, seed: int, step: int) -> list[int]:
    """The rows of a step: each epoch is a permutation of its own; a short rest of an epoch is left out."""
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
    """A step's draws. `pool` gives more negatives of a row, such as those mined last; without any a row has none.

    A row with fewer negatives than asked gives the ones it has, drawn again.
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
        first = row.positives[positive] if row.positives else Text("")  # a text in which nothing is mentioned
        drawn.append(Drawn(row, first, tuple(known[p] for p in places), tuple(scores)))
    return drawn
