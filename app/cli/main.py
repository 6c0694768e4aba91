"""`hyblink`: every command. Heavy modules are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyblink.app.cli.console import audited, emit, note, opened, parse_json, progress, reported, say
from hyblink.app.cli.judgements import judgements_cli
from hyblink.app.cli.kb import annotate, kb_cli, link
from hyblink.app.cli.node import node_cli
from hyblink.app.cli.train import audit, mine, models_cli, train
from hyblink.app.cli.work import LocalWorkers, jobs_cli, worker
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.collections import fsck as check_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import publish, rebuild, roll_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyblink.app.application import App
    from hyblink.app.core.ports.engine import Engine
    from hyblink.app.core.types.ranking import RankingProfile, RerankReport
    from hyblink.app.core.types.search import SearchRequest, SearchResult
    from hyblink.ranker.tuning import RerankedPool

cli = typer.Typer(
    name="hyblink",
    help="Hybrid search over your own documents: exact, semantic, and a glass box about why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
generations_cli = typer.Typer(
    help="Generations of a collection: list, rebuild, publish, roll back.", no_args_is_help=True
)
keys_cli = typer.Typer(help="API keys.", no_args_is_help=True)
profiles_cli = typer.Typer(help="Ranking profiles: list, use.", no_args_is_help=True)
cli.add_typer(generations_cli, name="generations")
cli.add_typer(keys_cli, name="keys")
cli.add_typer(profiles_cli, name="profiles")
cli.add_typer(node_cli, name="node")
cli.add_typer(models_cli, name="models")
cli.add_typer(kb_cli, name="kb")
cli.add_typer(jobs_cli, name="jobs")
cli.add_typer(judgements_cli, name="judgements")
for command in (annotate, link, train, mine, audit, worker):
    cli.command()(command)

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="The collection.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@cli.command()
def ingest(
    path: Annotated[Path | None, typer.Argument(help="A file, a folder, or a BEIR folder.")] = None,
    python_package: Annotated[
        str | None, typer.Option(help="An installed Python package; `python` is the standard library.")
    ] = None,
    collection: CollectionOption = "default",
    format: Annotated[str | None, typer.Option(help="jsonl, csv, tsv, markdown, text, html, pdf or beir.")] = None,
    id_column: Annotated[str | None, typer.Option(help="The field that holds the id.")] = None,
    title_column: Annotated[str | None, typer.Option(help="The field that holds the title.")] = None,
    text_column: Annotated[str | None, typer.Option(help="The field that holds the text.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Do not cut documents (a new collection only).")] = False,
    analyzer: Annotated[str, typer.Option(help="english or standard (a new collection only).")] = "english",
    dense_index: Annotated[
        str, typer.Option(help="auto, flat, hnsw, ivf,sq8, ivf,pq, or knn on OpenSearch (a new collection only).")
    ] = "auto",
    no_dense: Annotated[bool, typer.Option("--no-dense", help="No vectors (a new collection only).")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until everything is encoded.")] = True,
    restart: Annotated[
        bool, typer.Option("--restart", help="Read from the beginning even if a run was cut short.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read documents into a collection. A run that was cut short goes on where it stopped."""
    with reported(as_json), opened() as app:
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.indexer.readers.files import FileSource
        from hyblink.indexer.readers.python_package import PythonSource

        if (path is None) == (python_package is None):
            raise InvalidInputError("nothing to ingest", expected="either a path or --python-package NAME")
        limits = app.settings.ingest
        source: FileSource | PythonSource
        if path is not None:
            names = {"id": id_column, "title": title_column, "text": text_column}
            source = FileSource(
                path,
                format=format,
                columns={target: column for target, column in names.items() if column},
                max_row_bytes=limits.max_row_bytes,
                max_chars=limits.max_document_chars,
            )
        else:
            assert python_package is not None
            source = PythonSource(python_package, max_chars=limits.max_document_chars)
        report = run_ingest(
            app,
            source,
            collection,
            whole=whole or source.is_beir,
            analyzer=analyzer,
            dense_index=dense_index,
            no_dense=no_dense,
            wait=wait,
            resume=not restart,
            quiet=as_json,
        )
        if as_json:
            emit(report)
            return
        say(
            f"{report['documents']} documents ({report['created']} new, {report['updated']} changed, "
            f"{report['unchanged']} unchanged, {report['rejected']} rejected), {report['passages']} passages written "
            f"in {report['seconds']:.1f} s; {report['encoded']} encoded in {report['encode_seconds']:.1f} s"
        )
        for line in report["rejects"]:
            note(f"rejected {line}")
        if report["rejected"]:
            note(f"all rejected rows: {report['rejects_file']}")


def run_ingest(
    app: App,
    source: Any,
    collection: str,
    *,
    whole: bool = False,
    analyzer: str = "english",
    dense_index: str = "auto",
    no_dense: bool = False,
    wait: bool = True,
    resume: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Ingest a source with progress bars; the report as plain data."""
    import time
    from dataclasses import asdict, replace

    from hyblink.app.core.ports.store import SourceProgress
    from hyblink.app.core.types.collections import CollectionSpec
    from hyblink.app.core.types.documents import BulkItem, BulkResult, Document
    from hyblink.indexer.ingest.pipeline import IngestReport, RejectsFile
    from hyblink.indexer.ingest.pipeline import ingest as run

    spec = CollectionSpec(
        collection,
        analyzer=analyzer,
        dense_encoder="none" if no_dense else "default",
        dense_index=dense_index,
    )
    if whole:
        spec = replace(spec, chunk_chars=0, chunk_overlap_chars=0)
    ensure_collection(app, spec)
    engine = app.catalog.engine(collection)
    rejects = app.settings.data_dir / "rejects" / f"{collection}-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    started = time.perf_counter()
    with progress(quiet) as bars:
        task = bars.add_task("documents", total=None, rate="")

        def advance(report: IngestReport) -> None:
            rate = report.documents / (time.perf_counter() - started)
            bars.update(task, completed=report.documents, rate=f"{rate:,.0f}/s")

        def upsert(documents: list[Document | BulkItem], progress: SourceProgress) -> BulkResult:
            return app.documents.upsert(collection, documents, encode=False, progress=progress)

        report = run(
            source,
            engine,
            upsert,
            rejects=RejectsFile(rejects),
            batch_documents=app.settings.ingest.batch_documents,
            resume=resume,
            is_current=lambda: app.catalog.current(collection) == engine.record.id,
            progress=advance,
        )
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        encoded = 0
        counts = engine.store.reader().counts()
        if wait and engine.record.dense_dimension and counts.encoded < counts.passages:
            encoding = bars.add_task("encoding", total=counts.passages - counts.encoded, rate="")

            def tick(done: int) -> None:
                bars.advance(encoding, done)
                rate = bars.tasks[-1].completed / (time.perf_counter() - started)
                bars.update(encoding, rate=f"{rate:,.0f}/s")

            encoded = encode_now(app, collection, progress=tick)
            engine.snapshot()
    return {
        **asdict(report),
        "rejects_file": str(rejects) if report.rejected else "",
        "documents": report.documents,
        "seconds": seconds,
        "encoded": encoded,
        "encode_seconds": time.perf_counter() - started,
        "collection": collection,
    }


@cli.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: CollectionOption = "default",
    k: Annotated[int, typer.Option("-k", help="Documents to show.")] = 10,
    offset: Annotated[int, typer.Option(help="Documents to skip.")] = 0,
    candidates: Annotated[int | None, typer.Option(help="Passages that each leg proposes.")] = None,
    legs: Annotated[str, typer.Option(help="Comma-separated: bm25,vdr,dense.")] = "bm25,vdr,dense",
    filter: Annotated[str | None, typer.Option(help='JSON, such as {"term": {"kind": "function"}}.')] = None,
    facet: Annotated[list[str] | None, typer.Option(help="A metadata key to count.")] = None,
    weights: Annotated[str | None, typer.Option(help='JSON, such as {"bm25": 0.4, "dense": 0.6}.')] = None,
    fusion: Annotated[str | None, typer.Option(help="weighted_sum, rrf, comb_sum, comb_mnz or isr.")] = None,
    normalization: Annotated[str | None, typer.Option(help="theoretical, min_max, z_score, l2 or none.")] = None,
    vdr: Annotated[
        str | None, typer.Option(help="What the VDR signal multiplies: full, alpha, beta, bag or auto.")
    ] = None,
    rerank: Annotated[
        int | None, typer.Option(help="Re-rank the first so many documents by the cross-encoder; 0 for none.")
    ] = None,
    rerank_ms: Annotated[float | None, typer.Option(min=1, help="Time for re-ranking, in milliseconds.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the score ledger with tokens.")] = False,
    generation: Annotated[str | None, typer.Option(help="Ask this generation instead of the current one.")] = None,
    why_not: Annotated[str | None, typer.Option(help="A document id: where does it stand, where was it lost?")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search a collection."""
    with reported(as_json), opened() as app:
        from contextlib import suppress
        from dataclasses import asdict

        from hyblink.app.core.errors import HyblinkError, InvalidInputError
        from hyblink.app.core.types.ranking import RerankRequest, Signal
        from hyblink.app.core.types.search import SearchRequest

        limits = app.settings.search
        wanted = (limits.rerank_top if limits.rerank else 0) if rerank is None else rerank

        def signal(name: str) -> Signal:
            try:
                return Signal(name.strip())
            except ValueError:
                raise InvalidInputError("unknown leg", received=name, expected="bm25, vdr, dense") from None

        given = parse_json(weights, "--weights") if weights else None
        if given is not None and not (
            isinstance(given, dict)
            and all(isinstance(w, int | float) and not isinstance(w, bool) for w in given.values())
        ):
            raise InvalidInputError(
                "bad weights", received=weights, expected='JSON such as {"bm25": 0.4, "dense": 0.6}'
            )
        request = SearchRequest(
            query=query,
            k=k,
            offset=offset,
            candidates=candidates if candidates is not None else app.settings.search.candidates,
            signals=tuple(signal(name) for name in legs.split(",")),
            filter=parse_json(filter, "--filter") if filter else None,
            facets=tuple(facet or ()),
            explain=explain,
            fusion=fusion,  # type: ignore[arg-type]
            normalization=normalization,  # type: ignore[arg-type]
            weights={signal(name): float(weight) for name, weight in given.items()} if given else None,
            vdr=vdr,  # type: ignore[arg-type]
            rerank=RerankRequest(wanted, rerank_ms or limits.rerank_budget_ms) if wanted else None,
            generation=generation,
        )
        if request.rerank:
            with suppress(HyblinkError):  # the answer says what is wrong with it
                app.encoders.cross().load()  # not at the cost of the time for re-ranking
        if why_not is not None:
            answer = app.search.why_not(collection, request, why_not)
            emit(asdict(answer)) if as_json else say(answer.explanation)
            return
        result = app.search.search(collection, request)
        emit(result) if as_json else _print_result(result, explain)


def _print_result(result: SearchResult, explain: bool) -> None:
    for hit in result.hits:
        best = hit.passages[0]
        say(f"{hit.rank:3}. {hit.title or hit.doc_id}   {hit.score:.4f}   [{hit.doc_id}]")
        snippet = " ".join(best.text.split())
        say(f"     {snippet[:160]}{'…' if len(snippet) > 160 else ''}")
        if explain:
            for line in best.signals:
                raw = "–" if line.raw is None else f"{line.raw:.4f}"
                say(
                    f"       {line.signal.value:6} raw {raw:>9} → {line.normalised:.4f} × {line.weight:.2f} = "
                    f"{line.contribution:.4f}   leg rank {line.leg_rank or '–'} {line.note}"
                )
                if line.tokens:
                    say("              " + ", ".join(f"{t.token} {t.contribution:.2f}" for t in line.tokens[:8]))
    for key, counts in result.facets.items():
        say(f"{key}: " + ", ".join(f"{count.value} {count.count}" for count in counts))
    for report in result.legs:
        if report.error:
            note(f"leg {report.signal.value}: {report.error}")
    if result.rerank is not None:
        note_rerank(result.rerank)
    say(
        f"generation {result.generation}, {result.pool_documents} documents in the pool, "
        f"{result.timings_ms['total']:.0f} ms"
    )


@cli.command()
def vocabulary(
    text: Annotated[str, typer.Argument(help="What is read out.")],
    against: Annotated[str | None, typer.Option(help="A passage: which tokens bring the two together?")] = None,
    collection: CollectionOption = "default",
    top: Annotated[int, typer.Option(min=1, max=1000, help="Tokens shown.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Read a text out over the VDR vocabulary; tokens that it does not contain are marked."""
    with reported(as_json), opened() as app:
        found = app.search.vocabulary(collection, text, against, top)
        if as_json:
            emit(found)
            return
        for name, tokens in (("query", found.as_query), ("passage", found.as_passage)):
            say(f"as a {name}: " + ", ".join(f"{'' if t.own else '+'}{t.token} {t.weight:.2f}" for t in tokens))
        if against is not None:
            say(
                f"shared, {found.score:.4f} in all: "
                + ", ".join(f"{t.token} {t.contribution:.2f}" for t in found.shared)
            )


def note_rerank(report: RerankReport) -> None:
    """Say what re-ranking left out."""
    if report.error:
        note(f"not re-ranked: {report.error}")
    elif report.skipped:
        note(
            f"re-ranked {report.scored} of {report.asked} documents in {report.took_ms:.0f} ms; {report.skipped} were not reached"
        )


@cli.command()
def get(document_id: str, collection: CollectionOption = "default") -> None:
    """Print a document as JSON."""
    with reported(), opened() as app:
        from dataclasses import asdict

        emit(asdict(app.documents.get(collection, document_id)))


@cli.command()
def delete(document_ids: list[str], collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Delete documents."""
    with reported(as_json), opened() as app:
        result = app.documents.delete(collection, document_ids)
        if as_json:
            emit(result)
        else:
            for item in result.items:
                say(f"{item.id}: {item.status}")
        if any(item.status == "not_found" for item in result.items):
            raise typer.Exit(2)


@cli.command()
def collections(as_json: JsonOption = False) -> None:
    """List collections and what they hold."""
    with reported(as_json), opened() as app:
        rows = []
        for name in app.catalog.names():
            engine = app.catalog.engine(name)
            counts = engine.store.reader().counts()
            rows.append(
                {
                    "name": name,
                    "generation": engine.record.id,
                    "documents": counts.documents,
                    "passages": counts.passages,
                    "encoded": counts.encoded,
                    "dense_encoder": engine.record.dense_encoder,
                }
            )
        if as_json:
            emit(rows)
        for row in [] if as_json else rows:
            say(
                f"{row['name']}: {row['documents']} documents, {row['passages']} passages, {row['encoded']} encoded, {row['generation']}"
            )


@cli.command()
def encode(collection: CollectionOption = "default") -> None:
    """Encode what still waits on the instant tier."""
    with reported(), opened() as app, progress() as bars:
        counts = app.catalog.engine(collection).store.reader().counts()
        task = bars.add_task("encoding", total=counts.passages - counts.encoded, rate="")
        done = encode_now(app, collection, progress=lambda n: bars.advance(task, n))
        app.catalog.engine(collection).snapshot()
        say(f"{done} passages encoded")


@cli.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: queries.jsonl and qrels/SPLIT.tsv.")],
    split: Annotated[str, typer.Option(help="Which qrels.")] = "test",
    collection: CollectionOption = "default",
    systems: Annotated[
        str, typer.Option(help="bm25, vdr, vdr:MODE, dense, hybrid, cross, joined by +.")
    ] = "bm25,vdr,dense,hybrid",
    run: Annotated[list[Path] | None, typer.Option(help="TREC run files to measure beside them.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many queries, evenly spread.")] = None,
    rerank_ms: Annotated[float, typer.Option(min=1, help="Time for re-ranking one query, in milliseconds.")] = 10_000,
    generation: Annotated[str | None, typer.Option(help="Ask this generation instead of the current one.")] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write every query's values as TSV.")] = None,
    write_runs: Annotated[Path | None, typer.Option(help="Write TREC run files into this folder.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a bar chart (PNG).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure any subset of legs on judged queries, with paired significance."""
    with reported(as_json), opened() as app:
        from hyblink.app.core.types.ranking import RerankRequest
        from hyblink.app.core.types.search import SearchRequest
        from hyblink.app.evaluation.beir import read_beir
        from hyblink.app.evaluation.charts import plot as draw
        from hyblink.app.evaluation.measures import measure
        from hyblink.app.evaluation.runs import read_run, write_per_query, write_run
        from hyblink.app.evaluation.significance import compare
        from hyblink.app.evaluation.systems import DEPTH, HYBRID, MEASURES, run_queries, search_runner, systems_from

        queries, qrels = read_beir(folder, split)
        if limit and limit < len(queries):
            ids = list(queries)
            queries = {ids[at]: queries[ids[at]] for at in (n * len(ids) // limit for n in range(limit))}
            qrels = {query: qrels[query] for query in queries}
        chosen = systems_from(systems.split(",")) if systems else {}
        if chosen:
            warm_queries(app, collection, list(queries.values()), generation)
        results = []
        if any(system.rerank for system in chosen.values()):
            app.encoders.cross().load()
        with progress(as_json) as bars:
            for name, system in chosen.items():
                task = bars.add_task(name, total=len(queries), rate="")
                base = SearchRequest(
                    "",
                    k=DEPTH,
                    candidates=app.settings.search.candidates,
                    signals=system.signals,
                    highlight=False,
                    passages_per_document=1,
                    vdr=system.vdr,
                    rerank=RerankRequest(app.settings.search.rerank_top, rerank_ms) if system.rerank else None,
                    generation=generation,
                )
                runner = search_runner(app.search, collection, base)
                found = run_queries(queries, runner, lambda n, task=task: bars.advance(task, n))  # type: ignore[misc]
                results.append(measure(name, qrels, found))
        results += [measure(path.stem, qrels, read_run(path)) for path in run or []]
        best_single = max((r for r in results if r.name != HYBRID), key=lambda r: r.mean["nDCG@10"], default=None)
        comparisons = [compare(r, best_single) for r in results if best_single and r is not best_single]
        if per_query:
            write_per_query(per_query, {r.name: r.per_query for r in results})
        if write_runs:
            write_runs.mkdir(parents=True, exist_ok=True)
            for result in results:
                write_run(write_runs / f"{result.name}.run", result.run, result.name)
        if plot:
            draw(results, plot, f"{folder.name} {split} ({len(qrels)} queries)")
        if as_json:
            emit(
                {
                    "folder": folder.name,
                    "split": split,
                    "queries": len(qrels),
                    "generation": generation or app.catalog.current(collection),
                    "systems": {r.name: r.mean for r in results},
                    "comparisons": comparisons,
                }
            )
            return
        say(f"{folder.name} {split}: {len(qrels)} queries")
        say(f"{'system':14}" + "".join(f"{m:>13}" for m in MEASURES))
        for result in results:
            say(f"{result.name:14}" + "".join(f"{result.mean[m]:13.4f}" for m in MEASURES))
        for c in comparisons:
            say(
                f"{c.system} against {c.baseline}: nDCG@10 {c.difference:+.4f}, "
                f"t-test p = {c.p_t_test:.4g}, randomisation p = {c.p_randomisation:.4g}"
            )


def warm_queries(app: App, collection: str, texts: list[str], generation: str | None = None) -> None:
    """Encode queries in batches, so that every system of an evaluation shares them."""
    from hyblink.app.core.checks import fold
    from hyblink.app.encoders.cached_queries import CachedQueries

    record = app.catalog.engine(collection, generation).record
    if not record.dense_dimension:
        return
    app.encoders.put_full(record, CachedQueries.of(app.encoders.full(record), [fold(text) for text in texts]))


def _reranked_pool(
    app: App, collection: str, request: SearchRequest, profile: RankingProfile, grades: Mapping[str, int]
) -> RerankedPool:
    """A query's best documents under a profile with the cross-encoder's scores of them, all of them, beside."""
    from dataclasses import replace

    import numpy as np

    from hyblink.app.core.errors import UnavailableError
    from hyblink.app.core.types.ranking import RerankRequest, Signal
    from hyblink.ranker.tuning import RerankedPool, ideal_dcg

    result = app.search.search(
        collection,
        replace(
            request,
            highlight=False,
            passages_per_document=1,
            fusion=profile.fusion,
            normalization=profile.normalization,
            weights={**profile.weights, Signal.CROSS: 0.0},
            rerank=RerankRequest(request.k, app.settings.search.deadline_ms),
        ),
    )
    if result.rerank is None or result.rerank.error or result.rerank.skipped:
        raise UnavailableError(
            "not everything was re-ranked",
            received=result.rerank.error or f"{result.rerank.skipped} skipped" if result.rerank else "nothing",
            expected="all within search.deadline_ms",
        )
    hits = result.hits
    lines = [next((s for s in hit.passages[0].signals if s.signal is Signal.CROSS), None) for hit in hits]
    raw = [line.raw if line and line.raw is not None else float("nan") for line in lines]
    done = [at for at, value in enumerate(raw) if np.isfinite(value)]
    return RerankedPool(
        np.array([hits[at].score for at in done]),
        np.array([raw[at] for at in done]),
        np.array([float(max(0, grades.get(hits[at].doc_id, 0))) for at in done]),
        ideal_dcg(grades),
    )


@cli.command()
def tune(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder with judged queries.")],
    split: Annotated[str, typer.Option(help="Which qrels.")] = "train",
    collection: CollectionOption = "default",
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many queries, drawn at random.")] = None,
    rerank: Annotated[
        int, typer.Option(min=0, help="Choose the cross-encoder's weight too, re-ranking so many documents.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, but save no profile.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose fusion weights on judged queries; save them as the collection's next ranking profile."""
    with reported(as_json), opened() as app:
        import random
        from dataclasses import asdict, replace

        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal
        from hyblink.app.core.types.search import SearchRequest
        from hyblink.app.engines.catalog import profile_to_json
        from hyblink.app.evaluation.beir import read_beir
        from hyblink.ranker.tuning import judged_pool, tune_cross
        from hyblink.ranker.tuning import tune as run

        largest = min(app.settings.search.max_rerank, app.settings.search.candidates)
        if rerank > largest:
            raise InvalidInputError("rerank is out of range", received=rerank, expected=f"at most {largest}")
        queries, qrels = read_beir(folder, split)
        ids = list(queries)
        if limit and limit < len(ids):
            ids = random.Random(0).sample(ids, limit)
        warm_queries(app, collection, [queries[q] for q in ids])
        with progress(as_json) as bars:
            task = bars.add_task("candidates", total=len(ids), rate="")
            pools = []
            for query in ids:
                request = SearchRequest(queries[query], k=1, candidates=app.settings.search.candidates)
                scores, documents = app.search.pool(collection, request)
                pools.append(judged_pool(scores, documents, qrels[query]))
                bars.advance(task)
            task = bars.add_task("settings", total=len(ids), rate="")
            signals = [s for s in DEFAULT_SIGNALS if all(s in pool.scores.signals for pool in pools)]
            found = run(pools, signals, folds=folds, progress=lambda n: bars.advance(task, n))
        profile = replace(
            found.profile,
            origin=f"tuned on {found.queries} queries of {folder.name} {split}: nDCG@10 {found.cross_validated:.4f} "
            f"({found.folds}-fold cross-validated), single legs "
            + ", ".join(f"{s.value} {v:.4f}" for s, v in found.single.items()),
        )
        cross = None
        if rerank:
            app.encoders.cross().load()
            with progress(as_json) as bars:
                task = bars.add_task("re-ranking", total=len(ids), rate="")
                base = SearchRequest("", k=rerank, candidates=app.settings.search.candidates)
                reranked = []
                for query in ids:
                    reranked.append(
                        _reranked_pool(app, collection, replace(base, query=queries[query]), profile, qrels[query])
                    )
                    bars.advance(task)
            cross = tune_cross(reranked, folds=folds)
            profile = replace(
                profile,
                weights={**profile.weights, Signal.CROSS: cross.weight},
                origin=f"{profile.origin}; the first {rerank} re-ranked {cross.without:.4f} → {cross.cross_validated:.4f}",
            )
        if not dry_run:
            profile = app.catalog.save_profile(collection, profile)
        if as_json:
            emit(
                {
                    "profile": profile_to_json(profile),
                    "cross_validated": found.cross_validated,
                    "in_sample": found.in_sample,
                    "single": {s.value: v for s, v in found.single.items()},
                    "rerank": asdict(cross) if cross else None,
                    "queries": found.queries,
                    "saved": not dry_run,
                }
            )
            return
        weights = ", ".join(f"{s.value} {w:g}" for s, w in profile.weights.items())
        say(f"profile {profile.version}: {profile.fusion}, {profile.normalization}, {weights}")
        say(profile.origin)


@cli.command()
def fsck(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only this one.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Derive again what differs from the store.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every store with the indexes derived from it and the models that it names."""
    with reported(as_json), opened() as app:
        names = [collection] if collection else app.catalog.names()
        found = {name: check_collection(app, name, repair=repair) for name in names}
        left = {name: check_collection(app, name) for name in names} if repair else found
        if as_json:
            emit({"problems": found, "left": left})
        for name, problems in [] if as_json else found.items():
            say(f"{name}: {'clean' if not problems else ''}")
            for problem in problems:
                say(f"  {problem}")
            if repair and problems:
                say(f"  repaired; left: {left[name] or 'nothing'}")
        if any(left.values()):
            raise typer.Exit(1)


@cli.command(name="export")
def export_(
    folder: Annotated[Path, typer.Argument(help="A folder to make.")],
    collection: CollectionOption = "default",
) -> None:
    """Write a collection with its weights and vectors into a folder."""
    with reported(), opened() as app:
        from hyblink.indexer.transfer import export_collection

        engine, spec = app.catalog.engine(collection), app.catalog.spec(collection)
        with progress() as bars:
            task = bars.add_task("documents", total=engine.store.reader().counts().documents, rate="")
            count = export_collection(engine, spec, folder, lambda n: bars.advance(task, n))
        say(f"{count} documents exported")


@cli.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder made by `hyblink export`.")],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="A new name; by default its old one.")
    ] = None,
) -> None:
    """Make a collection from an exported folder; nothing is encoded again."""
    with reported(), opened() as app:
        from dataclasses import replace

        from hyblink.app.core.errors import ConflictError
        from hyblink.indexer.transfer import import_collection, read_export

        manifest, spec = read_export(folder)
        spec = replace(spec, name=collection or spec.name)
        if spec.name in app.catalog.names():
            raise ConflictError("the collection exists already", received=spec.name, expected="a new name")
        count = 0

        def fill(engine: Engine) -> None:
            nonlocal count
            count = import_collection(folder, manifest, engine)

        app.catalog.create(spec, new_record(app, spec), fill)
        say(f"{count} documents imported into {spec.name}")


@generations_cli.command("list")
def generations_list(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """List generations; the current one is marked."""
    with reported(as_json), opened() as app:
        current = app.catalog.current(collection)
        records = app.catalog.generations(collection)
        if as_json:
            emit({"current": current, "generations": records})
        for record in [] if as_json else records:
            mark = "*" if record.id == current else " "
            say(f"{mark} {record.id}  {record.created}  {record.dense_encoder or 'no vectors'}  {record.note}")


@generations_cli.command("rebuild")
def generations_rebuild(
    collection: CollectionOption = "default",
    note_text: Annotated[str, typer.Option("--note", help="Why.")] = "",
) -> None:
    """Build the next generation with the encoders that the settings name now, verify and publish it."""
    with reported(), opened() as app, audited(app, f"generations rebuild {collection}"):
        with progress() as bars:
            stages: dict[str, Any] = {}

            def advance(stage: str, count: int) -> None:
                if stage not in stages:
                    stages[stage] = bars.add_task(stage, total=None, rate="")
                bars.advance(stages[stage], count)

            built = rebuild(app, collection, note_text, advance)
        say(f"{built.id} answers now")


@generations_cli.command("publish")
def generations_publish(generation: str, collection: CollectionOption = "default") -> None:
    """Let a generation answer."""
    with reported(), opened() as app, audited(app, f"generations publish {collection} {generation}"):
        publish(app, collection, generation)
        say(f"{generation} answers now")


@generations_cli.command("rollback")
def generations_rollback(collection: CollectionOption = "default") -> None:
    """Let the generation before the current one answer again."""
    with reported(), opened() as app, audited(app, f"generations rollback {collection}"):
        say(f"{roll_back(app, collection)} answers now")


@profiles_cli.command("list")
def profiles_list(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """List saved ranking profiles; the current one is marked."""
    with reported(as_json), opened() as app:
        from hyblink.app.engines.catalog import profile_to_json

        current = app.catalog.profile(collection, app.catalog.current(collection))
        saved = app.catalog.profiles(collection)
        if as_json:
            emit({"current": profile_to_json(current), "profiles": [profile_to_json(p) for p in saved]})
        for profile in [] if as_json else saved:
            weights = ", ".join(f"{s.value} {w:g}" for s, w in profile.weights.items())
            mark = "*" if profile.version == current.version else " "
            say(f"{mark} {profile.version}  {profile.fusion} {profile.normalization}  {weights}  {profile.origin}")


@profiles_cli.command("use")
def profiles_use(version: int, collection: CollectionOption = "default") -> None:
    """Let the current generation use a saved profile."""
    with reported(), opened() as app, audited(app, f"profiles use {collection} {version}"):
        app.catalog.use_profile(collection, version)
        say(f"profile {version} is used now")


@keys_cli.command("create")
def keys_create(
    role: Annotated[str, typer.Option(help="search, ingest or admin.")],
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Only these collections.")] = None,
    note_text: Annotated[str, typer.Option("--note", help="Whose it is.")] = "",
    per_minute: Annotated[int, typer.Option(min=0, help="Requests a minute; 0: as the server is set.")] = 0,
    max_bytes: Annotated[int, typer.Option(min=0, help="Largest body of a request; 0: as the server is set.")] = 0,
) -> None:
    """Make an API key. It is shown once."""
    with reported(), opened() as app, audited(app, f"keys create {role}"):
        from hyblink.app.access.keys import KeyStore
        from hyblink.app.core.clock import now

        say(KeyStore(app.catalog.records()).create(role, now(), collection or (), note_text, per_minute, max_bytes))


@keys_cli.command("list")
def keys_list(as_json: JsonOption = False) -> None:
    """List keys, without their secrets."""
    with reported(as_json), opened() as app:
        from hyblink.app.access.keys import KeyStore
        from hyblink.app.api.routes.access import shown_key

        keys = KeyStore(app.catalog.records()).all()
        if as_json:
            emit([shown_key(key) for key in keys])
        for key in [] if as_json else keys:
            where = ",".join(key.collections) or "all collections"
            say(f"{key.id}  {key.role}  {where}  {'revoked' if key.revoked else ''}  {key.note}")


@keys_cli.command("rotate")
def keys_rotate(
    key_id: str,
    grace_s: Annotated[float, typer.Option(min=0, help="How long the former secret is good, in seconds.")] = 0.0,
) -> None:
    """Give a key a new secret. It is shown once."""
    with reported(), opened() as app, audited(app, f"keys rotate {key_id}"):
        from hyblink.app.access.keys import KeyStore

        say(KeyStore(app.catalog.records()).rotate(key_id, grace_s=grace_s))


@keys_cli.command("revoke")
def keys_revoke(key_id: str) -> None:
    """Make a key useless."""
    with reported(), opened() as app, audited(app, f"keys revoke {key_id}"):
        from hyblink.app.access.keys import KeyStore

        KeyStore(app.catalog.records()).revoke(key_id)
        say(f"{key_id} revoked")


@cli.command()
def audit_log(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50, as_json: JsonOption = False
) -> None:
    """Show what administrators did, and who tried to, the newest first."""
    with reported(as_json), opened() as app:
        from hyblink.app.access.audit import Audit

        found = [act for _, act in Audit(app.catalog.records()).list(limit=limit)]
        if as_json:
            emit(found)
        for one in [] if as_json else found:
            say(f"{one.at}  {one.by}  {one.act}  {one.outcome}")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Serve the API. Any address but loopback needs API keys."""
    with reported(), opened() as app:
        import signal
        import sys

        import uvicorn

        from hyblink.app.api.application import create_api
        from hyblink.app.core.logs import set_up

        address = host or app.settings.api.host
        set_up(app.settings.log_level, app.settings.log_format)
        api = create_api(app, host=address)
        # uvicorn raises the signal again when it has shut down: then our workers have still to be ended.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with LocalWorkers(app.settings):
            uvicorn.run(
                api,
                host=address,
                port=app.settings.api.port if port is None else port,
                log_config=None,
                timeout_graceful_shutdown=10,
            )


@cli.command()
def demo(
    check: Annotated[bool, typer.Option("--check", help="Run one search through the API and exit.")] = False,
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 8080,
    ui_port: Annotated[int, typer.Option(help="Port of the UI; 0 takes a free one.")] = 8501,
) -> None:
    """Ingest the documentation of this Python, then serve API and UI on loopback."""
    with reported():
        from hyblink.app.cli.demo import run_demo

        run_demo(check=check, port=port, ui_port=ui_port)


def main() -> None:
    """Entry point of the `hyblink` command."""
    import logging

    from hyblink.app.core.logs import set_up

    set_up(logging.WARNING)
    cli()


if __name__ == "__main__":
    main()
