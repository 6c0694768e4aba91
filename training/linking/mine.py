"""Training rows for the bi-encoder and the cross-encoder: a marked mention, its entity, its best wrong candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from app.core.ports import Engine
from app.core.types import Signal
from app.encoders.mention_text import marked
from app.linking.candidate_generation import Candidates
from app.linking.knowledge_base import description_of
from app.linking.linker import LinkService
from training.data import Text, TrainingRow
from training.linking.data import JudgedMention
from training.linking.examples import retrieved


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
    progress: Callable[[int], None] = lambda _: None,
) -> list[TrainingRow]:
    """A row for each mention whose entity is in the knowledge base; negatives are candidates by the fused score.

    A negative's source is the signals that proposed it. Mentions that mean nothing are left out.
    """
    reader = engine.store.reader()
    made = []
    judged = [row for row in rows if row.entity_id]
    for row, one in retrieved(linker, kb, judged, max(2 * keep, keep + 8), own_document, progress):
        places = reader.document_rows(row.entity_id)
        if not len(places):
            continue
        keys = reader.document_keys(places[:1])
        wrong = [at for at in range(len(one.candidates)) if one.candidates.keys[at] != keys[0]][:keep]
        wanted = np.append(places[:1], one.candidates.rows[wrong])
        passages = reader.passages(wanted)
        ids = reader.doc_ids(one.candidates.keys[wrong])
        gold = passages[int(places[0])]
        negatives = []
        for at, entity in zip(wrong, ids, strict=True):
            passage = passages[int(one.candidates.rows[at])]
            text = Text(description_of(passage.text), passage.title, entity, _sources(one.candidates, at))
            if text.joined.strip() != Text(description_of(gold.text), gold.title).joined.strip():
                negatives.append(text)
        query = marked(tokenizer, [row.context], tokens)[0]
        positive = Text(description_of(gold.text), gold.title, row.entity_id)
        made.append(TrainingRow(query, (positive,), tuple(negatives), id=row.id))
    return made


def _sources(candidates: Candidates, at: int) -> str:
    row = int(candidates.rows[at])
    found = [s.value for s, ranks in zip(candidates.signals, candidates.leg_ranks, strict=True) if row in ranks]
    return "+".join(found or [Signal.BM25.value])
