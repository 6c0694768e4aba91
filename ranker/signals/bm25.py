"""The BM25 signal, over title and text (Robertson & Zaragoza 2009)."""

from __future__ import annotations

from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.ranking import Signal, TokenContribution
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import QueryForms


def leg(forms: QueryForms) -> Leg:
    """The retriever of passages that share terms with the query."""
    view, terms = forms.snapshot.bm25, forms.query.terms
    return Leg(
        (Signal.BM25,),
        lambda k, allowed, _: {Signal.BM25: view.search(terms, k, allowed)},
        lambda rows: {Signal.BM25: view.score(terms, rows)},
        lambda _, row: view.rank(terms, row),
    )


def tokens(forms: QueryForms, rows: IdArray, bag: BagEncoder) -> list[list[TokenContribution]]:
    """The contribution of each query term to the score of each row."""
    del bag
    return forms.snapshot.bm25.contributions(forms.query.terms, rows)
