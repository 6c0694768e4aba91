"""The position-based click model: estimates relevance from clicks, corrected for position bias.

A hit at rank k is clicked with probability P(c = 1) = θ_k · α_qd (Craswell et al. 2008; Chuklin, Markov & de Rijke
2015, sections 3.3 and 4.2). θ_k is the examination probability of the rank, α_qd the attractiveness of the document for
the query. Both are determined only up to a factor, so θ of the first rank is set to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import InvalidInputError

Floats = npt.NDArray[np.float64]
MAX_GRADE = 3
_ROUNDS = 2000
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A result page that was shown to a user: each document's rank (from 1), and the clicked documents."""

    query: str
    ranks: Mapping[str, int]
    clicked: frozenset[str]


@dataclass(frozen=True, slots=True)
class Attraction:
    """The attractiveness α of a document for a query (0 to 1), and how often the document was shown for it."""

    probability: float
    views: int


@dataclass(frozen=True, slots=True)
class PositionModel:
    """A fitted model: θ by rank (1 for the first, 0 for ranks never shown), and α by (query, document)."""

    examination: tuple[float, ...]
    attraction: Mapping[tuple[str, str], Attraction]

    def grades(self, *, min_views: int) -> dict[str, dict[str, int]]:
        """Return relevance grades from 0 to 3, query → document → grade.

        A grade is 3 times the document's α relative to the largest α of the query, rounded. Documents shown fewer than
        `min_views` times are omitted, and so are queries whose grades are all 0.
        """
        best: dict[str, float] = {}
        for (query, _), found in self.attraction.items():
            if found.views >= min_views:
                best[query] = max(best.get(query, 0.0), found.probability)
        graded: dict[str, dict[str, int]] = {}
        for (query, document), found in self.attraction.items():
            if found.views >= min_views and best[query] > 0:
                grade = round(MAX_GRADE * found.probability / best[query])
                graded.setdefault(query, {})[document] = grade
        return {query: grades for query, grades in graded.items() if any(grades.values())}


def fit_position_model(pages: Sequence[ResultPage], *, positions: int = 50) -> PositionModel:
    """Fit the model to logged pages. Ranks beyond `positions` count as the last one.

    θ and α maximise the likelihood, parametrised by log odds, with L-BFGS. (Expectation maximisation converges slowly
    where documents seldom change places, and a prior on the many α would bias θ.) α is then re-estimated as clicks
    divided by expected examinations, smoothed by one examination with the mean click rate. Raises InvalidInputError if
    no page was shown.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    pairs: dict[tuple[str, str], int] = {}
    pair, rank, clicked = [], [], []
    for page in pages:
        for document, at in page.ranks.items():
            pair.append(pairs.setdefault((page.query, document), len(pairs)))
            rank.append(min(at, positions) - 1)
            clicked.append(document in page.clicked)
    if not pair:
        raise InvalidInputError("no page was shown", received=0, expected="searches that were logged")
    pair_N, rank_N, clicked_N = np.array(pair), np.array(rank), np.array(clicked, dtype=float)
    used = int(rank_N.max()) + 1

    def loss(odds: Floats) -> tuple[float, Floats]:
        theta_K, alpha_P = expit(odds[:used]), expit(odds[used:])
        p_N = np.clip(theta_K[rank_N] * alpha_P[pair_N], _TINY, 1 - _TINY)
        likelihood = (clicked_N * np.log(p_N) + (1 - clicked_N) * np.log(1 - p_N)).sum()
        slope_N = clicked_N / p_N - (1 - clicked_N) / (1 - p_N)
        of_theta_K = np.bincount(rank_N, slope_N * alpha_P[pair_N], minlength=used) * theta_K * (1 - theta_K)
        of_alpha_P = np.bincount(pair_N, slope_N * theta_K[rank_N], minlength=len(pairs)) * alpha_P * (1 - alpha_P)
        return -float(likelihood), -np.concatenate([of_theta_K, of_alpha_P])

    found = minimize(loss, np.zeros(used + len(pairs)), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    shown_K = np.bincount(rank_N, minlength=used) > 0
    theta_K = expit(found.x[:used]) * shown_K
    theta_K = theta_K / theta_K[np.flatnonzero(shown_K)[0]]
    looked_P = np.bincount(pair_N, theta_K[rank_N], minlength=len(pairs))
    clicked_P = np.bincount(pair_N, clicked_N, minlength=len(pairs))
    mean = clicked_N.sum() / looked_P.sum()
    alpha_P = np.minimum(1.0, (clicked_P + mean) / (looked_P + 1))
    views_P = np.bincount(pair_N, minlength=len(pairs))
    attraction = {key: Attraction(float(alpha_P[at]), int(views_P[at])) for key, at in pairs.items()}
    return PositionModel(tuple(float(item) for item in theta_K), attraction)
