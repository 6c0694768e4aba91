"""Build a page of results: hits with their passages and scores by signal, and facets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.documents import DocId, Metadata, Passage
from hyblink.app.core.types.ranking import (
    FIRST_RANK,
    Signal,
    TokenContribution,
)
from hyblink.app.core.types.search import (
    FacetCount,
    Hit,
    PassageHit,
    SearchRequest,
)
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.search.ranking import Ranked
from hyblink.ranker.explain import highlights, token_contributions

_MAX_FACET_VALUES = 20


def page_of(ranked: Ranked, page: range, request: SearchRequest, encoders: EncoderPool) -> tuple[Hit, ...]:
    """Return the hits of a page, each with its best passages, their scores by signal and their highlights.

    With `request.explain`, each signal's score is also split into the contributions of the query's tokens.
    """
    keys = ranked.documents.keys_D[page.start : page.stop]
    shown = [ranked.documents.columns(at)[: request.passages_per_document] for at in page]
    columns = [column for own in shown for column in own]
    rows = ranked.fused.complete.rows[np.array(columns, dtype=np.int64)]
    place = {column: at for at, column in enumerate(columns)}
    reader = ranked.snapshot.reader
    passages = reader.passages(rows)
    doc_ids, metadata = reader.doc_ids(keys), reader.metadata(keys)
    analyzer = Analyzer(ranked.engine.record.analyzer)
    tokens = (
        _tokens(ranked, rows, [passages[row] for row in rows.tolist()], columns, request, encoders)
        if request.explain
        else {}
    )
    hits = []
    for at, doc_id, data, own in zip(page, doc_ids, metadata, shown, strict=True):
        passage_hits = []
        for column in own:
            passage = passages[int(ranked.fused.complete.rows[column])]
            lines = ranked.ledger(column)
            if tokens:
                own_tokens = {signal: found[place[column]] for signal, found in tokens.items()}
                lines = tuple(replace(line, tokens=own_tokens.get(line.signal, ())) for line in lines)
            passage_hits.append(
                PassageHit(
                    passage.id,
                    passage.ordinal,
                    passage.start,
                    passage.end,
                    passage.text,
                    ranked.score(column),
                    passage.tier,
                    lines,
                    highlights(analyzer, ranked.forms.query.terms, passage.text) if request.highlight else (),
                )
            )
        title = passages[int(ranked.fused.complete.rows[own[0]])].title
        score = float(ranked.documents.scores_D[at])
        hits.append(Hit(at + FIRST_RANK, DocId(doc_id), title, score, data, tuple(passage_hits)))
    return tuple(hits)


def facets_of(ranked: Ranked, keys: Sequence[str]) -> dict[str, tuple[FacetCount, ...]]:
    """Count the values of metadata keys over all ranked documents, most frequent first, the 20 best of each key."""
    if not keys:
        return {}
    reader = ranked.snapshot.reader
    metadata = reader.metadata(ranked.documents.keys_D)
    return {key: _count(key, metadata) for key in keys}


def _tokens(
    ranked: Ranked,
    rows: IdArray,
    passages: Sequence[Passage],
    columns: Sequence[int],
    request: SearchRequest,
    encoders: EncoderPool,
) -> dict[Signal, list[tuple[TokenContribution, ...]]]:
    """By signal, each query token's contribution to each passage's score."""
    bag = encoders.bag(ranked.engine.record.vdr_encoder)
    made = {s: token_contributions(ranked.forms, rows, s, bag) for s in ranked.fused.complete.signals}
    if ranked.cross:
        made[Signal.CROSS] = _cross_tokens(ranked, passages, columns, request, encoders)
    return made


def _cross_tokens(
    ranked: Ranked, passages: Sequence[Passage], columns: Sequence[int], request: SearchRequest, encoders: EncoderPool
) -> list[tuple[TokenContribution, ...]]:
    """The tokens' contributions to the re-ranker's score of each passage; empty if not re-ranked or if it fails."""
    found: list[tuple[TokenContribution, ...]] = []
    idf = ranked.forms.token_idf() if ranked.cross else None
    for column, passage in zip(columns, passages, strict=True):
        own: tuple[TokenContribution, ...] = ()
        if column in ranked.cross:
            with suppress(EncoderUnavailableError):
                own = encoders.cross().contributions(request.query, passage.title, passage.text, idf)
        found.append(tuple(sorted(own, key=lambda item: -item.contribution)))
    return found


def _count(key: str, rows: Sequence[Metadata]) -> tuple[FacetCount, ...]:
    counts: Counter[str] = Counter()
    for metadata in rows:
        value = metadata.get(key)
        if value is None:
            continue
        for element in value if isinstance(value, list) else [value]:
            counts[("true" if element else "false") if isinstance(element, bool) else str(element)] += 1
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MAX_FACET_VALUES]
    return tuple(FacetCount(value, count) for value, count in best)
