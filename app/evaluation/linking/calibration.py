"""Apply a utility function to judged mentions: outcomes, calibrated probabilities, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.linking import Utility
from hyblink.app.evaluation.linking.examples import Example
from hyblink.app.linking.disambiguation import calibrated, softmax_with_nil

Floats = npt.NDArray[np.float64]

_BINS = 10


@dataclass(frozen=True, slots=True)
class Outcomes:
    """For each mention, the softmax probability of the best candidate, and whether that candidate is correct."""

    probability_N: Floats
    right_N: npt.NDArray[np.bool_]


def outcomes(examples: Sequence[Example], utility: Utility) -> Outcomes:
    """Return the outcomes of a utility function on examples. A mention without candidates has probability 0."""
    probability = np.zeros(len(examples))
    right = np.zeros(len(examples), dtype=bool)
    for at, example in enumerate(examples):
        if not example.count:
            continue
        total = utility_of(example, utility)
        best = int(np.argmax(total))
        probability[at] = softmax_with_nil(total, utility.nil)[best]
        right[at] = best == example.gold
    return Outcomes(probability, right)


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Concatenate outcomes."""
    return Outcomes(
        np.concatenate([part.probability_N for part in parts]), np.concatenate([part.right_N for part in parts])
    )


def utility_of(example: Example, utility: Utility) -> Floats:
    """Return the utility of each candidate of an example, shape (C,)."""
    total = np.zeros(example.count)
    for name, weight in utility.coefficients.items():
        if name in example.features:
            total = total + weight * example.features[name]
    return total


def probabilities(found: Outcomes, utility: Utility) -> Floats:
    """Return the calibrated probabilities of outcomes, shape (N,)."""
    return np.array([calibrated(utility, float(p)) for p in found.probability_N])


def expected_calibration_error(probability_N: Floats, right_N: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error (ECE) over ten bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((probability_N * _BINS).astype(int), _BINS - 1)
    total = 0.0
    for number in range(_BINS):
        own = bins == number
        if own.any():
            total += own.mean() * abs(probability_N[own].mean() - right_N[own].mean())
    return float(total)
