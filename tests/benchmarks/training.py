"""Training: throughput beside sentence-transformers' own trainer, re-ranking's time, and what each choice is worth.

The ablations train VDR heads for at most 100 steps with one seed on two sets and are measured on questions of a third that
none of them saw: they rank choices, they are no model's best figure.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.weights import calibrated, heaviest, idf
from hyblink.app.encoders.dense.backbone import Backbone
from hyblink.app.encoders.loading.adapters import WEIGHTS
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.reranker import SHIPPED, Reranker
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.app.encoders.vdr.adapter import VdrAdapter
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.measures import measure
from hyblink.training.data.hidden_states import StateCache
from hyblink.training.data.rows import TrainingRow, read_corpus, read_rows, write_jsonl
from hyblink.training.families.vdr.config import VdrConfig
from hyblink.training.negatives.mining import Mining, OfflineBm25, RandomPool, mine
from hyblink.training.recipes import recipe
from hyblink.training.run import train_model
from hyblink.training.run_config import SHIPPED_BACKBONE
from tests.benchmarks.timing import table

STEPS, BATCH, TOKENS = 40, 16, 128
TRAIN, TEST = ("squadshifts-new-wiki", "scifact"), "squadshifts-amazon-reviews"
_ROWS, _QUERIES, _BUDGET = 1200, 300, 100


def run(data: Path, work: Path, _passages: int) -> None:
    throughput(data, work / "training")
    reranking(data, work / "training")
    ablations(data, work / "training")
    lora_ranks(data, work / "training")


def throughput(data: Path, work: Path) -> None:
    """The same model, pairs, batch and loss, one after the other, each in a process of its own; theirs decays no weights."""
    work.mkdir(parents=True, exist_ok=True)
    rows = read_rows(data / TRAIN[0])[: BATCH * (STEPS + 2)]
    pairs = work / "pairs.jsonl"
    write_jsonl(pairs, [replace(row, positives=row.positives[:1], negatives=()) for row in rows])
    peer = work / "peer"
    if not peer.exists():  # what only that trainer needs stays out of our environment
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(peer), "datasets"],
                       check=True)  # fmt: skip
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(2):
        for name, found in rates.items():
            command = [sys.executable, "-m", "tests.benchmarks.trainers", name, str(pairs), str(peer)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(float(done.stdout.split()[-1]))
    ours, theirs = (float(np.median(rates[name])) for name in ("ours", "theirs"))
    table(
        [f"training, all weights, batch {BATCH}, {TOKENS} tokens", "pairs/s"],
        [["hyblink", ours], ["sentence-transformers' trainer", theirs], ["ratio (goal ≥ 0.9)", ours / theirs]],
    )


def reranking(data: Path, work: Path) -> None:
    """Milliseconds to re-rank 50 passages of a review, and how far int8 stands from fp32."""
    queries, _ = read_beir(data / TEST, "dev")
    corpus = list(read_corpus(data / TEST).values())
    asked = list(queries.values())[:: max(1, len(queries) // 20)][:20]
    rng = np.random.default_rng(0)
    pools = [[("", corpus[at].text) for at in rng.choice(len(corpus), 50, replace=False)] for _ in asked]
    lines, scores = [], {}
    for name, precision in product(SHIPPED, ("fp32", "int8")):
        encoder = Reranker(str(WEIGHTS / name), EncodeSettings(cross_encoder_precision=precision))
        encoder.load()
        encoder.score(asked[0], pools[0], float("inf"))
        taken, made = [], []
        for query, pool in zip(asked, pools, strict=True):
            started = time.perf_counter()
            made.append(encoder.score(query, pool, float("inf")))
            taken.append((time.perf_counter() - started) * 1e3)
        scores[name, precision] = np.array(made)
        lines.append([f"{name}, {precision}", float(np.median(taken)), float(np.percentile(taken, 95))])
    table(["re-ranking 50 passages, 256 tokens", "p50 ms", "p95 ms"], lines)
    for name in SHIPPED:
        agreement = float(np.corrcoef(*(scores[name, precision].ravel() for precision in ("fp32", "int8")))[0, 1])
        print(f"{name}: correlation of int8 with fp32 scores {agreement:.4f}")


class _Judged:
    """Dev questions of a set that is trained on nowhere here, and its passages' states."""

    def __init__(self, data: Path, cache: Path) -> None:
        self._model = load_sentence_transformer(SHIPPED_BACKBONE, "cpu")
        window = min(self._model.max_seq_length, 512)
        backbone = Backbone(TorchTransformer(self._model), window=window, max_tokens=512)
        self._cache = StateCache(cache, lambda: backbone, f"{SHIPPED_BACKBONE} {window} 512")
        queries, self._qrels = read_beir(data / TEST, "dev")
        ids = list(queries)
        kept = [ids[n * len(ids) // _QUERIES] for n in range(_QUERIES)]
        self._queries = {query: queries[query] for query in kept}
        self._corpus = read_corpus(data / TEST)

    def ndcg(self, folder: Path, *, mode: str = "full", passage_weights: int = 256) -> float:
        """nDCG@10 of a head, query weights calibrated by the collection's idf, 32 of them kept."""
        adapter = VdrAdapter(folder, passage_weights=passage_weights).over(TorchTransformer(self._model))
        passages = self._terms(adapter, [one.joined for one in self._corpus.values()], query=False)
        queries = self._terms(adapter, list(self._queries.values()), query=True)
        size = self._model[0].model.config.vocab_size
        found_PV = _matrix(passages, size)
        ids = np.arange(size, dtype=np.int32)
        prior = adapter.prior_idf(ids)
        own = TermWeights(ids, idf(np.asarray((found_PV > 0).sum(axis=0)).ravel(), len(passages)))
        if prior is not None:
            queries = [heaviest(_calibrated(one, own, prior), 32) for one in queries]
        return self._measured(mode, (_matrix([heaviest(one, 32) for one in queries], size) @ found_PV.T).toarray())

    def dense_ndcg(self, folder: str) -> float:
        """nDCG@10 of a bi-encoder's vectors."""
        model = load_sentence_transformer(folder, "cpu")
        model.max_seq_length = 256
        texts = [one.joined for one in self._corpus.values()]
        queries_QD, passages_PD = (
            model.encode(some, normalize_embeddings=True, show_progress_bar=False)
            for some in (list(self._queries.values()), texts)
        )
        return self._measured("dense", queries_QD @ passages_PD.T)

    def _measured(self, name: str, scores_QP: Any) -> float:
        names = list(self._corpus)
        results = {
            query: {names[at]: float(scores[at]) for at in np.argsort(-scores, kind="stable")[:100]}
            for query, scores in zip(self._queries, scores_QP, strict=True)
        }
        qrels = {query: self._qrels[query] for query in self._queries}
        return measure(name, qrels, results, ("nDCG@10",)).mean["nDCG@10"]

    def _terms(self, adapter: VdrAdapter, texts: Sequence[str], *, query: bool) -> list[TermWeights]:
        made = []
        for at in range(0, len(texts), 32):
            made += adapter.weights(self._cache.get(texts[at : at + 32]), query=query)
        return made


def _calibrated(terms: TermWeights, own: TermWeights, prior: Any) -> TermWeights:
    of_terms = TermWeights(terms.ids, own.weights[terms.ids])
    return calibrated(terms, of_terms, prior[terms.ids])


def _matrix(rows: Sequence[TermWeights], size: int) -> Any:
    starts = np.cumsum([0, *(len(one) for one in rows)])
    ids = np.concatenate([one.ids for one in rows])
    return sp.csr_matrix((np.concatenate([one.weights for one in rows]), ids, starts), shape=(len(rows), size))


def ablations(data: Path, work: Path) -> None:
    """VDR heads under one small budget, one choice changed at a time."""
    rows = _mined(data)
    sources = {name: _written(work / name, rows[name]) for name in rows}
    judged = _Judged(data, work / "judged-states")
    base = cast("VdrConfig", recipe("vdr_head", {"steps": str(_BUDGET), "checkpoint_every": "1000"}))
    both = replace(base, semantic=True)
    choices: list[tuple[str, VdrConfig, str, int]] = [
        ("lexical only (the recipe)", base, "bm25", 256),
        ("semantic only", replace(both, lexical=False), "bm25", 256),
        ("both", both, "bm25", 256),
        ("both, contrastive mask .1", replace(both, contrastive_mask=0.1), "bm25", 256),
        ("both, four-way loss", replace(both, loss="svdr"), "bm25", 256),
        ("both, 512 weights of a passage", both, "bm25", 512),
        ("both, 1,024", both, "bm25", 1024),
        ("both, 2,048", both, "bm25", 2048),
        ("lexical, in-batch negatives only", replace(base, negatives=0), "bm25", 256),
        ("lexical, random negatives", base, "random", 256),
        ("lexical, no teacher", replace(base, distil=0.0), "bm25", 256),
        ("lexical, its own idf learned", replace(base, calibrated=False), "bm25", 256),
    ]
    lines = []
    for label, config, negatives, weights in choices:
        out = work / "heads" / label.replace(" ", "-").replace(",", "").replace(".", "")
        if not out.exists() and not any(label.startswith(f"both, {n}") for n in ("512", "1,024", "2,048")):
            train_model(config, sources[negatives], out, cache=work / "states")
        if weights != 256:
            out = work / "heads" / "both"
        lines.append([label, judged.ndcg(out, passage_weights=weights)])
        print(lines[-1], flush=True)
    table([f"{_BUDGET} steps of {base.batch}, one seed; nDCG@10 on {_QUERIES} dev questions of {TEST}", "full"], lines)


def lora_ranks(data: Path, work: Path) -> None:
    """A bi-encoder with adapters of several ranks, else by the recipe `dense`; half the budget, for it costs more."""
    sources = [work / "bm25" / f"{name}.jsonl" for name in TRAIN]
    if not all(path.exists() for path in sources):
        sources = _written(work / "bm25", _mined(data)["bm25"])
    judged = _Judged(data, work / "judged-states")
    steps = _BUDGET // 2
    lines: list[list[object]] = [["untrained", judged.dense_ndcg(SHIPPED_BACKBONE)]]
    for rank in (4, 16, 64):
        out = work / "ranks" / f"rank-{rank}"
        if not out.exists():
            options = {"steps": str(steps), "lora_rank": str(rank), "passage_tokens": "192", "dropout": "false"}
            train_model(recipe("dense", options), sources, out, cache=work / "states")
        lines.append([f"LoRA rank {rank}", judged.dense_ndcg(str(out))])
        print(lines[-1], flush=True)
    table([f"{steps} steps of 16, one seed; nDCG@10 on {_QUERIES} dev questions of {TEST}", "dense"], lines)


def _mined(data: Path) -> dict[str, dict[str, list[TrainingRow]]]:
    """Rows of each training set with BM25's negatives and scores, and with random ones."""
    found: dict[str, dict[str, list[TrainingRow]]] = {"bm25": {}, "random": {}}
    for name in TRAIN:
        rows = read_rows(data / name)
        rows = rows[:: max(1, len(rows) // _ROWS)][:_ROWS]
        corpus = list(read_corpus(data / name).values())
        bm25 = OfflineBm25(corpus, Analyzer("english").terms)
        found["bm25"][name] = mine(rows, bm25, Mining(keep=16, last_rank=40), scores=True)
        found["random"][name] = mine(rows, RandomPool(corpus, seed=0), Mining(keep=16, last_rank=40))
    return found


def _written(folder: Path, rows: dict[str, list[TrainingRow]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in rows.items():
        write_jsonl(folder / f"{name}.jsonl", own)
    return [folder / f"{name}.jsonl" for name in rows]
