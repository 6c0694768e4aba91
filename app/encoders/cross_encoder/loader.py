"""Loads cross-encoders as rerankers, in torch or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.graphs.cache import OpenGraph
from hyblink.app.encoders.graphs.precision import GraphPrecision
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER, CROSS_ENCODER_LORA, trained
from hyblink.app.encoders.loading.models import locate, plain_tokenizer, root_of
from hyblink.app.encoders.loading.sources import hub_folder, source_of, tokens_in
from hyblink.app.encoders.loading.tokens import TextTokens
from hyblink.app.encoders.runtimes.choice import graph_cache
from hyblink.app.encoders.runtimes.onnx_transformer import budget, passes, run


class CrossEncoderLoader:
    """The `RerankerLoader` of cross-encoders, both whole models and LoRA adapters."""

    def in_torch(self, model: str, device: str, tokens: int, *, bf16: bool, batch: int) -> TorchScorer:
        from hyblink.app.encoders.cross_encoder.transformer import load_scorer

        made = load_scorer(model, device, tokens)
        if bf16:
            made.bfloat16()
        return TorchScorer(made, batch)

    def in_onnx(self, model: str, settings: EncodeSettings, precision: GraphPrecision, tokens: int) -> OnnxScorer:
        check_scores(model)
        source = source_of(model)
        graph = graph_cache(settings).open(source, precision, "score")
        root = root_of(model)
        return OnnxScorer(graph, tokens_in(root, source.folder), plain_tokenizer(root), min(tokens, graph.longest))


def check_scores(model: str) -> None:
    """Raise EncoderUnavailableError if a model is no cross-encoder, such as a bi-encoder without a scoring layer."""
    from hyblink.app.core.manifest import read_json

    kind = trained(model).get("kind", CROSS_ENCODER)
    if kind == CROSS_ENCODER_LORA:
        return
    if kind != CROSS_ENCODER:
        raise EncoderUnavailableError("not a cross-encoder", received=kind, expected="a cross-encoder")
    located = Path(locate(model))
    config = (located if located.is_dir() else hub_folder(model)) / "config.json"
    known = read_json(config).get("architectures") or [] if config.is_file() else []
    if known and not any("SequenceClassification" in name for name in known):
        raise EncoderUnavailableError("not a cross-encoder", received=known, expected="…ForSequenceClassification")


class TorchScorer:
    """The `PairScorer` of a sentence-transformers CrossEncoder in torch."""

    def __init__(self, model: Any, batch: int) -> None:
        self.model = model
        self._batch = batch

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        del idf
        scores: ScoreArray = self.model.predict(list(pairs), batch_size=self._batch, show_progress_bar=False)
        return scores

    def contributions(self, query: str, passage: str, idf: TokenIdf | None) -> tuple[TokenContribution, ...]:
        """Empty: a cross-encoder's score cannot be split by token."""
        del query, passage, idf
        return ()


class OnnxScorer:
    """The `PairScorer` of a cross-encoder in ONNX Runtime."""

    def __init__(self, graph: OpenGraph, tokens: TextTokens, tokenizer: Any, longest: int) -> None:
        """`tokenizer` is a `tokenizers.Tokenizer` of the scorer's own. Pairs are cut after `longest` tokens."""
        self._graph = graph
        self._tokens = tokens
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(longest)

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        del idf
        encoded = self._tokenizer.encode_batch([(query.strip(), passage.strip()) for query, passage in pairs])
        scores = np.empty(len(pairs), dtype=np.float32)
        for group in passes([len(item.ids) for item in encoded], budget()):
            rows = [encoded[at].ids for at in group]
            scores[group] = run(self._graph.session, self._tokens, rows, [encoded[at].type_ids for at in group])
        return scores

    def contributions(self, query: str, passage: str, idf: TokenIdf | None) -> tuple[TokenContribution, ...]:
        """Empty: a cross-encoder's score cannot be split by token."""
        del query, passage, idf
        return ()
