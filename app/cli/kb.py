"""`hyblink kb …` and `hyblink link`: knowledge bases, and linking texts to them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyblink.app.cli.console import emit, note, opened, progress, reported, say
from hyblink.app.operations.annotation import annotate as annotate_collection
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.query_entities import with_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hyblink.app.application import App
    from hyblink.app.core.types.linking import Entity, LinkResult
    from hyblink.app.core.types.ranking import Signal
    from hyblink.app.evaluation.linking.candidate_files import Proposed
    from hyblink.app.evaluation.linking.examples import Example
    from hyblink.app.evaluation.linking.mentions import JudgedMention
    from hyblink.training.data.rows import TrainingRow
    from hyblink.training.linking.spans import SpanRow

kb_cli = typer.Typer(help="Knowledge bases for entity linking.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KbOption = Annotated[str, typer.Option("--kb", "-k", help="The knowledge base: a collection of entities.")]
SignalsOption = Annotated[str | None, typer.Option(help="Only these: bm25, vdr, dense, prior; joined by commas.")]
_BATCH = 2000
_LINKED_AT_ONCE = 256


@kb_cli.command("load")
def load(
    path: Annotated[
        Path | None,
        typer.Argument(help="Entities: .jsonl, .csv, .tsv, .json, .xml.bz2, .index …; see docs/linking.md."),
    ] = None,
    python_package: Annotated[
        str | None, typer.Option(help="The API of an installed Python package; `python` is the standard library.")
    ] = None,
    kb: KbOption = "entities",
    no_aliases: Annotated[bool, typer.Option("--no-aliases", help="Leave the aliases out.")] = False,
    analyzer: Annotated[str, typer.Option(help="english or standard (a new knowledge base only).")] = "english",
    dense_index: Annotated[str, typer.Option(help="As for `ingest` (a new knowledge base only).")] = "auto",
    lang: Annotated[str, typer.Option(help="The language of Wikidata's labels.")] = "en",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is encoded.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Add entities to a knowledge base. Those that are there already under their ids are changed."""
    with reported(as_json), opened() as app:
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.indexer.readers.entities.files import python_entities, read_entities

        if (path is None) == (python_package is None):
            raise InvalidInputError("nothing to load", expected="either a path or --python-package NAME")
        rows = read_entities(path, lang) if path is not None else python_entities(str(python_package))
        report = load_entities(
            app, kb, rows, no_aliases=no_aliases, analyzer=analyzer, dense_index=dense_index, wait=wait, quiet=as_json
        )
        if as_json:
            emit(report)
            return
        say(
            f"{report['entities']} entities ({report['created']} new, {report['updated']} changed, "
            f"{report['rejected']} rejected) in {report['seconds']:.1f} s; {report['encoded']} encoded"
            + (f"; {report['skipped']} without a label left out" if report["skipped"] else "")
        )
        for line in report["rejects"]:
            note(f"rejected {line}")


def load_entities(
    app: App,
    kb: str,
    rows: Iterator[object],
    *,
    no_aliases: bool = False,
    analyzer: str = "english",
    dense_index: str = "auto",
    wait: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Load rows into a knowledge base, made if there is none; a report as plain data."""
    import time
    from itertools import islice

    from hyblink.app.linking.knowledge_base import entity_spec

    app.entities.check(ensure_collection(app, entity_spec(kb, analyzer=analyzer, dense_index=dense_index)))
    counted = {"created": 0, "updated": 0, "unchanged": 0, "rejected": 0}
    rejects: list[str] = []
    started = time.perf_counter()
    with progress(quiet) as bars:
        task = bars.add_task("entities", total=None, rate="")
        skipped = 0
        while some := list(islice(rows, min(_BATCH, app.settings.api.max_bulk_documents))):
            batch = [row for row in some if row is not None]
            skipped += len(some) - len(batch)
            if no_aliases:
                batch = [{**row, "aliases": []} if isinstance(row, dict) else row for row in batch]
            result = app.entities.bulk(kb, batch, encode=False)
            for item in result.items:
                counted[item.status] += 1
                if item.status == "rejected" and len(rejects) < 20:
                    rejects.append(f"{item.id}: {item.message}")
            bars.advance(task, len(batch))
        seconds = time.perf_counter() - started
        encoded = 0
        if wait:
            counts = app.catalog.engine(kb).store.reader().counts()
            encoding = bars.add_task("encoding", total=counts.passages - counts.encoded, rate="")
            encoded = encode_now(app, kb, progress=lambda done: bars.advance(encoding, done))
        else:
            record = app.catalog.engine(kb).record
            if record.dense_dimension:
                app.jobs.encode(kb, record.id, app.catalog.engine(kb).store.reader().unencoded(1).tolist())
    return {
        "kb": kb,
        "entities": sum(counted.values()),
        **counted,
        "skipped": skipped,
        "encoded": encoded,
        "seconds": seconds,
        "rejects": rejects,
    }


@kb_cli.command("show")
def show(entity_id: Annotated[str, typer.Argument(help="The entity's id.")], kb: KbOption = "entities") -> None:
    """Show an entity as JSON."""
    with reported(True), opened() as app:
        from dataclasses import asdict

        emit(asdict(app.entities.get(kb, entity_id)))


@kb_cli.command("remove")
def remove(
    entity_ids: Annotated[list[str], typer.Argument(help="Ids of entities.")],
    kb: KbOption = "entities",
    as_json: JsonOption = False,
) -> None:
    """Remove entities from every generation: they are never linked again, after a roll-back neither."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        result = app.entities.remove(kb, entity_ids)
        if as_json:
            emit([asdict(item) for item in result.items])
        else:
            for item in result.items:
                say(f"{item.id}: {item.status}")
        if any(item.status == "not_found" for item in result.items):
            raise typer.Exit(2)


@kb_cli.command("export-vectors")
def export_vectors(
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    kb: KbOption = "entities",
    as_json: JsonOption = False,
) -> None:
    """Write every entity's dense vector: what a mention encoder is trained against."""
    with reported(as_json), opened() as app:
        from hyblink.training.linking.vectors import write_vectors

        count = write_vectors(app.catalog.engine(kb), out)
        emit({"entities": count, "path": str(out)}) if as_json else say(f"{out}: {count} vectors")


@kb_cli.command("mine")
def mine(
    data: Annotated[Path, typer.Argument(help="Judged mentions: .jsonl[.gz] in BLINK's form.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl of training rows to write.")],
    kb: KbOption = "entities",
    keep: Annotated[int, typer.Option(min=1, help="Negatives of a mention: its best wrong candidates.")] = 16,
    tokens: Annotated[int, typer.Option(min=16, help="Tokens of the mention with its context.")] = 96,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many mentions, drawn at random.")] = None,
    own_document: Annotated[
        bool, typer.Option("--own-document", help="Leave out the entity whose id a row's id begins with, up to ':'.")
    ] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Keep what is decided without a cross-encoder, for it to learn beside.")
    ] = False,
    proposed: Annotated[
        Path | None, typer.Option("--candidates", help="A file of `kb candidates` or `kb merge` to take them from.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mine training rows for `blink_bi` and `blink_cross`: a marked mention, its entity, and wrong candidates."""
    with reported(as_json), opened() as app:
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.evaluation.linking.candidate_files import read_candidates
        from hyblink.app.linking.disambiguation import SHIPPED
        from hyblink.training.linking.mine import rows_of_candidates, training_rows

        _new(out)
        if scores and proposed is not None:
            raise InvalidInputError(
                "a file of candidates does not say what is decided", received="--scores --candidates", expected="one"
            )
        rows = _rows(app, kb, data, limit)
        own: Callable[[JudgedMention], str | None] = _own if own_document else (lambda _: None)
        tokenizer = app.encoders.mention_tokenizer()
        if proposed is not None:
            known = {one.id: one.candidates for one in read_candidates(proposed)}
            made = rows_of_candidates(
                app.catalog.engine(kb), rows, known, keep=keep, tokens=tokens, tokenizer=tokenizer, own_document=own
            )
            _wrote(out, len(rows), made, as_json)
            return
        with progress(as_json) as bars:
            task = bars.add_task("mentions", total=len(rows), rate="")
            made = training_rows(
                app.linker,
                app.catalog.engine(kb),
                kb,
                rows,
                keep=keep,
                tokens=tokens,
                tokenizer=tokenizer,
                own_document=own,
                utility=(app.catalog.link_profile(kb) or SHIPPED).fast if scores else None,
                progress=lambda n: bars.advance(task, n),
            )
        _wrote(out, len(rows), made, as_json)


def _new(out: Path) -> None:
    from hyblink.app.core.errors import ConflictError

    if out.exists():
        raise ConflictError("the file exists already", received=str(out), expected="a new file")


def _wrote(out: Path, mentions: int, made: Sequence[TrainingRow], as_json: bool) -> None:
    from hyblink.app.core.errors import InvalidInputError
    from hyblink.training.data.rows import write_jsonl

    if not made:
        raise InvalidInputError("no mention means an entity of the knowledge base", received=f"{mentions} mentions")
    write_jsonl(out, made)
    report = {"mentions": mentions, "rows": len(made), "gold_missing": mentions - len(made)}
    emit(report) if as_json else say(f"{out}: {len(made)} rows of {mentions} mentions")


@kb_cli.command("candidates")
def candidates_of(
    data: Annotated[Path, typer.Argument(help="Judged mentions: .jsonl[.gz] in BLINK's form.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl of candidates to write.")],
    kb: KbOption = "entities",
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of a mention.")] = 64,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many mentions, drawn at random.")] = None,
    own_document: Annotated[
        bool, typer.Option("--own-document", help="Leave out the entity whose id a row's id begins with, up to ':'.")
    ] = False,
    signals: SignalsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the candidates of each mention, best first by the fused score: one file for a split."""
    with reported(as_json), opened() as app:
        from hyblink.app.evaluation.linking.candidate_files import Proposed, write_candidates
        from hyblink.app.evaluation.linking.examples import retrieved

        _new(out)
        rows = _rows(app, kb, data, limit)
        own: Callable[[JudgedMention], str | None] = _own if own_document else (lambda _: None)
        made = []
        with progress(as_json) as bars:
            task = bars.add_task("mentions", total=len(rows), rate="")
            reader = app.catalog.engine(kb).snapshot().reader
            for row, one in retrieved(app.linker, kb, rows, candidates, own, signals=_signals(signals)):
                ids = reader.doc_ids(one.candidates.keys) if len(one.candidates) else []
                made.append(Proposed(row.id, row.entity_id, tuple(ids), row.world))
                bars.advance(task)
        write_candidates(out, made)
        _recalls(out, made, as_json)


@kb_cli.command("merge")
def merge(
    files: Annotated[list[Path], typer.Argument(help="Files of `kb candidates`, of several splits or several runs.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl of candidates to write.")],
    keep: Annotated[int, typer.Option(min=1, help="Candidates of a mention.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Merge files of candidates: of a mention in several, their union by reciprocal ranks."""
    with reported(as_json):
        from hyblink.app.evaluation.linking.candidate_files import merged, read_candidates, write_candidates

        _new(out)
        made = merged([read_candidates(path) for path in files], keep)
        write_candidates(out, made)
        _recalls(out, made, as_json)


def _recalls(out: Path, made: Sequence[Proposed], as_json: bool) -> None:
    from hyblink.app.evaluation.linking.candidate_files import recalls

    found = {world: {str(k): value for k, value in own.items()} for world, own in recalls(made).items()}
    overall = found.pop("", {})
    if as_json:
        emit({"mentions": len(made), "recall": overall, "worlds": found})
        return
    say(f"{out}: {len(made)} mentions; " + ", ".join(f"R@{k} {value:.3f}" for k, value in overall.items()))


@kb_cli.command("convert")
def convert(
    path: Annotated[Path, typer.Argument(help="The file, or Zeshel's folder.")],
    form: Annotated[str, typer.Option("--format", help="aida, nif, elq, marked or zeshel.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl of judged mentions to write.")],
    split: Annotated[
        str,
        typer.Option(
            help="Which of the splits that Zeshel's folder and AIDA's file hold; AIDA's: train, testa, testb."
        ),
    ] = "train",
    as_json: JsonOption = False,
) -> None:
    """Judged mentions from the common files of entity linking, in BLINK's form."""
    with reported(as_json):
        from hyblink.app.core.errors import InvalidInputError, NotFoundError
        from hyblink.app.evaluation.linking.converters import CONVERTERS, zeshel
        from hyblink.app.evaluation.linking.mentions import write_mentions

        _new(out)
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
        write_mentions(out, rows)
        nil = sum(not row.entity_id for row in rows)
        emit({"mentions": len(rows), "nil": nil}) if as_json else say(f"{out}: {len(rows)} mentions, {nil} of them NIL")


@kb_cli.command("spans")
def spans(
    data: Annotated[Path, typer.Argument(help="Judged mentions: .jsonl[.gz] in BLINK's form.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl of texts with all their mentions to write.")],
    kb: KbOption = "entities",
    in_context: Annotated[
        bool, typer.Option("--in-context", help="A text is a mention's own context; equal ones are joined.")
    ] = False,
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Write what the entities are too (train_entities).")
    ] = False,
    hard: Annotated[
        int, typer.Option(min=0, help="Wrong candidates of each mention to mine, for `elq` to learn from.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Texts with all their mentions, for `elq`: mentions cut from entities' own descriptions, joined by entity.

    A row's id is the entity's, ':' and anything. Names of the knowledge base that nobody marked are to be ignored.
    """
    with reported(as_json), opened() as app:
        from hyblink.training.linking.spans import context_rows, joined_rows, write_spans

        _new(out)
        rows = _rows(app, kb, data, None)
        names = app.linker.names_in(kb)
        mined = _wrong_candidates(app, kb, rows, hard, in_context=in_context, quiet=as_json) if hard else {}

        def hard_of(row: JudgedMention) -> Sequence[str]:
            return mined.get(row.digest, ())

        if in_context:
            made = context_rows(rows, names, hard_of)
        else:
            made = joined_rows(rows, _own, _described(app, kb, {_own(row) for row in rows}), names, hard_of)
        if descriptions:
            made = _with_entities(app, kb, made)
        write_spans(out, made)
        marked = sum(len(row.spans) for row in made)
        report = {"texts": len(made), "mentions": marked, "of": len(rows)}
        emit(report) if as_json else say(f"{out}: {len(made)} texts, {marked} of {len(rows)} mentions")


def _wrong_candidates(
    app: App, kb: str, rows: Sequence[JudgedMention], count: int, *, in_context: bool, quiet: bool
) -> dict[int, tuple[str, ...]]:
    """The best wrong candidates of each mention, by the mention's digest."""
    from hyblink.app.evaluation.linking.examples import retrieved

    found = {}
    reader = app.catalog.engine(kb).snapshot().reader
    with progress(quiet) as bars:
        task = bars.add_task("candidates", total=len(rows), rate="")
        own: Callable[[JudgedMention], str | None] = (lambda _: None) if in_context else _own
        for row, one in retrieved(app.linker, kb, rows, count + 1, own):
            ids = reader.doc_ids(one.candidates.keys) if len(one.candidates) else []
            found[row.digest] = tuple(name for name in ids if name != row.entity_id)[:count]
            bars.advance(task)
    return found


@kb_cli.command("distant")
def distant(
    out: Annotated[Path, typer.Option("--out", help="The .jsonl of texts with their mentions to write.")],
    kb: KbOption = "entities",
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Whose passages are the texts; else the descriptions.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many texts, drawn at random.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Texts with mentions that nobody judged, for `elq`: proper names that mean one entity only (distant supervision).

    What else may be a name is left out of the loss. So a span head learns from your documents as they are.
    """
    with reported(as_json), opened() as app:
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.training.linking.distant import distant_row
        from hyblink.training.linking.spans import write_spans

        _new(out)
        linker = app.linker
        detect, names_in, meanings = linker.detector(kb), linker.names_in(kb), linker.meanings(kb)
        made: list[SpanRow] = []
        read = 0
        with progress(as_json) as bars:
            task = bars.add_task("texts", total=limit, rate="")
            for name, text in _shuffled_texts(app, collection or kb, described=collection is None):
                read += 1
                row = distant_row(name, text, detect, names_in, meanings)
                if row is not None:
                    made.append(row)
                    bars.advance(task)
                if len(made) == limit:
                    break
        if not made:
            raise InvalidInputError(
                "no text has a mention that is certain", received=f"{read} texts",
                expected="names with capitals, or such as json.dump, that mean one entity",
            )  # fmt: skip
        write_spans(out, made)
        marked = sum(len(row.spans) for row in made)
        if as_json:
            emit({"texts": len(made), "mentions": marked, "of": read})
        else:
            say(f"{out}: {marked} mentions in {len(made)} of {read} texts")


def _shuffled_texts(app: App, collection: str, *, described: bool) -> Iterator[tuple[str, str]]:
    """Passages' ids and texts in an order drawn at random, always the same; of entities their ids and descriptions."""
    import numpy as np

    from hyblink.app.linking.knowledge_base import description_of

    reader = app.catalog.engine(collection).snapshot().reader
    rows = np.random.default_rng(0).permutation(reader.live_rows())
    for at in range(0, len(rows), 1000):
        part = rows[at : at + 1000]
        passages = reader.passages(part)
        for row in part.tolist():
            one = passages.get(row)
            if one is not None:
                yield (one.doc_id, description_of(one.text)) if described else (one.id, one.text)


def _with_entities(app: App, kb: str, rows: Sequence[SpanRow]) -> list[SpanRow]:
    """The rows with what their entities are; mentions of what the knowledge base has not are to be ignored."""
    from dataclasses import replace

    from hyblink.training.data.rows import Text

    entities = _known(app, kb, {one.id for row in rows for one in row.positives})
    known = {one: Text(entity.description, entity.title, one) for one, entity in entities.items()}
    made = []
    for row in rows:
        places = [at for at, one in enumerate(row.positives) if one.id in known]
        kept = [(row.spans[at], known[row.positives[at].id]) for at in places]
        hard = tuple(row.hard[at] for at in places) if row.hard else ()
        spans = tuple(span for span, _ in kept)
        gone = tuple(span for span in row.spans if span not in spans)
        if kept:
            positives = tuple(text for _, text in kept)
            made.append(replace(row, spans=spans, positives=positives, ignored=(*row.ignored, *gone), hard=hard))
    return made


def _described(app: App, kb: str, ids: set[str]) -> dict[str, str]:
    return {one: f"{entity.title}. {entity.description}" for one, entity in _known(app, kb, ids).items()}


def _known(app: App, kb: str, ids: set[str]) -> dict[str, Entity]:
    from hyblink.app.core.errors import NotFoundError

    found = {}
    for one in sorted(ids):
        try:
            found[one] = app.entities.get(kb, one)
        except NotFoundError:
            continue
    return found


@kb_cli.command("evaluate-texts")
def evaluate_texts(
    data: Annotated[Path, typer.Argument(help="Texts with all their mentions, from `hyblink kb spans`.")],
    kb: KbOption = "entities",
    detectors: Annotated[str, typer.Option(help="dictionary, elq, spacy:PIPELINE; joined by commas.")] = "dictionary",
    threshold: Annotated[float | None, typer.Option(help="Links below this probability become NIL.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many texts.")] = None,
    own_document: Annotated[
        bool, typer.Option("--own-document", help="Leave out the entity whose id is the text's.")
    ] = False,
    cross: Annotated[bool, typer.Option("--cross", help="Let the cross-encoder read the best candidates.")] = False,
    joint: Annotated[
        float | None, typer.Option(help="Decide spans and links jointly: least joint probability; 0 searches the best.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """End to end: precision, recall and F1 of mentions and of links, spans equal (strong) or overlapping (weak).

    Names that nobody marked (`ignore`) count neither for nor against: only marked mentions are known to be right or wrong.
    """
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.core.types.linking import LinkRequest, Text
        from hyblink.app.evaluation.linking.span_measures import best_joint, macro, micro
        from hyblink.training.linking.spans import read_spans

        rows = read_spans(data)[:limit]
        ids = _labels(app, kb, rows)
        found, gold = [], []
        with progress(as_json) as bars:
            task = bars.add_task("texts", total=len(rows), rate="")
            for row in rows:
                text = Text(row.query, None, (row.id,) if own_document else ())
                request = LinkRequest(
                    (text,), detectors=tuple(detectors.split(",")), threshold=threshold, rerank=cross, shown=1,
                    budget_ms=600_000.0, joint=joint,
                )  # fmt: skip
                known = set(row.ignored) - set(row.spans)
                links = [
                    one for one in app.linker.link(kb, request).texts[0].links
                    if (one.mention.start, one.mention.end) not in known
                ]  # fmt: skip
                found.append(links)
                gold.append({(a, b, ids[one.id]) for (a, b), one in zip(row.spans, row.positives, strict=True)})
                bars.advance(task)
        marked = [{(a, b, "") for a, b, _ in own} for own in gold]
        gold = [{one for one in own if one[2]} for own in gold]  # what means no entity of the knowledge base is NIL
        least = joint or 0.0
        if joint == 0.0:
            scored = [
                [(o.mention.start, o.mention.end, o.entity_id, o.joint or 0.0) for o in own if o.entity_id is not None]
                for own in found
            ]
            least, _ = best_joint(scored, gold)
        kept = [[one for one in own if joint is None or (one.joint or 0.0) >= least] for own in found]
        spans = [{(o.mention.start, o.mention.end, "") for o in own} for own in kept]
        linked = [
            {(o.mention.start, o.mention.end, o.entity_id) for o in own if o.entity_id is not None} for own in kept
        ]
        figures = {
            f"{what} {'weak' if weak else 'strong'}": {
                **asdict(micro(one, other, weak=weak)),
                "macro_f1": macro(one, other, weak=weak),
            }
            for what, one, other in (("mentions", spans, marked), ("links", linked, gold))
            for weak in (False, True)
        }
        if as_json:
            counts = {"texts": len(rows), "mentions": sum(map(len, marked)), "in_kb": sum(map(len, gold))}
            emit({**counts, "joint": least if joint is not None else None, "figures": figures})
            return
        say(f"{len(rows)} texts, {sum(map(len, marked))} mentions, {sum(map(len, gold))} of them of the knowledge base")
        if joint is not None:
            say(f"joint probability of at least {least:.4f}")
        for name, values in figures.items():
            say(f"{name:<16}" + "  ".join(f"{key} {value:.4f}" for key, value in values.items()))


def _labels(app: App, kb: str, rows: Sequence[SpanRow]) -> dict[str, str]:
    """The entities that the labels of texts mean, "" for NIL. Raises InvalidInputError where they mean none at all."""
    from hyblink.app.evaluation.linking.labels import Labels

    given = {(one.id, "", "") for row in rows for one in row.positives}
    found = Labels(app.linker, kb, app.catalog.engine(kb).snapshot().reader).ids(given)
    ids = {label: entity for (label, _, _), entity in found.items()}
    _say_unknown(kb, sorted(label for label, entity in ids.items() if label and not entity), len(ids.keys() - {""}))
    return ids


def _say_unknown(kb: str, unknown: Sequence[str], count: int) -> None:
    if unknown:
        few = ", ".join(list(dict.fromkeys(unknown))[:3])
        note(f"{len(unknown)} of {count} labels are not in {kb!r} and taken for NIL, such as {few}")


def _signals(names: str | None) -> tuple[Signal, ...] | None:
    from hyblink.app.core.errors import InvalidInputError
    from hyblink.app.core.types.linking import LINK_SIGNALS
    from hyblink.app.core.types.ranking import Signal

    known = {one.value for one in LINK_SIGNALS}
    if names is not None and not set(names.split(",")) <= known:
        raise InvalidInputError("bad signals", received=names, expected=f"some of {', '.join(sorted(known))}")
    return None if names is None else tuple(Signal(one) for one in names.split(","))


def _own(row: JudgedMention) -> str:
    return row.id.partition(":")[0]


def _rows(app: App, kb: str, data: Path, limit: int | None) -> list[JudgedMention]:
    """Judged mentions by the knowledge base's own ids; says how many labels it has no entity for."""
    import random

    from hyblink.app.evaluation.linking.labels import Labels
    from hyblink.app.evaluation.linking.mentions import read_mentions

    rows = read_mentions(data)
    if limit and limit < len(rows):
        rows = [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), limit))]
    found = Labels(app.linker, kb, app.catalog.engine(kb).snapshot().reader).resolve(rows)
    _say_unknown(kb, found.unknown, len(rows))
    return found.rows


def _examples(
    app: App,
    kb: str,
    rows: Sequence[JudgedMention],
    *,
    candidates: int,
    cross: bool,
    own_document: bool,
    quiet: bool,
    signals: str | None = None,
    missing: float = 0.0,
) -> list[Example]:
    """Features of every row, with the cross-encoder's scores where asked; a share without their right entity."""
    import time

    import numpy as np

    from hyblink.app.evaluation.linking.examples import drawn, example, retrieved

    reader = None
    model: Any = app.encoders.entity_cross() if cross else None
    if model is not None:
        model.load()
    found = []
    own: Callable[[JudgedMention], str | None] = _own if own_document else (lambda _: None)
    with progress(quiet) as bars:
        task = bars.add_task("mentions", total=len(rows), rate="")
        without = drawn(len(rows), missing)
        for row, one in retrieved(app.linker, kb, rows, candidates, own, signals=_signals(signals), missing=without):
            if reader is None:
                reader = app.catalog.engine(kb).snapshot().reader
            ids = reader.doc_ids(one.candidates.keys) if len(one.candidates) else []
            scores = None
            if model is not None and len(one.candidates):
                scores = app.linker.cross_scores(kb, model, one, time.perf_counter() + 600)
            made = example(row, one, ids, None if scores is None else np.asarray(scores, dtype=np.float64))
            found.append(made)
            bars.advance(task)
    return found


@kb_cli.command("count")
def count(
    data: Annotated[Path, typer.Argument(help="Judged mentions: .jsonl[.gz] in BLINK's form.")],
    kb: KbOption = "entities",
    as_json: JsonOption = False,
) -> None:
    """Count what names were judged to mean: the prior then goes by it. Replaces what was counted before.

    Other commands take a judged mention that was counted as if it had not been, so one file may serve all of them.
    """
    with reported(as_json), opened() as app:
        from hyblink.app.evaluation.linking.mentions import counts_of
        from hyblink.app.linking.disambiguation import SHIPPED

        found = counts_of(_rows(app, kb, data, None))
        saved = app.catalog.save_link_profile(kb, app.catalog.link_profile(kb) or SHIPPED, found)
        report = {"names": len(found.names), "mentions": sum(sum(own.values()) for own in found.names.values())}
        emit({**report, "profile": saved.version}) if as_json else say(f"{report['names']} names counted")


@kb_cli.command("evaluate")
def evaluate(
    data: Annotated[Path, typer.Argument(help="Judged mentions: .jsonl[.gz] in BLINK's form.")],
    kb: KbOption = "entities",
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of a mention.")] = 64,
    cross: Annotated[bool, typer.Option("--cross", help="Let the cross-encoder read the best candidates.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many mentions, drawn at random.")] = None,
    own_document: Annotated[
        bool, typer.Option("--own-document", help="Leave out the entity whose id a row's id begins with, up to ':'.")
    ] = False,
    signals: SignalsOption = None,
    ambiguous: Annotated[
        bool, typer.Option("--ambiguous", help="Only mentions that are a name of several candidates.")
    ] = False,
    by_world: Annotated[
        bool, typer.Option("--worlds", help="Print each world's figures too (JSON always has them).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Recall@k and accuracy on given mentions: each signal alone, fused, and decided by the link profile; NIL; ECE.

    Overall and of each world; `macro` is the mean of the worlds' accuracies, each counting once.
    """
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.core.types.ranking import Signal
        from hyblink.app.evaluation.linking import measures as ev
        from hyblink.app.evaluation.linking.examples import ambiguous as of_several
        from hyblink.app.linking.disambiguation import SHIPPED

        if ambiguous and signals is not None and Signal.PRIOR not in (_signals(signals) or ()):
            raise InvalidInputError(
                "names are not looked up", received=f"--signals {signals}", expected="prior among them"
            )
        rows = _rows(app, kb, data, limit)
        profile = app.catalog.link_profile(kb) or SHIPPED
        examples = _examples(
            app, kb, rows, candidates=candidates, cross=cross, own_document=own_document, quiet=as_json, signals=signals
        )
        if ambiguous:
            examples = [one for one in examples if of_several(one)]
        systems: dict[str, Callable[[Example], int | None]] = {
            signal.value: ev.leg_rank(signal) for signal in (Signal.BM25, Signal.VDR, Signal.PRIOR, Signal.DENSE)
        }
        systems["fused"] = ev.fused_rank
        systems["decided"] = ev.decided_rank(profile.fast)
        if cross:
            systems["decided+cross"] = ev.decided_rank(profile.cross)
        results = [ev.evaluate(name, examples, order) for name, order in systems.items()]
        decisions = {"decided": ev.decision(examples, profile.fast, profile.fast_threshold)}
        if cross:
            decisions["decided+cross"] = ev.decision(examples, profile.cross, profile.cross_threshold)
        if as_json:
            known = {name: asdict(one) for name, one in decisions.items()}
            emit({"mentions": len(examples), "systems": [asdict(one) for one in results], "decisions": known})
            return
        say(f"{len(examples)} mentions, {candidates} candidates, profile {profile.version}")
        columns = "".join(f"{'R@' + str(k):>8}" for k in ev.CUTOFFS)
        say(f"{'system':<14}{columns}   95 % of R@1     norm. acc.   macro, norm.")
        for one in results:
            low, high = one.interval
            say(
                f"{one.system:<14}"
                + "".join(f"{one.recall[k]:>8.4f}" for k in ev.CUTOFFS)
                + f"   {low:.3f} … {high:.3f}   {one.normalised:.4f}"
                + f"       {one.macro_accuracy:.4f} {one.macro_normalised:.4f}"
            )
        for world in results[0].worlds if by_world else ():
            say(f"\n{world or 'no world'}: {results[0].worlds[world].mentions} mentions")
            for one in results:
                own = one.worlds[world]
                figures = "".join(f"{own.recall[k]:>8.4f}" for k in ev.CUTOFFS)
                say(f"{one.system:<14}{figures}   norm. acc. {own.normalised:.4f}")
        for name, made in decisions.items():
            say(
                f"{name} at {made.threshold:.3f}: {made.linked:.3f} linked, {made.false_links:.3f} of the links false; NIL "
                f"precision {made.nil_precision:.3f}, recall {made.nil_recall:.3f}; ECE {made.ece:.3f}"
            )


@kb_cli.command("fit")
def fit(
    data: Annotated[Path, typer.Argument(help="Judged mentions to fit on: .jsonl[.gz] in BLINK's form.")],
    kb: KbOption = "entities",
    cross: Annotated[bool, typer.Option("--cross", help="Fit the decision with the cross-encoder too.")] = False,
    missing: Annotated[float, typer.Option(min=0, max=0.9, help="Share whose entity is taken away for NIL.")] = 0.33,
    rate: Annotated[float, typer.Option(min=0.001, max=0.5, help="False links allowed, of all links made.")] = 0.05,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many mentions, drawn at random.")] = None,
    own_document: Annotated[
        bool, typer.Option("--own-document", help="Leave out the entity whose id a row's id begins with, up to ':'.")
    ] = False,
    whole_texts: Annotated[
        bool,
        typer.Option(
            "--whole-texts",
            help="Texts are marked throughout: ordinary words in them that only look like names are NIL.",
        ),
    ] = False,
    folds: Annotated[
        int, typer.Option(min=0, max=50, help="Cross-validate in so many folds, for few mentions; 0 cuts in thirds.")
    ] = 0,
    signals: SignalsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the profile, change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit how candidates become links: coefficients, calibrated probabilities, thresholds. Saved as the kb's profile."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.evaluation.linking.examples import marked_or_ordinary
        from hyblink.app.evaluation.linking.mentions import with_the_rest
        from hyblink.training.linking.profile import fit_profile

        rows = _rows(app, kb, data, limit)
        if whole_texts:
            rows = with_the_rest(rows, app.linker.detector(kb))
        examples = _examples(
            app, kb, rows, candidates=64, cross=cross, own_document=own_document, quiet=as_json, signals=signals,
            missing=missing,
        )  # fmt: skip
        examples = [one for one in examples if marked_or_ordinary(one)]
        record = app.catalog.engine(kb).record
        encoder = app.encoders.mention(record).id if record.dense_dimension else ""
        known = app.catalog.link_profile(kb)
        profile = fit_profile(
            examples, known, cross=cross, missing=missing, rate=rate, mention_encoder=encoder, folds=folds
        )
        if not dry_run:
            profile = app.catalog.save_link_profile(kb, profile)
        if as_json:
            emit(asdict(profile))
            return
        say(f"profile {profile.version}: {profile.origin}")
        for name, value in profile.figures.items():
            say(f"  {name}: {value:.4f}")


def link(
    path: Annotated[str | None, typer.Argument(help="A text file, or - for standard input.")] = None,
    kb: KbOption = "entities",
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Link each line that is typed.")] = False,
    mentions: Annotated[
        Path | None, typer.Option(help="A file of mentions in their contexts (BLINK's rows) to link instead of a text.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .jsonl to write the links of --mentions to.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Links below this probability become NIL.")] = None,
    detectors: Annotated[str | None, typer.Option(help="dictionary, elq, spacy:PIPELINE; joined by commas.")] = None,
    rerank: Annotated[bool | None, typer.Option("--cross/--no-cross", help="The cross-encoder.")] = None,
    coherence: Annotated[float | None, typer.Option(help="How much neighbouring mentions support each other.")] = None,
    joint: Annotated[
        float | None, typer.Option(help="Decide spans and links jointly: the least joint probability of a link.")
    ] = None,
    evidence: Annotated[
        str | None, typer.Option(help="A collection of annotated documents: what is found there for a text counts.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=0, help="Candidates to show.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Link the mentions of a text to entities of a knowledge base."""
    with reported(as_json), opened() as app:
        from dataclasses import replace

        from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError, UserError
        from hyblink.app.core.types.linking import LinkRequest, Text
        from hyblink.app.operations.query_entities import EVIDENT_HITS

        if (path is not None) + interactive + (mentions is not None) != 1:
            raise InvalidInputError(
                "one thing is to be linked", expected="a file, - for standard input, -i or --mentions"
            )
        if out is not None:
            _new(out)
        if app.settings.link.rerank if rerank is None else rerank:
            try:
                app.encoders.entity_cross().load()
            except EncoderUnavailableError as error:
                if rerank:
                    note(f"without the cross-encoder: {error}")

        def linked(*texts: Text) -> LinkResult:
            names = tuple(detectors.split(",")) if detectors else None
            request = LinkRequest(
                texts, shown=candidates, detectors=names, threshold=threshold, rerank=rerank,
                coherence=coherence, joint=joint,
            )  # fmt: skip
            if evidence is not None:
                request = replace(with_evidence(app, request, evidence, EVIDENT_HITS), evidence=2.0)
            return app.linker.link(kb, request)

        if mentions is not None:
            _link_mentions(mentions, linked, out, as_json)
            return
        if interactive:
            while (line := _asked()) is not None:
                try:
                    if line.strip():
                        _show(linked(Text(line)), as_json)
                except UserError as error:
                    note(f"error ({error.code}): {error}")
            return
        _show(linked(Text(_read(str(path), app.settings.link.max_text_chars))), as_json)


def _link_mentions(data: Path, linked: Callable[..., LinkResult], out: Path | None, as_json: bool) -> None:
    """Link a file of mentions: a line of JSON for each, into a file or printed, or a line of text."""
    import orjson

    from hyblink.app.evaluation.linking.mentions import read_mentions

    rows = read_mentions(data)
    made: list[bytes] = []
    with progress(as_json) as bars:
        task = bars.add_task("mentions", total=len(rows), rate="")
        for at in range(0, len(rows), _LINKED_AT_ONCE):
            part = rows[at : at + _LINKED_AT_ONCE]
            for row, text in zip(part, linked(*(one.text for one in part)).texts, strict=True):
                (found,) = text.links
                best = [{"id": one.entity_id, "probability": one.probability} for one in found.candidates]
                value = {"id": row.id, "mention": row.context.mention, "entity_id": found.entity_id,
                         "title": found.title, "probability": found.probability, "reason": found.reason,
                         "candidates": best}  # fmt: skip
                made.append(orjson.dumps(value))
                if out is None:
                    meaning = f"{found.entity_id} ({found.title})" if found.entity_id else "NIL"
                    say(
                        made[-1].decode()
                        if as_json
                        else f"{row.id} {row.context.mention!r} → {meaning}  p = {found.probability:.2f}"
                    )
            bars.advance(task, len(part))
    if out is not None:
        out.write_bytes(b"\n".join(made) + b"\n")
        nil = sum(b'"entity_id":null' in one for one in made)
        emit({"mentions": len(made), "nil": nil}) if as_json else say(f"{out}: {len(made)} mentions, {nil} of them NIL")


def annotate(
    collection: Annotated[str, typer.Option("--collection", "-c", help="The documents.")] = "default",
    kb: KbOption = "entities",
    threshold: Annotated[float | None, typer.Option(help="Least probability of a link.")] = None,
    always: Annotated[
        bool | None, typer.Option("--always/--no-more", help="Annotate documents as they come too, or no more.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep in every document's metadata (`linked_entities`) which entities it mentions: for facets, filters, boosts."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.core.types.collections import Annotation

        annotation = Annotation(kb, threshold)
        if always is not None:
            app.catalog.save_annotation(collection, annotation if always else None)
        if always is False:
            emit({"always": False}) if as_json else say("documents are no longer annotated as they come")
            return
        with progress(as_json) as bars:
            task = bars.add_task(
                "documents", total=app.catalog.engine(collection).store.reader().counts().documents, rate=""
            )
            done = annotate_collection(app, collection, annotation, progress=lambda n: bars.advance(task, n))
        if as_json:
            emit(asdict(done))
        else:
            say(f"{done.documents} documents, {done.links} links; {done.changed} changed, {done.skipped} too long")


def _read(path: str, limit: int) -> str:
    from hyblink.app.core.errors import InvalidInputError, NotFoundError

    try:
        raw = sys.stdin.buffer.read(4 * limit + 1) if path == "-" else Path(path).read_bytes()
        return raw.decode()
    except FileNotFoundError as error:
        raise NotFoundError("no such file", received=path) from error
    except OSError as error:
        raise InvalidInputError(f"cannot be read: {error.strerror}", received=path, expected="a text file") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8 at byte {error.start}", received=path, expected="UTF-8 text") from error


def _asked() -> str | None:
    """The next line as it was typed; None at the end of the input."""
    try:
        return input("text> ")
    except EOFError:
        return None


def _show(result: LinkResult, as_json: bool) -> None:
    if as_json:
        emit(result)
        return
    for text in result.texts:
        for one in text.links:
            meaning = f"{one.entity_id} ({one.title})" if one.entity_id else f"NIL ({one.reason.replace('_', ' ')})"
            mention = one.mention
            say(f"{mention.start}:{mention.end} {mention.text!r} → {meaning}  p = {one.probability:.2f}")
            for candidate in one.candidates:
                lines = " + ".join(f"{s.signal} {s.contribution:.2f}" for s in candidate.signals if s.contribution)
                say(
                    f"    {candidate.rank}. {candidate.title} [{candidate.entity_id}] {candidate.probability:.2f}: {lines}"
                )
    for part, why in result.missing.items():
        note(f"{part}: {why}")
