"""Quality on judged questions: our BM25 beside bm25s, every leg, the tuned hybrid, significance.

Fusion weights are tuned on the train split and measured on the dev split. The demo's questions have one split:
there each question is measured under weights chosen without its fold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.measures import measure
from hyblink.app.evaluation.qrels import Qrels
from hyblink.app.operations.encoding import encode_queries_ahead
from hyblink.app.operations.ingestion import NewCollection, ingest_source
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.python_package import PythonSource
from hyblink.ranker.tuning import Tuning, judged_pool, ndcg, tune
from tests.benchmarks.timing import table

SETS = ("scifact", "squadshifts-new-wiki", "squadshifts-amazon-reviews", "squadshifts-reddit")
_TRAIN_QUERIES = 600
DEMO = Path(__file__).resolve().parents[1] / "demo_questions"


def _pools(app: App, name: str, queries: dict[str, str], qrels: Qrels):  # type: ignore[no-untyped-def]
    encode_queries_ahead(app, name, list(queries.values()))
    pools = []
    for query, text in queries.items():
        scores, documents = app.search.pool(name, SearchRequest(text, k=1, candidates=200))
        pools.append(judged_pool(scores, documents, qrels[query]))
    return pools


def _bm25s(app: App, name: str, queries: dict[str, str], qrels: Qrels, stop_and_stem: bool) -> float:
    """nDCG@10 of bm25s (Lucene's formula, k1 = 1.2, b = 0.75): with its own words and our stemmer, or with our terms."""
    import bm25s
    import Stemmer

    documents = [one.document for one in app.catalog.engine(name).store.reader().export()]
    texts = [f"{d.title}\n{d.text}" if d.title else d.text for d in documents]
    asked = list(queries.values())
    if stop_and_stem:
        stem = Stemmer.Stemmer("english")
        corpus = bm25s.tokenize(texts, stopwords="en", stemmer=stem, return_ids=False, show_progress=False)
        wanted = bm25s.tokenize(asked, stopwords="en", stemmer=stem, return_ids=False, show_progress=False)
    else:
        analyzer = Analyzer("english")
        corpus, wanted = [analyzer.terms(t) for t in texts], [analyzer.terms(t) for t in asked]
    retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    retriever.index(corpus, show_progress=False)
    run = {}
    for query, terms in zip(queries, wanted, strict=True):
        found, scores = retriever.retrieve([terms or ["∅"]], k=100, show_progress=False)
        run[query] = {documents[int(at)].id: float(s) for at, s in zip(found[0], scores[0], strict=True) if s > 0}
    return measure("bm25s", qrels, run, ("nDCG@10",)).mean["nDCG@10"]


def run(data: Path, work: Path, _passages: int) -> None:
    app = build(Settings(data_dir=work / "quality"))
    rows, kept = [], []
    for name in (*SETS, "demo questions"):
        collection = name.replace(" ", "-")
        demo = name not in SETS
        source = PythonSource("python") if demo else FileSource(data / name)
        ingest_source(app, source, collection, NewCollection(whole=not demo))
        if demo:
            queries, qrels = read_beir(DEMO, "test")
            pools = _pools(app, collection, queries, qrels)
            tuned: Tuning = tune(pools, DEFAULT_SIGNALS)
            hybrid = np.array(tuned.per_query)
        else:
            queries, qrels = read_beir(data / name, "train")
            some = dict(sorted(queries.items())[:: max(1, len(queries) // _TRAIN_QUERIES)])
            tuned = tune(_pools(app, collection, some, qrels), DEFAULT_SIGNALS)
            queries, qrels = read_beir(data / name, "dev")
            pools = _pools(app, collection, queries, qrels)
            from hyblink.ranker.complete import fuse

            hybrid = np.array([ndcg(pool, fuse(pool.scores, tuned.profile).scores_C) for pool in pools])
        singles = {
            signal: np.array([ndcg(pool, np.nan_to_num(pool.scores.raw_SC[at], nan=-np.inf)) for pool in pools])
            for at, signal in enumerate(DEFAULT_SIGNALS)
        }
        best = max(singles, key=lambda signal: singles[signal].mean())
        comparison = _paired(hybrid, singles[best])
        weights = "/".join(f"{tuned.profile.weights[s]:g}" for s in DEFAULT_SIGNALS)
        rows.append(
            [name, len(pools), *(float(singles[s].mean()) for s in DEFAULT_SIGNALS), float(hybrid.mean()), best.value,
             f"{hybrid.mean() - singles[best].mean():+.4f}", f"{comparison:.2g}", f"{tuned.profile.normalization} {weights}"]
        )  # fmt: skip
        kept.append(
            [name, float(singles[DEFAULT_SIGNALS[0]].mean()), _bm25s(app, collection, queries, qrels, True) if not demo else "–",
             _bm25s(app, collection, queries, qrels, False) if not demo else "–"]
        )  # fmt: skip
    table(
        [
            "nDCG@10",
            "queries",
            "bm25",
            "vdr (bags)",
            "dense",
            "hybrid, tuned",
            "best leg",
            "gain",
            "p (paired t)",
            "weights bm25/vdr/dense",
        ],
        rows,
    )
    table(["nDCG@10", "our BM25", "bm25s, its own words, same stemmer", "bm25s, our terms"], kept)
    app.close()


def _paired(ours: np.ndarray, theirs: np.ndarray) -> float:
    from scipy.stats import ttest_rel

    return float(ttest_rel(ours, theirs).pvalue)
