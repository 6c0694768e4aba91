"""From clicks to judgements: the position-based model, which separates where a hit stood from how good it is.

Craswell et al. 2008; Chuklin, Markov & de Rijke 2015, sections 3.3 and 4.2: a hit at rank k is clicked with probability
P(c = 1) = θ_k · α_qd, the chance that somebody looks at that rank times the chance that what is seen there attracts.
Both are known up to a factor only, so θ of the first rank is taken to be 1.
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
class Shown:
    """A page that somebody saw: documents by their rank (from 1), and which of them were clicked."""

    query: str
    ranks: Mapping[str, int]
    clicked: frozenset[str]


@dataclass(frozen=True, slots=True)
class Attraction:
    """How often somebody who looks at a document under a query clicks it (0 to 1), and how often it was shown."""

    probability: float
    views: int


@dataclass(frozen=True, slots=True)
class PositionModel:
    """θ by rank (the first is 1; 0 where nothing was shown), and α by (query, document)."""

    examination: tuple[float, ...]
    attraction: Mapping[tuple[str, str], Attraction]

    def grades(self, *, min_views: int) -> dict[str, dict[str, int]]:
        """Grades 0 to 3 by query: shares of the query's most attractive document, rounded.

        Documents that were shown less than `min_views` times are left out, and queries without any click.
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


def fit_position_model(pages: Sequence[Shown], *, positions: int = 50) -> PositionModel:
    """Fit both parts to all pages; ranks beyond `positions` count as the last one.

    θ maximises the likelihood over log odds of both (L-BFGS; expectation maximisation creeps where neighbours seldom
    change places; a prior on α, of which there are so many, would move θ). α is then clicks by looks, smoothed by one
    look of the mean. Raises InvalidInputError where nothing was shown.
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
    return PositionModel(tuple(float(one) for one in theta_K), attraction)
