"""Measures what a model loses and gains in each runtime and precision, and chooses the one that it is served in."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.manifest import MANIFEST, write_json
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import MentionContext
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.families import family_of
from hyblink.app.encoders.graphs.precision import GRAPH_PRECISIONS
from hyblink.app.encoders.loading.adapters import DENSE, MENTION_LORA, SPAN_HEAD, trained
from hyblink.app.encoders.mention.span_head import SpanHead
from hyblink.app.encoders.mention.tower import MentionTower
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.encoders.runtimes.devices import cpu_has_bf16, on_gpu, torch_installed
from hyblink.app.encoders.vdr.adapter import DEFAULT as SHIPPED_VDR
from hyblink.app.encoders.vdr.adapter import VdrAdapter
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.json_lines import existing, full_lines
from hyblink.app.evaluation.linking.mentions import JudgedMention, read_mentions
from hyblink.app.evaluation.measures import SystemResult, measure
from hyblink.app.evaluation.significance import compare

LARGEST_LOSS = 0.003
"""A precision is chosen only if every figure keeps all but this share of what float32 has."""
FORMS = (("torch", "fp32"), ("torch", "bf16"), *(("onnx", precision) for precision in GRAPH_PRECISIONS))
"""(runtime, precision) of each row."""
_NDCG = "nDCG@10"
_TIMED = 48
_ENTITIES = 4000
_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is measured: the most documents and queries of a set."""

    documents: int = 2000
    queries: int = 200


@dataclass(frozen=True, slots=True)
class _Set:
    """A retrieval set: (title, text) by id, queries by id, judgements."""

    name: str
    documents: Mapping[str, tuple[str, str]]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class _Mentions:
    """A linking set: (title, text) by id, mentions in context with the id of each one's entity."""

    name: str
    entities: Mapping[str, tuple[str, str]]
    mentions: Sequence[tuple[MentionContext, str]]


def measure_precisions(
    model: str, settings: Settings, data: Sequence[Path], split: str, limits: Limits, say: Callable[[str], None]
) -> dict[str, Any]:
    """The table of a model: `precision`, the chosen one, and `rows`, one a runtime and precision.

    A row has `load_s`, `query_ms` (p50 of one query), `eight_ms` (eight together), `per_s` (documents, pairs or
    mentions a second), `memory_mb`, `figures` (set → value; nDCG@10, or accuracy of linking) and `p` (set → p-value of
    the difference from float32 in ONNX Runtime). Rows of torch are there if it is installed, those of bf16 if the
    machine has instructions for it. `data` are BEIR folders, or linking folders for models that read mentions. Raises
    InvalidInputError if none of them fits the model.
    """
    kind = str(trained(model).get("kind", DENSE))
    work = _work(model, kind, settings, data, split, limits)
    bf16 = cpu_has_bf16() or on_gpu(settings.encode)  # elsewhere it is several times slower than float32
    rows: list[dict[str, Any]] = []
    results: dict[str, dict[str, SystemResult]] = {}
    for runtime, precision in FORMS:
        if runtime == "torch" and not (torch_installed() and (precision != "bf16" or bf16)):
            continue
        changes = {"runtime": runtime, "precision": precision, "cross_encoder_precision": precision}
        own = settings.model_copy(update={"encode": settings.encode.model_copy(update=changes)})
        before = _memory()
        begun = time.perf_counter()
        try:
            run = work(own)
            row: dict[str, Any] = {"runtime": runtime, "precision": precision, **run.speeds(begun, before)}
        except EncoderUnavailableError as error:
            rows.append({"runtime": runtime, "precision": precision, "error": str(error)})
            continue
        if runtime == "onnx":
            found = dict(run.results())
            results[precision] = found
            row["figures"] = {name: round(result.mean[_NDCG], 4) for name, result in found.items()}
            if precision != "fp32":
                row["p"] = {
                    name: round(compare(result, results["fp32"][name], _NDCG).p_randomisation, 3)
                    for name, result in found.items()
                }
        rows.append(row)
        say(
            f"{runtime:5} {precision:8} {row.get('per_s')} /s  query {row.get('query_ms')} ms  {row.get('figures', '')}"
        )
        del run
        gc.collect()
    return {"precision": chosen(rows), "split": split, "sets": [path.name for path in data], "rows": rows}


def chosen(rows: Sequence[Mapping[str, Any]]) -> str:
    """The fastest graph whose figures all keep what float32 has, but for `LARGEST_LOSS`; fp32 if there is none.

    >>> chosen([{"runtime": "onnx", "precision": "fp32", "per_s": 20, "figures": {"a": 0.5}},
    ...         {"runtime": "onnx", "precision": "int8", "per_s": 40, "figures": {"a": 0.499}},
    ...         {"runtime": "onnx", "precision": "int8_all", "per_s": 50, "figures": {"a": 0.49}}])
    'int8'
    """
    graphs = {str(row["precision"]): row for row in rows if row["runtime"] == "onnx" and "figures" in row}
    plain = graphs["fp32"]["figures"]
    kept = [
        name
        for name, row in graphs.items()
        if all(row["figures"][key] >= value * (1 - LARGEST_LOSS) for key, value in plain.items())
    ]
    return max(kept, key=lambda name: float(graphs[name]["per_s"]))


def keep_table(model: str, table: Mapping[str, Any], out: Path | None) -> str:
    """Write a table to `out`, or into the manifest of a trained model. Returns what to tell the user."""
    manifest = trained(model)
    if out is not None:
        write_json(out, table)
        return str(out)
    if not manifest:
        return f"not kept, as the model has no manifest; set HYBLINK_ENCODE__PRECISION={table['precision']}"
    path = Path(model).expanduser() / MANIFEST
    write_json(path, {**manifest, "measured": dict(table)})
    return str(path)


class _Run:
    """A model in one runtime and precision, at work."""

    def __init__(
        self,
        load: Callable[[], object],
        one: Callable[[], object],
        eight: Callable[[], object],
        many: Callable[[], int],
        results: Callable[[], Iterator[tuple[str, SystemResult]]],
    ) -> None:
        self._load, self._one, self._eight, self._many, self.results = load, one, eight, many, results

    def speeds(self, begun: float, before: float) -> dict[str, float]:
        """Load time, latencies and throughput."""
        self._load()
        loaded = time.perf_counter() - begun
        self._many()
        self._one()
        begun = time.perf_counter()
        count = self._many()
        per_s = count / (time.perf_counter() - begun)
        return {
            "load_s": round(loaded, 2),
            "query_ms": round(_median(self._one), 2),
            "eight_ms": round(_median(self._eight), 2),
            "per_s": round(per_s, 1),
            "memory_mb": round(_memory() - before),
        }


def _median(act: Callable[[], object], count: int = 15) -> float:
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        act()
        took.append((time.perf_counter() - begun) * 1e3)
    return float(np.median(took))


def _memory() -> float:
    import psutil

    return float(psutil.Process(os.getpid()).memory_info().rss) / 2**20


def _work(
    model: str, kind: str, settings: Settings, data: Sequence[Path], split: str, limits: Limits
) -> Callable[[Settings], _Run]:
    if kind in {MENTION_LORA, SPAN_HEAD} or trained(model).get("recipe") == "blink_cross":
        sets = [_mentions(path, split, limits) for path in data if _has(path, "entities.jsonl")]
        expected = "folders with entities.jsonl and mentions"
        work: Callable[[Settings], _Run] = partial(_linking, model, kind, _entity_vectors(sets, settings), sets)
    else:
        retrieval = [_retrieval(path, split, limits) for path in data if _has(path, "corpus.jsonl")]
        sets, expected = list(retrieval), "BEIR folders"  # type: ignore[arg-type]
        reranks = family_of(model, DENSE).reranker is not None
        work = partial(_reranking, model, _candidates(retrieval)) if reranks else partial(_encoding, model, retrieval)
    if not sets:
        raise InvalidInputError(
            "no set that measures this model", received=[str(path) for path in data], expected=expected
        )
    return work


def _has(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))


def _retrieval(folder: Path, split: str, limits: Limits) -> _Set:
    from hyblink.training.data.rows import read_corpus

    queries, qrels = read_beir(folder, split)
    asked = sorted(queries)
    random.Random(0).shuffle(asked)
    asked = asked[: limits.queries]
    wanted = {document for query in asked for document in qrels[query]}
    texts = {name: (text.title, text.text) for name, text in read_corpus(folder).items()}
    return _Set(
        folder.name, _share(texts, wanted, limits.documents - len(wanted)), {query: queries[query] for query in asked},
        {query: qrels[query] for query in asked},
    )  # fmt: skip


def _mentions(folder: Path, split: str, limits: Limits) -> _Mentions:
    path = existing(folder, f"{split}.jsonl", f"{split}.jsonl.gz")
    mentions = [item for item in read_mentions(path) if item.entity_id]
    random.Random(0).shuffle(mentions)
    mentions = mentions[: limits.queries]
    entities = {}
    for _, line in full_lines(existing(folder, "entities.jsonl", "entities.jsonl.gz")):
        row = orjson.loads(line)
        entities[str(row["id"])] = (str(row["title"]), str(row.get("text") or ""))
    wanted = {item.entity_id for item in mentions}
    found = [(_context(item), item.entity_id) for item in mentions]
    return _Mentions(folder.name, _share(entities, wanted, min(_ENTITIES, limits.documents)), found)


def _context(item: JudgedMention) -> MentionContext:
    text = item.text.text
    ((start, end),) = item.text.mentions or ()
    return MentionContext(text[:start], text[start:end], text[end:])


def _share(texts: Mapping[str, tuple[str, str]], wanted: Collection[str], others: int) -> dict[str, tuple[str, str]]:
    """The texts that are wanted, and a random sample of so many others."""
    rest = [name for name in texts if name not in wanted]
    random.Random(0).shuffle(rest)
    kept = [*(name for name in texts if name in wanted), *rest[: max(0, others)]]
    return {name: texts[name] for name in kept}


def _result(name: str, qrels: Mapping[str, Mapping[str, int]], run: dict[str, dict[str, float]]) -> SystemResult:
    return measure(name, {query: dict(found) for query, found in qrels.items()}, run, (_NDCG,))


def _top(names: Sequence[str], scores: VectorArray, depth: int) -> dict[str, float]:
    best = np.argsort(-scores, kind="stable")[:depth]
    return {names[at]: float(scores[at]) for at in best.tolist()}


def _encoding(model: str, sets: Sequence[_Set], settings: Settings) -> _Run:
    """A bi-encoder, with the VDR head on its states if there is one."""
    encode = settings.encode.model_copy(update={"dense_model": model})
    dense = DenseTransformer(encode)
    head = VdrAdapter(SHIPPED_VDR, passage_weights=encode.passage_weights)
    vdr = head.with_dense(dense) if head.base == model else None
    first = sets[0]
    titles, texts = zip(*list(first.documents.values())[:_TIMED], strict=True)
    queries = list(first.queries.values())

    def many() -> int:
        dense.encode_passages(titles, texts)
        return len(texts)

    turn = iter(range(10**9))

    def results() -> Iterator[tuple[str, SystemResult]]:
        for item in sets:
            names = list(item.documents)
            of_titles, of_texts = zip(*item.documents.values(), strict=True)
            asked = list(item.queries.values())
            if vdr is None:
                vectors, sparse = dense.encode_passages(of_titles, of_texts), None
                in_dense, in_sparse = dense.encode_queries(asked), None
            else:
                made = vdr.encode_passages(of_titles, of_texts)
                vectors, sparse = made.vectors_ND, made.weights
                found = vdr.encode_queries(asked)
                in_dense, in_sparse = np.stack([query.vector_D for query in found]), [query.weights for query in found]
            run = {
                query: _top(names, vectors @ vector, 100) for query, vector in zip(item.queries, in_dense, strict=True)
            }
            yield f"{item.name} dense", _result("dense", item.qrels, run)
            if sparse is None or in_sparse is None:
                continue
            size = 1 + max(int(terms.ids.max()) for terms in (*sparse, *in_sparse) if terms is not None and len(terms))
            run = {}
            for query, terms in zip(item.queries, in_sparse, strict=True):
                wide = np.zeros(size, dtype=np.float32)
                if terms is not None:
                    wide[terms.ids] = terms.weights
                scores = np.array([own.weights @ wide[own.ids] for own in sparse], dtype=np.float32)
                run[query] = _top(names, scores, 100)
            yield f"{item.name} vdr", _result("vdr", item.qrels, run)

    return _Run(
        dense.load,
        lambda: dense.encode_query(queries[next(turn) % len(queries)]),
        lambda: dense.encode_queries(queries[:8]),
        many,
        results,
    )


def _candidates(sets: Sequence[_Set]) -> list[tuple[_Set, dict[str, list[str]]]]:
    """Each set with the best documents of each query by BM25."""
    from hyblink.training.data.rows import Text
    from hyblink.training.negatives.mining import OfflineBm25

    found = []
    for item in sets:
        names = {Text(title, text): name for name, (title, text) in item.documents.items()}
        bm25 = OfflineBm25(list(names), Analyzer("english").terms)
        best = {
            query: [names[proposal.text] for proposal in bm25(text, _DEPTH)] for query, text in item.queries.items()
        }
        found.append((item, best))
    return found


def _reranking(model: str, sets: Sequence[tuple[_Set, dict[str, list[str]]]], settings: Settings) -> _Run:
    reranker = Reranker(model, settings.encode)
    first, best = sets[0]
    queries = list(first.queries)

    def passages(item: _Set, names: Sequence[str]) -> list[tuple[str, str]]:
        return [item.documents[name] for name in names]

    def many() -> int:
        for query in queries[:4]:
            reranker.score(first.queries[query], passages(first, best[query]), float("inf"))
        return sum(len(best[query]) for query in queries[:4])

    def some(count: int) -> None:
        reranker.score(first.queries[queries[0]], passages(first, best[queries[0]][:count]), float("inf"))

    def results() -> Iterator[tuple[str, SystemResult]]:
        for item, found in sets:
            run = {}
            for query, names in found.items():
                scores = reranker.score(item.queries[query], passages(item, names), float("inf"))
                run[query] = dict(zip(names, scores.tolist(), strict=True))
            yield f"{item.name} re-ranked", _result("re-ranked", item.qrels, run)

    return _Run(reranker.load, partial(some, 1), partial(some, 8), many, results)


def _entity_vectors(sets: Sequence[_Mentions], settings: Settings) -> dict[str, VectorArray]:
    """The entities' vectors of each set, by the dense encoder in its own default precision."""
    dense = DenseTransformer(settings.encode)
    return {item.name: dense.encode_passages(*map(list, zip(*item.entities.values(), strict=True))) for item in sets}


def _linking(
    model: str, kind: str, entities: Mapping[str, VectorArray], sets: Sequence[_Mentions], settings: Settings
) -> _Run:
    contexts = [context for context, _ in sets[0].mentions]
    if kind not in {MENTION_LORA, SPAN_HEAD}:
        return _entity_cross(model, entities, sets, settings)
    turn = iter(range(10**9))
    encode: Callable[[Sequence[MentionContext]], VectorArray]
    if kind == SPAN_HEAD:
        head = SpanHead(Path(model), settings.encode, threshold=settings.link.span_threshold)

        def encode_spans(mentions: Sequence[MentionContext]) -> VectorArray:
            new = " " * next(turn)  # so that no text is known from before
            return head.encode_spans(
                [(m.left + m.mention + m.right + new, len(m.left), len(m.left) + len(m.mention)) for m in mentions]
            )

        encode = encode_spans
    else:
        encode = MentionTower(Path(model), settings.encode).encode

    def results() -> Iterator[tuple[str, SystemResult]]:
        for item in sets:
            names = list(item.entities)
            vectors = encode([context for context, _ in item.mentions])
            run = {str(at): _top(names, entities[item.name] @ vector, 10) for at, vector in enumerate(vectors)}
            yield f"{item.name} mentions", _result("mentions", _gold(item), run)

    return _Run(
        lambda: encode(contexts[:1]),
        lambda: encode([contexts[next(turn) % len(contexts)]]),
        lambda: encode(contexts[:8]),
        lambda: len(encode(contexts[:_TIMED])),
        results,
    )


def _gold(item: _Mentions) -> dict[str, dict[str, int]]:
    return {str(at): {gold: 1} for at, (_, gold) in enumerate(item.mentions)}


def _entity_cross(
    model: str, entities: Mapping[str, VectorArray], sets: Sequence[_Mentions], settings: Settings
) -> _Run:
    from hyblink.app.encoders.cross_encoder.entity import EntityCrossEncoder
    from hyblink.app.encoders.mention.tower import DEFAULT

    cross = EntityCrossEncoder(model, settings.encode, mention_tokens=settings.link.mention_tokens)
    tower = MentionTower(DEFAULT, settings.encode.model_copy(update={"runtime": "auto", "precision": "fp32"}))
    found: list[tuple[_Mentions, list[list[str]]]] = []
    for item in sets:
        names = list(item.entities)
        vectors = tower.encode([context for context, _ in item.mentions])
        found.append((item, [list(_top(names, entities[item.name] @ vector, 8)) for vector in vectors]))

    def score(item: _Mentions, best: Sequence[Sequence[str]], count: int) -> list[Any]:
        contexts = [context for context, _ in item.mentions[:count]]
        return cross.score(contexts, [[item.entities[n] for n in names] for names in best[:count]], float("inf"))

    def results() -> Iterator[tuple[str, SystemResult]]:
        for item, best in found:
            scores = score(item, best, len(best))
            run = {
                str(at): dict(zip(names, own.tolist(), strict=True))
                for at, (names, own) in enumerate(zip(best, scores, strict=True))
            }
            yield f"{item.name} linked", _result("linked", _gold(item), run)

    first, best = found[0]
    return _Run(
        cross.load,
        lambda: score(first, [best[0][:1]], 1),
        lambda: score(first, best, 1),
        lambda: 8 * len(score(first, best, 12)),
        results,
    )
