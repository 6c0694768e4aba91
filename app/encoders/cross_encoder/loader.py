"""Loads cross-encoders as rerankers, in torch or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hyblink.app.core.budget import forward_pass
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.cross_encoder.checks import check_scores
from hyblink.app.encoders.graphs.cache import OpenGraph
from hyblink.app.encoders.graphs.precision import GraphPrecision
from hyblink.app.encoders.loading.models import plain_tokenizer
from hyblink.app.encoders.loading.sources import source_of, tokens_in
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
        return OnnxScorer(graph, tokens_in(model, source.folder), plain_tokenizer(model), min(tokens, graph.longest))


class TorchScorer:
    """The `PairScorer` of a sentence-transformers CrossEncoder in torch."""

    def __init__(self, model: Any, batch: int) -> None:
        self.model = model
        self._batch = batch

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        del idf
        import torch

        with forward_pass(torch.get_num_threads()):
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
