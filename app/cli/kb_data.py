"""`hyblink kb`: commands that make training data for entity linking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, new_file, note, opened, progress, reported
from hyblink.app.cli.knowledge_bases import kb_cli
from hyblink.app.cli.options import (
    JsonOption,
    JudgedMentions,
    KbOption,
    LinkSignalsOption,
    MentionsLimitOption,
    OwnDocumentOption,
)

if TYPE_CHECKING:
    from hyblink.app.core.types.ranking import Signal
    from hyblink.app.evaluation.linking.candidate_files import Proposed

_FEW = 3


def say_unknown(kb: str, unknown: Sequence[str], count: int) -> None:
    """Print a note with the labels for which the knowledge base has no entity; nothing if there are none."""
    if unknown:
        few = ", ".join(list(dict.fromkeys(unknown))[:_FEW])
        note(f"{len(unknown)} of {count} labels are not in {kb!r} and taken for NIL, such as {few}")


def link_signals(names: str | None) -> tuple[Signal, ...] | None:
    """Parse a comma-separated list of linking signals; None gives None. Raises InvalidInputError."""
    from hyblink.app.core.errors import InvalidInputError
    from hyblink.app.core.types.linking import LINK_SIGNALS
    from hyblink.app.core.types.ranking import Signal

    if names is None:
        return None
    known = {signal.value for signal in LINK_SIGNALS}
    if not set(names.split(",")) <= known:
        raise InvalidInputError("bad signals", received=names, expected=f"some of {', '.join(sorted(known))}")
    return tuple(Signal(name) for name in names.split(","))


@kb_cli.command("mine")
def mine(
    data: JudgedMentions,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file of training rows to write.")],
    kb: KbOption = "entities",
    keep: Annotated[int, typer.Option(min=1, help="Negatives of a mention: its top-ranked wrong candidates.")] = 16,
    tokens: Annotated[int, typer.Option(min=16, help="Length of a mention with its context, in tokens.")] = 96,
    limit: MentionsLimitOption = None,
    own_document: OwnDocumentOption = False,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores", help="Store the scores without a cross-encoder, so that one can be trained on top of them."
        ),
    ] = False,
    proposed: Annotated[
        Path | None,
        typer.Option(
            "--candidates",
            help="Take the negatives from this file of `kb candidates` or `kb merge`; by default they are retrieved.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mine training rows for `blink_bi` and `blink_cross`: a marked mention, its entity, and negatives."""
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.operations.judged_mentions import Retrieval
        from hyblink.app.operations.linking_data import RowMining, mine_rows
        from hyblink.training.data.rows import write_jsonl

        new_file(out)
        how = Retrieval(own_document=own_document)
        mining = RowMining(keep, tokens, scores, proposed)
        made, judged = mine_rows(app, kb, data, how, mining, limit=limit, progress=bars)
        write_jsonl(out, made)
        count = len(judged.rows)
    say_unknown(kb, judged.unknown, count)
    report = {"mentions": count, "rows": len(made), "gold_missing": count - len(made)}
    answer(report, as_json, [f"{out}: {len(made)} rows of {count} mentions"])


@kb_cli.command("candidates")
def candidates_of(
    data: JudgedMentions,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file of candidates to write.")],
    kb: KbOption = "entities",
    candidates: Annotated[int, typer.Option(min=1, help="Number of candidates of a mention.")] = 64,
    limit: MentionsLimitOption = None,
    own_document: OwnDocumentOption = False,
    signals: LinkSignalsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrieve the candidates of each judged mention, write them to a file (best first), and print the recall."""
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.evaluation.linking.candidate_files import write_candidates
        from hyblink.app.operations.judged_mentions import Retrieval
        from hyblink.app.operations.linking_data import propose

        new_file(out)
        how = Retrieval(candidates, own_document=own_document, signals=link_signals(signals))
        made, judged = propose(app, kb, data, how, limit=limit, progress=bars)
        write_candidates(out, made)
    say_unknown(kb, judged.unknown, len(judged.rows))
    _recalls(out, made, as_json)


@kb_cli.command("merge")
def merge(
    files: Annotated[list[Path], typer.Argument(help="Files of `kb candidates`, from several splits or several runs.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file of candidates to write.")],
    keep: Annotated[int, typer.Option(min=1, help="Number of candidates of a mention to keep.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Merge candidate files. A mention that several files have gets their candidates fused by reciprocal rank (RRF)."""
    with reported(as_json):
        from hyblink.app.evaluation.linking.candidate_files import merged, read_candidates, write_candidates

        new_file(out)
        made = merged([read_candidates(path) for path in files], keep)
        write_candidates(out, made)
        _recalls(out, made, as_json)


def _recalls(out: Path, made: Sequence[Proposed], as_json: bool) -> None:
    from hyblink.app.evaluation.linking.candidate_files import recalls

    found = {world: {str(k): value for k, value in own.items()} for world, own in recalls(made).items()}
    overall = found.pop("", {})
    value = {"mentions": len(made), "recall": overall, "worlds": found}
    shown = ", ".join(f"R@{k} {recall:.3f}" for k, recall in overall.items())
    answer(value, as_json, [f"{out}: {len(made)} mentions; {shown}"])


@kb_cli.command("convert")
def convert(
    path: Annotated[Path, typer.Argument(help="The file to convert, or the folder of Zeshel.")],
    form: Annotated[str, typer.Option("--format", help="Format of the input: aida, nif, elq, marked or zeshel.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file of judged mentions to write.")],
    split: Annotated[
        str,
        typer.Option(help="The split to read, for zeshel and aida only; aida has train, testa and testb."),
    ] = "train",
    as_json: JsonOption = False,
) -> None:
    """Convert a common entity-linking file format to judged mentions in BLINK's format."""
    with reported(as_json):
        from hyblink.app.evaluation.linking.mentions import write_mentions
        from hyblink.app.operations.linking_data import converted

        new_file(out)
        rows = converted(path, form, split)
        write_mentions(out, rows)
        nil = sum(not row.entity_id for row in rows)
        line = f"{out}: {len(rows)} mentions, {nil} of them NIL"
        answer({"mentions": len(rows), "nil": nil}, as_json, [line])


@kb_cli.command("spans")
def spans(
    data: JudgedMentions,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file of texts to write.")],
    kb: KbOption = "entities",
    in_context: Annotated[
        bool,
        typer.Option(
            "--in-context",
            help="Use the mentions' own contexts as texts instead of descriptions; equal ones are joined.",
        ),
    ] = False,
    descriptions: Annotated[
        bool, typer.Option("--descriptions", help="Also write the entities' descriptions (for train_entities).")
    ] = False,
    hard: Annotated[
        int, typer.Option(min=0, help="Number of hard negatives (wrong candidates) to mine for each mention; 0: none.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write texts with all their mentions, the training data of `elq`.

    The texts are the entities' descriptions from which the mentions were taken. A mention's row id must be the
    entity's id, ':' and anything. Names of the knowledge base that nobody marked are ignored in training.
    """
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.operations.linking_data import span_rows
        from hyblink.training.linking.spans import write_spans

        new_file(out)
        made, judged = span_rows(
            app, kb, data, in_context=in_context, descriptions=descriptions, hard=hard, progress=bars
        )
        write_spans(out, made)
    count = len(judged.rows)
    say_unknown(kb, judged.unknown, count)
    marked = sum(len(row.spans) for row in made)
    report = {"texts": len(made), "mentions": marked, "of": count}
    answer(report, as_json, [f"{out}: {len(made)} texts, {marked} of {count} mentions"])


@kb_cli.command("distant")
def distant(
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file of texts with their mentions to write.")],
    kb: KbOption = "entities",
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="Use this collection's passages as texts; by default the entities' descriptions."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Largest number of texts, sampled at random; by default all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Label texts automatically as training data of `elq`, by distant supervision.

    Proper names that mean exactly one entity become mentions. Other possible names are left out of the loss. This
    trains a span head on your own documents without judged mentions.
    """
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.operations.linking_data import distant_rows
        from hyblink.training.linking.spans import write_spans

        new_file(out)
        found = distant_rows(app, kb, collection, limit=limit, progress=bars)
        write_spans(out, found.rows)
        marked = sum(len(row.spans) for row in found.rows)
        report = {"texts": len(found.rows), "mentions": marked, "of": found.read}
    answer(report, as_json, [f"{out}: {marked} mentions in {len(found.rows)} of {found.read} texts"])
