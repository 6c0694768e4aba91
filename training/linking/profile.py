"""A link profile from examples: the order of retrieval stays, both decisions and their thresholds are fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.linking import LinkProfile, Utility
from hyblink.app.evaluation.linking.calibration import Outcomes, joined, outcomes
from hyblink.app.evaluation.linking.examples import Example
from hyblink.app.linking.disambiguation import SHIPPED
from hyblink.training.linking.fit import CROSS, FAST, figures, fit_coefficients, fit_probabilities, threshold_for

_LEAST = 150
_LEAST_TEXTS = 5
"""For each part; of fewer texts the mentions themselves are dealt out."""


def fit_profile(
    examples: Sequence[Example],
    known: LinkProfile | None,
    *,
    cross: bool,
    missing: float,
    rate: float,
    mention_encoder: str,
    seed: int = 0,
    folds: int = 0,
) -> LinkProfile:
    """Fit on judged mentions, the share `missing` of them without their entity, for at most `rate` false links.

    They are cut in three: coefficients, probabilities with the threshold, figures. With `folds`, for few mentions, the
    coefficients are of all of them, probabilities and threshold of what those of the other folds make of each, and the
    figures of probabilities and thresholds of the other folds: nothing is measured on what it was fitted to. Mentions
    of one text are in one fold.

    Raises InvalidInputError for fewer than 150 examples, or a single fold.
    """
    if len(examples) < _LEAST:
        raise InvalidInputError("too few mentions to fit on", received=len(examples), expected=f"at least {_LEAST}")
    if folds == 1:
        raise InvalidInputError("bad folds", received=folds, expected="0, or 2 and more")
    parts = _parts(examples, folds or 3, seed)
    fit_one = _cross_validated if folds else _by_thirds
    fast, fast_threshold, measured = fit_one(parts, FAST, rate)
    made = replace(
        known or SHIPPED,
        fast=fast,
        fast_threshold=fast_threshold,
        mention_encoder=mention_encoder,
        origin=f"fitted on {len(examples)} mentions, {missing:.0%} of them without their entity, "
        f"for at most {rate:.0%} false links{f', in {folds} folds' if folds else ''}",
    )
    figured = {f"fast.{name}": value for name, value in measured.items()}
    if cross:
        utility, threshold, measured = fit_one(parts, CROSS, rate)
        made = replace(made, cross=utility, cross_threshold=threshold)
        figured |= {f"cross.{name}": value for name, value in measured.items()}
    return replace(made, figures={name: round(value, 6) for name, value in figured.items()})


def _parts(examples: Sequence[Example], count: int, seed: int) -> list[list[Example]]:
    """So many parts of about the same size; the mentions of one text are together, if there are texts enough."""
    groups: dict[object, list[Example]] = {}
    for one in examples:
        groups.setdefault(one.row.text.text, []).append(one)
    if len(groups) < _LEAST_TEXTS * count:
        groups = {at: [one] for at, one in enumerate(examples)}
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    own = list(groups.values())
    parts: list[list[Example]] = [[] for _ in range(count)]
    for at in sorted(order, key=lambda at: -len(own[at])):  # the largest first, each into the smallest part
        min(parts, key=len).extend(own[at])
    return parts


_Fitted = tuple[Utility, float, Mapping[str, float]]


def _by_thirds(parts: Sequence[Sequence[Example]], names: Sequence[str], rate: float) -> _Fitted:
    learn, calibrate, held = parts
    utility = fit_coefficients(learn, names)
    utility, threshold = _calibrated(outcomes(calibrate, utility), utility, rate)
    return utility, threshold, figures([(outcomes(held, utility), utility, threshold)], _known(held))


def _cross_validated(parts: Sequence[Sequence[Example]], names: Sequence[str], rate: float) -> _Fitted:
    everything = [one for part in parts for one in part]
    plain = fit_coefficients(everything, names)
    others = [[one for other in parts if other is not part for one in other] for part in parts]
    held = [outcomes(part, fit_coefficients(other, names)) for part, other in zip(parts, others, strict=True)]
    utility, threshold = _calibrated(joined(held), plain, rate)
    measured = []
    for at, own in enumerate(held):
        measured.append((own, *_calibrated(joined([*held[:at], *held[at + 1 :]]), plain, rate)))
    return utility, threshold, figures(measured, _known(everything))


def _calibrated(found: Outcomes, utility: Utility, rate: float) -> tuple[Utility, float]:
    made = replace(utility, knots=fit_probabilities(found))
    return made, threshold_for(found, made, rate)


def _known(examples: Sequence[Example]) -> int:
    return sum(one.gold >= 0 for one in examples)
