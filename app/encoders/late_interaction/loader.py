"""Loads late-interaction models as rerankers, in torch or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.encoders.graphs.precision import GraphPrecision
from hyblink.app.encoders.late_interaction.model import LateInteraction, in_onnx, in_torch
from hyblink.app.encoders.loading.models import base_of
from hyblink.app.encoders.vdr.bag import BagOfTokens

_BATCH = 4
"""The number of passages that are read together."""


class LateInteractionLoader:
    """The `RerankerLoader` of late interaction."""

    def in_torch(self, model: str, device: str, tokens: int, *, bf16: bool, batch: int) -> LateInteractionScorer:
        return LateInteractionScorer(in_torch(model, device, tokens, bf16=bf16), base_of(model), batch)

    def in_onnx(
        self, model: str, settings: EncodeSettings, precision: GraphPrecision, tokens: int
    ) -> LateInteractionScorer:
        return LateInteractionScorer(in_onnx(model, settings, precision, tokens), base_of(model), _BATCH)


class LateInteractionScorer:
    """The `PairScorer` of late interaction. It uses the collection's idf if that is over the model's vocabulary."""

    def __init__(self, model: LateInteraction, base: str, batch: int) -> None:
        self.model = model
        self._vocabulary = BagOfTokens(base).id
        self._batch = batch

    def _own(self, idf: TokenIdf | None) -> TermWeights | None:
        return idf.terms if idf is not None and idf.vocabulary == self._vocabulary else None

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        return self.model.predict(pairs, self._batch, self._own(idf))

    def contributions(self, query: str, passage: str, idf: TokenIdf | None) -> tuple[TokenContribution, ...]:
        return tuple(
            TokenContribution(f"{item.token} → {item.nearest}", item.contribution, item.weight, item.cosine)
            for item in self.model.alignment(query, passage, self._own(idf))
        )
