"""Build a page of results: hits with their passages and scores by signal, and facets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.budget import BUDGET, holds, models_may_go_on, within_budget
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
_BYTES_A_CHARACTER = 4
"""Memory of a character of an answer: in the text, in the JSON, and as much again for other than Latin letters."""
_BYTES_A_PASSAGE = 6000
"""Memory of a passage of an answer without its text: the scores by signal, and their JSON."""
_BYTES_A_TOKEN = 400
"""Memory of a token's contribution in an answer: the object and its JSON."""
_TOKENS_TOGETHER = 1 << 16
_EXPLANATIONS = "the tokens of signals, for the later hits: ask for a smaller k, or explain a document alone"
_CROSS_EXPLANATIONS = "the tokens of the re-ranker, for the later hits: ask for a smaller k, or re-rank fewer"
Tokens = tuple[TokenContribution, ...]


def page_of(ranked: Ranked, page: range, request: SearchRequest, encoders: EncoderPool) -> tuple[Hit, ...]:
    """Return the hits of a page, each with its best passages, their scores by signal and their highlights.

    With `request.explain`, each signal's score is also split into the contributions of the query's tokens. Hits whose
    texts do not fit into the request's memory are left out, except the first one, and what no CPU time is left for.
    """
    reader = ranked.snapshot.reader
    shown = [ranked.documents.columns(at)[: request.passages_per_document] for at in page]
    kept = _that_fit(ranked, page, shown)
    page, shown = page[:kept], shown[:kept]
    keys = ranked.documents.keys_D[page.start : page.stop]
    columns = [column for own in shown for column in own]
    rows = ranked.fused.complete.rows[np.array(columns, dtype=np.int64)]
    place = {column: at for at, column in enumerate(columns)}
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
                    passage.path,
                    passage.place,
                )
            )
        title = passages[int(ranked.fused.complete.rows[own[0]])].title
        score = float(ranked.documents.scores_D[at])
        hits.append(Hit(at + FIRST_RANK, DocId(doc_id), title, score, data, tuple(passage_hits)))
    return tuple(hits)


def _that_fit(ranked: Ranked, page: range, shown: Sequence[Sequence[int]]) -> int:
    """How many hits of the page fit into the request's memory with their texts; one at least."""
    budget = BUDGET.get()
    if budget is None or not shown:
        return len(shown)
    columns = np.array([column for own in shown for column in own], dtype=np.int64)
    lengths = ranked.snapshot.reader.passage_lengths(ranked.fused.complete.rows[columns]).tolist()
    at = 0
    for number, own in enumerate(shown):
        size = sum(lengths[at : at + len(own)]) * _BYTES_A_CHARACTER + len(own) * _BYTES_A_PASSAGE
        if not budget.hold(size) and number:
            first = page.start + number
            budget.leave_out(
                f"hits from rank {first + FIRST_RANK} on: their texts do not fit into the request's memory "
                f"(api.request_memory_bytes); ask for them with offset {first}"
            )
            return number
        at += len(own)
    return len(shown)


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
) -> dict[Signal, list[Tokens]]:
    """By signal, each query token's contribution to each passage's score. Empty for passages beyond the budget."""
    bag = encoders.bag(ranked.engine.record.vdr_encoder)
    made: dict[Signal, list[Tokens]] = {s: [] for s in ranked.fused.complete.signals}
    step = max(16, min(512, _TOKENS_TOGETHER // max(1, len(set(ranked.forms.query.terms)))))
    for at in range(0, len(rows), step):
        if not within_budget(_EXPLANATIONS):
            break
        part = {s: token_contributions(ranked.forms, rows[at : at + step], s, bag) for s in made}
        if not holds(sum(len(own) for found in part.values() for own in found) * _BYTES_A_TOKEN, _EXPLANATIONS):
            break
        for signal, found in part.items():
            made[signal] += found
    made = {signal: found + [()] * (len(rows) - len(found)) for signal, found in made.items()}
    if ranked.cross:
        made[Signal.CROSS] = _cross_tokens(ranked, passages, columns, request, encoders)
    return made


def _cross_tokens(
    ranked: Ranked, passages: Sequence[Passage], columns: Sequence[int], request: SearchRequest, encoders: EncoderPool
) -> list[Tokens]:
    """The tokens' contributions to the re-ranker's score of each passage; empty if not re-ranked or if it fails."""
    found: list[Tokens] = []
    idf = ranked.forms.token_idf() if ranked.cross else None
    for column, passage in zip(columns, passages, strict=True):
        own: Tokens = ()
        if column in ranked.cross and models_may_go_on(_CROSS_EXPLANATIONS):
            with suppress(EncoderUnavailableError):
                own = encoders.cross().contributions(request.query, passage.heading, passage.text, idf)
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
