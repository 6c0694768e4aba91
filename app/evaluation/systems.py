"""Systems under evaluation: parse their names, and run judged queries with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast, get_args

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal, VdrMode
from hyblink.app.core.types.search import SearchRequest, SearchResult
from hyblink.app.evaluation.runs import Run
from hyblink.app.search.service import SearchService
from hyblink.ranker.signals.registry import proposing

MEASURES = ("nDCG@10", "RR@10", "R@100", "Success@1", "Success@10", "Success@100")

HYBRID = "hybrid"

DEPTH = 100


class Runner(Protocol):
    """A function that runs one query and returns the documents' scores by id."""

    def __call__(self, text: str) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class System:
    """The configuration of a system: its first-stage signals, its VDR mode, and whether it re-ranks."""

    signals: tuple[Signal, ...]
    vdr: VdrMode | None = None
    rerank: bool = False


def systems_from(names: Sequence[str]) -> dict[str, System]:
    """Parse system names: signals joined by `+`, `hybrid` for all signals, `vdr:MODE`, and `+cross` to re-rank.

    Raises InvalidInputError for an unknown name.

    >>> systems_from(["bm25+dense"])["bm25+dense"].signals == (Signal.BM25, Signal.DENSE)
    True
    >>> systems_from(["hybrid+cross"])["hybrid+cross"].rerank
    True
    >>> systems_from(["vdr:alpha"])["vdr:alpha"].vdr
    'alpha'
    """
    return {name: _system(name) for name in names}


def _system(name: str) -> System:
    signals: list[Signal] = []
    vdr: VdrMode | None = None
    rerank = False
    for part in name.split("+"):
        leg, colon, mode = part.partition(":")
        if part == Signal.CROSS:
            rerank = True
        elif part == HYBRID:
            signals += DEFAULT_SIGNALS
        elif leg in proposing() and (not colon or (leg == Signal.VDR and mode in get_args(VdrMode))):
            signals.append(Signal(leg))
            vdr = cast("VdrMode", mode) if colon else vdr
        else:
            raise InvalidInputError(
                "unknown system",
                received=name,
                expected=f"{', '.join(DEFAULT_SIGNALS)}, hybrid, vdr:MODE, joined by +, and +cross to re-rank",
            )
    if not signals or len(set(signals)) != len(signals):
        raise InvalidInputError("a system runs each leg once", received=name, expected="such as bm25+dense")
    return System(tuple(signals), vdr, rerank)


def search_runner(
    service: SearchService,
    collection: str,
    request: SearchRequest,
    seen: Callable[[SearchResult], None] = lambda _: None,
) -> Runner:
    """Return a runner that searches a collection with `request` and the query's text. `seen` is given every result.

    It returns descending integers as scores, so that measures keep the search's order of tied documents.
    """

    def run(text: str) -> dict[str, float]:
        result = service.search(collection, replace(request, query=text))
        seen(result)
        return {hit.doc_id: float(len(result.hits) - at) for at, hit in enumerate(result.hits)}

    return run


def run_queries(queries: Mapping[str, str], runner: Runner, progress: Callable[[int], None] = lambda _: None) -> Run:
    """Run every query (text by id); return the run, query → document → score."""
    run: Run = {}
    for query, text in queries.items():
        run[query] = runner(text)
        progress(1)
    return run
