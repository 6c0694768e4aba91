"""A link profile from examples: the order of retrieval stays, both decisions and their thresholds are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.core.errors import InvalidInputError
from app.core.linking import LinkProfile, Utility
from app.linking.disambiguation import SHIPPED
from training.linking.examples import Example
from training.linking.fit import (
    CROSS,
    FAST,
    figures,
    fit_coefficients,
    fit_probabilities,
    outcomes,
    threshold_for,
    with_missing,
)

_LEAST = 150


def fit_profile(
    examples: Sequence[Example],
    known: LinkProfile | None,
    *,
    cross: bool,
    missing: float,
    rate: float,
    mention_encoder: str,
    seed: int = 0,
) -> LinkProfile:
    """Fit on judged mentions, cut in three: coefficients, probabilities with the threshold, figures.

    Raises InvalidInputError for fewer than 150 examples.
    """
    if len(examples) < _LEAST:
        raise InvalidInputError("too few mentions to fit on", received=len(examples), expected=f"at least {_LEAST}")
    order = np.random.default_rng(seed).permutation(len(examples))
    drawn = with_missing([examples[at] for at in order], missing, seed)
    third = len(drawn) // 3
    learn, calibrate, held = drawn[:third], drawn[third : 2 * third], drawn[2 * third :]
    base = known or SHIPPED
    measured: dict[str, float] = {}

    def one(name: str, names: Sequence[str]) -> tuple[Utility, float]:
        utility = fit_coefficients(learn, names)
        utility = replace(utility, knots=fit_probabilities(outcomes(calibrate, utility)))
        threshold = threshold_for(outcomes(calibrate, utility), utility, rate)
        judged = sum(example.gold >= 0 for example in held)
        measured.update(
            {f"{name}.{key}": v for key, v in figures(outcomes(held, utility), utility, threshold, judged).items()}
        )
        return utility, threshold

    fast, fast_threshold = one("fast", FAST)
    made = replace(
        base,
        fast=fast,
        fast_threshold=fast_threshold,
        mention_encoder=mention_encoder,
        origin=f"fitted on {len(examples)} mentions, {missing:.0%} of them without their entity, "
        f"for at most {rate:.0%} false links",
    )
    if cross:
        utility, threshold = one("cross", CROSS)
        made = replace(made, cross=utility, cross_threshold=threshold)
    return replace(made, figures={name: round(value, 6) for name, value in measured.items()})
