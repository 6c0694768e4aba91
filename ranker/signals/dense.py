"""The dense signal: the inner product of the query's and the passages' vectors."""

from __future__ import annotations

from collections.abc import Callable

from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.ranking import Signal
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import QueryForms


def leg(forms: QueryForms) -> Leg | None:
    """The retriever of passages with vectors nearest to the query's, or None. The query is encoded at first use."""
    return dense_leg(forms.snapshot, forms.vector)


def dense_leg(snapshot: Snapshot, vector: Callable[[], VectorArray]) -> Leg | None:
    """The retriever of passages nearest to a vector, or None if the snapshot has no vectors."""
    view = snapshot.dense
    if view is None or not view.vectors:
        return None
    return Leg(
        (Signal.DENSE,),
        lambda k, allowed, _: {Signal.DENSE: view.search(vector(), k, allowed)},
        lambda rows: {Signal.DENSE: view.score(vector(), rows)},
        lambda _, row: view.rank(vector(), row),
    )
