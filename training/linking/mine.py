"""Mines training rows for entity linking: a mention in context, its entity, and its best wrong candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.core.types.linking import Utility
from hyblink.app.core.types.ranking import Signal
from hyblink.app.encoders.mention.text import marked
from hyblink.app.evaluation.linking.examples import retrieve_candidates
from hyblink.app.evaluation.linking.mentions import JudgedMention
from hyblink.app.linking.candidate_generation import Candidates
from hyblink.app.linking.disambiguation import decide
from hyblink.app.linking.knowledge_base import description_of
from hyblink.app.linking.service import LinkService
from hyblink.training.data.rows import Text, TrainingRow


def training_rows(
    linker: LinkService,
    engine: Engine,
    kb: str,
    rows: Sequence[JudgedMention],
    *,
    keep: int,
    tokens: int,
    tokenizer: Any,
    own_document: Callable[[JudgedMention], str | None] = lambda _: None,
    utility: Utility | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[TrainingRow]:
    """Training rows for all mentions whose entity is in the knowledge base, with wrong candidates as hard negatives.

    The query is the marked mention in its context of at most `tokens` tokens. Negatives are the `keep` best wrong
    candidates by fused score. With `utility`, candidates are ordered by utility, which is also stored as first-stage
    scores for the `residual` of a cross-encoder; a row whose entity is no candidate gets no scores. The source of a
    negative names the signals that proposed it. NIL mentions are left out. `own_document` returns the id of an entity
    to exclude from the candidates of a mention.
    """
    reader = engine.store.reader()
    made = []
    judged = [row for row in rows if row.entity_id]
    for row, item in retrieve_candidates(linker, kb, judged, max(2 * keep, keep + 8), own_document, progress):
        gold_rows = reader.document_rows(row.entity_id)
        if not len(gold_rows):
            continue
        keys = reader.document_keys(gold_rows[:1])
        decided = None if utility is None else decide(item.candidates, utility, {})
        order = range(len(item.candidates)) if decided is None else decided.order
        right = [at for at in order if item.candidates.keys[at] == keys[0]]
        wrong = [at for at in order if item.candidates.keys[at] != keys[0]][:keep]
        wanted = np.append(gold_rows[:1], item.candidates.rows[wrong])
        passages = reader.passages(wanted)
        ids = reader.doc_ids(item.candidates.keys[wrong])
        gold = passages[int(gold_rows[0])]
        negatives, kept = [], []
        for at, entity in zip(wrong, ids, strict=True):
            passage = passages[int(item.candidates.rows[at])]
            text = Text(description_of(passage.text), passage.title, entity, _sources(item.candidates, at))
            if text.joined.strip() != Text(description_of(gold.text), gold.title).joined.strip():
                negatives.append(text)
                kept.append(at)
        query = marked(tokenizer, [row.context], tokens)[0]
        positive = Text(description_of(gold.text), gold.title, row.entity_id)
        of_right: tuple[float, ...] = ()
        of_wrong: tuple[float, ...] = ()
        if decided is not None and right:
            of_right, of_wrong = (tuple(decided.utility_C[places].tolist()) for places in (right[:1], kept))
        made.append(TrainingRow(query, (positive,), tuple(negatives), of_right, of_wrong, id=row.id))
    return made


def rows_of_candidates(
    engine: Engine,
    rows: Sequence[JudgedMention],
    candidates: Mapping[str, Sequence[str]],
    *,
    keep: int,
    tokens: int,
    tokenizer: Any,
    own_document: Callable[[JudgedMention], str | None] = lambda _: None,
) -> list[TrainingRow]:
    """Like `training_rows`, from stored candidates: `candidates` maps a mention id to entity ids, best first.

    Mentions without candidates or whose entity no longer exists are left out, as are candidates that no longer exist.
    """
    reader = engine.store.reader()
    made = []
    for row in rows:
        gold = _entity(reader, row.entity_id) if row.entity_id and row.id in candidates else None
        if gold is None:
            continue
        negatives: list[Text] = []
        left_out = {row.entity_id, own_document(row)}
        for candidate in candidates[row.id]:
            wrong = None if candidate in left_out or len(negatives) == keep else _entity(reader, candidate)
            if wrong is not None and wrong.joined.strip() != gold.joined.strip():
                negatives.append(wrong)
        query = marked(tokenizer, [row.context], tokens)[0]
        made.append(TrainingRow(query, (gold,), tuple(negatives), id=row.id))
    return made


def _entity(reader: StoreReader, entity_id: str) -> Text | None:
    rows = reader.document_rows(entity_id)[:1]
    if not len(rows):
        return None
    passage = reader.passages(rows)[int(rows[0])]
    return Text(description_of(passage.text), passage.title, entity_id)


def _sources(candidates: Candidates, at: int) -> str:
    row = int(candidates.rows[at])
    found = [s.value for s, ranks in zip(candidates.signals, candidates.leg_ranks, strict=True) if row in ranks]
    return "+".join(found or [Signal.BM25.value])
