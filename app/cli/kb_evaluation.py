"""`hyblink kb`: commands that evaluate and fit entity linking on judged mentions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, opened, progress, reported
from hyblink.app.cli.kb_data import link_signals, say_unknown
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
    from hyblink.app.operations.judged_mentions import MentionEvaluation, TextEvaluation


@kb_cli.command("evaluate-texts")
def evaluate_texts(
    data: Annotated[Path, typer.Argument(help="File of texts with all their mentions, from `hyblink kb spans`.")],
    kb: KbOption = "entities",
    detectors: Annotated[
        str, typer.Option(help="Mention detectors, comma-separated: dictionary, elq, spacy:PIPELINE.")
    ] = "dictionary",
    threshold: Annotated[
        float | None,
        typer.Option(help="Links below this probability become NIL; by default the link profile's threshold."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of texts to evaluate, from the first; by default all.")
    ] = None,
    own_document: Annotated[
        bool, typer.Option("--own-document", help="Exclude the entity whose id is the text's id.")
    ] = False,
    cross: Annotated[bool, typer.Option("--cross", help="Re-rank the top candidates with the cross-encoder.")] = False,
    joint: Annotated[
        float | None,
        typer.Option(
            help="Decide spans and links jointly, with this smallest joint probability; 0 searches the best value."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate mention detection and linking end to end: precision, recall and F1 of mentions and of links.

    Spans match if they are equal (strong) or overlap (weak). Names that nobody marked (`ignore`) are not counted.
    """
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from dataclasses import asdict

        from hyblink.app.operations.judged_mentions import TextLinking
        from hyblink.app.operations.judged_mentions import evaluate_texts as measured

        how = TextLinking(tuple(detectors.split(",")), threshold, own_document, cross, joint)
        found = measured(app, kb, data, how, limit=limit, progress=bars)
    say_unknown(kb, found.unknown, found.labels)
    figures = {name: {**asdict(micro), "macro_f1": macro} for name, (micro, macro) in found.figures.items()}
    value = {
        "texts": found.texts, "mentions": found.mentions, "in_kb": found.in_kb, "joint": found.joint,
        "figures": figures,
    }  # fmt: skip
    answer(value, as_json, lambda: _text_lines(found, figures))


def _text_lines(found: TextEvaluation, figures: dict[str, dict[str, float]]) -> Iterator[str]:
    yield f"{found.texts} texts, {found.mentions} mentions, {found.in_kb} of them of the knowledge base"
    if found.joint is not None:
        yield f"joint probability of at least {found.joint:.4f}"
    for name, values in figures.items():
        yield f"{name:<16}" + "  ".join(f"{key} {value:.4f}" for key, value in values.items())


@kb_cli.command("count")
def count(data: JudgedMentions, kb: KbOption = "entities", as_json: JsonOption = False) -> None:
    """Count how often each name was judged to mean each entity, for the prior P(entity | name).

    Replaces earlier counts. Evaluating or fitting on a counted mention leaves its own count out, so the same file can
    be used for all commands.
    """
    with reported(as_json), opened() as app:
        from hyblink.app.operations.judged_mentions import count_names

        found = count_names(app, kb, data)
    say_unknown(kb, found.unknown, found.judged)
    value = {"names": found.names, "mentions": found.mentions, "profile": found.profile}
    answer(value, as_json, [f"{found.names} names counted"])


@kb_cli.command("evaluate")
def evaluate(
    data: JudgedMentions,
    kb: KbOption = "entities",
    candidates: Annotated[int, typer.Option(min=1, help="Number of candidates of each mention.")] = 64,
    cross: Annotated[bool, typer.Option("--cross", help="Also score the candidates with the cross-encoder.")] = False,
    limit: MentionsLimitOption = None,
    own_document: OwnDocumentOption = False,
    signals: LinkSignalsOption = None,
    ambiguous: Annotated[
        bool, typer.Option("--ambiguous", help="Evaluate only mentions whose text is a name of several candidates.")
    ] = False,
    by_world: Annotated[
        bool, typer.Option("--worlds", help="Also print the measures of each world (JSON always has them).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure recall@k and accuracy on given mentions: each signal alone, fused, and decided by the link profile.

    The decisions also get NIL precision and recall, and the expected calibration error (ECE). A world is a domain of
    the data set; `macro` is the unweighted mean over worlds.
    """
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from dataclasses import asdict

        from hyblink.app.operations.judged_mentions import Retrieval, evaluate_mentions

        how = Retrieval(candidates, cross, own_document, link_signals(signals))
        found = evaluate_mentions(app, kb, data, how, limit=limit, only_ambiguous=ambiguous, progress=bars)
    say_unknown(kb, found.unknown, found.judged)
    decisions = {name: asdict(decision) for name, decision in found.decisions.items()}
    value = {
        "mentions": found.mentions,
        "systems": [asdict(system) for system in found.systems],
        "decisions": decisions,
    }
    answer(value, as_json, lambda: _mention_lines(found, candidates, by_world))


def _mention_lines(found: MentionEvaluation, candidates: int, by_world: bool) -> Iterator[str]:
    from hyblink.app.evaluation.linking.measures import CUTOFFS

    yield f"{found.mentions} mentions, {candidates} candidates, profile {found.profile}"
    columns = "".join(f"{'R@' + str(k):>8}" for k in CUTOFFS)
    yield f"{'system':<14}{columns}   95 % of R@1     norm. acc.   macro, norm."
    for row in found.systems:
        low, high = row.interval
        yield (
            f"{row.system:<14}"
            + "".join(f"{row.recall[k]:>8.4f}" for k in CUTOFFS)
            + f"   {low:.3f} … {high:.3f}   {row.normalised:.4f}"
            + f"       {row.macro_accuracy:.4f} {row.macro_normalised:.4f}"
        )
    for world in found.systems[0].worlds if by_world else ():
        yield f"\n{world or 'no world'}: {found.systems[0].worlds[world].mentions} mentions"
        for row in found.systems:
            own = row.worlds[world]
            figures = "".join(f"{own.recall[k]:>8.4f}" for k in CUTOFFS)
            yield f"{row.system:<14}{figures}   norm. acc. {own.normalised:.4f}"
    for name, made in found.decisions.items():
        yield (
            f"{name} at {made.threshold:.3f}: {made.linked:.3f} linked, {made.false_links:.3f} of the links false; "
            f"NIL precision {made.nil_precision:.3f}, recall {made.nil_recall:.3f}; ECE {made.ece:.3f}"
        )


@kb_cli.command("fit")
def fit(
    data: JudgedMentions,
    kb: KbOption = "entities",
    cross: Annotated[
        bool, typer.Option("--cross", help="Also fit the decision with the cross-encoder's scores.")
    ] = False,
    missing: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of mentions whose entity is excluded, to serve as NIL examples."),
    ] = 0.33,
    rate: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Largest allowed share of false links among the links.")
    ] = 0.05,
    limit: MentionsLimitOption = None,
    own_document: OwnDocumentOption = False,
    whole_texts: Annotated[
        bool,
        typer.Option(
            "--whole-texts",
            help="All mentions of the texts are marked, so ordinary words that match a name are NIL examples.",
        ),
    ] = False,
    folds: Annotated[
        int,
        typer.Option(
            min=0, max=50, help="Number of cross-validation folds, for few mentions; 0 splits the mentions in thirds."
        ),
    ] = 0,
    signals: LinkSignalsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the profile, but do not save it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a link profile to judged mentions, and save it for the knowledge base.

    A link profile holds the coefficients that rank candidates, the calibration of probabilities, and the thresholds
    below which a mention is NIL.
    """
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from dataclasses import asdict

        from hyblink.app.operations.judged_mentions import Retrieval
        from hyblink.app.operations.judged_mentions import fit as fitted

        how = Retrieval(64, cross, own_document, link_signals(signals))
        profile, judged = fitted(
            app,
            kb,
            data,
            how,
            missing=missing,
            rate=rate,
            limit=limit,
            whole_texts=whole_texts,
            folds=folds,
            save=not dry_run,
            progress=bars,
        )
    say_unknown(kb, judged.unknown, len(judged.rows))
    figures = [f"  {name}: {value:.4f}" for name, value in profile.figures.items()]
    answer(asdict(profile), as_json, [f"profile {profile.version}: {profile.origin}", *figures])
