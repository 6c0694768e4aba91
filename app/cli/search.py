"""`hyblink search` and `hyblink vocabulary`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, note, opened, parse_json, parse_weights, reported, told_if_slow
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import (
    CollectionOption,
    FilterOption,
    FusionOption,
    GenerationOption,
    JsonOption,
    NormalizationOption,
    SignalsOption,
    VdrOption,
    WeightsOption,
)

if TYPE_CHECKING:
    from hyblink.app.core.types.ranking import RerankReport
    from hyblink.app.core.types.search import SearchResult
    from hyblink.app.search.vocabulary import Vocabulary

_SNIPPET = 160
_TOKENS = 8


@reads
def search(
    query: Annotated[str, typer.Argument(help="The query text.")],
    collection: CollectionOption = "default",
    k: Annotated[int, typer.Option("-k", help="Number of documents to show.")] = 10,
    offset: Annotated[int, typer.Option(help="Number of documents to skip.")] = 0,
    candidates: Annotated[
        int | None, typer.Option(help="Number of passages that each leg retrieves; by default the setting.")
    ] = None,
    signals: SignalsOption = "bm25,vdr,dense",
    filter: FilterOption = None,
    facet: Annotated[
        list[str] | None, typer.Option(help="A metadata key whose values are counted; may be repeated.")
    ] = None,
    weights: WeightsOption = None,
    fusion: FusionOption = None,
    normalization: NormalizationOption = None,
    vdr: VdrOption = None,
    rerank: Annotated[
        int | None,
        typer.Option(
            help="Number of top documents to re-rank with the cross-encoder; 0: none; by default the setting."
        ),
    ] = None,
    rerank_ms: Annotated[
        float | None, typer.Option(min=1, help="Time budget for re-ranking, in milliseconds; by default the setting.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show each score by signal, and the tokens that contribute most.")
    ] = False,
    generation: GenerationOption = None,
    why_not: Annotated[
        str | None,
        typer.Option(help="A document id: explain why the document is not shown, instead of printing the results."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search a collection and print the best documents."""
    with reported(as_json), opened() as app:
        from contextlib import suppress
        from dataclasses import asdict

        from hyblink.app.core.errors import HyblinkError
        from hyblink.app.core.types.ranking import RerankRequest
        from hyblink.app.core.types.search import SearchRequest
        from hyblink.ranker.signals.registry import signal_named

        limits = app.settings.search
        wanted = (limits.rerank_top if limits.rerank else 0) if rerank is None else rerank
        request = SearchRequest(
            query=query,
            k=k,
            offset=offset,
            candidates=candidates if candidates is not None else limits.candidates,
            signals=tuple(signal_named(name) for name in signals.split(",")),
            filter=parse_json(filter, "--filter") if filter else None,
            facets=tuple(facet or ()),
            explain=explain,
            fusion=fusion,  # type: ignore[arg-type]
            normalization=normalization,  # type: ignore[arg-type]
            weights=parse_weights(weights),
            vdr=vdr,  # type: ignore[arg-type]
            rerank=RerankRequest(wanted, rerank_ms or limits.rerank_budget_ms) if wanted else None,
            generation=generation,
        )
        # The search waits for its models by itself. Here the terminal is told of it, and the result of what fails.
        with told_if_slow("the models are being loaded"), suppress(HyblinkError):
            record = app.catalog.engine(collection, generation).record
            if record.dense_dimension:
                app.encoders.hybrid_encoder(record).load()
            if request.rerank:
                app.encoders.cross().load()
        if why_not is not None:
            why = app.search.why_not(collection, request, why_not)
            answer(asdict(why), as_json, [why.explanation])
            return
        result = app.search.search(collection, request)
        answer(result, as_json, lambda: _hits(result, explain))
        _notes(result, as_json)


def _hits(result: SearchResult, explain: bool) -> Iterator[str]:
    for hit in result.hits:
        best = hit.passages[0]
        yield f"{hit.rank:3}. {hit.title or hit.doc_id}   {hit.score:.4f}   [{hit.doc_id}]"
        where = " › ".join(step for step in best.path if step != hit.title) + (
            f"   ({best.place})" if best.place else ""
        )
        if where:
            yield f"     {where.strip()}"
        snippet = " ".join(best.text.split())
        yield f"     {snippet[:_SNIPPET]}{'…' if len(snippet) > _SNIPPET else ''}"
        for line in best.signals if explain else ():
            raw = "–" if line.raw is None else f"{line.raw:.4f}"
            yield (
                f"       {line.signal.value:6} raw {raw:>9} → {line.normalised:.4f} × {line.weight:.2f} = "
                f"{line.contribution:.4f}   leg rank {line.leg_rank or '–'} {line.note}"
            )
            if line.tokens:
                yield "              " + ", ".join(f"{t.token} {t.contribution:.2f}" for t in line.tokens[:_TOKENS])
    for key, counts in result.facets.items():
        yield f"{key}: " + ", ".join(f"{count.value} {count.count}" for count in counts)
    yield (
        f"generation {result.generation}, {result.pool_documents} documents in the pool, "
        f"{result.timings_ms['total']:.0f} ms"
    )


def _notes(result: SearchResult, as_json: bool) -> None:
    """Print the errors of legs and the documents not re-ranked; with JSON the result holds them."""
    for report in [] if as_json else result.legs:
        if report.error:
            note(f"leg {report.signal.value}: {report.error}")
    if result.waiting is not None and not as_json:
        note(
            f"{result.waiting.encoded + result.waiting.estimated} candidates are not encoded yet: "
            f"{result.waiting.encoded} were encoded for this search in {result.waiting.took_ms:.0f} ms, the scores of "
            f"{result.waiting.estimated} are estimated"
        )
    if result.rerank is not None and not as_json:
        note_rerank(result.rerank)


def note_rerank(report: RerankReport) -> None:
    """Print a note if re-ranking failed or did not reach all documents."""
    if report.error:
        note(f"not re-ranked: {report.error}")
    elif report.skipped:
        note(
            f"re-ranked {report.scored} of {report.asked} documents in {report.took_ms:.0f} ms; "
            f"{report.skipped} were not reached"
        )


@reads
def vocabulary(
    text: Annotated[str, typer.Argument(help="The text to encode.")],
    against: Annotated[
        str | None, typer.Option(help="A passage: also show the tokens that it shares with the text, by contribution.")
    ] = None,
    collection: CollectionOption = "default",
    top: Annotated[int, typer.Option(min=1, max=1000, help="Number of tokens to show.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show a text's token weights by the VDR encoder, as a query and as a passage.

    Expansion tokens, which the text does not contain, are marked with +.
    """
    with reported(as_json), opened() as app:
        found = app.search.vocabulary(collection, text, against, top)
        answer(found, as_json, lambda: _tokens(found, against is not None))


def _tokens(found: Vocabulary, shared: bool) -> Iterator[str]:
    for name, tokens in (("query", found.as_query), ("passage", found.as_passage)):
        yield f"as a {name}: " + ", ".join(f"{'' if t.own else '+'}{t.token} {t.weight:.2f}" for t in tokens)
    if shared:
        yield f"shared, {found.score:.4f} in all: " + ", ".join(f"{t.token} {t.contribution:.2f}" for t in found.shared)
