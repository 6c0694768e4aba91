"""Make training data for entity linking: rows with negatives, candidate files, texts with all their mentions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.core.progress import Progress, silent
from hyblink.app.core.types.linking import Entity
from hyblink.app.evaluation.linking.candidate_files import Proposed, read_candidates
from hyblink.app.evaluation.linking.converters import CONVERTERS, zeshel
from hyblink.app.evaluation.linking.examples import retrieve_candidates
from hyblink.app.evaluation.linking.mentions import JudgedMention
from hyblink.app.linking.disambiguation import SHIPPED
from hyblink.app.linking.knowledge_base import description_of
from hyblink.app.operations.judged_mentions import Judged, Retrieval, document_of, judged_mentions
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.linking.distant import distant_row
from hyblink.training.linking.mine import rows_of_candidates, training_rows
from hyblink.training.linking.spans import SpanRow, context_rows, joined_rows

_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class RowMining:
    """Options for mining training rows. `keep`: negatives per row; `tokens`: length of a mention with its context."""

    keep: int = 16
    tokens: int = 96
    scores: bool = False
    """Store the candidates' scores without a cross-encoder, so that a cross-encoder can be trained on top of them."""
    proposed: Path | None = None
    """Take the negatives from this candidate file instead of retrieving them."""


def mine_rows(
    app: App, kb: str, data: Path, how: Retrieval, mining: RowMining, *, limit: int | None = None,
    progress: Progress = silent,
) -> tuple[list[TrainingRow], Judged]:  # fmt: skip
    """Make training rows for `blink_bi` and `blink_cross`: a marked mention, its entity, and negatives.

    Raises InvalidInputError if no mention means an entity of the knowledge base.
    """
    if mining.scores and mining.proposed is not None:
        raise InvalidInputError(
            "a file of candidates does not say what is decided", received="--scores --candidates", expected="one"
        )
    judged = judged_mentions(app, kb, data, limit)
    tokenizer = app.encoders.mention_tokenizer()
    engine = app.catalog.engine(kb)
    if mining.proposed is not None:
        known = {row.id: row.candidates for row in read_candidates(mining.proposed)}
        made = rows_of_candidates(
            engine, judged.rows, known, keep=mining.keep, tokens=mining.tokens, tokenizer=tokenizer,
            own_document=how.left_out,
        )  # fmt: skip
    else:
        made = training_rows(
            app.linker,
            engine,
            kb,
            judged.rows,
            keep=mining.keep,
            tokens=mining.tokens,
            tokenizer=tokenizer,
            own_document=how.left_out,
            utility=(app.catalog.link_profile(kb) or SHIPPED).fast if mining.scores else None,
            progress=progress("mentions", len(judged.rows)),
        )
    if not made:
        raise InvalidInputError(
            "no mention means an entity of the knowledge base", received=f"{len(judged.rows)} mentions"
        )
    return made, judged


def propose(
    app: App, kb: str, data: Path, how: Retrieval, *, limit: int | None = None, progress: Progress = silent
) -> tuple[list[Proposed], Judged]:
    """Retrieve the candidates of each judged mention, best first by the fused score."""
    judged = judged_mentions(app, kb, data, limit)
    advance, made = progress("mentions", len(judged.rows)), []
    reader = app.catalog.engine(kb).snapshot().reader
    for row, item in retrieve_candidates(
        app.linker, kb, judged.rows, how.candidates, how.left_out, signals=how.signals
    ):
        ids = reader.doc_ids(item.candidates.keys) if len(item.candidates) else []
        made.append(Proposed(row.id, row.entity_id, tuple(ids), row.world))
        advance()
    return made, judged


def converted(path: Path, form: str, split: str) -> list[JudgedMention]:
    """Read judged mentions from a file in a common entity-linking format, such as AIDA or Zeshel.

    `form` names the format, `split` the part of AIDA or Zeshel to read. Raises NotFoundError, InvalidInputError.
    """
    if form != "zeshel" and form not in CONVERTERS:
        raise InvalidInputError("unknown format", received=form, expected=f"{', '.join(CONVERTERS)} or zeshel")
    if not path.exists():
        raise NotFoundError("no such file", received=str(path))
    rows = list(zeshel(path, split) if form == "zeshel" else CONVERTERS[form](path))
    if form == "aida":
        splits = dict.fromkeys(row.world for row in rows)
        rows = [row for row in rows if row.world == split]
        if not rows:
            raise InvalidInputError("no such split", received=split, expected=", ".join(splits) or "a file of AIDA")
    return rows


def span_rows(
    app: App, kb: str, data: Path, *, in_context: bool = False, descriptions: bool = False, hard: int = 0,
    progress: Progress = silent,
) -> tuple[list[SpanRow], Judged]:  # fmt: skip
    """Make training texts with all their mentions for `elq`, one text for each entity description.

    The mentions must have been taken from entities' descriptions. With `in_context`, the texts are the mentions' own
    contexts instead. Unmarked names of the kb are listed as `ignored`. `descriptions` adds the entities' descriptions,
    `hard` the number of hard negatives of a mention.
    """
    judged = judged_mentions(app, kb, data)
    names = app.linker.names_in(kb)
    how = Retrieval(hard + 1, own_document=not in_context)
    mined = _wrong_candidates(app, kb, judged.rows, how, progress) if hard else {}

    def hard_of(row: JudgedMention) -> Sequence[str]:
        return mined.get(row.digest, ())

    if in_context:
        made = context_rows(judged.rows, names, hard_of)
    else:
        described = _described(app, kb, {document_of(row) for row in judged.rows})
        made = joined_rows(judged.rows, document_of, described, names, hard_of)
    return (_with_entities(app, kb, made) if descriptions else made), judged


def _wrong_candidates(
    app: App, kb: str, rows: Sequence[JudgedMention], how: Retrieval, progress: Progress
) -> dict[int, tuple[str, ...]]:
    """The top-ranked wrong candidates (hard negatives) of each mention, by the mention's digest."""
    found = {}
    reader = app.catalog.engine(kb).snapshot().reader
    advance = progress("candidates", len(rows))
    for row, item in retrieve_candidates(app.linker, kb, rows, how.candidates, how.left_out):
        ids = reader.doc_ids(item.candidates.keys) if len(item.candidates) else []
        found[row.digest] = tuple(name for name in ids if name != row.entity_id)[: how.candidates - 1]
        advance()
    return found


@dataclass(frozen=True, slots=True)
class Distant:
    """Automatically labelled texts, and how many texts were read to find them."""

    rows: list[SpanRow]
    read: int


def distant_rows(
    app: App, kb: str, collection: str | None = None, *, limit: int | None = None, progress: Progress = silent
) -> Distant:
    """Label texts automatically (distant supervision): proper names that mean exactly one entity become mentions.

    The texts are the passages of `collection`, or the entities' descriptions if it is None. `limit` is the largest
    number of labelled texts. Raises InvalidInputError if no text has such a name.
    """
    linker = app.linker
    detect, names_in, meanings = linker.detector(kb), linker.names_in(kb), linker.meanings(kb)
    made: list[SpanRow] = []
    read = 0
    advance = progress("texts", limit)
    for name, text in _shuffled_texts(app, collection or kb, described=collection is None):
        read += 1
        row = distant_row(name, text, detect, names_in, meanings)
        if row is not None:
            made.append(row)
            advance()
        if len(made) == limit:
            break
    if not made:
        raise InvalidInputError(
            "no text has a mention that is certain", received=f"{read} texts",
            expected="names with capitals, or such as json.dump, that mean one entity",
        )  # fmt: skip
    return Distant(made, read)


def _shuffled_texts(app: App, collection: str, *, described: bool) -> Iterator[tuple[str, str]]:
    """(Id, text) of every passage in a random order with a fixed seed; of entities' descriptions if `described`."""
    reader = app.catalog.engine(collection).snapshot().reader
    rows = np.random.default_rng(0).permutation(reader.live_rows())
    for at in range(0, len(rows), _BLOCK):
        part = rows[at : at + _BLOCK]
        passages = reader.passages(part)
        for row in part.tolist():
            passage = passages.get(row)
            if passage is not None:
                yield (passage.doc_id, description_of(passage.text)) if described else (passage.id, passage.text)


def _with_entities(app: App, kb: str, rows: Sequence[SpanRow]) -> list[SpanRow]:
    """The rows with the descriptions of their entities; mentions of unknown entities move to `ignored`."""
    entities = _known(app, kb, {positive.id for row in rows for positive in row.positives})
    known = {name: Text(entity.description, entity.title, name) for name, entity in entities.items()}
    made = []
    for row in rows:
        places = [at for at, positive in enumerate(row.positives) if positive.id in known]
        kept = [(row.spans[at], known[row.positives[at].id]) for at in places]
        hard = tuple(row.hard[at] for at in places) if row.hard else ()
        spans = tuple(span for span, _ in kept)
        gone = tuple(span for span in row.spans if span not in spans)
        if kept:
            positives = tuple(text for _, text in kept)
            made.append(replace(row, spans=spans, positives=positives, ignored=(*row.ignored, *gone), hard=hard))
    return made


def _described(app: App, kb: str, ids: set[str]) -> Mapping[str, str]:
    return {name: f"{entity.title}. {entity.description}" for name, entity in _known(app, kb, ids).items()}


def _known(app: App, kb: str, ids: set[str]) -> dict[str, Entity]:
    found = {}
    for name in sorted(ids):
        try:
            found[name] = app.entities.get(kb, name)
        except NotFoundError:
            continue
    return found
