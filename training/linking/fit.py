"""Fits the parts of a link profile: coefficients by maximum likelihood, calibration by isotonic regression, threshold.

NIL is learned from mentions whose correct entity was removed from the candidates. Coefficients and calibration are
fitted on different parts of the data, and the reported figures are measured on a third part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.linking import Utility
from hyblink.app.evaluation.linking.calibration import (
    Floats,
    Outcomes,
    expected_calibration_error,
    joined,
    probabilities,
)
from hyblink.app.evaluation.linking.examples import Example

FAST = ("bm25_z", "vdr_z", "dense_z", "dense", "match", "title", "unsupported", "prior", "context_z", "context")
"""Candidate features of linking without the cross-encoder."""

CROSS = (*FAST, "cross")
"""Candidate features of linking with the cross-encoder."""

_PENALTY = 1e-3

_KNOTS = 40

_LEAST = 50


def fit_coefficients(examples: Sequence[Example], names: Sequence[str]) -> Utility:
    """Maximum-likelihood coefficients of the conditional logit over candidates and NIL, with a small L2 penalty.

    `names` are the features to use. Raises InvalidInputError for fewer than 50 examples with candidates.
    """
    from scipy.optimize import minimize

    usable = [example for example in examples if example.count]
    if len(usable) < _LEAST:
        raise InvalidInputError("too few mentions to fit on", received=len(usable), expected=f"at least {_LEAST}")
    used = [name for name in names if any(name in item.features for item in usable)]
    width = max(item.count for item in usable)
    # X (N, C, F), padded candidates are masked; the last column of the softmax is NIL.
    x = np.zeros((len(usable), width, len(used)))
    mask = np.zeros((len(usable), width), dtype=bool)
    gold = np.array([item.gold if item.gold >= 0 else width for item in usable])
    for at, item in enumerate(usable):
        mask[at, : item.count] = True
        for f, name in enumerate(used):
            if name in item.features:
                x[at, : item.count, f] = item.features[name]
    rows = np.arange(len(usable))
    known = gold < width

    def loss(w: Floats) -> tuple[float, Floats]:
        u = np.where(mask, x @ w[:-1], -np.inf)
        u = np.concatenate([u, np.full((len(usable), 1), w[-1])], axis=1)
        top = u.max(axis=1, keepdims=True)
        p = np.exp(u - top)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        value = float((top[:, 0] + np.log(total[:, 0]) - u[rows, gold]).mean()) + _PENALTY * float(w @ w)
        grad_x = np.einsum("nc,ncf->f", p[:, :-1], x)
        grad_x -= x[rows[known], gold[known]].sum(axis=0)
        grad_nil = p[:, -1].sum() - (~known).sum()
        return value, np.append(grad_x, grad_nil) / len(usable) + 2 * _PENALTY * w

    found = minimize(loss, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B")
    weights = [round(float(w), 6) for w in found.x]
    return Utility(dict(zip(used, weights[:-1], strict=True)), weights[-1])


def fit_probabilities(found: Outcomes) -> tuple[tuple[float, float], ...]:
    """Calibrate by isotonic regression (Zadrozny & Elkan 2002) of correctness on the softmax probability.

    Returns ascending knots (softmax probability, calibrated probability).
    """
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(found.probability_N, found.right_N.astype(float))
    x = np.unique(np.quantile(found.probability_N, np.linspace(0, 1, _KNOTS)))
    y = model.predict(x)
    return tuple((round(float(a), 6), round(float(b), 6)) for a, b in zip(x, y, strict=True))


def threshold_for(found: Outcomes, utility: Utility, rate: float) -> float:
    """The lowest probability threshold at which at most `rate` (0 to 1) of the links are wrong; 1.0 if none is."""
    p = probabilities(found, utility)
    order = np.argsort(-p, kind="stable")
    wrong = np.cumsum(~found.right_N[order])
    share = wrong / np.arange(1, len(order) + 1)
    # Mentions of equal probability are linked together: only the last of them is a possible end.
    last = np.append(p[order][1:] != p[order][:-1], True)
    good = np.flatnonzero((share <= rate) & last)
    return float(p[order][good[-1]]) if len(good) else 1.0


def figures(measured: Sequence[tuple[Outcomes, Utility, float]], known: int) -> Mapping[str, float]:
    """Evaluation figures: mentions, ECE, false link rate, fraction of mentions linked, recall.

    `measured` holds parts of the data, each with the utility and threshold that decide it. `known` is the number of
    mentions whose entity is among the candidates; recall is relative to it.
    """
    p = np.concatenate([probabilities(found, utility) for found, utility, _ in measured])
    right_N = joined([found for found, _, _ in measured]).right_N
    thresholds = np.concatenate([np.full(len(found.right_N), threshold) for found, _, threshold in measured])
    linked = p >= thresholds
    right = linked & right_N
    return {
        "mentions": float(len(p)),
        "ece": expected_calibration_error(p, right_N),
        "false_link_rate": float(1 - right.sum() / linked.sum()) if linked.any() else 0.0,
        "linked": float(linked.mean()) if len(p) else 0.0,
        "recall": float(right.sum() / known) if known else 0.0,
    }
