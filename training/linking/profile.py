"""Fits a link profile to judged mentions: utilities, calibration and thresholds, with and without cross-encoder.

The retrieval settings of the profile are not changed.
"""

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
"""Texts needed per part. With fewer texts, mentions of one text may be split between parts."""


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
    """Fit a link profile so that at most the fraction `rate` of links is wrong; other fields are taken from `known`.

    With `folds` 0 the examples are split into three parts: coefficients, calibration and threshold, figures. With
    `folds` of 2 or more (cross-validation, for few mentions) the coefficients are fitted on all examples. Calibration
    and threshold are fitted on out-of-fold predictions, and the figures of a fold use those of the other folds, so
    nothing is measured on data it was fitted to. Mentions of one text are in one part if there are enough texts.

    `missing` is the fraction of examples whose entity was removed from the candidates (recorded only). With `cross` the
    decision with the cross-encoder is fitted too. Raises InvalidInputError for fewer than 150 examples or one fold.
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
    """Split into `count` parts of similar size. Mentions of one text stay together if there are enough texts."""
    groups: dict[object, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.row.text.text, []).append(example)
    if len(groups) < _LEAST_TEXTS * count:
        groups = {at: [example] for at, example in enumerate(examples)}
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
    everything = [item for part in parts for item in part]
    plain = fit_coefficients(everything, names)
    others = [[item for other in parts if other is not part for item in other] for part in parts]
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
    return sum(example.gold >= 0 for example in examples)
