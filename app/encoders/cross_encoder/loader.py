"""Loads cross-encoders as rerankers, in torch or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.cross_encoder.transformer import load_scorer
from hyblink.app.encoders.loading.models import onnx_session


class CrossEncoderLoader:
    """The `RerankerLoader` of cross-encoders, both whole models and LoRA adapters."""

    bf16_on_cpu = True

    def in_torch(self, model: str, device: str, tokens: int, *, bf16: bool, batch: int) -> TorchScorer:
        made = load_scorer(model, device, tokens)
        if bf16:
            made.bfloat16()
        return TorchScorer(made, batch)

    def in_graph(self, model: str, folder: Path, tokens: int) -> GraphScorer:
        del model
        return GraphScorer(folder, tokens)


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


class GraphScorer:
    """The `PairScorer` of an exported cross-encoder in ONNX Runtime.

    Each pair is computed by itself. Dynamic int8 quantisation scales activations over the whole batch, so in a batch a
    score would depend on the other pairs. On CPUs single pairs are also faster.
    """

    def __init__(self, folder: Path, tokens: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(tokens)
        self._session = onnx_session(folder)

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        del idf
        return np.array([self._score(item) for item in self._tokenizer.encode_batch(list(pairs))], dtype=np.float32)

    def _score(self, item: Any) -> float:
        given = {"input_ids": item.ids, "attention_mask": item.attention_mask, "token_type_ids": item.type_ids}
        (score,) = self._session.run(None, {name: np.array([ids], dtype=np.int64) for name, ids in given.items()})
        return float(score.item())

    def contributions(self, query: str, passage: str, idf: TokenIdf | None) -> tuple[TokenContribution, ...]:
        """Empty: a cross-encoder's score cannot be split by token."""
        del query, passage, idf
        return ()
