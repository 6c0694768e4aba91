"""Evaluate entity linking on judged mentions, and fit a knowledge base's link profile and name counts to them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.progress import Progress, silent
from hyblink.app.core.types.linking import LinkProfile, LinkRequest, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.evaluation.linking import measures as linking_measures
from hyblink.app.evaluation.linking.examples import (
    Example,
    ambiguous,
    example,
    marked_or_ordinary,
    retrieve_candidates,
    sample_indices,
)
from hyblink.app.evaluation.linking.labels import Labels
from hyblink.app.evaluation.linking.measures import Decision, Row
from hyblink.app.evaluation.linking.mentions import JudgedMention, counts_of, read_mentions, with_unmarked
from hyblink.app.evaluation.linking.span_measures import SpanFigures, best_joint, macro, micro
from hyblink.app.linking.disambiguation import SHIPPED
from hyblink.training.linking.profile import fit_profile
from hyblink.training.linking.spans import SpanRow, read_spans


@dataclass(frozen=True, slots=True)
class Judged:
    """Judged mentions whose labels were resolved to the knowledge base's entity ids.

    Labels without an entity count as NIL and are listed in `unknown`.
    """

    rows: list[JudgedMention]
    unknown: tuple[str, ...] = ()


def document_of(row: JudgedMention) -> str:
    """Return the id of the entity whose description a mention was taken from: the part of `row.id` before ':'."""
    return row.id.partition(":")[0]


def judged_mentions(app: App, kb: str, data: Path, limit: int | None = None) -> Judged:
    """Read judged mentions from a file and resolve their labels to entities.

    `limit` is the largest number of mentions, sampled with a fixed seed.
    """
    rows = read_mentions(data)
    if limit and limit < len(rows):
        rows = [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), limit))]
    found = Labels(app.linker, kb, app.catalog.engine(kb).snapshot().reader).resolve(rows)
    return Judged(found.rows, tuple(found.unknown))


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Options for retrieving the candidates of judged mentions."""

    candidates: int = 64
    cross: bool = False
    """Also score the candidates with the cross-encoder."""
    own_document: bool = False
    """Exclude the entity whose description a mention was taken from."""
    signals: tuple[Signal, ...] | None = None
    """The retrieval signals to use; None means all."""

    def left_out(self, row: JudgedMention) -> str | None:
        """Return the id of the entity to exclude from a mention's candidates, or None."""
        return document_of(row) if self.own_document else None


def examples_of(
    app: App,
    kb: str,
    rows: Sequence[JudgedMention],
    how: Retrieval,
    *,
    missing: float = 0.0,
    progress: Progress = silent,
) -> list[Example]:
    """Retrieve candidates for every row and return their features, one example a row.

    `missing` is the share of rows (0 to 1) whose correct entity is excluded, to serve as NIL examples. With
    `how.cross`, the features include the cross-encoder's scores.
    """
    reader = None
    model: Any = app.encoders.entity_cross() if how.cross else None
    if model is not None:
        model.load()
    found = []
    advance = progress("mentions", len(rows))
    without = sample_indices(len(rows), missing)
    for row, item in retrieve_candidates(
        app.linker, kb, rows, how.candidates, how.left_out, signals=how.signals, missing=without
    ):
        if reader is None:
            reader = app.catalog.engine(kb).snapshot().reader
        ids = reader.doc_ids(item.candidates.keys) if len(item.candidates) else []
        scores = None
        if model is not None and len(item.candidates):
            scores = app.linker.cross_scores(kb, model, item, time.perf_counter() + 600)
        found.append(example(row, item, ids, None if scores is None else np.asarray(scores, dtype=np.float64)))
        advance()
    return found


@dataclass(frozen=True, slots=True)
class MentionEvaluation:
    """Recall and accuracy of each system on given mentions, and the decisions at the link profile's thresholds.

    `mentions` were evaluated, of `judged` that were read. `profile` is the link profile's version.
    """

    mentions: int
    profile: int
    systems: tuple[Row, ...]
    decisions: dict[str, Decision]
    unknown: tuple[str, ...]
    judged: int


def evaluate_mentions(
    app: App,
    kb: str,
    data: Path,
    how: Retrieval,
    *,
    limit: int | None = None,
    only_ambiguous: bool = False,
    progress: Progress = silent,
) -> MentionEvaluation:
    """Measure recall@k and accuracy on given mentions: each signal alone, fused, and decided by the link profile.

    The decisions also get NIL measures and the expected calibration error (ECE). `only_ambiguous` keeps the mentions
    whose text is a name of several candidates. Raises InvalidInputError.
    """
    if only_ambiguous and how.signals is not None and Signal.PRIOR not in how.signals:
        raise InvalidInputError(
            "names are not looked up", received=f"signals {', '.join(how.signals)}", expected="prior among them"
        )
    judged = judged_mentions(app, kb, data, limit)
    profile = app.catalog.link_profile(kb) or SHIPPED
    examples = examples_of(app, kb, judged.rows, how, progress=progress)
    if only_ambiguous:
        examples = [example for example in examples if ambiguous(example)]
    orders: dict[str, Callable[[Example], int | None]] = {
        signal.value: linking_measures.leg_rank(signal)
        for signal in (Signal.BM25, Signal.VDR, Signal.PRIOR, Signal.DENSE)
    }
    orders["fused"] = linking_measures.fused_rank
    orders["decided"] = linking_measures.decided_rank(profile.fast)
    decisions = {"decided": linking_measures.decision(examples, profile.fast, profile.fast_threshold)}
    if how.cross:
        orders["decided+cross"] = linking_measures.decided_rank(profile.cross)
        decisions["decided+cross"] = linking_measures.decision(examples, profile.cross, profile.cross_threshold)
    systems = tuple(linking_measures.evaluate(name, examples, order) for name, order in orders.items())
    return MentionEvaluation(len(examples), profile.version, systems, decisions, judged.unknown, len(judged.rows))


def fit(
    app: App,
    kb: str,
    data: Path,
    how: Retrieval,
    *,
    missing: float = 0.33,
    rate: float = 0.05,
    limit: int | None = None,
    whole_texts: bool = False,
    folds: int = 0,
    save: bool = True,
    progress: Progress = silent,
) -> tuple[LinkProfile, Judged]:
    """Fit a link profile to judged mentions: utility coefficients, probability calibration and thresholds.

    `missing` is the share of mentions whose entity is excluded, as NIL examples. `rate` is the largest allowed share
    of false links. `whole_texts` adds the names in the texts that nobody marked. With `save`, the profile is stored.
    """
    judged = judged_mentions(app, kb, data, limit)
    rows = with_unmarked(judged.rows, app.linker.detector(kb)) if whole_texts else judged.rows
    examples = examples_of(app, kb, rows, how, missing=missing, progress=progress)
    examples = [example for example in examples if marked_or_ordinary(example)]
    record = app.catalog.engine(kb).record
    encoder = app.encoders.mention(record).id if record.dense_dimension else ""
    known = app.catalog.link_profile(kb)
    profile = fit_profile(
        examples, known, cross=how.cross, missing=missing, rate=rate, mention_encoder=encoder, folds=folds
    )
    return (app.catalog.save_link_profile(kb, profile) if save else profile), judged


@dataclass(frozen=True, slots=True)
class Counted:
    """The outcome of `count_names`: distinct names, counted mentions, and the version of the saved link profile."""

    names: int
    mentions: float
    profile: int
    unknown: tuple[str, ...]
    judged: int


def count_names(app: App, kb: str, data: Path) -> Counted:
    """Count how often each name was judged to mean each entity, and store the counts.

    The prior P(entity | name) is computed from them. Replaces earlier counts.
    """
    judged = judged_mentions(app, kb, data)
    found = counts_of(judged.rows)
    saved = app.catalog.save_link_profile(kb, app.catalog.link_profile(kb) or SHIPPED, found)
    mentions = sum(sum(own.values()) for own in found.names.values())
    return Counted(len(found.names), mentions, saved.version, judged.unknown, len(judged.rows))


@dataclass(frozen=True, slots=True)
class TextEvaluation:
    """Precision, recall and F1 of mentions and of links, with spans that are equal (strong) or overlap (weak)."""

    texts: int
    mentions: int
    in_kb: int
    joint: float | None
    figures: dict[str, tuple[SpanFigures, float]]
    """(Micro figures, macro F1) by what is measured, such as `links strong`."""
    unknown: tuple[str, ...] = ()
    labels: int = 0


@dataclass(frozen=True, slots=True)
class TextLinking:
    """Options for linking whole texts in an evaluation.

    `joint` is the least joint probability of a link; 0 searches the value with the best F1, None does not use it.
    """

    detectors: tuple[str, ...] = ("dictionary",)
    threshold: float | None = None
    own_document: bool = False
    cross: bool = False
    joint: float | None = None


@dataclass(slots=True)
class _Found:
    links: list[list[Any]] = field(default_factory=list)
    gold: list[set[tuple[int, int, str]]] = field(default_factory=list)


def evaluate_texts(
    app: App, kb: str, data: Path, how: TextLinking, *, limit: int | None = None, progress: Progress = silent
) -> TextEvaluation:
    """Evaluate mention detection and linking end to end, on texts in which all mentions are judged.

    Links at spans that a text lists as `ignored` are not counted. `limit` takes the first texts.
    """
    rows = read_spans(data)[:limit]
    given = {(positive.id, "", "") for row in rows for positive in row.positives}
    labels = Labels(app.linker, kb, app.catalog.engine(kb).snapshot().reader).ids(given)
    ids = {label: entity for (label, _, _), entity in labels.items()}
    unknown = tuple(sorted(label for label, entity in ids.items() if label and not entity))
    found = _linked(app, kb, rows, ids, how, progress)
    marked = [{(a, b, "") for a, b, _ in own} for own in found.gold]
    gold = [{item for item in own if item[2]} for own in found.gold]  # mentions without an entity in the kb are NIL
    least = how.joint or 0.0
    if how.joint == 0.0:
        scored = [
            [(o.mention.start, o.mention.end, o.entity_id, o.joint or 0.0) for o in own if o.entity_id is not None]
            for own in found.links
        ]
        least, _ = best_joint(scored, gold)
    kept = [[o for o in own if how.joint is None or (o.joint or 0.0) >= least] for own in found.links]
    spans = [{(o.mention.start, o.mention.end, "") for o in own} for own in kept]
    linked = [{(o.mention.start, o.mention.end, o.entity_id) for o in own if o.entity_id is not None} for own in kept]
    figures = {
        f"{what} {'weak' if weak else 'strong'}": (micro(item, other, weak=weak), macro(item, other, weak=weak))
        for what, item, other in (("mentions", spans, marked), ("links", linked, gold))
        for weak in (False, True)
    }
    return TextEvaluation(
        len(rows),
        sum(map(len, marked)),
        sum(map(len, gold)),
        least if how.joint is not None else None,
        figures,
        unknown,
        len(ids.keys() - {""}),
    )


def _linked(
    app: App, kb: str, rows: Sequence[SpanRow], ids: dict[str, str], how: TextLinking, progress: Progress
) -> _Found:
    found = _Found()
    advance = progress("texts", len(rows))
    for row in rows:
        text = Text(row.query, None, (row.id,) if how.own_document else ())
        request = LinkRequest(
            (text,), detectors=how.detectors, threshold=how.threshold, rerank=how.cross, shown=1,
            budget_ms=600_000.0, joint=how.joint,
        )  # fmt: skip
        known = set(row.ignored) - set(row.spans)
        links = app.linker.link(kb, request).texts[0].links
        found.links.append([o for o in links if (o.mention.start, o.mention.end) not in known])
        found.gold.append({(a, b, ids[positive.id]) for (a, b), positive in zip(row.spans, row.positives, strict=True)})
        advance()
    return found
