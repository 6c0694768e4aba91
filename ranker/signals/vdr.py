"""The VDR signal (Zhou et al. 2024): the dot product of sparse term weights over a vocabulary."""

from __future__ import annotations

import numpy as np

from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import Signal, TokenContribution
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import QueryForms


def leg(forms: QueryForms) -> Leg:
    """The retriever of passages that share weighted tokens with the query. The query is encoded at first use."""
    snapshot, form, weights = forms.snapshot, forms.form, forms.weights
    view = snapshot.sparse(form)
    return Leg(
        (Signal.VDR,),
        lambda k, allowed, _: {Signal.VDR: view.search(weights(), k, allowed)},
        lambda rows: {Signal.VDR: unencoded_as_nan(snapshot, form, rows, view.score(weights(), rows))},
        lambda _, row: view.rank(weights(), row),
    )


def tokens(forms: QueryForms, rows: IdArray, bag: BagEncoder) -> list[list[TokenContribution]]:
    """The contribution of each vocabulary token to the score of each row."""
    return [
        [TokenContribution(bag.token(token), q * p, q, p) for token, q, p in matches]
        for matches in forms.snapshot.sparse(forms.form).contributions(forms.weights(), rows)
    ]


def unencoded_as_nan(snapshot: Snapshot, form: SparseForm, rows: IdArray, scores: ScoreArray) -> ScoreArray:
    """Replace the scores of passages that are not encoded yet by NaN (missing), because 0 would mean "no match"."""
    if form is SparseForm.BAG or not snapshot.waiting or not len(rows):
        return scores
    return np.where(snapshot.reader.encoded(rows), scores, np.float32(np.nan))
